"""Memory and CPU of both processes: idle, under singles, at 50 k readings/s, under full batches.

Memory is resident memory, both processes added up (pages they share count twice). Baseline: a bare
Litestar application under uvicorn, doing nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from support import (
    BATCH_ROWS,
    Bare,
    Beside,
    Datasets,
    Figure,
    Goal,
    Plan,
    Server,
    Spent,
    Watch,
    generate,
    memory_mb,
    progress,
)

ROW = "resources"
SETTLE_S = 3.0


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    idle_s = 10.0 if plan.quick else 20.0
    load_s = 5.0 if plan.quick else 15.0
    with (
        plan.folder("resources") as folder,
        Server(folder / "data") as server,
        Bare("litestar") as bare,
    ):
        time.sleep(SETTLE_S)
        pids = server.pids
        bare_mb = memory_mb([bare.process.pid])
        bare_beside = (Beside("bare Litestar under uvicorn, idle", bare_mb),)
        yield Figure(
            ROW, "memory, idle after the start", (memory_mb(pids),), "MB", bare_beside,
            (Goal(140),), lower_is_better=True, notes=each(pids),
        )  # fmt: skip
        yield idle_cpu(pids, bare.process.pid, idle_s, plan.rounds, "idle CPU")
        orders: tuple[tuple[str, dict[str, Any], tuple[Goal, ...]], ...] = (
            ("singles from 64 connections", {"kind": "single", "connections": 64}, ()),
            (
                "50,000 readings/s in batches of 1000",
                {"kind": "batch", "connections": 4, "per_second": 50_000 / BATCH_ROWS},
                (Goal(220),),
            ),
            ("batches at full speed", {"kind": "batch", "connections": 4}, ()),
        )
        for name, order, goals in orders:
            progress(f"{ROW}: {name}")
            plan.settle()
            with Spent(pids) as spent, Watch(lambda: memory_mb(pids), 0.2) as memory:
                load = generate(server.port, seconds=load_s, **order)
            readings = load.rate * (BATCH_ROWS if order["kind"] == "batch" else 1)
            yield Figure(
                ROW, f"memory under {name}", (statistics.median(memory.values),), "MB",
                bare_beside, goals, lower_is_better=True,
                notes=f"largest {max(memory.values):,.0f} MB; {readings:,.0f} readings/s, "
                f"{spent}",
            )  # fmt: skip
        server.drain(120)
        time.sleep(2 * SETTLE_S)
        yield Figure(
            ROW, "memory, idle after the load", (memory_mb(pids),), "MB", bare_beside,
            lower_is_better=True, notes=each(pids),
        )  # fmt: skip
        yield idle_cpu(pids, bare.process.pid, idle_s, 1, "idle CPU after the load")


def each(pids: list[int]) -> str:
    return "ingest + analytics: " + " + ".join(f"{memory_mb([pid]):.0f}" for pid in pids) + " MB"


def idle_cpu(pids: list[int], bare: int, seconds: float, rounds: int, name: str) -> Figure:
    """Measure what runs while nobody asks for anything."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        progress(f"{ROW}: {name}, round {number + 1} of {rounds}")
        with Spent([*pids, bare]) as spent:
            time.sleep(seconds)
        used = [100 * cpu_s / spent.wall_s for cpu_s in spent.cpu_s]
        ours.append(sum(used[:-1]))
        theirs.append(used[-1])
    return Figure(
        ROW, name, tuple(ours), "% of a core",
        (Beside("bare Litestar under uvicorn", statistics.median(theirs)),),
        (Goal(0.3),), lower_is_better=True,
    )  # fmt: skip
