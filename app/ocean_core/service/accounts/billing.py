"""Accounts of users: what they have used, what they may still use, and why.

The journal counts, in the transaction that stores readings, how many it has stored for each user
and how many of those cost credits. Those counts survive kill -9 with the readings themselves. Every
few seconds ``settle`` moves them into the users' accounts, marking up to where: done twice, or not
done at all before a crash, nothing is counted twice or lost.

With ``billing.enforce``, readings are let in only against a *reservation*, made before they are
stored and released when the journal has charged them (or they were not stored). What is free is

    credits - charges of the journal that are not settled - reservations

and lives in memory, on the event loop, so that no two requests can be given the same credit. A
deduction is a reservation too, until it is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from ocean_core.buffer.port import UsageCounts
from ocean_core.config.settings import BillingSettings
from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import (
    CreditsError,
    FieldProblem,
    OceanError,
    StoreUnavailableError,
)
from ocean_core.model.receipt import IdempotencyKey
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.service.accounts.billing_answers import Account, Credits, Ledger, LedgerEntry
from ocean_core.service.accounts.checks import check_text, refused
from ocean_core.service.accounts.repeats import KEPT_US, repeat_key
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.storage.operational import audit, billing, request_answers
from ocean_core.storage.operational.billing import Balance, BillingRow, Change, Counts
from ocean_core.storage.operational.store import OperationalStore

NOTE_BYTES_MAX: Final = limits.LEDGER_NOTE_BYTES_MAX
_SETTLED_AT_ONCE: Final = 500
_NO_CREDITS: Final = Balance(0, 0, "")


class UsageSource(Protocol):
    """The counts of the journal: what it has stored for each user in its epoch, and charged.

    They only grow, except after damage.
    """

    @property
    def epoch(self) -> str:
        """The journal's epoch."""
        ...

    def usage_of(self, user_id: str) -> UsageCounts:
        """Return what is counted for a user, zeros for one of whom nothing is."""
        ...

    def counted_users(self) -> Iterable[str]:
        """Return the ids of all users for whom something is counted."""
        ...


