"""Timestamps: ISO 8601 or epoch numbers to microseconds since 1970-01-01 UTC.

Epoch numbers are told apart by magnitude: below 1e11 seconds, below 1e14 milliseconds, below 1e17
microseconds, else nanoseconds. So milliseconds before 1973-03-03 and seconds after the year 5138
need ISO 8601. Digits below a microsecond are dropped in ISO texts and nanoseconds; floating-point
epochs are rounded to the nearest microsecond, since their last digits are noise anyway.
"""

from __future__ import annotations

import re
from array import array
from datetime import date
from typing import Final

import msgspec
import numpy as np

from ocean_core.model import limits
from ocean_core.model.block import Float64Column, Int64Column, Quality
from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.readings.shapes import EPOCH_NUMBER, Timestamp

_SECONDS_BELOW: Final = 10**11
_MILLIS_BELOW: Final = 10**14
_MICROS_BELOW: Final = 10**17
_EXACT_BELOW: Final = 2**53
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()

_FORMATS: Final = "ISO 8601 such as 2026-01-17T12:00:00Z, or an epoch number in s, ms, us or ns"
_RANGE: Final = "a moment from 1970-01-01 to 9999-12-31 UTC"

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
# Lines that numpy reads exactly as _ISO does, once their common zone is taken away.
_ISO_LINES = re.compile(r"(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?\n)+", re.ASCII)


class TimestampError(ValueError):
    """The timestamp is not acceptable; the text says what would be."""


def timestamp_us(value: float | str) -> int:
    """Return microseconds since 1970 UTC within the range of timestamps.

    Raises TimestampError.
    """
    moment = _from_text(value) if isinstance(value, str) else _from_number(value)
    if not limits.TIMESTAMP_US_MIN <= moment <= limits.TIMESTAMP_US_MAX:
        raise TimestampError(_RANGE)
    return moment


def resolve(value: Timestamp, arrival_us: int, *, clock_trusted: bool) -> tuple[int, int]:
    """Return (microseconds since 1970 UTC, quality); no timestamp means the arrival.

    Raises TimestampError, also for a moment in the future when the box's clock is trusted.
    """
    moment = arrival_us if value is None else timestamp_us(value)
    if moment > arrival_us + limits.FUTURE_TOLERANCE_US:
        if clock_trusted:
            raise TimestampError(_not_later_than(arrival_us))
        return moment, Quality.UNTRUSTED_CLOCK.value
    if moment < limits.TIMESTAMP_PLAUSIBLE_US_MIN:
        return moment, Quality.UNTRUSTED_CLOCK.value
    return moment, Quality.GOOD.value


def check_moment(moment_us: int, arrival_us: int, *, clock_trusted: bool) -> None:
    """Raise TimestampError for microseconds since 1970 UTC that ``resolve`` would not return."""
    if not limits.TIMESTAMP_US_MIN <= moment_us <= limits.TIMESTAMP_US_MAX:
        raise TimestampError(_RANGE)
    if clock_trusted and moment_us > arrival_us + limits.FUTURE_TOLERANCE_US:
        raise TimestampError(_not_later_than(arrival_us))


def _not_later_than(arrival_us: int) -> str:
    latest = min(arrival_us + limits.FUTURE_TOLERANCE_US, limits.TIMESTAMP_US_MAX)
    seconds = limits.FUTURE_TOLERANCE_US // 1_000_000
    return f"no later than {iso_utc(latest)}, which is {seconds} s after arrival"


def _from_number(value: float) -> int:
    size = abs(value)
    if size < _SECONDS_BELOW:
        return value * 1_000_000 if isinstance(value, int) else round(value * 1e6)
    if size < _MILLIS_BELOW:
        return value * 1_000 if isinstance(value, int) else round(value * 1e3)
    if size < _MICROS_BELOW:
        return value if isinstance(value, int) else round(value)
    return int(value) // 1_000


