"""Accounts across sudden deaths: what was answered is there, once; usage counts exactly."""

import random
from pathlib import Path
from typing import Any

import pytest

from support.account_points import COMMIT_POINTS, RULE_POINTS, SALVAGE_POINTS
from support.appliance import Appliance
from support.audit import ask, read_journal
from support.waiting import pause, until
from support.web import BATCH, ConnectionLostError, Http

API = "/api/ocean"
KILLS = 4
ROWS = 25

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]


class Clerk:
    """Makes users, sends again what was not answered, and knows what was."""

    def __init__(self, box: Appliance) -> None:
        self.box = box
        self.answered: dict[str, str] = {}
        self.open: list[str] = []
        self._number = 0

    def make(self, name: str | None = None) -> bool:
        """Make a user; return whether an answer came."""
        if name is None:
            name = f"user-{self._number}"
            self._number += 1
            self.open.append(name)
        body = {"username": name, "email": f"{name}@x.example"}
        try:
            reply = self.box.http(timeout_s=10).post(f"{API}/users", body, key=name)
        except ConnectionLostError:
            return False
        self.answered[name] = reply.good()["id"]
        self.open.remove(name)
        return True

    def check(self) -> None:
        """Repeat what is open, then compare everything with what the box lists."""
        for name in list(self.open):
            assert self.make(name)
        users = self.box.http().get(f"{API}/users", limit=1000).good()["users"]
        assert {user["username"]: user["id"] for user in users} == self.answered
        for user_id in self.answered.values():
            assert self.box.http().get(f"{API}/billing/{user_id}").good()["credits"] == 0


@pytest.mark.parametrize("name", COMMIT_POINTS)
def test_death_around_a_commit(name: str, tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        clerk = Clerk(box)
        box.start()
        for _ in range(3):
            assert clerk.make()
        assert box.stop() == 0
        box.launch(OCEAN_FAULT=f"{name}@2")

        def dead() -> bool:
            if box.exit_code() is None and box.knows_address():
                clerk.make()
            return box.exit_code() == -9

        until(dead, within_s=40, what=f"a death at {name}")
        box.end_all()
        box.start()
        clerk.check()
        assert box.stop() == 0


@pytest.mark.parametrize("name", SALVAGE_POINTS)
def test_death_during_a_salvage(name: str, tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        clerk = Clerk(box)
        box.start()
        for _ in range(5):
            assert clerk.make()
        key = box.http().post(f"{API}/keys", {"name": "k", "scopes": ["read"]}).good()["key"]
        assert box.stop() == 0
        with (box.data_dir / "clisonix_operational.db").open("r+b") as file:
            file.write(bytes(100))
        box.launch(OCEAN_FAULT=name)
        until(lambda: box.exit_code() == -9, within_s=40, what=f"a death at {name}")
        box.end_all()
        box.start()
        clerk.check()
        headers = {"Authorization": f"Bearer {key}"}
        assert box.http().request("GET", f"{API}/status", None, headers).status == 200
        assert "accounts.damaged" in box.alarms()
        for kept in box.data_dir.glob("clisonix_operational.db.damaged-*"):
            kept.unlink()
        assert box.stop() == 0
        box.start()
        assert "accounts.damaged" not in box.alarms()
        assert box.stop() == 0


@pytest.mark.parametrize("name", RULE_POINTS)
def test_death_while_a_sensor_is_forgotten(name: str, tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        items = [
            {"sensor_id": sensor, "value": value}
            for sensor, count in (("keep", 40), ("gone", 30))
            for value in range(count)
        ]
        box.http().post(BATCH, items).good()
        assert ask(box, f"{API}/analytics/sensor/gone/stats")["count"] == 30
        assert box.stop() == 0
        box.launch(OCEAN_FAULT=name)
        box.wait_ready()
        body = {"confirm": "gone"}
        reply = box.http(timeout_s=60).post(f"{API}/sensors/gone/forget", body)
        assert reply.status in (200, 503), reply.body
        until(
            lambda: "analytics.exited code=-9" in box.log(), within_s=40, what=f"a death at {name}"
        )
        assert box.exit_code() is None, "ingest goes on"
        assert box.http().get("/health", ready="true").status == 200
        box.end_all()
        box.start()
        assert ask(box, f"{API}/analytics/sensor/keep/stats")["count"] == 40
        assert box.http().get(f"{API}/analytics/sensor/gone/stats", wait="true").status == 404

        def counted() -> Any:
            return box.http().get(f"{API}/ledger").good()["sensors"]

        (entry,) = until(counted, within_s=40, what="what was forgotten is counted")
        assert (entry["sensor_id"], entry["class"], entry["count"]) == ("gone", "forgotten", 30)
        # The same again from the journal alone: what is forgotten stays forgotten.
        assert box.stop() == 0
        (box.data_dir / "analytics.duckdb").unlink()
        box.start()
        assert ask(box, f"{API}/analytics/sensor/keep/stats")["count"] == 40
        assert box.http().get(f"{API}/analytics/sensor/gone/stats", wait="true").status == 404
        assert counted() == [entry]
        assert box.stop() == 0


def test_usage_counts_each_stored_reading_once_across_kills(tmp_path: Path) -> None:
    """Requests are repeated with their Idempotency-Key until answered, whoever dies meanwhile."""
    moments = random.Random(11)
    with Appliance(tmp_path / "data") as box:
        box.start()
        box.keep_port()
        user = {"username": "ada", "email": "ada@x.example"}
        user_id = box.http().post(f"{API}/users", user).good()["id"]
        made = {"name": "k", "scopes": ["ingest"], "user_id": user_id}
        key = box.http().post(f"{API}/keys", made).good()["key"]
        headers = {"Authorization": f"Bearer {key}"}
        box.http().post(BATCH, [{"sensor_id": "free", "value": 1}] * 7).good()
        number = acknowledged = 0
        for _ in range(KILLS):
            sender = Http(box.url, timeout_s=5)
            stop_after = number + moments.randint(5, 60)
            while number < stop_after:
                reply = _send(sender, number, headers)
                assert reply, "nobody was killed yet"
                acknowledged += ROWS
                number += 1
            # Two more, of which nobody reads the answer before the kill.
            pause(moments.random() * 0.02)
            box.kill("ingest")
            sender.close()
            box.start()
            again = Http(box.url, timeout_s=5)
            assert _send(again, number - 1, headers)["duplicate"] is True
            again.close()
            usage = box.http().get(f"{API}/billing/{user_id}").good()["usage"]
            assert usage == acknowledged
        assert box.stop() == 0
        held = read_journal(box.data_dir)
        assert sum(row.sensor_id == "paid" for row in held.rows.values()) == acknowledged
        box.start()
        account = box.http().get(f"{API}/billing/{user_id}").good()
        assert (account["usage"], account["credits"]) == (acknowledged, 0)
        assert box.stop() == 0


def _send(http: Http, number: int, headers: dict[str, str]) -> Any:
    items = [{"sensor_id": "paid", "value": number * ROWS + row} for row in range(ROWS)]
    return http.post(BATCH, items, key=f"b{number}", headers=headers).good()
