"""Rows of the audit log: who did what, written in the transaction of the act itself."""

from __future__ import annotations

from typing import Final

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin

_ADD: Final = (
    "INSERT INTO audit (created_us, actor, address, act, subject, detail) "
    "VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
)
_TRIM: Final = "DELETE FROM audit WHERE id <= ?"
_PAGE: Final = (
    "SELECT id, created_us, actor, address, act, subject, detail FROM audit "
    "WHERE id < ? ORDER BY id DESC LIMIT ?"
)
_NO_ID: Final = 2**63 - 1


class AuditRow(msgspec.Struct, frozen=True):
    """One entry. ``detail`` is a JSON object as text."""

    id: int
    created_us: int
    actor: str
    address: str
    act: str
    subject: str
    detail: str


def record(
    db: apsw.Connection,
    now_us: int,
    origin: Origin,
    act: str,
    subject: str,
    detail: dict[str, object],
) -> None:
    """Add an entry; the oldest beyond ``limits.AUDIT_ROWS_MAX`` go.

    ``detail`` must hold nothing secret: no password, no token, no key.
    """
    text = msgspec.json.encode(detail).decode()
    row = (now_us, origin.principal.actor, origin.address, act, subject, text)
    added = int(db.execute(_ADD, row).get)
    # Ids only grow, so the oldest are the smallest.
    db.execute(_TRIM, (added - limits.AUDIT_ROWS_MAX,))


def page(db: apsw.Connection, *, limit: int, after: int | None = None) -> list[AuditRow]:
    """Return entries, newest first; ``after`` is the id of the last one of the page before."""
    start = _NO_ID if after is None else after
    return [AuditRow(*row) for row in db.execute(_PAGE, (start, limit))]
