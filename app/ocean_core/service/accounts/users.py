"""Users: made, changed, disabled, never deleted, so that what the ledger says stays explained."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ocean_core.config.settings import BillingSettings
from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import UnknownUserError
from ocean_core.model.receipt import IdempotencyKey
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.service.accounts.ids import time_ordered_id
from ocean_core.service.accounts.names import check_email, check_username
from ocean_core.service.accounts.passwords import PasswordHasher, check_password
from ocean_core.service.accounts.repeats import KEPT_US, repeat_key
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.storage.operational import audit, billing, request_answers, sessions, users
from ocean_core.storage.operational.billing import BillingRow
from ocean_core.storage.operational.store import OperationalStore
from ocean_core.storage.operational.users import ACTIVE, DISABLED, UserRow

USERS_PATH: Final = "/api/ocean/users"
_UUID_LETTERS: Final = 36


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """What a user is made of."""

    username: str
    email: str
    password: str | None = None

    def __repr__(self) -> str:
        return f"NewUser(username={self.username!r})"


class UserChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be different; a password of null removes it."""

    username: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    password: str | UnsetType | None = UNSET
    status: Literal["active", "disabled"] | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"UserChange({', '.join(self.fields())})"

    def fields(self) -> list[str]:
        """Return the names of what is to be different."""
        return [name for name in self.__struct_fields__ if getattr(self, name) is not UNSET]


class User(msgspec.Struct, frozen=True):
    """A user as the API shows it: the original's fields."""

    id: str
    username: str
    email: str
    status: str
    created_at: str
    updated_at: str


class UserList(msgspec.Struct):
    """A page in the order of creation; ``next`` is what to send as ``after``, null at the end."""

    users: list[User]
    next: str | None


class UserService:
    """What the users routes call, and the memory of users asked for lately."""

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        passwords: PasswordHasher,
        billing: BillingSettings,
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._passwords = passwords
        self._billing = billing
        self._known: OrderedDict[str, User] = OrderedDict()
        # Guards against remembering what was read before a change and arrives after it.
        self._changes = 0
        self._on_new_account: list[Callable[[BillingRow], None]] = []
        self._on_sessions_ended: list[Callable[[str], None]] = []
        self._on_status: list[Callable[[str, bool], None]] = []

    def on_new_account(self, listener: Callable[[BillingRow], None]) -> None:
        """Have ``listener`` told of each account made with a user."""
        self._on_new_account.append(listener)

    def on_sessions_ended(self, listener: Callable[[str], None]) -> None:
        """Have ``listener`` told the id of each user all of whose sessions were ended."""
        self._on_sessions_ended.append(listener)

    def on_status(self, listener: Callable[[str, bool], None]) -> None:
        """Have ``listener`` told (id, is active) of each user whose status was set."""
        self._on_status.append(listener)

    async def create(self, new: NewUser, origin: Origin, key: str | None = None) -> bytes:
        """Make a user with an account; return its JSON.

        ``key`` is the request's Idempotency-Key: a repeat makes no second user. The password is no
        part of what a repeat must have in common with the first request.

        Raises InvalidInputError, ConflictError, RecordsFullError, PasswordsBusyError,
        IdempotencyKeyError, IdempotencyMismatchError and the errors of the store.
        """
        username, username_key = check_username(new.username)
        email, email_key = check_email(new.email)
        password_hash = None
        if new.password is not None:
            password_hash = await self._passwords.hash(check_password(new.password))
        repeat = None
        if key is not None:
            same = msgspec.json.encode([username, email, new.password is not None])
            repeat = repeat_key(key, origin.principal, USERS_PATH, same)
        now_us = self._clock.now_us()
        # Asked for at once: each time, another thread may take its turn.
        random = self._random_bytes(32)
        row = UserRow(
            time_ordered_id(now_us, random[:16]), username, username_key, email, email_key, password_hash, ACTIVE,
            now_us, now_us,
        )  # fmt: skip
        account = BillingRow(
            row.id, time_ordered_id(now_us, random[16:]), self._billing.plan, self._billing.initial_credits,
            0, "", 0, 0, now_us,
        )  # fmt: skip
        user = _shown(row)
        answer = msgspec.json.encode(user)
        # No user is known under a new id, so nothing in memory can be left behind by a change:
        # only credits to start with must not get lost.
        writing = self._store.write(partial(_create, row, account, origin, repeat, answer))
        if account.credits:
            writing = uninterrupted(self._opened(writing, answer, account))
        told = await writing
        if told is answer:
            self._remember(user)
        return told

    async def get(self, user_id: str) -> User:
        """Return a user. Raises UnknownUserError and the errors of the store."""
        user = self._known.get(user_id)
        if user is not None:
            self._known.move_to_end(user_id)
            return user
        # What cannot be an id is not worth a look at the disk.
        if len(user_id) != _UUID_LETTERS:
            raise UnknownUserError(f"there is no user {user_id[:80]!r}")
        changes = self._changes
        user = _shown(await self._store.read(partial(users.get, user_id=user_id)))
        if changes == self._changes:
            self._remember(user)
        return user

    async def page(
        self, *, limit: int, after: tuple[int, str] | None, status: str | None
    ) -> UserList:
        """Return users in the order of their creation, behind the cursor ``after``."""
        rows, more = await self._store.read(
            partial(users.page, limit=limit, after=after, status=status)
        )
        following = f"{rows[-1].created_us}.{rows[-1].id}" if more else None
        return UserList([_shown(row) for row in rows], following)

    async def update(self, user_id: str, change: UserChange, origin: Origin) -> User:
        """Change a user; return the user after it.

        Who is disabled, or gets another password or none, loses all sessions at once.

        Raises UnknownUserError, InvalidInputError, ConflictError, PasswordsBusyError and the
        errors of the store.
        """
        values: dict[str, Any] = {}
        if change.username is not UNSET:
            values["username"], values["username_key"] = check_username(change.username)
        if change.email is not UNSET:
            values["email"], values["email_key"] = check_email(change.email)
        if change.status is not UNSET:
            values["status"] = change.status
        if isinstance(change.password, str):
            values["password_hash"] = await self._passwords.hash(check_password(change.password))
        elif change.password is None:
            values["password_hash"] = None
        return await uninterrupted(self._update(user_id, values, change.fields(), origin))

    async def _update(
        self, user_id: str, values: dict[str, Any], fields: list[str], origin: Origin
    ) -> User:
        values["updated_us"] = self._clock.now_us()
        try:
            row, ended = await self._store.write(partial(_change, user_id, values, fields, origin))
        finally:
            self._changes += 1
            self._known.pop(user_id, None)
        if ended:
            for listener in self._on_sessions_ended:
                listener(user_id)
        if "status" in values:
            for status_listener in self._on_status:
                status_listener(user_id, row.status != DISABLED)
        user = _shown(row)
        self._remember(user)
        return user

    async def _opened(
        self, writing: Coroutine[Any, Any, bytes], answer: bytes, account: BillingRow
    ) -> bytes:
        told: bytes = await writing
        if told is answer:
            for listener in self._on_new_account:
                listener(account)
        return told

    def _remember(self, user: User) -> None:
        self._known[user.id] = user
        if len(self._known) > limits.USERS_CACHED_MAX:
            self._known.popitem(last=False)


