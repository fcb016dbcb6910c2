"""How refusals are worded: what was found, shortened and made printable, and the sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, InvalidReadingError

FOUND_CHARS_MAX: Final = 80
FIELD_CHARS_MAX: Final = 60
MISSING: Final = "nothing"

# What could end a line, steer a terminal or turn writing around in a log or a console.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class RefusedError(ValueError):
    """Part of an item is not acceptable; ``problems`` do not know the item's position yet."""

    def __init__(self, *problems: FieldProblem) -> None:
        super().__init__(problems)
        self.problems = problems


def shorten(text: str, chars_max: int = FOUND_CHARS_MAX) -> str:
    """Return printable text of at most ``chars_max`` characters."""
    clean = _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text[: chars_max + 1])
    return clean if len(clean) <= chars_max else clean[: chars_max - 3] + "..."


def found_json(data: bytes | memoryview | msgspec.Raw) -> str:
    """Return JSON text for a ``found`` field. A character cut in two is left out."""
    head = bytes(memoryview(data)[: 4 * (FOUND_CHARS_MAX + 1)])
    return shorten(head.decode("utf-8", "ignore"))


def found_value(value: float | str) -> str:
    """Return a decoded value as JSON text for a ``found`` field."""
    if isinstance(value, str):
        return found_json(msgspec.json.encode(value[: FOUND_CHARS_MAX + 1]))
    return shorten(str(value))


def sentence(problem: FieldProblem) -> str:
    """Return one problem as a sentence without its full stop.

    >>> sentence(FieldProblem("value", "null", "a number", 3))
    'item 3, value: found null, expected a number'
    """
    places = [] if problem.item is None else [f"item {problem.item}"]
    if problem.field:
        places.append(problem.field)
    where = ", ".join(places) or "body"
    return f"{where}: found {problem.found}, expected {problem.expected}"


def invalid_reading(problems: Sequence[FieldProblem], total: int) -> InvalidReadingError:
    """Return the error for a refused request; ``total`` counts the problems not listed too."""
    detail = sentence(problems[0])
    if total > 1:
        detail += f" (and {total - 1} more)"
    return InvalidReadingError(detail + ".", fields=tuple(problems[: limits.REJECTS_LISTED_MAX]))
