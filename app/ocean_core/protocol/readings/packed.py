"""Packed blocks as requests: the columns are taken as they are, after every check.

The bytes are those of ``docs/block-format.md``. What the box alone decides (id, arrival, UUID) is
not looked at. No Python object is made per reading.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ocean_core.model import limits
from ocean_core.model.block import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    BlockKind,
    Float64Column,
    Int64Column,
    Quality,
    Readings,
    SeriesName,
    UInt8Column,
    UInt32Column,
)
from ocean_core.model.errors import FieldProblem, MalformedBodyError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.readings.assemble import unlisted_items
from ocean_core.protocol.readings.attribution import NAMES_MAX, UNNAMED
from ocean_core.protocol.readings.columns import quality_column
from ocean_core.protocol.readings.dictionary import HINT, Dictionary, read_dictionary
from ocean_core.protocol.readings.shapes import ARRAY_ROWS_MIN, DecodeContext
from ocean_core.protocol.readings.syntax import check_length, too_many
from ocean_core.protocol.readings.timestamps import TimestampError, check_moment
from ocean_core.protocol.readings.wording import invalid_reading

ROW_BYTES: Final = 21
# More entries than that, if they are new, take too long for an event loop.
_QUICK_SERIES_MAX: Final = 1_024
# What may hang on to columns that are views of a body: a small dictionary, not a large one.
_BALLAST_SHARE_MAX: Final = 0.25

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Packed:
    """The parts of a block whose sizes and CRC fit."""

    index: UInt32Column
    timestamp_us: Int64Column
    value: Float64Column
    quality: UInt8Column
    names: bytes
    entries: int


def decode_packed(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Return the readings of a packed block; see ``decode_batch``.

    Raises MalformedBodyError, InvalidReadingError or BodyTooLargeError.
    """
    packed = _unpack(body, context)
    dictionary = read_dictionary(packed.names, packed.entries)
    intake = _whole(packed, dictionary, context)
    return intake or _good_rows(packed, dictionary, context, partial=partial)


def packed_intake_quickly(body: bytes, context: DecodeContext) -> Intake | None:
    """Return the Intake of a block of which every row is good and whose names are few, else None.

    Raises MalformedBodyError or BodyTooLargeError.
    """
    packed = _unpack(body, context)
    if packed.entries > _QUICK_SERIES_MAX:
        return None
    return _whole(packed, read_dictionary(packed.names, packed.entries), context)


def _unpack(body: bytes, context: DecodeContext) -> _Packed:
    check_length(body, context)
    if len(body) < HEADER_BYTES:
        raise MalformedBodyError(
            f"The block ends after {len(body)} bytes; its header has {HEADER_BYTES}.", hint=HINT
        )
    header = HEADER.unpack_from(body)
    magic, kind, flags, header_bytes, _, count, entries = header[:7]
    names_bytes, payload_bytes, reserved, crc = header[9:]
    _expect("magic", 0, magic == MAGIC, f"0x{magic.hex()}", f"0x{MAGIC.hex()} ({MAGIC.decode()})")
    _expect("kind", 4, kind == BlockKind.READINGS, kind, "0, readings; send events as JSON")
    _expect("flags", 5, flags == 0, flags, "0")
    _expect("header size", 6, header_bytes == HEADER_BYTES, header_bytes, f"{HEADER_BYTES}")
    if count > min(context.items_max, context.rows_max):
        raise too_many(context)
    _expect("rows", 16, count > 0, count, "at least 1")
    _expect(
        "series", 20, 0 < entries <= limits.SERIES_TOTAL_MAX, entries,
        f"1 to {limits.SERIES_TOTAL_MAX}",
    )  # fmt: skip
    _expect("payload size", 52, payload_bytes == 0, payload_bytes, "0, readings have none")
    _expect("reserved", 56, reserved == 0, reserved, "0")
    names_at = HEADER_BYTES + count * ROW_BYTES
    _expect(
        "dictionary size", 48, names_at + names_bytes == len(body), names_bytes,
        f"{len(body) - names_at}: {HEADER_BYTES} bytes of header and {count} rows of {ROW_BYTES} "
        f"bytes end at byte {names_at}, the body at {len(body)}",
    )  # fmt: skip
    view = memoryview(body)
    actual = zlib.crc32(view[HEADER_BYTES:], zlib.crc32(view[:60]))
    _expect("CRC", 60, crc == actual, f"0x{crc:08x}", f"0x{actual:08x}")
    return _Packed(*_columns(body, count, names_bytes), body[names_at:], entries)


