"""Archive and journal as one: every row ever acknowledged, as blocks in the order of ids.

What the journal was trimmed of comes from the archive's parts. So a rebuild reads both as if there
had been one journal for ever, and gives the same result; and so does whoever verifies.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ocean_core.buffer.port import BlockBatch, IdRange, Losses
from ocean_core.model import limits
from ocean_core.model.block import Block, Events, Readings, SeriesName
from ocean_core.model.errors import StoreCorruptError
from ocean_core.storage.archive.manifest import RAW_KINDS, Manifest, Part
from ocean_core.storage.archive.parquet import ParquetEngine, files, parquet_engine
from ocean_core.storage.archive.store import ArchiveStore

WINDOW_ROWS: Final = 500_000
"""Ids read from the archive at once."""
_MEMORY_MB: Final = 192

_NAMES: Final = "SELECT DISTINCT sensor_id, {metric} FROM {rows} WHERE id > ? AND id <= ?"
_ROWS: Final = (
    "SELECT r.id, n.number AS series_index, epoch_us(r.timestamp) AS ts, r.{content} AS content, "
    "r.quality FROM {rows} r JOIN names n ON n.sensor_id = r.sensor_id AND n.metric = {joined} "
    "WHERE r.id > ? AND r.id <= ? ORDER BY r.id"
)


class JournalSource(Protocol):
    """The journal, read beside its writer by one thread."""

    @property
    def epoch(self) -> str:
        """Identity of its id sequence."""
        ...

    def last_id(self) -> int:
        """Id of the last reading that it holds, 0 if there is none."""
        ...

    def first_id(self) -> int:
        """Id of the first reading that it holds, 0 if there is none."""
        ...

    def read_after(self, after_id: int, *, rows_max: int) -> BlockBatch:
        """Return whole blocks after an id."""
        ...

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        """Give whole blocks to ``take`` until that returns None; return what was damaged."""
        ...

    def losses(self) -> Losses:
        """Tell which ids it knows not to hold."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def _ignore(_: Part) -> None:
    return


