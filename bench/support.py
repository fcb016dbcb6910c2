"""What the rows share: results, a place on a real disk, the server, the load generator, medians.

Everything is bounded in count and time, speaks only over loopback, and ends its processes by pid.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

BENCH: Final = Path(__file__).resolve().parent
REPO: Final = BENCH.parent
OCEAN: Final = Path(sys.executable).with_name("ocean")
MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 60.0
CALM_PERCENT: Final = 12.0
MIB: Final = 1024 * 1024


# --- results ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """A baseline, in the unit of the figure."""

    what: str
    value: float


@dataclass(frozen=True)
class Goal:
    """What should be reached, and who says so: the design, or this version."""

    value: float
    whose: str = "design"


@dataclass(frozen=True)
class Figure:
    """One measured thing: the median of its rounds, beside its baselines."""

    row: str
    name: str
    rounds: tuple[float, ...]
    unit: str
    beside: tuple[Beside, ...] = ()
    goals: tuple[Goal, ...] = ()
    lower_is_better: bool = False
    notes: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    def reaches(self, goal: Goal) -> bool:
        return self.value <= goal.value if self.lower_is_better else self.value >= goal.value

    def as_text(self) -> str:
        lines = [f"  {self.name}: {told(self.value)} {self.unit}"]
        if len(self.rounds) > 1:
            lines[0] += "  (rounds " + ", ".join(told(value) for value in self.rounds) + ")"
        if self.notes:
            lines.append(f"      {self.notes}")
        for baseline in self.beside:
            ratio = self.value / baseline.value if baseline.value else float("nan")
            lines.append(
                f"      baseline {baseline.what}: {told(baseline.value)} {self.unit}"
                f" -> ratio {ratio:.2f}"
            )
        for goal in self.goals:
            sign = "<=" if self.lower_is_better else ">="
            verdict = "reached" if self.reaches(goal) else "NOT reached"
            lines.append(f"      goal ({goal.whose}) {sign} {told(goal.value)}: {verdict}")
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """Return a row for docs/performance.md."""
        sign = "≤" if self.lower_is_better else "≥"
        beside = "; ".join(
            f"{told(b.value)} ({b.what}), ratio {self.value / b.value:.2f}"
            for b in self.beside
            if b.value
        )
        goals = "; ".join(
            f"{sign} {told(goal.value)} ({goal.whose}): "
            + ("reached" if self.reaches(goal) else "**not reached**")
            for goal in self.goals
        )
        return (
            f"| {self.name} | **{told(self.value)}** {self.unit} | {beside} | {goals or 'none'} |"
        )

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, **asdict(self)}


def told(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    quick: bool
    place: Path
    patience_s: float
    noise: list[float] = field(default_factory=list)

    def settle(self) -> None:
        """Before a round: wait a while for other programs to be quiet; note how busy they are."""
        ends = time.perf_counter() + self.patience_s
        while (busy := float(psutil.cpu_percent(0.4))) > CALM_PERCENT:
            if time.perf_counter() > ends:
                break
        self.noise.append(busy)

    @property
    def rounds(self) -> int:
        return 3

    @property
    def round_s(self) -> float:
        return 1.5 if self.quick else 3.0

    @property
    def sizes(self) -> tuple[int, ...]:
        return (1_000_000,) if self.quick else (1_000_000, 10_000_000)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Make a fresh directory, and remove it afterwards."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.place))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def progress(text: str) -> None:
    """Tell what is being measured; results alone go to standard output."""
    print(f"... {text}", file=sys.stderr, flush=True)


# --- places -------------------------------------------------------------------------------------


def file_system_of(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    mounts = sorted(psutil.disk_partitions(all=True), key=lambda part: len(part.mountpoint))
    kind = ""
    for mount in mounts:
        if path == Path(mount.mountpoint) or Path(mount.mountpoint) in path.parents:
            kind = mount.fstype
    return kind


def real_disk() -> Path:
    """Return a directory whose fsync means something, or end with advice."""
    given = os.environ.get("OCEAN_BENCH_DIR")
    tried = (
        [Path(given)] if given else [Path(tempfile.gettempdir()), Path("/var/tmp"), REPO / ".cache"]
    )
    for place in tried:
        if place.is_dir() and file_system_of(place.resolve()) not in MEMORY_FILE_SYSTEMS:
            return place.resolve()
    sys.exit("no directory on a real disk found; set OCEAN_BENCH_DIR to one")


def folder_bytes(folder: Path, start: str) -> int:
    """Return the size of the files whose names begin with ``start``."""
    return sum(path.stat().st_size for path in folder.glob(start + "*") if path.is_file())


def measure_sync_ms(folder: Path, count: int = 200) -> float:
    """Return the median time of writing 4 KiB and fdatasync, milliseconds."""
    times = []
    handle = os.open(folder / "sync-probe", os.O_CREAT | os.O_WRONLY, 0o600)
    page = b"\1" * 4096
    try:
        for number in range(count):
            begun = time.perf_counter()
            os.pwrite(handle, page, 4096 * number)
            os.fdatasync(handle)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(handle)
        (folder / "sync-probe").unlink()
    return 1000 * statistics.median(times)


# --- processes ----------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process: nanoseconds of the scheduler, ticks where it has none."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e9
    except (OSError, ValueError, IndexError):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            return float(times.user + times.system)
        return 0.0


class Spent:
    """CPU time that processes use while something runs."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._before: list[float] = []
        self._begun = 0.0
        self.cpu_s: list[float] = []
        self.wall_s = 0.0

    def __enter__(self) -> Self:
        self._before = [cpu_seconds(pid) for pid in self._pids]
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wall_s = time.perf_counter() - self._begun
        after = [cpu_seconds(pid) for pid in self._pids]
        self.cpu_s = [now - was for was, now in zip(self._before, after, strict=True)]

    def __str__(self) -> str:
        return "+".join(f"{100 * used / self.wall_s:.0f}" for used in self.cpu_s) + " % CPU"


