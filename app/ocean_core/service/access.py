"""Who sent a request: keys, sessions, the owner of the box, programs on this machine."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Protocol

from ocean_core.config.settings import AccessSettings
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, NOBODY, OWNER, Principal
from ocean_core.model.errors import (
    RateLimitError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from ocean_core.obs.clock import Clock
from ocean_core.service.rates import RateBook, network_of

KEY_PREFIX: Final = "ocean_"
OWNER_PREFIX: Final = "owner_"
_TOKEN_LETTERS_MAX: Final = 256


class KeySource(Protocol):
    """Knows the access keys."""

    @property
    def is_loaded(self) -> bool:
        """Whether the stored keys are known; before, every key seems to be unknown."""
        ...

    def principal_of(self, secret: str) -> Principal | None:
        """Return whose key this is, None if it is none that counts now."""
        ...

    def note_used(self, key_id: str) -> None:
        """Remember that a key was used just now."""
        ...


class SessionSource(Protocol):
    """Knows the sessions of users."""

    async def authenticate(self, token: str) -> Principal | None:
        """Return whose session this is, None if it is none that counts now."""
        ...


class AccessService:
    """Finds out who asks. What they may do is a matter of the route."""

    def __init__(
        self,
        settings: AccessSettings,
        clock: Clock,
        keys: KeySource,
        sessions: SessionSource,
        owner_key: str,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._sessions = sessions
        self._owner_hash = hashlib.sha256(owner_key.encode()).digest()
        self._requests = RateBook(clock, limits.ADDRESSES_REMEMBERED_MAX)
        self._refused = RateBook(clock, limits.ADDRESSES_REMEMBERED_MAX)

    def check_rate(self, address: str) -> None:
        """Count a request of another machine. Raises RateLimitError."""
        rate = self._settings.requests_per_address_max
        if not rate:
            return
        wait_s = self._requests.take(network_of(address), rate)
        if wait_s:
            raise RateLimitError(
                f"{address} sends more than {rate} requests per second", retry_after_s=wait_s
            )

    async def principal_of(
        self, authorization: bytes | None, *, is_local: bool, address: str
    ) -> Principal:
        """Return who sent a request with this Authorization header.

        ``is_local``: it came straight from a program on this machine. What a request carries
        counts before where it came from, so that a limited key stays limited here too. Raises
        UnauthenticatedError for something that is no valid key, RateLimitError for too many of
        those from one address.
        """
        if authorization is None:
            return LOCAL if is_local and self._settings.trust_loopback else NOBODY
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _TOKEN_LETTERS_MAX:
            raise UnauthenticatedError("the Authorization header is not of the form Bearer KEY")
        principal = await self._find(token)
        if principal is None:
            self._count_refused(address)
            raise UnauthenticatedError(
                "the key or session is not known, has expired, is revoked, or its user is disabled"
            )
        return principal

    def principal_at_once(self, authorization: bytes | None, *, is_local: bool) -> Principal | None:
        """Return who sent a request if that is certain without waiting.

        None for all others, whether they are to be let in or not: ``principal_of`` decides.
        """
        if authorization is None:
            return LOCAL if is_local and self._settings.trust_loopback else None
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer":
            return None
        if token.startswith(OWNER_PREFIX):
            return self._owner(token)
        if not token.startswith(KEY_PREFIX):
            return None
        principal = self._keys.principal_of(token)
        if principal is not None:
            self._keys.note_used(principal.id)
        return principal

    async def _find(self, token: str) -> Principal | None:
        if token.startswith(KEY_PREFIX):
            principal = self._keys.principal_of(token)
            if principal is not None:
                self._keys.note_used(principal.id)
            elif not self._keys.is_loaded:
                raise StoreUnavailableError("the keys are not known yet", retry_after_s=1)
            return principal
        if token.startswith(OWNER_PREFIX):
            return self._owner(token)
        return await self._sessions.authenticate(token)

    def _owner(self, token: str) -> Principal | None:
        found = hashlib.sha256(token.encode()).digest()
        return OWNER if hmac.compare_digest(found, self._owner_hash) else None

    def _count_refused(self, address: str) -> None:
        wait_s = self._refused.take(
            network_of(address), limits.REFUSED_KEYS_PER_MINUTE_MAX / 60, burst_s=60
        )
        if wait_s:
            raise RateLimitError(
                f"{address} has sent too many keys that are not valid",
                hint="Correct the key: `ocean keys list` on the box shows which ones count. "
                "Waiting alone does not help.",
                retry_after_s=wait_s,
            )
