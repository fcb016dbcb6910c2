"""What queries answer. Encoding turns a number that is not finite into null, so JSON stays JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from ocean_core.obs.clock import iso_utc
from ocean_core.service.queries.verified import Digests, VerifyStep


class Stats(msgspec.Struct, frozen=True):
    """Statistics of one series; ``stddev_value`` is that of a sample, null below two readings."""

    sensor_id: str
    metric: str
    count: int
    avg_value: float | None
    min_value: float | None
    max_value: float | None
    stddev_value: float | None
    first_reading: str | None
    last_reading: str | None
    source: str


class Compared(msgspec.Struct, frozen=True):
    """Statistics of one sensor among others."""

    count: int
    avg_value: float | None
    min_value: float | None
    max_value: float | None
    stddev_value: float | None


class Comparison(msgspec.Struct, frozen=True):
    """Sensors by falling average; ``unknown`` are those that never sent anything."""

    comparison: dict[str, Compared]
    unknown: list[str]


class Bucket(msgspec.Struct, frozen=True, gc=False):
    """One bucket. A filled one has the count 0."""

    bucket: str
    avg_value: float | None
    min_value: float | None
    max_value: float | None
    count: int


class Timeseries(msgspec.Struct, frozen=True):
    """Buckets in ascending order."""

    sensor_id: str
    metric: str
    interval: str
    source: str
    data: list[Bucket]


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """A reading and how many standard deviations it is from the mean."""

    timestamp: str
    value: float
    z_score: float


class Anomalies(msgspec.Struct, frozen=True):
    """The newest anomalies; ``count`` is how many there are, ``truncated`` whether some are cut."""

    sensor_id: str
    metric: str
    threshold: float
    method: str
    mean: float | None
    stddev: float | None
    anomalies: list[Anomaly]
    count: int
    truncated: bool


class Sensor(msgspec.Struct, frozen=True):
    """One sensor: all of its readings together, and how many events."""

    sensor_id: str
    metrics: list[str]
    count: int
    first_reading: str | None
    last_reading: str | None
    last_value: float | None
    events: int


class Sensors(msgspec.Struct, frozen=True):
    """A page; ``next`` is what to send as ``after`` for the following one, null at the end."""

    sensors: list[Sensor]
    count: int
    next: str | None


class Reading(msgspec.Struct, frozen=True):
    """One reading; ``age_s`` is negative when its timestamp is ahead of the box's clock."""

    timestamp: str
    value: float
    quality: int
    id: int
    age_s: float


class Event(msgspec.Struct, frozen=True):
    """One event; ``data`` is its payload as it came."""

    id: int
    timestamp: str
    quality: int
    data: msgspec.Raw


class Latest(msgspec.Struct, frozen=True):
    """The newest reading of each metric of a sensor, and its newest event."""

    sensor_id: str
    latest: dict[str, Reading]
    event: Event | None


class LatestOfSensor(msgspec.Struct, frozen=True):
    """The newest reading of each metric of a sensor."""

    sensor_id: str
    latest: dict[str, Reading]


class LatestAll(msgspec.Struct, frozen=True):
    """A page; ``next`` is what to send as ``after`` for the following one, null at the end."""

    sensors: list[LatestOfSensor]
    count: int
    next: str | None


class Events(msgspec.Struct, frozen=True):
    """The newest events; ``truncated`` if the range holds more than are listed."""

    sensor_id: str
    events: list[Event]
    count: int
    truncated: bool


Answer = (
    Stats
    | Comparison
    | Timeseries
    | Anomalies
    | Sensors
    | Latest
    | LatestAll
    | Events
    | VerifyStep
    | Digests
)

_ENCODER = msgspec.json.Encoder()


def encode(answer: Answer) -> bytes:
    """Return an answer as JSON text."""
    return _ENCODER.encode(answer)


def finite(value: float) -> float | None:
    """Return the number, None where it overflowed or does not exist."""
    return value if math.isfinite(value) else None


def finite_list(values: Iterable[float]) -> list[float | None]:
    """Return ``finite`` of each."""
    isfinite = math.isfinite
    return [value if isfinite(value) else None for value in values]


def optional_iso(moment_us: int | None) -> str | None:
    """Return a moment in ISO 8601, None for none."""
    return None if moment_us is None else iso_utc(moment_us)
