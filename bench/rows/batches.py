"""Batches over HTTP in every form, acknowledged after fsync, with the mover keeping up.

10 s each, somebody asking for statistics 50 times a second. The backlog, acknowledged readings that
are not in analytics yet, is read from /api/ocean/status (its picture of analytics is up to half a
second old); its slope is that of a straight line through it. Baselines: a loop that inserts numpy
columns into a bare DuckDB file, one transaction per 1000 rows, and the same with executemany.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from loading import BATCH_ROWS, Asking, Datasets, Load, generate

from support import Beside, Figure, Goal, Plan, Server, Spent, Watch, progress

ROW = "batches"
ROUND_S = 10.0
SHORT_S = 4.0
DRAIN_S = 120.0
STEADY_FROM_S = 2.0


@dataclass(frozen=True)
class Way:
    """One way of sending: what the generator makes of it, and what it should reach."""

    name: str
    form: str
    rows: int = 1000
    encoding: str = ""
    connections: int = 16
    goals: tuple[Goal, ...] = ()
    is_main: bool = False


JSON = (Goal(2_000_000, "this version"), Goal(2_500_000))
PACKED = (Goal(4_000_000, "this version"), Goal(5_000_000))
WAYS = (
    Way("JSON rows, 1000 a batch, 4 connections", "rows", connections=4, goals=JSON),
    Way("JSON rows, 1000 a batch", "rows", goals=JSON, is_main=True),
    Way("columnar JSON, 1000 a batch", "columnar", goals=(Goal(3_000_000),), is_main=True),
    Way("NDJSON, 1000 a batch", "ndjson"),
    Way("packed block, 1000 a batch", "packed", goals=PACKED, is_main=True),
    Way("packed block, 10,000 a batch", "packed", 10_000, goals=PACKED, is_main=True),
    Way("JSON rows, gzip, 1000 a batch", "rows", encoding="gzip"),
    Way("JSON rows, zstd, 1000 a batch", "rows", encoding="zstd"),
)


@dataclass(frozen=True)
class Round:
    """What one round showed."""

    load: Load
    notes: str
    moved: float
    acknowledged: float


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    with plan.folder("bare") as folder:
        baselines = tuple(bare_loops(plan, folder))
    for way in WAYS:
        rounds = []
        try:
            with plan.folder("batches") as folder, Server(folder / "data") as server:
                for number in range(plan.rounds if way.is_main else 1):
                    progress(f"{ROW}: {way.name}, round {number + 1}")
                    plan.settle()
                    rounds.append(one_round(server, way))
        except RuntimeError as error:
            # One form that is not taken must not cost the others.
            progress(f"{ROW}: {way.name} left out: {error}")
            continue
        yield from figures_of(way, rounds, baselines)


def figures_of(way: Way, rounds: list[Round], baselines: tuple[Beside, ...]) -> Iterator[Figure]:
    middle = sorted((found.load for found in rounds), key=lambda load: load.rate)[len(rounds) // 2]
    yield Figure(
        ROW,
        f"{way.name}, fsynced",
        tuple(found.load.rate * way.rows for found in rounds),
        "readings/s",
        baselines,
        way.goals,
        notes=f"{way.connections} connections, per batch p50 {middle.p50_ms:.2f} ms, "
        f"p99 {middle.p99_ms:.2f} ms; "
        + "; ".join(f"round {n + 1}: {found.notes}" for n, found in enumerate(rounds)),
    )
    if way.is_main:
        yield Figure(
            ROW,
            f"{way.name}: moved into analytics meanwhile",
            tuple(found.moved for found in rounds),
            "readings/s",
            (
                Beside(
                    "acknowledged in the same time",
                    statistics.median(found.acknowledged for found in rounds),
                ),
            ),
        )


def one_round(server: Server, way: Way) -> Round:
    """Send, look on, and wait until everything has arrived in analytics."""
    seconds = ROUND_S if way.is_main else SHORT_S
    options = {"form": way.form, "rows": way.rows, "encoding": way.encoding}
    seen: list[tuple[float, int, int]] = []

    def depth() -> float:
        found = server.status()
        seen.append((
            time.perf_counter(), found["analytics"]["watermark"], found["buffer"]["head_id"],
        ))  # fmt: skip
        return float(found["buffer"]["depth"])

    # A batch beforehand, so that making the file of requests is no part of the round.
    generate(server.port, "batch", connections=1, seconds=5, requests_max=1, options=options)
    begun = time.perf_counter()
    with (
        Asking(server.port) as asking,
        Spent(server.pids) as spent,
        Watch(depth, 0.25) as backlog,
    ):
        load = generate(
            server.port, "batch", connections=way.connections, seconds=seconds, options=options
        )
    drained_s = server.drain(DRAIN_S)
    steady = [row for row in seen if STEADY_FROM_S < row[0] - begun < seconds]
    (t0, moved0, acked0), (t1, moved1, acked1) = steady[0], steady[-1]
    middle = [sample for sample in backlog.samples if STEADY_FROM_S < sample[0] < seconds]
    slope = float(np.polyfit(*zip(*middle, strict=True), 1)[0])
    acknowledged = (acked1 - acked0) / (t1 - t0)
    notes = (
        f"backlog {middle[0][1]:,.0f} after {STEADY_FROM_S:.0f} s, {middle[-1][1]:,.0f} at the end, "
        f"largest {max(backlog.values):,.0f}, slope {100 * slope / acknowledged:+.1f} % of the rate, "
        f"gone {drained_s:.1f} s later; {spent}, "
        f"{load.sent * way.rows / spent.cpu_s[0]:,.0f} readings per CPU second of the ingest "
        f"process; {asking}"
    )
    return Round(load, notes, (moved1 - moved0) / (t1 - t0), acknowledged)


def bare_loops(plan: Plan, folder: Path) -> Iterator[Beside]:
    """Measure bare DuckDB inserts, in readings/s."""
    rng = np.random.default_rng(7)
    columns = {
        "series_id": np.arange(BATCH_ROWS, dtype=np.int32) % 100,
        "ts": np.arange(BATCH_ROWS, dtype=np.int64).view("M8[us]"),
        "value": rng.normal(20, 5, BATCH_ROWS),
    }
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))

    def numpy_columns(db: duckdb.DuckDBPyConnection) -> None:
        incoming: Any = columns
        db.register("incoming", incoming)
        db.execute("INSERT INTO readings SELECT * FROM incoming")
        db.unregister("incoming")

    def executemany(db: duckdb.DuckDBPyConnection) -> None:
        db.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)

    ways: tuple[tuple[str, Callable[[duckdb.DuckDBPyConnection], None]], ...] = (
        ("bare DuckDB, numpy columns, 1000 rows a transaction", numpy_columns),
        ("bare DuckDB, executemany, 1000 rows a transaction", executemany),
    )
    for name, insert in ways:
        rates = []
        for number in range(plan.rounds):
            plan.settle()
            db = duckdb.connect(str(folder / f"{insert.__name__}-{number}.duckdb"))
            try:
                db.execute("CREATE TABLE readings (series_id INTEGER, ts TIMESTAMP, value DOUBLE)")
                begun, count = time.perf_counter(), 0
                while time.perf_counter() - begun < plan.round_s:
                    db.execute("BEGIN")
                    insert(db)
                    db.execute("COMMIT")
                    count += BATCH_ROWS
                rates.append(count / (time.perf_counter() - begun))
            finally:
                db.close()
        yield Beside(name, statistics.median(rates))
