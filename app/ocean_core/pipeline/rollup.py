"""Rollup partials, in numpy alone: statistics per (series, bucket), and their merge.

Variance is carried as M2, the sum of squared deviations from the mean, and merged by Chan's rule. A
sum of squares would lose everything at mean 1e9 and deviation 1. Values near the end of the double
range may give an infinite M2; means stay finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column
from ocean_core.storage.analytics.batch import Int32Column, Partials, ReadingColumns

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 3_600_000_000

Offsets = npt.NDArray[np.intp]
"""Positions in a column, for example where each run starts."""


@dataclass(frozen=True, slots=True)
class SeriesRuns:
    """The readings of a batch ordered by (series_id, ts, id).

    ``order`` has the position of each row in ``readings``, which are in id order. Run ``k`` holds
    the rows ``starts[k] : starts[k + 1]`` (the last one: to the end), all of series
    ``series_id[k]``. Times and values are needed in this order in any case; the other columns
    mostly of a few rows, so they stay where they are.
    """

    readings: ReadingColumns
    order: Offsets
    ts_us: Int64Column
    value: Float64Column
    starts: Offsets
    series_id: Int32Column

    def __len__(self) -> int:
        return len(self.order)

    @property
    def lasts(self) -> Offsets:
        """Where each run has its last row."""
        return np.append(self.starts[1:], len(self.order)) - 1

    @property
    def rows(self) -> ReadingColumns:
        """All columns in this order."""
        given = self.readings
        return ReadingColumns(
            given.id[self.order], given.series_id[self.order], self.ts_us, self.value,
            given.quality[self.order],
        )  # fmt: skip


def sort_into_runs(readings: ReadingColumns) -> SeriesRuns:
    """Order readings, given in id order, by (series_id, ts, id)."""
    series_id = readings.series_id
    highest = int(series_id.max())
    # numpy sorts narrow keys by radix, an order of magnitude faster than wider ones.
    narrow = np.uint8 if highest < 256 else np.uint16 if highest < 65536 else np.int32
    keys = series_id.astype(narrow)
    order = np.argsort(keys, kind="stable")
    keys, ts_us = keys.take(order), readings.ts_us.take(order)
    changed = keys[1:] != keys[:-1]
    if bool(np.any((ts_us[1:] < ts_us[:-1]) & ~changed)):
        again = _by_series_and_time(keys, ts_us)
        order, ts_us = order[again], ts_us[again]
    starts = np.concatenate(([0], np.flatnonzero(changed) + 1))
    return SeriesRuns(
        readings, order, ts_us, readings.value.take(order), starts, series_id[order[starts]]
    )


def _by_series_and_time(keys: npt.NDArray[Any], ts_us: Int64Column) -> Offsets:
    """Return the order by both; what is equal stays as it is. ``keys`` are in order already."""
    low = int(ts_us.min())
    span = int(ts_us.max()) - low + 1
    if (int(keys[-1]) + 1) * span >= 2**63:
        return np.lexsort((ts_us, keys))
    # One sort of what is nearly in order is quicker than the two of lexsort.
    return np.argsort(keys.astype(np.int64) * span + (ts_us - low), kind="stable")


def minute_partials(runs: SeriesRuns) -> Partials:
    """Return one partial per (series, minute), ordered by both."""
    starts, series_id = _minutes_of(runs)
    value, ts_us = runs.value, runs.ts_us
    ends = np.append(starts[1:], len(runs)) - 1
    n, mean, m2 = _moments(value, starts)
    first_ts_us = ts_us[starts]
    return Partials(
        series_id=series_id,
        bucket_us=first_ts_us // MINUTE_US * MINUTE_US,
        n=n,
        mean=mean,
        m2=m2,
        min=np.minimum.reduceat(value, starts),
        max=np.maximum.reduceat(value, starts),
        first_ts_us=first_ts_us,
        first_value=value[starts],
        last_ts_us=ts_us[ends],
        last_value=value[ends],
    )


def _minutes_of(runs: SeriesRuns) -> tuple[Offsets, Int32Column]:
    """Return where each minute of each series starts, and the series."""
    ts_us, starts, lasts = runs.ts_us, runs.starts, runs.lasts
    if bool((ts_us[starts] // MINUTE_US == ts_us[lasts] // MINUTE_US).all()):
        # What arrives as it is measured is of one minute: no need to look at every row.
        return starts, runs.series_id
    bucket = ts_us // MINUTE_US
    changed = np.zeros(len(runs), dtype=np.bool_)
    changed[1:] = bucket[1:] != bucket[:-1]
    changed[starts] = True
    minutes = np.flatnonzero(changed)
    return minutes, np.repeat(
        runs.series_id, np.diff(np.searchsorted(minutes, [*starts, len(runs)]))
    )


def _starts(series_id: Int32Column, bucket: Int64Column) -> Offsets:
    changed = (series_id[1:] != series_id[:-1]) | (bucket[1:] != bucket[:-1])
    return np.concatenate(([0], np.flatnonzero(changed) + 1))


def _counts(starts: Offsets, total: int) -> Int64Column:
    return np.diff(np.append(starts, total)).astype(np.int64)


def _moments(
    value: Float64Column, starts: Offsets
) -> tuple[Int64Column, Float64Column, Float64Column]:
    """Count, mean and M2 per group, by the corrected two-pass method."""
    n = _counts(starts, len(value))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduceat(value, starts) / n
        if not bool(np.isfinite(mean).all()):
            mean = np.add.reduceat(value / np.repeat(n, n), starts)
        deviation = np.repeat(mean, n)
        np.subtract(value, deviation, out=deviation)
        rest = np.add.reduceat(deviation, starts)
        np.multiply(deviation, deviation, out=deviation)
        m2 = np.add.reduceat(deviation, starts) - rest * rest / n
    return n, _corrected(mean, rest, n), _never_negative(m2)


def _corrected(mean: Float64Column, rest: Float64Column, n: Int64Column) -> Float64Column:
    """Add what rounding left over in the first pass, where it is a number at all."""
    return mean + np.where(np.isfinite(rest), rest, 0.0) / n


def _never_negative(m2: Float64Column) -> Float64Column:
    """Clip rounding below zero; what overflowed (inf - inf) is infinite."""
    clipped: Float64Column = np.maximum(np.where(np.isnan(m2), np.inf, m2), 0.0)
    return clipped


def merge_partials(partials: Partials) -> Partials:
    """Merge the rows of each (series_id, bucket_us); the result is ordered by both.

    Rows of the same group must be in the order in which they were written: it decides which value
    is first or last among equal timestamps.
    """
    if len(partials) < 2:
        return partials
    series_id, bucket = partials.series_id, partials.bucket_us
    same_series = series_id[1:] == series_id[:-1]
    if bool(np.any((series_id[1:] < series_id[:-1]) | (same_series & (bucket[1:] < bucket[:-1])))):
        partials = take(partials, np.lexsort((bucket, series_id)))
    return _merge_groups(partials, _starts(partials.series_id, partials.bucket_us))


def rebucket(partials: Partials, width_us: int, origin_us: int = 0) -> Partials:
    """Merge into buckets of ``width_us``, a multiple of the present width, from ``origin_us`` on."""
    bucket_us = (partials.bucket_us - origin_us) // width_us * width_us + origin_us
    return merge_partials(with_buckets(partials, bucket_us))


def merge_per_series(partials: Partials) -> Partials:
    """Merge everything of a series into one row; its ``bucket_us`` is 0."""
    return merge_partials(with_buckets(partials, np.zeros_like(partials.bucket_us)))


def with_buckets(partials: Partials, bucket_us: Int64Column) -> Partials:
    """Return the same rows under other buckets."""
    p = partials
    return Partials(
        p.series_id, bucket_us, p.n, p.mean, p.m2, p.min, p.max,
        p.first_ts_us, p.first_value, p.last_ts_us, p.last_value,
    )  # fmt: skip


def take(partials: Partials, which: npt.NDArray[np.intp] | slice) -> Partials:
    """Return chosen rows, in the order of ``which``."""
    p = partials
    return Partials(
        p.series_id[which], p.bucket_us[which], p.n[which], p.mean[which], p.m2[which],
        p.min[which], p.max[which], p.first_ts_us[which], p.first_value[which],
        p.last_ts_us[which], p.last_value[which],
    )  # fmt: skip


def concat(parts: list[Partials]) -> Partials:
    """Put rows one after the other, in the order of writing."""
    return Partials(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Partials.__slots__)
    )


def _merge_groups(p: Partials, starts: Offsets) -> Partials:
    if len(starts) == len(p):
        return p
    sizes = _counts(starts, len(p))
    n = np.add.reduceat(p.n, starts)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduceat(p.mean * (p.n / np.repeat(n, sizes)), starts)
        delta = p.mean - np.repeat(mean, sizes)
        rest = np.add.reduceat(delta * p.n, starts)
        m2 = np.add.reduceat(p.m2 + delta * delta * p.n, starts) - rest * rest / n
    first = _first_of_lowest(p.first_ts_us, starts, sizes)
    last = _last_of_highest(p.last_ts_us, starts, sizes)
    return Partials(
        series_id=p.series_id[starts],
        bucket_us=p.bucket_us[starts],
        n=n,
        mean=_corrected(mean, rest, n),
        m2=_never_negative(m2),
        min=np.minimum.reduceat(p.min, starts),
        max=np.maximum.reduceat(p.max, starts),
        first_ts_us=p.first_ts_us[first],
        first_value=p.first_value[first],
        last_ts_us=p.last_ts_us[last],
        last_value=p.last_value[last],
    )


def _first_of_lowest(ts_us: Int64Column, starts: Offsets, sizes: Int64Column) -> Offsets:
    """Position, per group, of the first row that holds the group's lowest time."""
    lowest = np.repeat(np.minimum.reduceat(ts_us, starts), sizes)
    hits = np.flatnonzero(ts_us == lowest)
    return hits[np.searchsorted(hits, starts)]


def _last_of_highest(ts_us: Int64Column, starts: Offsets, sizes: Int64Column) -> Offsets:
    """Position, per group, of the last row that holds the group's highest time."""
    highest = np.repeat(np.maximum.reduceat(ts_us, starts), sizes)
    hits = np.flatnonzero(ts_us == highest)
    return hits[np.searchsorted(hits, np.append(starts[1:], len(ts_us))) - 1]
