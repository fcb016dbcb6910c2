"""Answers to requests that carried an Idempotency-Key, so that a repeat changes nothing.

``replay`` and ``keep`` belong into the same command as the change itself.
"""

from __future__ import annotations

from typing import Final

import apsw

from ocean_core.model import limits
from ocean_core.model.errors import IdempotencyMismatchError

_FIND: Final = (
    "SELECT digest, answer FROM request_answers WHERE scope = ? AND key = ? AND created_us > ?"
)
_KEEP: Final = (
    "INSERT OR REPLACE INTO request_answers (scope, key, digest, answer, created_us) "
    "VALUES (?, ?, ?, ?, ?)"
)
_DROP_OLD: Final = "DELETE FROM request_answers WHERE created_us <= ?"
_DROP_EXCESS: Final = (
    "DELETE FROM request_answers WHERE (scope, key) IN (SELECT scope, key FROM request_answers "
    "ORDER BY created_us DESC LIMIT -1 OFFSET ?)"
)


def replay(
    db: apsw.Connection, scope: str, key: str, digest: bytes, oldest_us: int
) -> bytes | None:
    """Return the answer kept for a key since ``oldest_us``, None if there is none.

    Raises IdempotencyMismatchError if the key came with another body.
    """
    found = db.execute(_FIND, (scope, key, oldest_us)).fetchone()
    if found is None:
        return None
    if found[0] != digest:
        raise IdempotencyMismatchError(f"the key {key!r} came before with another body")
    return bytes(found[1])


def keep(
    db: apsw.Connection,
    scope: str,
    key: str,
    digest: bytes,
    answer: bytes,
    *,
    now_us: int,
    oldest_us: int,
) -> None:
    """Keep an answer; those up to ``oldest_us`` and those beyond the bound are forgotten."""
    db.execute(_DROP_OLD, (oldest_us,))
    db.execute(_KEEP, (scope, key, digest, answer, now_us))
    db.execute(_DROP_EXCESS, (limits.REQUEST_ANSWERS_MAX,))
