"""From exec of `ocean serve` to the first positive answer, on a directory with readings, warm.

Baseline: the same interpreter importing Litestar and nothing else.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from loading import Datasets, generate, sensor

from support import Beside, Figure, Goal, Plan, Server, end_process, free_port, progress

ROW = "start"
ROUNDS = 7
TIMEOUT_S = 30.0
QUERY = f"/api/ocean/analytics/sensor/{sensor(1)}/stats"


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    readies: list[float] = []
    queries: list[float] = []
    imports: list[float] = []
    with plan.folder("start") as folder:
        data_dir = folder / "data"
        with Server(data_dir) as server:
            generate(server.port, "batch", connections=1, seconds=30, warm_s=0, requests_max=10)
            server.drain(30)
        for number in range(ROUNDS + 1):
            progress(f"{ROW}: start {number} of {ROUNDS}")
            plan.settle()
            ready_s, query_s = timed_start(data_dir)
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import litestar"], check=True)
            import_s = time.perf_counter() - begun
            if number:  # the first one warms the caches
                readies.append(ready_s)
                queries.append(query_s)
                imports.append(import_s)
    beside = (Beside("python -c 'import litestar'", statistics.median(imports)),)
    yield Figure(
        ROW, "start to first 200 of /health?ready=true", tuple(readies), "s", beside,
        (Goal(0.25),), lower_is_better=True, notes="run from the checkout, not from the executable",
    )  # fmt: skip
    yield Figure(
        ROW, "start to first query answered", tuple(queries), "s", beside, lower_is_better=True
    )


def timed_start(data_dir: Path) -> tuple[float, float]:
    """Start, ask until both answers came, stop; return both times."""
    port = free_port()
    begun = time.perf_counter()
    server = Server(data_dir, port=port)
    try:
        ready_s = first_answer(server, port, "/health?ready=true", begun)
        query_s = first_answer(server, port, QUERY, begun)
    finally:
        end_process(server.process)
    return ready_s, query_s


def first_answer(server: Server, port: int, path: str, begun: float) -> float:
    """Ask until the answer is 200; return the seconds since ``begun``."""
    while time.perf_counter() - begun < TIMEOUT_S:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if server_says(port, path) == 200:
                return time.perf_counter() - begun
        if server.process.poll() is not None:
            break
        time.sleep(0.001)
    raise TimeoutError(f"no answer to {path}\n{server.log_tail()}")


def server_says(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
