"""Sessions: made for a password or by an administrator, renewed by each use, ended in time.

A token is 256 random bits. Only its SHA-256 is kept, in the file and in memory, and sessions are
looked up by it, in a hash table and an index. Such a lookup may take a time that depends on the
bits of the hash; nobody can choose these bits for a token they do not know, so nothing about a
token can be learned from that time. No token is ever compared with another.

A session is valid while now < expires. Each use moves ``expires`` to now + ``access.session_hours``,
never beyond 30 days after its creation. Renewals are served from memory and written behind, in
groups: what a kill -9 or power cut can lose of a renewal is 1/20 of the session's time and one
interval between two calls of ``flush``. A session may then expire that much early, never late. A
clean stop loses nothing.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin, Principal, Scope
from ocean_core.model.errors import (
    CredentialsError,
    ForbiddenError,
    SessionError,
    UnauthenticatedError,
    UnknownUserError,
)
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.service.accounts.backoff import LoginBackoff
from ocean_core.service.accounts.checks import refused
from ocean_core.service.accounts.identity import (
    Wanted,
    disagreement,
    find_agreeing,
    first_found,
    wanted_user,
)
from ocean_core.service.accounts.ids import time_ordered_id
from ocean_core.service.accounts.passwords import PasswordHasher
from ocean_core.service.accounts.session_answers import (
    NewSession,
    SessionCreated,
    SessionList,
    SessionRevoked,
    SessionShown,
    SessionValid,
    Validation,
)
from ocean_core.service.accounts.session_cache import Session, SessionCache, session_of
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.service.accounts.users import UserService
from ocean_core.storage.operational import audit, sessions
from ocean_core.storage.operational.sessions import Cursor, Login, SessionRow
from ocean_core.storage.operational.store import OperationalStore
from ocean_core.storage.operational.users import UserRow

_TOKEN: Final = re.compile(r"[0-9a-f]{12}[A-Za-z0-9_-]{43}")
_TIME_LETTERS: Final = 12
_TOKEN_BYTES: Final = 32
_HOUR_US: Final = 3_600_000_000
_LONGEST_US: Final = limits.SESSION_RENEWAL_DAYS_MAX * 24 * _HOUR_US
_UNSAVED_SHARE: Final = 20
_PURGE_DELAY_US: Final = 60_000_000
_PURGED_AT_ONCE: Final = 1_000
_PURGE_STEPS_MAX: Final = 50
_READ: Final = frozenset({Scope.READ})


class SessionService:
    """What the sessions routes and the access service call."""

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        passwords: PasswordHasher,
        users: UserService,
        session_hours: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._passwords = passwords
        self._time_us = session_hours * _HOUR_US
        self._slack_us = self._time_us // _UNSAVED_SHARE
        self._cache = SessionCache()
        self._backoff = LoginBackoff(clock)
        users.on_sessions_ended(self._cache.remove_user)

    # --- making ---

    async def create(self, new: NewSession, origin: Origin) -> SessionCreated:
        """Make a session for a password, or for an administrator without one.

        Raises InvalidInputError, CredentialsError, LoginBackoffError, PasswordsBusyError; without
        password UnauthenticatedError, ForbiddenError, UnknownUserError; UserDisabledError and the
        errors of the store.
        """
        wanted = wanted_user(new)
        if new.password is None:
            _check_may_create(origin.principal)
            login = None
        else:
            if len(new.password) > limits.PASSWORD_BYTES_MAX:
                raise CredentialsError("the user is not known or the password is wrong")
            user, login = await self._log_in(wanted, new.password, origin.address)
            wanted = Wanted(user.id)
        return await uninterrupted(self._create(wanted, login, origin))

    async def _log_in(self, wanted: Wanted, password: str, address: str) -> tuple[UserRow, Login]:
        user = await self._store.read(partial(find_agreeing, wanted))
        account = wanted.text() if user is None else user.id
        self._backoff.check(account, address)
        async with self._passwords.turn():
            # Again: others may have failed while this one waited.
            self._backoff.check(account, address)
            matches = False
            proven_hash = None if user is None else user.password_hash
            try:
                verdict = await self._passwords.verify(proven_hash, password)
                matches = verdict.matches
            finally:
                # Also for a client that does not wait for the answer.
                note = self._backoff.succeeded if matches else self._backoff.failed
                note(account, address)
        if user is None or proven_hash is None or not matches:
            raise CredentialsError("the user is not known or the password is wrong")
        return user, Login(proven_hash, verdict.new_hash)

    async def _create(self, wanted: Wanted, login: Login | None, origin: Origin) -> SessionCreated:
        random = self._random_bytes(_TOKEN_BYTES + 16)
        now_us = self._clock.now_us()
        secret = urlsafe_b64encode(random[:_TOKEN_BYTES]).rstrip(b"=").decode("ascii")
        token = f"{now_us // 1000 & (1 << 48) - 1:012x}{secret}"
        ends_us = now_us + _LONGEST_US
        row = SessionRow(
            id=time_ordered_id(now_us, random[_TOKEN_BYTES:]),
            user_id="",
            token_hash=_hash_of(token),
            created_us=now_us,
            expires_us=min(now_us + self._time_us, ends_us),
            ends_us=ends_us,
            last_activity_us=now_us,
        )
        row, ended = await self._store.write(partial(_create, wanted, row, login, origin))
        if ended:
            self._cache.remove(ended)
        self._cache.put(session_of(row))
        return SessionCreated(row.id, token, iso_utc(row.expires_us))

    # --- using ---

    def cached(self, token: str) -> Session | None:
        """Return the session of a token and renew it; None if memory does not know it as valid."""
        if not _TOKEN.fullmatch(token):
            return None
        session = self._cache.get(_hash_of(token))
        return None if session is None else self._used(session)

    async def find(self, token: str) -> Session | None:
        """Return the session of a token and renew it; None if it is none that is valid now.

        Raises the errors of the store.
        """
        session = await self._session(token)
        return None if session is None else self._used(session)

    async def authenticate(self, token: str) -> Principal | None:
        """Return whose session this is, and renew it; None if it is none that is valid now."""
        session = self.cached(token) or await self.find(token)
        if session is None:
            return None
        return Principal(
            "session",
            id=session.id,
            scopes=_READ,
            user_id=session.user_id,
            expires_us=session.expires_us,
        )

    async def validate(self, token: str) -> Validation:
        """Return the session of a token and renew it. Raises SessionError."""
        session = self.cached(token) or await self.find(token)
        if session is None:
            raise SessionError("the token is not known, has expired or was revoked")
        return Validation(
            True,
            SessionValid(
                session.id,
                session.user_id,
                token,
                iso_utc(session.created_us),
                iso_utc(session.expires_us),
                iso_utc(session.last_activity_us),
            ),
        )

    async def page(self, *, user_id: str | None, limit: int, after: Cursor | None) -> SessionList:
        """Return sessions that are valid now, by user and creation, behind the cursor ``after``.

        A page may have fewer than ``limit`` although more follow: those between have expired.
        """
        rows, more = await self._store.read(
            partial(sessions.page, user_id=user_id, limit=limit, after=after)
        )
        now_us = self._clock.now_us()
        shown = [self._cache.peek(row.token_hash) or session_of(row) for row in rows]
        following = None
        if more:
            last = rows[-1]
            following = f"{last.user_id}.{last.created_us}.{last.id}"
        return SessionList([_shown(each) for each in shown if now_us < each.expires_us], following)

    # --- ending ---

    async def revoke(self, session_id: str, origin: Origin) -> SessionRevoked:
        """End a session: an administrator any, a session those of its own user.

        Raises ForbiddenError, UnknownRecordError and the errors of the store.
        """
        principal = origin.principal
        if principal.may(Scope.ADMIN):
            of_user = None
        elif principal.kind == "session" and principal.user_id is not None:
            of_user = principal.user_id
        else:
            raise ForbiddenError(f"{principal.actor} is no session of the user")
        return await uninterrupted(self._revoke(session_id, of_user, origin))

    async def revoke_token(self, token: str) -> SessionRevoked:
        """End the session of a token; the token is proof enough. Raises SessionError."""
        session = await self._session(token)
        if session is None or session.expires_us <= self._clock.now_us():
            raise SessionError("the token is not known, has expired or was revoked")
        return await uninterrupted(self._revoke_token(session.token_hash))

    async def _revoke(self, session_id: str, of_user: str | None, origin: Origin) -> SessionRevoked:
        order = partial(_revoke, self._clock.now_us(), session_id, of_user, origin)
        self._cache.remove([await self._store.write(order)])
        return SessionRevoked(session_id, revoked=True)

    async def _revoke_token(self, token_hash: bytes) -> SessionRevoked:
        session_id = await self._store.write(partial(sessions.end_by_hash, token_hash=token_hash))
        self._cache.remove([token_hash])
        if session_id is None:
            raise SessionError("the token is not known, has expired or was revoked")
        return SessionRevoked(session_id, revoked=True)

    # --- in the background ---

    async def flush(self, *, everything: bool = False) -> None:
        """Store renewals that are due, or at a clean stop ``everything``; remove what has expired.

        Raises the errors of the store; the next call makes up for it.
        """
        for part in self._cache.unsaved(0 if everything else self._slack_us):
            renewals = [(each.expires_us, each.last_activity_us, each.id) for each in part]
            await self._store.write(partial(sessions.renew, renewals=renewals))
            for session, (_, activity_us, _) in zip(part, renewals, strict=True):
                self._cache.saved(session, activity_us)
        # A row may say less than memory knows, but not by more than this.
        up_to_us = self._clock.now_us() - self._slack_us - _PURGE_DELAY_US
        if not await self._store.read(partial(sessions.any_expired, up_to_us=up_to_us)):
            return
        for _ in range(_PURGE_STEPS_MAX):
            order = partial(sessions.purge, up_to_us=up_to_us, limit=_PURGED_AT_ONCE)
            if await self._store.write(order) < _PURGED_AT_ONCE:
                return

    async def _session(self, token: str) -> Session | None:
        """Return what is known of a token, expired or not."""
        if not _TOKEN.fullmatch(token):
            return None
        token_hash = _hash_of(token)
        session = self._cache.get(token_hash)
        if session is not None:
            return session
        changes = self._cache.changes
        row = await self._store.read(partial(sessions.find, token_hash=token_hash))
        # Another request may have brought it in meanwhile.
        session = self._cache.get(token_hash)
        if session is None and row is not None:
            session = session_of(row)
            if changes == self._cache.changes and self._clock.now_us() < session.expires_us:
                self._cache.put(session)
        return session

    def _used(self, session: Session) -> Session | None:
        now_us = self._clock.now_us()
        if now_us >= session.expires_us:
            self._cache.remove([session.token_hash])
            return None
        session.last_activity_us = now_us
        session.expires_us = min(now_us + self._time_us, session.ends_us)
        return session


def _check_may_create(principal: Principal) -> None:
    if principal.kind == "nobody":
        raise UnauthenticatedError("a session without a password needs a key with the scope admin")
    if not principal.may(Scope.ADMIN):
        raise ForbiddenError(
            f"a session without a password needs the scope admin; {principal.actor} has it not"
        )


def _create(
    wanted: Wanted,
    row: SessionRow,
    login: Login | None,
    origin: Origin,
    db: Any,  # noqa: ANN401 - the store's connection
) -> tuple[SessionRow, list[bytes]]:
    """Return the session as stored, and the token hashes of those that ended for it."""
    user = first_found(wanted, db)
    if user is None:
        raise UnknownUserError("there is no user with this id, username or email address")
    problem = disagreement(wanted, user)
    if problem is not None:
        raise refused(problem)
    row = msgspec.structs.replace(row, user_id=user.id)
    ended = sessions.insert(db, row, login)
    if login is None:
        audit.record(db, row.created_us, origin, "sessions.create", user.id, {"session_id": row.id})
    return row, ended


def _revoke(
    now_us: int,
    session_id: str,
    of_user: str | None,
    origin: Origin,
    db: Any,  # noqa: ANN401 - the store's connection
) -> bytes:
    """Return the token hash of the session that ended."""
    user_id, token_hash = sessions.end(db, session_id, user_id=of_user)
    if origin.principal.kind != "session" or origin.principal.user_id != user_id:
        audit.record(db, now_us, origin, "sessions.revoke", user_id, {"session_id": session_id})
    return token_hash


def _hash_of(token: str) -> bytes:
    """Return what is kept of a token: its time, which is no secret, and its SHA-256.

    The time comes first so that new rows lie beside each other in the file's index.
    """
    text = token.encode("ascii")
    return text[:_TIME_LETTERS] + hashlib.sha256(text).digest()


def _shown(session: Session) -> SessionShown:
    return SessionShown(
        session.id,
        session.user_id,
        iso_utc(session.created_us),
        iso_utc(session.expires_us),
        iso_utc(session.last_activity_us),
    )
