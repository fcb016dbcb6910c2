"""Bytes written to the disk per reading: ten lone readings a second, and batches at 50,000 a second.

From /proc/<pid>/io of both processes; the notes tell the block device's own count, which has what
other programs wrote as well. Each count ends when everything is in analytics and the journal's WAL
is copied. Baseline: SQLite with the journal's settings, a commit per row, or per 1000 rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
from loading import BATCH_ROWS, Datasets, generate

from support import (
    Beside,
    Figure,
    Plan,
    Server,
    device_written_bytes,
    progress,
    told,
    wait_until,
    written_bytes,
)

ROW = "flash"
DELAYS_MS = (0, 100, 1000)
LONE_PER_S = 10
LONE_CONNECTIONS = 20
BATCHES_PER_S = 50
QUIET_S = 1.0
SETTLE_TIMEOUT_S = 30.0
DAY_S = 86_400


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    lone_s, batches_s = (20.0, 8.0) if plan.quick else (65.0, 30.0)
    lone: dict[str, Any] = {
        "kind": "single", "connections": LONE_CONNECTIONS, "per_second": LONE_PER_S,
        "seconds": lone_s,
    }  # fmt: skip
    many: dict[str, Any] = {
        "kind": "batch", "connections": 4, "per_second": BATCHES_PER_S, "seconds": batches_s
    }  # fmt: skip
    with plan.folder("flash") as folder:
        bare = sqlite_bytes(folder / "lone.db", 1), sqlite_bytes(folder / "batches.db", BATCH_ROWS)
        beside = (Beside("SQLite, a commit per row", bare[0]),)
        for delay_ms in DELAYS_MS:
            name = f"{LONE_PER_S} lone readings/s, commit_delay_ms {delay_ms}"
            yield measured(folder / f"lone-{delay_ms}", name, delay_ms, lone, beside)
        name = f"batches of {BATCH_ROWS} at {BATCHES_PER_S * BATCH_ROWS:,} readings/s"
        beside = (Beside(f"SQLite, {BATCH_ROWS} rows a commit", bare[1]),)
        yield measured(folder / "batches", name, 0, many, beside)


def measured(
    place: Path, name: str, delay_ms: int, order: dict[str, Any], beside: tuple[Beside, ...]
) -> Figure:
    progress(f"{ROW}: {name}")
    place.mkdir()
    with Server(place / "data", settings={"journal.commit_delay_ms": delay_ms}) as server:
        pids = server.pids
        settle(pids, server)
        before, device_before = written_bytes(pids), device_written_bytes(place)
        load = generate(server.port, warm_s=0, **order)
        during = written_bytes(pids) - before
        server.drain(60)
        settle(pids, server)
        written, device_after = written_bytes(pids) - before, device_written_bytes(place)
    rows = load.sent * (BATCH_ROWS if order["kind"] == "batch" else 1)
    device = "the device's own count is not available"
    if device_before is not None and device_after is not None:
        device = f"{told((device_after - device_before) / rows)} by the device's own count"
    per_day = written / order["seconds"] * DAY_S
    return Figure(
        ROW, name, (written / rows,), "bytes/reading", beside, lower_is_better=True,
        notes=f"{device}; {rows:,} readings in {order['seconds']:.0f} s, {per_day / 1e9:.2f} GB a "
        f"day ({100 * during / max(written, 1):.0f} % of it before the last drain and checkpoint); "
        f"acknowledged p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms",
    )  # fmt: skip


def settle(pids: list[int], server: Server) -> None:
    """Wait until the journal's WAL is copied and nothing more is written for a moment."""
    wal = server.data_dir / "journal.db-wal"
    quiet = [time.perf_counter(), written_bytes(pids)]

    def is_quiet() -> bool:
        now = written_bytes(pids)
        if now != quiet[1] or (wal.exists() and wal.stat().st_size):
            quiet[:] = [time.perf_counter(), now]
        return time.perf_counter() - quiet[0] > QUIET_S

    wait_until(is_quiet, SETTLE_TIMEOUT_S, server.log_tail, every_s=0.05)


def sqlite_bytes(path: Path, rows_per_commit: int, commits: int = 300) -> float:
    """Return the bytes that SQLite sends to the disk per row, checkpoints included."""
    db = apsw.Connection(str(path))
    try:
        db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, s TEXT, ts INTEGER, v REAL)")
        before = written_bytes([os.getpid()])
        for number in range(commits):
            with db:
                db.executemany(
                    "INSERT INTO readings (s, ts, v) VALUES (?, ?, ?)",
                    (("sensor-001", number, row / 7) for row in range(rows_per_commit)),
                )
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return (written_bytes([os.getpid()]) - before) / (commits * rows_per_commit)
    finally:
        db.close()
