"""docs/nanogridata.md, docs/troubleshooting.md: their examples run, their tables are the code's."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocean_core.cli.frame_advice import NEXT_STEPS
from ocean_core.config.settings import all_settings
from ocean_core.model import limits
from ocean_core.model.errors import all_error_classes
from ocean_core.protocol.nanogridata import cbor
from ocean_core.protocol.nanogridata.binary import NAME_BYTES_MAX
from ocean_core.protocol.nanogridata.frame import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_MIN,
    PAYLOAD_BYTES_MAX,
    Options,
    Outcome,
    PayloadType,
)
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.alarms import ALARM_KINDS
from support.appliance import Appliance
from support.paths import REPO
from support.tools import require_tool
from support.waiting import until

DOCS = REPO / "docs"
TEXT = (DOCS / "nanogridata.md").read_text(encoding="utf-8")
TROUBLE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
README = (REPO / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
ALONE = [example for example in EXAMPLES if "127.0.0.1" not in example]
WITH_BOX = [example for example in EXAMPLES if "127.0.0.1" in example]
SCRIPT = re.search(
    r"^<!-- send_frame.py -->\n```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
)
WORKED = re.search(r"^```\n(ok .*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
LISTENERS = {
    "OCEAN_NANOGRIDATA__TCP": "true",
    "OCEAN_NANOGRIDATA__UDP": "true",
    "OCEAN_NANOGRIDATA__TCP_PORT": "0",
    "OCEAN_NANOGRIDATA__UDP_PORT": "0",
}
ERRORS = re.findall(r"^\| (\d+) \| `(E_\w+)` \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the examples take for granted: `ocean`, `python3`, the files."""
    path = tmp_path_factory.mktemp("examples")
    python = shlex.quote(sys.executable)
    for name, command in {"ocean": f"{python} -m ocean_core", "python3": python}.items():
        (path / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (path / name).chmod(0o700)
    assert SCRIPT is not None
    (path / "send_frame.py").write_text(SCRIPT[1], encoding="utf-8")
    (path / "example.key").write_text(
        "cca9c2d22fdbbe3aea381a08969e5bea9d360348773a063d5424db410830f527\n", encoding="utf-8"
    )
    return path


def shell(folder: Path, commands: str) -> str:
    """Run commands as they stand in the document; return what they print."""
    done = subprocess.run(
        [require_tool("bash"), "-e", "-o", "pipefail", "-c", commands],
        cwd=folder, env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- examples -----------------------------------------------------------------------------------


def test_the_worked_example_is_told_like_this(folder: Path) -> None:
    assert WORKED is not None
    assert shell(folder, ALONE[0]) == WORKED[1]


def test_bytes_of_the_worked_example_are_those_that_are_explained() -> None:
    listed = TEXT.split("```\n")[1]
    data = bytes.fromhex("".join(line.split("  ")[0] for line in listed.splitlines()))
    typed = "".join(ALONE[0].split("1768650000 \\\n")[1].replace("\\\n", "").split())
    assert data.hex() == typed


@pytest.mark.parametrize("example", ALONE[1:], ids=lambda example: example.split("\n")[0][:60])
def test_examples_without_a_box_work(folder: Path, example: str) -> None:
    assert shell(folder, example).startswith("ok  a good frame")


def test_the_encryption_key_is_that_of_the_secret(folder: Path) -> None:
    secret = bytes.fromhex((folder / "example.key").read_text(encoding="utf-8"))
    assert f"`{HmacSecret(secret, 'example').encryption_key().hex()}`" in TEXT


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    data = tmp_path_factory.mktemp("box") / "data"
    with Appliance(data, settings=LISTENERS) as running:
        running.start()
        until(
            lambda: running.http().get("/api/ocean/sensors").status == 200,
            within_s=30, what="analytics are up",
        )  # fmt: skip
        yield running
        assert running.stop() == 0


def at_box(box: Appliance, commands: str) -> str:
    """Return commands for the ports of a box in a test."""
    run = json.loads((box.data_dir / "run.json").read_bytes())
    for usual, name in (("tcp/127.0.0.1/5678", "frames_tcp"), ("udp/127.0.0.1/5679", "frames_udp")):
        commands = commands.replace(usual, usual[:4] + run[name].replace(":", "/"))
    commands = commands.replace("http://127.0.0.1:8030", box.url).replace("curl ", "curl -fsS ")
    return commands.replace(".venv/bin/ocean", "ocean")


@pytest.mark.e2e
@pytest.mark.xdist_group("nanogridata-docs")
@pytest.mark.parametrize("example", WITH_BOX, ids=["tcp", "udp", "http", "json"])
def test_examples_reach_the_box(box: Appliance, folder: Path, example: str) -> None:
    require_tool("curl")
    # A device of its own, since frames of one second may be the same.
    name = f"press-{WITH_BOX.index(example)}"
    shell(folder, at_box(box, example.replace("press-07", name)))
    # TCP and UDP do not tell when it is stored.
    address = f"/api/ocean/sensors/{name}/latest?wait=true"
    until(
        lambda: "101325" in json.dumps(box.http().get(address).json()),
        within_s=30, what="the reading is there",
    )  # fmt: skip


@pytest.mark.e2e
@pytest.mark.xdist_group("nanogridata-docs")
def test_the_quick_start_of_the_readme_works(box: Appliance, folder: Path) -> None:
    require_tool("curl")
    blocks = re.findall(r"^```\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    commands = next(block for block in blocks if "ocean encode" in block)
    assert "101325" in shell(folder, at_box(box, commands))


def records_for(box: Appliance, sent: bytes, count: int) -> list[bytes]:
    """Ask for acknowledgements, send, and return as many records."""
    run = json.loads((box.data_dir / "run.json").read_bytes())
    host, _, port = run["frames_tcp"].rpartition(":")
    with socket.create_connection((host, int(port)), 30) as device:
        device.sendall(bytes.fromhex("C141434B") + sent)
        with device.makefile("rb") as answers:
            return [answers.read(12) for _ in range(count)]


@pytest.mark.e2e
@pytest.mark.xdist_group("nanogridata-docs")
def test_acknowledgements_are_as_described(box: Appliance, folder: Path) -> None:
    encode = "ocean encode --device-id ack --pressure-pa 1 --binary"
    shell(folder, f"{encode} > good; {encode} --timestamp 60 > old 2> said")
    good, old = ((folder / name).read_bytes() for name in ("good", "old"))
    stored, duplicate, refused = records_for(box, good + b"noise" + good + old, 3)
    echo = good[8:12] + good[-2:]
    assert stored == bytes.fromhex("C1410000") + echo + bytes(2)
    assert duplicate == bytes.fromhex("C1410100") + echo + bytes(2)
    number = next(int(number) for number, name, *_ in ERRORS if name == "E_STALE")
    assert refused == bytes([0xC1, 0x41, 2, number]) + old[8:12] + old[-2:] + bytes(2)


@pytest.mark.e2e
@pytest.mark.xdist_group("nanogridata-docs")
def test_http_answers_are_as_described(box: Appliance, folder: Path) -> None:
    shell(
        folder, "ocean encode --device-id h --pressure-pa 1 --binary --timestamp 60 > old 2> said"
    )
    shell(folder, "ocean encode --device-id h --pressure-pa 1 --binary > good")
    good, old = ((folder / name).read_bytes() for name in ("good", "old"))
    kind = {"Content-Type": "application/x-nanogridata"}
    refused = box.http().post("/api/ocean/telemetry/ingest", old, headers=kind)
    assert refused.status == 422
    problem = refused.json()
    assert problem["code"] == "OC-2010"
    error = problem["errors"][0]
    assert error["found"].startswith("E_STALE at byte 8: header time ")
    assert f'"expected": "{error["expected"]}"' in TEXT
    assert problem["detail"] == f"frame: found {error['found']}, expected {error['expected']}."
    batch = box.http().post("/api/ocean/telemetry/batch", good + old, headers=kind)
    assert batch.status == 200
    answer = batch.json()
    assert (answer["count"], answer["rejected"][0]["item"]) == (1, 1)
    again = box.http().post("/api/ocean/telemetry/ingest", good, headers=kind).json()
    assert (again["duplicate"], again["id"]) == (True, 0)


# --- tables -------------------------------------------------------------------------------------


def test_every_error_stands_in_the_table_with_its_number() -> None:
    expected = [
        (str(outcome.number), str(outcome), NEXT_STEPS[outcome])
        for outcome in Outcome
        if outcome is not Outcome.OK
    ]
    assert [(number, name, step) for number, name, _, step in ERRORS] == expected


def test_every_error_is_told_in_words_that_are_its_own() -> None:
    assert len({wrong for _, _, wrong, _ in ERRORS}) == len(Outcome) - 1


def test_limits_are_those_of_the_code() -> None:
    for words in (
        f"has {FRAME_BYTES_MIN}\nbytes, the largest 14 + {PAYLOAD_BYTES_MAX} + 32 = {FRAME_BYTES_MAX}.",
        f"| text or byte string | {cbor.STRING_BYTES_MAX} bytes |",
        f"| array | {cbor.ARRAY_ITEMS_MAX} items |",
        f"| map | {cbor.MAP_PAIRS_MAX} pairs |",
        f"the outermost counted | {cbor.DEPTH_MAX} |",
        f"| device id, lab id, gas type | {NAME_BYTES_MAX} bytes |",
        f"| secrets | {limits.SECRET_BYTES_MIN} to {limits.SECRET_BYTES_MAX} bytes each, {limits.SECRETS_MAX:,} in all |",
        f"| models | {limits.MODELS_MAX}, one byte |",
        f"| a begun frame | must go on within {limits.FRAME_PARTIAL_S:g} s |",
        f"{limits.GARBAGE_BYTES_MAX // 1024} KiB without a frame",
        f"| quarantine | {limits.QUARANTINE_FRAMES_MAX:,} frames",
        f"all together {limits.FRAME_CONNECTIONS_MAX}.",
        f"({limits.FRAMES_REMEMBERED_MAX:,}, or",
    ):
        assert words in TEXT, words
    for kind in PayloadType:
        assert f"| {kind.value} | {kind.name.lower()} |" in TEXT


def test_sizes_of_the_memory_are_computed_right() -> None:
    rows = re.findall(r"^\| (\d+)[^|]* \| ([\d,]+) frames/s \|$", TEXT, re.MULTILINE)
    assert len(rows) == 3
    for age, rate in rows:
        most = limits.FRAMES_REMEMBERED_MAX / (int(age) + Options().future_tolerance_s)
        assert 0.95 * most <= int(rate.replace(",", "")) <= most


@pytest.mark.parametrize("text", [TEXT, TROUBLE], ids=["nanogridata", "troubleshooting"])
def test_settings_and_commands_exist(text: str, folder: Path) -> None:
    names = {info.name for info in all_settings()}
    for name in re.findall(r"`(nanogridata\.[a-z_]+)\b(?!\.md|\.toml)", text):
        assert name in names or name == "nanogridata.toml", name
    commands = {
        tuple(words)
        for words in re.findall(
            r"ocean (keys nanogridata|quarantine|sensors|users|config) (\w+)", text
        )
    }
    assert commands
    for group, command in sorted(commands):
        assert "Usage:" in shell(folder, f"ocean {group} {command} --help")


def test_options_are_told_with_their_defaults() -> None:
    told = " ".join(TEXT.split("Options of the operator")[1].split("\n\n")[0].split())
    defaults = Options()
    for name in Options.__struct_fields__:
        value = getattr(defaults, name)
        shown = str(value).lower() if isinstance(value, bool) else value
        shown = ", ".join(value) if isinstance(value, tuple) else shown
        assert f"`{name}` {shown}" in told, name


def test_troubleshooting_names_codes_and_alarms_that_exist() -> None:
    known = {cls.code for cls in all_error_classes()}
    assert set(re.findall(r"OC-\d{4}", TROUBLE)) <= known
    assert set(re.findall(r"`(E_\w+)`", TROUBLE)) <= {str(outcome) for outcome in Outcome}
    named = set(re.findall(r"`((?:analytics|clock|frames|disk|buffer)\.[a-z]+)`", TROUBLE))
    assert named - {"analytics.duckdb"} <= set(ALARM_KINDS)


@pytest.mark.parametrize("name", ["nanogridata.md", "troubleshooting.md"])
def test_links_to_sections_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(
        r"\]\(([^)#]*)#([^)]+)\)", (DOCS / name).read_text(encoding="utf-8")
    ):
        path = DOCS / target if target else DOCS / name
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }
        assert anchor in anchors, f"{target}#{anchor}"
