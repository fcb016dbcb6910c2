"""Rows of users' accounts: credits, usage, and the ledger that explains the credits.

The journal counts what it stores for each user, for ever, within its epoch. ``usage_mark`` and
``charged_mark`` say up to where those counts are settled: moved into ``usage`` and ``credits``.
An account whose epoch is empty has not met a journal yet: its marks hold in the first that comes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import (
    CreditsError,
    FieldProblem,
    InvalidInputError,
    UnknownUserError,
)
from ocean_core.storage.operational.pages import page_of

GRANT: Final = "grant"
DEDUCTION: Final = "deduction"
USAGE: Final = "usage"
JOURNAL: Final = "journal"
"""Who settles: the actor of entries of kind usage."""

_PLAN_UNKNOWN: Final = "free"

_COLUMNS: Final = (
    "user_id, id, plan, credits, usage, usage_epoch, usage_mark, charged_mark, created_us"
)
_INSERT: Final = f"INSERT INTO billing ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - fixed text
_GET: Final = f"SELECT {_COLUMNS} FROM billing WHERE user_id = ?"  # noqa: S608 - fixed text
_WITH_CREDITS: Final = (
    "SELECT user_id, credits, charged_mark, usage_epoch FROM billing WHERE credits > 0"
)
_SET_CREDITS: Final = "UPDATE billing SET credits = ? WHERE user_id = ?"
_SETTLE: Final = (
    "UPDATE billing SET credits = ?, usage = ?, usage_epoch = ?, usage_mark = ?, "
    "charged_mark = ? WHERE user_id = ?"
)
_ENTER: Final = (
    "INSERT INTO billing_ledger (user_id, created_us, kind, amount, credits, note, actor) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LEDGER: Final = (
    "SELECT id, created_us, kind, amount, credits, note, actor FROM billing_ledger "
    "WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?"
)
_LOST: Final = """
SELECT id, created_us FROM users WHERE id NOT IN (SELECT user_id FROM billing) ORDER BY id
"""
_ENTRIES: Final = "SELECT kind, amount, credits FROM billing_ledger WHERE user_id = ? ORDER BY id"
_MOST: Final = 2**63 - 1


class BillingRow(msgspec.Struct, frozen=True):
    """One account as it is settled."""

    user_id: str
    id: str
    plan: str
    credits: int
    usage: int
    usage_epoch: str
    usage_mark: int
    charged_mark: int
    created_us: int

    def unsettled_usage(self, epoch: str, stored: int) -> int:
        """Return how many readings the journal has stored since they were last settled.

        Another epoch is another journal, which began at 0. A count below the mark within the same
        epoch means that the journal has lost its end: what it counts from there on is new.
        """
        return _since(self.usage_mark, stored, same=self.usage_epoch in {"", epoch})

    def unsettled_charges(self, epoch: str, charged: int) -> int:
        """Return how many credits the journal has charged since they were last settled."""
        return _since(self.charged_mark, charged, same=self.usage_epoch in {"", epoch})


class LedgerRow(msgspec.Struct, frozen=True):
    """One change of credits, and what was left after it."""

    id: int
    created_us: int
    kind: str
    amount: int
    credits: int
    note: str
    actor: str


class Change(msgspec.Struct, frozen=True):
    """Credits to be given or, below 0, taken.

    A deduction leaves untouched what the journal has ``charged`` in this ``epoch`` and is not
    settled, and takes ``at_most`` so much, if that is given: the rest is reserved.
    """

    user_id: str
    amount: int
    note: str
    actor: str
    epoch: str
    charged: int
    at_most: int | None = None


class Counts(msgspec.Struct, frozen=True):
    """What the journal has counted for a user in this epoch."""

    user_id: str
    stored: int
    charged: int


class Balance(msgspec.Struct, frozen=True):
    """What decides whether a user can pay."""

    credits: int
    charged_mark: int
    epoch: str

    def unsettled_charges(self, epoch: str, charged: int) -> int:
        """Return how many credits the journal has charged since they were last settled."""
        return _since(self.charged_mark, charged, same=self.epoch in {"", epoch})


def insert(db: apsw.Connection, row: BillingRow, actor: str) -> None:
    """Add the account of a new user; what it starts with is the ledger's first entry."""
    db.execute(_INSERT, msgspec.structs.astuple(row))
    if row.credits:
        entry = (
            row.user_id,
            row.created_us,
            GRANT,
            row.credits,
            row.credits,
            "initial credits",
            actor,
        )
        db.execute(_ENTER, entry)


