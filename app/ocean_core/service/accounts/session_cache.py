"""Sessions in memory, found by the hash of their token; what of them is not stored yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.storage.operational.sessions import SessionRow

_SAVED_AT_ONCE: Final = 1_000


class Session(msgspec.Struct):
    """A session as it is now. ``saved_us`` is the last activity that is stored."""

    id: str
    user_id: str
    token_hash: bytes
    created_us: int
    expires_us: int
    ends_us: int
    last_activity_us: int
    saved_us: int

    def __repr__(self) -> str:
        return f"Session(id={self.id!r}, user_id={self.user_id!r})"


def session_of(row: SessionRow) -> Session:
    """Return what a row says."""
    return Session(
        row.id,
        row.user_id,
        row.token_hash,
        row.created_us,
        row.expires_us,
        row.ends_us,
        row.last_activity_us,
        saved_us=row.last_activity_us,
    )


class SessionCache:
    """At most ``limits.SESSIONS_CACHED_MAX`` sessions, the most recently used ones.

    A session that leaves with a renewal that is not stored waits in ``leaving`` until it is; as
    many again may wait there. Beyond that the oldest of them expire as early as the file says.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._leaving: dict[bytes, Session] = {}
        self._of_user: dict[str, set[bytes]] = {}
        self.changes = 0
        """Moves whenever sessions are taken out: what was read before that may be outdated."""

    def __len__(self) -> int:
        return len(self._sessions) + len(self._leaving)

    def get(self, token_hash: bytes) -> Session | None:
        """Return a session, as recently used."""
        session = self._sessions.get(token_hash)
        if session is not None:
            self._sessions.move_to_end(token_hash)
            return session
        session = self._leaving.pop(token_hash, None)
        if session is not None:
            self.put(session)
        return session

    def peek(self, token_hash: bytes) -> Session | None:
        """Return a session without taking it for used."""
        return self._sessions.get(token_hash) or self._leaving.get(token_hash)

    def put(self, session: Session) -> None:
        """Take a session in; the least recently used one leaves if there is no room."""
        self._sessions[session.token_hash] = session
        self._of_user.setdefault(session.user_id, set()).add(session.token_hash)
        if len(self._sessions) > limits.SESSIONS_CACHED_MAX:
            token_hash, leaving = self._sessions.popitem(last=False)
            if leaving.last_activity_us == leaving.saved_us:
                self._unlist(leaving)
                return
            self._leaving[token_hash] = leaving
            if len(self._leaving) > limits.SESSIONS_CACHED_MAX:
                self._unlist(self._leaving.pop(next(iter(self._leaving))))

    def remove(self, token_hashes: Iterable[bytes]) -> None:
        """Forget sessions that have ended."""
        self.changes += 1
        for token_hash in list(token_hashes):
            session = self._sessions.pop(token_hash, None)
            session = self._leaving.pop(token_hash, session)
            if session is not None:
                self._unlist(session)

    def remove_user(self, user_id: str) -> None:
        """Forget all sessions of a user."""
        self.remove(self._of_user.get(user_id, ()))

    def unsaved(self, slack_us: int) -> list[list[Session]]:
        """Return, in parts, sessions that leave or were used so long after what is stored.

        What is stored after the last use (the clock was set back) is wrong at once.
        """
        found = list(self._leaving.values())
        for session in self._sessions.values():
            ahead_us = session.last_activity_us - session.saved_us
            if ahead_us < 0 or ahead_us > slack_us:
                found.append(session)
        return [found[at : at + _SAVED_AT_ONCE] for at in range(0, len(found), _SAVED_AT_ONCE)]

    def saved(self, session: Session, activity_us: int) -> None:
        """Note that a renewal is stored."""
        session.saved_us = activity_us
        if session.last_activity_us == activity_us:
            leaving = self._leaving.pop(session.token_hash, None)
            if leaving is not None:
                self._unlist(leaving)

    def _unlist(self, session: Session) -> None:
        of_user = self._of_user.get(session.user_id)
        if of_user is not None:
            of_user.discard(session.token_hash)
            if not of_user:
                del self._of_user[session.user_id]
