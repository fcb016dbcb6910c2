"""What may be asked of analytics, checked once, in the same words in either process.

``parse_request`` takes a query's name and its parameters as they came: text from an address, or
values from a JSON body. Requests are frozen, hence hashable: with the watermark they can key a
cache of answers. Moments are microseconds since 1970 UTC; ``start_us`` and ``end_us`` are both
inclusive, None means open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from ocean_core.model import limits
from ocean_core.service.queries.values import (
    parse_integer,
    parse_interval,
    parse_moment,
    parse_number,
    parse_text,
    parse_zone,
    refuse,
)

Fill = Literal["none", "null", "previous", "linear", "value"]

THRESHOLD_DEFAULT: Final = 2.0
INTERVAL_DEFAULT: Final = "5m"
ZONE_DEFAULT: Final = "UTC"
SERIES_CURSOR_BYTES_MAX: Final = 6 * (limits.SENSOR_ID_BYTES_MAX + limits.METRIC_BYTES_MAX) + 16


class StatsRequest(msgspec.Struct, frozen=True):
    """Count, mean, extremes and deviation of one series."""

    sensor_id: str
    metric: str | None = None
    start_us: int | None = None
    end_us: int | None = None


class TimeseriesRequest(msgspec.Struct, frozen=True):
    """Means and extremes per bucket. ``fill_value`` belongs to the fill "value"."""

    sensor_id: str
    metric: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    interval: str = INTERVAL_DEFAULT
    interval_us: int = parse_interval("interval", INTERVAL_DEFAULT)
    fill: Fill = "none"
    fill_value: float = 0.0
    zone: str = ZONE_DEFAULT


class AnomaliesRequest(msgspec.Struct, frozen=True):
    """Readings further from the mean than ``threshold`` standard deviations."""

    sensor_id: str
    metric: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    threshold: float = THRESHOLD_DEFAULT
    limit: int = limits.ANOMALIES_LISTED_DEFAULT


class CompareRequest(msgspec.Struct, frozen=True):
    """Statistics of several sensors side by side; no name occurs twice."""

    sensor_ids: tuple[str, ...]
    metric: str | None = None
    start_us: int | None = None
    end_us: int | None = None


class SensorsRequest(msgspec.Struct, frozen=True):
    """A page of the known sensors, by name, beginning behind ``after``.

    ``pattern`` is that of the key which asks: other sensors do not exist for it.
    """

    limit: int = limits.SENSORS_PAGE_DEFAULT
    after: str | None = None
    prefix: str | None = None
    pattern: str | None = None


class LatestRequest(msgspec.Struct, frozen=True):
    """The newest reading of each metric of a sensor, or of one metric."""

    sensor_id: str
    metric: str | None = None


class LatestAllRequest(msgspec.Struct, frozen=True):
    """The newest readings of a page of sensors, by name, beginning behind ``after``.

    ``pattern`` is that of the key which asks: other sensors do not exist for it.
    """

    limit: int = limits.SENSORS_PAGE_DEFAULT
    after: str | None = None
    pattern: str | None = None


class EventsRequest(msgspec.Struct, frozen=True):
    """The newest events of a sensor."""

    sensor_id: str
    start_us: int | None = None
    end_us: int | None = None
    limit: int = limits.EVENTS_PAGE_DEFAULT


class VerifyRequest(msgspec.Struct, frozen=True):
    """Compare some ids behind ``after_id`` with the journal."""

    after_id: int = 0


class DigestsRequest(msgspec.Struct, frozen=True):
    """Count and digest of a page of series, by name, beginning behind ``after``.

    ``after`` is (sensor, metric). ``pattern`` is that of the key which asks: other sensors do not
    exist for it.
    """

    limit: int = limits.DIGESTS_PAGE_DEFAULT
    after: tuple[str, str] | None = None
    prefix: str | None = None
    pattern: str | None = None


Request = (
    StatsRequest
    | TimeseriesRequest
    | AnomaliesRequest
    | CompareRequest
    | SensorsRequest
    | LatestRequest
    | LatestAllRequest
    | EventsRequest
    | VerifyRequest
    | DigestsRequest
)

Params = Mapping[str, object]
Fields = dict[str, Any]
Reader = Callable[[str, object], Fields]


def parse_request(name: str, params: Params, *, internal: bool = False) -> Request:
    """Return the request for the query ``name``; ``internal`` are parameters of our own making.

    A parameter that is None counts as absent; one that the query does not take is refused, since
    a misspelt bound that is ignored gives a wrong answer without a word. Raises QueryError naming
    parameter, what was found and what was expected.
    """
    found = _QUERIES.get(name)
    if found is None:
        refuse("query", name, "one of " + ", ".join(_QUERIES))
    request_type, readers, required = found
    fields: Fields = {}
    for parameter, value in params.items():
        if value is None:
            continue
        reader = readers.get(parameter)
        if internal and reader is None:
            reader = _INTERNAL.get((name, parameter))
        if reader is None:
            refuse(parameter, value, "no such parameter; known are " + ", ".join(readers))
        fields |= reader(parameter, value)
    if required is not None and required not in fields:
        refuse(required, "nothing", _REQUIRED[required])
    _check_order(params, fields)
    request: Request = request_type(**fields)
    return request


def query_names() -> tuple[str, ...]:
    """Return the names of all queries."""
    return tuple(_QUERIES)


def _check_order(params: Params, fields: Fields) -> None:
    start, end = fields.get("start_us"), fields.get("end_us")
    if start is not None and end is not None and end < start:
        name = "end" if params.get("end") is not None else "end_time"
        refuse(name, params[name], "a moment not before the start")


# --- one reader per parameter: (parameter, value) -> fields of the request -----------------------


def _sensor(field: str, value: object) -> Fields:
    return {"sensor_id": parse_text(field, value, bytes_max=limits.SENSOR_ID_BYTES_MAX)}


def _metric(field: str, value: object) -> Fields:
    return {"metric": parse_text(field, value, bytes_max=limits.METRIC_BYTES_MAX)}


def _start(field: str, value: object) -> Fields:
    return {"start_us": parse_moment(field, value)}


def _end(field: str, value: object) -> Fields:
    return {"end_us": parse_moment(field, value)}


def _interval(field: str, value: object) -> Fields:
    width = parse_interval(field, value)
    return {"interval": str(value).strip(), "interval_us": width}


def _ignored_interval(field: str, value: object) -> Fields:
    """The original's ``aggregation`` had no effect; a broken one is still worth a word."""
    parse_interval(field, value)
    return {}


