"""How many rows were stored for each user: table ``usage`` and its mirror in memory.

The counters grow in the transaction of the rows they count, so that no crash can come between.
The mirror changes only after the commit; other threads may read it at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import apsw

from ocean_core.buffer.embedded.rows import SET_USAGE, Grown, usage_row
from ocean_core.buffer.port import UsageCounts
from ocean_core.model.errors import StoreCorruptError

_SELECT: Final = "SELECT user_id, stored, charged, crc FROM usage"


class UsageTable:
    """The counters of an open journal."""

    def __init__(self, db: apsw.Connection) -> None:
        """Load them. Raises StoreCorruptError if a row is damaged."""
        self._db = db
        self.counts: dict[str, UsageCounts] = {}
        for row in db.execute(_SELECT):
            if not usage_is_whole(row):
                raise StoreCorruptError("journal: the usage of a user is damaged")
            self.counts[row[0]] = UsageCounts(row[1], row[2])

    def write(self, growth: Grown) -> dict[str, UsageCounts]:
        """Write grown counters in the running transaction; return them for ``publish``."""
        grown: dict[str, UsageCounts] = {}
        for user_id, (stored, charged) in growth.items():
            before = self.counts.get(user_id, _NOTHING)
            grown[user_id] = UsageCounts(before.stored + stored, before.charged + charged)
        self._put(grown)
        return grown

    def publish(self, grown: Mapping[str, UsageCounts]) -> None:
        """Show what is committed."""
        self.counts.update(grown)

    def restore(self, counts: Mapping[str, UsageCounts]) -> None:
        """Make the table what this process knows it to be, in the running transaction.

        A commit that failed may be in the file all the same.
        """
        for user_id in self.counts.keys() - counts.keys():
            self._db.execute("DELETE FROM usage WHERE user_id = ?", (user_id,))
        self._put({user: found for user, found in counts.items() if self.counts.get(user) != found})
        self.counts = dict(counts)

    def raise_to(self, grown: Grown) -> None:
        """Raise counters that are lower than these, in the running transaction."""
        most = dict(self.counts)
        for user_id, (stored, charged) in grown.items():
            known = most.get(user_id, _NOTHING)
            most[user_id] = UsageCounts(max(known.stored, stored), max(known.charged, charged))
        self.restore(most)

    def _put(self, counts: Mapping[str, UsageCounts]) -> None:
        if counts:
            self._db.executemany(
                SET_USAGE, [usage_row(user, c.stored, c.charged) for user, c in counts.items()]
            )


_NOTHING: Final = UsageCounts()


def usage_is_whole(row: tuple[Any, ...] | list[Any]) -> bool:
    """Whether this is an undamaged row of ``usage``."""
    match list(row):
        case [str(user_id), int(stored), int(charged), crc]:
            return bool(usage_row(user_id, stored, charged)[3] == crc)
        case _:
            return False
