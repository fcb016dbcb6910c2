"""What was asked for, and what follows from it: names, moments, sizes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ocean_core.model import limits
from ocean_core.model.block import DEFAULT_METRIC
from ocean_core.protocol.media import Encoding, Media

BATCH_ROWS: Final = 1_000
# Requests a second at a low rate: a batch may not take longer than this to fill.
REQUESTS_PER_S_MIN: Final = 5
GIVE_UP_S: Final = 30.0
FOR_S: Final = 10.0
CONNECTIONS: Final = 8
CONNECTIONS_SINGLE: Final = 64

FRAME_CONNECTIONS: Final = 1_000
# Without an answer nothing tells how many datagrams a box takes.
DATAGRAMS_PER_S: Final = 5_000

_SECOND_US: Final = 1_000_000
_FRAMES_PER_S_MAX: Final = 500_000
# At the greatest rate readings are of the past: as many as this box may take must fit before now.
_PAST_S: Final = 10 * 86_400
_READINGS_PER_S_MAX: Final = 5_000_000
_INTERVAL_US_MAX: Final = _SECOND_US


class Form(StrEnum):
    """How readings are sent."""

    SINGLE = "single"
    ROWS = "rows"
    COLUMNAR = "columnar"
    NDJSON = "ndjson"
    BLOCK = "block"

    @property
    def media(self) -> Media:
        """What the Content-Type says."""
        return {Form.NDJSON: Media.NDJSON, Form.BLOCK: Media.BLOCK}.get(self, Media.JSON)

    @property
    def path(self) -> str:
        """Where it is sent to."""
        return f"/api/ocean/telemetry/{'ingest' if self is Form.SINGLE else 'batch'}"


class Faults(StrEnum):
    """How much goes wrong with the sensors."""

    NONE = "none"
    FEW = "few"
    MANY = "many"


class Transport(StrEnum):
    """How frames travel."""

    TCP = "tcp"
    UDP = "udp"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class FrameOrder:
    """What was asked for of frames; ``secrets`` by model."""

    transport: Transport = Transport.TCP
    level: int = 1
    secrets: Mapping[int, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for.

    ``rate`` in readings/s, None: the greatest. Without ``seconds`` and ``count`` (of readings) it
    goes on until it is told to end. ``keys``: each request carries an Idempotency-Key. ``frames``:
    devices send frames instead of readings.
    """

    sensors: int = 100
    metrics: tuple[str, ...] = (DEFAULT_METRIC,)
    faults: Faults = Faults.FEW
    seed: int = 1
    prefix: str | None = None
    form: Form = Form.ROWS
    encoding: Encoding = Encoding.IDENTITY
    rate: float | None = None
    seconds: float | None = FOR_S
    count: int | None = None
    batch: int | None = None
    connections: int | None = None
    keys: bool = True
    give_up_s: float = GIVE_UP_S
    frames: FrameOrder | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the box says what became of what is sent."""
        return self.frames is None or self.frames.transport is not Transport.UDP

    @property
    def media(self) -> Media:
        """What the Content-Type of a request says."""
        return self.form.media if self.frames is None else Media.FRAMES

    @property
    def path(self) -> str:
        """Where requests are sent to."""
        return (self.form if self.frames is None else Form.ROWS).path

    @property
    def readings_per_moment(self) -> int:
        """How many readings all sensors make at one moment."""
        return self.sensors * len(self.metrics)

    @property
    def connections_used(self) -> int:
        """How many connections there are."""
        if self.connections is not None:
            return self.connections
        if self.frames is not None and self.frames.transport is not Transport.HTTP:
            # Each device has its own, while the box has room for them.
            is_tcp = self.frames.transport is Transport.TCP
            return min(self.sensors, FRAME_CONNECTIONS) if is_tcp else 1
        return CONNECTIONS_SINGLE if self.form is Form.SINGLE else CONNECTIONS

    def rows_per_request(self) -> int:
        """Return how many readings a request carries at most."""
        if self.form is Form.SINGLE:
            return 1
        if self.batch is not None:
            return self.batch
        if self.rate is None:
            return BATCH_ROWS
        return max(1, min(BATCH_ROWS, int(self.rate / REQUESTS_PER_S_MIN)))


@dataclass(frozen=True, slots=True)
class Timing:
    """When the fleet measures: from ``start_us`` on, every ``interval_us``, in microseconds.

    ``paced``: a reading is due at its own time, ``start_us`` being the begin of the run.
    """

    start_us: int
    interval_us: int
    paced: bool


def timing_of(order: Order, now_us: int) -> Timing:
    """Return the moments of a run that begins now.

    At a rate the fleet measures now. At the greatest rate its moments follow each other as fast as
    readings leave, which no clock does; so they lie in the past, far enough that none reaches the
    future, which the box would refuse.
    """
    rows = order.readings_per_moment
    if order.rate is not None and rows * _SECOND_US / order.rate >= 1:
        return Timing(now_us, int(rows * _SECOND_US / order.rate), paced=True)
    readings = order.count or int((order.seconds or 3600.0) * _READINGS_PER_S_MAX)
    moments = readings // rows + 1
    if order.frames is not None:
        # Frames tell whole seconds, and no two of a device may be the same.
        readings = order.count or int((order.seconds or 3600.0) * _FRAMES_PER_S_MAX)
        span_us = max(_PAST_S, readings // rows + 1) * _SECOND_US
        start_us = max(limits.TIMESTAMP_PLAUSIBLE_US_MIN, now_us - span_us)
        return Timing(start_us, _SECOND_US, paced=False)
    interval_us = max(1, min(_INTERVAL_US_MAX, _PAST_S * _SECOND_US // moments))
    span_us = max(_PAST_S * _SECOND_US, interval_us * moments)
    start_us = max(limits.TIMESTAMP_PLAUSIBLE_US_MIN, now_us - span_us)
    return Timing(start_us, interval_us, paced=False)


def sensor_names(prefix: str, count: int) -> list[str]:
    """Return the names of a fleet's sensors.

    >>> sensor_names("sim-", 2)
    ['sim-0001', 'sim-0002']
    """
    return [f"{prefix}{number:04d}" for number in range(1, count + 1)]
