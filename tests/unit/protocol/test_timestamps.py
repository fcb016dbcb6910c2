"""Timestamps: every accepted form, every refusal, and the columns that must agree with them."""

import numpy as np
import pytest

from ocean_core.model import limits
from ocean_core.protocol.readings.timestamps import (
    TimestampError,
    resolve,
    timestamp_column,
    timestamp_us,
)

NOON = 1_768_651_200_000_000  # 2026-01-17T12:00:00Z

GOOD = [
    ("2026-01-17T12:00:00Z", NOON),
    ("2026-01-17t12:00:00z", NOON),
    ("2026-01-17 12:00:00", NOON),
    ("2026-01-17T12:00", NOON),
    ("2026-01-17T12:00Z", NOON),
    ("2026-01-17", NOON - 12 * 3_600_000_000),
    ("2026-01-17T14:00:00+02:00", NOON),
    ("2026-01-17T14:00:00+0200", NOON),
    ("2026-01-17T14:00:00+02", NOON),
    ("2026-01-17T06:30:00-05:30", NOON),
    ("2026-01-17T12:00:00.5Z", NOON + 500_000),
    ("2026-01-17T12:00:00,123", NOON + 123_000),
    ("2026-01-17T12:00:00.123456Z", NOON + 123_456),
    ("2026-01-17T12:00:00.123456999Z", NOON + 123_456),
    ("2014-05-14 01:14:00", 1_400_030_040_000_000),
    ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
    ("1970-01-01T00:00:00Z", 0),
    ("9999-12-31T23:59:59.999999Z", limits.TIMESTAMP_US_MAX),
    (0, 0),
    (1_768_651_200, NOON),
    (1_768_651_200_000, NOON),
    (1_768_651_200_000_000, NOON),
    (1_768_651_200_000_000_000, NOON),
    (1_768_651_200_123_456_999, NOON + 123_456),
    (1_768_651_200.25, NOON + 250_000),
    (1_768_651_200_000.25, NOON + 250),
    (1.7686512e9, NOON),
    (99_999_999_999, 99_999_999_999_000_000),
    (100_000_000_000, 100_000_000_000_000),
    ("1768651200", NOON),
    ("1768651200000", NOON),
    ("1768651200.25", NOON + 250_000),
    ("1.7686512e9", NOON),
]

BAD = [
    ("", "ISO 8601"),
    ("yesterday", "ISO 8601"),
    ("now", "ISO 8601"),
    ("NaT", "ISO 8601"),
    ("NaN", "ISO 8601"),
    (" 2026-01-17", "ISO 8601"),
    ("2026-01-17 ", "ISO 8601"),
    ("2026-01-17T12:00:00Z\n", "ISO 8601"),
    ("2026-01", "ISO 8601"),
    ("20260117T120000Z", "ISO 8601"),
    ("2026-W03-6", "ISO 8601"),
    ("2026-01-17T12:00:00.1234567890Z", "ISO 8601"),
    ("2026-01-17Z", "ISO 8601"),
    ("17.01.2026", "ISO 8601"),
    ("\uff12\uff10\uff12\uff16-01-17", "ISO 8601"),
    ("1_768_651_200", "ISO 8601"),
    ("0x10", "ISO 8601"),
    (" 1768651200", "ISO 8601"),
    ("1768651200 ", "ISO 8601"),
    ("1e400", "ISO 8601"),
    ("2026-13-01", "a day that exists"),
    ("2026-02-29", "a day that exists"),
    ("0000-01-01", "a day that exists"),
    ("2026-01-17T24:00:00Z", "23:59:59"),
    ("2026-01-17T12:60:00Z", "23:59:59"),
    ("2016-12-31T23:59:60Z", "leap seconds"),
    ("2026-01-17T12:00:00+24:00", "offset"),
    ("2026-01-17T12:00:00+01:60", "offset"),
    ("1969-12-31T23:59:59.999999Z", "1970-01-01 to 9999"),
    ("9999-12-31T23:59:59-01:00", "1970-01-01 to 9999"),
    (-1, "1970-01-01 to 9999"),
    (-0.001, "1970-01-01 to 9999"),
    (10**30, "1970-01-01 to 9999"),
    (1e300, "1970-01-01 to 9999"),
]


