"""Questions about readings, and about the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ocean_core.facade.base import LISTED, Json, Moment, Part, given, moment_json, segment
from ocean_core.model import limits

Fill = Literal["none", "null", "previous", "linear"] | float


class Analytics(Part):
    """Answers of the analytics process; docs/queries.md tells what each means.

    ``start`` and ``end`` are inclusive and exact to the microsecond. ``metric`` chooses one of
    several; ``wait`` lets a question wait until everything acknowledged before it is visible. All
    raise UnknownSensorError for a sensor that never sent anything, QueryError for a parameter that
    is wrong, AnalyticsUnavailableError if they do not come back within ``timeout_s``.
    """

    def get_sensor_stats(
        self,
        sensor_id: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        metric: str | None = None,
        wait: bool = False,
    ) -> Json:
        """Return count, avg_value, min_value, max_value, stddev_value, first_ and last_reading."""
        query = _range(start, end) | given(metric=metric) | _waiting(wait)
        return dict(self._get(f"/analytics/sensor/{segment(sensor_id)}/stats", query))

    def get_time_series(
        self,
        sensor_id: str,
        interval: str = "5m",
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        metric: str | None = None,
        fill: Fill | None = None,
        tz: str | None = None,
        wait: bool = False,
    ) -> list[Json]:
        """Return buckets by time: bucket (where it begins), avg_value, min_value, max_value, count.

        ``interval`` is 1 s to 30 d; ``fill`` says what stands in empty buckets; ``tz`` names the
        time zone whose days and hours count.
        """
        query = _range(start, end) | given(interval=interval, metric=metric, fill=fill, tz=tz)
        path = f"/analytics/sensor/{segment(sensor_id)}/timeseries"
        return list(self._get(path, query | _waiting(wait))["data"])

    def get_anomalies(
        self,
        sensor_id: str,
        threshold: float = 2.0,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        metric: str | None = None,
        limit: int | None = None,
        wait: bool = False,
    ) -> list[Json]:
        """Return readings beyond ``threshold`` sample deviations from the mean, newest first.

        Each has timestamp, value, z_score. At most ``limit`` (100).
        """
        query = _range(start, end) | given(threshold=threshold, metric=metric, limit=limit)
        path = f"/analytics/sensor/{segment(sensor_id)}/anomalies"
        return list(self._get(path, query | _waiting(wait))["anomalies"])

    def compare_sensors(
        self,
        sensor_ids: Sequence[str],
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        metric: str | None = None,
    ) -> dict[str, Json]:
        """Return statistics by sensor, highest average first; unknown sensors are left out."""
        body = {"sensor_ids": list(sensor_ids), **_range(start, end), **given(metric=metric)}
        answer = self._post("/analytics/compare", body, repeatable=True)
        return dict(answer["comparison"])

    def sensors(self, prefix: str = "", *, limit: int = LISTED, wait: bool = False) -> list[Json]:
        """Return sensors by id: metrics, count, first_reading, last_reading, last_value, events."""
        query = given(prefix=prefix or None) | _waiting(wait)
        return self._list("/sensors", "sensors", limit, query)

    def latest(self, sensor_id: str, metric: str | None = None, *, wait: bool = False) -> Json:
        """Return the newest reading by metric: timestamp, value, quality, id, age_s."""
        query = given(metric=metric) | _waiting(wait)
        return dict(self._get(f"/sensors/{segment(sensor_id)}/latest", query)["latest"])

    def events(
        self,
        sensor_id: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int = limits.EVENTS_PAGE_DEFAULT,
        wait: bool = False,
    ) -> list[Json]:
        """Return the newest events first: id, timestamp, quality, data (as it came)."""
        query = _range(start, end) | {"limit": limit} | _waiting(wait)
        return list(self._get(f"/sensors/{segment(sensor_id)}/events", query)["events"])

    def status(self) -> Json:
        """Return everything that the box knows of itself."""
        return dict(self._get("/status"))

    def request(self, method: str, path: str, body: object = None, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Call any address of the API (``/api/ocean/…``) and return the JSON of its answer."""
        return self._api.call(method, path, body=body, query=query)


def _range(start: Moment | None, end: Moment | None) -> Json:
    return given(start=moment_json(start), end=moment_json(end))


def _waiting(wait: bool) -> Json:  # noqa: FBT001 - as it stands in the query
    return {"wait": True} if wait else {}
