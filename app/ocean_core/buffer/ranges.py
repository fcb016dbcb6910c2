"""Sets of ids as ranges, and what a consumer group has acknowledged. No I/O.

Kept as two sorted columns, so that marking ten thousand scattered ids is a matter of
milliseconds: nothing here loops over ids or ranges in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ocean_core.buffer.port import IdRange
from ocean_core.model.block import Int64Column
from ocean_core.model.limits import READING_ID_MAX


def _none() -> Int64Column:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class IdRanges:
    """An immutable set of ids: ranges ``firsts .. lasts`` in order, never touching each other."""

    firsts: Int64Column = field(default_factory=_none)
    lasts: Int64Column = field(default_factory=_none)

    @staticmethod
    def of_ids(ids: Sequence[int]) -> IdRanges:
        """Return the set of these ids, given in any order, repeated or not."""
        column = np.asarray(ids, dtype=np.int64)
        return IdRanges(column, column)._merged()

    @staticmethod
    def of_ranges(ranges: Iterable[IdRange]) -> IdRanges:
        """Return the set of the ids in these ranges, which may overlap."""
        pairs = [(item.first, item.last) for item in ranges]
        columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return IdRanges(columns[:, 0], columns[:, 1])._merged()

    def _merged(self) -> IdRanges:
        if len(self.firsts) < 2:
            return self
        order = np.argsort(self.firsts)
        firsts = self.firsts[order]
        lasts = np.maximum.accumulate(self.lasts[order])
        apart = firsts[1:] > lasts[:-1] + 1
        starts, ends = np.append(True, apart), np.append(apart, True)
        return IdRanges(firsts[starts], lasts[ends])

    def __len__(self) -> int:
        """Return how many ranges there are; ``count`` tells how many ids."""
        return len(self.firsts)

    def __iter__(self) -> Iterator[IdRange]:
        """Go through the ranges in order."""
        return map(IdRange, self.firsts.tolist(), self.lasts.tolist())

    @property
    def count(self) -> int:
        """How many ids."""
        return int((self.lasts - self.firsts + 1).sum())

    def union(self, *others: IdRanges) -> IdRanges:
        """Return the ids that are in any of the sets."""
        every: list[IdRanges] = [item for item in (self, *others) if len(item)]
        if len(every) < 2:
            return IdRanges(every[0].firsts, every[0].lasts) if every else self
        return IdRanges(
            np.concatenate([item.firsts for item in every]),
            np.concatenate([item.lasts for item in every]),
        )._merged()

    def within(self, first: int, last: int) -> IdRanges:
        """Return the part between two ids, both included."""
        low = int(np.searchsorted(self.lasts, first))
        high = int(np.searchsorted(self.firsts, last, side="right"))
        if low >= high:
            return IdRanges()
        return IdRanges(
            np.maximum(self.firsts[low:high], first), np.minimum(self.lasts[low:high], last)
        )

    def gaps(self, first: int, last: int) -> IdRanges:
        """Return the ids between two ids, both included, that are not in the set."""
        if first > last:
            return IdRanges()
        inside = self.within(first, last)
        firsts, lasts = np.append(first, inside.lasts + 1), np.append(inside.firsts - 1, last)
        some = firsts <= lasts
        return IdRanges(firsts[some], lasts[some])

    def next_gap(self, first: int) -> int:
        """Return the first id from ``first`` on that is not in the set."""
        place = int(np.searchsorted(self.lasts, first))
        if place < len(self.firsts) and self.firsts[place] <= first:
            return int(self.lasts[place]) + 1
        return first

    def without(self, other: IdRanges) -> list[IdRange]:
        """Return those *ranges* (not ids) that the other set does not have exactly so."""
        if not len(other):
            return list(self)
        place = np.minimum(np.searchsorted(other.firsts, self.firsts), len(other) - 1)
        same = (other.firsts[place] == self.firsts) & (other.lasts[place] == self.lasts)
        return list(IdRanges(self.firsts[~same], self.lasts[~same]))


@dataclass(frozen=True, slots=True, eq=False)
class GroupMarks:
    """What a group has acknowledged: all ids up to ``cursor``, and those ``ahead`` of it.

    ``evicted`` counts ids below the cursor that were deleted before they were acknowledged.
    ``created_us`` tells a group from an earlier one of the same name.
    """

    created_us: int
    cursor: int = 0
    evicted: int = 0
    ahead: IdRanges = field(default_factory=IdRanges)

    @property
    def last_id(self) -> int:
        """The highest id that is marked."""
        return int(self.ahead.lasts[-1]) if len(self.ahead) else self.cursor

    def acknowledge(self, ids: IdRanges, gone: IdRanges) -> tuple[GroupMarks, int]:
        """Return the marks with more ids, and how many of those were not marked before.

        Ids that are ``gone`` (lost) need not be acknowledged for the cursor to pass them.
        """
        new = ids.within(self.cursor + 1, READING_ID_MAX)
        ahead = self.ahead.union(new)
        return self._settled(ahead, gone), ahead.count - self.ahead.count

    def evict(self, up_to_id: int, gone: IdRanges) -> tuple[GroupMarks, int]:
        """Return the marks after all ids up to one were deleted, and how many were not read."""
        if up_to_id <= self.cursor:
            return self._settled(self.ahead, gone), 0
        lost = self.ahead.union(gone).gaps(self.cursor + 1, up_to_id).count
        beyond = replace(self, cursor=up_to_id, evicted=self.evicted + lost)
        return beyond._settled(self.ahead, gone), lost

    def _settled(self, ahead: IdRanges, gone: IdRanges) -> GroupMarks:
        """Move the cursor over everything that follows it."""
        passed = ahead.union(gone).next_gap(self.cursor + 1) - 1
        return replace(self, cursor=passed, ahead=ahead.within(passed + 1, READING_ID_MAX))

    def unread(self, first: int, last: int) -> IdRanges:
        """Return the ids between two, both included, that are not acknowledged."""
        return self.ahead.gaps(max(first, self.cursor + 1), last)

    def next_unread(self, first: int) -> int:
        """Return the first id from ``first`` on that is not acknowledged."""
        return self.ahead.next_gap(max(first, self.cursor + 1))
