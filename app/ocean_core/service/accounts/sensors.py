"""Sensors as people know them: display name, unit, tags, note; renamed, or forgotten.

Names and what was forgotten concern the readings, which analytics hold. So each rename and each
forgetting is stored as a rule (``model.naming``) together with the record that it changes, and then
handed to analytics; if those are away, they get all rules as soon as they are back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import (
    FieldProblem,
    OceanError,
    StoreUnavailableError,
    UnknownSensorError,
)
from ocean_core.model.naming import NO_RULES, NameRule, Names
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.protocol.readings.names import name_is_good
from ocean_core.service.accounts.checks import check_name, check_text, invalid, refused
from ocean_core.service.accounts.sensor_analytics import ANALYTICS_AWAY, SensorAnalytics
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.storage.operational import loss_ledger, name_rules, sensors
from ocean_core.storage.operational.name_rules import Held, name_taken
from ocean_core.storage.operational.sensors import SensorRow
from ocean_core.storage.operational.store import OperationalStore


class SensorChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to change in a record; null empties a field."""

    display_name: str | UnsetType | None = UNSET
    unit: str | UnsetType | None = UNSET
    tags: dict[str, str] | UnsetType | None = UNSET
    note: str | UnsetType | None = UNSET


class SensorRecord(msgspec.Struct):
    """What people wrote about a sensor; ``updated_at`` is null if nobody did.

    ``aliases`` are names it had before: they still work.
    """

    sensor_id: str
    display_name: str
    unit: str
    tags: dict[str, str]
    note: str
    updated_at: str | None
    aliases: list[str]


class SensorDetail(SensorRecord, omit_defaults=True, kw_only=True):
    """A record, and what analytics know; the latter is missing while they are away."""

    metrics: list[str] | None = None
    count: int | None = None
    first_reading: str | None = None
    last_reading: str | None = None
    last_value: float | None = None
    events: int | None = None


class SensorRenamed(msgspec.Struct):
    """The answer to a sensor with a new name. ``pending``: analytics apply it when they are back."""

    sensor_id: str
    renamed_from: str
    aliases: list[str]
    pending: bool


class SensorForgotten(msgspec.Struct):
    """The answer to a sensor that was forgotten: how many readings and events, up to which id.

    ``pending``: analytics apply it when they are back; the loss ledger counts it then.
    """

    sensor_id: str
    forgotten: int
    up_to_id: int
    pending: bool


