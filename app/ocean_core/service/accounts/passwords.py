"""Passwords: argon2id, one at a time, beside the event loop.

Parameters are those of the OWASP Password Storage Cheat Sheet (argon2id with m = 19456 KiB, t = 2,
p = 1). One check takes about 35 ms of one core and 19 MiB, so there is one thread for them and a
bounded queue before it: a flood of logins is refused instead of taking the box from its sensors.

As NIST SP 800-63B says, passwords are compared in NFKC, every character counts as one, spaces are
welcome, no mixture of kinds is demanded, at least 8 characters are. Control characters are taken
for mistakes; unassigned ones are refused, because a later Unicode may normalise them otherwise.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar
from unicodedata import category, normalize

import msgspec
from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, InvalidInputError, PasswordsBusyError
from ocean_core.service.accounts.checks import refused

T = TypeVar("T")

MEMORY_KIB: Final = 19_456
TIME_COST: Final = 2
PARALLELISM: Final = 1
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_REFUSED: Final = {
    "Cc": "a control character",
    "Cn": "an unassigned character",
    "Cs": "a surrogate",
}


class Verdict(msgspec.Struct, frozen=True):
    """Whether a password is right, and, if its hash is of an older kind, one of today's."""

    matches: bool
    new_hash: str | None = None

    def __repr__(self) -> str:
        return f"Verdict(matches={self.matches})"


def check_password(text: str) -> str:
    """Return a new password in the form in which it is hashed.

    Raises InvalidInputError naming the field ``password``, never the password.
    """
    bytes_max, letters_min = limits.PASSWORD_BYTES_MAX, limits.PASSWORD_LETTERS_MIN
    if len(text) > bytes_max:
        raise _problem(f"{len(text)} characters", f"at most {bytes_max} bytes in UTF-8")
    for letter in text:
        what = _REFUSED.get(category(letter))
        if what is not None:
            raise _problem(what, "characters that can be typed")
    password = normalize("NFKC", text)
    size = len(password.encode())
    if size > bytes_max:
        raise _problem(f"{size} bytes", f"at most {bytes_max} bytes in UTF-8")
    if len(password) < letters_min:
        raise _problem(f"{len(password)} characters", f"at least {letters_min} characters")
    return password


class PasswordHasher:
    """Hashes and checks passwords, one after the other.

    At most ``limits.PASSWORDS_WAITING_MAX`` wait; PasswordsBusyError is for those beyond.
    """

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        memory_kib: int = MEMORY_KIB,
        time_cost: int = TIME_COST,
    ) -> None:
        self._random_bytes = random_bytes
        self._argon2 = Argon2(
            time_cost=time_cost,
            memory_cost=memory_kib,
            parallelism=PARALLELISM,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self._dummy = (
            f"$argon2id$v=19$m={memory_kib},t={time_cost},p={PARALLELISM}"
            f"${_unpadded(random_bytes(_SALT_BYTES))}${_unpadded(random_bytes(_HASH_BYTES))}"
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")
        self._turn = asyncio.Lock()
        self._waiting = 0

    def close(self) -> None:
        """End the thread; what it is at is finished first."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the hash of what ``check_password`` returned, in argon2's own encoding.

        Raises PasswordsBusyError.
        """
        async with self.turn():
            return await self._run(partial(self._hash, password))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until no other password is being checked. Raises PasswordsBusyError.

        What is decided inside, such as whether one more attempt is allowed, cannot be overtaken.
        """
        if self._waiting >= limits.PASSWORDS_WAITING_MAX:
            raise PasswordsBusyError(
                f"{self._waiting} passwords wait to be checked", retry_after_s=1
            )
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1

    async def verify(self, encoded: str | None, password: str) -> Verdict:
        """Check a password as it came in, during a turn.

        Without a hash (no such user, or one without password) it takes the same time and is wrong.
        """
        return await self._run(partial(self._verify, encoded, password))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _hash(self, password: str) -> str:
        return self._argon2.hash(password, salt=self._random_bytes(_SALT_BYTES))

    def _verify(self, encoded: str | None, password: str) -> Verdict:
        normal = normalize("NFKC", password)
        try:
            self._argon2.verify(self._dummy if encoded is None else encoded, normal)
        except (VerificationError, InvalidHashError):
            return Verdict(False)
        if encoded is None:
            return Verdict(False)
        if self._argon2.check_needs_rehash(encoded):
            return Verdict(True, self._hash(normal))
        return Verdict(True)


def _unpadded(data: bytes) -> str:
    return b64encode(data).decode("ascii").rstrip("=")


def _problem(found: str, expected: str) -> InvalidInputError:
    return refused(FieldProblem("password", found, expected))
