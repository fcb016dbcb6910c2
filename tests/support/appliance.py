"""The whole appliance as a child process: started, asked, stopped, killed, and always cleaned up."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from support.waiting import until
from support.web import STATUS, ConnectionLostError, Http

READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 30.0
GONE_WITHIN_S = 10.0
LOG_SHOWN_BYTES = 12_000

Process = Literal["ingest", "analytics"]

# Several boxes at a time would want the same ports.
FRAMES_OFF = {"OCEAN_NANOGRIDATA__TCP": "false", "OCEAN_NANOGRIDATA__UDP": "false"}
FRAMES_ON = {"OCEAN_NANOGRIDATA__TCP_PORT": "0", "OCEAN_NANOGRIDATA__UDP_PORT": "0"}


def ocean_command(*arguments: str) -> list[str]:
    """Return the command line of the program under test: the checkout, or OCEAN_EXECUTABLE."""
    executable = os.environ.get("OCEAN_EXECUTABLE")
    return [executable, *arguments] if executable else [
        sys.executable, "-m", "ocean_core", *arguments
    ]  # fmt: skip


def clean_environment(**more: str) -> dict[str, str]:
    """Return our environment without settings of the machine it runs on."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OCEAN_") and not name.startswith(("COV_", "PYTEST_"))
    }
    return kept | more


