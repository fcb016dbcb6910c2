"""Rows of ``metadata``: JSON values under keys, some with an end."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import RecordsFullError, UnknownRecordError
from ocean_core.storage.operational import audit
from ocean_core.storage.operational.pages import behind_prefix, page_of
from ocean_core.storage.operational.row_counts import row_count, rows_changed

_TABLE = "metadata"
_GET = """
SELECT key, value, updated_us, expires_us FROM metadata
WHERE key = ? AND (expires_us IS NULL OR expires_us > ?)
"""
_PAGE = """
SELECT key, value, updated_us, expires_us FROM metadata
WHERE key >= ? AND key < ? AND key <> ? AND (expires_us IS NULL OR expires_us > ?)
ORDER BY key LIMIT ?
"""
_PUT = """
INSERT INTO metadata VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    value = excluded.value, updated_us = excluded.updated_us, expires_us = excluded.expires_us
"""


class MetadataRow(NamedTuple):
    """One value, as JSON text."""

    key: str
    value: str
    updated_us: int
    expires_us: int | None


def put(db: apsw.Connection, row: MetadataRow) -> None:
    """Set a value, whether the key was there or not. Raises RecordsFullError."""
    is_new = db.execute("SELECT 1 FROM metadata WHERE key = ?", (row.key,)).get is None
    if (
        is_new
        and row_count(db, _TABLE) >= limits.METADATA_KEYS_MAX
        and not purge(db, row.updated_us)
    ):
        raise RecordsFullError(
            f"there are {limits.METADATA_KEYS_MAX} metadata keys already",
            hint="Delete keys that are not needed any more, or give them a ttl_s.",
        )
    db.execute(_PUT, row)
    if is_new:
        rows_changed(db, _TABLE, 1)


def get(db: apsw.Connection, key: str, now_us: int) -> MetadataRow:
    """Return what is under a key. Raises UnknownRecordError, also once its time has passed."""
    row = db.execute(_GET, (key, now_us)).fetchone()
    if row is None:
        raise UnknownRecordError("Key not found")
    return MetadataRow(*row)


def delete(db: apsw.Connection, key: str, now_us: int, origin: Origin) -> None:
    """Delete a key. Raises UnknownRecordError."""
    get(db, key, now_us)
    db.execute("DELETE FROM metadata WHERE key = ?", (key,))
    rows_changed(db, _TABLE, -1)
    audit.record(db, now_us, origin, "metadata.delete", key, {})


def page(
    db: apsw.Connection, prefix: str, after: str, limit: int, now_us: int
) -> tuple[list[MetadataRow], bool]:
    """Return living keys by name (by code point) behind ``after``, and whether more follow."""
    low = max(prefix, after)
    rows, more = page_of(db, _PAGE, (low, behind_prefix(prefix), after, now_us), limit)
    return [MetadataRow(*row) for row in rows], more


def any_expired(db: apsw.Connection, now_us: int) -> bool:
    """Whether there is something for ``purge``."""
    found = db.execute("SELECT 1 FROM metadata WHERE expires_us <= ? LIMIT 1", (now_us,)).get
    return found is not None


def purge(db: apsw.Connection, now_us: int) -> int:
    """Delete up to RECORDS_PURGED_MAX keys whose time has passed; return how many."""
    db.execute(
        "DELETE FROM metadata WHERE key IN "
        "(SELECT key FROM metadata WHERE expires_us <= ? ORDER BY expires_us LIMIT ?)",
        (now_us, limits.RECORDS_PURGED_MAX),
    )
    gone = db.changes()
    if gone:
        rows_changed(db, _TABLE, -gone)
    return gone
