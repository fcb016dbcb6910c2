"""Compaction of the archive: many small parts of a day become few large ones.

Each seal leaves a part per day. Merged, they are smaller, readers open fewer files, and the
manifest stays short. Late readings make further parts of an old day, which are merged in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import OceanError, StoreCorruptError, StoreIOError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.archiving.sealer import SETTLE_US
from ocean_core.storage.archive.manifest import ID_SUM_MODULUS, RAW_KINDS, Manifest, Part
from ocean_core.storage.archive.parquet import files, parquet_engine
from ocean_core.storage.archive.store import DAY_US, ArchiveStore, day_start_us

MANY_PARTS: Final = 8
"""So many parts in a row are merged in any case, also while their day goes on."""
WORTH_SHARE: Final = 4
"""Else the largest of them is written again only if the others have a fourth of its rows."""

_ROWS: Final = {
    "readings": "SELECT id, sensor_id, metric, timestamp, value, quality FROM {} "
    "ORDER BY sensor_id, metric, timestamp, id",
    "events": "SELECT id, sensor_id, timestamp, quality, payload FROM {} "
    "ORDER BY sensor_id, timestamp, id",
}


class PartCompaction:
    """Merges neighbouring parts, one group per step. A Chore of the keeper."""

    name: Final = "compact"

    def __init__(
        self,
        store: ArchiveStore,
        *,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        rows_max: int = limits.COMPACTED_ROWS_MAX,
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._rows_max = rows_max
        self._unreadable: set[str] = set()
        self._looked_at: tuple[int, int] | None = None

    def due_in(self) -> float | None:
        """Return 0 if there is a group to merge, else seconds until another day is closed."""
        now = self._clock.now_us()
        state = (self._store.manifest.sequence, (now - SETTLE_US) // DAY_US)
        if self._looked_at != state:
            if self._next_group(self._store.manifest) is not None:
                return 0.0
            self._looked_at = state
        return (DAY_US - (now - SETTLE_US) % DAY_US) / 1e6

    def step(self) -> None:
        """Merge one group. Raises OceanError, nothing changed."""
        group = self._next_group(self._store.manifest)
        if group is None:
            return
        merged = self._merge(group)
        if merged is None:
            return
        before = self._store.manifest
        gone = {part.name for part in group}
        try:
            self._store.commit(
                msgspec.structs.replace(
                    before,
                    parts=(*(part for part in before.parts if part.name not in gone), merged),
                )
            )
        except OceanError:
            if merged not in self._store.manifest.parts:
                self._store.discard([merged])
                raise
        saved = sum(part.bytes for part in group) - merged.bytes
        self._metrics.add("ocean_archive_compacted_parts_total", len(group))
        self._log.info("archive.compacted", parts=len(group), into=merged.name, saved_bytes=saved)

    def _merge(self, group: list[Part]) -> Part | None:
        """Write the rows of a group to one part; None if one of them cannot be read."""
        described = msgspec.structs.replace(
            group[0],
            first_id=min(part.first_id for part in group),
            last_id=max(part.last_id for part in group),
            rows=sum(part.rows for part in group),
            readings=sum(part.readings for part in group),
            id_sum=sum(part.id_sum for part in group) % ID_SUM_MODULUS,
            first_us=min(part.first_us for part in group),
            last_us=max(part.last_us for part in group),
            arrived_us=max(part.arrived_us for part in group),
        )
        query = _ROWS[group[0].kind].format(files([self._store.path(part) for part in group]))
        with parquet_engine(self._store.spill) as engine:
            try:
                return self._store.write_part(engine, described, query)
            except (StoreCorruptError, StoreIOError):
                bad = [part for part in group if not self._is_readable(part)]
                if not bad:
                    raise
                self._unreadable.update(part.name for part in bad)
                return None

    def _is_readable(self, part: Part) -> bool:
        with parquet_engine() as engine:
            try:
                engine.read(f"SELECT * FROM {files([self._store.path(part)])}")  # noqa: S608 - ours
            except (StoreCorruptError, StoreIOError):
                self._log.error("archive.part_damaged", part=part.name, rows=part.rows)
                return False
        return True

    def _next_group(self, manifest: Manifest) -> list[Part] | None:
        """Return parts of one day and kind to be merged: the oldest day first."""
        closed = self._clock.now_us() - SETTLE_US
        raw = [
            part
            for part in manifest.parts
            if part.kind in RAW_KINDS and part.name not in self._unreadable
        ]
        raw.sort(key=lambda part: (part.date, part.kind, part.first_id))
        for (date, _), parts in groupby(raw, key=lambda part: (part.date, part.kind)):
            is_closed = day_start_us(date) + DAY_US <= closed
            for group, is_full in self._groups(parts):
                if len(group) >= MANY_PARTS or ((is_closed or is_full) and _is_worth_it(group)):
                    return group
        return None

    def _groups(self, parts: Iterator[Part]) -> Iterator[tuple[list[Part], bool]]:
        """Yield neighbours that fit into one part together, and whether no more would fit."""
        group: list[Part] = []
        rows = 0
        for part in parts:
            if group and rows + part.rows > self._rows_max:
                yield group, True
                group, rows = [], 0
            group.append(part)
            rows += part.rows
        yield group, False


def _is_worth_it(group: list[Part]) -> bool:
    """Whether merging saves more than it writes: late readings must not rewrite a day each time."""
    largest = max(part.rows for part in group)
    return sum(part.rows for part in group) - largest >= max(1, largest // WORTH_SHARE)
