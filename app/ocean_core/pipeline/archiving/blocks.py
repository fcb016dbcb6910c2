"""Blocks of the journal into the columns that the archive takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ocean_core.buffer.port import IdRange, Losses
from ocean_core.buffer.ranges import IdRanges
from ocean_core.model.block import Block, Events, Readings, SeriesName
from ocean_core.storage.archive.columns import ArchiveEvents, ArchiveReadings
from ocean_core.storage.archive.store import DAY_US, date_of


class SealSource(Protocol):
    """The journal, to be read beside its writer by one thread."""

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        """Give whole blocks to ``take`` until that returns None; return what was damaged."""
        ...

    def losses(self) -> Losses:
        """Tell which ids it knows not to hold."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@dataclass(frozen=True, slots=True)
class Harvest:
    """Everything behind one id up to ``up_to_id``: rows, and ids known to be lost.

    ``unexplained`` are ids that the journal should hold and does not: nothing may be sealed then.
    ``arrived_us`` is the newest arrival, 0 if there is none.
    """

    readings: ArchiveReadings | None
    events: ArchiveEvents | None
    missing: list[IdRange]
    unexplained: list[IdRange]
    up_to_id: int
    arrived_us: int


def harvest(source: SealSource, after_id: int, limit_id: int, rows_max: int) -> Harvest:
    """Read whole blocks behind ``after_id``, up to ``limit_id`` or until there are ``rows_max``.

    Raises StoreCorruptError or BufferUnavailableError.
    """
    blocks: list[Block] = []
    rows = 0
    end = limit_id

    def take(block: Block) -> int | None:
        nonlocal rows, end
        if block.first_id > limit_id:
            return None
        blocks.append(block)
        rows += block.count
        if rows >= rows_max:
            end = min(block.last_id, limit_id)
            return None
        return block.last_id + 1

    source.scan(after_id + 1, take)
    held = IdRanges.of_ranges(IdRange(block.first_id, block.last_id) for block in blocks)
    gaps = held.gaps(after_id + 1, end)
    # What was lost is noted before its blocks are taken away, so this is asked last.
    losses = source.losses()
    # What was trimmed and is in no part either is an archive older than its journal.
    known = IdRanges.of_ranges(losses.missing).union(
        IdRanges.of_ranges([IdRange(1, losses.trimmed_up_to)] if losses.trimmed_up_to else [])
    )
    missing = [part for gap in gaps for part in known.within(gap.first, gap.last)]
    unexplained = [part for gap in gaps for part in known.gaps(gap.first, gap.last)]
    return Harvest(
        _readings(blocks, after_id, end),
        _events(blocks, after_id, end),
        missing,
        unexplained,
        end,
        max((block.arrival_us for block in blocks), default=0),
    )


def by_day(
    rows: ArchiveReadings | ArchiveEvents,
) -> Iterator[tuple[str, ArchiveReadings | ArchiveEvents]]:
    """Yield (UTC day, its rows), by day."""
    days = rows.ts_us // DAY_US
    low, high = int(days.min()), int(days.max())
    if low == high:
        yield date_of(low * DAY_US), rows
        return
    order = np.argsort(days, kind="stable")
    ordered = days[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield date_of(int(ordered[start]) * DAY_US), rows.take(order[start:stop])


def _readings(blocks: Sequence[Block], after_id: int, end: int) -> ArchiveReadings | None:
    chosen = [block for block in blocks if isinstance(block.rows, Readings)]
    if not chosen:
        return None
    series, index = _common_series(chosen)
    ids = _ids(chosen)
    rows = ArchiveReadings(
        series, ids, index,
        np.concatenate([b.rows.timestamp_us for b in chosen], dtype=np.int64),
        np.concatenate([b.rows.value for b in chosen if isinstance(b.rows, Readings)],
                       dtype=np.float64),
        np.concatenate([b.rows.quality for b in chosen], dtype=np.uint8, casting="unsafe"),
    )  # fmt: skip
    which = np.flatnonzero((ids > after_id) & (ids <= end))
    if not len(which):
        return None
    return rows if len(which) == len(ids) else rows.take(which)


def _events(blocks: Sequence[Block], after_id: int, end: int) -> ArchiveEvents | None:
    chosen = [block for block in blocks if isinstance(block.rows, Events)]
    if not chosen:
        return None
    series, index = _common_series(chosen)
    ids = _ids(chosen)
    # The codec let only UTF-8 pass; whatever came another way must still not stop the sealing.
    texts = [
        item.decode("utf-8", "replace")
        for block in chosen
        if isinstance(block.rows, Events)
        for item in block.rows.payload
    ]
    payload = np.empty(len(texts), dtype=object)
    payload[:] = texts
    rows = ArchiveEvents(
        series, ids, index,
        np.concatenate([b.rows.timestamp_us for b in chosen], dtype=np.int64),
        np.concatenate([b.rows.quality for b in chosen], dtype=np.uint8, casting="unsafe"),
        payload,
    )  # fmt: skip
    which = np.flatnonzero((ids > after_id) & (ids <= end))
    return rows.take(which) if len(which) else None


def _common_series(
    blocks: Sequence[Block],
) -> tuple[list[SeriesName], npt.NDArray[np.int32]]:
    numbers: dict[SeriesName, int] = {}
    columns: list[npt.NDArray[np.int32]] = []
    for block in blocks:
        own = np.array(
            [numbers.setdefault(name, len(numbers)) for name in block.rows.series], dtype=np.int32
        )
        columns.append(own[np.asarray(block.rows.series_index)])
    return list(numbers), np.concatenate(columns)


def _ids(blocks: Sequence[Block]) -> npt.NDArray[np.int64]:
    return np.concatenate(
        [np.arange(block.first_id, block.last_id + 1, dtype=np.int64) for block in blocks]
    )
