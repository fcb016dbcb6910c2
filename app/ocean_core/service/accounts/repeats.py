"""Idempotency-Keys of requests that change accounts: a repeat gets the first answer again."""

from __future__ import annotations

import hashlib
from typing import Final

from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.errors import FieldProblem, IdempotencyKeyError
from ocean_core.model.receipt import IdempotencyKey

KEPT_US: Final = limits.IDEMPOTENCY_KEPT_S * 1_000_000


def repeat_key(
    key: str | None, principal: Principal, path: str, body: bytes
) -> IdempotencyKey | None:
    """Return what marks a request and its repeats, None without an Idempotency-Key.

    ``body`` is what must be the same; nothing secret may be in it, because a plain hash of it is
    stored, from which a password could be guessed. Raises IdempotencyKeyError.
    """
    if key is None:
        return None
    most = limits.IDEMPOTENCY_KEY_BYTES_MAX
    if not 0 < len(key) <= most or not all(" " <= letter <= "~" for letter in key):
        raise IdempotencyKeyError(
            "the Idempotency-Key header is empty, too long, or has other than printable ASCII",
            fields=(
                FieldProblem(
                    "Idempotency-Key", ascii(key[:80]), f"1 to {most} printable ASCII characters"
                ),
            ),
        )
    digest = hashlib.sha256(path.encode() + b"\0")
    digest.update(body)
    return IdempotencyKey(principal.actor, key, digest.digest())
