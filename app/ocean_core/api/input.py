"""From a request body to a checked structure; what does not fit is told in plain words."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from ocean_core.model.errors import FieldProblem, InvalidInputError, MalformedBodyError
from ocean_core.protocol.readings.wording import (
    FIELD_CHARS_MAX,
    MISSING,
    found_value,
    sentence,
    shorten,
)

T = TypeVar("T")

_AT: Final = re.compile(r"^(?P<what>.*?) - at `\$(?P<path>[^`]*)`$", re.DOTALL)
_STEPS: Final = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")
_ENTRY: Final = "..."
"""How msgspec writes the place of a value in a dictionary, whose key it does not tell."""
_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_NAMES: Final[dict[type[Any], str]] = {
    str: "str", bool: "bool", int: "int", float: "float", list: "array", dict: "object",
    type(None): "null",
}  # fmt: skip
_KINDS: Final[tuple[tuple[type[inspect.Type], str], ...]] = (
    (inspect.StrType, "str"),
    (inspect.IntType, "int"),
    (inspect.FloatType, "float"),
    (inspect.BoolType, "bool"),
    (inspect.ListType, "array"),
    (inspect.VarTupleType, "array"),
    (inspect.DictType, "object"),
    (inspect.StructType, "object"),
)
_DECODERS: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {}


def decode_body(raw: bytes, kind: type[T], *, wrapper: str = "") -> T:
    """Return the structure that a JSON body holds.

    ``wrapper`` is a field that clients tend to leave out, sending its content alone: then the hint
    says to wrap it. Raises MalformedBodyError if it is no JSON, InvalidInputError naming the field
    otherwise.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(raw)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise _told(str(error), raw, kind, wrapper) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBodyError(f"the body is no JSON: {error}", hint=_hint(kind)) from error
    except RecursionError as error:
        raise MalformedBodyError("the JSON is nested too deep", hint=_hint(kind)) from error


def _told(message: str, raw: bytes, kind: type[Any], wrapper: str) -> InvalidInputError:
    """Put msgspec's words, such as "Expected `str`, got `int` - at `$.email`", into ours."""
    found = _AT.match(message)
    what, path = (found["what"], found["path"]) if found else (message, "")
    steps = [index or name for index, name in _STEPS.findall(path)]
    there = _type_at(kind, steps)
    value = _decoded(raw)
    hint = None
    if wrapper and not (isinstance(value, dict) and wrapper in value):
        hint = f'Wrap it: {{"{wrapper}": …}}'
    unknown = re.search(r"unknown field `(.+)`$", what, re.DOTALL)
    if unknown:
        name, known = shorten(unknown[1], FIELD_CHARS_MAX), ", ".join(_fields_of(there)) or "none"
        problem = FieldProblem(_joined(steps, name), name, known)
        detail = f"`{_joined(steps, name)}` is not known here; known are {known}"
    else:
        problem = _problem(what, steps, there, value)
        detail = sentence(problem)
    return InvalidInputError(detail + ".", hint=hint, fields=(problem,))


def _problem(
    what: str, steps: list[str], there: inspect.Type | None, value: object
) -> FieldProblem:
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing:
        wanted = _fields_of(there).get(missing[1])
        return FieldProblem(_joined(steps, missing[1]), MISSING, _expected(wanted))
    choice = re.match(r"Invalid enum value (.+)$", what, re.DOTALL)
    if choice:
        return FieldProblem(_joined(steps), found_value(choice[1].strip("'")), _expected(there))
    types = re.match(r"Expected `(.+?)`, got `(.+)`$", what)
    if types:
        field = _joined(_with_key(steps, value, types[2]))
        return FieldProblem(field, _WORDS.get(types[2], types[2]), _in_words(types[1]))
    bounds = re.match(r"Expected `(.+?)` (.+)$", what)
    if bounds:
        expected = f"{_in_words(bounds[1])} {bounds[2]}"
        return FieldProblem(_joined(steps), "another value", expected)
    return FieldProblem(_joined(steps), shorten(what.lower()), _expected(there))


def _in_words(types: str) -> str:
    """Return ``int | null`` as people say it."""
    words = [_WORDS.get(name, name) for name in types.split(" | ")]
    return " or ".join(words)


def _expected(kind: inspect.Type | None) -> str:
    """Return what a type takes."""
    for part in _parts(kind):
        if isinstance(part, inspect.EnumType):
            return "one of " + ", ".join(str(member.value) for member in part.cls)
        if isinstance(part, inspect.LiteralType):
            return "one of " + ", ".join(map(str, part.values))
    names = [name for part in _parts(kind) for known, name in _KINDS if isinstance(part, known)]
    return _in_words(" | ".join(names)) if names else "a value"


def _parts(kind: inspect.Type | None) -> tuple[inspect.Type, ...]:
    """Return what a type is a choice of."""
    if isinstance(kind, inspect.Metadata):
        return _parts(kind.type)
    if isinstance(kind, inspect.UnionType):
        return kind.types
    return () if kind is None else (kind,)


def _fields_of(kind: inspect.Type | None) -> dict[str, inspect.Type]:
    """Return the fields of a structure by name; none if it is something else."""
    return {
        field.encode_name: field.type
        for part in _parts(kind)
        if isinstance(part, inspect.StructType)
        for field in part.fields
    }


def _type_at(kind: type[Any], steps: list[str]) -> inspect.Type | None:
    """Return the type at a place inside a structure, None if that is not clear."""
    there: inspect.Type | None = inspect.type_info(kind)
    for step in steps:
        field = _fields_of(there).get(step)
        for part in _parts(there):
            if isinstance(part, inspect.ListType | inspect.VarTupleType) and step.isdigit():
                field = part.item_type
            elif isinstance(part, inspect.DictType) and step == _ENTRY:
                field = part.value_type
        there = field
    return there


def _with_key(steps: list[str], value: Any, got: str) -> list[str]:  # noqa: ANN401 - any JSON value
    """Return the steps with the key of the entry that is wrong, where msgspec does not tell it."""
    if not steps or steps[-1] != _ENTRY:
        return steps
    for step in steps[:-1]:
        value = value.get(step) if isinstance(value, dict) else None
    entries = value.items() if isinstance(value, dict) else ()
    keys = [str(key) for key, entry in entries if _NAMES.get(type(entry)) == got]
    return [*steps[:-1], *[shorten(key, FIELD_CHARS_MAX) for key in keys[:1]]]


def _joined(steps: list[str], *more: str) -> str:
    """Return a place as people write it, such as ``tags.hall`` or ``scopes[0]``."""
    text = ""
    for step in [*steps, *more]:
        if step.isdigit():
            text = f"{text}[{step}]"
        elif step != _ENTRY:
            text = f"{text}.{step}" if text else step
    return text or "body"


def _decoded(raw: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


def _hint(kind: type[Any]) -> str:
    wanted = inspect.type_info(kind)
    names = ", ".join(_fields_of(wanted))
    takes_list = any(isinstance(part, inspect.ListType) for part in _parts(wanted))
    return f"Send {'a list, or ' if takes_list else ''}one JSON object with {names}."