def _expect(field: str, offset: int, fits: bool, found: object, expected: str) -> None:  # noqa: FBT001
    if fits:
        return
    raise MalformedBodyError(
        f"The block's header is wrong at byte {offset}, {field}: found {found}, "
        f"expected {expected}.",
        hint=HINT,
        fields=(FieldProblem(field, str(found), expected),),
    )


def _columns(
    body: bytes, count: int, names_bytes: int
) -> tuple[UInt32Column, Int64Column, Float64Column, UInt8Column]:
    """Return the columns as views of the body, or as copies if they are the smaller part of it."""
    at = HEADER_BYTES
    timestamp_us = np.frombuffer(body, "<i8", count, at)
    value = np.frombuffer(body, "<f8", count, at + 8 * count)
    index = np.frombuffer(body, "<u4", count, at + 16 * count)
    quality = np.frombuffer(body, "u1", count, at + 20 * count)
    ballast = HEADER_BYTES + names_bytes
    if ballast <= _BALLAST_SHARE_MAX * ROW_BYTES * count and timestamp_us.flags.aligned:
        return index, timestamp_us, value, quality
    return index.copy(), timestamp_us.copy(), value.copy(), quality.copy()


def _whole(packed: _Packed, dictionary: Dictionary, context: DecodeContext) -> Intake | None:
    """Return all rows, None if one is not good."""
    if int(packed.index.max()) >= packed.entries or not np.isfinite(packed.value).all():
        return None
    judged = quality_column(packed.timestamp_us, context)
    if judged is None:
        return None
    used = _used(packed.index, packed.entries)
    if dictionary.bad and used[list(dictionary.bad)].any():
        return None
    series, index = _series(dictionary, used, packed.index)
    quality = _overridden(packed.quality, judged)
    return _intake(series, index, packed.timestamp_us, packed.value, quality)


def _overridden(sent: UInt8Column, judged: UInt8Column | None) -> UInt8Column:
    """Return the qualities that were sent, but the box's own where it does not trust a clock."""
    assert judged is not None, "the moments were checked"
    return np.where(judged == Quality.GOOD, sent, judged) if judged.any() else sent


def _used(index: UInt32Column, entries: int) -> _Mask:
    used = np.zeros(entries, dtype=np.bool_)
    used[index] = True
    return used


def _series(
    dictionary: Dictionary, used: _Mask, index: UInt32Column
) -> tuple[Sequence[SeriesName], UInt32Column]:
    """Return the series that rows belong to, each once, and each row's place among them."""
    if dictionary.distinct and used.all():
        # As it is remembered: whoever sees the same object again knows the names.
        return dictionary.series, index
    series: dict[SeriesName, int] = {}
    mapping = np.zeros(len(used), dtype=np.uint32)
    for place in np.flatnonzero(used).tolist():
        mapping[place] = series.setdefault(dictionary.series[place], len(series))
    return list(series), mapping[index]


def _intake(
    series: Sequence[SeriesName],
    index: UInt32Column,
    timestamp_us: Int64Column,
    value: Float64Column,
    quality: UInt8Column,
) -> Intake:
    count = len(value)
    if count < ARRAY_ROWS_MIN:
        readings = Readings(
            series, index.tolist(), timestamp_us.tolist(), value.tolist(), quality.tolist()
        )
    else:
        readings = Readings(series, index, timestamp_us, value, quality)
    return Intake(readings, None, count, columnar=True)