def run_ocean(
    *arguments: str, timeout_s: float = 60.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end."""
    return subprocess.run(
        ocean_command(*arguments),
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Appliance:
    """``ocean serve`` on a data directory; may be started again after it ended.

    Used as a context manager: at its end every process that it started is gone, and when the test
    failed what the program told is printed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        arguments: Sequence[str] = ("--port", "0"),
        prefix: Sequence[str] = (),
        log_path: Path | None = None,
        settings: Mapping[str, str] | None = None,
        nanogridata: bool = False,
        **environment: str,
    ) -> None:
        """``nanogridata``: listen for frames, too, on free ports."""
        self.data_dir = data_dir
        frames = FRAMES_ON if nanogridata else FRAMES_OFF
        self.environment = {**frames, **(settings or {}), **environment}
        self._arguments = list(arguments)
        self._prefix = list(prefix)
        self._log_path = log_path or data_dir.parent / f"{data_dir.name}.stderr"
        self._log_from = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        self._stale_run_info = b""
        self._ingest_pid = 0
        self._connections: dict[float, Http] = {}
        self.url = self.frames_tcp = self.frames_udp = ""
        self.starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close_connections()
        self.end_all()
        if kind is not None:
            print(f"--- what {self.data_dir.name} told (start {self.starts}) ---")
            if self._log_path.is_file():
                print(self._log_path.read_bytes()[-LOG_SHOWN_BYTES:].decode("utf-8", "replace"))

    # --- starting

    def start(self) -> Self:
        """Start it and wait until it takes readings."""
        self.launch()
        self.wait_ready()
        return self

    def launch(self, **environment: str) -> None:
        """Start it; returns at once."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        run_info = self.data_dir / "run.json"
        self._stale_run_info = run_info.read_bytes() if run_info.exists() else b""
        self._ingest_pid = 0
        self._close_connections()
        self.url = ""
        self.starts += 1
        command = [
            *self._prefix, *ocean_command("serve", "--data-dir", str(self.data_dir)),
            *self._arguments,
        ]  # fmt: skip
        with self._log_path.open("ab") as log:
            self._log_from = log.tell() if log.seekable() else 0
            self._process = subprocess.Popen(
                command,
                env=clean_environment(**self.environment, **environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._groups.add(self._process.pid)

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Wait until it says that it is ready to take readings."""
        until(self._is_ready, within_s=within_s, what=f"{self.data_dir.name} is ready")

    def _is_ready(self) -> bool:
        code = self.exit_code()
        assert code is None, f"it ended with {code} instead of getting ready"
        if not self.knows_address():
            return False
        try:
            # A short patience: the port may be bound and not answered yet.
            return self.http(timeout_s=2).get("/health", ready="true").status == 200
        except ConnectionLostError:
            return False

    def knows_address(self) -> bool:
        """Return whether run.json of this start is there, and take over what it says."""
        if self.url:
            return True
        with contextlib.suppress(OSError, ValueError):
            content = (self.data_dir / "run.json").read_bytes()
            if content != self._stale_run_info:
                info = json.loads(content)
                self._ingest_pid = int(info["pid"])
                self.url = str(info["url"])
                self.frames_tcp = str(info["frames_tcp"])
                self.frames_udp = str(info["frames_udp"])
        return bool(self.url)

    def keep_port(self) -> None:
        """Listen at the same address after the next start, for clients that only know one."""
        self._arguments = ["--port", self.url.rpartition(":")[2]]

    # --- asking

    def http(self, timeout_s: float = 40.0) -> Http:
        """Return the connection of this patience; not for use by several threads."""
        known = self._connections.get(timeout_s)
        if known is None or known.url != self.url:
            if known is not None:
                known.close()
            known = self._connections[timeout_s] = Http(self.url, timeout_s)
        return known

    def _close_connections(self) -> None:
        # Also because the next server may have the same address.
        for connection in self._connections.values():
            connection.close()

    def status(self) -> Any:
        """Return /api/ocean/status."""
        return self.http().get(STATUS).good()

    def alarms(self) -> list[str]:
        """Return the names of the open alarms."""
        return [alarm["name"] for alarm in self.status()["alarms"]]

    def log(self) -> str:
        """Return what it told since the last start."""
        with self._log_path.open("rb") as file:
            file.seek(self._log_from)
            return file.read().decode("utf-8", "replace")

    @property
    def pid(self) -> int:
        """Process id of ingest; that of the command itself until run.json is there."""
        assert self._process is not None
        self.knows_address()
        return self._ingest_pid or self._process.pid

    def analytics_pid(self) -> int | None:
        """Process id of analytics, None while there is none.

        From the process table, so that it can be killed before it has said a word.
        """
        for member in self._members():
            with contextlib.suppress(psutil.Error):
                if "_analytics" in member.cmdline():
                    return member.pid
        return None

    def exit_code(self) -> int | None:
        """Return how the command ended, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    # --- ending

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit code; nothing of it may be left."""
        os.kill(self.pid, sign)
        code = self.wait_end(STOPPED_WITHIN_S)
        self.wait_gone()
        return code

    def wait_end(self, within_s: float) -> int:
        """Wait for the end of the command and return its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {within_s:g} s") from None

    def kill(self, *which: Process) -> None:
        """End processes with SIGKILL, in this order; one that is not there is left out.

        When ingest is killed, everything must be gone a moment later.
        """
        pids = {"ingest": self.pid, "analytics": self.analytics_pid()}
        for name in which:
            pid = pids[name]
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if "ingest" in which:
            self.wait_end(GONE_WITHIN_S)
            self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until no process of it is left: nothing may outlive ingest."""
        until(
            lambda: not self._members(), within_s=GONE_WITHIN_S, what="every process of it is gone"
        )

    def _members(self) -> list[psutil.Process]:
        members: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    os.getpgid(process.pid) in self._groups
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    members.append(process)
        return members

    def end_all(self) -> None:
        """End whatever is left, one by one."""
        for process in self._members():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._process is not None:
            self._process.wait(GONE_WITHIN_S)
        self.wait_gone()


class Peaks:
    """Highest memory of a process while something happens, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self._process.memory_info().rss
        self.peak = self.before

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)

    def _watch(self) -> None:
        deadline = time.monotonic() + 120
        while not self._over.wait(0.1) and time.monotonic() < deadline:
            with contextlib.suppress(psutil.Error):
                self.peak = max(self.peak, self._process.memory_info().rss)
