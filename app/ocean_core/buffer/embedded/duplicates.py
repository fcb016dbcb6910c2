"""How many rows of each sensor came again: table ``duplicates`` and its mirror in memory.

A repeat is counted before it is answered, in the transaction of the group that it came with. The
mirror changes only after the commit, an entry at a time; other threads may copy it at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import apsw

from ocean_core.buffer.embedded.rows import SET_DUPLICATES, duplicates_row
from ocean_core.buffer.port import DuplicateCount
from ocean_core.model.errors import StoreCorruptError
from ocean_core.model.limits import DUPLICATE_SENSORS_MAX

_SELECT: Final = "SELECT sensor_id, count, updated_us, crc FROM duplicates"
_DELETE: Final = "DELETE FROM duplicates WHERE sensor_id = ?"
_NOTHING: Final = DuplicateCount(0, 0)

Repeats = dict[str, int]
"""Rows that came again, by sensor; those of sensors that are not known under an empty name."""


def add_repeats(repeats: Repeats, more: Mapping[str, int]) -> None:
    """Add counts, those of too many sensors together under the empty name."""
    for sensor_id, count in more.items():
        name = sensor_id
        if name not in repeats and len(repeats) >= DUPLICATE_SENSORS_MAX:
            name = ""
        repeats[name] = repeats.get(name, 0) + count


class DuplicatesTable:
    """The counters of an open journal."""

    def __init__(self, db: apsw.Connection) -> None:
        """Load them. Raises StoreCorruptError if a row is damaged."""
        self._db = db
        self.counts: dict[str, DuplicateCount] = {}
        for row in db.execute(_SELECT):
            if not duplicates_are_whole(row):
                raise StoreCorruptError("journal: the duplicates of a sensor are damaged")
            self.counts[row[0]] = DuplicateCount(row[1], row[2])

    def write(self, repeats: Mapping[str, int], now_us: int) -> dict[str, DuplicateCount]:
        """Write grown counters in the running transaction; return them for ``publish``."""
        grown: dict[str, DuplicateCount] = {}
        room = DUPLICATE_SENSORS_MAX - len(self.counts)
        for sensor_id, count in repeats.items():
            name = sensor_id
            if name not in self.counts:
                if room <= 0:
                    name = ""
                room -= 1
            before = grown.get(name) or self.counts.get(name, _NOTHING)
            grown[name] = DuplicateCount(before.count + count, now_us)
        self._put(grown)
        return grown

    def publish(self, grown: Mapping[str, DuplicateCount]) -> None:
        """Show what is committed."""
        self.counts.update(grown)

    def restore(self, counts: Mapping[str, DuplicateCount]) -> None:
        """Make the table what this process knows it to be, in the running transaction.

        A commit that failed may be in the file all the same.
        """
        for sensor_id in self.counts.keys() - counts.keys():
            self._db.execute(_DELETE, (sensor_id,))
        self._put({name: one for name, one in counts.items() if self.counts.get(name) != one})
        self.counts = dict(counts)

    def raise_to(self, found: Mapping[str, tuple[int, int]]) -> None:
        """Raise counters that are lower than these (count, updated), in the running transaction."""
        most = dict(self.counts)
        for sensor_id, (count, updated_us) in found.items():
            if count > most.get(sensor_id, _NOTHING).count:
                most[sensor_id] = DuplicateCount(count, updated_us)
        self.restore(most)

    def _put(self, counts: Mapping[str, DuplicateCount]) -> None:
        if counts:
            self._db.executemany(
                SET_DUPLICATES,
                [duplicates_row(name, one.count, one.updated_us) for name, one in counts.items()],
            )


def duplicates_are_whole(row: tuple[Any, ...] | list[Any]) -> bool:
    """Whether this is an undamaged row of ``duplicates``."""
    match list(row):
        case [str(sensor_id), int(count), int(updated_us), crc]:
            return bool(duplicates_row(sensor_id, count, updated_us)[3] == crc)
        case _:
            return False
