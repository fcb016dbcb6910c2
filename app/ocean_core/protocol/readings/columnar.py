"""Columnar JSON: an object with an array per field instead of an object per reading.

Like rows, a batch is first tried as a whole; at the first doubt its rows are put together and go
one by one through the same rules as items, so that refusals name item and field alike.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from typing import Final

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from ocean_core.model.block import (
    DEFAULT_METRIC,
    Int64Column,
    Readings,
    SeriesName,
    UInt32Column,
)
from ocean_core.model.errors import FieldProblem
from ocean_core.model.receipt import Intake
from ocean_core.protocol.readings.assemble import Assembler
from ocean_core.protocol.readings.columns import moment_column, quality_column, series_column
from ocean_core.protocol.readings.diagnose import add_raw
from ocean_core.protocol.readings.shapes import RAW_ITEMS, DecodeContext, Timestamp
from ocean_core.protocol.readings.syntax import check_count, fields_of
from ocean_core.protocol.readings.wording import (
    FIELD_CHARS_MAX,
    MISSING,
    found_json,
    invalid_reading,
    shorten,
)

FIELDS: Final[tuple[str, ...]] = ("sensor_id", "timestamp", "value", "metric")

_KNOWN: Final = "only the fields " + ", ".join(FIELDS)
_NUMBERS: Final = "an array of numbers"
_NAMES: Final = "an array of strings, or one string for all rows"
# Stands for an array while the fields that hold for all rows are looked at.
_HARMLESS: Final = {"sensor_id": b'"x"', "timestamp": b"null", "value": b"0", "metric": b'"x"'}


class _Columns(msgspec.Struct, forbid_unknown_fields=True):
    value: list[float]
    sensor_id: str | list[str]
    timestamp: Timestamp | list[Timestamp] = None
    metric: str | list[str] | UnsetType = UNSET


class _Shape(msgspec.Struct):
    """Fields that tell this form from others; none is built."""

    readings: msgspec.Raw | UnsetType = UNSET
    sensor_id: msgspec.Raw | UnsetType = UNSET
    timestamp: msgspec.Raw | UnsetType = UNSET
    value: msgspec.Raw | UnsetType = UNSET
    metric: msgspec.Raw | UnsetType = UNSET


_COLUMNS: Final = msgspec.json.Decoder(_Columns)
_SHAPE: Final = msgspec.json.Decoder(_Shape)


def columnar_intake(body: bytes, context: DecodeContext, *, quickly: bool = False) -> Intake | None:
    """Return columnar JSON of which every row is good as columns, None if it is anything else.

    None also if that cannot be done ``quickly``.
    """
    try:
        columns = _COLUMNS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    count = len(columns.value)
    if not 1 <= count <= context.items_max:
        return None
    if not all(
        len(column) == count
        for column in (columns.sensor_id, columns.timestamp, columns.metric)
        if isinstance(column, list)
    ):
        return None
    timestamp = _moments(columns, context, quickly=quickly)
    if timestamp is None:
        return None
    quality = quality_column(timestamp, context)
    named = _series(columns)
    if quality is None or named is None:
        return None
    series, index = named
    value = np.array(columns.value, dtype=np.float64)
    readings = Readings(series, index, timestamp, value, quality)
    return Intake(readings, None, count, columnar=True)


def _moments(columns: _Columns, context: DecodeContext, *, quickly: bool) -> Int64Column | None:
    if isinstance(columns.timestamp, list):
        return moment_column(columns.timestamp, context, quickly=quickly)
    one = moment_column([columns.timestamp], context)
    return None if one is None else one.repeat(len(columns.value))


def _series(columns: _Columns) -> tuple[list[SeriesName], UInt32Column] | None:
    sensor_id, metric = columns.sensor_id, columns.metric
    count = len(columns.value)
    if isinstance(sensor_id, str) and not isinstance(metric, list):
        named = series_column([sensor_id], [DEFAULT_METRIC if metric is UNSET else metric])
        return None if named is None else (named[0], np.zeros(count, dtype=np.uint32))
    sensors = [sensor_id] * count if isinstance(sensor_id, str) else sensor_id
    if metric is UNSET:
        return series_column(sensors, None)
    return series_column(sensors, [metric] * count if isinstance(metric, str) else metric)


def is_columnar(body: bytes) -> bool:
    """Say whether valid JSON is an object of columns: of the four fields one at least is an array.

    An object with one reading is not, nor one with ``readings``.
    """
    try:
        shape = _SHAPE.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    columns = (shape.sensor_id, shape.timestamp, shape.value, shape.metric)
    return shape.readings is UNSET and any(_is_array(column) for column in columns)


def _is_array(text: msgspec.Raw | UnsetType) -> bool:
    return text is not UNSET and memoryview(text)[0] == ord("[")


def columnar_thoroughly(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Return what is good of columnar JSON, row by row, naming every problem.

    ``body`` is valid JSON. Raises InvalidReadingError, also for a ``partial`` request if it is not
    about single rows, and BodyTooLargeError.
    """
    fields = fields_of(body)
    problems = _shape_problems(fields)
    if problems:
        raise invalid_reading(problems, len(problems))
    elements: dict[str, list[msgspec.Raw]] = {
        name: RAW_ITEMS.decode(fields[name])
        for name in FIELDS
        if name in fields and _is_array(fields[name])
    }
    count = len(elements["value"])
    problems = [
        FieldProblem(
            name, f"an array of {len(column)}", f"an array of {count} like value, or one for all"
        )
        for name, column in elements.items()
        if len(column) != count
    ]
    if problems:
        raise invalid_reading(problems, len(problems))
    check_count(count, context)
    _check_common(fields, elements, context)
    assembler = Assembler(context)
    names = [name for name in FIELDS if name in fields]
    template = b"{" + b",".join(b'"%b":%%b' % name.encode() for name in names) + b"}"
    rows = zip(*(elements.get(name) or repeat(fields[name], count) for name in names), strict=True)
    for position, row in enumerate(rows):
        add_raw(assembler, template % row, position, context)
        if not partial and assembler.has_enough_problems:
            break
    return replace(assembler.finish(partial=partial), columnar=True)


def _shape_problems(fields: dict[str, msgspec.Raw]) -> list[FieldProblem]:
    problems = [
        FieldProblem(shorten(name, FIELD_CHARS_MAX), found_json(text), _KNOWN)
        for name, text in fields.items()
        if name not in FIELDS
    ]
    if "sensor_id" not in fields:
        problems.append(FieldProblem("sensor_id", MISSING, _NAMES))
    if "value" not in fields:
        problems.append(FieldProblem("value", MISSING, _NUMBERS))
    elif not _is_array(fields["value"]):
        problems.append(FieldProblem("value", found_json(fields["value"]), _NUMBERS))
    return problems


def _check_common(
    fields: dict[str, msgspec.Raw],
    elements: dict[str, list[msgspec.Raw]],
    context: DecodeContext,
) -> None:
    """Refuse the request once for what would be wrong in every row.

    Raises InvalidReadingError.
    """
    assembler = Assembler(context)
    parts = [
        b'"%b":%b' % (name.encode(), _HARMLESS[name] if name in elements else bytes(fields[name]))
        for name in fields
    ]
    add_raw(assembler, b"{" + b",".join(parts) + b"}", None, context)
    assembler.finish(partial=False)
