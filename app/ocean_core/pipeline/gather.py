"""Blocks into the columns of one transaction, with series numbers in place of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ocean_core.model.block import Block, Events, Int64Column, Readings, SeriesName
from ocean_core.model.naming import NO_RULES, Names
from ocean_core.pipeline.forgotten import Remainder, without_forgotten
from ocean_core.pipeline.rollup import (
    HOUR_US,
    SeriesRuns,
    minute_partials,
    rebucket,
    sort_into_runs,
)
from ocean_core.storage.analytics.batch import (
    EventColumns,
    Int32Column,
    MoveBatch,
    NewSeries,
    ReadingColumns,
)


class SeriesBook:
    """Names and numbers of all series. Numbers given out are provisional until ``commit``.

    Names of series are those under which they are shown; rows come under the names of old.
    """

    def __init__(self, known: Iterable[NewSeries] = (), names: Names = NO_RULES) -> None:
        self._pending: list[NewSeries] = []
        self._next = 1
        self.replace(known, names)

    def replace(self, known: Iterable[NewSeries], names: Names) -> None:
        """Take other series, and other rules. No number is given out a second time."""
        assert not self._pending
        self._ids: dict[SeriesName, int] = {}
        for entry in known:
            self._ids[entry.name] = entry.series_id
            self._next = max(self._next, entry.series_id + 1)
        self._names = names
        # By the names under which rows come: another dictionary only if there are other names.
        self._by_stored: dict[SeriesName, int] = {} if names.renames else self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def numbers(self, names: Sequence[SeriesName], first_id: int) -> Int32Column:
        """Return the numbers of stored names; unknown series get the next, seen first at ``first_id``."""
        ids = self._by_stored
        try:
            return np.array([ids[name] for name in names], dtype=np.int32)
        except KeyError:
            for name in names:
                if name not in ids:
                    ids[name] = self._number((self._names.shown(name[0]), name[1]), first_id)
            return np.array([ids[name] for name in names], dtype=np.int32)

    def _number(self, shown: SeriesName, first_id: int) -> int:
        number = self._ids.get(shown)
        if number is None:
            number = self._ids[shown] = self._next
            self._pending.append(NewSeries(number, shown, first_id))
            self._next += 1
        return number

    @property
    def names(self) -> Names:
        """The rules that hold for rows which come."""
        return self._names

    @property
    def pending(self) -> Sequence[NewSeries]:
        """Series numbered since the last commit."""
        return tuple(self._pending)

    def commit(self) -> None:
        """Keep the numbers: their transaction is committed."""
        self._pending.clear()

    def rollback(self) -> None:
        """Forget the numbers: their transaction was not committed."""
        for entry in reversed(self._pending):
            del self._ids[entry.name]
            self._next = entry.series_id
        self._pending.clear()
        if self._by_stored is not self._ids:
            self._by_stored.clear()


@dataclass(frozen=True, slots=True)
class Gathered:
    """A transaction's content, and its readings in the order that the live window wants."""

    batch: MoveBatch
    runs: SeriesRuns | None


def gather(
    blocks: Sequence[Block],
    book: SeriesBook,
    *,
    epoch: str,
    watermark: int,
    forgotten: Mapping[int, int] | None = None,
) -> Gathered:
    """Return what to write for ``blocks`` (in id order), leading to ``watermark``.

    The book's rules hold; ``forgotten`` counts, by rule, what they made vanish before.
    """
    dropped: dict[int, int] = {}
    chosen: Sequence[Block | Remainder] = blocks
    if blocks and blocks[0].first_id <= book.names.forgets_up_to:
        chosen = without_forgotten(blocks, book.names, dropped)
    readings = _gather_readings(chosen, book, dense=not dropped)
    events = _gather_events(chosen, book, dense=not dropped)
    runs = minutes = hours = None
    if readings is not None:
        runs = sort_into_runs(readings)
        minutes = minute_partials(runs)
        hours = rebucket(minutes, HOUR_US)
    together = None
    if dropped:
        together = dict(forgotten or {})
        for rule_id, count in dropped.items():
            together[rule_id] = together.get(rule_id, 0) + count
    batch = MoveBatch(epoch, watermark, readings, events, book.pending, minutes, hours, together)
    return Gathered(batch, runs)


def _gather_readings(
    blocks: Sequence[Block | Remainder], book: SeriesBook, *, dense: bool
) -> ReadingColumns | None:
    chosen = [(block.first_id, block.rows) for block in blocks if isinstance(block.rows, Readings)]
    if not chosen:
        return None
    series = [book.numbers(rows.series, first)[rows.series_index] for first, rows in chosen]
    return ReadingColumns(
        id=(
            _ids([first for first, _ in chosen], [len(rows) for _, rows in chosen])
            if dense
            else _ids_left(blocks, Readings)
        ),
        series_id=np.concatenate(series),
        ts_us=np.concatenate([rows.timestamp_us for _, rows in chosen], dtype=np.int64),
        value=np.concatenate([rows.value for _, rows in chosen], dtype=np.float64),
        quality=np.concatenate(
            [rows.quality for _, rows in chosen], dtype=np.uint8, casting="unsafe"
        ),
    )


def _gather_events(
    blocks: Sequence[Block | Remainder], book: SeriesBook, *, dense: bool
) -> EventColumns | None:
    chosen = [(block.first_id, block.rows) for block in blocks if isinstance(block.rows, Events)]
    if not chosen:
        return None
    series = [book.numbers(rows.series, first)[rows.series_index] for first, rows in chosen]
    return EventColumns(
        id=(
            _ids([first for first, _ in chosen], [len(rows) for _, rows in chosen])
            if dense
            else _ids_left(blocks, Events)
        ),
        series_id=np.concatenate(series),
        ts_us=np.concatenate([rows.timestamp_us for _, rows in chosen], dtype=np.int64),
        quality=np.concatenate(
            [rows.quality for _, rows in chosen], dtype=np.uint8, casting="unsafe"
        ),
        # The codec let only UTF-8 pass; whatever came another way must still not stop the mover.
        payload=[item.decode("utf-8", "replace") for _, rows in chosen for item in rows.payload],
    )


def _ids(first_ids: list[int], counts: list[int]) -> Int64Column:
    """Return ``first .. first + count - 1`` of each block, one after the other."""
    first, total = first_ids[0], sum(counts)
    if first_ids[-1] + counts[-1] - first == total:
        return np.arange(first, first + total, dtype=np.int64)
    firsts = np.array(first_ids, dtype=np.int64)
    sizes = np.array(counts, dtype=np.int64)
    before = np.cumsum(sizes) - sizes
    return np.repeat(firsts - before, sizes) + np.arange(int(sizes.sum()), dtype=np.int64)


def _ids_left(blocks: Sequence[Block | Remainder], kind: type[Readings | Events]) -> Int64Column:
    """Return the ids of the rows of one kind, some of which have gaps between them."""
    return np.concatenate(
        [
            block.ids
            if isinstance(block, Remainder)
            else np.arange(block.first_id, block.last_id + 1, dtype=np.int64)
            for block in blocks
            if isinstance(block.rows, kind)
        ]
    )
