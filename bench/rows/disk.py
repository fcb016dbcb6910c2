"""Bytes on disk per reading, after a clean stop: journal, analytics, and both.

Baselines: a SQLite table with a row per reading, and a plain DuckDB table. Until the archive
exists the journal keeps everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
from loading import SERIES, Datasets, sensor
from rows.queries import Table

from support import Beside, Figure, Goal, Plan, folder_bytes, progress

ROW = "disk"


def run(plan: Plan, datasets: Datasets) -> Iterator[Figure]:
    for size in plan.sizes:
        data_dir, first_s = datasets.get(size)
        progress(f"{ROW}: {size:,} readings")
        with plan.folder("disk") as folder:
            table = Table(folder / "bare.duckdb", size, first_s)
            table.close()
            duck = folder_bytes(folder, "bare.duckdb") / size
            plain = sqlite_bytes(folder / "bare.db") if size <= 1_000_000 else 0.0
        beside = [Beside("plain DuckDB table (series, time, value)", duck)]
        if plain:
            beside.append(Beside("SQLite table, a row per reading", plain))
        parts = {
            "journal": folder_bytes(data_dir, "journal.db") / size,
            "analytics": folder_bytes(data_dir, "analytics.duckdb") / size,
        }
        millions = size // 1_000_000
        for name, value in parts.items():
            yield Figure(
                ROW, f"{name}, {millions} M readings", (value,), "bytes/reading", tuple(beside),
                lower_is_better=True,
            )  # fmt: skip
        yield Figure(
            ROW, f"all of it, {millions} M readings", (sum(parts.values()),), "bytes/reading",
            tuple(beside), (Goal(6),), lower_is_better=True,
            notes="the goal is for closed days in the archive, which this version does not have yet",
        )  # fmt: skip


def sqlite_bytes(path: Path, rows: int = 200_000) -> float:
    db = apsw.Connection(str(path))
    try:
        db.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, s TEXT, ts INTEGER, v REAL)")
        with db:
            db.executemany(
                "INSERT INTO readings (s, ts, v) VALUES (?, ?, ?)",
                ((sensor(n), 1_780_000_000_000_000 + n // SERIES, 20 + n / 7) for n in range(rows)),
            )
    finally:
        db.close()
    return path.stat().st_size / rows
