"""Single readings over HTTP, acknowledged after fsync, at 1 to 256 connections and at 40,000 a second.

Meanwhile the mover takes them into analytics, and somebody asks for statistics 50 times a second.
Baselines of the same run, under the same generator: nginx with one worker that answers 204 (where it
is installed) and a bare uvicorn that answers at once, which both store nothing; the same server with
server.fast_path = false; and a loop that commits one row after the other to SQLite.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from loading import Asking, Bare, Datasets, Load, Nginx, generate, is_quick, nginx_program

from support import Beside, Figure, Goal, Plan, Server, Spent, free_port, progress

ROW = "singles"
CONNECTIONS = (1, 16, 64, 256)
GOALS = {
    64: (Goal(60_000, "this version"),),
    256: (Goal(80_000, "this version"), Goal(100_000)),
}
PACED = 40_000
PACED_CONNECTIONS = 256
OURS, NGINX, UVICORN, SLOW = (
    "ours",
    "nginx, one worker, answers 204",
    "bare uvicorn + httptools, stores nothing",
    "ours with server.fast_path = false",
)


@dataclass
class Found:
    """What was measured: loads by target and number of connections, and more about ours."""

    loads: dict[tuple[str, int], list[Load]] = field(default_factory=dict)
    per_cpu: dict[int, list[float]] = field(default_factory=dict)
    asked: dict[int, str] = field(default_factory=dict)
    paced: list[Load] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)

    def middle(self, target: str, count: int) -> Load | None:
        """Return the load with the median rate."""
        found = sorted(self.loads.get((target, count), ()), key=lambda load: load.rate)
        return found[len(found) // 2] if found else None


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    found = Found()
    with plan.folder("singles") as folder, ExitStack() as stack:
        server = stack.enter_context(Server(folder / "data"))
        slow = stack.enter_context(
            Server(folder / "slow", settings={"server.fast_path": False})
        )  # fmt: skip
        ports = {UVICORN: stack.enter_context(Bare("asgi")).port, SLOW: slow.port}
        if nginx_program():
            ports[NGINX] = stack.enter_context(Nginx(free_port())).port
        else:
            progress("no nginx here (Debian package nginx-light): that baseline is left out")
        for number in range(plan.rounds):
            progress(f"{ROW}: round {number + 1} of {plan.rounds}")
            plan.settle()
            # What changes little from round to round is measured once.
            others = ports if number == 0 else {k: v for k, v in ports.items() if k == NGINX}
            one_round(plan, server, others, found)
            found.commits.append(commit_rate(folder / f"bare-{number}.db", plan.round_s / 2))
    yield from (figure_of(found, count) for count in CONNECTIONS)
    worst = statistics.median(load.p99_ms for load in found.paced)
    yield Figure(
        ROW, f"p99 at {PACED:,} single readings/s, {PACED_CONNECTIONS} connections",
        tuple(load.p99_ms for load in found.paced), "ms", (),
        (Goal(10, "this version"),), lower_is_better=True,
        notes=f"{statistics.median(load.rate for load in found.paced):,.0f}/s were answered, "
        f"p50 {statistics.median(load.p50_ms for load in found.paced):.2f} ms, largest "
        f"{max(load.max_ms for load in found.paced):.1f} ms; {found.asked[0]}"
        + ("" if worst < 1000 else "; the server does not keep up with this rate"),
    )  # fmt: skip


def one_round(plan: Plan, server: Server, others: dict[str, int], found: Found) -> None:
    for count in CONNECTIONS:
        with Asking(server.port) as asking, Spent(server.pids[:1]) as spent:
            ours = generate(server.port, "single", connections=count, seconds=plan.round_s)
        found.asked[count] = str(asking)
        found.per_cpu.setdefault(count, []).append(ours.sent / spent.cpu_s[0])
        found.loads.setdefault((OURS, count), []).append(ours)
        for name, port in others.items():
            load = generate(port, "single", connections=count, seconds=plan.round_s / 2)
            found.loads.setdefault((name, count), []).append(load)
    with Asking(server.port) as asking:
        found.paced.append(
            generate(
                server.port, "single", connections=PACED_CONNECTIONS, seconds=plan.round_s,
                per_second=PACED,
            )
        )  # fmt: skip
    found.asked[0] = str(asking)


def figure_of(found: Found, count: int) -> Figure:
    middle = found.middle(OURS, count)
    assert middle is not None
    beside = [
        Beside(f"{name} (p99 {load.p99_ms:.2f} ms)", load.rate)
        for name in (NGINX, UVICORN, SLOW)
        if (load := found.middle(name, count)) is not None
    ]
    beside.append(Beside("SQLite, a commit with fsync per row", statistics.median(found.commits)))
    return Figure(
        ROW,
        f"single readings, fsynced, {count} connection{'s'[: count > 1]}",
        tuple(load.rate for load in found.loads[OURS, count]),
        "requests/s",
        tuple(beside),
        GOALS.get(count, ()),
        notes=f"p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms, largest "
        f"{middle.max_ms:.1f} ms; {statistics.median(found.per_cpu[count]):,.0f} per CPU second of "
        f"the ingest process; {found.asked[count]}"
        + ("" if is_quick() else "; the generator in Python is the limit"),
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