def written_bytes(pids: Sequence[int]) -> int:
    """Return what processes have sent to block devices so far, bytes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).io_counters().write_bytes
    return total


def device_written_bytes(path: Path) -> int | None:
    """Return what was written to the block device below a path, None if there is none."""
    device = path.stat().st_dev
    try:
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return 512 * int(stat.split()[6])


def memory_mb(pids: Sequence[int]) -> float:
    """Return the resident memory of processes together, MiB (shared pages count twice)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return total / MIB


def end_process(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> int:
    """Ask a process to end, insist after the timeout, return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


class Server:
    """A real `ocean serve` on a data directory, from start to stop."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        # Several servers at a time would want the same ports for frames.
        settings = {"nanogridata.tcp": False, "nanogridata.udp": False} | dict(settings or {})
        given = {
            f"OCEAN_{name.upper().replace('.', '__')}": str(value).lower()
            for name, value in settings.items()
        }
        self._log = (data_dir.parent / f"{data_dir.name}.log").open("ab")
        self.process = subprocess.Popen(
            [str(OCEAN), "serve", "--port", str(port), "--data-dir", str(data_dir)],
            stdout=self._log,
            stderr=self._log,
            env={k: v for k, v in os.environ.items() if not k.startswith("OCEAN_")}
            | given
            | dict(environment or {}),
        )
        self.port = port

    def __enter__(self) -> Self:
        self.wait_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        if kind is None and code != 0:
            raise RuntimeError(f"the server ended with {code}:\n{self.log_tail()}")

    @property
    def pids(self) -> list[int]:
        return tree(self.process.pid)

    def wait_ready(self) -> None:
        """Wait until readings are taken and queries answered."""
        wait_until(lambda: self._published() and self._is_ready(), START_TIMEOUT_S, self.log_tail)
        wait_until(
            lambda: self.status()["analytics"]["state"] != "down", START_TIMEOUT_S, self.log_tail
        )

    def _published(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(
                f"the server ended with {self.process.returncode}:\n{self.log_tail()}"
            )
        try:
            found = json.loads((self.data_dir / "run.json").read_text())
        except (OSError, ValueError):
            return False
        if found["pid"] != self.process.pid:
            return False
        self.port = int(found["url"].rpartition(":")[2].rstrip("/"))
        return True

    def _is_ready(self) -> bool:
        try:
            return self.get("/health?ready=true")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        code, body = self.get("/api/ocean/status")
        assert code == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def run_info(self) -> dict[str, Any]:
        """Return what run.json says."""
        found: dict[str, Any] = json.loads((self.data_dir / "run.json").read_bytes())
        return found

    def drain(self, timeout_s: float) -> float:
        """Wait until everything is in analytics, return how long it took.

        A query makes the mover hurry as it does for any user; without one it would wait on purpose.
        """
        begun = time.perf_counter()

        def is_drained() -> bool:
            self.get("/api/ocean/sensors?limit=1")
            found = self.status()
            return bool(found["buffer"]["depth"] == 0 and found["analytics"]["state"] == "up")

        wait_until(is_drained, timeout_s, self.log_tail, every_s=0.05)
        return time.perf_counter() - begun

    def stop(self) -> int:
        try:
            return end_process(self.process)
        finally:
            self._log.close()

    def log_tail(self) -> str:
        return Path(self._log.name).read_text(errors="replace")[-3000:]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_until(
    condition: Callable[[], bool],
    timeout_s: float,
    explain: Callable[[], str] = str,
    *,
    every_s: float = 0.01,
) -> None:
    """Wait, bounded, until a condition holds."""
    ends = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > ends:
            raise TimeoutError(f"nothing after {timeout_s} s\n{explain()}")
        time.sleep(every_s)


class Watch:
    """Samples something on a thread while something else runs."""

    def __init__(self, look: Callable[[], float], every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, float]] = []

    def _run(self) -> None:
        begun = time.perf_counter()
        while not self._over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.samples.append((time.perf_counter() - begun, self._look()))
            self._over.wait(self._every_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(30)

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.samples]
