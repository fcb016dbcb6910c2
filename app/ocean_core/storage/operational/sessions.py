"""Rows of sessions. Tokens are not among them, only their SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import (
    CredentialsError,
    UnknownRecordError,
    UnknownUserError,
    UserDisabledError,
)
from ocean_core.storage.operational.pages import page_of
from ocean_core.storage.operational.users import ACTIVE

_COLUMNS: Final = "id, user_id, token_hash, created_us, expires_us, ends_us, last_activity_us"
_INSERT: Final = f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - fixed text
# The user is active: disabling ends sessions, but a file may have been edited by hand.
_BY_HASH: Final = (
    "SELECT s.id, s.user_id, s.token_hash, s.created_us, s.expires_us, s.ends_us, "
    "s.last_activity_us FROM sessions s JOIN users u ON u.id = s.user_id "
    "WHERE s.token_hash = ? AND u.status = 'active'"
)
_PAGE: Final = (
    f"SELECT {_COLUMNS} FROM sessions WHERE (user_id, created_us, id) > (?, ?, ?) "  # noqa: S608 - fixed text
    "ORDER BY user_id, created_us, id LIMIT ?"
)
_PAGE_OF_USER: Final = (
    f"SELECT {_COLUMNS} FROM sessions WHERE user_id = ? AND (created_us, id) > (?, ?) "  # noqa: S608 - fixed text
    "ORDER BY created_us, id LIMIT ?"
)
_USER: Final = "SELECT status, password_hash FROM users WHERE id = ?"
_SET_PASSWORD: Final = "UPDATE users SET password_hash = ? WHERE id = ?"  # noqa: S105 - a statement
# Those that are to go so that one more has room, oldest first.
_END_OLDEST: Final = (
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE user_id = ? "
    "ORDER BY created_us DESC, id DESC LIMIT -1 OFFSET ?) RETURNING token_hash"
)
_END_OF_USER: Final = "DELETE FROM sessions WHERE user_id = ? RETURNING token_hash"
_END: Final = (
    "DELETE FROM sessions WHERE id = ?1 AND (?2 IS NULL OR user_id = ?2) "
    "RETURNING user_id, token_hash"
)
_END_BY_HASH: Final = "DELETE FROM sessions WHERE token_hash = ? RETURNING id"
_RENEW: Final = (
    "UPDATE sessions SET expires_us = min(?, ends_us), last_activity_us = ? WHERE id = ?"
)
_ANY_EXPIRED: Final = "SELECT 1 FROM sessions WHERE expires_us <= ? LIMIT 1"
_PURGE: Final = (
    "DELETE FROM sessions WHERE id IN "
    "(SELECT id FROM sessions WHERE expires_us <= ? ORDER BY expires_us LIMIT ?)"
)

Cursor = tuple[str, int, str]
"""A place in the list of sessions: user id, created_us, id."""


class SessionRow(msgspec.Struct, frozen=True):
    """One session; ``ends_us`` is when it ends whatever happens."""

    id: str
    user_id: str
    token_hash: bytes
    created_us: int
    expires_us: int
    ends_us: int
    last_activity_us: int


class Login(msgspec.Struct, frozen=True):
    """The proof on which a session is made: the hash that a password was checked against.

    ``new_hash`` is of the same password, of today's kind.
    """

    proven_hash: str
    new_hash: str | None = None

    def __repr__(self) -> str:
        return "Login()"


def insert(db: apsw.Connection, row: SessionRow, login: Login | None) -> list[bytes]:
    """Add a session; return the token hashes of the user's oldest ones that had to end for it.

    Raises UnknownUserError, UserDisabledError, and CredentialsError if the password has changed
    since it was checked.
    """
    found = db.execute(_USER, (row.user_id,)).fetchone()
    if found is None:
        raise UnknownUserError(f"there is no user {row.user_id[:80]!r}")
    status, password_hash = found
    if login is not None and password_hash != login.proven_hash:
        raise CredentialsError("the password was changed just now")
    if status != ACTIVE:
        raise UserDisabledError(f"user {row.user_id} is disabled")
    if login is not None and login.new_hash is not None:
        db.execute(_SET_PASSWORD, (login.new_hash, row.user_id))
    room = limits.SESSIONS_PER_USER_MAX - 1
    ended = [bytes(found[0]) for found in db.execute(_END_OLDEST, (row.user_id, room))]
    db.execute(_INSERT, msgspec.structs.astuple(row))
    return ended


def find(db: apsw.Connection, token_hash: bytes) -> SessionRow | None:
    """Return the session of a token, None if there is none or its user is disabled."""
    found = db.execute(_BY_HASH, (token_hash,)).fetchone()
    return None if found is None else SessionRow(*found)


def page(
    db: apsw.Connection, *, user_id: str | None, limit: int, after: Cursor | None
) -> tuple[list[SessionRow], bool]:
    """Return sessions by user and creation, behind ``after``, and whether more follow."""
    start_user, start_us, start_id = after or ("", -1, "")
    if user_id is None:
        found = page_of(db, _PAGE, (start_user, start_us, start_id), limit)
    else:
        found = page_of(db, _PAGE_OF_USER, (user_id, start_us, start_id), limit)
    return [SessionRow(*row) for row in found.rows], found.more


def end(db: apsw.Connection, session_id: str, *, user_id: str | None = None) -> tuple[str, bytes]:
    """End a session; return its user and token hash. Raises UnknownRecordError.

    With ``user_id`` only a session of this user is found.
    """
    found = db.execute(_END, (session_id, user_id)).fetchone()
    if found is None:
        raise UnknownRecordError(f"there is no session {session_id[:80]!r}")
    return found[0], bytes(found[1])


def end_by_hash(db: apsw.Connection, token_hash: bytes) -> str | None:
    """End the session of a token; return its id, None if there is none."""
    found = db.execute(_END_BY_HASH, (token_hash,)).fetchone()
    return None if found is None else str(found[0])


def end_of_user(db: apsw.Connection, user_id: str) -> list[bytes]:
    """End all sessions of a user; return their token hashes."""
    return [bytes(row[0]) for row in db.execute(_END_OF_USER, (user_id,))]


def renew(db: apsw.Connection, renewals: Sequence[tuple[int, int, str]]) -> None:
    """Note (expires_us, last_activity_us, id) of sessions that were used. Ended ones stay ended."""
    db.executemany(_RENEW, renewals)


def any_expired(db: apsw.Connection, up_to_us: int) -> bool:
    """Whether there is something to purge."""
    return db.execute(_ANY_EXPIRED, (up_to_us,)).fetchone() is not None


def purge(db: apsw.Connection, up_to_us: int, limit: int) -> int:
    """Remove sessions that expired up to a moment; return how many."""
    db.execute(_PURGE, (up_to_us, limit))
    return db.changes()