class SensorRecords:
    """What the routes of sensor records call."""

    def __init__(self, store: OperationalStore, clock: Clock, analytics: SensorAnalytics) -> None:
        self._store = store
        self._clock = clock
        self._analytics = analytics
        self._names = NO_RULES
        self._epoch = ""
        self._is_loaded = False
        self._is_awaiting = False
        # One change of names at a time.
        self._lock = asyncio.Lock()

    @property
    def rules(self) -> list[NameRule]:
        """All rules, in their order: what analytics need before they read the journal.

        Only those of ``load``, and later ones.
        """
        return list(self._names.rules)

    def current_name(self, sensor_id: str) -> str:
        """Return the name of today for any name that a sensor has or had."""
        return self._names.asked(sensor_id)

    async def load(self) -> None:
        """Take the stored rules into memory.

        Raises the errors of the store, and StoreUnavailableError before the journal was open: what
        is forgotten is told by its ids.
        """
        async with self._lock:
            await self._load()

    async def put_back(self) -> None:
        """Store rules again that a salvage has lost. Raises the errors of the store."""
        async with self._lock:
            if self._names.rules:
                await self._store.write(
                    partial(name_rules.put_back, held=self._held(), now_us=self._clock.now_us())
                )

    async def settle(self) -> None:
        """Count what was forgotten while analytics were away, once they are back. Now and then.

        Raises the errors of the store.
        """
        await self._ensure_loaded()
        if self._is_awaiting:
            await self._sync()

    async def update(self, sensor_id: str, change: SensorChange, origin: Origin) -> SensorRecord:
        """Change a record, or begin one. Raises InvalidInputError and RecordsFullError."""
        check_name("sensor_id", sensor_id, limits.SENSOR_ID_BYTES_MAX)
        columns = _columns(change)
        if not columns:
            expected = "at least one of display_name, unit, tags, note"
            raise refused(FieldProblem("body", "no field", expected))
        return await uninterrupted(self._update(sensor_id, columns, origin))

    async def show(self, sensor_id: str) -> SensorDetail:
        """Return what is known about a sensor, under any of its names.

        Raises UnknownSensorError if nothing is, AnalyticsUnavailableError if that is not clear.
        """
        await self._ensure_loaded()
        name = self.current_name(sensor_id)
        if not name_is_good(name, limits.SENSOR_ID_BYTES_MAX):
            raise _unknown(sensor_id)
        row = await self._store.read(partial(sensors.get, sensor_id=name))
        try:
            known = await self._analytics.describe(name)
        except ANALYTICS_AWAY:
            if row is None:
                raise
            return SensorDetail(**msgspec.structs.asdict(self._record(row)))
        if row is None and known is None:
            raise _unknown(sensor_id)
        record = self._record(row or SensorRow(name))
        described: dict[str, Any] = {"metrics": [], "count": 0, "events": 0} | (known or {})
        fields: dict[str, Any] = {
            name: described.get(name) for name in SensorDetail.__struct_fields__
        }
        return SensorDetail(**(fields | msgspec.structs.asdict(record)))

    async def records_of(self, sensor_ids: Sequence[str]) -> dict[str, SensorRecord]:
        """Return the records that there are for these names of today."""
        rows = await self._store.read(partial(sensors.get_many, sensor_ids=sensor_ids))
        return {name: self._record(row) for name, row in rows.items()}

    async def rename(self, sensor_id: str, new_id: str, origin: Origin) -> SensorRenamed:
        """Give a sensor another name, for all its readings, earlier and later ones.

        Its older names go on working. Raises InvalidInputError, UnknownSensorError, ConflictError
        if the new name belongs or belonged to a sensor, RecordsFullError, and
        AnalyticsUnavailableError since only analytics know whose readings there are.
        """
        check_name("to", new_id, limits.SENSOR_ID_BYTES_MAX)
        return await uninterrupted(self._rename(sensor_id, new_id, origin))

    async def forget(self, sensor_id: str, confirm: str, origin: Origin) -> SensorForgotten:
        """Forget a sensor's record, and its readings acknowledged so far under any of its names.

        Raises InvalidInputError unless ``confirm`` repeats ``sensor_id``, UnknownSensorError, and
        RecordsFullError.
        """
        if confirm != sensor_id:
            raise invalid("confirm", confirm, "the id of the sensor to forget, as in the address")
        return await uninterrupted(self._forget(sensor_id, origin))

    @asynccontextmanager
    async def steady_names(self) -> AsyncIterator[Names]:
        """Give the rules of names; none is added meanwhile.

        Raises what ``load`` raises.
        """
        async with self._lock:
            await self._load()
            yield self._names

    async def _ensure_loaded(self) -> None:
        if not self._is_loaded:
            await self.load()

    async def _load(self) -> None:
        if not self._is_loaded:
            epoch = self._analytics.epoch
            if not epoch:
                raise StoreUnavailableError("the journal is not open yet", retry_after_s=1)
            self._names = Names(await self._store.read(partial(name_rules.every, epoch=epoch)))
            self._epoch = epoch
            self._is_awaiting = await self._store.read(loss_ledger.any_awaited)
            self._is_loaded = True

    async def _update(
        self, sensor_id: str, columns: dict[str, str], origin: Origin
    ) -> SensorRecord:
        async with self._lock:
            await self._load()
            row = await self._store.write(
                partial(
                    sensors.update,
                    sensor_id=self.current_name(sensor_id), changes=columns,
                    now_us=self._clock.now_us(), origin=origin,
                )
            )  # fmt: skip
        return self._record(row)

    async def _rename(self, sensor_id: str, new_id: str, origin: Origin) -> SensorRenamed:
        async with self._lock:
            await self._load()
            name = self.current_name(sensor_id)
            await self._require_known(name)
            if new_id != name and await self._analytics.describe(new_id, wait=True) is not None:
                raise name_taken(name, new_id, "a sensor of this name has readings")
            rules = await self._store.write(
                partial(
                    name_rules.rename,
                    sensor_id=name, new_id=new_id, now_us=self._clock.now_us(), origin=origin,
                    held=self._held(),
                )
            )  # fmt: skip
            self._names = Names(rules)
        pending = await self._sync() is None
        return SensorRenamed(new_id, name, self._aliases(new_id), pending)

    async def _forget(self, sensor_id: str, origin: Origin) -> SensorForgotten:
        async with self._lock:
            await self._load()
            name = self.current_name(sensor_id)
            # If that is not clear now: a rule about nothing does no harm.
            with suppress(*ANALYTICS_AWAY):
                await self._require_known(name)
            up_to_id = self._analytics.head_id
            rules, rule_id = await self._store.write(
                partial(
                    name_rules.forget,
                    sensor_id=name, up_to_id=up_to_id,
                    now_us=self._clock.now_us(), origin=origin, held=self._held(),
                )
            )  # fmt: skip
            self._names = Names(rules)
            self._is_awaiting = True
        counts = await self._sync()
        forgotten = 0 if counts is None else counts.get(rule_id, 0)
        return SensorForgotten(name, forgotten, up_to_id, pending=counts is None)

    def _held(self) -> Held:
        return Held(self._epoch, self._names.rules)

    async def _require_known(self, name: str) -> None:
        if not name_is_good(name, limits.SENSOR_ID_BYTES_MAX):
            raise _unknown(name)
        row = await self._store.read(partial(sensors.get, sensor_id=name))
        if row is None and await self._analytics.describe(name, wait=True) is None:
            raise _unknown(name)

    async def _sync(self) -> dict[int, int] | None:
        """Return what each rule took away, None if analytics are away."""
        rules = self.rules
        try:
            counts = await self._analytics.sync_rules(rules)
        except ANALYTICS_AWAY:
            return None
        if self._is_awaiting:
            count = partial(
                loss_ledger.settle, rules=rules, counts=counts, now_us=self._clock.now_us()
            )
            # The rules are stored and followed; what cannot be counted now is counted later.
            with suppress(OceanError):
                self._is_awaiting = await self._store.write(count)
        return counts

    def _aliases(self, name: str) -> list[str]:
        return [alias for alias in self._names.stored(name) if alias != name]

    def _record(self, row: SensorRow) -> SensorRecord:
        return SensorRecord(
            row.sensor_id,
            row.display_name,
            row.unit,
            msgspec.json.decode(row.tags, type=dict[str, str]),
            row.note,
            iso_utc(row.updated_us) if row.updated_us else None,
            self._aliases(row.sensor_id),
        )


