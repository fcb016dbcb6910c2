"""Passwords: what is taken, how it is hashed, and that no more than one is checked at a time."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import argon2
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import InvalidInputError, PasswordsBusyError
from ocean_core.service.accounts.passwords import PasswordHasher, Verdict, check_password
from support.accounts import PASSWORD, Bytes
from support.operational_kit import in_loop


@asynccontextmanager
async def hasher(memory_kib: int = 8, time_cost: int = 1) -> AsyncIterator[PasswordHasher]:
    made = PasswordHasher(Bytes(), memory_kib=memory_kib, time_cost=time_cost)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("eight888", "eight888"),
        (" spaces count ", " spaces count "),
        ("\u00e9" * 8, "\u00e9" * 8),
        ("e\u0301" * 8, "\u00e9" * 8),
        ("\uff41bcdefgh", "abcdefgh"),
        ("x" * limits.PASSWORD_BYTES_MAX, "x" * limits.PASSWORD_BYTES_MAX),
        ("\U0001f469\u200d\U0001f52c zero width", "\U0001f469\u200d\U0001f52c zero width"),
    ],
)
def test_password_is_normalised(text: str, kept: str) -> None:
    assert check_password(text) == kept


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "0 characters"),
        ("seven77", "7 characters"),
        ("e\u0301" * 7, "7 characters"),
        ("x" * (limits.PASSWORD_BYTES_MAX + 1), "1025 characters"),
        ("\u00e9" * 600, "1200 bytes"),
        ("\ufdfa" * 100, "3300 bytes"),
        ("secret\x00secret", "a control character"),
        ("secret\nsecret", "a control character"),
        ("secret\u0378secret", "an unassigned character"),
        ("secret\ud800secret", "a surrogate"),
    ],
)
def test_password_is_refused_without_being_shown(text: str, found: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_password(text)
    (problem,) = caught.value.fields
    assert (problem.field, problem.found) == ("password", found)
    assert not text or text not in f"{caught.value!r}{caught.value.detail}{problem}"


@in_loop
async def test_hash_has_the_strength_that_owasp_asks_for() -> None:
    async with hasher(19_456, 2) as passwords:
        assert PasswordHasher.__init__.__kwdefaults__ == {"memory_kib": 19_456, "time_cost": 2}
        encoded = await passwords.hash(PASSWORD)
        assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert argon2.PasswordHasher().verify(encoded, PASSWORD)
        assert await passwords.hash(PASSWORD) != encoded, "each hash has a salt of its own"
        assert (await passwords.verify(encoded, PASSWORD)) == Verdict(True)


@in_loop
async def test_right_and_wrong() -> None:
    async with hasher() as passwords:
        encoded = await passwords.hash(check_password("caf\u00e9 au lait"))
        assert (await passwords.verify(encoded, "cafe\u0301 au lait")).matches
        assert (await passwords.verify(encoded, "\uff43af\u00e9 au lait")).matches
        assert not (await passwords.verify(encoded, "cafe au lait")).matches
        assert not (await passwords.verify(encoded, "")).matches
        assert not (await passwords.verify("no hash at all", "cafe au lait")).matches
        assert not (await passwords.verify(None, PASSWORD)).matches


@in_loop
async def test_without_a_hash_the_same_work_is_done() -> None:
    async with hasher(64, 3) as passwords:
        seen: list[str] = []
        real = passwords._argon2.verify

        class Watched:
            def verify(self, encoded: str, password: str) -> bool:
                seen.append(encoded)
                return real(encoded, password)

        passwords._argon2 = Watched()  # type: ignore[assignment]
        assert not (await passwords.verify(None, PASSWORD)).matches
        (dummy,) = seen
        known = argon2.PasswordHasher(memory_cost=64, time_cost=3, parallelism=1).hash("x")
        assert argon2.extract_parameters(dummy) == argon2.extract_parameters(known)
        assert [len(part) for part in dummy.split("$")] == [len(p) for p in known.split("$")]


@in_loop
async def test_weaker_hash_is_replaced() -> None:
    async with hasher() as old, hasher(16, 2) as new:
        encoded = await old.hash(PASSWORD)
        verdict = await new.verify(encoded, PASSWORD)
        assert verdict.matches
        assert verdict.new_hash is not None
        assert verdict.new_hash.startswith("$argon2id$v=19$m=16,t=2,p=1$")
        assert (await new.verify(verdict.new_hash, PASSWORD)) == Verdict(True)
        assert (await new.verify(encoded, "wrong horse")) == Verdict(False)
        assert verdict.new_hash not in repr(verdict)


@in_loop
async def test_one_at_a_time_and_not_too_many_waiting() -> None:
    async with hasher() as passwords:
        inside = 0
        go = asyncio.Event()

        async def take() -> None:
            nonlocal inside
            async with passwords.turn():
                inside += 1
                assert inside == 1
                await go.wait()
                inside -= 1

        waiting = [asyncio.ensure_future(take()) for _ in range(limits.PASSWORDS_WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(PasswordsBusyError) as caught:
            await passwords.hash(PASSWORD)
        assert caught.value.retry_after_s == 1
        waiting[-1].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting.pop()
        last = asyncio.ensure_future(take())
        go.set()
        await asyncio.gather(*waiting, last)
        assert await passwords.hash(PASSWORD)


@in_loop
async def test_event_loop_goes_on_while_a_password_is_hashed() -> None:
    async with hasher(4096, 5) as passwords:
        rounds = 0
        hashing = asyncio.ensure_future(passwords.hash(PASSWORD))
        while not hashing.done():
            rounds += 1
            await asyncio.sleep(0)
        assert rounds > 10


def shown(make: Callable[[], Any]) -> str:
    made = make()
    return f"{made!r} {made!s}"


def test_nothing_that_holds_a_password_shows_it() -> None:
    from ocean_core.service.accounts.session_answers import (
        NewSession,
        SessionCreated,
    )
    from ocean_core.service.accounts.users import NewUser, UserChange
    from ocean_core.storage.operational.sessions import Login

    makers: list[Callable[[], Any]] = [
        lambda: NewUser("anna", "a@b.example", "S3CRET"),
        lambda: UserChange(password="S3CRET"),
        lambda: NewSession(username="anna", password="S3CRET"),
        lambda: SessionCreated("id", "S3CRET", "2026"),
        lambda: Verdict(True, "S3CRET"),
        lambda: Login("S3CRET", "S3CRET"),
    ]
    for make in makers:
        assert not re.search("S3CRET", shown(make)), shown(make)
