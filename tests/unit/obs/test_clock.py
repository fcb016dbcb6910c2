"""Time as text, and the clock that tests move."""

import pytest

from ocean_core.obs.clock import ManualClock, SystemClock, iso_utc


@pytest.mark.parametrize(
    ("timestamp_us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_123_000, "2023-11-14T22:13:20.123Z"),
        (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_iso_utc(timestamp_us: int, text: str) -> None:
    assert iso_utc(timestamp_us) == text


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5_000_000)
    before = clock.monotonic()
    clock.advance(1.5)
    assert (clock.now_us(), clock.monotonic() - before) == (6_500_000, 1.5)
    clock.set_wall(1)
    assert (clock.now_us(), clock.monotonic() - before) == (1, 1.5)


def test_the_system_clock_answers() -> None:
    clock = SystemClock()
    assert clock.now_us() > 1_700_000_000_000_000
    assert clock.monotonic() <= clock.monotonic()
    assert clock.synchronised() in (True, False)
