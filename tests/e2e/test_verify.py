"""`ocean verify` as its user meets it: all is well, analytics are wrong, the journal has lost some."""

import json
from pathlib import Path
from typing import Any, cast

import apsw
import duckdb
import pytest

from ocean_core import get_data_engine
from ocean_core.model.digest import digest_of, digest_text
from ocean_core.model.errors import ForbiddenError
from support.appliance import Appliance, run_ocean
from support.waiting import until
from support.web import BATCH

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

START_S = 1_780_000_000
BATCH_ITEMS = 700


def post(box: Appliance, batches: int) -> None:
    for number in range(batches):
        items: list[dict[str, Any]] = [
            {
                "sensor_id": f"press-{k % 7}",
                "value": number + k / 1000,
                "timestamp": START_S + number * BATCH_ITEMS + k,
            }
            for k in range(BATCH_ITEMS)
        ]
        box.http().post(BATCH, [*items, {"sensor_id": "door", "data": "open"}]).good()


def verify(data_dir: Path, code: int, *arguments: str) -> tuple[str, str]:
    ended = run_ocean("verify", "--data-dir", str(data_dir), *arguments)
    assert ended.returncode == code, (ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stdout, ended.stderr


def tamper(data_dir: Path, *statements: str) -> None:
    with duckdb.connect(str(data_dir / "analytics.duckdb")) as file:
        for statement in statements:
            file.execute(statement)


def test_what_was_acknowledged_is_there_renamed_forgotten_or_not(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        assert verify(box.data_dir, 0)[0].startswith("OK  nothing acknowledged is missing")
        post(box, 5)
        with get_data_engine(box.url) as engine:
            engine.rename_sensor("press-1", "hall/ä")
            engine.forget_sensor("press-2")
            post(box, 1)
            report = json.loads(verify(box.data_dir, 0, "--json")[0])
            assert report["ok"], report["problems"]
            assert (report["readings"], report["events"]) == (4200, 6)
            assert (report["forgotten"], report["equal"]) == (500, 3706)
            assert report["ledger"]["totals"]["forgotten"] == 500
            assert report["totals"] == {
                "checked": True, "why_not": "", "series": 7, "readings": 3700, "differing": 0,
                "differences": [],
            }  # fmt: skip
            digests = {one["sensor_id"]: one for one in engine.digests(wait=True)}
            assert {name: one["count"] for name, one in digests.items()} == {
                "hall/ä": 600, "press-0": 600, "press-2": 100, "press-3": 600, "press-4": 600,
                "press-5": 600, "press-6": 600,
            }  # fmt: skip
            own = [(number, k) for number in (*range(5), 0) for k in range(0, BATCH_ITEMS, 7)]
            assert digests["press-0"]["digest"] == digest_text(
                digest_of(
                    [(START_S + number * BATCH_ITEMS + k) * 10**6 for number, k in own],
                    [number + k / 1000 for number, k in own],
                )
            )
            secret = engine.create_key("hall", "read", sensors="hall/*")["key"]
        with get_data_engine(box.url, key=secret) as limited:
            assert [one["sensor_id"] for one in limited.digests()] == ["hall/ä"]
            with pytest.raises(ForbiddenError, match="about all"):
                limited.verify()
        assert box.stop() == 0
    # Without a server one is started for it.
    out, err = verify(box.data_dir, 0)
    assert out.startswith("OK  ")
    assert "started one for this command" in err


def test_analytics_that_are_wrong_are_found_and_rebuilt(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        post(box, 3)
        verify(box.data_dir, 0)
        assert box.stop() == 0
        tamper(
            box.data_dir,
            "UPDATE readings SET value = -1 WHERE id = 77",
            "DELETE FROM readings WHERE id BETWEEN 100 AND 119",
        )
        box.start()
        assert box.alarms() == [], "a query sees nothing of it"
        out, _ = verify(box.data_dir, 1)
        assert out.startswith("NOT OK  nothing acknowledged is missing in the journal, but")
        assert "20 absent, 1 changed" in out
        assert len(out.splitlines()) <= 24
        # Within seconds it begins anew, and tells why.
        until(
            lambda: "analytics.rebuild_finished" in box.log(),
            within_s=30, what="the rebuild is done",
        )  # fmt: skip
        assert "verify found rows that differ, ids 1-2103: 20 absent, 1 changed" in box.log()
        until(lambda: not box.alarms(), within_s=30, what="the alarm is cleared")
        assert verify(box.data_dir, 0)[0].startswith("OK  ")
        assert box.stop() == 0


def test_found_without_a_server_it_is_rebuilt_at_the_next_start(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        post(box, 1)
        verify(box.data_dir, 0)
        assert box.stop() == 0
        tamper(box.data_dir, "INSERT INTO events SELECT * FROM events")
        report = json.loads(verify(box.data_dir, 1, "--json")[0])
        assert (report["ok"], report["doubled"]) == (False, 1)
        assert (box.data_dir / "analytics.suspect").exists()
        box.start()
        until(
            lambda: "analytics.rebuild_finished" in box.log(),
            within_s=30, what="the rebuild is done",
        )  # fmt: skip
        assert verify(box.data_dir, 0)[0].startswith("OK  ")
        assert box.stop() == 0


def test_what_the_journal_has_lost_is_told_with_what_is_left_of_it(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        post(box, 4)
        verify(box.data_dir, 0)
        assert box.stop() == 0
        with apsw.Connection(str(box.data_dir / "journal.db")) as db:
            found = db.execute("SELECT id, data FROM telemetry_buffer WHERE kind = 0").fetchall()
            first_id, data = cast("tuple[int, bytes]", found[1])
            wrong = bytearray(data)
            wrong[200] ^= 4
            db.execute("UPDATE telemetry_buffer SET data = ? WHERE id = ?", (wrong, first_id))
        box.start()
        out, _ = verify(box.data_dir, 1)
        assert out.startswith("NOT OK  something acknowledged is missing")
        assert f"700 acknowledged are missing: ids {first_id}-{first_id + 699}" in out
        assert "Analytics still show 700 of them" in " ".join(out.split())
        until(lambda: "readings.missing" in box.alarms(), within_s=30, what="the alarm is raised")
        report = json.loads(verify(box.data_dir, 1, "--json")[0])
        assert report["missing"] + report["damaged"] == 700
        assert report["absent"] + report["surplus"] == 0
        assert not (box.data_dir / "analytics.suspect").exists()
        assert box.stop() == 0
