"""docs/ingest-format.md: its examples are sent as they stand, its errors are made."""

import gzip
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.appliance import Appliance, clean_environment, ocean_command
from support.paths import REPO
from support.tools import require_tool
from support.web import BATCH, INGEST

DOCUMENT = REPO / "docs" / "ingest-format.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
ERRORS = re.findall(r"^\| (OC-\d+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)

# What the table abridges: (body, address, headers).
ROOM = b'[{"sensor_id": "room-4", "value": 21.5}]'
GZIP = {"Content-Encoding": "gzip"}
BODIES: dict[str, tuple[bytes, str, dict[str, str]]] = {
    '`[{"sensor_id": …}]` to `/ingest`': (ROOM, INGEST, {}),
    "Latin-1 text": (b'{"sensor_id": "\xff", "value": 1}', INGEST, {}),
    "a batch": (
        b'[{"sensor_id": "s", "value": 1}, {"sensor_id": "s", "timestamp": "yesterday", "value": 1}]',
        BATCH,
        {},
    ),
    "half of a gzip body": (gzip.compress(ROOM, mtime=0)[:49], BATCH, GZIP),
    "JSON that says it is gzip": (ROOM, BATCH, GZIP),
    "columns": (b'{"sensor_id": "s", "timestamp": [1], "value": [1, 2]}', BATCH, {}),
    "lines": (
        b'{"sensor_id":"s","value":1}\n{"sensor_id":"s","value":}\n',
        BATCH,
        {"Content-Type": "application/x-ndjson"},
    ),
    "600,000 items": (
        b"[" + b",".join([b'{"sensor_id":"s","data":1}'] * 600_000) + b"]", BATCH, {},
    ),
    "100 MB in gzip": (gzip.compress(bytes(10**6)) * 100, BATCH, GZIP),
    "`Content-Encoding: br`": (ROOM, BATCH, {"Content-Encoding": "br"}),
}  # fmt: skip

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ingest-format"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("examples") / "data") as running:
        yield running.start()
        assert running.stop() == 0


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split("\n")[0][:60])
def test_every_example_is_stored(box: Appliance, tmp_path: Path, example: str) -> None:
    program = tmp_path / "ocean"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(ocean_command())} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    environment = clean_environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    for tool in ("curl", "gzip", "zstd", "xxd"):
        if tool in example:
            require_tool(tool)
    commands = example.replace("http://127.0.0.1:8030", box.url).replace("curl ", "curl -sS ")
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = done.stdout.replace("}{", "}\n{").split("\n")
    assert len(answers) == example.count("curl ")
    assert all(json.loads(answer)["buffered"] for answer in answers)


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: f"{row[0]} {row[1][:40]}")
def test_every_error_is_told_like_this(box: Appliance, row: tuple[str, str, str]) -> None:
    code, sent, detail = row
    if sent in BODIES:
        body, path, headers = BODIES[sent]
    else:
        body, path, headers = sent.strip("`").encode(), INGEST, {}
    problem = box.http().post(path, body, headers=headers).json()
    assert (problem["code"], problem["detail"]) == (code, detail)


def test_the_table_and_the_examples_are_there() -> None:
    assert len(EXAMPLES) >= 5
    assert {row[1] for row in ERRORS} >= set(BODIES)
