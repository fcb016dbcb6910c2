"""What is wrong with an item that does not fit its type: every problem, field by field."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem
from ocean_core.protocol.readings.assemble import Assembler
from ocean_core.protocol.readings.attribution import UNNAMED, sensor_of
from ocean_core.protocol.readings.contents import FINITE
from ocean_core.protocol.readings.shapes import (
    FLOAT,
    ITEM,
    ITEM_FIELDS,
    RAW_FIELDS,
    TEXT,
    TIMESTAMP,
    DecodeContext,
    Item,
)
from ocean_core.protocol.readings.wording import (
    FIELD_CHARS_MAX,
    MISSING,
    found_json,
    shorten,
)

_ITEM: Final = "an object with sensor_id and one of value, values, data"
_KNOWN: Final = "only the fields " + ", ".join(ITEM_FIELDS)
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "sensor_id": TEXT,
    "metric": TEXT,
    "timestamp": TIMESTAMP,
    "value": FLOAT,
}
_EXPECTED: Final = {
    "sensor_id": "a string",
    "metric": "a string",
    "timestamp": "a string, a number, or null for the time of arrival",
    "value": "a number",
}
# Fields of a wrong type are replaced by something acceptable while the others are looked at.
_HARMLESS: Final[dict[str, Any]] = {
    "sensor_id": "x",
    "metric": "x",
    "timestamp": None,
    "value": 0.0,
}
_NOT_LISTED: Final = [FieldProblem("", "", "")]
# Where msgspec says that it found something.
_PLACE = re.compile(r"^(.*?)(?: - at `\$\.?([^`]*)`)?$", re.DOTALL)


def add_raw(assembler: Assembler, raw: bytes, position: int | None, context: DecodeContext) -> None:
    """Give ``assembler`` an item from its JSON text, or every problem of it.

    Raises RecursionError for text that is nested too deeply.
    """
    try:
        item = ITEM.decode(raw)
    except msgspec.DecodeError as error:
        if assembler.has_enough_problems:
            # It is only counted, and there may be a great many of them.
            problems, sensor_id = _NOT_LISTED, sensor_of(raw)
        else:
            problems, sensor_id = item_problems(raw, error, assembler, context)
        assembler.refuse(problems, position, sensor_id)
    else:
        assembler.add(item, position)


def item_problems(
    raw: bytes, error: msgspec.DecodeError, assembler: Assembler, context: DecodeContext
) -> tuple[list[FieldProblem], str]:
    """Return the problems of an item that the typed decoder refused with ``error``; at least one.

    And its sensor, UNNAMED if that is not clear. ``raw`` is valid JSON. The rules beyond types are
    those of ``assembler``.
    """
    if not raw.startswith(b"{"):
        return [FieldProblem("", found_json(raw), _ITEM)], UNNAMED
    # Twice: a payload of the allowed size fits, and nothing huge is taken apart.
    if len(raw) > 2 * context.event_bytes_max:
        return [_from_message(raw, error)], sensor_of(raw)
    problems: list[FieldProblem] = []
    usable: dict[str, Any] = {}
    unclear = False
    fields = RAW_FIELDS.decode(raw)
    for name, text in fields.items():
        if name not in ITEM_FIELDS:
            if len(problems) < limits.REJECTS_LISTED_MAX:
                field = shorten(name, FIELD_CHARS_MAX)
                problems.append(FieldProblem(field, found_json(text), _KNOWN))
            continue
        usable[name] = text
        if name in _DECODERS:
            try:
                usable[name] = _DECODERS[name].decode(text)
            except msgspec.DecodeError:
                problems.append(FieldProblem(name, found_json(text), _expected(name, text)))
                usable[name] = _HARMLESS[name]
                unclear = unclear or name == "sensor_id"
    if "sensor_id" not in usable:
        unclear = True
        problems.append(FieldProblem("sensor_id", MISSING, _EXPECTED["sensor_id"]))
        usable["sensor_id"] = _HARMLESS["sensor_id"]
    examined = assembler.examine(Item(**usable))
    if isinstance(examined, list):
        problems.extend(examined)
    # A field sent twice: the last is good, an earlier one was not.
    return problems or [_from_message(raw, error)], UNNAMED if unclear else usable["sensor_id"]


def _expected(name: str, text: msgspec.Raw) -> str:
    # The first character of a number too large for its type.
    if memoryview(text)[0] in b"-0123456789":
        return FINITE if name in {"value", "timestamp"} else _EXPECTED[name]
    return _EXPECTED[name]


def _from_message(raw: bytes, error: msgspec.DecodeError) -> FieldProblem:
    match = _PLACE.match(str(error))
    assert match is not None
    field = shorten(match[2] or "", FIELD_CHARS_MAX)
    return FieldProblem(field, found_json(raw), shorten(match[1], 200))
