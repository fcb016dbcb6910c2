"""Services of records over a real store in a directory of the test, and analytics that are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ocean_core.buffer.port import DuplicateCount, IdRange
from ocean_core.model.access import ALL_SCOPES, Origin, Principal
from ocean_core.model.errors import AnalyticsUnavailableError
from ocean_core.model.naming import NameRule, Names
from ocean_core.obs.clock import ManualClock
from ocean_core.service.accounts.audit import AuditEntry, AuditService
from ocean_core.service.accounts.keys import KeyService
from ocean_core.service.accounts.metadata import MetadataService
from ocean_core.service.accounts.profiles import ProfileService
from ocean_core.service.accounts.sensors import SensorRecords
from ocean_core.service.ledger import LedgerService
from ocean_core.storage.operational import OperationalStore
from support.operational_kit import START_US, States, settings_for

T = TypeVar("T")

ANNA = Origin(Principal("session", "s1", "anna", ALL_SCOPES), "10.0.0.7")

# Each of these has broken some program: each must be kept, found and given back as it is.
NASTY_TEXTS = [
    "'; DROP TABLE metadata; --",
    '" OR ""="',
    "100%_\\",
    "../../etc/passwd",
    "..",
    "{{7*7}}${jndi:ldap://x}",
    "Öl-Temperatur °C \U0001f321",
    "\u202etxt.exe",
    "e\u0301",
    "A" * 200,
    " ",
]
NASTY_NAMES = [text for text in NASTY_TEXTS if text == text.strip()]


class FakeAnalytics:
    """Analytics as a dictionary: how many readings there are by sensor."""

    def __init__(self) -> None:
        self.readings: dict[str, int] = {}
        self.away = False
        self.head_id = 0
        self.epoch = "epoch-1"
        # What came but does not show yet unless somebody waits for it.
        self.arriving: dict[str, int] = {}
        self.told: list[list[NameRule]] = []
        self.forgotten: dict[int, int] = {}

    async def sync_rules(self, rules: list[NameRule]) -> dict[int, int]:
        self.told.append(list(rules))
        if self.away:
            raise AnalyticsUnavailableError("analytics are starting")
        for rule in rules:
            if rule.kind == "rename" and rule.sensor_id in self.readings:
                moved = self.readings.pop(rule.sensor_id)
                self.readings[rule.new_id] = self.readings.get(rule.new_id, 0) + moved
            elif rule.kind == "forget" and rule.id not in self.forgotten:
                self.forgotten[rule.id] = self.readings.pop(rule.sensor_id, 0)
        return {rule_id: count for rule_id, count in self.forgotten.items() if count}

    async def describe(self, sensor_id: str, *, wait: bool = False) -> dict[str, Any] | None:
        if self.away:
            raise AnalyticsUnavailableError("analytics are starting")
        if wait:
            self.readings.update(self.arriving)
            self.arriving.clear()
        count = self.readings.get(sensor_id)
        if count is None:
            return None
        return {
            "sensor_id": sensor_id,
            "metrics": ["value"],
            "count": count,
            "first_reading": "2026-01-17T08:00:00Z",
            "last_reading": "2026-01-17T09:00:00Z",
            "last_value": 1.5,
            "events": 0,
        }


class FakeJournal:
    """What the ledger asks a journal, to be set by the test."""

    def __init__(self) -> None:
        self.head_id = 0
        self.newest_arrival_us = 0
        self.repeated: dict[str, DuplicateCount] = {}
        self.missing: tuple[IdRange, ...] = ()

    def missing_ranges(self) -> tuple[IdRange, ...]:
        return self.missing

    def duplicates(self) -> dict[str, DuplicateCount]:
        return dict(self.repeated)


class Records:
    """All services over one store, driven from code that is not async."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock(START_US)
        self.analytics = FakeAnalytics()
        self.journal = FakeJournal()
        self.was_clean = True
        self._runner = asyncio.Runner()
        self._open(seed=1)

    def _open(self, seed: int) -> None:
        settings = settings_for(self.directory, clock=self.clock)
        self.store = OperationalStore(settings, on_state=States())
        self.do(self.store.open())
        self.metadata = MetadataService(self.store, self.clock)
        self.sensors = SensorRecords(self.store, self.clock, self.analytics)
        self.ledger = LedgerService(
            self.store,
            self.clock,
            self.sensors,
            self.journal,
            lambda: Names(self.sensors.rules),
            was_clean=self.was_clean,
        )
        self.profiles = ProfileService(self.store, self.clock, self.sensors.current_name)
        self.keys = KeyService(self.store, self.clock, random.Random(seed).randbytes)
        self.audit = AuditService(self.store)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop to its end."""
        return self._runner.run(work)

    def restart(self) -> None:
        """Open the same file with new services, as a new process would."""
        self.do(self.store.close())
        self._open(seed=2)
        self.do(self.keys.load())
        self.do(self.sensors.load())

    def close(self) -> None:
        self.do(self.store.close())
        self._runner.close()

    def acts(self) -> list[AuditEntry]:
        """The whole audit log, oldest first, with decoded details."""
        page = self.do(self.audit.page(None, None, 1000))
        entries = msgspec.json.decode(msgspec.json.encode(page.entries), type=list[AuditEntry])
        return entries[::-1]


def as_json(answer: object) -> Any:
    """Return an answer as a client would see it."""
    return msgspec.json.decode(msgspec.json.encode(answer))
