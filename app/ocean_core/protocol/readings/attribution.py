"""Whose readings a refused request seems to hold, as far as its body can still be read.

For the loss ledger: it wants to tell which sensors lost something, also when the body is broken.
A guess by its nature; but a body that was merely refused for one bad item is counted exactly.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from itertools import islice
from typing import Final

import msgspec
import numpy as np

from ocean_core.model import limits
from ocean_core.model.block import HEADER, HEADER_BYTES
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings.names import name_is_good
from ocean_core.protocol.readings.shapes import TEXT

NAMES_MAX: Final = 1_000
"""How many sensors are told apart; the items of the others are counted without a name."""
UNNAMED: Final = ""
"""The key of items whose sensor cannot be told."""

_NAME_LENGTHS: Final = struct.Struct("<HH")
_TEXT = rb'"(?:[^"\\]|\\.)*+"'
# Inside a string these quotes would be escaped, so only fields are found.
_FIELD = re.compile(rb'"sensor_id"\s*+:\s*+(' + _TEXT + rb")", re.DOTALL)
_COLUMN = re.compile(rb'"sensor_id"\s*+:\s*+\[([^\]\[{}]*+)', re.DOTALL)
_VALUES = re.compile(rb'"value"\s*+:\s*+\[([^\]\[{}"]*+)', re.DOTALL)
_ELEMENT = re.compile(_TEXT, re.DOTALL)


_NOTHING: Final = msgspec.Raw(b" ")


class _Named(msgspec.Struct, gc=False):
    sensor_id: str = UNNAMED


class _One(msgspec.Struct, gc=False):
    sensor_id: str = UNNAMED
    value: msgspec.Raw = _NOTHING


class _Wrapped(msgspec.Struct):
    readings: list[_Named]


_ITEM: Final = msgspec.json.Decoder(_Named)
_OBJECT: Final = msgspec.json.Decoder(_One)
_ARRAY: Final = msgspec.json.Decoder(list[_Named])
_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


def sensors_in(body: bytes, media: Media) -> dict[str, int]:
    """Return how many items of which sensors an uncompressed body seems to hold.

    At most NAMES_MAX sensors, those with the most items; what belongs to others, or to a name
    that cannot be one, is counted as UNNAMED. Empty if nothing can be said. Takes time in
    proportion to the body's length, about 0.1 s for 16 MiB, and never raises.
    """
    if media is Media.BLOCK:
        return _bounded(_of_block(body))
    counts = _whole(body) if media is Media.JSON else None
    if counts is None:
        counts = _scanned(body)
    return _bounded(counts)


def sensor_of(item: bytes) -> str:
    """Return the sensor that one item's JSON text names, UNNAMED if it has none that is a text."""
    try:
        return _ITEM.decode(item).sensor_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNNAMED


def _bounded(counts: Counter[str]) -> dict[str, int]:
    bounded = {
        name: items
        for name, items in counts.most_common(NAMES_MAX)
        if items and name_is_good(name, limits.SENSOR_ID_BYTES_MAX)
    }
    unnamed = counts.total() - sum(bounded.values())
    if unnamed:
        bounded[UNNAMED] = unnamed
    return bounded


def _whole(body: bytes) -> Counter[str] | None:
    """Return the sensors of valid JSON rows, None if it is something else."""
    first = body[:64].lstrip()[:1]
    if body.count(b"{") > limits.BATCH_ITEMS_MAX:
        return None  # Not so many objects only to count them.
    try:
        if first == b"[":
            return Counter([item.sensor_id for item in _ARRAY.decode(body)])
        try:
            return Counter([item.sensor_id for item in _WRAPPED.decode(body).readings])
        except msgspec.ValidationError:
            item = _OBJECT.decode(body)
            columnar = memoryview(item.value)[0] == ord("[")
            return None if columnar else Counter([item.sensor_id])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _scanned(body: bytes) -> Counter[str]:
    """Return the sensors that a text names, whether it is JSON or not."""
    matches = islice(_FIELD.finditer(body), limits.BATCH_ITEMS_MAX)
    found = Counter(match[1] for match in matches)
    values = _VALUES.search(body)
    if values is not None and found.total() == 1:
        # One sensor for a whole column of values.
        (text,) = found
        found[text] = values[1].count(b",") + 1 if values[1].strip() else 0
    column = _COLUMN.search(body)
    if column is not None:
        elements = islice(_ELEMENT.finditer(column[1]), limits.BATCH_ITEMS_MAX)
        found.update(match[0] for match in elements)
    counts: Counter[str] = Counter()
    for text, items in found.items():
        counts[_name(text)] += items
    return counts


def _name(text: bytes) -> str:
    try:
        return TEXT.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return UNNAMED


def _of_block(body: bytes) -> Counter[str]:
    """Return the sensors of a packed block, whatever its CRC says."""
    counts: Counter[str] = Counter()
    if len(body) < HEADER_BYTES:
        return counts
    _, _, _, _, _, rows, series_count, *_ = HEADER.unpack_from(body)
    offset = HEADER_BYTES + 21 * rows
    if len(body) < offset or rows == 0:
        return counts
    index = np.frombuffer(body, "<u4", rows, HEADER_BYTES + 16 * rows)
    series_count = min(series_count, (len(body) - offset) // _NAME_LENGTHS.size)
    per_series = np.bincount(np.minimum(index, series_count), minlength=series_count + 1)
    for items in per_series.tolist()[:-1]:
        sensor_bytes, metric_bytes = _NAME_LENGTHS.unpack_from(body, offset)
        start = offset + _NAME_LENGTHS.size
        if items:
            counts[str(body[start : start + sensor_bytes], "utf-8", "replace")] += items
        offset = start + sensor_bytes + metric_bytes
        if offset + _NAME_LENGTHS.size > len(body):
            break
    counts[UNNAMED] += rows - counts.total()
    return counts
