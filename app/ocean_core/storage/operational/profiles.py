"""Rows of ``profiles``: what is known about a sensor's make, in the words of whoever stored it."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import RecordsFullError, UnknownRecordError
from ocean_core.storage.operational import audit
from ocean_core.storage.operational.pages import page_of
from ocean_core.storage.operational.row_counts import row_count, rows_changed

_TABLE = "profiles"
_COLUMNS = "profile_id, sensor_id, timestamp, metadata, updated_us"
_GET = f"SELECT {_COLUMNS} FROM profiles WHERE profile_id = ?"  # noqa: S608 - constants of ours
_PAGE = f"SELECT {_COLUMNS} FROM profiles WHERE profile_id > ? ORDER BY profile_id LIMIT ?"  # noqa: S608
_PAGE_OF_SENSOR = f"""
SELECT {_COLUMNS} FROM profiles WHERE sensor_id = ? AND profile_id > ? ORDER BY profile_id LIMIT ?
"""  # noqa: S608
_PUT = """
INSERT INTO profiles VALUES (?, ?, ?, ?, ?)
ON CONFLICT (profile_id) DO UPDATE SET
    sensor_id = excluded.sensor_id, timestamp = excluded.timestamp,
    metadata = excluded.metadata, updated_us = excluded.updated_us
"""


class ProfileRow(NamedTuple):
    """One profile; ``metadata`` is a JSON object as text."""

    profile_id: str
    sensor_id: str
    timestamp: str
    metadata: str
    updated_us: int


def put(db: apsw.Connection, row: ProfileRow) -> None:
    """Store a profile, in place of one of the same id. Raises RecordsFullError."""
    is_new = (
        db.execute("SELECT 1 FROM profiles WHERE profile_id = ?", (row.profile_id,)).get is None
    )
    if is_new and row_count(db, _TABLE) >= limits.PROFILES_MAX:
        raise RecordsFullError(f"there are {limits.PROFILES_MAX} profiles already")
    db.execute(_PUT, row)
    if is_new:
        rows_changed(db, _TABLE, 1)


def get(db: apsw.Connection, profile_id: str) -> ProfileRow:
    """Return a profile. Raises UnknownRecordError."""
    row = db.execute(_GET, (profile_id,)).fetchone()
    if row is None:
        raise UnknownRecordError("Profile not found")
    return ProfileRow(*row)


def delete(db: apsw.Connection, profile_id: str, now_us: int, origin: Origin) -> None:
    """Delete a profile. Raises UnknownRecordError."""
    gone = get(db, profile_id)
    db.execute("DELETE FROM profiles WHERE profile_id = ?", (profile_id,))
    rows_changed(db, _TABLE, -1)
    audit.record(db, now_us, origin, "profiles.delete", profile_id, {"sensor_id": gone.sensor_id})


def page(
    db: apsw.Connection, sensor_id: str | None, after: str, limit: int
) -> tuple[list[ProfileRow], bool]:
    """Return profiles by id behind ``after``, of one sensor or of all, and whether more follow."""
    if sensor_id is None:
        rows, more = page_of(db, _PAGE, (after,), limit)
    else:
        rows, more = page_of(db, _PAGE_OF_SENSOR, (sensor_id, after), limit)
    return [ProfileRow(*row) for row in rows], more
