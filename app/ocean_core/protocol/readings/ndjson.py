"""NDJSON: an item per line. Like ``decode_batch`` with an array, but a line may be bad alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec
import numpy as np

from ocean_core.model.errors import FieldProblem, MalformedBodyError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings.assemble import Assembler
from ocean_core.protocol.readings.attribution import UNNAMED, sensors_in
from ocean_core.protocol.readings.columns import plain_intake, uniform_intake
from ocean_core.protocol.readings.diagnose import add_raw
from ocean_core.protocol.readings.shapes import (
    ARRAY_ROWS_MIN,
    ITEM,
    PLAIN_ITEM,
    DecodeContext,
)
from ocean_core.protocol.readings.syntax import (
    BOM,
    check_length,
    check_syntax,
    fault_of,
    too_many,
)
from ocean_core.protocol.readings.wording import found_json

# Lines with anything but white space, from the first character that is none.
_LINE = re.compile(rb"[^ \t\r\n][^\n]*+")
_NEWLINE, _RETURN, _OPEN, _CLOSE = b"\n\r{}"
_OBJECT: Final = "one JSON object per line"


def ndjson_intake(body: bytes, context: DecodeContext, *, quickly: bool = False) -> Intake | None:
    """Return lines of plain good items, each a reading, as columns; None for anything else.

    None also if that cannot be done ``quickly``. Raises BodyTooLargeError or MalformedBodyError.
    """
    check_lines(body, context)
    count = _neat_lines(body, context)
    if count is None:
        return None
    try:
        items = PLAIN_ITEM.decode_lines(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if len(items) != count:
        return None
    return plain_intake(items, context, quickly=quickly)


def decode_ndjson(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Return the items of all lines; see ``decode_batch``."""
    intake = ndjson_intake(body, context)
    if intake is not None:
        return intake
    count = _neat_lines(body, context)
    if count is None:
        return ndjson_thoroughly(body, context, partial=partial)
    try:
        items = ITEM.decode_lines(body)
    except (msgspec.DecodeError, RecursionError):
        items = []
    intake = uniform_intake(items, context) if len(items) == count else None
    return intake or ndjson_thoroughly(body, context, partial=partial)


def ndjson_thoroughly(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Do what ``decode_ndjson`` does, slowly, line by line, naming every problem."""
    check_lines(body, context)
    lines = sum(1 for _ in islice(_LINE.finditer(body), context.items_max + 1))
    if lines > context.items_max:
        raise too_many(context)
    assembler = Assembler(context)
    for position, (number, line) in enumerate(_numbered(body)):
        problem = _line_problem(line, number)
        if problem is None:
            try:
                add_raw(assembler, line, position, context)
            except RecursionError:
                problem = _too_deep(line, number)
        if problem is not None:
            assembler.refuse([problem], position, _sensor_of(line))
        if not partial and assembler.has_enough_problems:
            break
    return assembler.finish(partial=partial)


def check_lines(body: bytes, context: DecodeContext) -> None:
    """Check what does not depend on single lines.

    Raises BodyTooLargeError or MalformedBodyError.
    """
    check_length(body, context)
    if not body or body.isspace():
        raise MalformedBodyError("The body is empty.")
    if body.startswith(BOM):
        raise MalformedBodyError(
            "The body begins with a byte order mark (bytes 0 to 2); send NDJSON without it."
        )


def _neat_lines(body: bytes, context: DecodeContext) -> int | None:
    """Return how many lines there are if each begins with { and ends with }, else None.

    Between } and { there is no comma, so no such line end is inside a value: if a decoder finds
    as many values as there are lines, each line is one value. None also for few or too many.
    """
    if not body.isascii() and not _is_utf8(body):
        return None
    codes = np.frombuffer(body, np.uint8)
    if codes[-1] == _NEWLINE:
        codes = codes[:-1]
    is_end = codes == _NEWLINE
    lines = int(np.count_nonzero(is_end)) + 1
    if not ARRAY_ROWS_MIN <= lines <= context.items_max:
        return None
    ends = np.flatnonzero(is_end)
    firsts = codes.take(ends + 1, mode="clip")
    behind = np.append(ends, len(codes))
    lasts = codes[behind - 1]
    if (lasts == _RETURN).any():
        lasts = np.where(lasts == _RETURN, codes[behind - 2], lasts)
    neat = codes[0] == _OPEN and (firsts == _OPEN).all() and (lasts == _CLOSE).all()
    return lines if neat else None


def _numbered(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    number, counted = 1, 0
    for match in _LINE.finditer(body):
        number += body.count(b"\n", counted, match.start())
        counted = match.start()
        yield number, match[0].rstrip(b" \t\r")


def _sensor_of(line: bytes) -> str:
    if b'"sensor_id"' not in line:
        return UNNAMED
    return next(iter(sensors_in(line, Media.NDJSON)), UNNAMED)


def _line_problem(line: bytes, number: int) -> FieldProblem | None:
    """Return why a line is no JSON, None if it is."""
    if not line.isascii() and not _is_utf8(line):
        return FieldProblem("", found_json(line), f"{_OBJECT}, in UTF-8 (line {number})")
    try:
        check_syntax(line)
    except RecursionError:
        return _too_deep(line, number)
    except msgspec.DecodeError as error:
        position, reason = fault_of(line, error)
        where = f"line {number}, byte {position}: {reason}"
        return FieldProblem("", found_json(line), f"{_OBJECT} ({where})")
    return None


def _too_deep(line: bytes, number: int) -> FieldProblem:
    return FieldProblem("", found_json(line), f"JSON that is not so deeply nested (line {number})")


def _is_utf8(data: bytes) -> bool:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
