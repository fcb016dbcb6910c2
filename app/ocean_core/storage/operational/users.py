"""Rows of users. Functions are commands and queries for the operational store."""

from __future__ import annotations

from typing import Final

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import (
    ConflictError,
    FieldProblem,
    RecordsFullError,
    UnknownUserError,
)
from ocean_core.storage.operational.pages import page_of
from ocean_core.storage.operational.row_counts import row_count, rows_changed

_TABLE: Final = "users"
ACTIVE: Final = "active"
DISABLED: Final = "disabled"

_COLUMNS: Final = (
    "id, username, username_key, email, email_key, password_hash, status, created_us, updated_us"
)
_INSERT: Final = f"INSERT INTO users ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - fixed text
_BY_ID: Final = f"SELECT {_COLUMNS} FROM users WHERE id = ?"  # noqa: S608 - fixed text
_BY_USERNAME: Final = f"SELECT {_COLUMNS} FROM users WHERE username_key = ?"  # noqa: S608 - fixed text
_BY_EMAIL: Final = f"SELECT {_COLUMNS} FROM users WHERE email_key = ?"  # noqa: S608 - fixed text
_PAGE: Final = (
    f"SELECT {_COLUMNS} FROM users WHERE (created_us, id) > (?1, ?2) "  # noqa: S608 - fixed text
    "AND (?3 IS NULL OR status = ?3) ORDER BY created_us, id LIMIT ?4"
)
_UPDATE: Final = (
    "UPDATE users SET username = ?, username_key = ?, email = ?, email_key = ?, "
    "password_hash = ?, status = ?, updated_us = ? WHERE id = ?"
)
_USERNAME_TAKEN: Final = "SELECT 1 FROM users WHERE username_key = ? AND id <> ?"
_EMAIL_TAKEN: Final = "SELECT 1 FROM users WHERE email_key = ? AND id <> ?"


class UserRow(msgspec.Struct, frozen=True):
    """One user. ``password_hash`` is argon2id in its own encoding, None without password."""

    id: str
    username: str
    username_key: str
    email: str
    email_key: str
    password_hash: str | None
    status: str
    created_us: int
    updated_us: int

    def __repr__(self) -> str:
        return f"UserRow(id={self.id!r}, status={self.status!r})"


def insert(db: apsw.Connection, row: UserRow) -> None:
    """Add a user. Raises ConflictError naming username, email or both, and RecordsFullError."""
    if row_count(db, _TABLE) >= limits.USERS_MAX:
        raise RecordsFullError(
            f"there are {limits.USERS_MAX} users already",
            hint="Users are kept for ever; PATCH renames one that is not needed any more.",
        )
    try:
        db.execute(_INSERT, msgspec.structs.astuple(row))
    except apsw.ConstraintError:
        _raise_conflict(db, row)
        raise
    rows_changed(db, _TABLE, 1)


def update(db: apsw.Connection, row: UserRow) -> None:
    """Replace what can change. Raises ConflictError naming username, email or both."""
    changed = (
        row.username,
        row.username_key,
        row.email,
        row.email_key,
        row.password_hash,
        row.status,
        row.updated_us,
        row.id,
    )
    try:
        db.execute(_UPDATE, changed)
    except apsw.ConstraintError:
        _raise_conflict(db, row)
        raise


def get(db: apsw.Connection, user_id: str) -> UserRow:
    """Return a user. Raises UnknownUserError."""
    row = find(db, user_id)
    if row is None:
        raise UnknownUserError(f"there is no user {user_id[:80]!r}")
    return row


def find(db: apsw.Connection, user_id: str) -> UserRow | None:
    """Return a user, None if there is none with this id."""
    return _row(db.execute(_BY_ID, (user_id,)).fetchone())


def find_by_username(db: apsw.Connection, key: str) -> UserRow | None:
    """Return the user with this folded username, None if there is none."""
    return _row(db.execute(_BY_USERNAME, (key,)).fetchone())


def find_by_email(db: apsw.Connection, key: str) -> UserRow | None:
    """Return the user with this folded email address, None if there is none."""
    return _row(db.execute(_BY_EMAIL, (key,)).fetchone())


def page(
    db: apsw.Connection, *, limit: int, after: tuple[int, str] | None, status: str | None
) -> tuple[list[UserRow], bool]:
    """Return users in the order of their creation, behind ``after`` (created_us, id).

    The second part of the answer tells whether more follow.
    """
    start_us, start_id = after or (-1, "")
    found = page_of(db, _PAGE, (start_us, start_id, status), limit)
    return [UserRow(*row) for row in found.rows], found.more


def _row(found: tuple[object, ...] | None) -> UserRow | None:
    return None if found is None else UserRow(*found)  # type: ignore[arg-type]


def _raise_conflict(db: apsw.Connection, row: UserRow) -> None:
    fields: list[FieldProblem] = []
    if db.execute(_USERNAME_TAKEN, (row.username_key, row.id)).fetchone() is not None:
        fields.append(FieldProblem("username", row.username, "a username that is not taken"))
    if db.execute(_EMAIL_TAKEN, (row.email_key, row.id)).fetchone() is not None:
        fields.append(FieldProblem("email", row.email, "an email address that is not taken"))
    if fields:
        names = " and ".join(problem.field for problem in fields)
        raise ConflictError(f"another user has this {names}", fields=tuple(fields))