def _from_text(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is not None:
        return _from_iso(match)
    # The first and last character rule out white space, which the decoder would take.
    if text.isascii() and text[-1:].isdigit() and (text[0] == "-" or text[0].isdigit()):
        try:
            return _from_number(EPOCH_NUMBER.decode(text))
        except msgspec.DecodeError:
            pass
    raise TimestampError(_FORMATS)


def _from_iso(match: re.Match[str]) -> int:
    day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = date.fromisoformat(day).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        raise TimestampError(f"a day that exists, in {_FORMATS}") from None
    hours, minutes, seconds = int(hour or 0), int(minute or 0), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise TimestampError("a time of day from 00:00:00 to 23:59:59; leap seconds have no number")
    total = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    micros = int((fraction or "").ljust(6, "0")[:6])
    return total * 1_000_000 + micros - _offset_us(zone or "Z")


def _offset_us(zone: str) -> int:
    if zone in {"Z", "z"}:
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise TimestampError("an offset from -23:59 to +23:59")
    micros = (hours * 60 + minutes) * 60_000_000
    return -micros if zone[0] == "-" else micros


# --- many at once -------------------------------------------------------------------------------


SLOW_QUICKLY_MAX: Final = 256
"""So many values at most are read one by one when it has to be quick."""


def timestamp_column(
    values: list[Timestamp], arrival_us: int, *, quickly: bool = False
) -> Int64Column:
    """Return what ``timestamp_us`` makes of each value, and the arrival for None.

    Only the range is left to the caller. Raises TimestampError, if ``quickly`` also for many
    values of mixed or unusual kinds.
    """
    column = _number_column(values)
    if column is not None:
        return column
    kinds = set(map(type, values))
    if kinds == {int}:
        column = _whole_column(values)
    elif kinds == {float}:
        column = _float_column(values)
    elif kinds == {str}:
        column = _iso_column(values)  # type: ignore[arg-type]
    elif kinds == {type(None)}:
        column = np.full(len(values), arrival_us, dtype=np.int64)
    if column is None:
        if quickly and len(values) > SLOW_QUICKLY_MAX:
            raise TimestampError(_FORMATS)
        column = np.array(
            [arrival_us if value is None else timestamp_us(value) for value in values],
            dtype=np.int64,
        )
    return column


def _whole_column(values: list[Timestamp]) -> Int64Column | None:
    """Return whole epoch numbers of one common unit as a column, or None."""
    try:
        numbers: Int64Column = np.array(values, dtype=np.int64)
    except OverflowError:
        return None
    low, high = int(numbers.min()), int(numbers.max())
    if low >= _MICROS_BELOW:
        return numbers // 1_000
    factor = _common_factor(low, high)
    return None if factor is None else numbers * factor


def _float_column(values: list[Timestamp]) -> Int64Column | None:
    """Return floating-point epoch numbers of one common unit as a column, or None."""
    numbers: Float64Column = np.array(values, dtype=np.float64)
    factor = _common_factor(float(numbers.min()), float(numbers.max()))
    return None if factor is None else np.rint(numbers * factor).astype(np.int64)


def _number_column(values: list[Timestamp]) -> Int64Column | None:
    """Return epoch numbers of one common unit, with or without a fraction, as a column, or None.

    As long as the microseconds of a whole number have an exact float, it makes no difference that
    it becomes one here.
    """
    try:
        # Through array: twice as fast as np.array from a list.
        numbers: Float64Column = np.frombuffer(array("d", values))  # type: ignore[type-var]
    except (OverflowError, TypeError):
        return None
    high = float(numbers.max())
    factor = _common_factor(float(numbers.min()), high)
    if factor is None or high * factor >= _EXACT_BELOW:
        return None
    return np.rint(numbers * factor).astype(np.int64)


def _common_factor(low: float, high: float) -> int | None:
    """Return microseconds per unit when ``low`` and ``high`` have the same unit, or None."""
    if low >= 0 and high < _SECONDS_BELOW:
        return 1_000_000
    if low >= _SECONDS_BELOW and high < _MILLIS_BELOW:
        return 1_000
    return 1 if low >= _MILLIS_BELOW and high < _MICROS_BELOW else None


def _iso_column(texts: list[str]) -> Int64Column | None:
    """Return ISO texts with seconds and one common zone as a column, or None."""
    first = _ISO.fullmatch(texts[0])
    if first is None:
        return None
    zone = first[6] or ""
    lines = "\n".join(texts) + "\n"
    if zone:
        # A line without this zone must not pass as one that had it.
        if lines.count(zone + "\n") != len(texts):
            return None
        lines = lines.replace(zone + "\n", "\n")
    if _ISO_LINES.fullmatch(lines) is None:
        return None
    bare = lines.split("\n")
    bare.pop()
    if len(bare) != len(texts):
        return None
    try:
        column = np.array(bare, dtype="datetime64[us]").astype(np.int64)
    except ValueError:
        return None
    return column - _offset_us(zone or "Z")
