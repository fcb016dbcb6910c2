"""Finding the series that a question is about: in the live window, else in DuckDB."""

from __future__ import annotations

from typing import NamedTuple

from ocean_core.model.block import DEFAULT_METRIC, EVENT_METRIC
from ocean_core.model.errors import FieldProblem, MetricChoiceError, UnknownSensorError
from ocean_core.pipeline.live_window import LiveWindow, SeriesState
from ocean_core.pipeline.totals import Totals
from ocean_core.service.queries.session import Session
from ocean_core.service.queries.values import refusal

METRICS_NAMED_MAX = 20


class Series(NamedTuple):
    """One series. ``state`` and ``totals`` are None where the live window does not know it."""

    series_id: int
    sensor_id: str
    metric: str
    state: SeriesState | None
    totals: Totals | None


def metrics_of(window: LiveWindow | None, session: Session, sensor_id: str) -> list[Series]:
    """Return the series of a sensor by metric, its events (metric '') included; none if unknown."""
    if window is not None:
        states = window.catalog.get(sensor_id, {})
        found = [
            Series(state.series_id, sensor_id, metric, state, state.totals)
            for metric, state in sorted(states.items())
        ]
        events = window.events.get(sensor_id)
        if events is not None:
            found.insert(0, Series(events.series_id, sensor_id, EVENT_METRIC, None, None))
        if found:
            return found
    rows = session.rows(
        "SELECT series_id, metric FROM series WHERE sensor_id = ? ORDER BY metric", [sensor_id]
    )
    return [Series(number, sensor_id, metric, None, None) for number, metric in rows]


def choose(found: list[Series], sensor_id: str, metric: str | None) -> Series:
    """Return the series of readings that the question means.

    Without a metric: ``value`` if it exists, else the only one. Raises UnknownSensorError,
    MetricChoiceError, and QueryError for an unknown metric or a sensor that sends only events.
    """
    if not found:
        raise unknown_sensor(sensor_id)
    readings = {series.metric: series for series in found if series.metric != EVENT_METRIC}
    if not readings:
        error = refusal("sensor_id", sensor_id, "a sensor with readings; this one has only events")
        error.hint = "GET /api/ocean/sensors/{id}/events returns them."
        raise error
    if metric is not None:
        if metric not in readings:
            raise refusal("metric", metric, f"one of {_listed(readings)}")
        return readings[metric]
    if DEFAULT_METRIC in readings:
        return readings[DEFAULT_METRIC]
    if len(readings) == 1:
        return next(iter(readings.values()))
    names = _listed(readings)
    raise MetricChoiceError(
        f"{sensor_id} has the metrics {names}.",
        fields=(FieldProblem("metric", "nothing", f"one of {names}"),),
    )


def unknown_sensor(sensor_id: str) -> UnknownSensorError:
    """Return the error for a sensor that never sent anything."""
    return UnknownSensorError(f"No reading or event of {sensor_id!r} is stored.")


def _listed(readings: dict[str, Series]) -> str:
    names = list(readings)
    more = len(names) - METRICS_NAMED_MAX
    text = ", ".join(names[:METRICS_NAMED_MAX])
    return f"{text} and {more} more" if more > 0 else text
