"""The operational store alone, in-process: small changes of many tasks, each acknowledged after fsync.

Baseline: SQLite with the same settings, one transaction per change.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import uvloop
from loading import Datasets

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import SystemClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.storage.operational import OperationalSettings, OperationalStore
from support import Beside, Figure, Goal, Plan, measure_sync_ms, progress

ROW = "operational"
TASKS = (1, 16, 256, 2048)
INSERT = "INSERT INTO metadata (key, value, updated_us) VALUES (?, '1', 0)"


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    for tasks in TASKS:
        rates, plain, syncs, groups = [], [], [], []
        for number in range(plan.rounds):
            progress(f"{ROW}: {tasks} tasks, round {number + 1} of {plan.rounds}")
            plan.settle()
            with plan.folder("operational") as folder:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    done, commits, seconds = runner.run(change_all(folder, tasks, plan.round_s))
                rates.append(done / seconds)
                groups.append(done / commits)
                plain.append(plain_rate(folder / "bare.db", plan.round_s / 2))
                syncs.append(measure_sync_ms(folder))
        yield Figure(
            ROW, f"changes of accounts, fsynced, {tasks} task{'s'[: tasks > 1]}",
            tuple(rates), "changes/s",
            (Beside("SQLite, a transaction with fsync per change", statistics.median(plain)),),
            (Goal(30_000),) if tasks == max(TASKS) else (),
            notes=f"{statistics.median(groups):,.0f} changes in a transaction; "
            f"a sync takes {statistics.median(syncs):.2f} ms",
        )  # fmt: skip


async def change_all(folder: Path, tasks: int, seconds: float) -> tuple[int, int, float]:
    """Change from several tasks for a while; return changes acknowledged, commits, time taken."""
    clock, metrics = SystemClock(), MetricsRegistry(METRICS)
    store = OperationalStore(
        OperationalSettings(
            path=folder / "clisonix_operational.db",
            clock=clock,
            random_bytes=os.urandom,
            log=EventLog(clock, level="error"),
            metrics=metrics,
        ),
        on_state=lambda _ready, _reason: None,
    )
    await store.open()
    numbers = itertools.count()
    done = 0
    begun = time.perf_counter()

    async def client() -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await store.write(partial(insert, key=f"key-{next(numbers)}"))
            done += 1

    await asyncio.gather(*(client() for _ in range(tasks)))
    elapsed = time.perf_counter() - begun
    await store.close()
    return done, int(metrics.value("ocean_accounts_commits_total")), elapsed


def insert(db: apsw.Connection, key: str) -> None:
    db.execute(INSERT, (key,))


def plain_rate(path: Path, seconds: float) -> float:
    """Return how many changes a second SQLite takes with a transaction each."""
    db = apsw.Connection(str(path))
    try:
        db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        db.execute(
            "CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, "
            "updated_us INTEGER NOT NULL, expires_us INTEGER) STRICT, WITHOUT ROWID"
        )
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            with db:
                insert(db, f"key-{count}")
            count += 1
        return count / (time.perf_counter() - begun)
    finally:
        db.close()
