"""The queries ``stats`` and ``compare``."""

from __future__ import annotations

import math

from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries.aggregate import Aggregate, aggregate
from ocean_core.service.queries.answers import Compared, Comparison, Stats, finite, optional_iso
from ocean_core.service.queries.catalog import choose, metrics_of, unknown_sensor
from ocean_core.service.queries.requests import CompareRequest, StatsRequest
from ocean_core.service.queries.session import Session


def answer_stats(window: LiveWindow | None, session: Session, request: StatsRequest) -> Stats:
    """Return statistics of one series; a range without readings has the count 0."""
    sensor_id = request.sensor_id
    series = choose(metrics_of(window, session, sensor_id), sensor_id, request.metric)
    result = aggregate(window, session, [series], request.start_us, request.end_us)
    found = result.found.get(series.series_id)
    figures = _figures(found)
    return Stats(
        sensor_id=sensor_id,
        metric=series.metric,
        count=figures.count,
        avg_value=figures.avg_value,
        min_value=figures.min_value,
        max_value=figures.max_value,
        stddev_value=figures.stddev_value,
        first_reading=optional_iso(found.first_us if found else None),
        last_reading=optional_iso(found.last_us if found else None),
        source=result.source,
    )


def answer_compare(
    window: LiveWindow | None, session: Session, request: CompareRequest
) -> Comparison:
    """Return statistics of several sensors, by falling average, those without readings last.

    Raises UnknownSensorError if none of them is known.
    """
    unknown: list[str] = []
    chosen = []
    for sensor_id in request.sensor_ids:
        found = metrics_of(window, session, sensor_id)
        if found:
            chosen.append(choose(found, sensor_id, request.metric))
        else:
            unknown.append(sensor_id)
    if not chosen:
        raise unknown_sensor(unknown[0])
    result = aggregate(window, session, chosen, request.start_us, request.end_us)
    figures = {series.sensor_id: _figures(result.found.get(series.series_id)) for series in chosen}
    order = sorted(figures, key=lambda name: (-_rank(figures[name]), name))
    return Comparison({name: figures[name] for name in order}, unknown)


def _figures(found: Aggregate | None) -> Compared:
    if found is None:
        return Compared(0, None, None, None, None)
    return Compared(found.n, finite(found.mean), found.min, found.max, found.stddev)


def _rank(figures: Compared) -> float:
    return -math.inf if figures.avg_value is None else figures.avg_value
