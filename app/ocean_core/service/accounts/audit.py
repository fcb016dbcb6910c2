"""The audit log, to be read: who did what, when, from where."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from ocean_core.obs.clock import iso_utc
from ocean_core.storage.operational import audit
from ocean_core.storage.operational.audit import AuditRow
from ocean_core.storage.operational.store import OperationalStore


class AuditEntry(msgspec.Struct):
    """One administrative act. ``actor`` is local, owner, key:<id> or session:<id>."""

    id: int
    created_at: str
    actor: str
    address: str
    act: str
    subject: str
    detail: dict[str, Any]


class AuditList(msgspec.Struct):
    """A page, newest first; ``next`` is what to send as ``after``, null at the end."""

    entries: list[AuditEntry]
    next: str | None


class AuditService:
    """What the audit route calls."""

    def __init__(self, store: OperationalStore) -> None:
        self._store = store

    async def page(self, act: str | None, before: int | None, limit: int) -> AuditList:
        """Return entries, of one act or of all, older than the one with the id ``before``."""
        rows, more = await self._store.read(
            partial(audit.page, act=act, before=before, limit=limit)
        )
        return AuditList([_entry(row) for row in rows], str(rows[-1].id) if more else None)


def _entry(row: AuditRow) -> AuditEntry:
    detail: Any = msgspec.Raw(row.detail.encode())
    return AuditEntry(
        row.id, iso_utc(row.created_us), row.actor, row.address, row.act, row.subject, detail
    )