def get(db: apsw.Connection, user_id: str) -> BillingRow:
    """Return an account. Raises UnknownUserError."""
    found = db.execute(_GET, (user_id,)).fetchone()
    if found is None:
        raise UnknownUserError(f"there is no user {user_id[:80]!r}")
    return BillingRow(*found)


def balances(db: apsw.Connection) -> dict[str, Balance]:
    """Return all accounts that have credits; the others have none."""
    return {row[0]: Balance(*row[1:]) for row in db.execute(_WITH_CREDITS)}


def change(db: apsw.Connection, now_us: int, order: Change) -> BillingRow:
    """Give or take credits; return the account after it.

    Raises UnknownUserError, CreditsError if fewer credits than asked for are free, and
    InvalidInputError if there would be more than ``limits.CREDITS_MAX``.
    """
    row = get(db, order.user_id)
    left = row.credits + order.amount
    if order.amount < 0:
        free = max(0, row.credits - row.unsettled_charges(order.epoch, order.charged))
        if order.at_most is not None:
            free = min(free, order.at_most)
        if free + order.amount < 0:
            raise CreditsError(
                f"{-order.amount} credits were to be taken, {free} are free",
                fields=(FieldProblem("amount", str(order.amount), f"at least {-free}"),),
            )
    if left > limits.CREDITS_MAX:
        raise InvalidInputError(
            f"the user would have {left} credits",
            fields=(
                FieldProblem(
                    "amount", str(order.amount), f"at most {limits.CREDITS_MAX - row.credits}"
                ),
            ),
        )
    db.execute(_SET_CREDITS, (left, order.user_id))
    kind = GRANT if order.amount > 0 else DEDUCTION
    db.execute(_ENTER, (order.user_id, now_us, kind, order.amount, left, order.note, order.actor))
    return msgspec.structs.replace(row, credits=left)


def settle(
    db: apsw.Connection, now_us: int, epoch: str, counts: Sequence[Counts]
) -> dict[str, Balance]:
    """Move what the journal has counted into the accounts; return those that changed.

    Doing it again with the same counts changes nothing.
    """
    changed: dict[str, Balance] = {}
    for counted in counts:
        found = db.execute(_GET, (counted.user_id,)).fetchone()
        if found is None:
            continue
        row = BillingRow(*found)
        marks = (row.usage_epoch, row.usage_mark, row.charged_mark)
        if marks == (epoch, counted.stored, counted.charged):
            continue
        charged = row.unsettled_charges(epoch, counted.charged)
        # Charged is only what was reserved before; if it is more all the same, nobody owes it.
        paid = min(charged, row.credits)
        left = row.credits - paid
        usage = row.usage + row.unsettled_usage(epoch, counted.stored)
        db.execute(_SETTLE, (left, usage, epoch, counted.stored, counted.charged, row.user_id))
        if paid:
            note = "readings stored" if paid == charged else f"{charged} readings stored"
            db.execute(_ENTER, (row.user_id, now_us, USAGE, -paid, left, note, JOURNAL))
        changed[row.user_id] = Balance(left, counted.charged, epoch)
    return changed


def ledger(
    db: apsw.Connection, user_id: str, *, limit: int, after: int | None
) -> tuple[list[LedgerRow], bool]:
    """Return entries, newest first, older than entry ``after``, and whether more follow.

    Raises UnknownUserError.
    """
    get(db, user_id)
    start = _MOST if after is None else after
    found = page_of(db, _LEDGER, (user_id, start), limit)
    return [LedgerRow(*row) for row in found.rows], found.more


def renew_missing(db: apsw.Connection, random_bytes: Callable[[int], bytes]) -> int:
    """Make anew the accounts that a salvage could not save; return how many.

    Credits are those after the last entry of the ledger, and what its entries of kind usage took
    is not taken again: it is marked as settled in the journal's epoch, which is not known here. If
    some of it was taken in an earlier epoch, the user pays that much less in this one. Usage
    begins with what the journal has counted.
    """
    lost: list[tuple[Any, ...]] = db.execute(_LOST).fetchall()
    for user_id, created_us in lost:
        taken = left = 0
        for kind, amount, credits_left in db.execute(_ENTRIES, (user_id,)):
            taken += max(0, -amount) if kind == USAGE else 0
            left = max(0, credits_left)
        row = BillingRow(
            user_id, str(uuid.UUID(bytes=random_bytes(16), version=4)), _PLAN_UNKNOWN,
            left, 0, "", 0, min(taken, _MOST), created_us,
        )  # fmt: skip
        db.execute(_INSERT, msgspec.structs.astuple(row))
    return len(lost)


def _since(mark: int, counted: int, *, same: bool) -> int:
    if not same:
        return counted
    return max(0, counted - mark)