def _fill(field: str, value: object) -> Fields:
    if value in {"none", "null", "previous", "linear"}:
        return {"fill": value}
    number = parse_number(field, value, "none, null, previous, linear or a finite number")
    return {"fill": "value", "fill_value": number}


def _zone(field: str, value: object) -> Fields:
    return {"zone": parse_zone(field, value)}


def _threshold(field: str, value: object) -> Fields:
    number = parse_number(field, value, "a finite number above 0")
    if number <= 0:
        refuse(field, value, "a finite number above 0")
    return {"threshold": number}


def _limit(high: int) -> Reader:
    return lambda field, value: {"limit": parse_integer(field, value, low=1, high=high)}


def _after(field: str, value: object) -> Fields:
    return {"after": parse_text(field, value, bytes_max=limits.SENSOR_ID_BYTES_MAX)}


def _after_id(field: str, value: object) -> Fields:
    return {"after_id": parse_integer(field, value, low=0, high=limits.READING_ID_MAX)}


def _after_series(field: str, value: object) -> Fields:
    text = parse_text(field, value, bytes_max=SERIES_CURSOR_BYTES_MAX)
    try:
        return {"after": msgspec.json.decode(text, type=tuple[str, str])}
    except msgspec.DecodeError:
        refuse(field, value, "the field next of the page before")


def _prefix(field: str, value: object) -> Fields:
    return {"prefix": parse_text(field, value, bytes_max=limits.SENSOR_ID_BYTES_MAX)}


def _pattern(field: str, value: object) -> Fields:
    return {"pattern": parse_text(field, value, bytes_max=limits.KEY_PATTERN_BYTES_MAX)}


def _sensors(field: str, value: object) -> Fields:
    expected = f"an array of 1 to {limits.COMPARE_SENSORS_MAX} sensor ids"
    if not isinstance(value, list | tuple):
        refuse(field, value, expected)
    if not 1 <= len(value) <= limits.COMPARE_SENSORS_MAX:
        refuse(field, f"{len(value)} ids", expected)
    names = [
        parse_text(f"{field}[{index}]", name, bytes_max=limits.SENSOR_ID_BYTES_MAX)
        for index, name in enumerate(value)
    ]
    return {"sensor_ids": tuple(dict.fromkeys(names))}


def _unused_sensor(field: str, value: object) -> Fields:
    """The original's ``sensor_id`` had no effect beside ``sensor_ids`` and has none here."""
    _sensor(field, value)
    return {}


_RANGE: Final[dict[str, Reader]] = {"start": _start, "end": _end}
_SERIES: Final[dict[str, Reader]] = {"sensor_id": _sensor, "metric": _metric, **_RANGE}

_REQUIRED: Final = {
    "sensor_id": "the id of a sensor",
    "sensor_ids": f"an array of 1 to {limits.COMPARE_SENSORS_MAX} sensor ids",
}


_INTERNAL: Final[dict[tuple[str, str], Reader]] = {
    ("sensors", "pattern"): _pattern,
    ("latest_all", "pattern"): _pattern,
    ("digests", "pattern"): _pattern,
}

_QUERIES: Final[dict[str, tuple[Callable[..., Request], dict[str, Reader], str | None]]] = {
    "stats": (StatsRequest, _SERIES, "sensor_id"),
    "timeseries": (
        TimeseriesRequest,
        {**_SERIES, "interval": _interval, "fill": _fill, "tz": _zone},
        "sensor_id",
    ),
    "anomalies": (
        AnomaliesRequest,
        {**_SERIES, "threshold": _threshold, "limit": _limit(limits.ANOMALIES_LISTED_MAX)},
        "sensor_id",
    ),
    "compare": (
        CompareRequest,
        {
            "sensor_ids": _sensors, "sensor_id": _unused_sensor, "metric": _metric,
            "start_time": _start, "end_time": _end, **_RANGE, "aggregation": _ignored_interval,
        },
        "sensor_ids",
    ),
    "sensors": (
        SensorsRequest,
        {"limit": _limit(limits.SENSORS_PAGE_MAX), "after": _after, "prefix": _prefix},
        None,
    ),
    "latest": (LatestRequest, {"sensor_id": _sensor, "metric": _metric}, "sensor_id"),
    "latest_all": (
        LatestAllRequest, {"limit": _limit(limits.SENSORS_PAGE_MAX), "after": _after}, None,
    ),
    "events": (
        EventsRequest,
        {"sensor_id": _sensor, **_RANGE, "limit": _limit(limits.EVENTS_PAGE_MAX)},
        "sensor_id",
    ),
    "verify": (VerifyRequest, {"after_id": _after_id}, None),
    "digests": (
        DigestsRequest,
        {"limit": _limit(limits.DIGESTS_PAGE_MAX), "after": _after_series, "prefix": _prefix},
        None,
    ),
}  # fmt: skip
