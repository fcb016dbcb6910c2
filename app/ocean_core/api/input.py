"""From a request body to a checked structure."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from ocean_core.model.errors import FieldProblem, InvalidInputError, MalformedBodyError

T = TypeVar("T")

_AT: Final = re.compile(r"^(?P<what>.*?) - at `\$(?P<path>[^`]*)`$")
_DECODERS: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {}


def decode_body(raw: bytes, kind: type[T]) -> T:
    """Return the structure that a JSON body holds.

    Raises MalformedBodyError if it is no JSON, InvalidInputError naming the field otherwise.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(raw)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise _told(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBodyError(f"the body is no JSON: {error}", hint=_hint(kind)) from error
    except RecursionError as error:
        raise MalformedBodyError("the JSON is nested too deep", hint=_hint(kind)) from error


def _told(message: str) -> InvalidInputError:
    """Put msgspec's words, such as "Expected `str`, got `int` - at `$.email`", into a problem."""
    found = _AT.match(message)
    what, path = (found["what"], found["path"].lstrip(".")) if found else (message, "")
    missing = re.search(r"missing required field `([^`]+)`", what)
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if missing:
        field, got, expected = _joined(path, missing[1]), "nothing", "a value"
    elif unknown:
        field, got, expected = _joined(path, unknown[1]), "a field", "no such field"
    else:
        parts = re.match(r"Expected (.+?)(?:, got (.+))?$", what)
        field = path or "body"
        expected = parts[1].replace("`", "") if parts else "a valid value"
        got = (parts[2] or "another value").replace("`", "") if parts else what
    return InvalidInputError(
        f"{field}: {what}" if path else what, fields=(FieldProblem(field, got, expected),)
    )


def _joined(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _hint(kind: type[Any]) -> str:
    try:
        names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
    except TypeError:
        names = "the documented fields"
    return f"Send one JSON object with {names}."
