"""Who sent a request."""

import asyncio
from typing import Any

import pytest

from ocean_core.config.settings import AccessSettings
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, NOBODY, OWNER, Principal, Scope
from ocean_core.model.errors import RateLimitError, StoreUnavailableError, UnauthenticatedError
from ocean_core.obs.clock import ManualClock
from ocean_core.service.access import AccessService

KEY = Principal("key", "k1", "hall", frozenset({Scope.INGEST}))
SESSION = Principal("session", "s1", "ada", frozenset({Scope.READ}), user_id="u1")
OWNER_KEY = "owner_secret"


class Keys:
    def __init__(self) -> None:
        self.is_loaded = True
        self.used: list[str] = []

    def principal_of(self, secret: str) -> Principal | None:
        return KEY if secret == "ocean_k1_right" else None

    def note_used(self, key_id: str) -> None:
        self.used.append(key_id)


class Sessions:
    async def authenticate(self, token: str) -> Principal | None:
        return SESSION if token == "token" else None


class Lab:
    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.keys = Keys()
        self.access = AccessService(
            AccessSettings(**settings), self.clock, self.keys, Sessions(), OWNER_KEY
        )

    def ask(self, header: bytes | None, *, is_local: bool, address: str = "10.0.0.9") -> Principal:
        return asyncio.run(self.access.principal_of(header, is_local=is_local, address=address))


@pytest.mark.parametrize(
    ("header", "is_local", "expected"),
    [
        (None, True, LOCAL),
        (None, False, NOBODY),
        (b"Bearer ocean_k1_right", True, KEY),
        (b"bearer  ocean_k1_right ", False, KEY),
        (b"Bearer token", False, SESSION),
        (b"Bearer owner_secret", True, OWNER),
    ],
)
def test_what_is_sent_counts_before_where_it_comes_from(
    header: bytes | None, is_local: bool, expected: Principal
) -> None:
    assert Lab().ask(header, is_local=is_local) == expected


def test_this_machine_is_trusted_only_if_so_set() -> None:
    assert Lab(trust_loopback=False).ask(None, is_local=True) == NOBODY


@pytest.mark.parametrize(
    "header",
    [
        b"", b"Bearer", b"Bearer ", b"Basic dXNlcjpwYXNz", b"ocean_k1_right",
        b"Bearer ocean_k1_wrong", b"Bearer owner_guess", b"Bearer \xff\xfe", b"Bearer " + b"x" * 5000,
        b"Bearer ocean_", b"Bearer ' OR 1=1 --",
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_local", [True, False])
def test_a_wrong_key_is_never_taken_for_no_key(header: bytes, is_local: bool) -> None:
    lab = Lab()
    with pytest.raises(UnauthenticatedError):
        lab.ask(header, is_local=is_local)
    assert lab.keys.used == []


def test_use_of_a_key_is_noted() -> None:
    lab = Lab()
    lab.ask(b"Bearer ocean_k1_right", is_local=False)
    assert lab.keys.used == ["k1"]


def test_before_the_keys_are_known_no_key_is_called_wrong() -> None:
    lab = Lab()
    lab.keys.is_loaded = False
    with pytest.raises(StoreUnavailableError):
        lab.ask(b"Bearer ocean_k1_wrong", is_local=False)


def test_guessing_is_slowed_down_for_the_guesser_alone() -> None:
    lab = Lab()
    for _ in range(limits.REFUSED_KEYS_PER_MINUTE_MAX):
        with pytest.raises((UnauthenticatedError, RateLimitError)):
            lab.ask(b"Bearer ocean_k1_wrong", is_local=False)
    with pytest.raises(RateLimitError) as caught:
        lab.ask(b"Bearer ocean_k1_wrong", is_local=False)
    assert caught.value.retry_after_s
    assert lab.ask(b"Bearer ocean_k1_right", is_local=False) == KEY, "a good key still works"
    with pytest.raises(UnauthenticatedError):
        lab.ask(b"Bearer ocean_k1_wrong", is_local=False, address="10.0.0.10")


def test_other_machines_have_a_rate() -> None:
    lab = Lab(requests_per_address_max=10)
    for _ in range(20):
        lab.access.check_rate("10.0.0.9")
    with pytest.raises(RateLimitError):
        lab.access.check_rate("10.0.0.9")
    lab.access.check_rate("10.0.0.10")
    unlimited = Lab(requests_per_address_max=0)
    for _ in range(100):
        unlimited.access.check_rate("10.0.0.9")
