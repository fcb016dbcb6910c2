"""Whole batches of one kind at once: the path that nearly every batch takes.

Takes a batch only when every item is good and of the same kind; otherwise returns None, and
``assemble`` goes through the items one by one, with the same result where both accept.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from itertools import count

import msgspec
import numpy as np
from msgspec import UNSET

from ocean_core.model import limits
from ocean_core.model.block import (
    DEFAULT_METRIC,
    Float64Column,
    Int64Column,
    Quality,
    Readings,
    SeriesName,
    UInt8Column,
    UInt32Column,
)
from ocean_core.model.receipt import Intake
from ocean_core.protocol.readings.names import names_are_good
from ocean_core.protocol.readings.shapes import FLOATS, DecodeContext, Item, PlainItem, Timestamp
from ocean_core.protocol.readings.timestamps import TimestampError, timestamp_column


def plain_intake(
    items: list[PlainItem], context: DecodeContext, *, quickly: bool = False
) -> Intake | None:
    """Return the batch as columns, one reading per item, or None; also if not ``quickly`` done."""
    return _intake(
        [item.sensor_id for item in items],
        None,
        [item.timestamp for item in items],
        np.frombuffer(array("d", [item.value for item in items])),
        context,
        quickly=quickly,
    )


def uniform_intake(items: list[Item], context: DecodeContext) -> Intake | None:
    """Return the batch as columns, one reading per item, or None."""
    value = _value_column(items, context)
    if value is None:
        return None
    metrics = [item.metric for item in items]
    return _intake(
        [item.sensor_id for item in items],
        None
        if metrics.count(UNSET) == len(items)
        else [DEFAULT_METRIC if metric is UNSET else metric for metric in metrics],
        [item.timestamp for item in items],
        value,
        context,
    )


def _intake(
    sensors: list[str],
    metrics: list[str] | None,
    timestamps: list[Timestamp],
    value: Float64Column,
    context: DecodeContext,
    *,
    quickly: bool = False,
) -> Intake | None:
    timestamp = moment_column(timestamps, context, quickly=quickly)
    if timestamp is None:
        return None
    quality = quality_column(timestamp, context)
    named = series_column(sensors, metrics)
    if quality is None or named is None:
        return None
    series, index = named
    return Intake(Readings(series, index, timestamp, value, quality), None, len(sensors))


def moment_column(
    timestamps: list[Timestamp], context: DecodeContext, *, quickly: bool = False
) -> Int64Column | None:
    """Return the moments, the arrival for None; None if one is not acceptable in itself."""
    try:
        return timestamp_column(timestamps, context.arrival_us, quickly=quickly)
    except TimestampError:
        return None


def quality_column(timestamp: Int64Column, context: DecodeContext) -> UInt8Column | None:
    """Return the quality that follows from the moments; None if one is to be refused."""
    earliest, latest = int(timestamp.min()), int(timestamp.max())
    if earliest < limits.TIMESTAMP_US_MIN or latest > limits.TIMESTAMP_US_MAX:
        return None
    quality = np.zeros(len(timestamp), dtype=np.uint8)
    tolerated = context.arrival_us + limits.FUTURE_TOLERANCE_US
    if latest > tolerated:
        if context.clock_trusted:
            return None
        quality[timestamp > tolerated] = Quality.UNTRUSTED_CLOCK
    if earliest < limits.TIMESTAMP_PLAUSIBLE_US_MIN:
        quality[timestamp < limits.TIMESTAMP_PLAUSIBLE_US_MIN] = Quality.UNTRUSTED_CLOCK
    return quality


def _value_column(items: list[Item], context: DecodeContext) -> Float64Column | None:
    """Return the numbers of a batch whose items all have ``value``, or all have ``data``."""
    total = len(items)
    if [item.values for item in items].count(UNSET) != total:
        return None
    data = [item.data for item in items]
    if data.count(UNSET) == total:
        try:
            return np.array([item.value for item in items], dtype=np.float64)
        except TypeError:  # A value is missing.
            return None
    if [item.value for item in items].count(UNSET) != total:
        return None
    try:
        joined = b",".join(data)  # type: ignore[arg-type]
    except TypeError:  # Some data is missing.
        return None
    if [item.metric for item in items].count(UNSET) != total:
        return None
    if len(joined) > context.event_bytes_max and any(
        memoryview(raw).nbytes > context.event_bytes_max for raw in data if raw is not UNSET
    ):
        return None
    return _numbers_in(joined, total)


def _numbers_in(joined: bytes, total: int) -> Float64Column | None:
    """Return ``total`` numbers, or strings that hold one, as a column. ``joined`` by commas.

    They are decoded as one array without their quotes. This cannot take for numbers what is none:
    white space is excluded, a comma in a text makes too many numbers, an empty text makes none,
    which the grammar of arrays refuses, as it does brackets, escapes and words.
    """
    bare = joined.replace(b'"', b"")
    if b" " in bare:
        return None
    try:
        values = FLOATS.decode(b"[%b]" % bare)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return np.array(values, dtype=np.float64) if len(values) == total else None


def series_column(
    sensors: list[str], metrics: list[str] | None
) -> tuple[list[SeriesName], UInt32Column] | None:
    """Return the distinct series in order of appearance, and each row's place among them.

    None if a name is not acceptable.
    """
    series: list[SeriesName]
    if metrics is None:
        # Looking up a new name numbers it.
        place: defaultdict[str, int] = defaultdict(count().__next__)
        index = list(map(place.__getitem__, sensors))
        series = [(name, DEFAULT_METRIC) for name in place]
        if not names_are_good(place, limits.SENSOR_ID_BYTES_MAX):
            return None
    else:
        places: defaultdict[SeriesName, int] = defaultdict(count().__next__)
        index = [places[pair] for pair in zip(sensors, metrics, strict=True)]
        series = list(places)
        if not (
            names_are_good(set(metrics), limits.METRIC_BYTES_MAX)
            and names_are_good({sensor_id for sensor_id, _ in series}, limits.SENSOR_ID_BYTES_MAX)
        ):
            return None
    # Through array: twice as fast as np.array from a list of Python integers.
    return series, np.frombuffer(array("I", index), dtype=np.uint32)
