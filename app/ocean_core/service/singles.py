"""Single readings, many at a time: what arrives while a commit runs goes into the next one.

A request of its own costs the journal a future, a queue entry and a turn of two threads; at a
hundred thousand a second that is most of the time. Here the usual request, one reading of a known
series that needs no account, becomes one more row of columns; a group of them is one request to the
journal, and each gets its id from the group's receipt. Whatever is not usual is left to
``service.ingest``, which decides everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import numpy as np

from ocean_core.buffer.port import IngestBuffer
from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.block import DEFAULT_METRIC, Readings, SeriesName
from ocean_core.model.errors import InternalError, OceanError
from ocean_core.model.receipt import Intake
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.readings.shapes import ARRAY_ROWS_MIN, PlainItem

NAMES_REMEMBERED_MAX: Final = 20_000

_ITEM: Final = msgspec.json.Decoder(PlainItem)


class Sink(Protocol):
    """Whoever waits for the answer to a single reading."""

    def stored(self, answer: bytes) -> None:
        """Take the answer's JSON: the reading is durable."""
        ...

    def refused(self, error: OceanError, sensor_id: str) -> None:
        """Take the reason why the reading of this sensor is not."""
        ...


class _Group:
    """Readings that become durable together, and who waits for them."""

    __slots__ = ("index", "moments", "names", "places", "sinks", "values")

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.index: list[int] = []
        self.moments: list[int] = []
        self.values: list[float] = []
        self.names: list[bytes] = []
        self.sinks: list[Sink] = []

    def intake(self) -> Intake:
        rows = len(self.sinks)
        series: list[SeriesName] = [(sensor_id, DEFAULT_METRIC) for sensor_id in self.places]
        if rows < ARRAY_ROWS_MIN:
            columns = Readings(series, self.index, self.moments, self.values, [0] * rows)
        else:
            columns = Readings(
                series,
                np.array(self.index, dtype=np.uint32),
                np.array(self.moments, dtype=np.int64),
                np.array(self.values, dtype=np.float64),
                np.zeros(rows, dtype=np.uint8),
            )
        return Intake(columns, None, rows)


class SingleReadings:
    """Gathers single readings on the event loop: one group grows while others become durable."""

    def __init__(
        self,
        buffer: IngestBuffer,
        clock: Clock,
        metrics: MetricsRegistry,
        log: EventLog,
        is_known: Callable[[SeriesName], bool],
        *,
        groups_max: int = 1,
    ) -> None:
        """``is_known`` tells of a series that is stored already, so that no quota concerns it.

        At most ``groups_max`` groups are on their way at once. One makes the largest groups; more
        are for a journal that itself waits for others before it commits.
        """
        self._groups_max = groups_max
        self._buffer = buffer
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._is_known = is_known
        self._names: dict[str, bytes] = {}
        self._group = _Group()
        self._is_due = False
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, body: bytes, principal: Principal, sink: Sink) -> bool:
        """Take a request's body if it is a usual one; its sink is told later, never from here.

        Return False, and change nothing, for everything else, good or bad.
        """
        if len(body) > limits.DECODE_SLOWLY_INLINE_BYTES_MAX or not body.isascii():
            return False
        try:
            item = _ITEM.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return False
        sensor_id = item.sensor_id
        name = self._names.get(sensor_id)
        if name is None:
            name = self._name(sensor_id)
            if name is None:
                return False
        now_us = self._clock.now_us()
        moment = item.timestamp
        if moment is None:
            moment = now_us
        elif (
            # Within these bounds a whole number is one of microseconds, whatever it was meant as.
            type(moment) is not int
            or not limits.TIMESTAMP_PLAUSIBLE_US_MIN
            <= moment
            <= now_us + limits.FUTURE_TOLERANCE_US
        ):
            return False
        if moment < limits.TIMESTAMP_PLAUSIBLE_US_MIN or (
            principal.sensors and not principal.may_touch(sensor_id)
        ):
            return False
        group = self._group
        if len(group.sinks) >= limits.SINGLES_GATHERED_MAX:
            return False
        places = group.places
        place = places.get(sensor_id)
        if place is None:
            place = places[sensor_id] = len(places)
        group.index.append(place)
        group.moments.append(moment)
        group.values.append(item.value)
        group.names.append(name)
        group.sinks.append(sink)
        if not self._is_due and self._under_way < self._groups_max:
            # Whatever else has arrived in this turn of the loop comes with it.
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._launch)
        return True

    def _name(self, sensor_id: str) -> bytes | None:
        """Return a sensor's name as JSON, None if it has no such series yet."""
        if not self._is_known((sensor_id, DEFAULT_METRIC)):
            return None
        if len(self._names) >= NAMES_REMEMBERED_MAX:
            self._names.clear()
        name = self._names[sensor_id] = msgspec.json.encode(sensor_id)
        return name

    def _launch(self) -> None:
        """Send what has gathered on its way, if it is its turn."""
        self._is_due = False
        if self._group.sinks and self._under_way < self._groups_max:
            group, self._group = self._group, _Group()
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._commit(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _commit(self, group: _Group) -> None:
        error: OceanError | None = None
        first_id = 0
        try:
            first_id = (await self._buffer.append(group.intake())).first_reading_id
        except OceanError as found:
            error = found
        except Exception as found:  # noqa: BLE001 - nobody else could answer them
            self._log.error("api.internal_error", request="single", error=repr(found))
            error = InternalError("an unexpected fault; the log tells more")
        self._under_way -= 1
        if error is None:
            self._metrics.add("ocean_telemetry_ingested_total", len(group.sinks))
            self._acknowledge(group, first_id)
        else:
            self._refuse(group, error)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._launch)

    def _acknowledge(self, group: _Group, first_id: int) -> None:
        reading_id = first_id
        for sink, name, moment in zip(group.sinks, group.names, group.moments, strict=True):
            try:
                # The same bytes as SingleAnswer of service.ingest makes; a test compares.
                sink.stored(
                    b'{"id":%d,"sensor_id":%b,"buffered":true,"timestamp":"%b"}'
                    % (reading_id, name, iso_utc(moment).encode())
                )
            except Exception as fault:  # noqa: BLE001 - one connection's fault must not cost the others their answers
                self._note_fault(fault)
            reading_id += 1

    def _refuse(self, group: _Group, error: OceanError) -> None:
        sensors = list(group.places)
        for sink, place in zip(group.sinks, group.index, strict=True):
            try:
                sink.refused(error, sensors[place])
            except Exception as fault:  # noqa: BLE001 - the same
                self._note_fault(fault)

    def _note_fault(self, fault: Exception) -> None:
        self._log.error("api.internal_error", request="single", error=repr(fault))
