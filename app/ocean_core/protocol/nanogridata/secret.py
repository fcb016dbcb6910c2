"""A shared secret, prepared for use: what of its work does not depend on the frame is done once."""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Protocol, Self

_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(value ^ 0x36 for value in range(256))
_OUTER_PAD: Final = bytes(value ^ 0x5C for value in range(256))
_KEY_LABEL: Final = b"AES-KEY-EXPANSION"


class Hash(Protocol):
    """As much of a ``hashlib`` object as is used here."""

    def copy(self) -> Self:
        """Return another one in the same state."""
        ...

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""
        ...

    def digest(self) -> bytes:
        """Return the hash of all bytes so far."""
        ...


class HmacSecret:
    """A secret of any length, as ``Secret`` wants it.

    ``inner`` and ``outer`` are the two halves of HMAC-SHA256 with the secret worked in: to be
    copied, never updated. ``sensors`` is a pattern of device ids, empty for all.
    """

    __slots__ = ("_encryption_key", "_secret", "inner", "name", "outer", "sensors")

    def __init__(self, secret: bytes, name: str, sensors: str = "") -> None:
        self.name = name
        self.sensors = sensors
        block = secret if len(secret) <= _BLOCK_BYTES else sha256(secret).digest()
        block = block.ljust(_BLOCK_BYTES, b"\0")
        self.inner: Hash = sha256(block.translate(_INNER_PAD))
        self.outer: Hash = sha256(block.translate(_OUTER_PAD))
        self._secret = secret
        self._encryption_key: bytes | None = None

    def __repr__(self) -> str:
        return f"HmacSecret({self.name!r}, sensors={self.sensors!r})"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be written anywhere")

    def mac(self, covered: bytes) -> bytes:
        """Return HMAC-SHA256 over ``covered``, 32 bytes."""
        first = self.inner.copy()
        first.update(covered)
        last = self.outer.copy()
        last.update(first.digest())
        return last.digest()

    def encryption_key(self) -> bytes:
        """Return the AES-256 key of section 5, 32 bytes."""
        if self._encryption_key is None:
            self._encryption_key = sha256(self._secret + _KEY_LABEL + self._secret).digest()
        return self._encryption_key
