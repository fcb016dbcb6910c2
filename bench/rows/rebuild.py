"""Rebuild: analytics.duckdb is deleted; how long until queries see everything again.

The mover alone does the work here, behind an idle server, so this is its speed as well. Baseline:
the same number of readings inserted into a bare DuckDB file, 200,000 numpy rows a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from support import Beside, Datasets, Figure, Plan, Server, cpu_seconds, progress, wait_until

ROW = "rebuild"
ROWS = 200_000
TIMEOUT_S = 600.0


def run(plan: Plan, datasets: Datasets) -> Iterator[Figure]:
    for size in plan.sizes:
        data_dir, _ = datasets.get(size)
        rates, times, cpus = [], [], []
        for number in range(plan.rounds if size <= 1_000_000 else 1):
            progress(f"{ROW}: {size:,} readings, round {number + 1}")
            plan.settle()
            seconds, cpu_s = rebuild(data_dir, size)
            rates.append(size / seconds)
            times.append(f"{seconds:.1f}")
            cpus.append(f"{cpu_s:.1f}")
        plan.settle()
        with plan.folder("rebuild") as folder:
            bare = bare_rate(folder / "bare.duckdb", size)
        yield Figure(
            ROW, f"mover: rebuild of {size // 1_000_000} M readings", tuple(rates), "readings/s",
            (Beside("bare DuckDB, numpy columns, 200,000 rows a transaction", bare),),
            notes=f"complete {' / '.join(times)} s after the analytics process was up, "
            f"CPU of that process {' / '.join(cpus)} s",
        )  # fmt: skip


def rebuild(data_dir: Path, size: int) -> tuple[float, float]:
    """Return the seconds from the analytics process being up until all is there, and its CPU."""
    for path in data_dir.glob("analytics.duckdb*"):
        path.unlink()
    with Server(data_dir) as server:
        begun = time.perf_counter()
        wait_until(
            lambda: server.status()["analytics"]["watermark"] >= size, TIMEOUT_S, server.log_tail,
            every_s=0.05,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        cpu_s = sum(cpu_seconds(pid) for pid in server.pids[1:])
        server.drain(60)
    return seconds, cpu_s


def bare_rate(path: Path, size: int) -> float:
    rng = np.random.default_rng(7)
    columns: Any = {
        "id": np.arange(ROWS),
        "series_id": np.arange(ROWS, dtype=np.int32) % 100,
        "ts": np.arange(ROWS, dtype=np.int64).view("M8[us]"),
        "value": rng.normal(20, 5, ROWS),
        "quality": np.zeros(ROWS, dtype=np.uint8),
    }
    db = duckdb.connect(str(path), config={"memory_limit": "384MB", "threads": 2})
    try:
        db.execute(
            "CREATE TABLE readings "
            "(id BIGINT, series_id INTEGER, ts TIMESTAMP, value DOUBLE, quality UTINYINT)"
        )
        begun = time.perf_counter()
        for _ in range(0, size, ROWS):
            db.execute("BEGIN")
            db.register("incoming", columns)
            db.execute("INSERT INTO readings SELECT * FROM incoming")
            db.unregister("incoming")
            db.execute("COMMIT")
        return size / (time.perf_counter() - begun)
    finally:
        db.close()
