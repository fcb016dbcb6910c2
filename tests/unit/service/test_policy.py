"""What a sender of readings may do."""

from collections.abc import Callable

import pytest

from ocean_core.model.access import LOCAL, Principal, Scope
from ocean_core.model.errors import (
    BufferFullError,
    CreditsError,
    ForbiddenError,
    RateLimitError,
)
from ocean_core.model.receipt import Intake, Owner
from ocean_core.obs.clock import ManualClock
from ocean_core.protocol.readings import DecodeContext, decode_batch
from ocean_core.service.policy import IngestPolicy


class Credits:
    """An account of ten credits."""

    def __init__(self, *, enforced: bool = True) -> None:
        self.enforced = enforced
        self.reserved = 0

    def reserve(self, user_id: str, readings: int) -> None:
        if self.enforced and self.reserved + readings > 10:
            raise CreditsError(f"{user_id} has not enough")
        self.reserved += readings

    def release(self, user_id: str, readings: int) -> None:
        self.reserved -= readings


def intake(*sensors: str, count: int = 1) -> Intake:
    items = ",".join(f'{{"sensor_id":"{s}","value":1}}' for s in sensors for _ in range(count))
    return decode_batch(
        f"[{items}]".encode(), DecodeContext(10**15, clock_trusted=True), partial=False
    )


def event(sensor: str) -> Intake:
    body = f'[{{"sensor_id":"{sensor}","data":"door open"}}]'.encode()
    return decode_batch(body, DecodeContext(10**15, clock_trusted=True), partial=False)


def key(**more: object) -> Principal:
    return Principal("key", "k1", "hall", frozenset({Scope.INGEST}), **more)  # type: ignore[arg-type]


def test_this_machine_stores_what_it_likes_on_nobodys_account() -> None:
    policy = IngestPolicy(ManualClock(), Credits())
    with policy.admit(LOCAL, intake("a", "b", count=500)) as owner:
        assert owner is None


@pytest.mark.parametrize(
    "make",
    [lambda: intake("hall/1", "yard/1"), lambda: event("yard/1")],
    ids=["reading", "event"],
)
def test_a_key_for_some_sensors_is_refused_for_others(make: Callable[[], Intake]) -> None:
    policy = IngestPolicy(ManualClock(), Credits())
    with policy.admit(key(sensors="hall/*"), intake("hall/1", "hall/2/x")):
        pass
    with (
        pytest.raises(ForbiddenError) as caught,
        policy.admit(key(sensors="hall/*"), make()),
    ):
        pass
    assert caught.value.fields[0].found == "yard/1"


def test_case_counts_in_patterns() -> None:
    policy = IngestPolicy(ManualClock(), Credits())
    with pytest.raises(ForbiddenError), policy.admit(key(sensors="hall*"), intake("Hall1")):
        pass


def test_a_key_has_its_own_rate_of_readings() -> None:
    clock = ManualClock()
    policy = IngestPolicy(clock, Credits())
    slow = key(rate=10)
    with policy.admit(slow, intake("a", count=30)):
        pass
    with pytest.raises(RateLimitError) as caught, policy.admit(slow, intake("a")):
        pass
    assert caught.value.retry_after_s is not None
    with policy.admit(Principal("key", "k2", rate=10), intake("a")):
        pass
    clock.advance(caught.value.retry_after_s)
    with policy.admit(slow, intake("a")):
        pass


def test_readings_count_for_the_user_of_the_key() -> None:
    credit = Credits()
    policy = IngestPolicy(ManualClock(), credit)
    with policy.admit(key(user_id="u1"), intake("a", count=4)) as owner:
        assert owner == Owner("u1", charged=True)
        assert credit.reserved == 4
        with (
            pytest.raises(CreditsError),
            policy.admit(key(user_id="u1"), intake("a", count=7)),
        ):
            pass
    assert credit.reserved == 0
    with IngestPolicy(ManualClock(), Credits(enforced=False)).admit(
        key(user_id="u1"), intake("a")
    ) as owner:
        assert owner == Owner("u1", charged=False)


def test_what_is_refused_holds_nothing() -> None:
    credit = Credits()
    clock = ManualClock()
    policy = IngestPolicy(clock, credit, waiting_bytes_max=32 * 10)
    slow = key(user_id="u1", rate=1)
    with policy.admit(slow, intake("a", count=9)):
        pass
    for _ in range(20):
        with pytest.raises(RateLimitError), policy.admit(slow, intake("a")):
            pass
    assert credit.reserved == 0
    with policy.admit(LOCAL, intake("a", count=10)):
        pass


def test_a_flooding_sensor_cannot_starve_another() -> None:
    """Nothing is ever committed here, as on a disk that hangs: what is admitted stays waiting."""
    policy = IngestPolicy(ManualClock(), Credits(), waiting_bytes_max=32 * 1000)
    held = []
    refused = None
    while refused is None:
        waiting = policy.admit(LOCAL, intake("flood"))
        try:
            waiting.__enter__()
        except BufferFullError as error:
            refused = error
        else:
            held.append(waiting)
    assert refused.retry_after_s == 1
    assert "flood" in refused.detail
    for _ in range(100):
        waiting = policy.admit(LOCAL, intake("calm"))
        waiting.__enter__()
        held.append(waiting)
    for waiting in held:
        waiting.__exit__(None, None, None)
    with policy.admit(LOCAL, intake("flood", count=1000)):
        pass


def test_a_flooding_key_is_one_source_whatever_its_sensors_are_called() -> None:
    policy = IngestPolicy(ManualClock(), Credits(), waiting_bytes_max=32 * 10)
    first = policy.admit(key(), intake("a", count=4))
    first.__enter__()
    with pytest.raises(BufferFullError), policy.admit(key(), intake("b", count=4)):
        pass
    with policy.admit(LOCAL, intake("b", count=4)):
        pass
    first.__exit__(None, None, None)