# --- blocks with a bad row ----------------------------------------------------------------------


def _good_rows(
    packed: _Packed, dictionary: Dictionary, context: DecodeContext, *, partial: bool
) -> Intake:
    outside = packed.index >= packed.entries
    used = _used(packed.index[~outside], packed.entries)
    in_entry = np.zeros(packed.entries, dtype=np.uint8)
    for place in dictionary.bad:
        if used[place]:
            in_entry[place] = len(dictionary.problems(place))
    # How many problems each row has; the entry of a row that points to none has no fault in it.
    problems = in_entry[np.where(outside, 0, packed.index)]
    problems[outside] = 1
    problems += _late_or_early(packed.timestamp_us, context)
    problems += ~np.isfinite(packed.value)
    good = problems == 0
    listed = _listed(packed, dictionary, np.flatnonzero(~good), context)
    if not partial or not good.any():
        raise invalid_reading(listed, int(problems.sum(dtype=np.int64)))
    unlisted = len(good) - int(good.sum()) - len({problem.item for problem in listed})
    rejects = listed[: limits.REJECTS_LISTED_MAX]
    if unlisted:
        rejects.append(unlisted_items(unlisted))
    index, moments = packed.index[good], packed.timestamp_us[good]
    quality = _overridden(packed.quality[good], quality_column(moments, context))
    series, index = _series(dictionary, _used(index, packed.entries), index)
    intake = _intake(series, index, moments, packed.value[good], quality)
    refused = _sensors_of(packed.index[~good], dictionary)
    return replace(intake, rejects=tuple(rejects), refused=refused)


def _sensors_of(index: UInt32Column, dictionary: Dictionary) -> dict[str, int]:
    """Return how many of some rows belong to which sensors, as far as they have good names."""
    entries = len(dictionary.series)
    per_entry = np.bincount(np.minimum(index, entries), minlength=entries + 1)
    counts: dict[str, int] = {}
    for place in np.flatnonzero(per_entry).tolist():
        sensor_id = dictionary.series[place][0] if place < entries else UNNAMED
        if sensor_id not in counts and len(counts) >= NAMES_MAX:
            sensor_id = UNNAMED
        counts[sensor_id] = counts.get(sensor_id, 0) + int(per_entry[place])
    return counts


def _late_or_early(moments: Int64Column, context: DecodeContext) -> _Mask:
    latest = limits.TIMESTAMP_US_MAX
    if context.clock_trusted:
        latest = min(latest, context.arrival_us + limits.FUTURE_TOLERANCE_US)
    return (moments < limits.TIMESTAMP_US_MIN) | (moments > latest)


def _listed(
    packed: _Packed, dictionary: Dictionary, rows: npt.NDArray[np.intp], context: DecodeContext
) -> list[FieldProblem]:
    """Return the problems of the first bad rows, about as many as are shown."""
    listed: list[FieldProblem] = []
    for row in rows[: limits.REJECTS_LISTED_MAX].tolist():
        if len(listed) >= limits.REJECTS_LISTED_MAX:
            break
        found = _row_problems(packed, dictionary, row, context)
        listed += [msgspec.structs.replace(problem, item=row) for problem in found]
    return listed


def _row_problems(
    packed: _Packed, dictionary: Dictionary, row: int, context: DecodeContext
) -> list[FieldProblem]:
    place = int(packed.index[row])
    if place >= packed.entries:
        problems = [FieldProblem("series", str(place), f"a series from 0 to {packed.entries - 1}")]
    else:
        problems = dictionary.problems(place)
    moment, value = int(packed.timestamp_us[row]), float(packed.value[row])
    try:
        check_moment(moment, context.arrival_us, clock_trusted=context.clock_trusted)
    except TimestampError as error:
        problems.append(FieldProblem("timestamp", str(moment), str(error)))
    if not math.isfinite(value):
        problems.append(FieldProblem("value", str(value), "a finite number"))
    return problems
