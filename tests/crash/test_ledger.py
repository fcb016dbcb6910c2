"""The loss ledger over HTTP: each way a reading can go is counted, also across sudden deaths."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance
from support.waiting import pause, until
from support.web import BATCH, INGEST, ConnectionLostError, Http

API = "/api/ocean"
KILLS = 4
SENDERS = 4
ROWS = 25

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]


def ledger(box: Appliance) -> dict[tuple[str, str], int]:
    """Return what is counted, by (sensor, class)."""
    page = box.http().get(f"{API}/ledger", limit=1000).good()
    assert page["next"] is None
    return {(row["sensor_id"], row["class"]): row["count"] for row in page["sensors"]}


def totals(box: Appliance) -> Any:
    page = box.http().get(f"{API}/ledger").good()
    return {**page["totals"], "approximate": page["approximate"]}


@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_everything_that_is_sent_is_accounted_for(tmp_path: Path, fast_path: str) -> None:
    with Appliance(
        tmp_path / "data",
        OCEAN_SERVER__BODY_BYTES_MAX="100000",
        OCEAN_SERVER__FAST_PATH=fast_path,
    ) as box:
        box.start()
        http = box.http()
        good = [{"sensor_id": name, "value": 1} for name in "aab"]
        http.post(BATCH, good, key="k").good()
        http.post(INGEST, {"sensor_id": "a", "value": 2}, key="s").good()
        for _ in range(2):
            assert http.post(BATCH, good, key="k").good()["duplicate"]
        assert http.post(INGEST, {"sensor_id": "a", "value": 2}, key="s").good()["duplicate"]
        expected = {("a", "duplicate"): 5, ("b", "duplicate"): 2}
        assert ledger(box) == expected

        def refused(
            status: int,
            code: str,
            counts: dict[str, int],
            body: Any,
            path: str = BATCH,
            **headers: str,
        ) -> None:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            reply = box.http().post(path, body, headers=names)
            assert (reply.status, reply.json()["code"]) == (status, code), reply.body
            for sensor_id, count in counts.items():
                entry = sensor_id, f"refused {code}"
                expected[entry] = expected.get(entry, 0) + count

        bad = {"sensor_id": "a", "value": "x"}
        refused(422, "OC-2002", {"a": 1, "b": 1}, [bad, {"sensor_id": "b", "value": 1}])
        refused(422, "OC-2002", {"a": 1}, bad, INGEST)
        refused(422, "OC-2002", {"": 1}, {"sensor_id": "stranger", "value": "x"}, INGEST)
        refused(400, "OC-2001", {"a": 1, "": 1}, b'[{"sensor_id":"a","value":1},{"sensor_id":"c"')
        refused(415, "OC-2004", {"": 1}, b"a,1", Content_Type="text/csv")
        refused(413, "OC-2003", {"": 1}, b" " * 200_000)
        refused(401, "OC-6005", {"": 1}, good, Authorization="Bearer ocean_no")
        refused(401, "OC-6005", {"": 1}, good[0], INGEST, Authorization="Bearer ocean_no")
        refused(400, "OC-6003", {"": 1}, good, BATCH + "?partial=perhaps")
        refused(403, "OC-6004", {"": 1}, good, Origin="http://else.example")
        partial = http.post(BATCH + "?partial=true", [*good, bad, {"sensor_id": "b"}]).good()
        assert partial["rejected_count"] == 2
        for sensor_id in "ab":
            expected[sensor_id, "refused OC-2002"] += 1
        assert ledger(box) == expected
        # What brings no readings is not the ledger's business.
        assert box.http().get(BATCH).status == 405
        assert box.http().post(f"{API}/users", {"x": 1}).status == 422
        assert ledger(box) == expected
        assert box.stop() == 0
        box.start()
        assert ledger(box) == expected
        found = totals(box)
        assert (found["stored"], found["duplicate"], found["approximate"]) == (7, 7, None)
        http = box.http()
        until(
            lambda: http.post(f"{API}/sensors/a/rename", {"to": "z"}).status == 200,
            within_s=30, what="analytics are there",
        )  # fmt: skip
        http.post(BATCH, good, key="k").good()
        after = ledger(box)
        assert after["z", "duplicate"] == 5 + 2
        assert after["z", "refused OC-2002"] == expected["a", "refused OC-2002"]
        assert not any(sensor_id == "a" for sensor_id, _ in after)
        assert box.stop() == 0


class Repeater:
    """Sends one request again and again, and counts the positive answers."""

    def __init__(self, box: Appliance, name: str) -> None:
        self.body = json.dumps([{"sensor_id": name, "value": row} for row in range(ROWS)]).encode()
        self.name = name
        self.answered = 0
        self._http = Http(box.url, timeout_s=10)
        self._thread: threading.Thread | None = None

    def once(self) -> bool:
        """Send it; return whether an answer came."""
        try:
            reply = self._http.post(BATCH, self.body, key=self.name)
        except ConnectionLostError:
            return False
        self.answered += reply.status == 200 and reply.good().get("duplicate", False)
        return True

    def run(self) -> None:
        """Send without a pause until no answer comes."""

        def work() -> None:
            while self.once():
                pass
            self.close()

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def close(self) -> None:
        self._http.close()

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_repeats_are_counted_exactly_across_kills(tmp_path: Path) -> None:
    """Each that was answered is counted, and beyond those at most what was under way."""
    moments = random.Random(5)
    answered = [0] * SENDERS
    with Appliance(tmp_path / "data") as box:
        box.start()
        box.keep_port()
        for kills in range(KILLS):
            senders = [Repeater(box, f"s{i}") for i in range(SENDERS)]
            for sender in senders:
                sender.run()
            goal = moments.randint(5, 200)
            enough: Callable[[], bool] = lambda: all(s.answered >= goal for s in senders)  # noqa: B023, E731
            until(enough, within_s=30, every_s=0.001, what="repeats are answered")
            pause(moments.random() * 0.01)
            box.kill("ingest")
            for i, sender in enumerate(senders):
                sender.join()
                answered[i] += sender.answered
            box.start()
            found = ledger(box)
            for i in range(SENDERS):
                count = found.get((f"s{i}", "duplicate"), 0)
                assert count % ROWS == 0
                assert answered[i] <= count // ROWS <= answered[i] + kills + 1
        assert totals(box)["approximate"]["stops"] == KILLS
        assert box.stop() == 0


@pytest.mark.parametrize(("point", "more"), [("before_commit", 0), ("after_commit", 1)])
def test_death_around_the_commit_of_a_repeat(tmp_path: Path, point: str, more: int) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        sender = Repeater(box, "s")
        assert sender.once()
        sender.close()
        assert box.stop() == 0
        box.launch(OCEAN_FAULT=f"journal.{point}@4")
        answered = 0

        def dead() -> bool:
            nonlocal answered
            if box.exit_code() is None and box.knows_address():
                sender = Repeater(box, "s")
                sender.once()
                sender.close()
                answered += sender.answered
            return box.exit_code() == -9

        until(dead, within_s=40, what=f"a death at {point}")
        box.end_all()
        assert answered == 3
        box.start()
        assert ledger(box) == {("s", "duplicate"): (answered + more) * ROWS}
        assert box.stop() == 0


def test_refusals_before_a_kill_are_written_or_the_ledger_says_that_they_may_not_be(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        box.http().post(INGEST, {"sensor_id": "s", "value": 1}).good()
        bad = {"sensor_id": "s", "value": "x"}
        for _ in range(3):
            assert box.http().post(INGEST, bad).status == 422
        assert ledger(box) == {("s", "refused OC-2002"): 3}
        for _ in range(2):
            assert box.http().post(INGEST, bad).status == 422
        box.kill("ingest")
        box.start()
        assert 3 <= ledger(box)["s", "refused OC-2002"] <= 5
        unsure = totals(box)["approximate"]
        assert unsure["since"] < unsure["until"]
        assert unsure["stops"] == 1
        assert box.stop() == 0
        box.start()
        # Said once, and remembered.
        assert totals(box)["approximate"] == unsure
        assert box.stop() == 0
