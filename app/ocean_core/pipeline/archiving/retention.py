"""Retention: the archive lets go of what its policy does not keep, a few parts per commit.

The manifest that no longer names a part notes with the same rename how many rows of which sensors
went, until the loss ledger has counted them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from ocean_core.config.upkeep import RetentionSettings
from ocean_core.model.errors import StoreCorruptError
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock
from ocean_core.pipeline.archiving.eviction import DISK_FULL, Plan, Removal, oldest, plan
from ocean_core.storage.archive.manifest import (
    ID_SUM_MODULUS,
    RAW_KINDS,
    Eviction,
    Gone,
    Manifest,
    Part,
)
from ocean_core.storage.archive.parquet import ParquetEngine, files, parquet_engine, quoted
from ocean_core.storage.archive.store import ArchiveStore, replace_part

LOOK_EVERY_S: Final = 3600.0
PARTS_PER_STEP: Final = 8
EVICTION_SENSORS_MAX: Final = 10_000
EVICTIONS_WAITING_MAX: Final = 64
"""Removals wait while so many are not counted yet, except on a full disk."""


class _Tally:
    """What has gone so far: by sensor, and by rule for what was forgotten before."""

    def __init__(self, before: Manifest) -> None:
        self.sensors: dict[str, int] = {}
        self.evicted = before.evicted
        self.forgotten = dict(before.forgotten)
        self.forgotten_ids = before.forgotten_ids

    def gone(self, sensor_id: str, rows: int, id_sum: int) -> None:
        if rows:
            self.sensors[sensor_id] = self.sensors.get(sensor_id, 0) + rows
            self.evicted = self.evicted.plus(rows, id_sum)

    def gone_before(self, rule_id: int, rows: int, id_sum: int) -> None:
        if rows:
            key = str(rule_id)
            self.forgotten[key] = self.forgotten.get(key, 0) + rows
            self.forgotten_ids = self.forgotten_ids.plus(rows, id_sum)


class Retention:
    """Knows what is over and removes it. A Chore of the keeper; only its thread may call."""

    name: Final = "retention"

    def __init__(
        self,
        store: ArchiveStore,
        settings: RetentionSettings,
        *,
        names: Callable[[], Names],
        clock: Clock,
        on_evicted: Callable[[Eviction], None],
    ) -> None:
        """``on_evicted`` is told of rows that the loss ledger has to count."""
        self._store = store
        self._settings = settings
        self._names = names
        self._clock = clock
        self._on_evicted = on_evicted
        self._look_at = float("-inf")
        self._sensors: dict[str, frozenset[str]] = {}

    def due_in(self) -> float | None:
        """Seconds until the archive is looked at again, None if everything is kept."""
        if self._settings == RetentionSettings():
            return None
        if len(self._store.manifest.evictions) >= EVICTIONS_WAITING_MAX:
            return None
        return max(0.0, self._look_at - self._clock.monotonic())

    def step(self) -> None:
        """Look what is over, and remove the first of it. Raises OceanError, nothing changed."""
        found = self.look()
        if found.unknown:
            self._learn(found.unknown[:PARTS_PER_STEP])
        elif found.removals:
            self._remove(_first_batch(found.removals))
        else:
            self._look_at = self._clock.monotonic() + LOOK_EVERY_S

    def look(self) -> Plan:
        """Return what would go now. Raises ConfigError."""
        manifest = self._store.manifest
        known = {part.name for part in manifest.parts}
        self._sensors = {name: kept for name, kept in self._sensors.items() if name in known}
        return plan(
            manifest,
            self._settings,
            self._clock.now_us(),
            sensors_of=self._sensors,
            shown=self._names().shown,
        )

    def relieve(self, size: int) -> int:
        """Remove the oldest that may go until so many bytes are free; return how many are.

        Raises OceanError; what went before stays gone.
        """
        freed = 0
        while freed < size:
            removals = oldest(self._store.manifest.parts, size - freed, DISK_FULL)
            if not removals:
                break
            freed += self._remove(removals[:PARTS_PER_STEP])
        return freed

    def counted(self, number: int) -> None:
        """Note that the loss ledger has everything up to an eviction. Raises StoreIOError."""
        before = self._store.manifest
        if any(each.number <= number for each in before.evictions):
            self._store.commit(
                msgspec.structs.replace(
                    before,
                    evictions=tuple(each for each in before.evictions if each.number > number),
                    evictions_counted=max(before.evictions_counted, number),
                )
            )

    def _learn(self, parts: Sequence[Part]) -> None:
        with parquet_engine(self._store.spill) as engine:
            for part in parts:
                table = files([self._store.path(part)])
                rows = engine.rows(f"SELECT DISTINCT sensor_id FROM {table}")  # noqa: S608 - our own path
                self._sensors[part.name] = frozenset(row[0] for row in rows)

    def _remove(self, removals: Sequence[Removal]) -> int:
        """Remove parts, or sensors of one, in one commit; return how many bytes went."""
        before = self._store.manifest
        tally = _Tally(before)
        written: list[Part] = []
        with parquet_engine(self._store.spill) as engine:
            for removal in removals:
                if removal.part.kind in RAW_KINDS:
                    self._count(engine, removal, tally)
                if removal.sensors is not None:
                    written.append(self._without(engine, removal.part, removal.sensors))
        gone = {removal.part.name for removal in removals}
        evictions = tuple(_numbered(before, removals[0].reason, tally.sensors))
        after = msgspec.structs.replace(
            before,
            parts=(*(part for part in before.parts if part.name not in gone), *written),
            evicted=tally.evicted,
            forgotten=tally.forgotten,
            forgotten_ids=tally.forgotten_ids,
            evictions=(*before.evictions, *evictions),
        )
        try:
            self._store.commit(after)
        except Exception:
            if self._store.manifest.sequence == before.sequence:
                self._store.discard(written)
            raise
        for eviction in evictions:
            self._on_evicted(eviction)
        return before.bytes - after.bytes

    def _count(self, engine: ParquetEngine, removal: Removal, tally: _Tally) -> None:
        part = removal.part
        chosen = "true" if removal.sensors is None else f"sensor_id IN ({_listed(removal.sensors)})"
        rows = f"FROM {files([self._store.path(part)])} WHERE {chosen}"
        counts = "count(*), coalesce(sum(id::HUGEINT), 0)"
        try:
            found = engine.rows(f"SELECT sensor_id, {counts} {rows} GROUP BY sensor_id")
            if removal.sensors is None and sum(row[1] for row in found) != part.rows:
                raise StoreCorruptError(f"{part.name}: rows are missing")
        except StoreCorruptError:
            if removal.sensors is not None:
                raise
            # What cannot be read any more goes all the same: of whom it was is not known.
            tally.gone("", part.rows, part.id_sum)
            return
        names = self._names()
        for sensor_id, count, total in found:
            left, left_ids, reached = count, int(total), 0
            spans = names.forgotten(sensor_id) if part.first_id <= names.forgets_up_to else ()
            for up_to_id, rule_id in spans:
                # A rule that forgets has counted these already.
                ((some, ids),) = engine.rows(
                    f"SELECT {counts} {rows} AND sensor_id = ? AND id > ? AND id <= ?",
                    [sensor_id, reached, up_to_id],
                )
                tally.gone_before(rule_id, some, int(ids) % ID_SUM_MODULUS)
                left, left_ids, reached = left - some, left_ids - int(ids), up_to_id
            tally.gone(sensor_id, left, left_ids % ID_SUM_MODULUS)

    def _without(self, engine: ParquetEngine, part: Part, sensors: frozenset[str]) -> Part:
        """Write a part again without some sensors; others keep their order."""
        table = files([self._store.path(part)])
        rows = f"FROM {table} WHERE sensor_id NOT IN ({_listed(sensors)})"
        ((count, first, last, total, first_us, last_us),) = engine.rows(
            "SELECT count(*), min(id), max(id), sum(id::HUGEINT), epoch_us(min(timestamp)), "
            f"epoch_us(max(timestamp)) {rows}"
        )
        described = replace_part(
            part, name="", first_id=first, last_id=last, rows=count, readings=count,
            id_sum=int(total) % ID_SUM_MODULUS, first_us=first_us, last_us=last_us,
        )  # fmt: skip
        return self._store.write_part(engine, described, f"SELECT * {rows}")


def _first_batch(removals: Sequence[Removal]) -> list[Removal]:
    """Return the first removals of one reason; one alone if a part is to be written again."""
    first = removals[0]
    if first.sensors is not None:
        return [first]
    alike = [each for each in removals if each.reason == first.reason and each.sensors is None]
    return alike[:PARTS_PER_STEP]


def _numbered(manifest: Manifest, reason: str, sensors: dict[str, int]) -> Iterator[Eviction]:
    number = max([manifest.evictions_counted, *(each.number for each in manifest.evictions)])
    ordered = sorted(sensors.items())
    for start in range(0, len(ordered), EVICTION_SENSORS_MAX):
        number += 1
        yield Eviction(number, reason, dict(ordered[start : start + EVICTION_SENSORS_MAX]))


def _listed(sensors: frozenset[str]) -> str:
    return ", ".join(quoted(name) for name in sorted(sensors))
