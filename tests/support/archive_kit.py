"""Archives, journals that are lists of blocks, and what both hold."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ocean_core.buffer.port import BlockBatch, IdRange, Losses
from ocean_core.model.block import Block, Events, Readings
from ocean_core.model.naming import NO_RULES, Names
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.archiving.sealer import Sealer, SealerTools
from ocean_core.storage.archive.manifest import Manifest
from ocean_core.storage.archive.parquet import files, parquet_engine
from ocean_core.storage.archive.store import ArchiveStore

EPOCH = "6f1a1f0e-0000-4000-8000-000000000001"
NOON_US = 1_780_000_000_000_000 // 86_400_000_000 * 86_400_000_000 + 43_200_000_000

Row = tuple[int, str, str, int, float, int]
"""(id, sensor, metric, time in microseconds, value, quality)."""


def quiet_log(clock: ManualClock) -> EventLog:
    return EventLog(clock, stream=io.StringIO())


class ListJournal:
    """A journal in memory: what the sealer reads."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.missing: list[IdRange] = []
        self.trimmed = 0
        self.head = 0

    def add(self, rows: Readings | Events, arrival_us: int = NOON_US, skip: int = 0) -> Block:
        """Append a block behind ``skip`` ids that are not held."""
        first = self.head + skip + 1
        block = Block(first, arrival_us, uuid.UUID(int=first).bytes, rows)
        self.blocks.append(block)
        self.head = block.last_id
        return block

    def add_readings(
        self,
        count: int,
        *,
        sensors: int = 3,
        at_us: int = NOON_US,
        step_us: int = 1_000_000,
        arrival_us: int = NOON_US,
        skip: int = 0,
    ) -> Block:
        """Append readings of some sensors in turn, ``step_us`` apart."""
        at = np.arange(count)
        rows = Readings(
            [(f"s-{n}", "value" if n % 2 else "°C") for n in range(sensors)],
            (at % sensors).astype(np.uint32),
            (at_us + at * step_us).astype(np.int64),
            (self.head + at * 0.25).astype(np.float64),
            (at % 3).astype(np.uint8),
        )
        return self.add(rows, arrival_us, skip)

    def trim(self, up_to_id: int) -> None:
        self.blocks = [block for block in self.blocks if block.last_id > up_to_id]
        self.trimmed = max(self.trimmed, up_to_id)

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        wanted: int | None = first_id or 0
        for block in self.blocks:
            if wanted is None:
                break
            if block.last_id >= wanted:
                wanted = take(block)
        return []

    epoch = EPOCH

    def last_id(self) -> int:
        return self.blocks[-1].last_id if self.blocks else 0

    def first_id(self) -> int:
        return self.blocks[0].first_id if self.blocks else 0

    def read_after(self, after_id: int, *, rows_max: int) -> BlockBatch:
        found: list[Block] = []
        for block in self.blocks:
            if block.first_id > after_id and sum(b.count for b in found) < rows_max:
                found.append(block)
        return BlockBatch(found, found[-1].last_id if found else after_id)

    def losses(self) -> Losses:
        return Losses(self.trimmed, self.missing)

    def close(self) -> None:
        return

    def rows(self) -> list[Row]:
        """All readings, by id."""
        return sorted(row for block in self.blocks for row in rows_of(block))


def rows_of(block: Block) -> list[Row]:
    found = block.rows
    if not isinstance(found, Readings):
        return []
    return [
        (block.first_id + at, *found.series[int(index)], int(ts), float(value), int(quality))
        for at, (index, ts, value, quality) in enumerate(
            zip(found.series_index, found.timestamp_us, found.value, found.quality, strict=True)
        )
    ]


class ArchiveBox:
    """A store in a directory, a journal, a sealer over both, and what they told."""

    def __init__(self, directory: Path, *, rows_per_part: int = 1000, **changes: Any) -> None:
        self.clock = ManualClock(NOON_US)
        self.log = quiet_log(self.clock)
        self.metrics = MetricsRegistry(METRICS)
        self.journal = ListJournal()
        self.names: Names = NO_RULES
        self.sealed: list[int] = []
        self.damage: list[IdRange] = []
        self.watermark: int | None = None
        self.store = ArchiveStore(directory / "archive", log=self.log, **changes)
        self.store.open(EPOCH, 0)
        self.sealer = Sealer(
            self.store,
            SealerTools(
                open_source=lambda: self.journal,
                watermark=lambda: self.journal.head if self.watermark is None else self.watermark,
                names=lambda: self.names,
                on_sealed=self.sealed.append,
                on_damage=self.damage.extend,
            ),
            clock=self.clock,
            log=self.log,
            metrics=self.metrics,
            rows_per_part=rows_per_part,
        )

    @property
    def manifest(self) -> Manifest:
        return self.store.manifest

    def reopened(self) -> ArchiveStore:
        """Another store on the same folder, as after a restart."""
        store = ArchiveStore(self.store.folder, log=self.log)
        store.open(EPOCH, 0)
        return store

    def rows(self) -> list[Row]:
        """All readings in the parts of the manifest, by id."""
        return archived_rows(self.store)


def archived_rows(store: ArchiveStore) -> list[Row]:
    paths = [store.path(part) for part in store.manifest.of_kind("readings")]
    if not paths:
        return []
    with parquet_engine() as engine:
        found = engine.rows(
            "SELECT id, sensor_id, metric, epoch_us(timestamp), value, quality "
            f"FROM {files(paths)} ORDER BY id"
        )
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in found]
