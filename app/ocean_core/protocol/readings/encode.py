"""From columns to request bodies, in every form that /batch takes. For clients and tests.

All functions take a dictionary of sensor ids and, per reading, its place in it, the moment in
microseconds since 1970 UTC, and the value, which must be finite: JSON has no other numbers.
``metrics``, if given, names what each entry of the dictionary measures; else it is ``value``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from ocean_core.model.block import (
    DEFAULT_METRIC,
    Block,
    Float64Column,
    Int64Column,
    Readings,
    UInt8Column,
    UInt32Column,
    pack_block,
)

# Whole numbers in this range are read as microseconds; other moments are written as ISO 8601.
_MICROS_MIN: Final = 10**14
_MICROS_MAX: Final = 10**17 - 1
_NO_UUID: Final = bytes(16)

_ENCODER: Final = msgspec.json.Encoder()


class _Row(msgspec.Struct, gc=False):
    sensor_id: str
    timestamp: int | str
    value: float


class _NamedRow(msgspec.Struct, gc=False):
    sensor_id: str
    metric: str
    timestamp: int | str
    value: float


def encode_block(
    sensor_ids: Sequence[str],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    quality: UInt8Column | None = None,
    *,
    metrics: Sequence[str] | None = None,
) -> bytes:
    """Return a packed block, ``application/x-ocean-block``, of 1 to 1,000,000 readings."""
    _check(timestamp_us, value)
    names = [DEFAULT_METRIC] * len(sensor_ids) if metrics is None else metrics
    if quality is None:
        quality = np.zeros(len(value), dtype=np.uint8)
    series = list(zip(sensor_ids, names, strict=True))
    return pack_block(Block(0, 0, _NO_UUID, Readings(series, index, timestamp_us, value, quality)))


def encode_columnar(
    sensor_ids: Sequence[str],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    *,
    metrics: Sequence[str] | None = None,
) -> bytes:
    """Return columnar JSON. What is the same in every row is written once."""
    _check(timestamp_us, value)
    body: dict[str, object] = {"sensor_id": _column(sensor_ids, index)}
    if metrics is not None:
        body["metric"] = _column(metrics, index)
    body["timestamp"] = _moments(timestamp_us)
    body["value"] = value.tolist()
    return _ENCODER.encode(body)


def encode_rows(
    sensor_ids: Sequence[str],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    *,
    metrics: Sequence[str] | None = None,
) -> bytes:
    """Return a JSON array of items."""
    return _ENCODER.encode(_rows(sensor_ids, index, timestamp_us, value, metrics))


def encode_ndjson(
    sensor_ids: Sequence[str],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    *,
    metrics: Sequence[str] | None = None,
) -> bytes:
    """Return items as lines, each ended by a newline."""
    return _ENCODER.encode_lines(_rows(sensor_ids, index, timestamp_us, value, metrics))


def _rows(
    sensor_ids: Sequence[str],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    metrics: Sequence[str] | None,
) -> list[_Row] | list[_NamedRow]:
    _check(timestamp_us, value)
    places = index.tolist()
    sensors = map(sensor_ids.__getitem__, places)
    moments, numbers = _moments(timestamp_us), value.tolist()
    if metrics is None:
        return list(map(_Row, sensors, moments, numbers))
    return list(map(_NamedRow, sensors, map(metrics.__getitem__, places), moments, numbers))


def _column(names: Sequence[str], index: UInt32Column) -> str | list[str]:
    if len(index) and int(index.min()) == int(index.max()):
        return names[int(index[0])]
    return list(map(names.__getitem__, index.tolist()))


def _moments(timestamp_us: Int64Column) -> list[int] | list[str]:
    if int(timestamp_us.min()) >= _MICROS_MIN and int(timestamp_us.max()) <= _MICROS_MAX:
        whole: list[int] = timestamp_us.tolist()
        return whole
    texts = np.datetime_as_string(timestamp_us.view("datetime64[us]"), unit="us")
    return [f"{text}Z" for text in texts.tolist()]


def _check(timestamp_us: Int64Column, value: Float64Column) -> None:
    assert len(timestamp_us) == len(value) > 0, "at least one reading, columns of equal length"
    assert bool(np.isfinite(value).all()), "values are finite"
