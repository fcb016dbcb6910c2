"""The query ``timeseries``: readings per bucket, and what stands where there are none."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from ocean_core.model import limits
from ocean_core.model.block import Float64Column, Int64Column
from ocean_core.model.errors import QueryTooLargeError
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.rollup import merge_partials, with_buckets
from ocean_core.service.queries.aggregate import LIVE
from ocean_core.service.queries.answers import Bucket, Timeseries, finite_list
from ocean_core.service.queries.catalog import Series, choose, metrics_of
from ocean_core.service.queries.grid import Grid
from ocean_core.service.queries.live import live_partials
from ocean_core.service.queries.plan import HIGH_US, LOW_US, RAW_US, parts_sql, plan, source_of
from ocean_core.service.queries.requests import TimeseriesRequest
from ocean_core.service.queries.session import Session
from ocean_core.service.queries.values import HOUR_US, MINUTE_US, interval_for

# One offset in the whole range: plain arithmetic. `//` cuts towards zero, so phases lie before
# 1970, where no reading does.
_ONE_PERIOD: Final = """
SELECT (t - ?::BIGINT) // ?::BIGINT AS number, 0::BIGINT AS period,
    sum(n)::BIGINT AS n, sum(mean * n) / sum(n) AS mean, min(min) AS low, max(max) AS high
FROM ({parts}) GROUP BY ALL LIMIT ?
"""
_MANY_PERIODS: Final = """
SELECT (p.t - q.phase) // ?::BIGINT AS number, q.period AS period,
    sum(n)::BIGINT AS n, sum(mean * n) / sum(n) AS mean, min(min) AS low, max(max) AS high
