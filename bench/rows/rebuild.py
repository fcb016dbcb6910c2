"""Rebuild: analytics.duckdb is deleted; how long until queries see everything again.

The mover alone does the work here, behind an idle server, so this is its speed as well for readings
that are far apart. In a flood they are not: that is the second figure, the mover alone in a process
with a journal of such readings. Baseline: the same number of readings inserted into a bare DuckDB
file, 200,000 numpy rows a transaction.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import uvloop
from loading import Datasets

from ocean_core.buffer.embedded import EmbeddedJournal, JournalReader
from ocean_core.buffer.embedded.journal import JournalSettings
from ocean_core.buffer.mark import MarkFile
from ocean_core.config.settings import AnalyticsSettings
from ocean_core.model.block import Readings
from ocean_core.model.receipt import Intake
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import SystemClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover
from ocean_core.runtime.process import keep_freed_memory
from ocean_core.storage.analytics import AnalyticsStore
from support import Beside, Figure, Plan, Server, cpu_seconds, progress, wait_until

ROW = "rebuild"
ROWS = 200_000
TIMEOUT_S = 600.0
FLOOD_ROWS = 8_000_000
FLOOD_FROM_US = 1_780_000_000_000_000


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

    yield flood(plan)


def flood(plan: Plan) -> Figure:
    """Measure the mover alone with readings as a flood brings them: 40,000 per second and series."""
    rates, costs = [], []
    with plan.folder("mover") as folder:
        progress(f"{ROW}: a journal of {FLOOD_ROWS:,} readings")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(fill_journal(folder / "journal.db"))
        for number in range(plan.rounds):
            progress(f"{ROW}: mover alone, round {number + 1}")
            plan.settle()
            cpu_s = time.process_time()
            rates.append(FLOOD_ROWS / move_all(folder, number))
            costs.append(1e6 * (time.process_time() - cpu_s) / FLOOD_ROWS)
        bare = bare_rate(folder / "bare.duckdb", FLOOD_ROWS)
    return Figure(
        ROW, f"mover alone, {FLOOD_ROWS // 1_000_000} M readings of a flood", tuple(rates),
        "readings/s", (Beside("bare DuckDB, numpy columns, 200,000 rows a transaction", bare),),
        notes=f"CPU per reading {statistics.median(costs):.3f} us",
    )  # fmt: skip


async def fill_journal(path: Path) -> None:
    """Append blocks of 1000 rows, 16 at a time; 4 M readings in a second of their own time."""
    clock = SystemClock()
    log, metrics = EventLog(clock, level="error"), MetricsRegistry(METRICS)
    journal = EmbeddedJournal(
        JournalSettings(path=path, clock=clock, random_bytes=os.urandom, log=log, metrics=metrics)
    )
    await journal.open()
    names = tuple((f"sensor-{number:03}", "value") for number in range(100))
    rng = np.random.default_rng(7)
    number = np.arange(1000)
    index, quality = (number % 100).astype(np.uint32), np.zeros(1000, dtype=np.uint8)
    for first in range(0, FLOOD_ROWS, 16_000):
        group = []
        for start in range(first, first + 16_000, 1000):
            times = FLOOD_FROM_US + (start + number) // 4
            rows = Readings(names, index, times, rng.normal(20, 5, 1000), quality)
            group.append(journal.append(Intake(rows, None, 1000, columnar=True)))
        await asyncio.gather(*group)
    await journal.close()


def move_all(folder: Path, number: int) -> float:
    """Return the seconds until all of the journal is in a new analytics.duckdb."""
    clock = SystemClock()
    log = EventLog(clock, level="error")
    source = JournalReader(folder / "journal.db")
    store = AnalyticsStore(
        folder / f"analytics-{number}.duckdb", memory_limit_mb=AnalyticsSettings().memory_limit_mb,
        threads=2, clock=clock, log=log,
    )  # fmt: skip
    store.open(source.epoch)
    mover = Mover(
        source, store, LiveWindow(), MarkFile(folder / f"mark-{number}").write,
        clock=clock, log=log, metrics=MetricsRegistry(METRICS),
    )  # fmt: skip
    keep_freed_memory()
    begun = time.perf_counter()
    mover.prepare()
    while store.watermark() < source.last_id():
        mover.drain_once()
    seconds = time.perf_counter() - begun
    store.close()
    source.close()
    return seconds


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
