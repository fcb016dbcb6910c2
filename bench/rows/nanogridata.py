"""Nanogridata frames over TCP, acknowledged after fsync, at each security level.

500 devices on 16 connections, as gateways bundle them, and on 500. Meanwhile the mover takes the
readings into analytics. Baseline, under the same generator: a uvloop server that only counts bytes
and answers as many records; it verifies nothing and stores nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loading import Bare, Datasets

from support import Beside, Figure, Goal, Plan, Server, Spent, progress

ROW = "nanogridata"
SECRET = bytes(range(7, 39)).hex()
GENERATOR = Path(__file__).resolve().parent.parent / "frames.py"
LEVEL_ONE = (Goal(100_000, "this version"), Goal(200_000))


@dataclass(frozen=True)
class Way:
    """One way of sending; ``frames`` are those of all connections in a full round."""

    level: int
    connections: int
    frames: int
    window: int
    goals: tuple[Goal, ...] = ()

    @property
    def name(self) -> str:
        return f"frames of level {self.level} over TCP, fsynced, {self.connections} connections"


WAYS = (
    Way(0, 16, 1_600_000, 1_000),
    Way(1, 16, 1_600_000, 1_000, LEVEL_ONE),
    Way(1, 500, 1_500_000, 128, LEVEL_ONE),
    Way(2, 16, 160_000, 1_000),
    Way(3, 16, 160_000, 1_000),
)


@dataclass(frozen=True)
class Round:
    """What one round showed."""

    rate: float
    bare: float
    per_cpu: float
    frame_bytes: int
    drained_s: float


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    found: dict[Way, list[Round]] = {way: [] for way in WAYS}
    salt = 1_000
    with plan.folder(ROW) as folder, Bare("records") as bare:
        environment = {"OCEAN_NANOGRIDATA_SECRET_10": SECRET}
        settings = {"nanogridata.tcp": True, "nanogridata.tcp_port": 0}
        with Server(folder / "data", settings=settings, environment=environment) as server:
            port = int(server.run_info()["frames_tcp"].rpartition(":")[2])
            for level in range(4):
                # The first frames of a device are looked at with care; that is not the question here.
                send(port, Way(level, 16, 2_000, 100), salt := salt + 1_000)
                send(port, Way(level, 16, 2_000, 100), salt := salt + 1_000)
            for number in range(plan.rounds):
                progress(f"{ROW}: round {number + 1} of {plan.rounds}")
                for way in WAYS:
                    plan.settle()
                    salt += 1_000
                    found[way].append(one_round(server, port, bare.port, way, salt))
    yield from (figure_of(way, rounds) for way, rounds in found.items())


def one_round(server: Server, port: int, bare_port: int, way: Way, salt: int) -> Round:
    with Spent(server.pids[:1]) as spent:
        rate, size = send(port, way, salt)
    drained_s = server.drain(120)
    bare_rate, _ = send(bare_port, way, salt)
    return Round(rate, bare_rate, way.frames / spent.cpu_s[0], size, drained_s)


def send(port: int, way: Way, salt: int) -> tuple[float, int]:
    """Return frames per second and the length of one; all of them were stored."""
    each = max(1, way.frames // way.connections)
    answer = subprocess.run(
        [
            sys.executable, str(GENERATOR), str(port), "--connections", str(way.connections),
            "--frames", str(each), "--window", str(way.window), "--level", str(way.level),
            "--secret", SECRET, "--salt", str(salt),
        ],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    told = json.loads(answer.stdout)
    assert told["stored"] == told["frames"], told
    return told["frames"] / told["seconds"], told["frame_bytes"]


def figure_of(way: Way, rounds: list[Round]) -> Figure:
    return Figure(
        ROW,
        way.name,
        tuple(one.rate for one in rounds),
        "frames/s",
        (
            Beside(
                "a server that only counts bytes and answers",
                statistics.median(one.bare for one in rounds),
            ),
        ),
        way.goals,
        notes=f"{rounds[0].frame_bytes} bytes each; "
        f"{statistics.median(one.per_cpu for one in rounds):,.0f} per CPU second of the ingest "
        f"process; analytics had all {statistics.median(one.drained_s for one in rounds):.1f} s "
        "after the last acknowledgement",
    )
