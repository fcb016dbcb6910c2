"""Records of sensors, new names, and forgetting: once, completely, also while analytics are away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    ConflictError,
    InvalidInputError,
    OceanError,
    RecordsFullError,
    StoreUnavailableError,
    UnknownSensorError,
)
from ocean_core.model.naming import NameRule, Names
from ocean_core.service.accounts.sensor_analytics import LinkedAnalytics
from ocean_core.service.accounts.sensors import SensorChange
from support.operational_kit import WAIT_S, until
from support.records_kit import ANNA, NASTY_NAMES, Records, as_json


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    yield records
    records.close()


def change(box: Records, sensor_id: str, **fields: Any) -> Any:
    wanted = msgspec.convert(fields, SensorChange)
    return as_json(box.do(box.sensors.update(sensor_id, wanted, ANNA)))


def show(box: Records, sensor_id: str) -> Any:
    return as_json(box.do(box.sensors.show(sensor_id)))


def rename(box: Records, sensor_id: str, new_id: str) -> Any:
    return as_json(box.do(box.sensors.rename(sensor_id, new_id, ANNA)))


def forget(box: Records, sensor_id: str) -> Any:
    return as_json(box.do(box.sensors.forget(sensor_id, sensor_id, ANNA)))


def losses(box: Records) -> list[tuple[str, str, int]]:
    page = as_json(box.do(box.ledger.page()))
    return [(row["sensor_id"], row["class"], row["count"]) for row in page["sensors"]]


# --- records ------------------------------------------------------------------------------------


def test_fields_are_set_one_by_one_and_emptied_by_null(box: Records) -> None:
    change(box, "s", display_name="Press", tags={"hall": "B", "line": "2"})
    assert change(box, "s", unit="bar", note="first line\nsecond") == {
        "sensor_id": "s",
        "display_name": "Press",
        "unit": "bar",
        "tags": {"hall": "B", "line": "2"},
        "note": "first line\nsecond",
        "updated_at": "2026-05-28T20:26:40Z",
        "aliases": [],
    }
    left = change(box, "s", display_name=None, tags={"hall": "C"})
    assert (left["display_name"], left["tags"], left["unit"]) == ("", {"hall": "C"}, "bar")
    assert change(box, "s", tags=None, note=None, unit=None)["tags"] == {}


def test_a_sensor_is_shown_with_what_analytics_know(box: Records) -> None:
    box.analytics.readings["s"] = 7
    assert show(box, "s") == {
        "sensor_id": "s",
        "display_name": "",
        "unit": "",
        "tags": {},
        "note": "",
        "updated_at": None,
        "aliases": [],
        "metrics": ["value"],
        "count": 7,
        "first_reading": "2026-01-17T08:00:00Z",
        "last_reading": "2026-01-17T09:00:00Z",
        "last_value": 1.5,
        "events": 0,
    }
    change(box, "new", note="not mounted yet")
    assert (show(box, "new")["count"], show(box, "new")["note"]) == (0, "not mounted yet")


def test_a_sensor_that_nobody_knows_is_unknown(box: Records) -> None:
    for name in ("", "s", "x" * 300, "a\nb", *NASTY_NAMES):
        with pytest.raises(UnknownSensorError):
            show(box, name)


def test_a_record_is_shown_while_analytics_are_away(box: Records) -> None:
    change(box, "s", unit="bar")
    box.analytics.away = True
    shown = show(box, "s")
    assert (shown["unit"], "count" in shown) == ("bar", False)
    with pytest.raises(AnalyticsUnavailableError):
        show(box, "t")


@pytest.mark.parametrize("text", NASTY_NAMES)
def test_texts_come_back_as_they_were_given(box: Records, text: str) -> None:
    change(box, "other", note="untouched")
    change(box, text, display_name=text, unit=text, tags={text: text}, note=text)
    box.restart()
    shown = show(box, text)
    assert {shown[field] for field in ("sensor_id", "display_name", "unit", "note")} == {text}
    assert shown["tags"] == {text: text}
    assert show(box, "other")["note"] == "untouched"


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({}, "body"),
        ({"display_name": "x" * 257}, "display_name"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"unit": "ä" * 129}, "unit"),
        ({"note": "x" * 4097}, "note"),
        ({"note": "\x1b[2J"}, "note"),
        ({"tags": {"": "x"}}, "tags"),
        ({"tags": {"a": "x" * 257}}, "tags.a"),
        ({"tags": {"a\x00": "x"}}, "tags"),
        ({"tags": {str(i): "" for i in range(limits.SENSOR_TAGS_MAX + 1)}}, "tags"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    box: Records, fields: dict[str, Any], at_fault: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        change(box, "s", **fields)
    assert caught.value.fields[0].field == at_fault
    with pytest.raises(UnknownSensorError):
        show(box, "s")


@pytest.mark.parametrize("name", ["", " s", "s\x7f", "s" * 257])
def test_a_record_is_only_for_what_can_be_a_sensor(box: Records, name: str) -> None:
    with pytest.raises(InvalidInputError):
        change(box, name, unit="bar")


def test_the_number_of_records_is_bounded(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SENSOR_RECORDS_MAX", 2)
    change(box, "a", unit="x")
    change(box, "b", unit="x")
    change(box, "b", unit="y")
    with pytest.raises(RecordsFullError):
        change(box, "c", unit="x")
    forget(box, "a")
    change(box, "c", unit="x")


def test_records_of_many(box: Records) -> None:
    change(box, "a", unit="x")
    change(box, "b", unit="y")
    found = box.do(box.sensors.records_of(["b", "nobody", "a", "'"]))
    assert {name: record.unit for name, record in found.items()} == {"a": "x", "b": "y"}


# --- new names ----------------------------------------------------------------------------------


def test_a_new_name_takes_everything_along_and_the_old_one_still_works(box: Records) -> None:
    box.analytics.readings["old"] = 7
    change(box, "old", unit="bar")
    assert rename(box, "old", "new") == {
        "sensor_id": "new",
        "renamed_from": "old",
        "aliases": ["old"],
        "pending": False,
    }
    for name in ("old", "new"):
        shown = show(box, name)
        assert (shown["sensor_id"], shown["count"], shown["unit"]) == ("new", 7, "bar")
        assert shown["aliases"] == ["old"]
    change(box, "old", note="by its old name")
    assert rename(box, "old", "newest")["aliases"] == ["new", "old"]
    box.restart()
    assert show(box, "old") == show(box, "newest")
    assert show(box, "new")["note"] == "by its old name"
    assert [(rule.sensor_id, rule.new_id) for rule in box.sensors.rules] == [
        ("old", "new"),
        ("new", "newest"),
    ]


def test_names_that_belong_to_a_sensor_are_refused(box: Records) -> None:
    box.analytics.readings.update(a=1, b=1, sending=1)
    change(box, "written", unit="x")
    rename(box, "a", "a2")
    for taken in ("sending", "written", "a", "a2", "b"):
        with pytest.raises(ConflictError) as caught:
            rename(box, "b", taken)
        assert caught.value.fields[0].field == "to"
    assert len(box.sensors.rules) == 1
    assert len(box.analytics.told) == 1
    assert [entry.act for entry in box.acts()] == ["sensors.update", "sensors.rename"]


def test_a_sensor_can_take_back_a_name_of_its_own(box: Records) -> None:
    box.analytics.readings.update(a=1)
    change(box, "a", unit="x")
    rename(box, "a", "typo")
    rename(box, "typo", "a")
    assert [box.sensors.current_name(name) for name in ("a", "typo")] == ["a", "a"]
    assert as_json(box.do(box.sensors.show("typo")))["unit"] == "x"
    rename(box, "a", "typo")
    assert box.sensors.current_name("a") == "typo"
    box.restart()
    assert box.sensors.current_name("a") == "typo"


@pytest.mark.parametrize("new_id", ["", " x", "x ", "a\nb", "x" * 257, "a\u2028"])
def test_a_new_name_must_be_one_for_a_sensor(box: Records, new_id: str) -> None:
    box.analytics.readings["s"] = 1
    with pytest.raises(InvalidInputError):
        rename(box, "s", new_id)


@pytest.mark.parametrize("new_id", NASTY_NAMES)
def test_any_other_name_is_just_a_name(box: Records, new_id: str) -> None:
    box.analytics.readings["s"] = 1
    assert rename(box, "s", new_id)["sensor_id"] == new_id
    assert show(box, "s")["sensor_id"] == new_id


def test_a_sensor_that_nobody_knows_gets_no_name(box: Records) -> None:
    with pytest.raises(UnknownSensorError):
        rename(box, "nobody", "x")
    assert box.sensors.rules == []


def test_no_new_name_while_nobody_can_say_whose_readings_there_are(box: Records) -> None:
    change(box, "s", unit="x")
    box.analytics.away = True
    with pytest.raises(AnalyticsUnavailableError):
        rename(box, "s", "t")
    box.restart()
    assert box.sensors.rules == []


def test_a_name_under_which_readings_arrive_just_now_is_taken(box: Records) -> None:
    """Once renamed to it, the two could never be told apart again."""
    change(box, "a", unit="x")
    box.analytics.arriving["b"] = 1
    with pytest.raises(ConflictError):
        rename(box, "a", "b")
    box.analytics.arriving["c"] = 2
    with pytest.raises(UnknownSensorError):
        show(box, "c")
    assert forget(box, "c")["forgotten"] == 2


def test_a_sensor_that_just_came_gets_a_name(box: Records) -> None:
    box.analytics.arriving["a"] = 1
    assert rename(box, "a", "b")["sensor_id"] == "b"


def test_the_number_of_rules_is_bounded(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NAME_RULES_MAX", 1)
    box.analytics.readings["a"] = 1
    rename(box, "a", "b")
    with pytest.raises(RecordsFullError):
        rename(box, "b", "c")
    with pytest.raises(RecordsFullError):
        forget(box, "b")
    assert show(box, "b")["count"] == 1


# --- forgetting ---------------------------------------------------------------------------------


def test_forgetting_is_counted_and_audited(box: Records) -> None:
    box.analytics.readings.update(s=7, t=1)
    box.analytics.head_id = 8
    change(box, "s", unit="bar")
    assert forget(box, "s") == {
        "sensor_id": "s",
        "forgotten": 7,
        "up_to_id": 8,
        "pending": False,
    }
    assert losses(box) == [("s", "forgotten", 7)]
    with pytest.raises(UnknownSensorError):
        show(box, "s")
    assert show(box, "t")["count"] == 1
    entry = box.acts()[-1]
    assert (entry.act, entry.subject, entry.detail) == ("sensors.forget", "s", {"up_to_id": 8})
    assert box.sensors.rules == [NameRule(1, "forget", "s", "", 8)]


def test_ids_of_another_journal_are_not_forgotten(box: Records) -> None:
    box.analytics.readings.update(s=7, t=7)
    box.analytics.head_id = 7
    forget(box, "s")
    rename(box, "t", "u")
    box.analytics.epoch = "epoch-2"
    box.restart()
    assert box.sensors.rules == [NameRule(1, "forget", "s"), NameRule(2, "rename", "t", "u")]
    assert list(Names(box.sensors.rules).forgotten("s")) == []
    box.analytics.head_id = 3
    box.analytics.readings["v"] = 2
    forget(box, "v")
    assert box.sensors.rules[2:] == [NameRule(3, "forget", "v", "", 3)]
    box.analytics.epoch = "epoch-1"
    box.restart()
    assert [rule.up_to_id for rule in box.sensors.rules] == [7, 0, 0]


def test_without_a_journal_nobody_knows_what_was_forgotten(box: Records) -> None:
    box.analytics.epoch = ""
    for work in (box.sensors.load(), box.sensors.show("s")):
        with pytest.raises(StoreUnavailableError):
            box.do(work)
    box.analytics.epoch = "epoch-1"
    box.do(box.sensors.load())


@pytest.mark.parametrize("how", ["put back", "rename", "forget"])
def test_rules_that_a_salvage_lost_come_back_from_memory(box: Records, how: str) -> None:
    box.analytics.readings.update(a=1, c=1, s=2, old=1)
    box.analytics.head_id = 5
    forget(box, "old")
    box.analytics.epoch = "epoch-2"
    box.restart()
    rename(box, "a", "b")
    forget(box, "s")
    rename(box, "c", "d")
    known = box.sensors.rules
    box.do(box.store.write(lambda db: db.execute("DELETE FROM name_rules WHERE id < 4").fetchall()))
    if how == "put back":
        box.do(box.sensors.put_back())
    elif how == "rename":
        rename(box, "d", "e")
        known.append(NameRule(5, "rename", "d", "e"))
    else:
        forget(box, "d")
        known.append(NameRule(5, "forget", "d", "", 5))
    box.restart()
    assert box.sensors.rules == known
    assert [rule.up_to_id for rule in known[:4]] == [0, 0, 5, 0]


def test_forgetting_must_be_confirmed(box: Records) -> None:
    box.analytics.readings["s"] = 7
    for confirm in ("", "S", "s ", "true"):
        with pytest.raises(InvalidInputError) as caught:
            box.do(box.sensors.forget("s", confirm, ANNA))
        assert caught.value.fields[0].field == "confirm"
    assert box.sensors.rules == []


def test_only_what_is_known_can_be_forgotten(box: Records) -> None:
    for name in ("nobody", "", "a\nb"):
        with pytest.raises(UnknownSensorError):
            forget(box, name)
    assert box.sensors.rules == []


def test_a_renamed_sensor_is_forgotten_under_its_name_of_today(box: Records) -> None:
    box.analytics.readings["old"] = 5
    rename(box, "old", "new")
    assert forget(box, "old")["sensor_id"] == "new"
    assert losses(box) == [("new", "forgotten", 5)]
    assert box.sensors.rules[-1] == NameRule(2, "forget", "new", "", 0)


def test_losses_add_up_and_follow_the_name(box: Records) -> None:
    box.analytics.readings["a"] = 3
    forget(box, "a")
    box.analytics.readings["a"] = 4
    forget(box, "a")
    assert losses(box) == [("a", "forgotten", 7)]
    box.analytics.readings["a"] = 1
    rename(box, "a", "b")
    assert losses(box) == [("b", "forgotten", 7)]


def test_what_is_forgotten_while_analytics_are_away_is_counted_once_later(box: Records) -> None:
    box.analytics.readings["s"] = 7
    box.analytics.away = True
    answer = forget(box, "s")
    assert (answer["forgotten"], answer["pending"]) == (0, True)
    box.do(box.sensors.settle())
    assert losses(box) == []
    box.restart()
    box.do(box.sensors.settle())
    assert losses(box) == []
    box.analytics.away = False
    for _ in range(3):
        box.do(box.sensors.settle())
    assert losses(box) == [("s", "forgotten", 7)]
    told = len(box.analytics.told)
    box.do(box.sensors.settle())
    assert len(box.analytics.told) == told


def test_an_answer_of_analytics_that_came_before_a_rule_does_not_count_for_it(
    box: Records,
) -> None:
    """The answer to one forgetting is late; meanwhile another sensor was forgotten."""
    box.analytics.readings.update(a=1, b=2)
    slow = asyncio.Event()
    quick = box.analytics.sync_rules

    async def late(rules: list[NameRule]) -> dict[int, int]:
        counts = await quick(rules)
        if len(rules) == 1:
            await slow.wait()
        return counts

    async def both() -> None:
        box.analytics.sync_rules = late  # type: ignore[method-assign]
        first = asyncio.create_task(box.sensors.forget("a", "a", ANNA))
        async with asyncio.timeout(WAIT_S):
            await until(lambda: box.analytics.told)
        box.analytics.away = True
        await box.sensors.forget("b", "b", ANNA)
        slow.set()
        await first
        assert [row.lost for row in await ledger_rows(box)] == [1]
        box.analytics.away = False
        await box.sensors.settle()

    box.do(both())
    assert losses(box) == [("a", "forgotten", 1), ("b", "forgotten", 2)]


async def ledger_rows(box: Records) -> Any:
    from ocean_core.storage.operational import loss_ledger

    return (await box.store.read(lambda db: loss_ledger.page(db, ("", ""), 9)))[0]


def test_a_caller_that_leaves_does_not_leave_half_a_change(box: Records) -> None:
    box.analytics.readings["a"] = 1

    async def leave() -> None:
        task = asyncio.create_task(box.sensors.rename("a", "b", ANNA))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(WAIT_S):
            await until(lambda: box.analytics.told)

    box.do(leave())
    assert box.sensors.current_name("a") == "b"
    assert show(box, "a")["sensor_id"] == "b"


def test_what_cannot_be_counted_now_is_forgotten_nevertheless(
    box: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.analytics.readings["s"] = 7
    write = box.store.write
    calls = 0

    async def fail_second(command: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OceanError("no disk")
        return await write(command)

    monkeypatch.setattr(box.store, "write", fail_second)
    assert forget(box, "s")["forgotten"] == 7
    assert losses(box) == []
    box.do(box.sensors.settle())
    assert losses(box) == [("s", "forgotten", 7)]


def test_the_ledger_has_pages(box: Records) -> None:
    for name in ("a", "b/c", "d"):
        box.analytics.readings[name] = 1
        forget(box, name)
    first = box.do(box.ledger.page(("", ""), 2))
    assert first.next == "forgotten/b/c"
    rest = box.do(box.ledger.page(("b/c", "forgotten"), 2))
    assert ([row.sensor_id for row in rest.sensors], rest.next) == (["d"], None)


# --- the line to analytics ----------------------------------------------------------------------


class Link:
    """Answers the list of sensors by prefix."""

    def __init__(self, *names: str) -> None:
        self.names = sorted(names)
        self.waited: list[bool] = []

    async def query(self, name: str, params: dict[str, Any], *, wait: bool) -> bytes:
        assert name == "sensors"
        self.waited.append(wait)
        found = [each for each in self.names if each.startswith(params["prefix"])]
        return msgspec.json.encode({"sensors": [{"sensor_id": each} for each in found[:1]]})

    async def sync_rules(self, rules: list[NameRule], timeout_s: float) -> dict[int, int]:
        assert timeout_s > 0
        return {rule.id: 1 for rule in rules}


def test_a_sensor_is_described_by_its_own_line_of_the_list() -> None:
    link: Any = Link("press-01", "press-011", "q")
    linked = LinkedAnalytics(link, lambda: 12, lambda: "epoch")
    assert asyncio.run(linked.describe("press-01")) == {"sensor_id": "press-01"}
    assert asyncio.run(linked.describe("press-0")) is None
    assert asyncio.run(linked.describe("z", wait=True)) is None
    assert link.waited == [False, False, True]
    assert (linked.head_id, linked.epoch) == (12, "epoch")
    assert asyncio.run(linked.sync_rules([NameRule(3, "forget", "s")])) == {3: 1}