FROM ({parts}) p ASOF JOIN (
    SELECT unnest(?::BIGINT[]) AS period, unnest(?::BIGINT[]) AS begins, unnest(?::BIGINT[]) AS phase
) q ON p.t >= q.begins GROUP BY ALL LIMIT ?
"""
_FIRST_AND_LAST: Final = (
    "SELECT epoch_us(min(first_ts)), epoch_us(max(last_ts)) FROM rollup_1h WHERE series_id = ?"
)


class Buckets(NamedTuple):
    """Buckets with readings, ascending."""

    start_us: Int64Column
    n: Int64Column
    mean: Float64Column
    min: Float64Column
    max: Float64Column


def answer_timeseries(
    window: LiveWindow | None, session: Session, request: TimeseriesRequest
) -> Timeseries:
    """Return the series. Raises QueryTooLargeError beyond TIMESERIES_BUCKETS_MAX buckets."""
    sensor_id = request.sensor_id
    series = choose(metrics_of(window, session, sensor_id), sensor_id, request.metric)
    first_us, last_us = _first_and_last(session, series)
    low_us = first_us if request.start_us is None else request.start_us
    high_us = last_us if request.end_us is None else request.end_us
    data: list[Bucket] = []
    source = LIVE
    if low_us <= high_us:
        if request.fill == "none":
            # A lone reading of 1970, from a device without a clock, costs nothing this way.
            low_us, high_us = max(low_us, first_us), min(high_us, last_us)
        if low_us <= high_us:
            grid = Grid(request.interval_us, request.zone, low_us, high_us)
            if request.fill != "none":
                _refuse_too_many(grid.count_at_most(), grid)
            buckets, source = _read(window, session, series, grid, request)
            data = _rows(buckets, grid, request)
    return Timeseries(sensor_id, series.metric, request.interval, source, data)


def _first_and_last(session: Session, series: Series) -> tuple[int, int]:
    """Return the times of the first and last reading; a series has at least one."""
    if series.totals is not None and series.totals.n:
        return series.totals.first_ts_us, series.totals.last_ts_us
    first_us, last_us = session.rows(_FIRST_AND_LAST, [series.series_id])[0]
    # Nothing there: an empty range.
    return (0, -1) if first_us is None else (first_us, last_us)


def _refuse_too_many(count: int, grid: Grid) -> None:
    if count > limits.TIMESERIES_BUCKETS_MAX:
        better = interval_for(grid.high_us - grid.low_us)
        raise QueryTooLargeError(
            f"More than {limits.TIMESERIES_BUCKETS_MAX} buckets; interval={better} would do.",
            hint=f"Use interval={better} or a longer one, or a shorter range (start, end).",
        )


# --- reading ------------------------------------------------------------------------------------


def _read(
    window: LiveWindow | None,
    session: Session,
    series: Series,
    grid: Grid,
    request: TimeseriesRequest,
) -> tuple[Buckets, str]:
    unit_us = next((unit for unit in (HOUR_US, MINUTE_US) if grid.is_aligned_to(unit)), RAW_US)
    live = _read_live(window, series, grid, whole_minutes=unit_us != RAW_US)
    if live is not None:
        _refuse_too_many(len(live.n), grid)
        return live, LIVE
    # Open ends stay open: rollups answer to the very first and last reading.
    low_us = LOW_US if request.start_us is None else request.start_us
    high_us = HIGH_US if request.end_us is None else request.end_us + 1
    parts = plan(low_us, high_us, unit_us)
    union, params = parts_sql(parts, [series.series_id])
    many = limits.TIMESERIES_BUCKETS_MAX + 1
    periods = grid.periods
    if len(periods) == 1:
        sql = _ONE_PERIOD
        params = [periods[0].phase_us, grid.width_us, *params, many]
    else:
        sql = _MANY_PERIODS
        lists = [
            list(range(len(periods))), [p.begin_us for p in periods], [p.phase_us for p in periods],
        ]  # fmt: skip
        params = [grid.width_us, *params, *lists, many]
    found = session.columns(sql.replace("{parts}", union), params)
    _refuse_too_many(len(found["n"]), grid)
    starts = grid.starts_of_numbers(_ints(found["number"]), _ints(found["period"]))
    buckets = Buckets(
        starts, _ints(found["n"]), np.asarray(found["mean"], dtype=np.float64),
        np.asarray(found["low"], dtype=np.float64), np.asarray(found["high"], dtype=np.float64),
    )  # fmt: skip
    return _in_order(buckets, one_row_each=len(periods) == 1), source_of(parts)


def _read_live(
    window: LiveWindow | None, series: Series, grid: Grid, *, whole_minutes: bool
) -> Buckets | None:
    if window is None or series.state is None or series.totals is None:
        return None
    low_us, high_us = grid.low_us, grid.high_us + 1
    partials = live_partials(
        window, series.state, series.totals, low_us, high_us, whole_minutes=whole_minutes
    )
    if partials is None:
        return None
    merged = merge_partials(with_buckets(partials, grid.starts_of(partials.bucket_us)))
    return Buckets(merged.bucket_us, merged.n, merged.mean, merged.min, merged.max)


def _in_order(buckets: Buckets, *, one_row_each: bool) -> Buckets:
    """Sort by beginning, and merge what two periods contributed to one bucket."""
    order = np.argsort(buckets.start_us, kind="stable")
    start, n, mean = buckets.start_us[order], buckets.n[order], buckets.mean[order]
    low, high = buckets.min[order], buckets.max[order]
    if one_row_each or not len(start):
        return Buckets(start, n, mean, low, high)
    firsts = np.concatenate(([0], np.flatnonzero(np.diff(start)) + 1))
    total = np.add.reduceat(n, firsts)
    share = n / np.repeat(total, np.diff(np.append(firsts, len(n))))
    return Buckets(
        start[firsts],
        total,
        np.add.reduceat(mean * share, firsts),
        np.minimum.reduceat(low, firsts),
        np.maximum.reduceat(high, firsts),
    )


def _ints(column: Int64Column) -> Int64Column:
    return np.asarray(column, dtype=np.int64)


# --- filling and writing ------------------------------------------------------------------------


def _rows(buckets: Buckets, grid: Grid, request: TimeseriesRequest) -> list[Bucket]:
    if request.fill == "none":
        starts, filled = buckets.start_us, buckets
    else:
        starts = grid.all_starts()
        filled = _filled(buckets, starts, request)
    return list(
        map(
            Bucket,
            grid.texts(starts),
            finite_list(filled.mean.tolist()),
            finite_list(filled.min.tolist()),
            finite_list(filled.max.tolist()),
            filled.n.tolist(),
        )
    )


def _filled(buckets: Buckets, starts: Int64Column, request: TimeseriesRequest) -> Buckets:
    """Return a row for each of ``starts``; NaN stands for null.

    A filled value counts as average, minimum and maximum of its bucket, with the count 0. Linear
    goes by the averages and beginnings of the buckets on both sides; before the first and behind
    the last bucket with readings there is nothing to go by.
    """
    # Readings that came since the range was settled may lie outside of it.
    inside = (buckets.start_us >= starts[0]) & (buckets.start_us <= starts[-1])
    at = np.searchsorted(starts, buckets.start_us[inside])
    mean = buckets.mean[inside]
    n = np.zeros(len(starts), dtype=np.int64)
    n[at] = buckets.n[inside]
    value = np.full(len(starts), np.nan)
    if request.fill == "value":
        value[:] = request.fill_value
    elif request.fill == "previous" and len(at):
        before = np.searchsorted(at, np.arange(len(starts)), side="right") - 1
        value = np.where(before >= 0, mean[before.clip(0)], np.nan)
    elif request.fill == "linear" and len(at):
        # From the first beginning on, so that microseconds stay exact as doubles.
        moments = (starts - starts[0]).astype(np.float64)
        value = np.interp(moments, moments[at], mean, left=np.nan, right=np.nan)
    columns = []
    for column in (buckets.mean, buckets.min, buckets.max):
        whole = value.copy()
        whole[at] = column[inside]
        columns.append(whole)
    return Buckets(starts, n, *columns)
