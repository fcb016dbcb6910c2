"""Accounts: credits that never go below zero, usage that is counted once, a ledger that adds up."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from ocean_core.buffer.port import UsageCounts
from ocean_core.model import limits
from ocean_core.model.errors import (
    CreditsError,
    IdempotencyMismatchError,
    InvalidInputError,
    StoreUnavailableError,
    UnknownUserError,
)
from ocean_core.service.accounts.billing import BillingService
from support.accounts import (
    ADMIN_ORIGIN,
    LOCAL_ORIGIN,
    UNKNOWN_ID,
    AccountsLab,
    on_accounts,
)


async def add(lab: AccountsLab, user_id: str, amount: int, key: str | None = None) -> int:
    """Add credits; return what the answer says."""
    told = await lab.billing.add_credits(user_id, amount, "", LOCAL_ORIGIN, key)
    answer = msgspec.json.decode(told)
    assert list(answer) == ["user_id", "credits"]
    return int(answer["credits"])


async def check_ledger(lab: AccountsLab) -> None:
    """What must hold whatever happened."""
    rows = await lab.rows("billing_ledger")
    for account in await lab.rows("billing"):
        entries = [row for row in rows if row["user_id"] == account["user_id"]]
        left = 0
        for entry in entries:
            left += entry["amount"]
            assert entry["credits"] == left
            assert left >= 0
        assert account["credits"] == left


def test_credits_are_given_taken_and_explained(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        assert await add(lab, anna, 100) == 100
        lab.clock.advance(1)
        told = await lab.billing.add_credits(anna, -30, "entered twice", ADMIN_ORIGIN)
        assert told == msgspec.json.encode({"user_id": anna, "credits": 70})
        account = await lab.billing.get(anna)
        assert (account.user_id, account.credits, account.enforced) == (anna, 70, False)
        ledger = await lab.billing.ledger(anna, limit=10, after=None)
        assert [
            (entry.kind, entry.amount, entry.credits, entry.note, entry.actor)
            for entry in ledger.entries
        ] == [("deduction", -30, 70, "entered twice", "key:k1"), ("grant", 100, 100, "", "local")]
        assert ledger.next is None
        assert (await lab.acts()).count("billing.add_credits") == 2
        await check_ledger(lab)

    on_accounts(tmp_path, test)


@pytest.mark.parametrize(
    "amount",
    [
        0,
        limits.CREDITS_MAX + 1,
        -limits.CREDITS_MAX - 1,
        pytest.param(-(10**5000), id="more digits than Python writes"),
    ],
)
def test_amounts_that_are_refused(tmp_path: Path, amount: int) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        with pytest.raises(InvalidInputError) as caught:
            await add(lab, anna, amount)
        assert caught.value.fields[0].field == "amount"
        assert await lab.rows("billing_ledger") == []

    on_accounts(tmp_path, test)


def test_bounds_of_credits(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        assert await add(lab, anna, limits.CREDITS_MAX) == limits.CREDITS_MAX
        with pytest.raises(InvalidInputError):
            await add(lab, anna, 1)
        assert await add(lab, anna, -limits.CREDITS_MAX) == 0
        with pytest.raises(CreditsError) as caught:
            await add(lab, anna, -1)
        assert caught.value.fields[0].field == "amount"
        with pytest.raises(InvalidInputError):
            await lab.billing.add_credits(anna, 1, "x" * 257, LOCAL_ORIGIN)
        with pytest.raises(InvalidInputError):
            await lab.billing.add_credits(anna, 1, "a\nb", LOCAL_ORIGIN)
        assert len(await lab.rows("billing_ledger")) == 2
        await check_ledger(lab)

    on_accounts(tmp_path, test)


def test_unknown_user_has_no_account(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        with pytest.raises(UnknownUserError):
            await lab.billing.get(UNKNOWN_ID)
        with pytest.raises(UnknownUserError):
            await lab.billing.ledger(UNKNOWN_ID, limit=1, after=None)
        for amount in (5, -5):
            with pytest.raises(UnknownUserError):
                await add(lab, UNKNOWN_ID, amount)
        assert await lab.acts() == []

    on_accounts(tmp_path, test)


def test_repeat_changes_nothing_and_gets_the_first_answer(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna, ben = await lab.user("anna"), await lab.user("ben")
        await add(lab, anna, 100)
        assert await asyncio.gather(*(add(lab, anna, -80, "k") for _ in range(5))) == [20] * 5
        await lab.restart(enforce=True)
        assert await add(lab, anna, 1000) == 1020
        assert await add(lab, anna, -80, "k") == 20
        for user_id, amount in ((anna, -81), (ben, -80)):
            with pytest.raises(IdempotencyMismatchError):
                await add(lab, user_id, amount, "k")
        with pytest.raises(IdempotencyMismatchError):
            await lab.billing.add_credits(anna, -80, "another note", LOCAL_ORIGIN, "k")
        # A refused change is not remembered: it may work next time.
        with pytest.raises(CreditsError):
            await add(lab, ben, -5, "later")
        await add(lab, ben, 5)
        assert await add(lab, ben, -5, "later") == 0
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_concurrent_deductions_never_overdraw(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        told = await asyncio.gather(
            *(add(lab, anna, -7) for _ in range(40)), return_exceptions=True
        )
        assert sum(isinstance(one, int) for one in told) == 14
        assert (await lab.billing.get(anna)).credits == 2
        assert lab.billing.balance_of(anna) == 2
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_concurrent_deductions_never_overdraw_without_enforcement(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        told = await asyncio.gather(
            *(add(lab, anna, -7) for _ in range(40)), return_exceptions=True
        )
        assert sum(isinstance(one, int) for one in told) == 14
        assert (await lab.billing.get(anna)).credits == 2

    on_accounts(tmp_path, test)


async def yields(times: int) -> None:
    """Let others go first so often."""
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(6))
def test_readings_deductions_and_settling_at_once_never_overdraw(tmp_path: Path, seed: int) -> None:
    """As the ingest policy does it: reserve, store (or fail to), charge, release."""
    rng = random.Random(seed)

    async def test(lab: AccountsLab) -> None:
        users = [await lab.user(name) for name in ("anna", "ben")]
        for user_id in users:
            await add(lab, user_id, 500)
        stored, taken = dict.fromkeys(users, 0), dict.fromkeys(users, 0)

        async def ingest(user_id: str) -> None:
            size = rng.randint(1, 20)
            try:
                lab.billing.reserve(user_id, size)
            except CreditsError:
                return
            await yields(rng.randint(0, 6))
            if rng.random() < 0.8:
                stored[user_id] += size
                lab.journal.store(user_id, size, charged=True)
                await yields(rng.randint(0, 1))
            lab.billing.release(user_id, size)

        async def deduct(user_id: str) -> None:
            size = rng.randint(1, 60)
            with suppress(CreditsError):
                await add(lab, user_id, -size)
                taken[user_id] += size

        for _ in range(12):
            work: list[Any] = [ingest(user_id) for user_id in users for _ in range(10)]
            work += [deduct(user_id) for user_id in users for _ in range(2)]
            work += [lab.billing.settle(), lab.billing.settle()]
            rng.shuffle(work)
            await asyncio.gather(*work)
        await lab.billing.settle()
        for user_id in users:
            account = await lab.billing.get(user_id)
            assert account.usage == stored[user_id]
            assert account.credits == 500 - stored[user_id] - taken[user_id]
            assert account.credits >= 0
            assert lab.billing.balance_of(user_id) == account.credits
        assert lab.billing._reserved == {}
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_reservation_keeps_a_deduction_out_and_the_other_way_round(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 10)
        lab.billing.reserve(anna, 5)
        with pytest.raises(CreditsError):
            await add(lab, anna, -6)
        assert await add(lab, anna, -5) == 5
        with pytest.raises(CreditsError):
            lab.billing.reserve(anna, 1)
        lab.billing.release(anna, 5)
        lab.billing.reserve(anna, 5)
        lab.billing.release(anna, 5)
        deducting = asyncio.ensure_future(add(lab, anna, -4))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(CreditsError):
            lab.billing.reserve(anna, 2)
        lab.billing.reserve(anna, 1)
        assert await deducting == 1
        # Too large a deduction holds nothing while it is refused.
        refused = asyncio.ensure_future(add(lab, anna, -1000))
        await asyncio.sleep(0)
        assert lab.billing.balance_of(anna) == 0
        lab.billing.release(anna, 1)
        assert lab.billing.balance_of(anna) == 1
        with pytest.raises(CreditsError):
            await refused

    on_accounts(tmp_path, test, enforce=True)


def test_deduction_counts_though_the_caller_left(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 10)
        leaving = asyncio.ensure_future(add(lab, anna, -8))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        await lab.user("later")
        assert (await lab.billing.get(anna)).credits == 2
        assert lab.billing.balance_of(anna) == 2
        with pytest.raises(CreditsError):
            lab.billing.reserve(anna, 3)

    on_accounts(tmp_path, test, enforce=True)


def test_without_enforcement_readings_cost_nothing(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        assert not lab.billing.enforced
        lab.billing.reserve(anna, 10**9)
        lab.billing.reserve(UNKNOWN_ID, 10**9)
        lab.journal.store(anna, 500)
        lab.billing.release(anna, 10**9)
        await lab.billing.settle()
        account = await lab.billing.get(anna)
        assert (account.usage, account.credits) == (500, 0)
        assert await lab.rows("billing_ledger") == []

    on_accounts(tmp_path, test)


def test_nobody_pays_who_is_not_known(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        with pytest.raises(CreditsError):
            lab.billing.reserve(UNKNOWN_ID, 1)
        lab.journal.store(UNKNOWN_ID, 5, charged=True)
        await lab.billing.settle()
        assert await lab.rows("billing") == []

    on_accounts(tmp_path, test, enforce=True)


def test_usage_shows_before_and_after_it_is_settled(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        lab.journal.store(anna, 30, charged=True)
        for _ in range(3):
            account = await lab.billing.get(anna)
            assert (account.usage, account.credits) == (30, 70)
            assert lab.billing.balance_of(anna) == 70
            await lab.billing.settle()
        (usage, _) = (await lab.billing.ledger(anna, limit=9, after=None)).entries
        assert (usage.kind, usage.amount, usage.credits, usage.actor) == (
            "usage", -30, 70, "journal",
        )  # fmt: skip
        # The deduction's answer knows of what is not settled.
        lab.journal.store(anna, 10, charged=True)
        assert await add(lab, anna, -20) == 40
        with pytest.raises(CreditsError):
            await add(lab, anna, -41)
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_settling_writes_only_what_has_moved(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        users = [await lab.user(f"u{number}") for number in range(3)]
        for user_id in users:
            lab.journal.store(user_id, 5)
        await lab.billing.settle()
        written: list[object] = []
        real = lab.store.write

        async def watched(command: Any) -> Any:
            written.append(command)
            return await real(command)

        lab.store.write = watched  # type: ignore[method-assign]
        await lab.billing.settle()
        assert written == []
        lab.journal.store(users[1], 1)
        await lab.billing.settle()
        assert len(written) == 1
        assert [row["usage"] for row in await lab.rows("billing") if row["usage"] == 6] == [6]

    on_accounts(tmp_path, test)


@pytest.mark.parametrize("settled_before_crash", [True, False])
def test_crash_counts_nothing_twice_and_loses_nothing(
    tmp_path: Path, *, settled_before_crash: bool
) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        for _ in range(5):
            lab.journal.store(anna, 7, charged=True)
            if settled_before_crash:
                await lab.billing.settle()
            await lab.restart()
            await lab.billing.settle()
            await lab.billing.settle()
        account = await lab.billing.get(anna)
        assert (account.usage, account.credits) == (35, 65)
        assert lab.billing.balance_of(anna) == 65
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_settling_again_and_again_counts_once(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        for life in range(3):
            for step in range(4):
                lab.journal.store(anna, 5, charged=True)
                await asyncio.gather(*(lab.billing.settle() for _ in range(3)))
                account = await lab.billing.get(anna)
                done = 5 * (4 * life + step + 1)
                assert (account.usage, account.credits) == (done, 100 - done)
            await lab.restart()
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_new_epoch_counts_from_zero(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        lab.journal.store(anna, 30, charged=True)
        await lab.billing.settle()
        # The journal was restored from elsewhere: another one, with counts of its own.
        lab.journal.epoch = "epoch-2"
        lab.journal.counts = {anna: UsageCounts(4, 4)}
        await lab.restart()
        account = await lab.billing.get(anna)
        assert (account.usage, account.credits) == (34, 66)
        assert lab.billing.balance_of(anna) == 66
        lab.journal.store(anna, 30, charged=True)
        account = await lab.billing.get(anna)
        assert (account.usage, account.credits) == (64, 36)
        await lab.billing.settle()
        assert (await lab.billing.get(anna)).usage == 64
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_journal_that_lost_its_end_counts_on_from_there(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        lab.journal.store(anna, 30, charged=True)
        await lab.billing.settle()
        lab.journal.counts = {anna: UsageCounts(20, 20)}
        await lab.restart()
        account = await lab.billing.get(anna)
        # What was stored once and paid stays counted; usage never goes down.
        assert (account.usage, account.credits) == (30, 70)
        assert lab.billing.balance_of(anna) == 70
        lab.journal.store(anna, 5, charged=True)
        account = await lab.billing.get(anna)
        assert (account.usage, account.credits) == (35, 65)
        assert lab.billing.balance_of(anna) == 65
        await lab.billing.settle()
        assert (await lab.billing.get(anna)).usage == 35
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_journal_that_lost_its_end_while_the_first_settling_failed(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 100)
        lab.journal.store(anna, 30, charged=True)
        await lab.billing.settle()
        lab.journal.counts = {anna: UsageCounts(20, 20)}
        real = lab.store.write

        async def full(command: Any) -> Any:
            raise StoreUnavailableError("full")

        lab.store.write = full  # type: ignore[method-assign]
        lab.billing = BillingService(lab.store, lab.clock, lab.journal, lab.settings)
        await lab.billing.load()
        lab.journal.store(anna, 15, charged=True)
        assert lab.billing.balance_of(anna) == 55
        with pytest.raises(StoreUnavailableError):
            await lab.billing.settle()
        lab.store.write = real  # type: ignore[method-assign]
        for _ in range(3):
            await lab.billing.settle()
            account = await lab.billing.get(anna)
            assert (account.usage, account.credits) == (45, 55)
            assert lab.billing.balance_of(anna) == 55

    on_accounts(tmp_path, test, enforce=True)


def test_more_charged_than_there_is_leaves_zero(tmp_path: Path) -> None:
    """It cannot happen through reservations; if it does all the same, nobody owes it."""

    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 10)
        lab.journal.store(anna, 25, charged=True)
        assert (await lab.billing.get(anna)).credits == 0
        assert lab.billing.balance_of(anna) == 0
        await lab.billing.settle()
        account = await lab.billing.get(anna)
        assert (account.credits, account.usage) == (0, 25)
        assert await add(lab, anna, 5) == 5
        await check_ledger(lab)

    on_accounts(tmp_path, test, enforce=True)


def test_readings_wait_until_credits_are_known(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 10)
        fresh = BillingService(lab.store, lab.clock, lab.journal, lab.settings)
        with pytest.raises(StoreUnavailableError):
            fresh.reserve(anna, 1)
        await fresh.settle()
        fresh.reserve(anna, 10)

    on_accounts(tmp_path, test, enforce=True)


def test_ledger_is_paged_newest_first(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna, ben = await lab.user("anna"), await lab.user("ben")
        for amount in range(1, 8):
            await add(lab, anna, amount)
            await add(lab, ben, 1000)
        found: list[int] = []
        after: int | None = None
        while True:
            page = await lab.billing.ledger(anna, limit=3, after=after)
            found += [entry.amount for entry in page.entries]
            if page.next is None:
                break
            after = int(page.next)
        assert found == [7, 6, 5, 4, 3, 2, 1]

    on_accounts(tmp_path, test)


def test_ledger_cannot_be_changed(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await add(lab, anna, 5)
        db = apsw.Connection(str(tmp_path / "clisonix_operational.db"))
        for statement in (
            "UPDATE billing_ledger SET amount = 1",
            "DELETE FROM billing_ledger",
            "UPDATE billing SET credits = -1",
        ):
            with pytest.raises(apsw.ConstraintError):
                db.execute(statement)
        db.close()

    on_accounts(tmp_path, test)
