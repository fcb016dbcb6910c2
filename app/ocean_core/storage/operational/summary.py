"""How much there is in the operational store."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from ocean_core.storage.operational.row_counts import row_count


class Counts(NamedTuple):
    """Users, sessions that have not expired, and keys that were neither revoked nor expired."""

    users: int
    sessions: int
    keys: int


def counts(db: apsw.Connection, now_us: int) -> Counts:
    """Return the numbers as of a moment."""
    sessions = db.execute("SELECT count(*) FROM sessions WHERE expires_us > ?", (now_us,)).get
    keys = db.execute(
        "SELECT count(*) FROM access_keys "
        "WHERE revoked_us IS NULL AND (expires_us IS NULL OR expires_us > ?)",
        (now_us,),
    ).get
    return Counts(row_count(db, "users"), sessions, keys)
