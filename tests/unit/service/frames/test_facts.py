"""Labs, profiles and units that devices tell, in the records of their sensors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocean_core.model import limits
from ocean_core.model.errors import StoreUnavailableError
from ocean_core.obs.log import EventLog
from ocean_core.service.accounts.sensors import SensorChange
from ocean_core.service.frames.facts import SensorFacts
from support.records_kit import ANNA, Records

PRESSURE = {"pressure": "Pa"}


class Box(Records):
    """Records, and the facts that go into them."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.printed = io.StringIO()
        self.log = EventLog(self.clock, stream=self.printed)
        self.begin()

    def begin(self) -> None:
        self.facts = SensorFacts(self.store, self.clock, self.log, self.sensors)

    def told(self, sensor_id: str, lab: str = "north", units: dict[str, str] | None = None) -> None:
        self.facts.note(sensor_id, lab, "pressure_v1", PRESSURE if units is None else units)
        self.do(self.facts.flush())

    def record(self, sensor_id: str) -> tuple[dict[str, str], str] | None:
        found = self.do(self.sensors.records_of([sensor_id])).get(sensor_id)
        return None if found is None else (found.tags, found.unit)

    def change(self, sensor_id: str, **fields: Any) -> None:
        self.do(self.sensors.update(sensor_id, SensorChange(**fields), ANNA))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_what_a_device_tells_is_in_its_record(box: Box) -> None:
    box.told("a")
    assert box.record("a") == ({"lab": "north", "profile": "pressure_v1"}, "Pa")
    # It moves; a frame without a lab does not move it.
    box.told("a", "south")
    box.told("a", "")
    assert box.record("a") == ({"lab": "south", "profile": "pressure_v1"}, "Pa")
    # Nobody acted, so nobody stands in the audit log.
    assert box.acts() == []


def test_what_is_known_is_not_written_again(box: Box) -> None:
    box.told("a")
    for _ in range(3):
        box.facts.note("a", "north", "pressure_v1", PRESSURE)
        box.facts.note("a", "", "pressure_v1", {})
        box.facts.note("a", "north", "pressure_v1", {"pressure": ""})
    assert box.facts.waiting == 0
    box.begin()
    before = box.do(box.sensors.records_of(["a"]))
    box.clock.advance(60)
    box.told("a")
    assert box.do(box.sensors.records_of(["a"])) == before


def test_what_people_wrote_stays(box: Box) -> None:
    box.change("a", unit="bar", tags={"lab": "mine", "floor": "2"}, note="by the door")
    box.told("a")
    box.told("a", "south")
    assert box.record("a") == ({"lab": "mine", "floor": "2", "profile": "pressure_v1"}, "bar")
    box.told("b")
    box.change("b", unit="hPa", tags={"lab": "elsewhere"})
    box.told("b", "south", {"pressure": "Pa", "gas:CO2": "ppm"})
    assert box.record("b") == ({"lab": "elsewhere", "profile": "pressure_v1"}, "hPa")
    # Also if it is what the device had said as well.
    box.change("c", unit="Pa", tags={"lab": "north"})
    box.told("c")
    box.told("c", "south", {"t": "K"})
    assert box.record("c") == ({"lab": "north", "profile": "pressure_v1"}, "Pa")


def test_different_units_are_no_unit(box: Box) -> None:
    box.told("a")
    box.told("a", "north", {"temperature": "°C"})
    assert box.record("a") == ({"lab": "north", "profile": "pressure_v1"}, "")
    box.told("a")
    assert box.record("a") == ({"lab": "north", "profile": "pressure_v1"}, "")
    box.told("b", "north", {"x": "Pa", "y": "K"})
    assert box.record("b") == ({"lab": "north", "profile": "pressure_v1"}, "")


def test_a_device_that_tells_nothing_gets_no_record(box: Box) -> None:
    box.facts.note("a", "", "generic", {})
    box.facts.note("b", "x" * 300, "generic", {"v": "a\u0000b"})
    box.do(box.facts.flush())
    assert box.record("a") is None
    assert box.record("b") is None
    assert box.facts.waiting == 0


def test_a_sensor_that_was_renamed(box: Box) -> None:
    box.analytics.readings["a"] = 5
    box.do(box.sensors.rename("a", "cellar", ANNA))
    box.told("a")
    assert box.record("a") is None
    assert box.record("cellar") == ({"lab": "north", "profile": "pressure_v1"}, "Pa")


def test_a_store_that_fails_is_tried_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_command: object) -> None:
        box.facts.note("b", "north", "pressure_v1", PRESSURE)
        box.facts.note("a", "south", "pressure_v1", PRESSURE)
        raise StoreUnavailableError("away", retry_after_s=1)

    box.facts.note("a", "north", "pressure_v1", PRESSURE)
    with monkeypatch.context() as patch:
        patch.setattr(box.store, "write", fails)
        with pytest.raises(StoreUnavailableError):
            box.do(box.facts.flush())
        box.do(box.facts.tick())
        box.do(box.facts.close())
    assert box.facts.waiting == 2
    box.do(box.facts.close())
    assert box.record("a") == ({"lab": "south", "profile": "pressure_v1"}, "Pa")
    assert box.record("b") == ({"lab": "north", "profile": "pressure_v1"}, "Pa")


def test_all_of_it_is_bounded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FACTS_WAITING_MAX", 5)
    monkeypatch.setattr(limits, "FACTS_WRITTEN_MAX", 3)
    monkeypatch.setattr(limits, "FACT_SENSORS_MAX", 4)
    monkeypatch.setattr(limits, "SENSOR_RECORDS_LEARNED_MAX", 6)
    names = [f"s{i}" for i in range(10)]
    for round_no in range(4):
        for name in names:
            box.facts.note(name, f"lab {round_no}", "pressure_v1", PRESSURE)
        assert box.facts.waiting <= 5
        assert len(box.facts._known) <= 4
        while box.facts.waiting:
            box.do(box.facts.flush())
    assert sum(box.record(name) is not None for name in names) <= 6
    for name in names:
        box.told(name)
    assert sum(box.record(name) is not None for name in names) == 6
    assert box.printed.getvalue().count("records_full") == 1
    # People have room left, and a full record takes no tag more.
    box.change("mine", tags={f"t{i}": "x" for i in range(limits.SENSOR_TAGS_MAX - 1)})
    box.told("mine")
    found = box.record("mine")
    assert found is not None
    assert found[1] == "Pa"
    assert len(found[0]) == limits.SENSOR_TAGS_MAX - 1
