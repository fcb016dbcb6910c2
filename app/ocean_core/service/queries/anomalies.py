"""The query ``anomalies``: readings far from the mean of their range, by z-score."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ocean_core.obs.clock import iso_utc
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries.aggregate import LIVE, Aggregate, aggregate
from ocean_core.service.queries.answers import Anomalies, Anomaly, finite
from ocean_core.service.queries.catalog import Series, choose, metrics_of
from ocean_core.service.queries.plan import HIGH_US, LOW_US
from ocean_core.service.queries.requests import AnomaliesRequest
from ocean_core.service.queries.session import Session
from ocean_core.service.queries.values import HOUR_US

METHOD: Final = "zscore"

# How much rounding may move the limit of what an hour's extremes rule out, relative to its size.
_SLACK: Final = 1e-9

# Hours whose extremes are within the limits hold no anomaly and are not read.
_SUSPECT_HOURS: Final = """
SELECT epoch_us(min(bucket)), epoch_us(max(bucket)) FROM rollup_1h
WHERE series_id = ? AND bucket >= make_timestamp(?::BIGINT) AND bucket < make_timestamp(?::BIGINT)
    AND (max > ? OR min < ?)
"""
_FOUND: Final = """
FROM readings r SEMI JOIN (
    SELECT DISTINCT bucket FROM rollup_1h
    WHERE series_id = ? AND bucket >= make_timestamp(?::BIGINT) AND bucket < make_timestamp(?::BIGINT)
        AND (max > ? OR min < ?)
) h ON date_trunc('hour', r.ts) = h.bucket
WHERE r.series_id = ? AND r.ts >= make_timestamp(?::BIGINT) AND r.ts < make_timestamp(?::BIGINT)
    AND abs(r.value - ?) / ? > ?
"""
_LIST: Final = f"SELECT epoch_us(r.ts), r.value {_FOUND} ORDER BY r.ts DESC, r.id DESC LIMIT ?"
_COUNT: Final = f"SELECT count(*) {_FOUND}"

Rows = list[tuple[int, float]]


def answer_anomalies(
    window: LiveWindow | None, session: Session, request: AnomaliesRequest
) -> Anomalies:
    """Return readings with ``|value - mean| / stddev > threshold``, newest first.

    Mean and sample deviation are those of the chosen range. A constant series, or one of fewer
    than two readings, has no anomalies.
    """
    sensor_id = request.sensor_id
    series = choose(metrics_of(window, session, sensor_id), sensor_id, request.metric)
    result = aggregate(window, session, [series], request.start_us, request.end_us)
    whole = result.found.get(series.series_id)
    rows: Rows = []
    count = 0
    if whole is not None and whole.stddev:
        live = _from_memory(window, series, whole, request) if result.source == LIVE else None
        rows, count = live or _from_file(session, series, whole, request)
    stddev = whole.stddev if whole is not None else None
    return Anomalies(
        sensor_id=sensor_id,
        metric=series.metric,
        threshold=request.threshold,
        method=METHOD,
        mean=finite(whole.mean) if whole is not None else None,
        stddev=stddev,
        anomalies=[
            Anomaly(iso_utc(moment), value, (value - whole.mean) / (stddev or 1.0))
            for moment, value in rows
            if whole is not None
        ],
        count=count,
        truncated=count > len(rows),
    )


def _from_memory(
    window: LiveWindow | None, series: Series, whole: Aggregate, request: AnomaliesRequest
) -> tuple[Rows, int] | None:
    """Return the newest anomalies and how many there are, None if memory does not hold the range."""
    if window is None or series.state is None or whole.stddev is None:
        return None
    # What came since the mean was read takes part in the next answer.
    found = window.recent(series.state, whole.first_us, whole.last_us + 1)
    if found is None:
        return None
    which = np.flatnonzero(np.abs(found.value - whole.mean) / whole.stddev > request.threshold)
    listed = which[::-1][: request.limit]
    moments, values = found.ts_us[listed].tolist(), found.value[listed].tolist()
    return list(zip(moments, values, strict=True)), len(which)


def _from_file(
    session: Session, series: Series, whole: Aggregate, request: AnomaliesRequest
) -> tuple[Rows, int]:
    assert whole.stddev is not None
    low_us = LOW_US if request.start_us is None else request.start_us
    high_us = HIGH_US if request.end_us is None else request.end_us + 1
    reach = request.threshold * whole.stddev
    slack = _SLACK * (abs(whole.mean) + reach)
    limits = [whole.mean + reach - slack, whole.mean - reach + slack]
    hours = [series.series_id, low_us // HOUR_US * HOUR_US, high_us, *limits]
    with session.snapshot():
        first_us, last_us = session.rows(_SUSPECT_HOURS, hours)[0]
        if first_us is None:
            return [], 0
        params: list[Any] = [
            series.series_id, first_us, last_us + 1, *limits,
            series.series_id, max(low_us, first_us), min(high_us, last_us + HOUR_US),
            whole.mean, whole.stddev, request.threshold,
        ]  # fmt: skip
        rows = session.rows(_LIST, [*params, request.limit])
        count = len(rows)
        if count == request.limit:
            count = session.rows(_COUNT, params)[0][0]
    return [(moment, value) for moment, value in rows], count
