"""What billing routes take and return."""

from __future__ import annotations

import msgspec


class Account(msgspec.Struct, frozen=True):
    """An account as the API shows it: the original's fields, and whether credits are demanded."""

    id: str
    user_id: str
    plan: str
    credits: int
    usage: int
    created_at: str
    enforced: bool


class Credits(msgspec.Struct, frozen=True):
    """The original's answer to added credits: what the user has now."""

    user_id: str
    credits: int


class CreditsChange(msgspec.Struct, forbid_unknown_fields=True):
    """Credits to give (above 0) or take (below 0); ``amount`` may stand in the address instead."""

    amount: int | msgspec.UnsetType = msgspec.UNSET
    note: str = ""


class LedgerEntry(msgspec.Struct, frozen=True):
    """One change of credits; ``credits`` is what was left after it."""

    id: int
    created_at: str
    kind: str
    amount: int
    credits: int
    note: str
    actor: str


class Ledger(msgspec.Struct):
    """A page, newest first; ``next`` is what to send as ``after``, null at the end."""

    entries: list[LedgerEntry]
    next: str | None