def _create(
    row: UserRow,
    account: BillingRow,
    origin: Origin,
    repeat: IdempotencyKey | None,
    answer: bytes,
    db: Any,  # noqa: ANN401 - the store's connection
) -> bytes:
    oldest_us = row.created_us - KEPT_US
    if repeat is not None:
        known = request_answers.replay(db, repeat.scope, repeat.key, repeat.digest, oldest_us)
        if known is not None:
            return known
    users.insert(db, row)
    billing.insert(db, account, origin.principal.actor)
    detail: dict[str, object] = {"username": row.username}
    audit.record(db, row.created_us, origin, "users.create", row.id, detail)
    if repeat is not None:
        request_answers.keep(
            db, repeat.scope, repeat.key, repeat.digest, answer,
            now_us=row.created_us, oldest_us=oldest_us,
        )  # fmt: skip
    return answer


def _change(
    user_id: str,
    values: dict[str, Any],
    fields: list[str],
    origin: Origin,
    db: Any,  # noqa: ANN401 - the store's connection
) -> tuple[UserRow, bool]:
    """Return the user after the change, and whether the user's sessions were ended."""
    before = users.get(db, user_id)
    after = msgspec.structs.replace(before, **values)
    users.update(db, after)
    disabled = after.status == DISABLED and before.status != DISABLED
    ends = disabled or after.password_hash != before.password_hash
    detail: dict[str, object] = {"changed": fields}
    if ends:
        detail["sessions_ended"] = len(sessions.end_of_user(db, user_id))
    act = "users.disable" if disabled else "users.update"
    audit.record(db, after.updated_us, origin, act, user_id, detail)
    return after, ends


def _shown(row: UserRow) -> User:
    return User(
        row.id,
        row.username,
        row.email,
        row.status,
        iso_utc(row.created_us),
        iso_utc(row.updated_us),
    )
