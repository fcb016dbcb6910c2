"""Queries over HTTP at 1 M and 10 M readings of 100 sensors, 4 clients, sensors in turn.

Baseline: the same question as SQL on a plain DuckDB table of the same readings, sorted as they
came, without rollups and live window, asked in-process by 4 threads.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from loading import INTERVAL_S, SERIES, Datasets, generate, sensor

from support import Beside, Figure, Goal, Plan, Server, Spent, progress

ROW = "queries"
CLIENTS = 4
DAY_S = 86_400
CHUNK = 200_000
ANALYTICS = "/api/ocean/analytics"

STATS = (
    "SELECT count(*), avg(value), min(value), max(value), stddev_samp(value), min(ts), max(ts) "
    "FROM readings WHERE series_id = $1"
)
RANGE = STATS + " AND ts BETWEEN make_timestamp($2) AND make_timestamp($3)"
BUCKETS = (
    "SELECT time_bucket(to_seconds({width}), ts) AS b, count(*), avg(value), min(value), max(value)"
    " FROM readings WHERE series_id = $1 AND ts BETWEEN make_timestamp($2) AND make_timestamp($3)"
    " GROUP BY b ORDER BY b"
)
LATEST = "SELECT ts, value FROM readings WHERE series_id = $1 ORDER BY ts DESC LIMIT 1"
COMPARE = (
    "SELECT series_id, count(*), avg(value), min(value), max(value), stddev_samp(value) "
    "FROM readings WHERE series_id IN ($1, $2, $3, $4, $5) GROUP BY series_id"
)
ANOMALIES = (
    "WITH s AS (SELECT avg(value) AS m, stddev_samp(value) AS d FROM readings WHERE series_id = $1)"
    " SELECT ts, value, (value - m) / d FROM readings, s"
    " WHERE series_id = $1 AND abs(value - m) > {threshold} * d ORDER BY ts DESC LIMIT 100"
)


@dataclass(frozen=True)
class Question:
    """One kind of query: addresses for us, SQL with its parameters for the baseline."""

    name: str
    paths: list[str]
    sql: str
    parameters: list[list[int]]
    goal: float
    bodies: tuple[str, ...] = ()


def questions(first_s: int, last_s: int) -> Iterator[Question]:
    numbers = range(SERIES)
    day = f"start={last_s - DAY_S}&end={last_s}"
    # A minute that no rollup begins with.
    ragged = (first_s + 3600 + 37, last_s - 1800 - 23)
    whole_us = [first_s * 1_000_000, last_s * 1_000_000]

    def of_each(path: str) -> list[str]:
        return [f"{ANALYTICS}/sensor/{sensor(number)}/{path}" for number in numbers]

    def with_range(begin_s: int, end_s: int) -> list[list[int]]:
        return [[number, begin_s * 1_000_000, end_s * 1_000_000] for number in numbers]

    alone = [[number] for number in numbers]
    yield Question("stats, everything", of_each("stats"), STATS, alone, 5000)
    yield Question(
        "stats, a range of any seconds",
        of_each(f"stats?start={ragged[0]}&end={ragged[1]}"), RANGE, with_range(*ragged), 5000,
    )  # fmt: skip
    yield Question(
        "series, last day by 5 minutes", of_each(f"timeseries?interval=5m&{day}"),
        BUCKETS.format(width=300), with_range(last_s - DAY_S, last_s), 5000,
    )  # fmt: skip
    yield Question(
        "series, everything by hour", of_each("timeseries?interval=1h"),
        BUCKETS.format(width=3600), [[number, *whole_us] for number in numbers], 5000,
    )  # fmt: skip
    yield Question(
        "latest", [f"/api/ocean/sensors/{sensor(number)}/latest" for number in numbers],
        LATEST, alone, 5000,
    )  # fmt: skip
    groups = [[(number + step) % SERIES for step in range(5)] for number in numbers]
    yield Question(
        "compare 5", [f"{ANALYTICS}/compare"] * SERIES, COMPARE, groups, 2000,
        tuple(json.dumps({"sensor_ids": [sensor(n) for n in group]}) for group in groups),
    )  # fmt: skip
    for threshold in (4, 2):
        yield Question(
            f"anomalies beyond {threshold} deviations",
            of_each(f"anomalies?threshold={threshold}"),
            ANOMALIES.format(threshold=threshold), alone, 1000,
        )  # fmt: skip


def run(plan: Plan, datasets: Datasets) -> Iterator[Figure]:
    for size in plan.sizes:
        data_dir, first_s = datasets.get(size)
        last_s = first_s + (size // SERIES - 1) * INTERVAL_S
        with plan.folder("queries") as folder, Server(data_dir) as server:
            bare = Table(folder / "bare.duckdb", size, first_s)
            server.drain(60)
            for question in questions(first_s, last_s):
                progress(f"{ROW}: {question.name} at {size:,}")
                yield measured(plan, server, bare, question, size)
            bare.close()


def measured(plan: Plan, server: Server, bare: Table, question: Question, size: int) -> Figure:
    options = {"paths": question.paths, "bodies": list(question.bodies)}
    answer_bytes = 0
    if not question.bodies:
        code, body = server.get(question.paths[0])
        assert code == 200, body
        answer_bytes = len(body)
    loads, rates, costs = [], [], []
    for _ in range(plan.rounds):
        plan.settle()
        with Spent(server.pids) as spent:
            load = generate(
                server.port, "requests", connections=CLIENTS, seconds=plan.round_s / 1.5,
                options=options,
            )  # fmt: skip
        loads.append(load)
        costs.append([1000 * cpu_s / load.sent for cpu_s in spent.cpu_s])
        rates.append(bare.rate(question.sql, question.parameters, plan.round_s / 3))
    middle = sorted(loads, key=lambda load: load.rate)[len(loads) // 2]
    ingest_ms, analytics_ms = (statistics.median(part) for part in zip(*costs, strict=True))
    return Figure(
        ROW,
        f"{question.name}, {size // 1_000_000} M readings",
        tuple(load.rate for load in loads),
        "queries/s",
        (Beside("SQL on a plain DuckDB table, in-process", statistics.median(rates)),),
        (Goal(question.goal),),
        notes=f"p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms, "
        f"CPU per query {ingest_ms:.2f} ms ingest + {analytics_ms:.2f} ms analytics"
        + (f", answer of {answer_bytes:,} bytes" if answer_bytes else ""),
    )


class Table:
    """As many readings of the same kind in a plain DuckDB table, in the order of arrival."""

    def __init__(self, path: Path, size: int, first_s: int) -> None:
        self._db = duckdb.connect(str(path), config={"memory_limit": "384MB", "threads": 2})
        self._db.execute("CREATE TABLE readings (series_id INTEGER, ts TIMESTAMP, value DOUBLE)")
        rng = np.random.default_rng(7)
        for begin in range(0, size, CHUNK):
            number = np.arange(begin, min(size, begin + CHUNK))
            seconds = first_s + number // SERIES * INTERVAL_S
            outside = rng.random(len(number)) < 1 / 500
            incoming: Any = {
                "series_id": (number % SERIES).astype(np.int32),
                "ts": (1_000_000 * seconds).view("M8[us]"),
                "value": rng.normal(20, 2, len(number)).round(3) + 40 * outside,
            }
            self._db.register("incoming", incoming)
            self._db.execute("INSERT INTO readings SELECT * FROM incoming")
            self._db.unregister("incoming")
        self._db.execute("CHECKPOINT")

    def rate(self, sql: str, parameters: list[list[int]], seconds: float) -> float:
        """Return queries/s of all clients together."""
        counts = [0] * CLIENTS
        ends = time.perf_counter() + seconds
        begun = time.perf_counter()
        threads = [
            threading.Thread(target=self._ask, args=(sql, parameters, ends, counts, number))
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - begun)

    def _ask(
        self, sql: str, parameters: list[list[int]], ends: float, counts: list[int], number: int
    ) -> None:
        cursor = self._db.cursor()
        ask: Callable[..., Any] = cursor.execute
        turn = number * len(parameters) // CLIENTS
        while time.perf_counter() < ends:
            ask(sql, parameters[turn % len(parameters)]).fetchall()
            counts[number] += 1
            turn += 1
        cursor.close()

    def close(self) -> None:
        self._db.close()
