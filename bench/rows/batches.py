"""JSON batches of 1000 readings over HTTP, acknowledged after fsync, with the mover keeping up.

Rounds are at least 5 s long; the backlog is read from /api/ocean/status (its picture of analytics
is up to half a second old). Baselines: a loop that inserts numpy columns into a bare DuckDB file,
one transaction per 1000 rows, and the same with executemany.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from support import (
    BATCH_ROWS,
    Beside,
    Datasets,
    Figure,
    Goal,
    Load,
    Plan,
    Server,
    Spent,
    Watch,
    generate,
    progress,
)

ROW = "batches"
ROUND_S = 6.0
CONNECTIONS = (4, 16)
DRAIN_S = 120.0
STEADY_FROM_S = 2.0


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    baselines: list[Beside] = []
    for count in CONNECTIONS:
        rounds = []
        with plan.folder("batches") as folder, Server(folder / "data") as server:
            for number in range(plan.rounds):
                progress(f"{ROW}: {count} connections, round {number + 1} of {plan.rounds}")
                plan.settle()
                rounds.append(one_round(server, count))
            if not baselines:
                baselines = list(bare_loops(plan, folder))
        loads = sorted((found[0] for found in rounds), key=lambda load: load.rate)
        middle = loads[len(loads) // 2]
        yield Figure(
            ROW,
            f"JSON batches of 1000, fsynced, {count} connections",
            tuple(found[0].rate * BATCH_ROWS for found in rounds),
            "readings/s",
            tuple(baselines),
            (Goal(500_000, "this version"), Goal(2_500_000)),
            notes=f"per batch p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms; "
            + "; ".join(f"round {n + 1}: {found[1]}" for n, found in enumerate(rounds)),
        )
        yield Figure(
            ROW,
            f"moved into analytics meanwhile, {count} connections",
            tuple(found[2] for found in rounds),
            "readings/s",
            (Beside("acknowledged in the same time", statistics.median(f[3] for f in rounds)),),
        )


def one_round(server: Server, connections: int) -> tuple[Load, str, float, float]:
    """Return the load, what became of the backlog, and rates of moving and acknowledging."""
    begun = time.perf_counter()
    seen: list[tuple[float, int, int]] = []

    def depth() -> float:
        found = server.status()
        seen.append((
            time.perf_counter(), found["analytics"]["watermark"], found["buffer"]["head_id"],
        ))  # fmt: skip
        return float(found["buffer"]["depth"])

    with Spent(server.pids) as spent, Watch(depth, 0.25) as backlog:
        load = generate(server.port, "batch", connections=connections, seconds=ROUND_S)
    at_end = backlog.values[-1]
    drained_s = server.drain(DRAIN_S)
    per_cpu_s = load.sent * BATCH_ROWS / spent.cpu_s[0]
    steady = [row for row in seen if STEADY_FROM_S < row[0] - begun < ROUND_S]
    (t0, moved0, acked0), (t1, moved1, acked1) = steady[0], steady[-1]
    middle = [depth for at, depth in backlog.samples if STEADY_FROM_S < at < ROUND_S]
    notes = (
        f"backlog median {statistics.median(middle):,.0f}, largest {max(backlog.values):,.0f}, "
        f"at the end {at_end:,.0f}, drained in {drained_s:.1f} s, {spent}, "
        f"{per_cpu_s:,.0f} readings per CPU second of the ingest process"
    )
    return load, notes, (moved1 - moved0) / (t1 - t0), (acked1 - acked0) / (t1 - t0)


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
