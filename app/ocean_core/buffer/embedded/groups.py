"""Consumer groups: tables ``consumers`` and ``acknowledged``, and their mirror in memory.

The mirror changes only after the commit; its values are immutable, so that other threads may read
them at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from ocean_core.buffer.embedded.rows import SET_GROUP, SET_RANGE, group_row, range_row
from ocean_core.buffer.port import DEFAULT_GROUP, Acknowledged, IdRange
from ocean_core.buffer.ranges import GroupMarks, IdRanges
from ocean_core.model.errors import (
    FieldProblem,
    OceanError,
    RecordsFullError,
    StoreCorruptError,
    UnknownRecordError,
)
from ocean_core.model.limits import GROUP_RANGES_MAX, GROUPS_MAX

_SELECT_GROUPS: Final = "SELECT group_name, created_us, cursor, evicted, crc FROM consumers"
_SELECT_RANGES: Final = "SELECT group_name, first_id, last_id, crc FROM acknowledged"
_DROP_RANGE: Final = "DELETE FROM acknowledged WHERE group_name = ? AND first_id = ?"
_DROP_RANGES: Final = "DELETE FROM acknowledged WHERE group_name = ?"
_DROP_GROUP: Final = "DELETE FROM consumers WHERE group_name = ?"

_NO_RANGES: Final = IdRanges()

Changes = dict[str, GroupMarks | None]
"""Marks by group as they are after a transaction; None for a group that is gone."""


@dataclass(frozen=True, slots=True)
class MarkRequest:
    """Ids that a group has read."""

    group: str
    ids: IdRanges


class GroupTable:
    """The groups of an open journal."""

    def __init__(self, db: apsw.Connection) -> None:
        """Load them. Raises StoreCorruptError if a row is damaged."""
        self._db = db
        self.marks: dict[str, GroupMarks] = {}
        rows: list[tuple[Any, ...]] = db.execute(_SELECT_GROUPS).fetchall()
        found: dict[str, list[IdRange]] = {row[0]: [] for row in rows}
        created = {row[0]: row[1] for row in rows}
        for row in db.execute(_SELECT_RANGES):
            if row[0] not in found or not range_is_whole(row, created[row[0]]):
                raise StoreCorruptError("journal: what a group has acknowledged is damaged")
            found[row[0]].append(IdRange(row[1], row[2]))
        for row in rows:
            if not group_is_whole(row):
                raise StoreCorruptError("journal: a consumer group is damaged")
            name, created_us, cursor, evicted, _ = row
            ahead = IdRanges.of_ranges(found[name])
            self.marks[name] = GroupMarks(created_us, cursor, evicted, ahead)

    def publish(self, changes: Changes) -> None:
        """Show what is committed."""
        for name, marks in changes.items():
            if marks is None:
                self.marks.pop(name, None)
            else:
                self.marks[name] = marks

    # --- in the running transaction; what they return goes to ``publish`` after the commit ---

    def acknowledge(
        self, requests: Sequence[MarkRequest], trimmed: int, gone: IdRanges, now_us: int
    ) -> tuple[list[Acknowledged | OceanError], Changes]:
        """Write the marks of several requests; return an outcome for each, in order.

        A request that would go beyond a limit changes nothing, and its outcome is the error.
        """
        outcomes: list[Acknowledged | OceanError] = []
        changes: Changes = {}
        for request in requests:
            known = changes.get(request.group) or self.marks.get(request.group)
            try:
                if known is None:
                    self._require_room(request.group, changes)
                before = known or GroupMarks(now_us, trimmed)
                after, newly = before.acknowledge(request.ids, gone)
                _require_few_ranges(request.group, before, after)
            except OceanError as error:
                outcomes.append(error)
                continue
            if newly or known is None:
                changes[request.group] = after
            outcomes.append(Acknowledged(newly, request.ids.count - newly))
        self._write(changes)
        return outcomes, changes

    def _require_room(self, name: str, changes: Changes) -> None:
        # The group of those who name none always has room.
        others = (self.marks.keys() | changes.keys()) - {DEFAULT_GROUP}
        if name != DEFAULT_GROUP and len(others) >= GROUPS_MAX:
            raise RecordsFullError(
                f"group {name!r} would be one more than the {GROUPS_MAX} groups that may exist",
                hint="DELETE /api/ocean/telemetry/groups/{name} forgets a group.",
                fields=(FieldProblem("group", name, "a group that exists"),),
            )

    def evict(self, up_to_id: int, gone: IdRanges) -> tuple[dict[str, int], Changes]:
        """Move every group behind deleted ids; return how many each group had not read."""
        changes: Changes = {}
        lost: dict[str, int] = {}
        for name, before in self.marks.items():
            after, evicted = before.evict(up_to_id, gone)
            if after.cursor != before.cursor:
                changes[name] = after
            if evicted:
                lost[name] = evicted
        self._write(changes)
        return lost, changes

    def forget(self, name: str) -> Changes:
        """Delete a group. Raises UnknownRecordError."""
        if name not in self.marks:
            raise UnknownRecordError(f"there is no group {name!r}")
        changes: Changes = {name: None}
        self._write(changes)
        return changes

    def restore(self, marks: Mapping[str, GroupMarks]) -> None:
        """Make the tables what this process knows them to be.

        A commit that failed may be in the file all the same, and damage may have taken rows.
        """
        changes: Changes = dict.fromkeys(self.marks.keys() - marks.keys())
        changes |= marks
        self._write(changes)
        self.marks = dict(marks)

    def _write(self, changes: Changes) -> None:
        for name, after in changes.items():
            before = self.marks.get(name)
            if after is None or (before is not None and before.created_us != after.created_us):
                self._db.execute(_DROP_RANGES, (name,))
                self._db.execute(_DROP_GROUP, (name,))
                before = None
            if after is None:
                continue
            old = _NO_RANGES if before is None else before.ahead
            for item in old.without(after.ahead):
                self._db.execute(_DROP_RANGE, (name, item.first))
            added = [range_row(name, after.created_us, r) for r in after.ahead.without(old)]
            self._db.executemany(SET_RANGE, added)
            row = group_row(name, after.created_us, after.cursor, after.evicted)
            self._db.execute(SET_GROUP, row)


def _require_few_ranges(name: str, before: GroupMarks, after: GroupMarks) -> None:
    if len(after.ahead) > max(GROUP_RANGES_MAX, len(before.ahead)):
        oldest = after.cursor + 1
        raise RecordsFullError(
            f"group {name!r} would have acknowledged {len(after.ahead)} separate ranges of ids; "
            f"at most {GROUP_RANGES_MAX} are kept",
            hint=f"Acknowledge the oldest readings first: {oldest} and those that follow it.",
            fields=(FieldProblem("ids", f"{len(after.ahead)} ranges", f"{oldest} and following"),),
        )


def group_is_whole(row: tuple[Any, ...] | list[Any]) -> bool:
    """Whether this is an undamaged row of ``consumers``."""
    match list(row):
        case [str(name), int(created_us), int(cursor), int(evicted), crc]:
            return bool(group_row(name, created_us, cursor, evicted)[4] == crc)
        case _:
            return False


def range_is_whole(row: tuple[Any, ...] | list[Any], created_us: int) -> bool:
    """Whether this is an undamaged row of ``acknowledged``, of the group created then."""
    match list(row):
        case [str(name), int(first), int(last), crc] if 0 < first <= last:
            return bool(range_row(name, created_us, IdRange(first, last))[3] == crc)
        case _:
            return False
