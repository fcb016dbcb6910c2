"""Retention: what is over goes, is counted once, and nothing else goes."""

from pathlib import Path

import msgspec
import pytest

from ocean_core.config.upkeep import RetentionSettings, SensorDays, sensor_days
from ocean_core.model.errors import ConfigError
from ocean_core.model.naming import NameRule, Names
from ocean_core.pipeline.archiving.eviction import oldest, plan
from ocean_core.pipeline.archiving.retention import EVICTIONS_WAITING_MAX, Retention
from ocean_core.storage.archive.manifest import Eviction, Manifest, Part
from support.archive_kit import EPOCH, NOON_US, ArchiveBox, archived_rows

DAY_US = 86_400_000_000


class Kept:
    """An archive of three days with 300 readings each, rolled, and retention over it."""

    def __init__(self, directory: Path, settings: RetentionSettings) -> None:
        self.box = ArchiveBox(directory)
        for day in range(3):
            at_us = NOON_US + day * DAY_US
            self.box.journal.add_readings(300, at_us=at_us, arrival_us=at_us)
            self.box.sealer.seal_up_to()
        self.told: list[Eviction] = []
        self.roll()
        self.retention = Retention(
            self.box.store,
            settings,
            names=lambda: self.box.names,
            clock=self.box.clock,
            on_evicted=self.told.append,
        )

    def roll(self, *, rolled: bool = True) -> None:
        parts = tuple(msgspec.structs.replace(p, rolled=rolled) for p in self.box.manifest.parts)
        self.box.store.commit(msgspec.structs.replace(self.box.manifest, parts=parts))

    def run(self, days: float) -> None:
        """Have it be so many days after the first noon, and do all that is due."""
        self.box.clock.advance((NOON_US + days * DAY_US - self.box.clock.now_us()) / 1e6)
        for _ in range(50):
            if self.retention.due_in() != 0:
                return
            self.retention.step()
        raise AssertionError("never done")

    @property
    def dates(self) -> int:
        return len({part.date for part in self.box.manifest.parts})


def test_by_default_nothing_goes(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings())
    assert kept.retention.due_in() is None
    assert kept.retention.look().removals == []


def test_a_part_goes_when_its_day_is_as_many_days_over(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=10))
    kept.run(10.4)
    assert kept.dates == 3
    kept.run(10.6)
    assert kept.dates == 2
    assert kept.told == [Eviction(1, "age", {"s-0": 100, "s-1": 100, "s-2": 100})]
    kept.run(100)
    assert kept.box.manifest.parts == ()
    assert sum(sum(each.sensors.values()) for each in kept.told) == 900
    assert kept.box.manifest.evicted.rows == 900
    assert kept.box.manifest.balance() == ""
    assert kept.box.reopened().manifest == kept.box.manifest
    assert list(kept.box.store.folder.glob("date=*")) == []


def test_readings_stay_until_they_are_in_rollups(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=1))
    kept.roll(rolled=False)
    kept.run(100)
    assert kept.dates == 3
    assert len(kept.retention.look().held) == 3
    assert kept.retention.relieve(1) == 0


def test_some_sensors_go_earlier_by_their_pattern(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=0, sensors=("s-[12]: archive_days=5",)))
    before = kept.box.rows()
    kept.run(100)
    assert kept.box.rows() == [row for row in before if row[1] == "s-0"]
    assert {name for each in kept.told for name in each.sensors} == {"s-1", "s-2"}
    assert kept.box.manifest.balance() == ""
    assert all(part.rolled for part in kept.box.manifest.parts)
    assert archived_rows(kept.box.reopened()) == kept.box.rows()


def test_patterns_mean_the_names_that_are_shown(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=5, sensors=("press: archive_days=0",)))
    kept.box.names = Names([NameRule(1, "rename", "s-1", "press")])
    kept.run(100)
    assert {row[1] for row in kept.box.rows()} == {"s-1"}


def test_the_oldest_goes_when_it_is_too_large(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_gb=1))
    large = tuple(
        msgspec.structs.replace(part, bytes=400_000_000) for part in kept.box.manifest.parts
    )
    manifest = msgspec.structs.replace(kept.box.manifest, parts=large)
    found = plan(manifest, RetentionSettings(archive_gb=1), NOON_US, sensors_of={})
    assert [(each.part, each.reason) for each in found.removals] == [(large[0], "size")]


