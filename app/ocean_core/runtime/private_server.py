"""A server for the duration: for commands and programs that need the data when none runs.

It listens on a free port of this machine alone, whatever the settings say. It ends when it is
told to, and when the process that started it ends, however that ends: it watches its standard
input, whose other end the kernel then closes. Unlike PDEATHSIG this does not depend on which
thread made it, and it reaches through the launcher of the single-file executable.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import fcntl
import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ocean_core.client.problems import error_named
from ocean_core.model.errors import AlreadyRunningError, NotRunningError, OceanError
from ocean_core.obs.clock import Clock
from ocean_core.runtime.lock import LOCK_FILE, RUN_FILE, RunInfo, read_run_info
from ocean_core.runtime.process import own_command

COMMAND: Final = "_private"
"""The hidden command that is the server; see ``cli.private``."""

READY_WITHIN_S: Final = 30.0
STOP_WITHIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.25
_ASK_TIMEOUT_S: Final = 5.0
_LINES_KEPT: Final = 40
_LINE_BYTES_MAX: Final = 4096
_TOLD: Final = re.compile(r"^ocean: (?P<title>[^:]*): (?P<detail>.*) \((?P<code>OC-\d{4})\)$")


def find_server(data_dir: Path) -> RunInfo | None:
    """Return who serves a data directory, None if nobody does.

    A run.json without its process, left behind by a crash, counts as nobody: what counts is the
    lock, which the kernel drops with its holder.
    """
    info = read_run_info(data_dir)
    if info is None:
        return None
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        # Another user's. Whether it runs shows when it is asked.
        return info
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        # Held. By whom the file names, unless the disk was too full to write that.
        holder = os.read(descriptor, 32).strip()
        return info if holder in (b"", str(info.pid).encode()) else None
    finally:
        os.close(descriptor)
    return None


class PrivateServer:
    """One that runs until ``stop``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Watch over a process that was just started."""
        self._process = process
        self._told: collections.deque[str] = collections.deque(maxlen=_LINES_KEPT)
        self._news = threading.Event()
        self._owner_pid = os.getpid()
        self._reader = threading.Thread(target=self._read, name="private-server", daemon=True)
        self._reader.start()
        self.url = ""
        atexit.register(self.stop)

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def wait_ready(self, data_dir: Path, before: bytes, clock: Clock) -> None:
        """Wait until it takes readings; ``before`` is what run.json held before the start.

        Looks whenever it says something. Raises what kept it from starting (AlreadyRunningError if
        somebody else was first), NotRunningError if it is not ready in time.
        """
        deadline = clock.monotonic() + READY_WITHIN_S
        while True:
            ended = not self.runs
            if ended:
                raise self._failure()
            if _content(data_dir / RUN_FILE) not in (b"", before):
                info = read_run_info(data_dir)
                if info is not None and _is_ready(info.url):
                    self.url = info.url
                    return
            left_s = deadline - clock.monotonic()
            if left_s <= 0:
                raise NotRunningError(
                    f"a server for {data_dir} was started and not ready within "
                    f"{READY_WITHIN_S:g} s; it said: {self._last_words()}"
                )
            self._news.wait(min(LOOK_EVERY_S, left_s))
            self._news.clear()

    def stop(self) -> None:
        """End it in an orderly way. May be called again; does nothing in a fork of the owner."""
        if os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        process = self._process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(STOP_WITHIN_S)
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read(self) -> None:
        """Keep the last of what it says. Runs on a thread until it ends."""
        stream = self._process.stderr
        assert stream is not None
        # Closed by ``stop`` if somebody else holds the other end beyond the process.
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(_LINE_BYTES_MAX):
                self._told.append(line.decode("utf-8", "replace").rstrip())
                self._news.set()
        self._news.set()

    def _failure(self) -> OceanError:
        """Return why it ended, in its own words."""
        code = self._process.wait()
        self._reader.join(STOP_WITHIN_S)
        lines = list(self._told)
        for number, line in enumerate(lines):
            told = _TOLD.match(line)
            if told is not None:
                hint = " ".join(part.strip() for part in lines[number + 1 :])
                return error_named(told["code"], told["detail"], hint)
        return NotRunningError(
            f"a server was started and ended with {code}; it said: {self._last_words()}"
        )

    def _last_words(self) -> str:
        return " / ".join(list(self._told)[-3:]) or "nothing"


def start_private_server(
    data_dir: Path,
    *,
    clock: Clock,
    config_file: Path | None = None,
    command: Callable[..., list[str]] = own_command,
) -> PrivateServer:
    """Start a server on a data directory and return it when it takes readings.

    ``config_file`` is the TOML file with its settings, if there is one; where to listen is not
    taken from it. Raises ConfigError, DataDirError, AlreadyRunningError or NotRunningError.
    """
    before = _content(data_dir / RUN_FILE)
    arguments = ["--data-dir", str(data_dir)]
    if config_file is not None:
        arguments += ["--config", str(config_file)]
    process = subprocess.Popen(
        command(COMMAND, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Ctrl-C is for the command; it then ends its server in an orderly way.
        start_new_session=True,
    )
    server = PrivateServer(process)
    try:
        server.wait_ready(data_dir, before, clock)
    except BaseException:
        server.stop()
        raise
    return server


def open_server(
    data_dir: Path,
    *,
    clock: Clock,
    pause: Callable[[float], object],
    config_file: Path | None = None,
    start: Callable[..., PrivateServer] = start_private_server,
) -> RunInfo | PrivateServer:
    """Return the server that runs on a data directory, or one started for the caller to stop.

    Raises what keeps one from starting; AlreadyRunningError if somebody holds the data directory
    and serves nothing for half a minute, for example while it stops.
    """
    deadline = clock.monotonic() + READY_WITHIN_S
    while True:
        found = find_server(data_dir)
        if found is not None:
            return found
        try:
            return start(data_dir, clock=clock, config_file=config_file)
        except AlreadyRunningError:
            # Another was first: it is there in a moment, or was just about to go.
            if clock.monotonic() >= deadline:
                raise
            pause(LOOK_EVERY_S)


def end_with_standard_input() -> None:
    """Ask this process to stop once nobody holds the other end of its standard input."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="standard-input", daemon=True).start()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_ready(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=_ASK_TIMEOUT_S
    )
    try:
        connection.request("GET", "/health?ready=true")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
