"""Where the buckets of a time series begin.

Counted from Monday 2000-01-03 00:00 on the clock of the zone, as DuckDB's ``time_bucket`` does, a
bucket begins whenever that clock passes a multiple of the interval. In UTC that is all. Where the
offset of a zone changes:

* Intervals of whole days: a bucket begins with the first instant of its local day, so days of 23
  or 25 hours stay whole.
* Shorter intervals: a bucket goes on if the clock lands inside it. A new one begins at the change
  if the clock lands exactly on a multiple (02:00 again, for ``1h``) or in another bucket. So an
  hour that comes twice gives two buckets, told apart by their printed offset, and ``6h`` gives one
  bucket of five or seven hours.

Changes are looked up until the end of the year 2100; later moments keep the offset in force then.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from ocean_core.model.block import Int64Column
from ocean_core.service.queries.values import DAY_US, SECOND_US, zone_named

ORIGIN_US: Final = 946_857_600_000_000  # 2000-01-03T00:00:00, a Monday
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# No zone changed its offset twice within six days since 1970 (measured: seven is the least).
_PROBE_DAYS: Final = 3
# Nobody knows the rules of clocks that far ahead; a device that says 9999 must not cost seconds.
_YEAR_MAX: Final = 2100


class Period(NamedTuple):
    """A stretch of time, from ``begin_us`` on, in which the zone keeps one offset.

    Bucket number j of the stretch nominally begins at ``phase_us + j * width``. Numbers up to
    ``head`` belong to the bucket that holds the stretch's beginning; that one began at ``head_us``.
    """

    begin_us: int
    offset_us: int
    phase_us: int
    head: int
    head_us: int


class Grid:
    """The buckets of one interval in one zone, for moments ``low_us .. high_us``."""

    def __init__(self, width_us: int, zone: str, low_us: int, high_us: int) -> None:
        """Look up the changes of offset; ``low_us <= high_us``, both from 1970 to 9999."""
        self.width_us: Final = width_us
        self.periods: Final = tuple(_periods(width_us, zone, low_us, high_us))
        self.low_us: Final = low_us
        self.high_us: Final = high_us
        self._heads = np.array([period[2:] for period in self.periods], dtype=np.int64)
        self._begins = np.array([period.begin_us for period in self.periods], dtype=np.int64)

    def starts_of(self, moment_us: Int64Column) -> Int64Column:
        """Return the beginning of the bucket that holds each moment."""
        which = np.searchsorted(self._begins, moment_us, side="right") - 1
        return self.starts_of_numbers((moment_us - self._heads[which, 0]) // self.width_us, which)

    def starts_of_numbers(self, number: Int64Column, which: Int64Column) -> Int64Column:
        """Return the beginning of the bucket that has a number in the period ``which``."""
        phase, head, head_us = self._heads[which].T
        starts: Int64Column = np.where(number <= head, head_us, phase + number * self.width_us)
        return starts

    def all_starts(self) -> Int64Column:
        """Return the beginning of every bucket that holds a moment of the range."""
        parts = []
        ends = [period.begin_us for period in self.periods[1:]] + [self.high_us + 1]
        for period, end_us in zip(self.periods, ends, strict=True):
            first = period.phase_us + (period.head + 1) * self.width_us
            parts.append(np.array([period.head_us], dtype=np.int64))
            parts.append(np.arange(first, end_us, self.width_us, dtype=np.int64))
        starts = np.unique(np.concatenate(parts))
        first_start = self.starts_of(np.array([self.low_us], dtype=np.int64))[0]
        whole: Int64Column = starts[starts >= first_start]
        return whole

    def count_at_most(self) -> int:
        """Return an upper bound of how many buckets the range has."""
        return (self.high_us - self.low_us) // self.width_us + 2 + len(self.periods)

    def is_aligned_to(self, unit_us: int) -> bool:
        """Whether buckets begin only at multiples of ``unit_us`` since 1970 UTC."""
        return self.width_us % unit_us == 0 and all(
            period.phase_us % unit_us == 0 and period.head_us % unit_us == 0
            for period in self.periods
        )

    def texts(self, starts_us: Int64Column) -> list[str]:
        """Return beginnings in ISO 8601: with ``Z`` for an offset of zero, else with the offset."""
        which = np.searchsorted(self._begins, starts_us, side="right") - 1
        # A bucket may begin before the first period that was looked up.
        offsets = np.array([p.offset_us for p in self.periods], dtype=np.int64)[which.clip(0)]
        local = ((starts_us + offsets) // SECOND_US).view("M8[s]")
        texts: list[str] = np.datetime_as_string(local).tolist()
        suffixes = {int(offset): offset_text(int(offset)) for offset in np.unique(offsets)}
        if len(suffixes) == 1:
            suffix = next(iter(suffixes.values()))
            return [text + suffix for text in texts]
        return [
            text + suffixes[offset] for text, offset in zip(texts, offsets.tolist(), strict=True)
        ]


def offset_text(offset_us: int) -> str:
    """Return ``Z`` or ``+02:00``; seconds, which only old local mean times have, as ``-00:44:30``."""
    if offset_us == 0:
        return "Z"
    minutes, seconds = divmod(abs(offset_us) // SECOND_US, 60)
    text = f"{'-' if offset_us < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{seconds:02}" if seconds else text


def _periods(width_us: int, zone: str, low_us: int, high_us: int) -> Iterator[Period]:
    """Yield the periods of the range, the first beginning early enough to hold a whole bucket."""
    # All nominal beginnings are counted from before 1970, so that bucket numbers are never
    # negative, and by the same multiple, so that they compare across changes of the offset.
    turns = -(-(ORIGIN_US + 2 * DAY_US) // width_us)
    whole_days = width_us % DAY_US == 0
    earlier_us = low_us - width_us - 2 * DAY_US
    last: Period | None = None
    for begin_us, offset_us in _offsets(zone, earlier_us, high_us):
        phase_us = ORIGIN_US - offset_us - turns * width_us
        number = (begin_us - phase_us) // width_us
        nominal_us = phase_us + number * width_us
        if last is None:
            period = Period(begin_us, offset_us, phase_us, number, nominal_us)
        else:
            before = max((begin_us - 1 - last.phase_us) // width_us, last.head)
            before_us = last.head_us
            if before > last.head:
                before_us = last.phase_us + before * width_us
            if whole_days:
                goes_on, number = number <= before, max(number, before)
            else:
                goes_on = number == before and nominal_us != begin_us
            head_us = before_us if goes_on else begin_us
            period = Period(begin_us, offset_us, phase_us, number, head_us)
        last = period
        yield period


def _offsets(zone: str, low_us: int, high_us: int) -> Iterator[tuple[int, int]]:
    """Yield (beginning, offset) of each stretch of one offset that touches the range."""
    low_year, high_year = _year(low_us), _year(high_us)
    changes = [
        change for year in range(low_year, high_year + 1) for change in _changes_in(zone, year)
    ]
    current = _offset_at(zone, low_us)
    yield low_us, current
    for moment_us, offset_us in changes:
        if low_us < moment_us <= high_us and offset_us != current:
            current = offset_us
            yield moment_us, offset_us


def _year(moment_us: int) -> int:
    return min((_EPOCH + timedelta(microseconds=moment_us)).year, _YEAR_MAX)


def _offset_at(zone: str, moment_us: int) -> int:
    moment = _EPOCH + timedelta(microseconds=moment_us)
    info = zone_named(zone)
    assert info is not None, zone
    if moment.year > _YEAR_MAX:
        moment = datetime(_YEAR_MAX, 12, 31, tzinfo=UTC)
    offset = moment.astimezone(info).utcoffset()
    assert offset is not None, zone
    return offset // timedelta(microseconds=1)


@lru_cache(maxsize=4096)
def _changes_in(zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """Return (moment, new offset) of each change within a year of UTC; zoneinfo has no list."""
    changes = []
    low = _start_of(year)
    end = _start_of(year + 1)
    offset_us = _offset_at(zone, low)
    while low < end:
        high = min(low + _PROBE_DAYS * DAY_US, end)
        new_us = _offset_at(zone, high)
        if new_us != offset_us:
            changes.append((_bisect(zone, low, high, offset_us), new_us))
            offset_us = new_us
        low = high
    return tuple(changes)


def _start_of(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _bisect(zone: str, low: int, high: int, old_us: int) -> int:
    """Return the first second in ``low .. high`` that does not have the old offset."""
    while high - low > SECOND_US:
        middle = (low + high) // 2 // SECOND_US * SECOND_US
        if _offset_at(zone, middle) == old_us:
            low = middle
        else:
            high = middle
    return high
