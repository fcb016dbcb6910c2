"""Reading the audit log; ``audit`` writes it."""

from __future__ import annotations

from typing import Final

import apsw

from ocean_core.storage.operational.audit import AuditRow
from ocean_core.storage.operational.pages import page_of

_COLUMNS: Final = "id, created_us, actor, address, act, subject, detail"
_PAGE: Final = f"SELECT {_COLUMNS} FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608
_PAGE_OF_ACT: Final = f"""
SELECT {_COLUMNS} FROM audit WHERE id < ? AND act = ? ORDER BY id DESC LIMIT ?
"""  # noqa: S608 - constants of ours
_BEHIND_ALL: Final = 2**63 - 1


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
