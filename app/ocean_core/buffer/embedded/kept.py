"""Rows of the tables beside the blocks, gathered from pages of any condition.

A page image may be older than the one that counts. Counters, cursors and acknowledged ranges only
grow while a group or user lives, so of several copies the highest, or all together, is right. A
group that was forgotten and made again is told apart by when it was created: the newest counts.

A counter is also at least what is noted beside the blocks that are there. ``loose`` are the counts
of blocks whose transaction perhaps never ended: no counter that was found has them yet. Counts of
duplicates are taken from there too: a repeat counted without being answered is better than one
answered without being counted.
"""

from __future__ import annotations

from dataclasses import replace

import apsw
import msgspec

from ocean_core.buffer.embedded.duplicates import DuplicatesTable, duplicates_are_whole
from ocean_core.buffer.embedded.groups import GroupTable, group_is_whole, range_is_whole
from ocean_core.buffer.embedded.pages import SqlValue
from ocean_core.buffer.embedded.rows import GroupRow, Grown, RangeRow, add_growth
from ocean_core.buffer.embedded.usage import UsageTable, usage_is_whole
from ocean_core.buffer.port import IdRange
from ocean_core.buffer.ranges import GroupMarks, IdRanges


class KeptRows(msgspec.Struct):
    """What was found. Ranges are only checked in ``put_back``, which knows their groups."""

    usage: Grown = msgspec.field(default_factory=dict)
    groups: set[GroupRow] = msgspec.field(default_factory=set)
    ranges: set[RangeRow] = msgspec.field(default_factory=set)
    duplicates: Grown = msgspec.field(default_factory=dict)

    def take(self, columns: list[SqlValue], *, with_usage: bool = True) -> None:
        """Keep a record if it is one of these tables."""
        match columns:
            case [str(name), int(one), int(two), int(crc)]:
                if usage_is_whole(columns):
                    if with_usage:
                        self.usage[name] = _higher(self.usage.get(name), (one, two))
                elif duplicates_are_whole(columns):
                    self.duplicates[name] = max(self.duplicates.get(name, (0, 0)), (one, two))
                elif 0 < one <= two:
                    self.ranges.add((name, one, two, crc))
            case [str(name), int(one), int(two), int(three), int(crc)]:
                if group_is_whole(columns):
                    self.groups.add((name, one, two, three, crc))
            case _:
                return

    def update(self, other: KeptRows) -> None:
        """Take over what somebody else has found."""
        for user_id, counts in other.usage.items():
            self.usage[user_id] = _higher(self.usage.get(user_id), counts)
        for sensor_id, count in other.duplicates.items():
            self.duplicates[sensor_id] = max(self.duplicates.get(sensor_id, (0, 0)), count)
        self.groups |= other.groups
        self.ranges |= other.ranges

    def put_back(self, db: apsw.Connection, blocks: Grown, loose: Grown) -> None:
        """Merge the rows into the tables of a journal, in the running transaction.

        ``blocks`` and ``loose`` are counts of blocks that were brought back.
        """
        usage = UsageTable(db)
        before = {user: (item.stored, item.charged) for user, item in usage.counts.items()}
        usage.raise_to(_sum(before, blocks, loose))
        usage.raise_to(_sum({**before, **self.usage}, loose))
        DuplicatesTable(db).raise_to(self.duplicates)
        self._put_groups_back(db)

    def _put_groups_back(self, db: apsw.Connection) -> None:
        table = GroupTable(db)
        marks = dict(table.marks)
        for name, created_us, cursor, evicted, _ in self.groups:
            known = marks.get(name)
            if known is None or known.created_us < created_us:
                known = GroupMarks(created_us)
            if known.created_us == created_us:
                marks[name] = replace(
                    known, cursor=max(known.cursor, cursor), evicted=max(known.evicted, evicted)
                )
        ranges: dict[str, list[IdRange]] = {name: [] for name in marks}
        for name, first, last, crc in self.ranges:
            if name in marks and range_is_whole([name, first, last, crc], marks[name].created_us):
                ranges[name].append(IdRange(first, last))
        nothing = IdRanges()
        for name, found in ranges.items():
            marks[name] = marks[name].acknowledge(IdRanges.of_ranges(found), nothing)[0]
        if marks:
            table.restore(marks)


def _higher(one: tuple[int, int] | None, other: tuple[int, int]) -> tuple[int, int]:
    return other if one is None else (max(one[0], other[0]), max(one[1], other[1]))


def _sum(*parts: Grown) -> Grown:
    total: Grown = {}
    for part in parts:
        for user_id, (stored, charged) in part.items():
            add_growth(total, user_id, stored, charged)
    return total
