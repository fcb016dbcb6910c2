"""Blocks: what readings and events travel and rest in.

A block is a header of 64 bytes, parallel columns, and a dictionary of series names; all numbers
are little-endian. Byte by byte it is described in ``docs/block-format.md``. Decoding makes no
Python object per reading.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.model import limits

MAGIC: Final = b"OCB1"
HEADER: Final = struct.Struct("<4sBBHQIIq16sIIII")
HEADER_BYTES: Final = HEADER.size
_NAME_LENGTHS: Final = struct.Struct("<HH")
_ROW_BYTES: Final = {0: 21, 1: 17}

Int64Column = npt.NDArray[np.int64]
Float64Column = npt.NDArray[np.float64]
UInt32Column = npt.NDArray[np.uint32]
UInt8Column = npt.NDArray[np.uint8]

SeriesName = tuple[str, str]
"""(sensor_id, metric); events have the empty metric."""

DEFAULT_METRIC: Final = "value"
EVENT_METRIC: Final = ""


class BlockKind(IntEnum):
    """What the rows of a block are."""

    READINGS = 0
    EVENTS = 1


class Quality(IntEnum):
    """How far a reading can be trusted. The list is open: unknown numbers are kept."""

    GOOD = 0
    OUT_OF_RANGE = 1
    UNTRUSTED_CLOCK = 2


class BlockDamagedError(ValueError):
    """The bytes are not a whole, undamaged block."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Columns of numeric readings. ``series_index`` points into ``series``.

    Columns are numpy arrays, or plain lists while a request holds only a few rows.
    """

    series: Sequence[SeriesName]
    series_index: UInt32Column | Sequence[int]
    timestamp_us: Int64Column | Sequence[int]
    value: Float64Column | Sequence[float]
    quality: UInt8Column | Sequence[int]

    def __len__(self) -> int:
        return len(self.timestamp_us)


@dataclass(frozen=True, slots=True)
class Events:
    """Columns of payloads that are not numbers; ``payload`` is JSON text as it came, in UTF-8."""

    series: Sequence[SeriesName]
    series_index: UInt32Column | Sequence[int]
    timestamp_us: Int64Column | Sequence[int]
    quality: UInt8Column | Sequence[int]
    payload: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.timestamp_us)


@dataclass(frozen=True, slots=True)
class Block:
    """One stored block: dense ids ``first_id .. first_id + count - 1``."""

    first_id: int
    arrival_us: int
    uuid: bytes
    rows: Readings | Events

    @property
    def count(self) -> int:
        """Number of rows, at least 1."""
        return len(self.rows)

    @property
    def last_id(self) -> int:
        """Id of the last row."""
        return self.first_id + len(self.rows) - 1

    @property
    def kind(self) -> BlockKind:
        """Readings or events."""
        return BlockKind.READINGS if isinstance(self.rows, Readings) else BlockKind.EVENTS


def pack_block(block: Block) -> bytes:
    """Return the block as bytes with its CRC-32 set.

    The id is part of what the CRC covers, so that a block found loose in a damaged file can be
    put back where it belongs.
    """
    rows = block.rows
    count = len(rows)
    assert 1 <= count <= limits.BLOCK_ROWS_MAX, count
    names = _pack_names(rows.series)
    payload = b""
    index = _contiguous(rows.series_index, "<u4")
    parts: list[bytes | memoryview] = [_contiguous(rows.timestamp_us, "<i8")]
    if isinstance(rows, Readings):
        parts += [_contiguous(rows.value, "<f8"), index]
    else:
        payload = b"".join(rows.payload)
        ends = np.cumsum([len(item) for item in rows.payload], dtype="<u4")
        parts += [index, ends.data]
    parts += [_contiguous(rows.quality, "u1"), names, payload]
    header = HEADER.pack(
        MAGIC, block.kind, 0, HEADER_BYTES, block.first_id, count, len(rows.series),
        block.arrival_us, block.uuid, len(names), len(payload), 0, 0,
    )[:60]  # fmt: skip
    crc = zlib.crc32(header)
    for part in parts:
        crc = zlib.crc32(part, crc)
    # The columns are copied here and nowhere before.
    return b"".join([header, struct.pack("<I", crc), *parts])


def _contiguous(column: npt.ArrayLike, dtype: str) -> memoryview:
    return np.ascontiguousarray(column, dtype=dtype).data


def _pack_names(series: Sequence[SeriesName]) -> bytes:
    return b"".join(map(_pack_name, series))


# The same names are packed again with every commit.
@lru_cache(maxsize=8192)
def _pack_name(name: SeriesName) -> bytes:
    sensor_bytes, metric_bytes = name[0].encode(), name[1].encode()
    return _NAME_LENGTHS.pack(len(sensor_bytes), len(metric_bytes)) + sensor_bytes + metric_bytes


def unpack_block(data: bytes | memoryview) -> Block:
    """Return the block in ``data``; numeric columns are read-only views of it.

    Raises BlockDamagedError when a length, the CRC, an index or a name does not fit.
    """
    if len(data) < HEADER_BYTES:
        raise BlockDamagedError(f"{len(data)} bytes are shorter than a header")
    (
        magic, kind, flags, header_bytes, first_id, count, series_count,
        arrival_us, uuid, names_bytes, payload_bytes, _reserved, crc,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC or flags != 0 or header_bytes != HEADER_BYTES or kind not in _ROW_BYTES:
        raise BlockDamagedError("this is no block of a known version")
    if not 1 <= count <= limits.BLOCK_ROWS_MAX:
        raise BlockDamagedError(f"{count} rows")
    if HEADER_BYTES + count * _ROW_BYTES[kind] + names_bytes + payload_bytes != len(data):
        raise BlockDamagedError("the lengths in the header do not fit the bytes")
    view = memoryview(data)
    if zlib.crc32(view[HEADER_BYTES:], zlib.crc32(view[:60])) != crc:
        raise BlockDamagedError("the CRC does not match")
    rows = _unpack_rows(data, kind, count, series_count, names_bytes)
    return Block(first_id, arrival_us, uuid, rows)


def _unpack_rows(
    data: bytes | memoryview, kind: int, count: int, series_count: int, names_bytes: int
) -> Readings | Events:
    offset = HEADER_BYTES
    timestamp_us = np.frombuffer(data, "<i8", count, offset)
    offset += 8 * count
    value_at, index_at = offset, offset
    if kind == BlockKind.READINGS:
        index_at += 8 * count
    series_index = np.frombuffer(data, "<u4", count, index_at)
    ends_at = offset = index_at + 4 * count
    if kind == BlockKind.EVENTS:
        offset += 4 * count
    quality = np.frombuffer(data, "u1", count, offset)
    offset += count
    series = _unpack_names(bytes(data[offset : offset + names_bytes]), series_count)
    offset += names_bytes
    if int(series_index.max()) >= series_count:
        raise BlockDamagedError("a row points outside the dictionary")
    if kind == BlockKind.READINGS:
        value = np.frombuffer(data, "<f8", count, value_at)
        return Readings(series, series_index, timestamp_us, value, quality)
    ends = np.frombuffer(data, "<u4", count, ends_at)
    starts = np.concatenate(([0], ends[:-1]))
    tail = bytes(data[offset:])
    payload = [tail[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return Events(series, series_index, timestamp_us, quality, payload)


class _KnownNames:
    """Dictionaries that were unpacked: the same ones come again and again.

    Bounded by the bytes they had; what came first goes first. For any thread.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._series: dict[bytes, tuple[SeriesName, ...]] = {}
        self._lock = threading.Lock()

    def get(self, names: bytes) -> tuple[SeriesName, ...] | None:
        return self._series.get(names)

    def keep(self, names: bytes, series: tuple[SeriesName, ...]) -> None:
        if len(names) > self._bytes_max // 4:
            return
        with self._lock:
            if names in self._series:
                return
            self._series[names] = series
            self._bytes += len(names)
            while self._bytes > self._bytes_max:
                oldest = next(iter(self._series))
                del self._series[oldest]
                self._bytes -= len(oldest)


