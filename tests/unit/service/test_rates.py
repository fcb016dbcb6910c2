"""Token buckets and fair shares."""

import pytest

from ocean_core.obs.clock import ManualClock
from ocean_core.service.rates import FairShare, RateBook, network_of


def test_a_bucket_lets_its_rate_through_and_says_when_to_come_again() -> None:
    clock = ManualClock()
    book = RateBook(clock, 10)
    taken = sum(book.take("a", 10) == 0 for _ in range(100))
    assert taken == 20, "two seconds' worth at once"
    wait_s = book.take("a", 10)
    assert wait_s == 1
    clock.advance(wait_s)
    assert book.take("a", 10) == 0


def test_over_a_long_time_the_rate_holds_whatever_the_pace() -> None:
    clock = ManualClock()
    book = RateBook(clock, 10)
    taken = 0
    for _ in range(1000):
        clock.advance(0.05)
        taken += sum(book.take("a", 100, 7) == 0 for _ in range(5)) * 7
    assert taken == pytest.approx(50 * 100, rel=0.06)


def test_a_batch_larger_than_the_bucket_passes_and_is_paid_off() -> None:
    clock = ManualClock()
    book = RateBook(clock, 10)
    assert book.take("a", 10, 1000) == 0
    wait_s = book.take("a", 10)
    assert wait_s == 99, "980 in debt, one token more, at 10 per second"
    clock.advance(wait_s - 1)
    assert book.take("a", 10) > 0
    clock.advance(1)
    assert book.take("a", 10) == 0


def test_buckets_do_not_touch_each_other_and_are_bounded() -> None:
    book = RateBook(ManualClock(), 3)
    while book.take("flood", 1) == 0:
        pass
    assert book.take("other", 1) == 0
    for number in range(10):
        book.take(f"n{number}", 1)
    assert len(book) == 3


def test_a_flood_leaves_room_for_others() -> None:
    share = FairShare(1000)
    while share.reserve("flood", 10):
        pass
    assert share.held == 500, "alone: half"
    assert share.reserve("calm", 10)
    assert share.reserve("calm", 10)
    assert not share.reserve("flood", 10)


def test_many_floods_still_leave_room_for_one_more() -> None:
    share = FairShare(1000)
    for name in ("a", "b", "c"):
        while share.reserve(name, 10):
            pass
    assert share.held < 1000
    assert share.reserve("calm", 10)


def test_more_than_there_is_is_refused_to_anybody() -> None:
    share = FairShare(100)
    assert not share.reserve("a", 101)
    assert share.held == 0


def test_what_is_given_back_can_be_had_again() -> None:
    share = FairShare(100)
    assert share.reserve("a", 100)
    assert not share.reserve("b", 1)
    share.release("a", 100)
    assert share.held == 0
    assert share.reserve("b", 100)


def test_a_bucket_may_hold_more_than_two_seconds() -> None:
    book = RateBook(ManualClock(), 3)
    assert [book.take("a", 1, burst_s=60) for _ in range(60)] == [0] * 60
    assert book.take("a", 1, burst_s=60) > 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_network_is_one_sender(address: str, network: str) -> None:
    assert network_of(address) == network
