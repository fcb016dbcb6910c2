"""Values of query parameters: numbers, moments, intervals, zones. Text in, checked value out.

Every function raises QueryError with one FieldProblem that names parameter, found and expected.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from functools import lru_cache
from typing import Final, NoReturn

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, QueryError
from ocean_core.protocol.readings.timestamps import TimestampError, timestamp_us
from ocean_core.protocol.readings.wording import found_value, sentence, shorten

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_INTEGER: Final = re.compile(r"[0-9]{1,18}")
_INTERVAL: Final = re.compile(r"([0-9]{1,10})\s*([A-Za-z]+)")

_UNITS: Final[dict[str, int]] = {
    name: width
    for width, names in (
        (SECOND_US, "s sec secs second seconds"),
        (MINUTE_US, "m min mins minute minutes"),
        (HOUR_US, "h hr hrs hour hours"),
        (DAY_US, "d day days"),
        (7 * DAY_US, "w week weeks"),
    )
    for name in names.split()
}

# What is suggested when a question asks for too many buckets.
ROUND_INTERVALS: Final = tuple(
    f"{number}{unit}"
    for unit, numbers in (
        ("s", (1, 2, 5, 10, 15, 30)),
        ("m", (1, 2, 5, 10, 15, 30)),
        ("h", (1, 2, 3, 6, 12)),
        ("d", (1, 2, 7, 14, 30)),
    )
    for number in numbers
)


def refuse(field: str, found: object, expected: str) -> NoReturn:
    """Raise the QueryError for one parameter."""
    raise refusal(field, found, expected)


def refusal(field: str, found: object, expected: str) -> QueryError:
    """Return the QueryError for one parameter."""
    # A lone surrogate could not be sent back as UTF-8.
    text = (found if isinstance(found, str) else repr(found)).encode("utf-8", "replace").decode()
    problem = FieldProblem(shorten(field), found_value(text), expected)
    return QueryError(sentence(problem) + ".", fields=(problem,))


def parse_text(field: str, found: object, *, bytes_max: int) -> str:
    """Return text of 1 to ``bytes_max`` bytes in UTF-8."""
    expected = f"text of 1 to {bytes_max} bytes"
    if not isinstance(found, str):
        refuse(field, found, expected)
    try:
        size = len(found.encode())
    except UnicodeEncodeError:
        refuse(field, found, "valid UTF-8")
    if not 1 <= size <= bytes_max:
        refuse(field, found, expected)
    return found


def parse_integer(field: str, found: object, *, low: int, high: int) -> int:
    """Return a whole number ``low .. high``, from a number or from decimal digits."""
    expected = f"a whole number from {low} to {high}"
    if isinstance(found, str) and _INTEGER.fullmatch(found):
        found = int(found)
    if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
        refuse(field, found, expected)
    return found


def parse_number(field: str, found: object, expected: str = "a finite number") -> float:
    """Return a finite number, from a number or from text such as ``-1.5e3``."""
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        value = float(found)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        try:
            value = float(found)
        except OverflowError:
            refuse(field, found, expected)
    else:
        refuse(field, found, expected)
    if not math.isfinite(value):
        refuse(field, found, expected)
    return value


def parse_moment(field: str, found: object) -> int:
    """Return microseconds since 1970 UTC, by the rules for the timestamps of readings."""
    expected = "ISO 8601 (2026-01-31T12:00:00Z, no zone = UTC) or an epoch number, 1970 to 9999"
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        refuse(field, found, expected)
    try:
        return timestamp_us(found)
    except (TimestampError, ValueError, OverflowError):
        # The latter two: NaN and infinity, which JSON bodies and texts cannot bring in.
        refuse(field, found, expected)


def parse_interval(field: str, found: object) -> int:
    """Return an interval in microseconds from ``5m``, ``90 s``, ``1 hour``, ``2 weeks``."""
    expected = "1s to 30d: a whole number with s, m, h, d or w, such as 5m or '1 hour'"
    match = _INTERVAL.fullmatch(found.strip()) if isinstance(found, str) else None
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        refuse(field, found, expected)
    width = int(match[1]) * unit
    if not limits.TIMESERIES_INTERVAL_US_MIN <= width <= limits.TIMESERIES_INTERVAL_US_MAX:
        refuse(field, found, expected)
    return width


def parse_zone(field: str, found: object) -> str:
    """Return the name of a known time zone."""
    if not isinstance(found, str) or zone_named(found) is None:
        refuse(field, found, "a name of the IANA time zone database, such as Europe/Berlin")
    return found


@lru_cache(maxsize=256)
def zone_named(name: str) -> zoneinfo.ZoneInfo | None:
    """Return a time zone, None if the name is not known (or is no name at all, such as a path)."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def interval_for(span_us: int) -> str:
    """Return the smallest round interval whose buckets over ``span_us`` are not too many."""
    for text in ROUND_INTERVALS:
        # One bucket more at each end, and one for each change of a local clock.
        if span_us // parse_interval("interval", text) + 1_000 <= limits.TIMESERIES_BUCKETS_MAX:
            return text
    return ROUND_INTERVALS[-1]