class BillingService:
    """What the billing routes and the ingest policy call."""

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        usage: UsageSource,
        billing: BillingSettings,
    ) -> None:
        self._store = store
        self._clock = clock
        self._usage = usage
        self._settings = billing
        self._balances: dict[str, Balance] = {}
        self._reserved: dict[str, int] = {}
        self._is_loaded = False
        self._changed_while_loading: set[str] | None = None
        self._settling = asyncio.Lock()
        self._at_start: dict[str, UsageCounts] | None = None
        self._settled: dict[str, UsageCounts] = {}

    @property
    def enforced(self) -> bool:
        """Whether readings cost credits."""
        return self._settings.enforce

    @property
    def is_loaded(self) -> bool:
        """Whether what is stored was taken over."""
        return self._is_loaded

    async def load(self) -> None:
        """Take over what is stored, before the first reading comes in. Raises errors of the store.

        What the journal has counted by now is settled first, if the disk allows: should the journal
        have lost its end in a power cut, its counts start again from here.
        """
        if self._at_start is None:
            self._at_start = self._counts()
        await self._load()
        with suppress(OceanError):
            await self.settle()

    def knows(self, account: BillingRow) -> None:
        """Take note of an account that was made just now."""
        self._note(account.user_id, Balance(account.credits, 0, ""))

    # --- for the ingest policy ---

    def balance_of(self, user_id: str) -> int:
        """Return the free credits of a user, from memory; only meaningful when enforced."""
        balance = self._balances.get(user_id, _NO_CREDITS)
        charged = self._usage.usage_of(user_id).charged
        unsettled = balance.unsettled_charges(self._usage.epoch, charged)
        return max(0, balance.credits - unsettled - self._reserved.get(user_id, 0))

    def reserve(self, user_id: str, readings: int) -> None:
        """Set one credit aside for each reading. Raises CreditsError if fewer are free.

        StoreUnavailableError is for a start on a disk that could not be read yet. Without
        ``billing.enforce`` it does nothing.
        """
        if not self.enforced:
            return
        if not self._is_loaded:
            raise StoreUnavailableError("the credits of users are not known yet", retry_after_s=1)
        free = self.balance_of(user_id)
        if free < readings:
            raise CreditsError(f"{readings} readings cost as many credits, {free} are free")
        self._reserved[user_id] = self._reserved.get(user_id, 0) + readings

    def release(self, user_id: str, readings: int) -> None:
        """End a reservation: by now the readings are counted as charged, or were not stored."""
        if not self.enforced:
            return
        left = self._reserved.get(user_id, 0) - readings
        if left > 0:
            self._reserved[user_id] = left
        else:
            self._reserved.pop(user_id, None)

    # --- for the routes ---

    async def get(self, user_id: str) -> Account:
        """Return an account as of now. Raises UnknownUserError and the errors of the store."""
        row = await self._store.read(partial(billing.get, user_id=user_id))
        # Asked after the row was read: never less than what the row's marks say.
        counted = self._usage.usage_of(user_id)
        epoch = self._usage.epoch
        return Account(
            id=row.id,
            user_id=row.user_id,
            plan=row.plan,
            credits=max(0, row.credits - row.unsettled_charges(epoch, counted.charged)),
            usage=row.usage + row.unsettled_usage(epoch, counted.stored),
            created_at=iso_utc(row.created_us),
            enforced=self.enforced,
        )

    async def add_credits(
        self, user_id: str, amount: int, note: str, origin: Origin, key: str | None = None
    ) -> bytes:
        """Give credits, or take them if ``amount`` is below 0; return the answer's JSON.

        ``key`` is the request's Idempotency-Key: a repeat gets the first answer again.

        Raises InvalidInputError, UnknownUserError, CreditsError (fewer are free, nothing was
        taken), IdempotencyKeyError, IdempotencyMismatchError and the errors of the store.
        """
        most = limits.CREDITS_MAX
        if amount == 0 or abs(amount) > most:
            # Python refuses to write out integers of thousands of digits.
            found = str(amount) if abs(amount) < 10**40 else "a far larger number"
            expected = f"a whole number from -{most} to {most}, not 0"
            raise refused(FieldProblem("amount", found, expected))
        check_text("note", note, NOTE_BYTES_MAX)
        repeat = None
        if key is not None:
            path = f"/api/ocean/billing/{user_id}/add-credits"
            same = msgspec.json.encode([amount, note])
            repeat = repeat_key(key, origin.principal, path, same)
        return await uninterrupted(self._change(user_id, amount, note, origin, repeat))

    async def ledger(self, user_id: str, *, limit: int, after: int | None) -> Ledger:
        """Return entries, newest first, older than entry ``after``. Raises UnknownUserError.

        What was used until now is among them, unless the disk takes no writes.
        """
        if after is None:
            with suppress(OceanError):
                await self.settle()
        rows, more = await self._store.read(
            partial(billing.ledger, user_id=user_id, limit=limit, after=after)
        )
        entries = [
            LedgerEntry(
                row.id,
                iso_utc(row.created_us),
                row.kind,
                row.amount,
                row.credits,
                row.note,
                row.actor,
            )
            for row in rows
        ]
        return Ledger(entries, str(rows[-1].id) if more else None)

    # --- in the background ---

    async def settle(self) -> None:
        """Move the journal's counts into the accounts. Raises errors of the store.

        A failed one is made up for by the next.
        """
        await uninterrupted(self._settle())

    async def _settle(self) -> None:
        # Two at once could bring the older counts last, which would look like a journal cut short.
        async with self._settling:
            if not self._is_loaded:
                await self._load()
            await self._settle_moved()

    async def _settle_moved(self) -> None:
        steps: list[Counts] = []
        at_start = self._at_start or {}
        for user_id, counted in self._counts().items():
            if self._settled.get(user_id) != counted:
                # First as at the start: a count below its mark means a journal that lost its end,
                # and whatever it counted since then is new.
                start = at_start.get(user_id)
                if start is not None:
                    steps.append(Counts(user_id, start.stored, start.charged))
                steps.append(Counts(user_id, counted.stored, counted.charged))
        for first in range(0, len(steps), _SETTLED_AT_ONCE):
            part = steps[first : first + _SETTLED_AT_ONCE]
            changed = await self._store.write(
                partial(
                    billing.settle,
                    now_us=self._clock.now_us(), epoch=self._usage.epoch, counts=part,
                )
            )  # fmt: skip
            for counts in part:
                self._settled[counts.user_id] = UsageCounts(counts.stored, counts.charged)
                at_start.pop(counts.user_id, None)
            for user_id, balance in changed.items():
                self._note(user_id, balance)

    async def _change(
        self, user_id: str, amount: int, note: str, origin: Origin, repeat: IdempotencyKey | None
    ) -> bytes:
        """Commit a change of credits and note it in memory, both or neither."""
        at_most = held = None
        if self.enforced and amount < 0:
            at_most = self.balance_of(user_id)
            if at_most >= -amount:
                # Nobody else is given these until it is known whether they are taken.
                held = -amount
                self._reserved[user_id] = self._reserved.get(user_id, 0) + held
        order = Change(
            user_id, amount, note, origin.principal.actor,
            self._usage.epoch, self._usage.usage_of(user_id).charged, at_most,
        )  # fmt: skip
        try:
            answer, row = await self._store.write(
                partial(_change, self._clock.now_us(), order, origin, repeat)
            )
            if row is not None:
                self._note(user_id, Balance(row.credits, row.charged_mark, row.usage_epoch))
            return answer
        finally:
            if held:
                self.release(user_id, held)

    async def _load(self) -> None:
        if self.enforced:
            changed: set[str] = set()
            self._changed_while_loading = changed
            balances = await self._store.read(billing.balances)
            for user_id in changed:
                balances[user_id] = self._balances[user_id]
            for user_id, counted in (self._at_start or {}).items():
                balance = balances.get(user_id, _NO_CREDITS)
                if balance.epoch == self._usage.epoch and balance.charged_mark > counted.charged:
                    balances[user_id] = Balance(balance.credits, counted.charged, balance.epoch)
            self._balances = balances
            self._changed_while_loading = None
        self._is_loaded = True

    def _note(self, user_id: str, balance: Balance) -> None:
        if not self.enforced:
            return
        self._balances[user_id] = balance
        if self._changed_while_loading is not None:
            self._changed_while_loading.add(user_id)

    def _counts(self) -> dict[str, UsageCounts]:
        return {user_id: self._usage.usage_of(user_id) for user_id in self._usage.counted_users()}


def _change(
    now_us: int,
    order: Change,
    origin: Origin,
    repeat: IdempotencyKey | None,
    db: Any,  # noqa: ANN401 - the store's connection
) -> tuple[bytes, BillingRow | None]:
    """Return the answer and, unless it was given before, the account."""
    oldest_us = now_us - KEPT_US
    if repeat is not None:
        known = request_answers.replay(db, repeat.scope, repeat.key, repeat.digest, oldest_us)
        if known is not None:
            return known, None
    row = billing.change(db, now_us, order)
    left = max(0, row.credits - row.unsettled_charges(order.epoch, order.charged))
    detail: dict[str, object] = {"amount": order.amount, "credits": row.credits}
    audit.record(db, now_us, origin, "billing.add_credits", order.user_id, detail)
    answer = msgspec.json.encode(Credits(order.user_id, left))
    if repeat is not None:
        request_answers.keep(
            db, repeat.scope, repeat.key, repeat.digest, answer, now_us=now_us, oldest_us=oldest_us
        )
    return answer, row
