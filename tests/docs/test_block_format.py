"""The programs of docs/block-format.md, taken out of it, built, run, and believed by a server."""

import json
import math
import random
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from ocean_core.model.block import Block, Readings, pack_block
from ocean_core.model.errors import OceanError
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings import DecodeContext, decode_batch
from support.appliance import Appliance
from support.paths import REPO
from support.stored import stored_readings
from support.tools import require_tool
from support.web import BATCH, INGEST

DOCUMENT = REPO / "docs" / "block-format.md"
PROGRAMS = ["send_block.py", "pack_block.c"]
BLOCK_TYPE = {"Content-Type": "application/x-ocean-block"}
START_US = 1_768_636_800_000_000

Row = tuple[str, str, int, float]

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("block-format"), pytest.mark.timeout(120)]


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def program(name: str) -> str:
    """Return a program as the document shows it."""
    found = re.search(
        rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```$", text(), re.DOTALL | re.MULTILINE
    )
    assert found is not None, name
    return found[1]


def rows() -> list[Row]:
    """Return readings of several series; some values are hard to write."""
    chance = random.Random(8)
    series = [("press-01", "value"), ("raum-ä", "temperature"), ("raum-ä", "humidity")]
    values = [0.1, -0.0, 1e300, 5e-324, -1.5, 2**53 + 2.0]
    values += [chance.uniform(-1e6, 1e6) for _ in range(94)]
    return [
        (*chance.choice(series), START_US + 1_000_003 * place, value)
        for place, value in enumerate(values)
    ]


def packed(readings: list[Row]) -> bytes:
    """Return the block that we make of them ourselves; what the box decides is 0."""
    series: dict[tuple[str, str], int] = {}
    index = [series.setdefault((sensor, metric), len(series)) for sensor, metric, _, _ in readings]
    columns = Readings(
        list(series),
        np.array(index, dtype=np.uint32),
        np.array([moment for _, _, moment, _ in readings], dtype=np.int64),
        np.array([value for _, _, _, value in readings]),
        np.zeros(len(readings), dtype=np.uint8),
    )
    return pack_block(Block(0, 0, bytes(16), columns))


def lines(readings: list[Row]) -> bytes:
    return "".join(f"{s} {m} {moment} {value!r}\n" for s, m, moment, value in readings).encode()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return how each program is called; they are written and built outside of the source."""
    folder = tmp_path_factory.mktemp("programs")
    for name in PROGRAMS:
        (folder / name).write_text(program(name), encoding="utf-8")
    made = {"send_block.py": [sys.executable, "-I", str(folder / "send_block.py")]}
    compiler = require_tool("cc")
    binary = folder / "pack_block"
    built = subprocess.run(
        [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror",
         "-o", str(binary), str(folder / "pack_block.c")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return made | {"pack_block.c": [str(binary)]}


def run(command: list[str], readings: list[Row]) -> bytes:
    """Return what the program writes for these readings."""
    done = subprocess.run(
        command, input=lines(readings), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("blocks") / "data") as running:
        yield running.start()
        assert running.stop() == 0


def stored(box: Appliance, answer: dict[str, int]) -> list[Row]:
    """Return the readings that an answer tells of."""
    found = stored_readings(box, answer["first_id"], answer["last_id"])
    assert len(found) == answer["count"]
    return [(row.sensor_id, row.metric, row.timestamp_us, row.value) for row in found]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("count", [1, 100])
def test_a_program_makes_the_block_that_we_make(
    commands: dict[str, list[str]], name: str, count: int
) -> None:
    readings = rows()[:count]
    assert run(commands[name], readings) == packed(readings)


def test_the_c_encoder_reads_and_writes_no_byte_too_many(
    commands: dict[str, list[str]], tmp_path: Path
) -> None:
    source = Path(commands["send_block.py"][-1]).with_name("pack_block.c")
    binary = tmp_path / "checked"
    flags = ["-std=c11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([require_tool("cc"), *flags, "-o", binary, source], timeout=60, check=True)
    # As many rows and series as fit, with the longest names; one more of each is not taken.
    full = [(f"{place % 32:0256}", f"{place % 32:0128}", place, 0.5) for place in range(1000)]
    assert run([str(binary)], full) == packed(full)


def test_a_block_of_the_python_program_is_stored(
    commands: dict[str, list[str]], box: Appliance
) -> None:
    readings = rows()
    answer = json.loads(run([*commands["send_block.py"], box.url], readings))
    assert stored(box, answer) == readings
    again = json.loads(run([*commands["send_block.py"], box.url], readings))
    assert again == {**answer, "duplicate": True}


def test_a_block_of_the_c_program_is_stored(commands: dict[str, list[str]], box: Appliance) -> None:
    readings = rows()
    block = run(commands["pack_block.c"], readings)
    answer = box.http().post(BATCH, block, headers=BLOCK_TYPE).good()
    assert answer["count"] == len(readings)
    assert stored(box, answer) == readings


def test_the_lines_that_a_device_sends_are_enough(box: Appliance) -> None:
    found = re.search(r"^```\n(POST .*?)```$", text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    head = found[1].replace("\n", "\r\n").encode() + b"\r\n"
    block = packed([("press-01", "value", START_US, 101.3)])
    address = urlsplit(box.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        # The connection may be kept for the next block.
        for duplicate in (False, True):
            connection.sendall(head + block)
            answer = b""
            while not answer.endswith(b"}"):
                piece = connection.recv(65536)
                assert piece, answer
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200")
            assert (b'"duplicate":true' in answer) == duplicate


# --- what the table of errors says ----------------------------------------------------------------

TWO = [("press-01", "value", START_US, 1.0), ("press-01", "value", START_US, 2.0)]


def with_crc(block: bytes, at: int, data: bytes) -> bytes:
    """Return a block in which some bytes are others, but the CRC is right."""
    changed = bytearray(block)
    changed[at : at + len(data)] = data
    crc = zlib.crc32(changed[64:], zlib.crc32(changed[:60]))
    return bytes(changed[:60]) + struct.pack("<I", crc) + bytes(changed[64:])


def errors() -> dict[str, bytes]:
    good = packed(TWO)
    flipped = bytearray(good)
    flipped[70] ^= 1
    return {
        "a block without its last 5 bytes": good[:-5],
        "a flipped bit": bytes(flipped),
        "JSON": b'[{"sensor_id":"a","value":1}]' * 4,
        "NaN": with_crc(good, 64 + 24, struct.pack("<d", math.nan)),
        "an index beyond the dictionary": with_crc(good, 64 + 36, struct.pack("<I", 3)),
        "500,001 rows": packed(TWO[:1] * 500_001),
    }


def table() -> list[tuple[str, str, str]]:
    return re.findall(r"^\| (OC-\d+) \| ([^|]+) \| ([^|]+) \|$", text(), re.MULTILINE)


@pytest.mark.parametrize("row", table(), ids=lambda row: row[1])
def test_errors_are_those_of_the_table(box: Appliance, row: tuple[str, str, str]) -> None:
    code, sent, detail = row
    if sent == "a block to `/ingest`":
        problem = box.http().post(INGEST, packed(TWO), headers=BLOCK_TYPE).problem(415, code)
        assert "/api/ocean/telemetry/batch" in problem["hint"]
    else:
        body = errors()[sent]
        problem = box.http().post(BATCH, body, headers=BLOCK_TYPE).json()
    assert (problem["code"], problem["detail"]) == (code, detail)


def test_the_table_has_every_error() -> None:
    assert {row[1] for row in table()} == {*errors(), "a block to `/ingest`"}


# --- what is ignored ------------------------------------------------------------------------------


def test_what_the_box_decides_is_not_looked_at() -> None:
    context = DecodeContext(arrival_us=START_US + 10**9, clock_trusted=True)
    block = packed(TWO)
    plain = decode_batch(block, context, partial=False, media=Media.BLOCK)
    for at, size in ((8, 8), (24, 8), (32, 16)):
        noisy = with_crc(block, at, b"\xff" * size)
        assert decode_batch(noisy, context, partial=False, media=Media.BLOCK) == plain


@pytest.mark.parametrize("at", [0, 4, 5, 6, 16, 20, 48, 52, 56, 60])
def test_every_other_field_of_the_header_counts(at: int) -> None:
    context = DecodeContext(arrival_us=START_US + 10**9, clock_trusted=True)
    block = packed(TWO)
    changed = with_crc(block, at, bytes([block[at] ^ 1]))
    if at == 60:
        changed = block[:60] + bytes([block[60] ^ 1]) + block[61:]
    with pytest.raises(OceanError):
        decode_batch(changed, context, partial=False, media=Media.BLOCK)
