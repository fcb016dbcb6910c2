"""The queries ``sensors``, ``latest``, ``latest_all`` and ``events``: what there is, and what is new."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.block import EVENT_METRIC
from ocean_core.obs.clock import iso_utc
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries.answers import (
    Event,
    Events,
    Latest,
    LatestAll,
    LatestOfSensor,
    Reading,
    Sensor,
    Sensors,
)
from ocean_core.service.queries.catalog import Series, choose, metrics_of, unknown_sensor
from ocean_core.service.queries.plan import HIGH_US, LOW_US
from ocean_core.service.queries.requests import (
    EventsRequest,
    LatestAllRequest,
    LatestRequest,
    SensorsRequest,
)
from ocean_core.service.queries.session import Session

# An answer holds no more bytes of events than a request body may bring.
EVENTS_ANSWER_BYTES_MAX: Final = limits.BODY_BYTES_MAX

_NAMES: Final = """
SELECT DISTINCT sensor_id FROM series WHERE sensor_id > ? AND starts_with(sensor_id, ?)
ORDER BY sensor_id LIMIT ?
"""
_ALL: Final = 2**62
_NEWEST: Final = """
SELECT epoch_us(ts), value, quality, id FROM readings
WHERE series_id = ? AND ts = (SELECT max(last_ts) FROM rollup_1h WHERE series_id = ?)
ORDER BY id DESC LIMIT 1
"""
_COUNTS: Final = """
SELECT sum(n)::BIGINT, epoch_us(min(first_ts)), epoch_us(max(last_ts)) FROM rollup_1h
WHERE series_id = ?
"""
_EVENT_COUNT: Final = "SELECT count(*) FROM events WHERE series_id = ?"
# The newest first, as many as fit into an answer, but at least one.
_EVENTS: Final = """
SELECT id, epoch_us(ts), quality, payload FROM (
    SELECT *, sum(strlen(payload)) OVER newest_first AS bytes,
        row_number() OVER newest_first AS place
    FROM (
        SELECT id, ts, quality, payload FROM events
        WHERE series_id = ? AND ts >= make_timestamp(?::BIGINT) AND ts < make_timestamp(?::BIGINT)
        ORDER BY ts DESC, id DESC LIMIT ?
    )
    WINDOW newest_first AS (ORDER BY ts DESC, id DESC ROWS UNBOUNDED PRECEDING)
) WHERE bytes <= ? OR place = 1 ORDER BY place
"""
_EVENTS_BEYOND: Final = """
SELECT count(*) FROM events
WHERE series_id = ? AND ts >= make_timestamp(?::BIGINT) AND ts < make_timestamp(?::BIGINT)
"""


def answer_sensors(window: LiveWindow | None, session: Session, request: SensorsRequest) -> Sensors:
    """Return a page of sensors by name (by code point)."""
    names, following = _page(window, session, request, request.prefix)
    page = [_sensor(window, session, name) for name in names]
    return Sensors(page, len(page), following)


def answer_latest(
    window: LiveWindow | None, session: Session, request: LatestRequest, now_us: int
) -> Latest:
    """Return the newest readings of a sensor, and its newest event if it sent any."""
    sensor_id = request.sensor_id
    found = metrics_of(window, session, sensor_id)
    if not found:
        raise unknown_sensor(sensor_id)
    metric = request.metric
    chosen = found if metric is None else [choose(found, sensor_id, metric)]
    event = None
    for series in chosen:
        if series.metric == EVENT_METRIC:
            newest = _events(session, series, LOW_US, HIGH_US, 1)
            event = newest[0] if newest else None
    return Latest(sensor_id, _readings(session, chosen, now_us), event)


def answer_latest_all(
    window: LiveWindow | None, session: Session, request: LatestAllRequest, now_us: int
) -> LatestAll:
    """Return the newest readings of a page of sensors by name."""
    names, following = _page(window, session, request, None)
    page = [
        LatestOfSensor(name, _readings(session, metrics_of(window, session, name), now_us))
        for name in names
    ]
    return LatestAll(page, len(page), following)


def answer_events(window: LiveWindow | None, session: Session, request: EventsRequest) -> Events:
    """Return the newest events of a sensor; none if it sends only readings."""
    sensor_id = request.sensor_id
    found = metrics_of(window, session, sensor_id)
    if not found:
        raise unknown_sensor(sensor_id)
    low_us = LOW_US if request.start_us is None else request.start_us
    high_us = HIGH_US if request.end_us is None else request.end_us + 1
    events: list[Event] = []
    total = 0
    for series in found:
        if series.metric == EVENT_METRIC:
            with session.snapshot():
                events = _events(session, series, low_us, high_us, request.limit)
                total = session.rows(_EVENTS_BEYOND, [series.series_id, low_us, high_us])[0][0]
    return Events(sensor_id, events, len(events), total > len(events))


def _page(
    window: LiveWindow | None,
    session: Session,
    request: SensorsRequest | LatestAllRequest,
    prefix: str | None,
) -> tuple[list[str], str | None]:
    """Return up to ``limit`` names behind ``after``, and the last one if more follow."""
    limit, after, pattern = request.limit, request.after, request.pattern
    # What a pattern means is decided in one place, not a second time in SQL.
    may_touch = None if pattern is None else Principal("key", sensors=pattern).may_touch
    if window is None:
        most = limit + 1 if may_touch is None else _ALL
        rows = session.rows(_NAMES, [after or "", prefix or "", most])
        names = [name for (name,) in rows if may_touch is None or may_touch(name)][: limit + 1]
    else:
        known: Iterable[str] = window.sensors()
        if after is not None:
            known = [name for name in known if name > after]
        if prefix is not None:
            known = [name for name in known if name.startswith(prefix)]
        if may_touch is not None:
            known = filter(may_touch, known)
        names = heapq.nsmallest(limit + 1, known)
    return names[:limit], names[limit - 1] if len(names) > limit else None


def _sensor(window: LiveWindow | None, session: Session, sensor_id: str) -> Sensor:
    """Return one line of the list; the last value is that of the newest reading of any metric."""
    metrics: list[str] = []
    count = events = 0
    first_us: int | None = None
    newest: tuple[int, int, float] | None = None
    for series in metrics_of(window, session, sensor_id):
        if series.metric == EVENT_METRIC:
            events = _event_count(window, session, series)
            continue
        metrics.append(series.metric)
        if series.totals is not None:
            n, earliest = series.totals.n, series.totals.first_ts_us
        else:
            n, earliest, _ = session.rows(_COUNTS, [series.series_id])[0]
        if not n:
            continue
        count += n
        first_us = earliest if first_us is None else min(first_us, earliest)
        last = _newest(session, series)
        if last is not None:
            moment, value, _, number = last
            newest = max(newest or (moment, number, value), (moment, number, value))
    return Sensor(
        sensor_id,
        metrics,
        count,
        None if first_us is None else iso_utc(first_us),
        None if newest is None else iso_utc(newest[0]),
        None if newest is None else newest[2],
        events,
    )


def _event_count(window: LiveWindow | None, session: Session, series: Series) -> int:
    known = None if window is None else window.events.get(series.sensor_id)
    if known is not None:
        return known.n
    count: int = session.rows(_EVENT_COUNT, [series.series_id])[0][0]
    return count


def _readings(session: Session, found: list[Series], now_us: int) -> dict[str, Reading]:
    readings = {}
    for series in found:
        if series.metric == EVENT_METRIC:
            continue
        newest = _newest(session, series)
        if newest is not None:
            moment, value, quality, number = newest
            age_s = (now_us - moment) / 1e6
            readings[series.metric] = Reading(iso_utc(moment), value, quality, number, age_s)
    return readings


def _newest(session: Session, series: Series) -> tuple[int, float, int, int] | None:
    """Return (time, value, quality, id) of the newest reading, the last stored of equal times."""
    totals = series.totals
    if totals is not None and totals.n:
        return totals.last_ts_us, totals.last_value, totals.last_quality, totals.last_id
    rows = session.rows(_NEWEST, [series.series_id, series.series_id])
    return rows[0] if rows else None


def _events(session: Session, series: Series, low_us: int, high_us: int, limit: int) -> list[Event]:
    params = [series.series_id, low_us, high_us, limit, EVENTS_ANSWER_BYTES_MAX]
    return [
        Event(number, iso_utc(moment), quality, msgspec.Raw(payload.encode()))
        for number, moment, quality, payload in session.rows(_EVENTS, params)
    ]