def test_a_full_disk_takes_the_oldest_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings())
    first, *others = kept.box.manifest.of_kind("readings")
    assert kept.retention.relieve(1) == first.bytes
    assert kept.box.manifest.of_kind("readings") == others
    assert [each.reason for each in kept.told] == ["disk full"]
    assert kept.retention.relieve(10**12) == sum(part.bytes for part in others)
    assert kept.box.manifest.balance() == ""


def test_what_a_rule_forgot_is_not_counted_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=1))
    kept.box.names = Names([NameRule(7, "forget", "s-0", up_to_id=150)])
    kept.run(100)
    manifest = kept.box.manifest
    assert manifest.forgotten == {"7": 50}
    assert manifest.forgotten_ids.rows == 50
    assert sum(each.sensors.get("s-0", 0) for each in kept.told) == 250
    assert manifest.evicted.rows == 850
    assert manifest.balance() == ""


def test_a_damaged_part_goes_too(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=1))
    path = kept.box.store.path(kept.box.manifest.of_kind("readings")[0])
    path.write_bytes(b"nothing" * 100)
    kept.run(100)
    assert kept.box.manifest.parts == ()
    assert kept.box.manifest.balance() == ""
    assert sum(each.sensors.get("", 0) for each in kept.told) == 300


def test_what_the_ledger_has_counted_is_dropped(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=1))
    kept.retention.relieve(1)
    kept.retention.relieve(1)
    assert [each.number for each in kept.box.manifest.evictions] == [1, 2]
    kept.retention.counted(1)
    assert [each.number for each in kept.box.manifest.evictions] == [2]
    kept.retention.counted(2)
    kept.retention.counted(2)
    assert kept.box.manifest.evictions == ()
    assert kept.box.manifest.evictions_counted == 2
    kept.retention.relieve(1)
    assert kept.told[-1].number == 3


def test_removal_waits_for_the_ledger(tmp_path: Path) -> None:
    kept = Kept(tmp_path, RetentionSettings(archive_days=1))
    waiting = tuple(Eviction(n, "age", {}) for n in range(1, EVICTIONS_WAITING_MAX + 1))
    kept.box.store.commit(msgspec.structs.replace(kept.box.manifest, evictions=waiting))
    assert kept.retention.due_in() is None


def part_of(kind: str, date: str, **changes: object) -> Part:
    name = f"date={date}/{kind}.parquet"
    part = Part(name, "readings", date, 1, 9, 9, 9, 45, 0, 0, 0, 100, "", rolled=True)
    return msgspec.structs.replace(part, kind=kind, **changes)


def test_rollups_go_only_after_the_readings_they_stand_for() -> None:
    kinds = ("readings", "rollup_1m", "rollup_1h")
    parts = tuple(part_of(kind, "2026-01-01") for kind in kinds)
    manifest = Manifest(epoch=EPOCH, parts=parts)
    late_us = NOON_US + 9000 * DAY_US
    short = RetentionSettings(rollup_1m_days=5, rollup_1h_days=50)
    assert plan(manifest, short, late_us, sensors_of={}).removals == []
    both = RetentionSettings(archive_days=9, rollup_1m_days=5)
    gone = [each.part.kind for each in plan(manifest, both, late_us, sensors_of={}).removals]
    assert gone == ["readings", "rollup_1m"]
    assert [each.part.kind for each in oldest(parts, 250, "disk full")] == list(kinds)
    unrolled = (part_of("readings", "2026-01-01", rolled=False), *parts[1:])
    assert oldest(unrolled, 250, "disk full") == []


def test_late_arrival_counts_for_age() -> None:
    late_us = NOON_US + 100 * DAY_US
    manifest = Manifest(epoch=EPOCH, parts=(part_of("readings", "1970-01-01", arrived_us=late_us),))
    keep = RetentionSettings(archive_days=30)
    assert not plan(manifest, keep, late_us + 29 * DAY_US, sensors_of={}).removals
    assert plan(manifest, keep, late_us + 30 * DAY_US, sensors_of={}).removals


def test_rules_of_sensors() -> None:
    assert sensor_days(RetentionSettings(sensors=("a:b-*: archive_days=90",))) == (
        SensorDays("a:b-*", 90),
    )


@pytest.mark.parametrize(
    "text",
    ["", "a", "a: days=3", ": archive_days=3", "a: archive_days=x", "a: archive_days=-1",
     "a: archive_days=99999", "a archive_days=3"],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"retention\.sensors: found"):
        sensor_days(RetentionSettings(sensors=(text,)))