_known_names: Final = _KnownNames(limits.KNOWN_NAMES_BYTES_MAX)


def _unpack_names(names: bytes, series_count: int) -> tuple[SeriesName, ...]:
    known = _known_names.get(names)
    if known is not None and len(known) == series_count:
        return known
    series: list[SeriesName] = []
    offset = 0
    try:
        for _ in range(series_count):
            sensor_bytes, metric_bytes = _NAME_LENGTHS.unpack_from(names, offset)
            middle = offset + 4 + sensor_bytes
            end = middle + metric_bytes
            if end > len(names):
                raise BlockDamagedError("the dictionary is damaged: it ends within a name")
            series.append(
                (str(names[offset + 4 : middle], "utf-8"), str(names[middle:end], "utf-8"))
            )
            offset = end
    except (struct.error, UnicodeDecodeError) as error:
        raise BlockDamagedError(f"the dictionary is damaged: {error}") from error
    found = tuple(series)
    _known_names.keep(names, found)
    return found


class ReadingsBuilder:
    """Gathers the readings of many requests into one set of columns."""

    def __init__(self) -> None:
        self._series: dict[SeriesName, int] = {}
        # Where the names of a dictionary are here, None if in the same places; by its identity,
        # which stays taken as long as it is kept here, too.
        self._places: dict[int, tuple[tuple[SeriesName, ...], UInt32Column | None]] = {}
        self._index: list[npt.NDArray[np.uint32]] = []
        self._timestamp: list[Int64Column] = []
        self._value: list[Float64Column] = []
        self._quality: list[UInt8Column] = []
        # Rows of small requests wait here as plain numbers: an array per row would cost more.
        self._loose: tuple[list[int], list[int], list[float], list[int]] = ([], [], [], [])
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, readings: Readings) -> int:
        """Append rows and return the position of the first of them."""
        position = self._rows
        self._rows += len(readings)
        if isinstance(readings.timestamp_us, np.ndarray):
            self._settle()
            places = self._places_of(readings.series)
            index = np.asarray(readings.series_index, dtype=np.uint32)
            self._index.append(index if places is None else places.take(index))
            self._timestamp.append(readings.timestamp_us)
            self._value.append(np.asarray(readings.value, dtype=np.float64))
            self._quality.append(np.asarray(readings.quality, dtype=np.uint8))
        else:
            series = self._series
            mapping = [series.setdefault(name, len(series)) for name in readings.series]
            loose, timestamp, value, quality = self._loose
            loose.extend([mapping[i] for i in readings.series_index])
            timestamp.extend(readings.timestamp_us)
            value.extend(readings.value)
            quality.extend(readings.quality)
        return position

    def _places_of(self, names: Sequence[SeriesName]) -> UInt32Column | None:
        """Return the place of each name among ours, None if all have the same here."""
        known = self._places.get(id(names)) if isinstance(names, tuple) else None
        if known is not None:
            return known[1]
        series = self._series
        mapping = [series.setdefault(name, len(series)) for name in names]
        places = None
        if mapping != list(range(len(mapping))):
            places = np.array(mapping, dtype=np.uint32)
        # A list may be another one the next time.
        if isinstance(names, tuple):
            self._places[id(names)] = names, places
        return places

    def _settle(self) -> None:
        index, timestamp, value, quality = self._loose
        if timestamp:
            self._index.append(np.array(index, dtype=np.uint32))
            self._timestamp.append(np.array(timestamp, dtype=np.int64))
            self._value.append(np.array(value, dtype=np.float64))
            self._quality.append(np.array(quality, dtype=np.uint8))
            self._loose = ([], [], [], [])

    def build(self) -> Readings:
        """Return the columns gathered so far."""
        self._settle()
        assert self._rows, "a block holds at least one row"
        if len(self._timestamp) == 1:
            return Readings(
                list(self._series), self._index[0], self._timestamp[0],
                self._value[0], self._quality[0],
            )  # fmt: skip
        return Readings(
            list(self._series),
            np.concatenate(self._index),
            np.concatenate(self._timestamp),
            np.concatenate(self._value),
            np.concatenate(self._quality),
        )


class EventsBuilder:
    """Gathers the events of many requests into one set of columns."""

    def __init__(self) -> None:
        self._series: dict[SeriesName, int] = {}
        self._index: list[int] = []
        self._timestamp: list[int] = []
        self._quality: list[int] = []
        self._payload: list[bytes] = []

    def __len__(self) -> int:
        return len(self._payload)

    def add(self, events: Events) -> int:
        """Append rows and return the position of the first of them."""
        position = len(self._payload)
        series = self._series
        mapping = [series.setdefault(name, len(series)) for name in events.series]
        self._index.extend([mapping[i] for i in events.series_index])
        self._timestamp.extend(events.timestamp_us)
        self._quality.extend(events.quality)
        self._payload.extend(events.payload)
        return position

    def build(self) -> Events:
        """Return the columns gathered so far."""
        return Events(
            list(self._series), self._index, self._timestamp, self._quality, self._payload
        )
