"""The example clients of docs/devices: what is acknowledged is stored once, whatever happens."""

import ast
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocean_core.protocol.nanogridata.frame import Outcome
from support.appliance import Appliance, clean_environment
from support.frame_appliance import (
    SECRET,
    frame_settings,
    frames_port,
    keep_frames_port,
    write_secret,
)
from support.frame_box import LATER, LOSE, LOSE_AFTER, Decide, FrameBox, FrameServer
from support.paths import REPO
from support.tools import require_tool
from support.waiting import pause, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

DEVICES = REPO / "docs" / "devices"
DIGESTS = "/api/ocean/telemetry/digests"
LANGUAGES = ("c", "micropython")
_RESULT = re.compile(r"(\d+) stored, (\d+) duplicates, (\d+) refused, (\d+) connections")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("client") / "nanogridata_client"
    compiler = require_tool("cc")
    source = DEVICES / "nanogridata_client.c"
    done = subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Werror", "-std=c99", "-O2", "-o", program, source],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return program


class Client:
    """One of the two, as it is used from a command line."""

    def __init__(self, language: str, compiled: Path) -> None:
        self.command = (
            [str(compiled)] if language == "c"
            else [sys.executable, str(DEVICES / "nanogridata_client.py")]
        )  # fmt: skip

    def start(
        self, port: int, device: str, secret_file: Path | str, readings: int
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, "127.0.0.1", str(port), device, str(secret_file), str(readings)],
            env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self, port: int, device: str, secret_file: Path | str, readings: int, *, code: int = 0
    ) -> list[int]:
        """Return how many were stored, duplicates, refused, and how many connections it took."""
        return result_of(self.start(port, device, secret_file, readings), code=code)


def result_of(process: subprocess.Popen[str], *, code: int = 0) -> list[int]:
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, (process.returncode, output, errors)
    found = _RESULT.search(output)
    assert found is not None, output
    return [int(number) for number in found.groups()]


@pytest.fixture(params=LANGUAGES)
def client(request: pytest.FixtureRequest, compiled: Path) -> Client:
    return Client(request.param, compiled)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "secret")


def box_of(decide: Decide = lambda _: None) -> FrameBox:
    return FrameBox(lambda: int(time.time()), SECRET, decide)


def check_all_there(box: FrameBox, device: str, readings: int) -> None:
    found = box.readings()
    assert {one[:2] for one in found} == {(device, "pressure")}
    seconds = sorted(one[2] for one in found)
    assert seconds == [seconds[0] + number for number in range(readings)]
    values = [one[3] for one in sorted(found, key=lambda one: one[2])]
    assert values == [101325 + number * 37 % 1000 for number in range(readings)]


@pytest.mark.parametrize("level", [0, 1])
def test_what_it_sends_is_what_the_server_reads(
    client: Client, secret_file: Path, level: int
) -> None:
    box = box_of()
    with FrameServer(box) as server:
        result = client.run(server.port, "press-07", secret_file if level else "-", 100)
    assert result == [100, 0, 0, 1]
    check_all_there(box, "press-07", 100)
    assert box.suspects == 0


def test_what_a_lost_connection_leaves_unanswered_is_sent_again(
    client: Client, secret_file: Path
) -> None:
    events = {20: LOSE, 45: LOSE_AFTER, 70: LOSE_AFTER, 71: LOSE, 150: LOSE_AFTER}
    box = box_of(events.get)
    with FrameServer(box) as server:
        stored, duplicates, refused, connections = client.run(
            server.port, "press-08", secret_file, 200
        )
    # Known as stored or, where the answer was lost, as a duplicate.
    assert (stored + duplicates, refused) == (200, 0)
    assert duplicates >= 3
    assert connections == 6
    check_all_there(box, "press-08", 200)


def test_a_busy_box_is_left_alone_for_a_while(client: Client, secret_file: Path) -> None:
    box = box_of({10: LATER}.get)
    with FrameServer(box) as server:
        began = time.monotonic()
        stored, duplicates, refused, connections = client.run(
            server.port, "press-09", secret_file, 60
        )
        assert time.monotonic() - began >= 1.0
    assert (stored + duplicates, refused, connections) == (60, 0, 2)
    check_all_there(box, "press-09", 60)


def test_a_wrong_secret_is_told_and_nothing_is_stored(client: Client, tmp_path: Path) -> None:
    wrong = write_secret(tmp_path / "wrong", bytes(32))
    box = box_of()
    with FrameServer(box) as server:
        stored, duplicates, refused, _ = client.run(server.port, "press-10", wrong, 5, code=1)
    assert (stored, duplicates, refused) == (0, 0, 5)
    assert not box.stored


