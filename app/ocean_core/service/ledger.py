"""The loss ledger: what became of whatever was not stored, or is not any more, by sensor.

Duplicates are counted by the journal itself, forgotten readings when analytics have applied the
rule; refusals are gathered here and written every few seconds, for a store that is asked at each of
them could be kept busy by anybody. What a process that dies had not written yet is missing: the
ledger says since when that may be so.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import msgspec

from ocean_core.buffer.port import DuplicateCount, IdRange
from ocean_core.model import limits
from ocean_core.model.errors import OceanError
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.service.accounts.sensors import SensorRecords
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.storage.operational import loss_ledger
from ocean_core.storage.operational.loss_ledger import LossRow, UncleanStop, Unsure
from ocean_core.storage.operational.store import OperationalStore

DUPLICATE: Final = "duplicate"
STORED: Final = "stored"
UNWRITTEN_S_MAX: Final = 20
"""How long a refusal waits at most to be written, while the store works; usually half of that."""

_START: Final = ("", "")

Counts = dict[tuple[str, str], int]
"""By (sensor, class)."""


class Loss(msgspec.Struct, rename={"loss_class": "class"}):
    """How much of a sensor went one way; an empty name stands for sensors that are not known."""

    sensor_id: str
    loss_class: str
    count: int
    updated_at: str


class Unsureness(msgspec.Struct):
    """Between which moments refusals may be missing, after how many unclean stops."""

    since: str
    until: str
    stops: int


class Ledger(msgspec.Struct):
    """A page; ``next`` is what to send as ``after`` for the following one, null at the end.

    ``totals`` has the sum of each class over all sensors, and how much was stored since ever; it is
    on the first page only, and not for keys of some sensors. ``approximate`` is null as long as all
    figures are exact.
    """

    sensors: list[Loss]
    next: str | None
    totals: dict[str, int] | None
    approximate: Unsureness | None


class Journal(Protocol):
    """What the ledger asks the journal."""

    @property
    def head_id(self) -> int:
        """Id of the last durable reading."""
        ...

    @property
    def newest_arrival_us(self) -> int:
        """When the newest of them came."""
        ...

    def missing_ranges(self) -> tuple[IdRange, ...]:
        """Return the acknowledged ids that are known to be lost."""
        ...

    def duplicates(self) -> dict[str, DuplicateCount]:
        """Return how much came again, by sensor as it came."""
        ...


class RefusalBook:
    """Refusals, and other losses, that are not written yet. Bounded: beyond that the sensor is not told apart."""

    def __init__(self) -> None:
        self._counts: Counts = {}

    def refused(self, code: str, sensors: Mapping[str, int]) -> None:
        """Count how many readings or items of which known sensors were refused, and why."""
        self.lost(loss_ledger.refused_class(code), sensors)

    def lost(self, loss_class: str, sensors: Mapping[str, int]) -> None:
        """Count how much of which sensors went one way."""
        for sensor_id, count in sensors.items():
            self._add(sensor_id, loss_class, count)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._counts

    def take(self) -> Counts:
        """Return what has gathered, and forget it."""
        counts, self._counts = self._counts, {}
        return counts

    def put_back(self, counts: Counts) -> None:
        """Count again what could not be written."""
        for (sensor_id, loss_class), count in counts.items():
            self._add(sensor_id, loss_class, count)

    def _add(self, sensor_id: str, loss_class: str, count: int) -> None:
        entry = sensor_id, loss_class
        if entry not in self._counts and len(self._counts) >= limits.REFUSALS_HELD_MAX:
            entry = "", loss_class
        self._counts[entry] = self._counts.get(entry, 0) + count


class LedgerService:
    """Writes refusals, and answers with the whole ledger."""

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        sensors: SensorRecords,
        journal: Journal,
        names: Callable[[], Names],
        *,
        was_clean: bool,
    ) -> None:
        """``was_clean``: the process before this one stopped in an orderly way."""
        self.refusals = RefusalBook()
        self._store = store
        self._clock = clock
        self._sensors = sensors
        self._journal = journal
        self._names = names
        self._unclean_us = 0 if was_clean else clock.now_us()

    @property
    def is_written(self) -> bool:
        """Whether nothing is in memory only; asked when all else has stopped."""
        return self.refusals.is_empty and not self._unclean_us

    async def flush(self) -> None:
        """Write what has gathered. Raises the errors of the store; then it is kept."""
        await uninterrupted(self._flush())

    async def _flush(self) -> None:
        if self.refusals.is_empty and not self._unclean_us:
            return
        async with self._sensors.steady_names() as names:
            unclean_us = self._unclean_us
            counts = self.refusals.take()
            named: Counts = {}
            for (sensor_id, loss_class), count in counts.items():
                # It may have been renamed since it was refused.
                entry = names.asked(sensor_id), loss_class
                named[entry] = named.get(entry, 0) + count
            write = partial(
                loss_ledger.enter,
                counts=named,
                now_us=self._clock.now_us(),
                stop=UncleanStop(
                    self._journal.newest_arrival_us, unclean_us, UNWRITTEN_S_MAX * 1_000_000
                )
                if unclean_us
                else None,
            )
            try:
                await self._store.write(write)
            except OceanError:
                self.refusals.put_back(counts)
                raise
            self._unclean_us = 0

    async def page(
        self,
        after: tuple[str, str] = _START,
        limit: int = limits.RECORDS_PAGE_DEFAULT,
        *,
        sensor_id: str | None = None,
        with_totals: bool = True,
    ) -> Ledger:
        """Return the rows behind ``after`` (sensor, class), of one sensor by any name or of all.

        What waits to be written is written first, as far as that is possible. Raises the errors of
        the store.
        """
        with suppress(OceanError):
            await self.flush()
        names = self._names()
        name = None if sensor_id is None else names.asked(sensor_id)
        found = await self._store.read(
            partial(loss_ledger.look, after=after, limit=limit, sensor_id=name)
        )
        repeated = _by_name(self._journal.duplicates(), names)
        until = found.rows[-1] if found.more else None
        rows, more = _merged(found.rows, _between(repeated, after, until, name), limit)
        totals = None
        if with_totals and after == _START and name is None:
            totals = self._totals(found.totals, repeated)
        return Ledger(
            [
                Loss(row.sensor_id, row.loss_class, row.lost, iso_utc(row.updated_us))
                for row in rows
            ],
            f"{rows[-1].loss_class}/{rows[-1].sensor_id}" if more or found.more else None,
            totals,
            None if found.unsure is None else _shown(found.unsure),
        )

    def _totals(
        self, counted: dict[str, int], repeated: Mapping[str, DuplicateCount]
    ) -> dict[str, int]:
        missing = sum(item.count for item in self._journal.missing_ranges())
        totals = {STORED: self._journal.head_id - missing}
        if missing:
            totals["missing"] = missing
        totals[DUPLICATE] = sum(one.count for one in repeated.values())
        return totals | counted


def _by_name(counts: Mapping[str, DuplicateCount], names: Names) -> dict[str, DuplicateCount]:
    """Return counts by today's names: those of all names a sensor came with, together."""
    if not names.renames:
        return dict(counts)
    shown: dict[str, DuplicateCount] = {}
    for stored, one in counts.items():
        name = names.shown(stored)
        other = shown.get(name)
        if other is not None:
            latest = max(one.updated_us, other.updated_us)
            shown[name] = DuplicateCount(one.count + other.count, latest)
        else:
            shown[name] = one
    return shown


def _between(
    repeated: Mapping[str, DuplicateCount],
    after: tuple[str, str],
    until: LossRow | None,
    sensor_id: str | None,
) -> Iterable[LossRow]:
    for name, one in repeated.items():
        row = LossRow(name, DUPLICATE, one.count, one.updated_us)
        if row[:2] > after and sensor_id in {None, name} and (until is None or row < until):
            yield row


def _merged(
    rows: list[LossRow], repeats: Iterable[LossRow], limit: int
) -> tuple[list[LossRow], bool]:
    """Return the first rows of both, and whether some are left over."""
    first = heapq.nsmallest(limit + 1, repeats)
    merged = sorted([*rows, *first])
    return merged[:limit], len(merged) > limit


def _shown(unsure: Unsure) -> Unsureness:
    return Unsureness(iso_utc(unsure.since_us), iso_utc(unsure.until_us), unsure.stops)
