"""Waits after failed logins: how long, for whom, and who is spared."""

import pytest

from ocean_core.model import limits
from ocean_core.model.errors import LoginBackoffError
from ocean_core.obs.clock import ManualClock
from ocean_core.service.accounts.backoff import (
    SHARED_BACKOFF_S_MAX,
    SHARED_FREE_FAILURES,
    LoginBackoff,
)


def wait_of(backoff: LoginBackoff, account: str, address: str) -> int:
    """Return how long one has to wait; 0 if not at all."""
    try:
        backoff.check(account, address)
    except LoginBackoffError as error:
        return error.retry_after_s or -1
    return 0


def fail(backoff: LoginBackoff, clock: ManualClock, account: str, address: str, times: int) -> None:
    """Fail so often, each time as soon as it is allowed."""
    for _ in range(times):
        clock.advance(wait_of(backoff, account, address))
        backoff.failed(account, address)


def test_waits_double_after_the_free_failures() -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    for _ in range(limits.LOGIN_FREE_FAILURES):
        assert wait_of(backoff, "anna", "10.0.0.7") == 0
        backoff.failed("anna", "10.0.0.7")
    waits = []
    for _ in range(13):
        assert wait_of(backoff, "anna", "10.0.0.7") == 0
        backoff.failed("anna", "10.0.0.7")
        waits.append(wait_of(backoff, "anna", "10.0.0.7"))
        clock.advance(waits[-1] - 0.25)
        assert wait_of(backoff, "anna", "10.0.0.7") == 1, "not a moment before"
        clock.advance(0.25)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


def test_others_are_not_locked_out() -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    fail(backoff, clock, "anna", "10.6.6.6", 12)
    assert wait_of(backoff, "anna", "10.6.6.6") == 64
    assert wait_of(backoff, "anna", "10.0.0.7") == 0
    assert wait_of(backoff, "ben", "10.6.6.6") == 0


def test_success_clears_and_is_remembered() -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    fail(backoff, clock, "anna", "10.0.0.7", 8)
    backoff.succeeded("anna", "10.0.0.7")
    assert wait_of(backoff, "anna", "10.0.0.7") == 0
    # Somebody guesses at this account from everywhere.
    for number in range(SHARED_FREE_FAILURES + 30):
        backoff.failed("anna", f"10.1.{number}.1")
    assert wait_of(backoff, "anna", "10.2.2.2") == SHARED_BACKOFF_S_MAX
    assert wait_of(backoff, "anna", "10.0.0.7") == 0, "its owner passes"


def test_one_address_cannot_go_through_all_accounts() -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    for number in range(SHARED_FREE_FAILURES):
        backoff.failed(f"user{number}", "10.6.6.6")
    assert wait_of(backoff, "anna", "10.6.6.6") == 0
    waits = []
    for number in range(8):
        backoff.failed(f"other{number}", "10.6.6.6")
        waits.append(wait_of(backoff, "anna", "10.6.6.6"))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert wait_of(backoff, "anna", "10.0.0.7") == 0


def test_own_account_does_not_pay_for_guesses_at_others() -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    backoff.succeeded("mallory", "10.6.6.6")
    for number in range(SHARED_FREE_FAILURES + 7):
        backoff.failed(f"user{number}", "10.6.6.6")
    assert wait_of(backoff, "anna", "10.6.6.6") == 60
    backoff.check("mallory", "10.6.6.6")
    backoff.succeeded("mallory", "10.6.6.6")
    assert wait_of(backoff, "anna", "10.6.6.6") == 60


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.7", "10.0.0.7", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("10.0.0.7", "10.0.0.8", False),
        ("", "", True),
        ("unix", "unix", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, *, same: bool) -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    fail(backoff, clock, "anna", one, 8)
    assert (wait_of(backoff, "anna", other) > 0) == same


def test_failures_are_forgotten_after_a_while() -> None:
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    fail(backoff, clock, "anna", "10.0.0.7", 20)
    clock.advance(2 * limits.LOGIN_BACKOFF_S_MAX + 1)
    backoff.failed("anna", "10.0.0.7")
    assert wait_of(backoff, "anna", "10.0.0.7") == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGINS_REMEMBERED_MAX", 50)
    clock = ManualClock()
    backoff = LoginBackoff(clock)
    for number in range(1000):
        backoff.failed(f"user{number}", "10.6.6.6")
        backoff.succeeded(f"user{number}", "10.6.6.6")
        backoff.failed(f"other{number}", "10.6.6.6")
    assert len(backoff) <= 50
    assert len(backoff._welcome) <= 50
    # One's own count is among those used last, whatever else one floods the memory with.
    assert wait_of(backoff, "anna", "10.6.6.6") == SHARED_BACKOFF_S_MAX
