"""What sessions routes take and return. Nothing secret is in what ``repr`` shows."""

from __future__ import annotations

import msgspec


class NewSession(msgspec.Struct, forbid_unknown_fields=True):
    """For whom a session is to be; what is given must all belong to one user."""

    user_id: str | None = None
    username: str | None = None
    email: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"NewSession(user_id={self.user_id!r}, username={self.username!r})"


class SessionCreated(msgspec.Struct, frozen=True):
    """The original's answer. The token is shown here and never again."""

    session_id: str
    token: str
    expires_at: str

    def __repr__(self) -> str:
        return f"SessionCreated(session_id={self.session_id!r})"


class SessionShown(msgspec.Struct, frozen=True):
    """A session as lists show it."""

    id: str
    user_id: str
    created_at: str
    expires_at: str
    last_activity: str


class SessionValid(msgspec.Struct, frozen=True):
    """A session as its owner sees it: the original's fields, with the token as it was given."""

    id: str
    user_id: str
    token: str
    created_at: str
    expires_at: str
    last_activity: str

    def __repr__(self) -> str:
        return f"SessionValid(id={self.id!r})"


class Validation(msgspec.Struct, frozen=True):
    """The original's answer to a token that is valid."""

    valid: bool
    session: SessionValid


class SessionList(msgspec.Struct):
    """A page; ``next`` is what to send as ``after``, null at the end."""

    sessions: list[SessionShown]
    next: str | None


class SessionRevoked(msgspec.Struct, frozen=True):
    """The answer to a session that was ended."""

    id: str
    revoked: bool
