"""Requests: the readings of the fleet cut into bodies, with what is known of each one's fate."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ocean_core.model.block import DEFAULT_METRIC, Float64Column, Int64Column, UInt32Column
from ocean_core.model.digest import reading_digests
from ocean_core.protocol.media import Encoding
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)
from ocean_core.simulator.fleet import Columns, Fleet
from ocean_core.simulator.plan import Form, Order, Timing

# Batches made at a time: arrays long enough for numpy, short enough for the processor's cache.
_BATCHES_AT_A_TIME: Final = 64
_ROWS_AT_A_TIME_MIN: Final = 16_384
_PACED_AT_A_TIME_S: Final = 0.25
_PARTS_MIN: Final = 8
_GZIP_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 3
# Whole numbers from here on are read as microseconds; earlier moments are written as ISO 8601.
_MICROS_MIN: Final = 10**14
_OF_65536: Final = 65536
_SCATTER: Final = 40_503


class Lot:
    """Readings made together, and which of them are acknowledged."""

    __slots__ = ("acknowledged", "columns", "digests", "left")

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.digests: npt.NDArray[np.uint64] = reading_digests(columns.timestamp_us, columns.value)
        self.acknowledged = bytearray(len(columns.value))
        self.left = len(columns.value)


class Parcel:
    """One request. It stays the same, with the same key, however often it is sent."""

    __slots__ = (
        "attempts", "body", "bounds", "due_us", "is_repeat", "lot", "number", "refusals", "start", "stop",
        "was_lost",
    )  # fmt: skip

    def __init__(
        self, lot: Lot, start: int, stop: int, number: int, body: bytes, due_us: int
    ) -> None:
        """Readings ``start`` to ``stop`` of ``lot``; ``number`` makes the Idempotency-Key."""
        self.lot = lot
        self.start = start
        self.stop = stop
        self.number = number
        self.body = body
        self.due_us = due_us
        # For frames: where the readings of each begin, and the end of the last.
        self.bounds: list[int] = []
        self.attempts = 0
        self.refusals = 0
        self.was_lost = False
        self.is_repeat = False

    @property
    def rows(self) -> int:
        """How many readings it has."""
        return self.stop - self.start


class Parcels:
    """Makes the requests of a run, one after the other, when they are asked for."""

    def __init__(self, order: Order, fleet: Fleet, timing: Timing) -> None:
        self._fleet = fleet
        self._rows = order.rows_per_request()
        self._left = order.count
        self._timing = timing
        self._repeats_below = round(fleet.repeats * _OF_65536) if order.keys else 0
        self._moments_at_a_time = _moments_at_a_time(order)
        self._encode = _encoder(order.form, fleet)
        self._compress = _compressor(order.encoding)
        self._turn = self._all()

    def next(self) -> Parcel | None:
        """Return the next request; None when ``count`` readings were made."""
        return next(self._turn, None)

    def is_repeated(self, parcel: Parcel) -> bool:
        """Return whether its sender sends it once more after it was answered."""
        return (parcel.number * _SCATTER) % _OF_65536 < self._repeats_below

    def _all(self) -> Iterator[Parcel]:
        first = number = 0
        while self._left is None or self._left > 0:
            for columns in self._fleet.readings(first, self._moments_at_a_time):
                for parcel in self._of(columns, number):
                    number += 1
                    yield parcel
                if self._left is not None and self._left <= 0:
                    return
            first += self._moments_at_a_time

    def _of(self, columns: Columns, number: int) -> Iterator[Parcel]:
        rows = len(columns.value)
        if self._left is not None and self._left < rows:
            rows = self._left
            columns = _part(columns, 0, rows)
        if self._left is not None:
            self._left -= rows
        lot = Lot(columns)
        bodies = self._encode(columns, self._rows)
        for start, body in zip(range(0, rows, self._rows), bodies, strict=True):
            stop = min(rows, start + self._rows)
            due_us = self._fleet.due_us(columns, stop - 1) if self._timing.paced else 0
            yield Parcel(lot, start, stop, number, self._compress(body), due_us)
            number += 1


def _moments_at_a_time(order: Order) -> int:
    rows = max(_ROWS_AT_A_TIME_MIN, order.rows_per_request() * _BATCHES_AT_A_TIME)
    if order.rate is not None:
        rows = min(rows, max(order.rows_per_request(), int(order.rate * _PACED_AT_A_TIME_S)))
    if order.count is not None:
        # Those with bad clocks come after the others, and should come at all.
        rows = min(rows, max(order.rows_per_request(), order.count // _PARTS_MIN))
    return max(1, rows // order.readings_per_moment)


Encode = Callable[[Columns, int], Iterator[bytes]]
"""From columns, and how many of their rows go into one body, to the bodies."""


def _encoder(form: Form, fleet: Fleet) -> Encode:
    sensors = fleet.sensor_ids
    metrics = None if set(fleet.metrics) == {DEFAULT_METRIC} else fleet.metrics
    if form is Form.SINGLE:
        return _singles(sensors, metrics)
    encode = _ENCODERS[form]

    def bodies(columns: Columns, rows: int) -> Iterator[bytes]:
        for start in range(0, len(columns.value), rows):
            part = _part(columns, start, start + rows)
            yield encode(sensors, part.index, part.timestamp_us, part.value, metrics=metrics)

    return bodies


def _dense_block(
    sensor_ids: Sequence[str],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    *,
    metrics: Sequence[str] | None,
) -> bytes:
    """Return a packed block whose dictionary has only what occurs in it."""
    present, places = np.unique(index, return_inverse=True)
    if len(present) < len(sensor_ids):
        used = present.tolist()
        sensor_ids = [sensor_ids[place] for place in used]
        metrics = None if metrics is None else [metrics[place] for place in used]
        index = places.astype(np.uint32)
    return encode_block(sensor_ids, index, timestamp_us, value, metrics=metrics)


_ENCODERS: Final = {
    Form.ROWS: encode_rows,
    Form.COLUMNAR: encode_columnar,
    Form.NDJSON: encode_ndjson,
    Form.BLOCK: _dense_block,
}


def _singles(sensors: list[str], metrics: list[str] | None) -> Encode:
    """Return what writes one reading a body: far too often for a JSON encoder."""
    quoted = [msgspec.json.encode(name) for name in sensors]
    heads = [b'{"sensor_id":%b,"timestamp":' % name for name in quoted]
    if metrics is not None:
        heads = [
            b'{"sensor_id":%b,"metric":%b,"timestamp":' % (name, msgspec.json.encode(metric))
            for name, metric in zip(quoted, metrics, strict=True)
        ]

    def bodies(columns: Columns, _rows: int) -> Iterator[bytes]:
        places, values = columns.index.tolist(), columns.value.tolist()
        if int(columns.timestamp_us.min()) >= _MICROS_MIN:
            moments = columns.timestamp_us.tolist()
            for place, moment, value in zip(places, moments, values, strict=True):
                yield b'%b%d,"value":%a}' % (heads[place], moment, value)
            return
        texts = np.datetime_as_string(columns.timestamp_us.view("datetime64[us]"), unit="us")
        for place, text, value in zip(places, texts.tolist(), values, strict=True):
            yield b'%b"%bZ","value":%a}' % (heads[place], text.encode(), value)

    return bodies


def _compressor(encoding: Encoding) -> Callable[[bytes], bytes]:
    if encoding is Encoding.GZIP:
        return lambda body: gzip.compress(body, _GZIP_LEVEL, mtime=0)
    if encoding is Encoding.ZSTD:
        from backports import zstd

        return lambda body: zstd.compress(body, _ZSTD_LEVEL)
    return lambda body: body


def _part(columns: Columns, start: int, stop: int) -> Columns:
    return Columns(
        columns.index[start:stop],
        columns.timestamp_us[start:stop],
        columns.value[start:stop],
    )
