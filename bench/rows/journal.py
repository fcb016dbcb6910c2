"""The journal alone, in-process: blocks of 1000 readings, and lone readings of 64 tasks.

Baselines: SQLite with the journal's settings, one transaction per 1000 plain rows, and one per row;
and the bare file system: 4 KiB written and synced, over and over.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import uvloop
from loading import BATCH_ROWS, Datasets
from rows.singles import commit_rate

from ocean_core.buffer.embedded.journal import EmbeddedJournal, JournalSettings
from ocean_core.model.block import Readings
from ocean_core.model.receipt import Intake
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import SystemClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from support import Beside, Figure, Plan, folder_bytes, measure_sync_ms, progress

ROW = "journal"
# As the decoder of packed blocks hands it on: the same object for the same names.
NAMES = tuple((f"sensor-{number:03}", "value") for number in range(100))
WAYS = (
    ("blocks of 1000, 4 tasks", BATCH_ROWS, 4),
    ("blocks of 1000, 16 tasks", BATCH_ROWS, 16),
    ("lone readings, 64 tasks", 1, 64),
)


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    for name, rows, tasks in WAYS:
        rates, plain, syncs, sizes, costs = [], [], [], [], []
        for number in range(plan.rounds):
            progress(f"{ROW}: {name}, round {number + 1} of {plan.rounds}")
            plan.settle()
            with plan.folder("journal") as folder:
                begun = time.process_time()
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    stored, seconds = runner.run(append_all(folder, rows, tasks, plan.round_s))
                costs.append(1e6 * (time.process_time() - begun) / stored)
                rates.append(stored / seconds)
                sizes.append(folder_bytes(folder, "journal.db") / stored)
                if rows == 1:
                    plain.append(commit_rate(folder / "bare.db", plan.round_s / 2))
                else:
                    plain.append(plain_rows_rate(folder / "bare.db", plan.round_s / 2))
                syncs.append(1000 * rows / measure_sync_ms(folder))
        yield Figure(
            ROW, f"journal alone, {name}", tuple(rates), "readings/s",
            (
                Beside(
                    f"SQLite, {rows} row{'s'[: rows > 1]} a commit with fsync",
                    statistics.median(plain),
                ),
                Beside("4 KiB written and fdatasync for as many", statistics.median(syncs)),
            ),
            notes=f"{statistics.median(sizes):.1f} bytes per reading in the file, "
            f"CPU per reading {statistics.median(costs):.3f} us",
        )  # fmt: skip


async def append_all(folder: Path, rows: int, tasks: int, seconds: float) -> tuple[int, float]:
    """Append from several tasks for a while; return readings acknowledged and time taken."""
    clock = SystemClock()
    journal = EmbeddedJournal(
        JournalSettings(
            path=folder / "journal.db",
            clock=clock,
            random_bytes=os.urandom,
            log=EventLog(clock, level="error"),
            metrics=MetricsRegistry(METRICS),
        )
    )
    await journal.open()
    now_us = clock.now_us()
    intake = lone(now_us) if rows == 1 else block(rows, now_us)
    stored = 0
    begun = time.perf_counter()

    async def client() -> None:
        nonlocal stored
        while time.perf_counter() - begun < seconds:
            await journal.append(intake)
            stored += rows

    await asyncio.gather(*(client() for _ in range(tasks)))
    elapsed = time.perf_counter() - begun
    await journal.close()
    return stored, elapsed


def lone(now_us: int) -> Intake:
    """Return one reading as the codec makes it: plain lists."""
    return Intake(Readings(list(NAMES[:1]), [0], [now_us], [20.5], [0]), None, 1)


def block(rows: int, now_us: int) -> Intake:
    number = np.arange(rows)
    return Intake(
        Readings(
            NAMES,
            (number % len(NAMES)).astype(np.uint32),
            now_us + number,
            20 + 5 * np.sin(number / 17),
            np.zeros(rows, dtype=np.uint8),
        ),
        None,
        rows,
    )


def plain_rows_rate(path: Path, seconds: float) -> float:
    """Return readings/s of SQLite with a row for each reading, 1000 in a transaction."""
    db = apsw.Connection(str(path))
    rows = [(f"sensor-{number % 100:03}", number, 20.5) for number in range(BATCH_ROWS)]
    try:
        db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, s TEXT, ts INTEGER, v REAL)")
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            with db:
                db.executemany("INSERT INTO readings (s, ts, v) VALUES (?, ?, ?)", rows)
            count += BATCH_ROWS
        return count / (time.perf_counter() - begun)
    finally:
        db.close()