def _columns(change: SensorChange) -> dict[str, str]:
    """Return the new contents of columns; raise InvalidInputError for what does not fit."""
    columns: dict[str, str] = {}
    for field in ("display_name", "unit"):
        text = getattr(change, field)
        if text is not UNSET:
            columns[field] = check_text(field, text or "", limits.SENSOR_TEXT_BYTES_MAX)
    if change.note is not UNSET:
        note = change.note or ""
        columns["note"] = check_text("note", note, limits.SENSOR_NOTE_BYTES_MAX, lines=True)
    if change.tags is not UNSET:
        columns["tags"] = msgspec.json.encode(_checked_tags(change.tags or {})).decode()
    return columns


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > limits.SENSOR_TAGS_MAX:
        expected = f"at most {limits.SENSOR_TAGS_MAX}"
        raise refused(FieldProblem("tags", f"{len(tags)} tags", expected))
    for name, text in tags.items():
        check_text("tags", name, limits.SENSOR_TEXT_BYTES_MAX, bytes_min=1)
        check_text(f"tags.{name[:40]}", text, limits.SENSOR_TEXT_BYTES_MAX)
    return tags


def _unknown(sensor_id: str) -> UnknownSensorError:
    return UnknownSensorError(f"Nothing is known about a sensor {sensor_id[:300]!r}.")