@pytest.mark.parametrize(("given", "expected"), GOOD, ids=repr)
def test_accepts(given: float | str, expected: int) -> None:
    assert timestamp_us(given) == expected
    assert timestamp_column([given] * 3, 0).tolist() == [expected] * 3


@pytest.mark.parametrize(("given", "says"), BAD, ids=repr)
def test_refuses(given: float | str, says: str) -> None:
    with pytest.raises(TimestampError, match=says):
        timestamp_us(given)
    try:
        column = timestamp_column([given] * 3, 0)
    except TimestampError:
        return
    assert not ((column >= 0) & (column <= limits.TIMESTAMP_US_MAX)).any()


@pytest.mark.parametrize(
    ("given", "trusted", "expected"),
    [
        (None, True, (NOON, 0)),
        (NOON, True, (NOON, 0)),
        (NOON + 60_000_000, True, (NOON + 60_000_000, 0)),
        (NOON + 60_000_001, False, (NOON + 60_000_001, 2)),
        ("2000-01-01", True, (limits.TIMESTAMP_PLAUSIBLE_US_MIN, 0)),
        ("1999-12-31T23:59:59.999999", True, (limits.TIMESTAMP_PLAUSIBLE_US_MIN - 1, 2)),
        (0, False, (0, 2)),
    ],
    ids=repr,
)
def test_quality(given: int | str | None, trusted: bool, expected: tuple[int, int]) -> None:
    assert resolve(given, NOON, clock_trusted=trusted) == expected


def test_the_future_is_refused_while_the_clock_is_trusted() -> None:
    with pytest.raises(TimestampError, match="2026-01-17T12:01:00Z, which is 60 s after arrival"):
        resolve(NOON + 60_000_001, NOON, clock_trusted=True)


def test_arrival_before_2000_has_quality_2() -> None:
    assert resolve(None, 1000, clock_trusted=False) == (1000, 2)


@pytest.mark.parametrize(
    "values",
    [
        ["2026-01-17T12:00:00Z", "2026-01-17T12:00:00.5Z", "2026-01-17 12:00:00Z"],
        ["2026-01-17T12:00:00Z", "2026-01-17T12:00:00", "2026-01-17T12:00:00+01:00"],
        ["2026-01-17T12:00:00+01:00", "2026-01-18T12:00:00.123456+01:00"],
        ["2026-01-17T12:00:00", "2026-01-17", "1768651200"],
        [1_768_651_200, 1_768_651_200_000, 1_768_651_200.5, None, "2026-01-17"],
        [1_768_651_200, 1_768_651_200_000],
        [1_768_651_200.5, 1_768_651_200_000.5],
        [None, None],
    ],
    ids=repr,
)
def test_columns_agree_with_single_values(values: list[int | float | str | None]) -> None:
    expected = [NOON if value is None else timestamp_us(value) for value in values]
    column = timestamp_column(values, NOON)
    assert column.dtype == np.int64
    assert column.tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        ["2026-01-17T12:00:00Z", "2026-01-17T12:00:00Z\n2026-01-17T12:00:00Z"],
        ["2026-01-17T12:00:00", "2026-01-17T12:00:00\n2026-01-17T12:00:00"],
        ["2026-01-17T12:00:00Z", "2026-01-17T12:00:00ZZ"],
        ["2026-01-17T12:00:00Z", "NaT"],
        ["2026-01-17T12:00:00", ""],
    ],
    ids=repr,
)
def test_one_bad_text_is_found_in_a_column(values: list[int | float | str | None]) -> None:
    with pytest.raises(TimestampError):
        timestamp_column(values, NOON)