class WholeSource:
    """A BlockSource over archive and journal. For one thread.

    A part that cannot be read is told to ``on_damaged_part`` once, and its rows are left out: all
    others must not wait for it.
    """

    def __init__(
        self,
        journal: JournalSource,
        archive: ArchiveStore,
        on_damaged_part: Callable[[Part], None] = _ignore,
    ) -> None:
        self._journal = journal
        self._archive = archive
        self._on_damaged_part = on_damaged_part
        self._damaged: set[str] = set()
        self._window: tuple[int, int, list[Block]] | None = None

    @property
    def epoch(self) -> str:
        """Identity of the id sequence."""
        return self._journal.epoch

    def last_id(self) -> int:
        """Id of the last row that either holds or held, 0 if there is none."""
        return max(self._journal.last_id(), self._journal.losses().trimmed_up_to)

    def first_id(self) -> int:
        """Id of the first row in either, 0 if there is none."""
        if self._journal.losses().trimmed_up_to:
            raw = [part.first_id for part in self._archive.manifest.parts if part.kind in RAW_KINDS]
            if raw:
                return min(raw)
        return self._journal.first_id()

    def read_after(self, after_id: int, *, rows_max: int) -> BlockBatch:
        """Return blocks behind an id, as ``BlockSource.read_after``.

        Raises ArchiveUnavailableError while the archive is needed and not open.
        """
        trimmed = self._journal.losses().trimmed_up_to
        if after_id >= trimmed:
            return self._journal.read_after(after_id, rows_max=rows_max)
        end, blocks = self._archived(after_id, trimmed, rows_max)
        return BlockBatch(blocks, end)

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        """Give blocks to ``take`` as the journal does, those of the archive first."""
        wanted = 1 if first_id is None else first_id
        while True:
            trimmed = self._journal.losses().trimmed_up_to
            if wanted > trimmed:
                return self._journal.scan(wanted, take)
            end, blocks = self._archived(wanted - 1, trimmed, WINDOW_ROWS)
            for block in blocks:
                if block.last_id < wanted:
                    continue
                following = take(block)
                if following is None:
                    return []
                wanted = max(wanted, following)
            wanted = max(wanted, end + 1)

    def losses(self) -> Losses:
        """Tell which ids neither holds."""
        own = self._journal.losses()
        if not own.trimmed_up_to:
            return own
        manifest = self._archive.manifest
        lost = [IdRange(first, last) for first, last in manifest.missing]
        lost += [item for item in own.missing if item.last > manifest.sealed_up_to]
        return Losses(manifest.starts_after, lost)

    def close(self) -> None:
        """Let go of the journal's file."""
        self._journal.close()

    def _archived(self, after_id: int, trimmed: int, rows_max: int) -> tuple[int, list[Block]]:
        """Return the blocks of a window behind ``after_id``, and up to which id that is all."""
        if self._window is not None and self._window[0] <= after_id < self._window[1]:
            return self._window[1], self._window[2]
        with self._archive.pin() as manifest:
            end = min(after_id + max(1, rows_max), trimmed)
            chosen = self._overlapping(manifest, after_id, end)
            if not chosen:
                # Nothing for a while: what follows it begins with some part, or in the journal.
                later = [p.first_id - 1 for p in manifest.parts if p.kind in RAW_KINDS
                         and p.first_id > end and p.name not in self._damaged]  # fmt: skip
                return min([trimmed, *later]), []
            blocks = self._read(chosen, after_id, end)
        self._window = (after_id, end, blocks)
        return end, blocks

    def _overlapping(self, manifest: Manifest, after_id: int, end: int) -> list[Part]:
        return [
            part
            for part in manifest.parts
            if part.kind in RAW_KINDS
            and part.last_id > after_id
            and part.first_id <= end
            and part.name not in self._damaged
        ]

    def _read(self, parts: Sequence[Part], after_id: int, end: int) -> list[Block]:
        with parquet_engine(self._archive.spill, _MEMORY_MB) as engine:
            try:
                return self._blocks(engine, parts, after_id, end)
            except StoreCorruptError:
                whole = [part for part in parts if self._is_readable(engine, part)]
                if len(whole) == len(parts):
                    raise
                return self._blocks(engine, whole, after_id, end)

    def _is_readable(self, engine: ParquetEngine, part: Part) -> bool:
        try:
            engine.read(f"SELECT * FROM {files([self._archive.path(part)])}")  # noqa: S608 - ours
        except StoreCorruptError:
            self._damaged.add(part.name)
            self._on_damaged_part(part)
            return False
        return True

    def _blocks(
        self, engine: ParquetEngine, parts: Sequence[Part], after_id: int, end: int
    ) -> list[Block]:
        blocks: list[Block] = []
        arrived_us = max((part.arrived_us for part in parts), default=0)
        for kind in ("readings", "events"):
            chosen = [self._archive.path(part) for part in parts if part.kind == kind]
            if chosen:
                rows = _window(engine, files(chosen), kind, after_id, end)
                blocks += _runs(*rows, is_events=kind == "events", arrived_us=arrived_us)
        return sorted(blocks, key=lambda block: block.first_id)


def _window(
    engine: ParquetEngine, rows: str, kind: str, after_id: int, end: int
) -> tuple[list[SeriesName], dict[str, npt.NDArray[Any]]]:
    """Return the names in a window of ids, and its rows by id, pointing at them."""
    is_events = kind == "events"
    metric, joined = ("'' AS metric", "''") if is_events else ("metric", "r.metric")
    names = engine.rows(_NAMES.format(metric=metric, rows=rows), [after_id, end])
    engine.name_series(names)
    query = _ROWS.format(content="payload" if is_events else "value", rows=rows, joined=joined)
    return list(names), engine.read(query, [after_id, end])


def _runs(
    series: list[SeriesName],
    found: dict[str, npt.NDArray[Any]],
    *,
    is_events: bool,
    arrived_us: int,
) -> Iterator[Block]:
    """Yield a block for each run of ids without a gap."""
    ids = found["id"]
    if not len(ids):
        return
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    index = found["series_index"].astype(np.uint32)
    for start, stop in zip([0, *breaks], [*breaks, len(ids)], strict=True):
        for first in range(start, stop, limits.BLOCK_ROWS_MAX):
            part = slice(first, min(stop, first + limits.BLOCK_ROWS_MAX))
            # Only names that occur: others must not become series before their first row.
            used, own = np.unique(index[part], return_inverse=True)
            names = [series[number] for number in used.tolist()]
            columns = names, own.astype(np.uint32), found["ts"][part]
            quality = found["quality"][part].astype(np.uint8)
            rows: Readings | Events
            if is_events:
                payload = [text.encode() for text in found["content"][part]]
                rows = Events(*columns, quality, payload)
            else:
                rows = Readings(*columns, found["content"][part].astype(np.float64), quality)
            yield Block(int(ids[first]), arrived_us, uuid.UUID(int=int(ids[first])).bytes, rows)
