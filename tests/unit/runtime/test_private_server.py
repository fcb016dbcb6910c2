"""A server for the duration: found if one runs, started if none does, and never left behind.

The servers here are tiny programs; tests/e2e/test_facade.py has the real one.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocean_core.model.errors import (
    AlreadyRunningError,
    ConfigError,
    NotRunningError,
)
from ocean_core.obs.clock import ManualClock, SystemClock
from ocean_core.runtime import private_server
from ocean_core.runtime.lock import InstanceLock, RunInfo
from ocean_core.runtime.private_server import (
    PrivateServer,
    find_server,
    open_server,
    start_private_server,
)

INFO = RunInfo(os.getpid(), "http://127.0.0.1:8030", "2.0.0", "2026-01-17T00:00:00Z", "/d")

SERVER = """
import http.server, json, os, signal, sys, threading
folder = sys.argv[sys.argv.index("--data-dir") + 1]
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(503 if Handler.asked < 3 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        print("asked", file=sys.stderr, flush=True)
    def log_message(self, *arguments): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
info = {"pid": os.getpid(), "url": f"http://127.0.0.1:{server.server_port}", "version": "2",
        "started": "now", "data_dir": folder}
with open(os.path.join(folder, "run.json"), "w") as file: json.dump(info, file)
print("listens", file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server.serve_forever(0.05)
"""


class Started:
    """Starts small programs in place of ourselves, and remembers with what."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.arguments: list[str] = []

    def __call__(self, *arguments: str) -> list[str]:
        self.arguments = list(arguments)
        return [sys.executable, "-c", self.program, *arguments]


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[InstanceLock]:
    lock = InstanceLock(tmp_path)
    lock.acquire()
    yield lock
    lock.release(clean=False)


# --- finding ---


def test_a_server_is_found_by_lock_and_run_file(tmp_path: Path, lock: InstanceLock) -> None:
    assert find_server(tmp_path) is None
    lock.publish(INFO)
    assert find_server(tmp_path) == INFO


def test_what_a_crash_left_is_nobody_and_looking_takes_nothing(tmp_path: Path) -> None:
    lock = InstanceLock(tmp_path)
    lock.acquire()
    lock.publish(INFO)
    lock.release(clean=False)
    assert find_server(tmp_path) is None
    assert not InstanceLock(tmp_path).acquire(), "the lock is free, the marker still there"


def test_a_server_that_has_not_said_where_it_is_counts_as_nobody_yet(
    tmp_path: Path, lock: InstanceLock
) -> None:
    lock.publish(RunInfo(1, "http://127.0.0.1:1", "2", "before the crash", "/d"))
    assert find_server(tmp_path) is None


def test_a_disk_too_full_for_a_number_does_not_hide_the_server(
    tmp_path: Path, lock: InstanceLock
) -> None:
    lock.publish(INFO)
    os.truncate(tmp_path / "lock", 0)
    assert find_server(tmp_path) == INFO


def test_a_directory_without_lock_or_at_all_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        '{"pid": 1, "url": "u", "version": "v", "started": "s", "data_dir": "d"}', encoding="utf-8"
    )
    assert find_server(tmp_path) is None
    assert find_server(tmp_path / "none") is None


def test_the_server_of_another_user_may_be_asked(
    tmp_path: Path, lock: InstanceLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.publish(INFO)

    def refuse(*_arguments: object) -> int:
        raise PermissionError("not yours")

    monkeypatch.setattr("os.open", refuse)
    assert find_server(tmp_path) == INFO


# --- starting ---


def test_a_server_is_started_awaited_and_stopped(tmp_path: Path) -> None:
    command = Started(SERVER)
    config = tmp_path / "ocean.toml"
    server = start_private_server(
        tmp_path, clock=SystemClock(), config_file=config, command=command
    )
    try:
        assert server.runs
        assert server.url.startswith("http://127.0.0.1:")
        assert command.arguments == [
            "_private", "--data-dir", str(tmp_path), "--config", str(config),
        ]  # fmt: skip
    finally:
        server.stop()
    server.stop()
    assert server._process.returncode == 0


def test_what_run_json_said_before_is_not_believed(tmp_path: Path) -> None:
    stale = '{"pid":1,"url":"http://127.0.0.1:1","version":"2","started":"s","data_dir":"d"}'
    (tmp_path / "run.json").write_text(stale, encoding="utf-8")
    server = start_private_server(tmp_path, clock=SystemClock(), command=Started(SERVER))
    server.stop()
    assert server.url != "http://127.0.0.1:1"


def told(error: str, *more: str) -> Started:
    lines = "\\n".join([error, *more])
    return Started(
        f"import sys; sys.stderr.write({lines!r}.replace('\\\\n', chr(10)) + chr(10)); sys.exit(1)"
    )


@pytest.mark.parametrize(
    ("line", "cls"),
    [
        ("ocean: The configuration is not valid: x.toml, line 2 (OC-1001)", ConfigError),
        (
            "ocean: Another Ocean Core uses this data directory: process 5: uses it (OC-7001)",
            AlreadyRunningError,
        ),
    ],
)
def test_what_keeps_it_from_starting_is_told_as_that(
    tmp_path: Path, line: str, cls: type[Exception]
) -> None:
    with pytest.raises(cls) as caught:
        start_private_server(
            tmp_path, clock=SystemClock(), command=told("noise", line, "       What to do.")
        )
    assert vars(caught.value)["detail"] == line.split(": ", 2)[2].rpartition(" (")[0]
    assert vars(caught.value)["hint"] == "What to do."


def test_an_end_without_a_word_of_ours_is_told_with_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="ended with 1; it said: a / b / c"):
        start_private_server(tmp_path, clock=SystemClock(), command=told("first", "a", "b", "c"))


def test_one_that_never_gets_ready_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_server, "READY_WITHIN_S", 0.0)
    children: list[subprocess.Popen[bytes]] = []
    init = PrivateServer.__init__

    def remembering(self: PrivateServer, process: subprocess.Popen[bytes]) -> None:
        children.append(process)
        init(self, process)

    monkeypatch.setattr(PrivateServer, "__init__", remembering)
    program = "import sys; print('busy', file=sys.stderr, flush=True); sys.stdin.read()"
    with pytest.raises(NotRunningError, match="not ready within 0 s"):
        start_private_server(tmp_path, clock=SystemClock(), command=Started(program))
    assert [child.returncode for child in children] == [-signal.SIGTERM]


