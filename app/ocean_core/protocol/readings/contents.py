"""What an item carries: one number, several metrics, or a payload kept as an event."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import UNSET

from ocean_core.model import limits
from ocean_core.model.block import DEFAULT_METRIC
from ocean_core.model.errors import FieldProblem
from ocean_core.protocol.readings.names import name_is_good, name_problem
from ocean_core.protocol.readings.shapes import (
    FLOAT,
    NAMED_FLOATS,
    RAW_FIELDS,
    TEXT,
    DecodeContext,
    Item,
)
from ocean_core.protocol.readings.wording import (
    FIELD_CHARS_MAX,
    MISSING,
    RefusedError,
    found_json,
    shorten,
)

Metrics = dict[str, float]

PAYLOAD_LEVELS_MAX: Final = 100
FINITE: Final = "a number that fits a 64-bit float (at most about 1.8e308)"
_ONE_OF: Final = "exactly one of value, values, data"
_NUMBER_FIRST: Final = b"-0123456789"
# Strings and brackets of JSON text; everything else does not matter for the depth.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]')


def content_of(item: Item, context: DecodeContext) -> Metrics | bytes:
    """Return the item's numbers by metric, in the order sent, or its payload as JSON text.

    Raises RefusedError with every problem of the fields value, values, data and metric.
    """
    present = [name for name in ("value", "values", "data") if getattr(item, name) is not UNSET]
    if len(present) != 1:
        found = " and ".join(present) if present else MISSING
        raise RefusedError(FieldProblem("value", found, _ONE_OF))
    if item.value is not UNSET:
        if item.metric is UNSET:
            return {DEFAULT_METRIC: item.value}
        if not name_is_good(item.metric, limits.METRIC_BYTES_MAX):
            raise RefusedError(name_problem("metric", item.metric, limits.METRIC_BYTES_MAX))
        return {item.metric: item.value}
    if item.metric is not UNSET:
        raise RefusedError(
            FieldProblem("metric", f"metric beside {present[0]}", "metric only beside value")
        )
    if item.values is not UNSET:
        return _metrics_of_values(bytes(item.values), context)
    assert item.data is not UNSET
    return _content_of_data(bytes(item.data), context)


def _metrics_of_values(text: bytes, context: DecodeContext) -> Metrics:
    _check_size("values", text, context)
    try:
        metrics = NAMED_FLOATS.decode(text)
    except msgspec.DecodeError:
        raise RefusedError(*_values_problems(text)) from None
    if not metrics:
        raise RefusedError(FieldProblem("values", "{}", "at least one metric"))
    return _checked("values", metrics, context)


def _values_problems(text: bytes) -> list[FieldProblem]:
    """Return what keeps ``values`` from being an object of numbers."""
    expected = "an object of numbers by metric"
    if not text.startswith(b"{"):
        return [FieldProblem("values", found_json(text), expected)]
    problems = [
        FieldProblem(
            shorten(f"values.{name}", FIELD_CHARS_MAX),
            found_json(raw),
            FINITE if _starts_number(raw) else "a number",
        )
        for name, raw in RAW_FIELDS.decode(text).items()
        if not _is_float(raw)
    ]
    # A key sent twice: the last is good, an earlier one was not.
    return problems or [FieldProblem("values", found_json(text), expected)]


def _content_of_data(text: bytes, context: DecodeContext) -> Metrics | bytes:
    """Tell numbers and objects of numbers, also inside a string, from everything else."""
    _check_size("data", text, context)
    if text[0] in _NUMBER_FIRST:
        if not _is_float(text):
            raise RefusedError(FieldProblem("data", found_json(text), FINITE))
        return {DEFAULT_METRIC: FLOAT.decode(text)}
    metrics: Metrics | None = None
    if text[0] == ord('"'):
        metrics = _metrics_of_string(text)
    elif text[0] == ord("{"):
        try:
            metrics = NAMED_FLOATS.decode(text)
        except msgspec.DecodeError:
            _refuse_infinite(text)
    if metrics:
        return _checked("data", metrics, context)
    if _levels(text) > PAYLOAD_LEVELS_MAX:
        raise RefusedError(
            FieldProblem("data", found_json(text), f"at most {PAYLOAD_LEVELS_MAX} nested levels")
        )
    return text


def _metrics_of_string(text: bytes) -> Metrics | None:
    """Return the numbers that a JSON string holds: one, or an object of them. Else None.

    The decoder takes white space around a value; here it makes the string a text, so the first
    and the last character are looked at.
    """
    inner = TEXT.decode(text).encode() if b"\\" in text else text[1:-1]
    first, last = inner[:1], inner[-1:]
    try:
        if first and first in _NUMBER_FIRST and last.isdigit():
            return {DEFAULT_METRIC: FLOAT.decode(inner)}
        if first == b"{" and last == b"}":
            return NAMED_FLOATS.decode(inner)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None


def _refuse_infinite(text: bytes) -> None:
    """Refuse an object whose values are all written as numbers, but not all finite.

    Any other object that is not all numbers is a payload.
    """
    fields = RAW_FIELDS.decode(text)
    if all(_starts_number(raw) for raw in fields.values()):
        problems = [
            FieldProblem(shorten(f"data.{name}", FIELD_CHARS_MAX), found_json(raw), FINITE)
            for name, raw in fields.items()
            if not _is_float(raw)
        ]
        if problems:
            raise RefusedError(*problems)


def _checked(field: str, metrics: Metrics, context: DecodeContext) -> Metrics:
    if len(metrics) > context.metrics_per_item_max:
        raise RefusedError(
            FieldProblem(
                field, f"{len(metrics)} metrics", f"at most {context.metrics_per_item_max}"
            )
        )
    problems = [
        name_problem(shorten(f"{field}.{name}", FIELD_CHARS_MAX), name, limits.METRIC_BYTES_MAX)
        for name in metrics
        if not name_is_good(name, limits.METRIC_BYTES_MAX)
    ]
    if problems:
        raise RefusedError(*problems)
    return metrics


def _check_size(field: str, text: bytes, context: DecodeContext) -> None:
    if len(text) > context.event_bytes_max:
        raise RefusedError(
            FieldProblem(field, f"{len(text)} bytes", f"at most {context.event_bytes_max} bytes")
        )


def _starts_number(raw: bytes | msgspec.Raw) -> bool:
    return memoryview(raw)[0] in _NUMBER_FIRST


def _is_float(raw: bytes | msgspec.Raw) -> bool:
    try:
        FLOAT.decode(raw)
    except msgspec.DecodeError:
        return False
    return True


def _levels(text: bytes) -> int:
    """Return how deeply arrays and objects are nested. ``text`` is valid JSON."""
    if text.count(b"[") + text.count(b"{") <= PAYLOAD_LEVELS_MAX:
        return 0  # It cannot be too deep; how deep does not matter.
    level = deepest = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        if mark in {b"[", b"{"}:
            level += 1
            deepest = max(deepest, level)
        elif mark in {b"]", b"}"}:
            level -= 1
    return deepest
