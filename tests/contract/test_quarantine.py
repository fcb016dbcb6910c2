"""Quarantine over HTTP and from the command line, over rows that are there at the start."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocean_core.model import limits
from support.appliance import Appliance, run_ocean
from support.operational_kit import in_loop
from support.quarantine_kit import frame_of, lab

QUARANTINE = "/api/ocean/quarantine"
FRAMES = 7

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120), pytest.mark.xdist_group("quarantine")]


@contextmanager
def filled(data_dir: Path) -> Iterator[Appliance]:
    """A box with refused frames."""
    data_dir.mkdir()

    @in_loop
    async def fill() -> None:
        async with lab(data_dir) as made:
            for number in range(FRAMES):
                outcome = "E_KEY" if number % 2 else "E_MAC"
                await made.keep(frame_of(number), outcome, offset=20, sensor_id=f"s{number}")

    fill()
    with Appliance(data_dir) as running:
        yield running.start()
        assert "api.internal_error" not in running.log()
        assert running.stop() == 0


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that is only looked at: tests come in any order."""
    with filled(tmp_path_factory.mktemp("quarantine") / "data") as running:
        yield running


@pytest.fixture
def own_box(tmp_path: Path) -> Iterator[Appliance]:
    """One of a test's own, that may be changed."""
    with filled(tmp_path / "data") as running:
        yield running


def test_pages_newest_first(box: Appliance) -> None:
    seen: list[int] = []
    after: str | None = None
    while True:
        query = "" if after is None else f"&after={after}"
        page = box.http().get(f"{QUARANTINE}?limit=3{query}").good()
        seen += [frame["id"] for frame in page["frames"]]
        assert all("frame" not in frame for frame in page["frames"])
        after = page["next"]
        if after is None:
            break
    assert seen == list(range(FRAMES, 0, -1))
    some = box.http().get(QUARANTINE, outcome="E_KEY").good()["frames"]
    assert [frame["id"] for frame in some] == [6, 4, 2]


def test_one_with_its_bytes(box: Appliance) -> None:
    frame = box.http().get(f"{QUARANTINE}/1").good()
    assert frame["frame"] == frame_of(0).hex()
    assert frame["header"]["model"] == "0x10"
    assert "check value" in frame["meaning"]
    told = run_ocean("quarantine", "show", "1", "--data-dir", str(box.data_dir)).stdout
    assert frame["meaning"] in told
    assert "c1 53 01 10" in told
    assert "^^" in told
    listed = run_ocean("quarantine", "list", "--json", "--data-dir", str(box.data_dir)).stdout
    assert len(json.loads(listed)) >= FRAMES - 1


@pytest.mark.parametrize(
    "frame_id", ["0", "99", "-1", "x", "1e3", "9" * 18, "9" * 40, "%F0%9F%98%80", "%D9%A3"]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_no_such_frame(box: Appliance, method: str, frame_id: str) -> None:
    box.http().request(method, f"{QUARANTINE}/{frame_id}").problem(404, "OC-8005")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"all": False}, {"ids": []}, {"ids": [0]}, {"ids": [1.5]}, {"ids": ["1"]},
        {"ids": [2**60]}, {"ids": [1], "all": True}, {"outcome": ""}, {"outcome": 3},
        {"outcome": "x" * 33}, {"all": "yes"}, {"all": True, "after": -1}, {"all": True, "x": 1},
        {"ids": [1] * (limits.QUARANTINE_RETRIED_MAX + 1)}, {"all": True, "any_time": 1}, [], 3,
    ],
)  # fmt: skip
def test_orders_that_make_no_sense(box: Appliance, body: object) -> None:
    problem = box.http().post(f"{QUARANTINE}/retry", body).problem(422, "OC-2009")
    assert problem["errors"]


def test_a_key_for_some_sensors_sees_none(box: Appliance) -> None:
    new = {"name": "hall", "scopes": ["read"], "sensors": "hall-*"}
    key = box.http().post("/api/ocean/keys", new).good()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    for path in (QUARANTINE, f"{QUARANTINE}/1"):
        box.http().request("GET", path, None, headers).problem(403, "OC-6006")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after=x", "before=3", "limit=1&limit=2"]
)
def test_parameters_that_make_no_sense(box: Appliance, query: str) -> None:
    box.http().request("GET", f"{QUARANTINE}?{query}").problem(400, "OC-6003")


def test_forgotten_frames_are_gone_and_in_the_books(own_box: Appliance) -> None:
    assert own_box.http().request("DELETE", f"{QUARANTINE}/7").good() == {
        "id": 7,
        "forgotten": True,
    }
    own_box.http().get(f"{QUARANTINE}/7").problem(404, "OC-8005")
    (entry,) = own_box.http().get("/api/ocean/audit", act="quarantine.forget").good()["entries"]
    assert entry["subject"] == "7"
    totals = own_box.http().get("/api/ocean/ledger").good()["totals"]
    assert (totals["quarantined"], totals["quarantine forgotten"]) == (FRAMES, 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": [1], "all": True},
        {"all": "yes"},
        {"all": True, "any_time": True},
        {"all": True, "after": -1},
        3,
    ],
)
def test_orders_to_forget_that_make_no_sense(box: Appliance, body: object) -> None:
    problem = box.http().post(f"{QUARANTINE}/forget", body).problem(422, "OC-2009")
    assert problem["errors"]


def test_a_retry_ends_well_or_says_that_it_cannot_be_done_now(own_box: Appliance) -> None:
    reply = own_box.http().post(f"{QUARANTINE}/retry", {"ids": [1, 2]})
    if reply.status == 503:
        reply.problem(503, "OC-3002")
    else:
        answer = reply.good()
        assert answer["stored"] + answer["duplicate"] == 0, "nobody signed these"
        assert [frame["id"] for frame in answer["frames"]] == [1, 2]
    assert {frame["id"] for frame in own_box.http().get(QUARANTINE).good()["frames"]} >= {1, 2}


def test_frames_are_forgotten_together(own_box: Appliance) -> None:
    answer = own_box.http().post(f"{QUARANTINE}/forget", {"ids": [5, 99]}).good()
    assert answer == {"forgotten": 1, "ids": [5], "next": None}
    here = ("--data-dir", str(own_box.data_dir))
    left = len(own_box.http().get(QUARANTINE, outcome="E_KEY").good()["frames"])
    assert left == FRAMES // 2
    told = run_ocean("quarantine", "forget", "--outcome", "E_KEY", "--yes", *here).stdout
    assert told == f"{left} frames deleted\n"
    assert own_box.http().get(QUARANTINE, outcome="E_KEY").good()["frames"] == []
    entries = own_box.http().get("/api/ocean/audit", act="quarantine.forget").good()["entries"]
    assert [entry["subject"] for entry in entries][:2] == ["E_KEY", "ids"]
