"""Single readings over HTTP, acknowledged after fsync, at 1 to 256 connections.

Baselines: a bare uvicorn that answers at once and stores nothing, under the same generator; and a
loop that commits one row after the other to SQLite with the journal's settings.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from support import (
    Bare,
    Beside,
    Datasets,
    Figure,
    Goal,
    Load,
    Plan,
    Server,
    Spent,
    generate,
    progress,
)

ROW = "singles"
CONNECTIONS = (1, 16, 64, 256)


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    loads: dict[int, list[tuple[Load, Load]]] = {count: [] for count in CONNECTIONS}
    per_cpu: dict[int, list[float]] = {count: [] for count in CONNECTIONS}
    commits: list[float] = []
    with plan.folder("singles") as folder, Server(folder / "data") as server, Bare("asgi") as bare:
        for number in range(plan.rounds):
            progress(f"{ROW}: round {number + 1} of {plan.rounds}")
            plan.settle()
            for count, pairs in loads.items():
                with Spent(server.pids[:1]) as spent:
                    ours = generate(server.port, "single", connections=count, seconds=plan.round_s)
                per_cpu[count].append(ours.sent / spent.cpu_s[0])
                theirs = generate(bare.port, "single", connections=count, seconds=plan.round_s)
                pairs.append((ours, theirs))
            commits.append(commit_rate(folder / f"bare-{number}.db", plan.round_s / 2))
    for count, pairs in loads.items():
        middle = sorted((pair[0] for pair in pairs), key=lambda load: load.rate)[len(pairs) // 2]
        at_once = sorted((pair[1] for pair in pairs), key=lambda load: load.rate)[len(pairs) // 2]
        yield Figure(
            ROW,
            f"single readings, fsynced, {count} connection{'s'[: count > 1]}",
            tuple(pair[0].rate for pair in pairs),
            "requests/s",
            (
                Beside("bare uvicorn + httptools, stores nothing", at_once.rate),
                Beside("SQLite, a commit with fsync per row", statistics.median(commits)),
            ),
            (Goal(100_000),) if count == 256 else (),
            notes=f"p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms "
            f"(bare: {at_once.p50_ms:.2f}, {at_once.p99_ms:.2f}); "
            f"{statistics.median(per_cpu[count]):,.0f} per CPU second of the ingest process",
        )


def commit_rate(path: Path, seconds: float) -> float:
    """Return how many rows a second SQLite takes with a commit each."""
    db = apsw.Connection(str(path))
    try:
        db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, s TEXT, ts INTEGER, v REAL)")
        begun, rows = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            db.execute(
                "INSERT INTO readings (s, ts, v) VALUES (?, ?, ?)", ("sensor-001", rows, 20.5)
            )
            rows += 1
        return rows / (time.perf_counter() - begun)
    finally:
        db.close()
