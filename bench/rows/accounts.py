"""Users and sessions over HTTP: made, looked up, validated; changes acknowledged after fsync.

Baselines: a bare uvicorn that answers at once and stores nothing, under the same generator; and a
loop that commits one row after the other to SQLite with the store's settings.
"""

from __future__ import annotations

import itertools
import json
import statistics
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

from loading import Bare, Datasets, Load, generate
from rows.singles import commit_rate

from support import Beside, Figure, Goal, Plan, Server, progress

ROW = "accounts"
CONNECTIONS = (8, 16, 64)
USERS = 2_000
NEW_USERS = 60_000
API = "/api/ocean"
# What is done: its goal.
WORK = {
    "users made": 5_000,
    "sessions made": 5_000,
    "sessions validated": 12_000,
    "users looked up": 12_000,
}


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    loads: dict[tuple[str, int], list[Load]] = {}
    bare: dict[int, list[float]] = {count: [] for count in CONNECTIONS}
    commits: list[float] = []
    with plan.folder("accounts") as folder, Server(folder / "data") as server, Bare("asgi") as idle:
        box = Box(server.port)
        for number, count in itertools.product(range(plan.rounds), CONNECTIONS):
            progress(f"{ROW}: round {number + 1} of {plan.rounds}, {count} connections")
            plan.settle()
            for work in WORK:
                load = generate(
                    server.port, "requests", connections=count, seconds=plan.round_s,
                    requests_max=NEW_USERS, options=box.order(work),
                )  # fmt: skip
                loads.setdefault((work, count), []).append(load)
            bare[count].append(
                generate(idle.port, "single", connections=count, seconds=plan.round_s).rate
            )
            commits.append(commit_rate(folder / f"bare-{number}-{count}.db", plan.round_s / 2))
    for (work, count), found in loads.items():
        middle = sorted(found, key=lambda load: load.rate)[len(found) // 2]
        beside = [Beside("bare uvicorn, stores nothing", statistics.median(bare[count]))]
        if work.endswith("made"):
            beside.append(Beside("SQLite, a commit with fsync per row", statistics.median(commits)))
        yield Figure(
            ROW, f"{work}, {count} connections", tuple(load.rate for load in found), "requests/s",
            tuple(beside), (Goal(WORK[work]),),
            notes=f"p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms",
        )  # fmt: skip


class Box:
    """Knows users and tokens of a server, and makes orders for the generator."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}{API}"
        progress(f"{ROW}: {USERS} users, each with a session")
        self._users = [self._post("/users", self._new_user())["id"] for _ in range(USERS)]
        sessions = ({"user_id": user_id} for user_id in self._users)
        self._tokens = [self._post("/sessions/create", body)["token"] for body in sessions]

    def order(self, work: str) -> dict[str, Any]:
        if work == "users made":
            return self._posts("/users", [self._new_user() for _ in range(NEW_USERS)])
        if work == "sessions made":
            return self._posts("/sessions/create", [{"user_id": each} for each in self._users])
        if work == "sessions validated":
            return self._posts("/sessions/validate", [{"token": each} for each in self._tokens])
        return {"paths": [f"{API}/users/{user_id}" for user_id in self._users]}

    def _posts(self, path: str, bodies: list[dict[str, str]]) -> dict[str, Any]:
        return {"paths": [API + path] * len(bodies), "bodies": [json.dumps(b) for b in bodies]}

    def _new_user(self) -> dict[str, str]:
        name = uuid.uuid4().hex
        return {"username": name, "email": f"{name}@x.example"}

    def _post(self, path: str, body: dict[str, str]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(self._url + path, json.dumps(body).encode(), headers)
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)