def test_one_that_does_not_want_to_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = SERVER.replace("lambda *_: os._exit(0)", "signal.SIG_IGN")
    server = start_private_server(tmp_path, clock=SystemClock(), command=Started(stubborn))
    monkeypatch.setattr(private_server, "STOP_WITHIN_S", 0.1)
    server.stop()
    assert server._process.returncode == -signal.SIGKILL


# --- one or the other ---


def test_whoever_was_first_is_used(tmp_path: Path, lock: InstanceLock) -> None:
    """Nobody at the first look, somebody at the start, and there at the second look."""
    pauses: list[float] = []

    def lose(*_arguments: object, **_options: object) -> PrivateServer:
        raise AlreadyRunningError("process 5 was first")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        lock.publish(INFO)

    found = open_server(tmp_path, clock=ManualClock(), pause=pause, start=lose)
    assert found == INFO
    assert len(pauses) == 1


def test_a_directory_that_is_held_and_never_served_is_given_up(tmp_path: Path) -> None:
    clock = ManualClock()

    def lose(*_arguments: object, **_options: object) -> PrivateServer:
        raise AlreadyRunningError("process 5 was first")

    with pytest.raises(AlreadyRunningError):
        open_server(tmp_path, clock=clock, pause=clock.advance, start=lose)
    assert clock.monotonic() == pytest.approx(1030, abs=1)