@pytest.mark.parametrize(
    "arguments", [(), ("127.0.0.1", "1", "d", "/nonexistent", "1"), ("127.0.0.1", "1", "d", "-")]
)
def test_wrong_usage_is_told(client: Client, arguments: tuple[str, ...]) -> None:
    check_refused(client, *arguments)


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"ab" * 20 + b"c", b"too short, and raw"])
def test_a_secret_that_will_not_do_is_told(client: Client, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    errors = check_refused(client, "127.0.0.1", "1", "press-13", str(path), "1")
    assert str(path) in errors


def check_refused(client: Client, *arguments: str) -> str:
    done = subprocess.run(
        [*client.command, *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_box_that_is_away_is_told_once_and_waited_for(client: Client, secret_file: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = client.start(port, "press-14", secret_file, 5)
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        # Long enough for several attempts.
        pause(0.5)
        assert process.poll() is None
    finally:
        process.kill()
        rest = process.communicate(timeout=20)[1]
    assert (told, rest) == (f"waiting for 127.0.0.1:{port}\n", "")


def test_the_last_error_is_named(client: Client, tmp_path: Path) -> None:
    wrong = write_secret(tmp_path / "wrong", bytes(32))
    with FrameServer(box_of()) as server:
        process = client.start(server.port, "press-15", wrong, 2)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert f"last error: number {Outcome.MAC.number} of the table" in output


@pytest.mark.parametrize("size", [32, 64, 65, 200])
def test_secrets_may_be_raw_and_of_any_size(client: Client, tmp_path: Path, size: int) -> None:
    secret = random.Random(size).randbytes(size)
    raw = tmp_path / "raw"
    raw.write_bytes(secret)
    box = FrameBox(lambda: int(time.time()), secret)
    with FrameServer(box) as server:
        result = client.run(server.port, "x" * 64, raw, 3)
    assert result == [3, 0, 0, 1]


def test_the_micropython_client_needs_only_what_micropython_has() -> None:
    tree = ast.parse((DEVICES / "nanogridata_client.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"binascii", "hashlib", "socket", "struct", "sys", "time"}
    assert not any(isinstance(node, ast.ImportFrom | ast.AnnAssign) for node in ast.walk(tree))
    # Methods that CPython has and MicroPython's hashes, sockets and integers have not.
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {
        "copy",
        "hexdigest",
        "create_connection",
        "bit_length",
        "fromhex",
        "monotonic",
    }


# --- the real server


def rows_of(box: Appliance, device: str) -> list[float]:
    def answered() -> bool:
        # Analytics may still be starting.
        return box.http().get(DIGESTS, prefix=device).status == 200

    until(answered, within_s=30, what="analytics are there")
    page = box.http().get(DIGESTS, prefix=device, wait="true").good()
    return [entry["count"] for entry in page["series"] if entry["metric"] == "pressure"]


@pytest.fixture
def appliance(tmp_path: Path, secret_file: Path) -> Appliance:
    return Appliance(tmp_path / "data", settings=frame_settings(secret_file))


def test_the_real_server_stores_it_once(
    client: Client, appliance: Appliance, secret_file: Path
) -> None:
    with appliance as box:
        box.start()
        result = client.run(frames_port(box), "press-11", secret_file, 300)
        assert result == [300, 0, 0, 1]
        assert rows_of(box, "press-11") == [300]
        assert box.stop() == 0


def test_kills_of_the_server_lose_and_double_nothing(
    client: Client, appliance: Appliance, secret_file: Path
) -> None:
    chance = random.Random(5)
    readings = 20_000
    with appliance as box:
        box.start()
        port = keep_frames_port(box)

        def wait_for_readings() -> None:
            before = int(box.status()["buffer"]["head_id"])
            until(
                lambda: int(box.status()["buffer"]["head_id"]) > before,
                within_s=30, what="readings come in",
            )  # fmt: skip

        process = client.start(port, "press-12", secret_file, readings)
        try:
            for _ in range(2):
                wait_for_readings()
                pause(chance.uniform(0.0, 0.2))
                box.kill("ingest")
                box.start()
        finally:
            result = result_of(process)
        stored, duplicates, refused, connections = result
        assert (stored + duplicates, refused) == (readings, 0)
        assert connections >= 3, "the kills did not hit it"
        assert rows_of(box, "press-12") == [readings]
        assert box.stop() == 0
