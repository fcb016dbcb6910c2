"""Memory and CPU of both processes: idle, at 50,000 readings/s, and in the flood.

Memory is resident memory, both processes added up (pages they share count twice); under load its
largest sample counts, and somebody asks for statistics 50 times a second. Baseline: a bare
Litestar application under uvicorn, doing nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from loading import BATCH_ROWS, Asking, Bare, Datasets, generate

from support import Beside, Figure, Goal, Plan, Server, Spent, Watch, memory_mb, progress

ROW = "resources"
SETTLE_S = 3.0
FLOOD = (Goal(350, "this version"),)
ORDERS: tuple[tuple[str, dict[str, Any], tuple[Goal, ...]], ...] = (
    (
        "50,000 readings/s in batches of 1000",
        {"kind": "batch", "connections": 4, "per_second": 50_000 / BATCH_ROWS},
        (Goal(200, "this version"), Goal(220)),
    ),
    (
        "50,000 single readings/s, 64 connections",
        {"kind": "single", "connections": 64, "per_second": 50_000},
        (Goal(200, "this version"), Goal(220)),
    ),
    ("singles from 256 connections", {"kind": "single", "connections": 256}, FLOOD),
    ("JSON batches at full speed", {"kind": "batch", "connections": 16}, FLOOD),
    (
        "packed blocks of 1000 at full speed",
        {"kind": "batch", "connections": 16, "options": {"form": "packed"}},
        FLOOD,
    ),
    (
        "packed blocks of 10,000 at full speed",
        {"kind": "batch", "connections": 16, "options": {"form": "packed", "rows": 10_000}},
        FLOOD,
    ),
)


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
        for name, order, goals in ORDERS:
            progress(f"{ROW}: {name}")
            plan.settle()
            figure = loaded(server, name, {"seconds": load_s, **order}, goals, bare_beside)
            if figure is not None:
                yield figure
        server.drain(120)
        time.sleep(2 * SETTLE_S)
        yield Figure(
            ROW, "memory, idle after the load", (memory_mb(pids),), "MB", bare_beside,
            lower_is_better=True, notes=each(pids),
        )  # fmt: skip
        yield idle_cpu(pids, bare.process.pid, idle_s, 1, "idle CPU after the load")


def loaded(
    server: Server,
    name: str,
    order: dict[str, Any],
    goals: tuple[Goal, ...],
    beside: tuple[Beside, ...],
) -> Figure | None:
    """Measure memory under a load; None if this version does not take it."""
    pids = server.pids
    try:
        with (
            Asking(server.port) as asking,
            Spent(pids) as spent,
            Watch(lambda: memory_mb(pids), 0.1) as memory,
        ):
            load = generate(server.port, **order)
    except RuntimeError as error:
        # One form that is not taken must not cost the others.
        progress(f"{ROW}: {name} left out: {error}")
        return None
    rows = order.get("options", {}).get("rows", BATCH_ROWS) if order["kind"] == "batch" else 1
    return Figure(
        ROW, f"memory under {name}", (max(memory.values),), "MB", beside, goals,
        lower_is_better=True,
        notes=f"median {statistics.median(memory.values):,.0f} MB; at the end {each(pids)}; "
        f"{load.rate * rows:,.0f} readings/s, {spent}; {asking}",
    )  # fmt: skip


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
        (Goal(0.4, "this version"), Goal(0.3)), lower_is_better=True,
    )  # fmt: skip
