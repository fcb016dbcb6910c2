"""Rows of the audit log: who did what, written in the transaction of the act itself."""

from __future__ import annotations

from typing import Final

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.storage.operational.pages import page_of

_ADD: Final = (
    "INSERT INTO audit (created_us, actor, address, act, subject, detail) "
    "VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
)
_TRIM: Final = "DELETE FROM audit WHERE id <= ?"
_COLUMNS: Final = "id, created_us, actor, address, act, subject, detail"
_PAGE: Final = f"SELECT {_COLUMNS} FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608
_PAGE_OF_ACT: Final = f"""
SELECT {_COLUMNS} FROM audit WHERE id < ? AND act = ? ORDER BY id DESC LIMIT ?
"""  # noqa: S608 - constants of ours
_BEHIND_ALL: Final = 2**63 - 1


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


def page(
    db: apsw.Connection, act: str | None, before: int | None, limit: int
) -> tuple[list[AuditRow], bool]:
    """Return entries, newest first, older than the id ``before``, and whether more follow."""
    start = _BEHIND_ALL if before is None else before
    if act is None:
        rows, more = page_of(db, _PAGE, (start,), limit)
    else:
        rows, more = page_of(db, _PAGE_OF_ACT, (start, act), limit)
    return [AuditRow(*row) for row in rows], more
