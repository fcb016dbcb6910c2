"""Rows of ``access_keys``. Of a key itself only the SHA-256 is here, and leaves only for memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import apsw

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import (
    ConflictError,
    FieldProblem,
    RecordsFullError,
    UnknownRecordError,
    UnknownUserError,
    UserDisabledError,
)
from ocean_core.storage.operational import audit
from ocean_core.storage.operational.pages import page_of
from ocean_core.storage.operational.users import DISABLED

_COLUMNS: Final = """
id, name, scopes, sensors, rate, user_id, created_us, expires_us, revoked_us, last_used_us
"""
_INSERT: Final = "INSERT INTO access_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)"
_SAME_NAME: Final = """
SELECT 1 FROM access_keys
WHERE name = ? AND revoked_us IS NULL AND (expires_us IS NULL OR expires_us > ?)
"""
# What no longer opens anything goes first, the longest ago first.
_DROP_ENDED: Final = """
DELETE FROM access_keys WHERE id = (
    SELECT id FROM access_keys WHERE revoked_us IS NOT NULL OR expires_us <= ?
    ORDER BY min(coalesce(revoked_us, expires_us), coalesce(expires_us, revoked_us)) LIMIT 1
)
"""
_PAGE: Final = f"""
SELECT {_COLUMNS} FROM access_keys WHERE (created_us, id) > (?, ?)
ORDER BY created_us, id LIMIT ?
"""  # noqa: S608 - constants of ours
_NOT_REVOKED: Final = f"""
SELECT {_COLUMNS}, secret_hash FROM access_keys WHERE revoked_us IS NULL
"""  # noqa: S608 - constants of ours
_DISABLED: Final = """
SELECT DISTINCT user_id FROM access_keys JOIN users ON users.id = user_id
WHERE revoked_us IS NULL AND status = 'disabled'
"""
_USED: Final = """
UPDATE access_keys SET last_used_us = max(coalesce(last_used_us, 0), ?) WHERE id = ?
"""


class KeyRow(NamedTuple):
    """One key without what proves it. ``scopes`` are separated by commas."""

    id: str
    name: str
    scopes: str
    sensors: str
    rate: int | None
    user_id: str | None
    created_us: int
    expires_us: int | None = None
    revoked_us: int | None = None
    last_used_us: int | None = None


def insert(db: apsw.Connection, row: KeyRow, secret_hash: bytes, origin: Origin) -> None:
    """Store a new key.

    Raises ConflictError if an active key has this name, UnknownUserError, UserDisabledError, and
    RecordsFullError beyond KEYS_MAX keys that are active; older ones that are not make room.
    """
    now_us = row.created_us
    if db.execute(_SAME_NAME, (row.name, now_us)).get is not None:
        raise ConflictError(
            f"an active key has the name {row.name!r} already",
            fields=(FieldProblem("name", repr(row.name), "a name that no active key has"),),
        )
    if row.user_id is not None:
        _require_active(db, row.user_id)
    if db.execute("SELECT count(*) FROM access_keys").get >= limits.KEYS_MAX:
        db.execute(_DROP_ENDED, (now_us,))
        if not db.changes():
            raise RecordsFullError(
                f"there are {limits.KEYS_MAX} active keys already",
                hint="Revoke keys that are not needed any more.",
            )
    db.execute(
        _INSERT,
        (
            row.id, row.name, secret_hash, row.scopes, row.sensors, row.rate, row.user_id,
            now_us, row.expires_us,
        ),
    )  # fmt: skip
    detail: dict[str, object] = {
        "name": row.name,
        "scopes": row.scopes.split(","),
        "sensors": row.sensors,
        "rate": row.rate,
        "user_id": row.user_id,
        "expires_us": row.expires_us,
    }
    audit.record(db, now_us, origin, "keys.create", row.id, detail)


def revoke(db: apsw.Connection, key_id: str, now_us: int, origin: Origin) -> None:
    """Let a key count no longer; one that was revoked before stays as it is.

    Raises UnknownRecordError.
    """
    found = db.execute(
        "SELECT name, revoked_us FROM access_keys WHERE id = ?", (key_id,)
    ).fetchone()
    if found is None:
        raise UnknownRecordError("Key not found")
    name, revoked_us = found
    if revoked_us is None:
        db.execute("UPDATE access_keys SET revoked_us = ? WHERE id = ?", (now_us, key_id))
        audit.record(db, now_us, origin, "keys.revoke", key_id, {"name": name})


def page(db: apsw.Connection, after: tuple[int, str], limit: int) -> tuple[list[KeyRow], bool]:
    """Return keys by age behind (created_us, id), the oldest first, and whether more follow."""
    rows, more = page_of(db, _PAGE, after, limit)
    return [KeyRow(*row) for row in rows], more


def not_revoked(db: apsw.Connection) -> list[tuple[KeyRow, bytes]]:
    """Return each key that may count, now or after the clock was set, and its SHA-256."""
    return [(KeyRow(*row[:-1]), row[-1]) for row in db.execute(_NOT_REVOKED)]


def note_used(db: apsw.Connection, moments: Mapping[str, int]) -> None:
    """Store when keys were used last."""
    db.executemany(_USED, [(used_us, key_id) for key_id, used_us in moments.items()])


def of_disabled_users(db: apsw.Connection) -> set[str]:
    """Return the ids of disabled users who have keys that were not revoked."""
    return {user_id for (user_id,) in db.execute(_DISABLED)}


def _require_active(db: apsw.Connection, user_id: str) -> None:
    status = db.execute("SELECT status FROM users WHERE id = ?", (user_id,)).get
    if status is None:
        raise UnknownUserError(
            "User not found",
            fields=(FieldProblem("user_id", repr(user_id), "the id of a user"),),
        )
    if status == DISABLED:
        raise UserDisabledError(f"user {user_id} is disabled")
