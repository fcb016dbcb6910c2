"""What the ingest process does about accounts by itself: catching up, alarms, putting back."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from ocean_core.config.settings import Settings
from ocean_core.model.access import LOCAL, Origin
from ocean_core.model.errors import AnalyticsUnavailableError, StoreIOError
from ocean_core.model.naming import NameRule
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.accounts import Accounts
from ocean_core.service.alarms import AlarmBook
from ocean_core.storage.operational import opening, writer
from ocean_core.storage.operational.opened import OpenedFile
from support.accounts import Journal
from support.operational_kit import NAME, START_US, WAIT_S, in_loop, until
from support.records_kit import FakeAnalytics
from support.renaming import forget, rename

ORIGIN = Origin(LOCAL)


class Link:
    """Takes the rules."""

    def __init__(self) -> None:
        self.told: list[list[NameRule]] = []

    def set_rules(self, rules: list[NameRule]) -> None:
        self.told.append(rules)

    async def sync_rules(self, rules: list[NameRule], timeout_s: float) -> dict[int, int]:
        raise AnalyticsUnavailableError(f"not within {timeout_s} s")


class HeadlessJournal(Journal):
    head_id = 7
    newest_arrival_us = 0


class Box:
    def __init__(self, directory: Path, epoch: str = "epoch-1", *, linked: bool = False) -> None:
        self.directory = directory
        self.clock = ManualClock(START_US)
        self.log = EventLog(self.clock, stream=io.StringIO())
        metrics = MetricsRegistry(METRICS)
        self.alarms = AlarmBook(self.clock, self.log, metrics)
        self.link = Link()
        self.journal = HeadlessJournal()
        self.journal.epoch = epoch
        journal: Any = self.journal
        link: Any = self.link
        self.accounts = Accounts(
            Settings(), directory, clock=self.clock, log=self.log, metrics=metrics,
            alarms=self.alarms, journal=journal, link=link, was_clean=True,
        )  # fmt: skip
        self.analytics = FakeAnalytics()
        self.analytics.head_id = 7
        self.analytics.readings.update(s=3, a=1)
        if not linked:
            fake: Any = self.analytics
            self.accounts.sensors._analytics = fake

    def alarm(self, name: str) -> str | None:
        """Return the detail of an open alarm."""
        return next((a.detail for a in self.alarms.open_alarms() if a.name == name), None)


@asynccontextmanager
async def running(directory: Path, **more: Any) -> AsyncIterator[Box]:
    box = Box(directory, **more)
    async with asyncio.timeout(WAIT_S):
        await box.accounts.open()
        try:
            yield box
        finally:
            await box.accounts.close()


@in_loop
async def test_a_lost_store_raises_an_alarm_until_it_is_accepted(tmp_path: Path) -> None:
    async with running(tmp_path) as box:
        assert box.alarm("accounts.lost") is None
    (tmp_path / NAME).unlink()
    for _ in range(2):
        async with running(tmp_path) as box:
            detail = box.alarm("accounts.lost")
            assert detail is not None
            assert box.accounts.store.store_id in detail
            await box.accounts.tick()
            assert box.alarm("accounts.lost") == detail
    async with running(tmp_path) as box:
        (tmp_path / "accounts.id").unlink()
        await box.accounts.tick()
        assert box.alarm("accounts.lost") is None
    async with running(tmp_path) as box:
        assert box.alarm("accounts.lost") is None


@in_loop
async def test_rules_are_told_once_it_is_known_whose_ids_they_mean(tmp_path: Path) -> None:
    async with running(tmp_path) as box:
        await box.accounts.sensors.forget("s", "s", ORIGIN)
        assert box.link.told == [[]]
    async with running(tmp_path, epoch="", linked=True) as box:
        await box.accounts.tick()
        assert box.link.told == []
        box.journal.epoch = "epoch-1"
        await box.accounts.tick()
        assert box.link.told == [[forget(1, "s", 7)]]
    async with running(tmp_path, epoch="epoch-2", linked=True) as box:
        assert box.link.told == [[forget(1, "s", 0)]]


@in_loop
async def test_what_a_slow_open_kept_out_comes_as_soon_as_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as box:
        await box.accounts.sensors.rename("a", "b", ORIGIN)
    broken = [True]

    def open_file(*arguments: Any, **more: Any) -> OpenedFile:
        if broken:
            raise StoreIOError("not now")
        return opening.open_file(*arguments, **more)

    monkeypatch.setattr(writer, "open_file", open_file)
    async with running(tmp_path) as box:
        assert box.link.told == []
        assert not box.accounts.keys.is_loaded
        broken.clear()
        box.accounts.store.retry_now()
        # Nobody calls tick.
        await until(lambda: box.link.told and box.accounts.keys.is_loaded)
        assert box.link.told == [[rename(1, "a", "b")]]
        await until(lambda: not box.accounts._catching_up)


@in_loop
async def test_rules_that_a_live_salvage_lost_are_put_back_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as box:
        await box.accounts.sensors.rename("a", "b", ORIGIN)
        await box.accounts.sensors.forget("s", "s", ORIGIN)
        await box.accounts.store.write(lambda db: db.execute("DELETE FROM name_rules").fetchall())
        box.accounts.store._writer.note_damage("for a test")  # type: ignore[union-attr]
        await until(lambda: box.accounts.store.salvage_report is not None)
        await until(lambda: rules_in(tmp_path) == [(1, "a"), (2, "s")])
        assert box.alarm("accounts.lost") is None


def rules_in(directory: Path) -> list[Any]:
    db = apsw.Connection(str(directory / NAME), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return db.execute("SELECT id, sensor_id FROM name_rules ORDER BY id").fetchall()
    finally:
        db.close()
