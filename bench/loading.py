"""Load for the rows: the generators, what they send and to whom, and baselines that listen."""

from __future__ import annotations

import atexit
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import traffic

from support import BENCH, Plan, Server, end_process, progress, wait_until

BATCH_ROWS: Final = 1000
SERIES: Final = traffic.SERIES
INTERVAL_S: Final = 10
PAST_S: Final = 5 * 86_400
QUESTION: Final = "/api/ocean/analytics/sensor/sensor-001/stats"


@dataclass(frozen=True)
class Load:
    """What the generator did."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    failed: int
    first_failure: str
    sent: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@cache
def workshop() -> Path:
    """Return a folder for what is made once per run: the generator and what it sends."""
    path = Path(tempfile.mkdtemp(prefix="ocean-load-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def generator() -> tuple[str, ...]:
    """Return the command of the load generator: compiled, or in Python with a warning."""
    target = workshop() / "load"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is not None:
        done = subprocess.run(
            [compiler, "-O2", "-o", str(target), str(BENCH / "load.c")],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        if done.returncode == 0:
            return (str(target),)
        progress(f"load.c does not compile: {done.stderr.strip()[-500:]}")
    progress("no C compiler: the generator in Python is slow, so single readings are, too")
    return (sys.executable, str(BENCH / "load.py"))


def is_quick() -> bool:
    """Whether the generator is the compiled one."""
    return len(generator()) == 1


_files: dict[object, Path] = {}


def _file_of(what: object, requests: Any) -> Path:
    if what not in _files:
        path = workshop() / f"requests-{len(_files)}"
        traffic.write(path, requests)
        _files[what] = path
    return _files[what]


def file_of(kind: str, options: dict[str, Any], first_s: int) -> Path:
    """Return the file of requests for an order, made when first asked for."""
    if kind == "single":
        return _file_of("single", traffic.singles())
    if kind == "batch":
        named = {key: value for key, value in options.items() if key != "first_s"}
        # Only what is compressed carries its times in the file.
        what = traffic.Batches(**named, first_s=first_s if named.get("encoding") else 0)
        return _file_of(what, traffic.batches(what))
    paths, bodies = options["paths"], options.get("bodies", [])
    return _file_of((tuple(paths), tuple(bodies)), traffic.addresses(paths, bodies))


def generate(
    port: int,
    kind: str,
    *,
    connections: int,
    seconds: float,
    warm_s: float = 0.3,
    per_second: float = 0.0,
    requests_max: int = 50_000_000,
    options: dict[str, Any] | None = None,
) -> Load:
    """Run the load generator in a process of its own and return what it saw.

    ``kind`` is single, batch (``options``: the fields of traffic.Batches) or requests (``options``:
    paths and bodies). Raises RuntimeError if a request failed.
    """
    options = options or {}
    first_s = options.get("first_s", int(time.time()) // 3600 * 3600 - PAST_S)
    figures = (port, connections, seconds, warm_s, per_second, requests_max, first_s)
    done = subprocess.run(
        [*generator(), str(file_of(kind, options, first_s)), *map(str, figures)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + warm_s + 120,
    )
    load = Load(**json.loads(done.stdout))
    if load.failed:
        raise RuntimeError(f"{load.failed} requests failed: {load.first_failure}")
    return load


class Asking:
    """Somebody who looks at a sensor's statistics while something else runs, 50 times a second.

    Several connections, because an answer may wait for the newest readings to arrive.
    """

    def __init__(self, port: int, per_second: float = 50.0, connections: int = 5) -> None:
        self._port = port
        self._every_s = connections / per_second
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number * self._every_s / connections,))
            for number in range(connections)
        ]
        self.times_s: list[float] = []
        self.failed = 0
        self._begun = self._ended = 0.0

    def _run(self, after_s: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        due = time.perf_counter() + after_s
        while not self._over.wait(max(0.0, due - time.perf_counter())):
            due += self._every_s
            begun = time.perf_counter()
            try:
                connection.request("GET", QUESTION)
                answer = connection.getresponse()
                answer.read()
                # The sensor may not have reached analytics yet.
                is_good = answer.status in {200, 404}
            except (OSError, http.client.HTTPException):
                connection.close()
                is_good = False
            if is_good:
                self.times_s.append(time.perf_counter() - begun)
            else:
                self.failed += 1
        connection.close()

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = time.perf_counter()
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def __str__(self) -> str:
        if not self.times_s:
            return "no query was answered"
        times = sorted(self.times_s)
        told = (
            f"{len(times) / (self._ended - self._begun):.0f} queries/s meanwhile, "
            f"p50 {1000 * times[len(times) // 2]:.1f} ms, "
            f"p99 {1000 * times[len(times) * 99 // 100]:.0f} ms"
        )
        return told + (f", {self.failed} FAILED" if self.failed else "")


class Bare:
    """A bare server of the same stack, for comparison."""

    def __init__(self, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(BENCH / "bare.py"), kind], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_process(self.process, 10)


NGINX: Final = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
}}
"""


class Nginx:
    """nginx with one worker that answers 204 and stores nothing; of any Debian: nginx-light."""

    def __init__(self, port: int) -> None:
        self.port = port
        folder = Path(tempfile.mkdtemp(dir=workshop()))
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=port))
        self.process = subprocess.Popen(
            [nginx_program() or "nginx", "-c", str(config), "-e", str(folder / "error.log")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        wait_until(self._listens, 10, lambda: "nginx did not start")
        return self

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_process(self.process, 10)


def nginx_program() -> str | None:
    """Return where nginx is, None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def sensor(number: int) -> str:
    return f"sensor-{number % SERIES:03}"


class Datasets:
    """Stopped data directories of n readings each, loaded through the server once per run.

    100 sensors, a reading every 10 s each, ending two hours ago; batches of 1000 over HTTP.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: dict[int, tuple[Path, int]] = {}

    def get(self, readings: int) -> tuple[Path, int]:
        """Return the directory and the time of its first reading (epoch seconds)."""
        if readings not in self._made:
            self._made[readings] = self._load(readings)
        return self._made[readings]

    def _load(self, readings: int) -> tuple[Path, int]:
        span_s = readings // SERIES * INTERVAL_S
        first_s = (int(time.time()) - 7200 - span_s) // 3600 * 3600
        # A new place each time: after a failure the next row tries again.
        data_dir = Path(tempfile.mkdtemp(prefix="dataset-", dir=self._plan.place)) / "data"
        data_dir.mkdir()
        progress(f"loading {readings:,} readings")
        with Server(data_dir) as server:
            load = generate(
                server.port, "batch", connections=4, seconds=600, warm_s=0,
                requests_max=readings // BATCH_ROWS,
                options={"first_s": first_s, "step_s": INTERVAL_S},
            )  # fmt: skip
            drained_s = server.drain(600)
        progress(f"loaded at {load.rate * BATCH_ROWS:,.0f}/s, drained {drained_s:.1f} s later")
        return data_dir, first_s
