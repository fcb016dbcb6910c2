"""Checks of what comes in for records: names, texts, JSON values. Refusals name the field."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, InvalidInputError
from ocean_core.protocol.readings.names import name_is_good, name_problem
from ocean_core.protocol.readings.wording import found_value, sentence

# C0, DEL and C1 controls, the line separators of Unicode, and surrogates, which UTF-8 cannot carry.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROLS_BUT_LINES: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# White space may blow up JSON text, but not without end.
_SPREAD_MAX: Final = 8


def invalid(field: str, found: str | float, expected: str) -> InvalidInputError:
    """Return the error for one field; ``found`` is a value as it came."""
    return refused(FieldProblem(field, found_value(found), expected))


def refused(problem: FieldProblem) -> InvalidInputError:
    """Return the error for a problem."""
    return InvalidInputError(sentence(problem) + ".", fields=(problem,))


def check_name(field: str, name: str, bytes_max: int) -> str:
    """Return a name by the rule for sensor ids. Raises InvalidInputError."""
    if not name_is_good(name, bytes_max):
        raise refused(name_problem(field, name, bytes_max))
    return name


def check_text(
    field: str, text: str, bytes_max: int, *, bytes_min: int = 0, lines: bool = False
) -> str:
    """Return text without control characters; with ``lines``, line ends and tabs are fine.

    Raises InvalidInputError.
    """
    forbidden = (_CONTROLS_BUT_LINES if lines else _CONTROLS).search(text)
    if forbidden is not None:
        raise invalid(field, text, f"no control characters (character {forbidden.start()} is one)")
    size = len(text.encode())
    if not bytes_min <= size <= bytes_max:
        problem = FieldProblem(field, f"{size} bytes", f"{bytes_min} to {bytes_max} bytes of UTF-8")
        raise refused(problem)
    return text


def compact_json(field: str, raw: msgspec.Raw, bytes_max: int) -> str:
    """Return a JSON value as it came, without the white space between its parts.

    Numbers keep their digits and objects their order. Raises InvalidInputError if it is too long,
    nested deeper than RECORD_LEVELS_MAX, no UTF-8, or has a number beyond what programs can read.
    """
    text = bytes(raw)
    size = len(text)
    if size <= bytes_max * _SPREAD_MAX:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = FieldProblem(field, str(error), "a JSON value that programs can read")
            raise refused(problem) from error
        except RecursionError:
            raise _too_deep(field) from None
        if _levels(value) > limits.RECORD_LEVELS_MAX:
            raise _too_deep(field)
        text = msgspec.json.format(text, indent=-1)
        size = len(text)
    if size > bytes_max:
        raise refused(FieldProblem(field, f"{size} bytes", f"at most {bytes_max} bytes of JSON"))
    return text.decode()


def _too_deep(field: str) -> InvalidInputError:
    expected = f"at most {limits.RECORD_LEVELS_MAX} levels of arrays and objects"
    return refused(FieldProblem(field, "more levels", expected))


def _levels(value: Any) -> int:  # noqa: ANN401 - any JSON value
    """Return how deeply arrays and objects are nested, level by level, without recursion."""
    level = 0
    branches = [value]
    while branches := [each for each in branches if isinstance(each, list | dict)]:
        level += 1
        if level > limits.RECORD_LEVELS_MAX:
            return level
        branches = [
            part
            for branch in branches
            for part in (branch.values() if isinstance(branch, dict) else branch)
        ]
    return level
