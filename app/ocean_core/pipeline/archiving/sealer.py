"""Sealing: closed ranges of ids move from the journal into Parquet parts of the archive.

The manifest's commit is the moment at which a range belongs to the archive. Only after it the
journal is told to let go. A crash in between leaves a range in both, which are the same readings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from ocean_core.buffer.port import IdRange
from ocean_core.model import limits
from ocean_core.model.block import Block
from ocean_core.model.errors import BufferUnavailableError, OceanError
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.archiving.blocks import Harvest, SealSource, by_day, harvest
from ocean_core.storage.archive.columns import ArchiveReadings
from ocean_core.storage.archive.manifest import Part
from ocean_core.storage.archive.parquet import parquet_engine
from ocean_core.storage.archive.store import DAY_US, ArchiveStore

SETTLE_US: Final = 600_000_000
"""How long after its end a UTC day counts as closed, so that what is on its way is included."""


class SealResult(NamedTuple):
    """What one or more commits brought into the archive."""

    rows: int
    parts: int
    bytes: int
    sealed_up_to: int


@dataclass(frozen=True, slots=True)
class SealerTools:
    """What the sealer asks and tells; all of it from the keeper's thread.

    ``watermark`` is the id up to which analytics hold everything: nothing behind it is sealed, so
    that the mover always finds in the journal what it still needs. ``on_sealed`` is told what the
    journal may let go of, ``on_damage`` which ids the journal should hold and does not.
    """

    open_source: Callable[[], SealSource]
    watermark: Callable[[], int]
    names: Callable[[], Names]
    on_sealed: Callable[[int], None]
    on_damage: Callable[[list[IdRange]], None]


class Sealer:
    """Knows when sealing is due and does it, a bounded range per step. A Chore of the keeper."""

    name: Final = "seal"

    def __init__(
        self,
        store: ArchiveStore,
        tools: SealerTools,
        *,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        faults: Faults = NO_FAULTS,
        rows_per_part: int = limits.SEAL_ROWS,
    ) -> None:
        self._store = store
        self._tools = tools
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._faults = faults
        self._rows = rows_per_part
        self._oldest: tuple[int, int] = (-1, 0)

    def due_in(self) -> float | None:
        """Seconds until a range is to be sealed: enough rows wait, or their day is over."""
        sealed = self._store.manifest.sealed_up_to
        waiting = self._tools.watermark() - sealed
        if waiting <= 0:
            return None
        if waiting >= self._rows:
            return 0.0
        day_end = (self._oldest_arrival(sealed) // DAY_US + 1) * DAY_US + SETTLE_US
        return max(0.0, (day_end - self._clock.now_us()) / 1e6)

    def _oldest_arrival(self, sealed: int) -> int:
        """Return when the oldest row arrived that is not sealed yet."""
        if self._oldest[0] != sealed:
            arrivals: list[int] = []

            def take(block: Block) -> int | None:
                arrivals.append(block.arrival_us)
                return None

            source = self._tools.open_source()
            try:
                source.scan(sealed + 1, take)
            finally:
                source.close()
            self._oldest = (sealed, arrivals[0] if arrivals else self._clock.now_us())
        return self._oldest[1]

    def step(self) -> None:
        """Seal one range. Raises OceanError, nothing changed."""
        self._seal_range(self._tools.watermark())

    def seal_up_to(self, up_to_id: int | None = None) -> SealResult:
        """Seal everything up to an id, by default all that analytics hold. Raises OceanError."""
        watermark = self._tools.watermark()
        limit = watermark if up_to_id is None else min(up_to_id, watermark)
        total = SealResult(0, 0, 0, self._store.manifest.sealed_up_to)
        while total.sealed_up_to < limit:
            one = self._seal_range(limit)
            total = SealResult(
                total.rows + one.rows, total.parts + one.parts, total.bytes + one.bytes,
                one.sealed_up_to,
            )  # fmt: skip
        return total

    def _seal_range(self, limit: int) -> SealResult:
        started = self._clock.monotonic()
        sealed = self._store.manifest.sealed_up_to
        if limit <= sealed:
            return SealResult(0, 0, 0, sealed)
        found = self._harvest(sealed, self._before_next_rule(sealed, limit))
        parts = self._write(found)
        try:
            self._commit(found, parts)
        except OceanError:
            if self._store.manifest.sealed_up_to != found.up_to_id:
                self._store.discard(parts)
                raise
        self._faults.hit("archive.sealed")
        self._tools.on_sealed(found.up_to_id)
        result = SealResult(
            sum(part.rows for part in parts), len(parts), sum(part.bytes for part in parts),
            found.up_to_id,
        )  # fmt: skip
        self._count(result, self._clock.monotonic() - started)
        return result

    def _before_next_rule(self, sealed: int, limit: int) -> int:
        """Return how far a part may go: what a rule forgets ends where a part ends."""
        ends = [rule.up_to_id for rule in self._tools.names().rules if rule.kind == "forget"]
        return min([limit, *(end for end in ends if end > sealed)])

    def _harvest(self, sealed: int, limit: int) -> Harvest:
        source = self._tools.open_source()
        try:
            found = harvest(source, sealed, limit, self._rows)
        finally:
            source.close()
        if found.unexplained:
            # The journal looks at them again and notes what is lost; then they can be passed over.
            self._tools.on_damage(found.unexplained)
            first, last = found.unexplained[0].first, found.unexplained[0].last
            raise BufferUnavailableError(f"ids {first}-{last} cannot be read from the journal yet")
        return found

    def _write(self, found: Harvest) -> list[Part]:
        parts: list[Part] = []
        try:
            with parquet_engine(self._store.spill) as engine:
                for rows in (found.readings, found.events):
                    for date, of_day in by_day(rows) if rows is not None else ():
                        if isinstance(of_day, ArchiveReadings):
                            part = self._store.write_readings(
                                engine, date, of_day, found.arrived_us
                            )
                        else:
                            part = self._store.write_events(engine, date, of_day, found.arrived_us)
                        parts.append(part)
        except BaseException:
            self._store.discard(parts)
            raise
        return parts

    def _commit(self, found: Harvest, parts: list[Part]) -> None:
        before = self._store.manifest
        missing = (*before.missing, *((item.first, item.last) for item in found.missing))
        self._store.commit(
            msgspec.structs.replace(
                before,
                sealed_up_to=found.up_to_id,
                parts=(*before.parts, *parts),
                missing=missing,
            )
        )

    def _count(self, result: SealResult, took_s: float) -> None:
        self._metrics.add("ocean_archive_sealed_rows_total", result.rows)
        self._metrics.histogram("ocean_archive_seal_duration_seconds").observe(took_s)
        self._log.info(
            "archive.sealed", rows=result.rows, parts=result.parts, bytes=result.bytes,
            up_to_id=result.sealed_up_to,
        )  # fmt: skip
