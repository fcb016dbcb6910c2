"""Access keys: made, listed, revoked, and recognised.

A key is ``ocean_<id>_<43 letters>``: 256 random bits behind a name that may be shown. Only its
SHA-256 is stored: what is random needs no slow hash. All keys that may count live in memory, so
that recognising one touches no disk and goes on when the disk does not.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin, Principal, Scope
from ocean_core.model.errors import FieldProblem, OceanError
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.protocol.readings.timestamps import TimestampError, timestamp_us
from ocean_core.service.accounts.checks import check_name, check_text, invalid, refused
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.storage.operational import access_keys
from ocean_core.storage.operational.access_keys import KeyRow
from ocean_core.storage.operational.store import OperationalStore

_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 6
_KEY_LETTERS_MAX: Final = 128
_LIFETIME: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_EXPIRES: Final = "a moment to come in ISO 8601, or a time from now such as 90d, 12h or 30m"


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """What a key is to be. ``rate`` counts readings per second, ``user_id`` pays for them."""

    name: str
    scopes: list[Scope]
    sensors: str | None = None
    rate: int | None = None
    expires: str | None = None
    user_id: str | None = None


class Key(msgspec.Struct):
    """A key as it may be shown. ``status`` is active, expired, revoked or "user disabled"."""

    id: str
    name: str
    scopes: list[Scope]
    sensors: str
    rate: int | None
    user_id: str | None
    status: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class CreatedKey(Key, kw_only=True):
    """The answer to a new key, the only one that shows ``key`` itself."""

    key: str

    def __repr__(self) -> str:
        return f"CreatedKey(id={self.id!r}, name={self.name!r})"


class KeyList(msgspec.Struct):
    """A page, the oldest first; ``next`` is what to send as ``after``, null at the end."""

    keys: list[Key]
    next: str | None


class KeyRevoked(msgspec.Struct):
    """The answer to a key that counts no longer."""

    id: str
    revoked: bool


class KeyService:
    """What the key routes call, and who recognises keys.

    Each of ``on_change`` is called after a key was made or revoked, before anybody is told: caches
    of what a header is worth must be cleared then.
    """

    def __init__(
        self, store: OperationalStore, clock: Clock, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._by_hash: dict[bytes, Principal] = {}
        self._used: dict[str, int] = {}
        self._disabled: set[str] = set()
        self._lock = asyncio.Lock()
        self.on_change: list[Callable[[], None]] = []
        self.is_loaded = False
        """Whether the stored keys are known; before, every key seems to be unknown."""

    async def load(self) -> None:
        """Take the stored keys into memory. Raises the errors of the store."""
        async with self._lock:
            rows = await self._store.read(access_keys.not_revoked)
            self._disabled |= await self._store.read(access_keys.of_disabled_users)
            self._by_hash = {secret_hash: _principal(row) for row, secret_hash in rows}
            self.is_loaded = True
        self._changed()

    def principal_of(self, secret: str) -> Principal | None:
        """Return whose key this is, None if it is none that counts now.

        Expired and revoked keys do not count, nor do those of disabled users.

        No two secrets are compared here. Only the SHA-256 of what was sent is looked up, and how
        long that takes depends on bits of a hash that a sender can neither choose nor relate to
        those of a key that it does not have; so there is nothing to learn from the time.
        """
        if len(secret) > _KEY_LETTERS_MAX or not secret.isascii():
            return None
        principal = self._by_hash.get(_hash(secret))
        if (
            principal is None
            or principal.user_id in self._disabled
            or _has_passed(principal.expires_us, self._clock.now_us())
        ):
            return None
        return principal

    def user_changed(self, user_id: str, *, active: bool) -> None:
        """Let the keys of a user count again, or no longer."""
        if active:
            self._disabled.discard(user_id)
        else:
            self._disabled.add(user_id)
        self._changed()

    def any_active(self) -> bool:
        """Whether there is a key that counts now."""
        now_us = self._clock.now_us()
        return any(not _has_passed(each.expires_us, now_us) for each in self._by_hash.values())

    def note_used(self, key_id: str) -> None:
        """Remember that a key was used just now, until ``flush``."""
        self._used[key_id] = self._clock.now_us()

    async def flush(self) -> None:
        """Store when keys were used last; what cannot be stored now is kept for the next time."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await self._store.write(partial(access_keys.note_used, moments=used))
        except OceanError:
            self._used = used | self._used
            raise

    async def create(self, new: NewKey, origin: Origin) -> CreatedKey:
        """Make a key; the answer is the only place where it is ever shown.

        Raises InvalidInputError, ConflictError (an active key has this name), UnknownUserError,
        RecordsFullError and the errors of the store.
        """
        row = self._row(new)
        return await uninterrupted(self._create(row, origin))

    async def page(self, after: tuple[int, str], limit: int) -> KeyList:
        """Return keys by age, the oldest first, behind the (moment, id) of a cursor."""
        rows, more = await self._store.read(partial(access_keys.page, after=after, limit=limit))
        keys = [self._shown(row) for row in rows]
        return KeyList(keys, f"{rows[-1].created_us}-{rows[-1].id}" if more else None)

    async def revoke(self, key_id: str, origin: Origin) -> KeyRevoked:
        """Let a key count no longer, from before the answer on. Raises UnknownRecordError."""
        return await uninterrupted(self._revoke(key_id, origin))

    async def _create(self, row: KeyRow, origin: Origin) -> CreatedKey:
        secret = urlsafe_b64encode(self._random_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
        text = f"ocean_{row.id}_{secret}"
        secret_hash = _hash(text)
        async with self._lock:
            await self._store.write(
                partial(access_keys.insert, row=row, secret_hash=secret_hash, origin=origin)
            )
            self._by_hash[secret_hash] = _principal(row)
        self._changed()
        return CreatedKey(**msgspec.structs.asdict(self._shown(row)), key=text)

    async def _revoke(self, key_id: str, origin: Origin) -> KeyRevoked:
        now_us = self._clock.now_us()
        async with self._lock:
            await self._store.write(
                partial(access_keys.revoke, key_id=key_id, now_us=now_us, origin=origin)
            )
            self._by_hash = {
                secret_hash: principal
                for secret_hash, principal in self._by_hash.items()
                if principal.id != key_id
            }
        self._changed()
        return KeyRevoked(key_id, revoked=True)

    def _changed(self) -> None:
        for callback in self.on_change:
            callback()

    def _row(self, new: NewKey) -> KeyRow:
        now_us = self._clock.now_us()
        check_name("name", new.name, limits.KEY_NAME_BYTES_MAX)
        if not new.scopes:
            raise refused(FieldProblem("scopes", "[]", "at least one of ingest, read, admin"))
        sensors = "" if new.sensors is None else new.sensors
        if new.sensors is not None:
            check_text("sensors", sensors, limits.KEY_PATTERN_BYTES_MAX, bytes_min=1)
            if Scope.ADMIN in new.scopes:
                # Who may make keys would not be held back by it.
                raise invalid("sensors", sensors, "no pattern for a key with the scope admin")
        if new.rate is not None and not 1 <= new.rate <= limits.KEY_RATE_MAX:
            raise invalid("rate", new.rate, f"1 to {limits.KEY_RATE_MAX} readings per second")
        if new.user_id is not None:
            check_text("user_id", new.user_id, limits.METADATA_KEY_BYTES_MAX, bytes_min=1)
        return KeyRow(
            self._random_bytes(_ID_BYTES).hex(),
            new.name,
            ",".join(scope for scope in Scope if scope in new.scopes),
            sensors,
            new.rate,
            new.user_id,
            now_us,
            None if new.expires is None else _expiry(new.expires, now_us),
        )

    def _shown(self, row: KeyRow) -> Key:
        expired = _has_passed(row.expires_us, self._clock.now_us())
        last_used_us = max(row.last_used_us or 0, self._used.get(row.id, 0))
        living = "user disabled" if row.user_id in self._disabled else "active"
        living = "expired" if expired else living
        status = living if row.revoked_us is None else "revoked"
        return Key(
            row.id,
            row.name,
            [Scope(scope) for scope in row.scopes.split(",")],
            row.sensors,
            row.rate,
            row.user_id,
            status,
            iso_utc(row.created_us),
            _iso(row.expires_us),
            _iso(row.revoked_us),
            _iso(last_used_us or None),
        )


def _principal(row: KeyRow) -> Principal:
    return Principal(
        "key",
        row.id,
        row.name,
        frozenset(Scope(scope) for scope in row.scopes.split(",")),
        row.user_id,
        row.sensors,
        row.rate,
        row.expires_us,
    )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _has_passed(moment_us: int | None, now_us: int) -> bool:
    return moment_us is not None and moment_us <= now_us


def _iso(moment_us: int | None) -> str | None:
    return None if moment_us is None else iso_utc(moment_us)


def _expiry(text: str, now_us: int) -> int:
    """Return the moment that ``text`` means: one in ISO 8601, or a time from now."""
    lifetime = _LIFETIME.fullmatch(text)
    if lifetime is not None:
        moment_us = now_us + int(lifetime[1]) * _UNIT_S[lifetime[2]] * 1_000_000
    else:
        try:
            moment_us = timestamp_us(text)
        except TimestampError:
            raise invalid("expires", text, _EXPIRES) from None
    if not now_us < moment_us <= limits.TIMESTAMP_US_MAX:
        raise invalid("expires", text, _EXPIRES)
    return moment_us
