"""The rule for sensor ids and metric names."""

from __future__ import annotations

import re
from collections.abc import Collection

from ocean_core.model.errors import FieldProblem
from ocean_core.protocol.readings.wording import found_value

# C0, DEL and C1 controls, the line separators of Unicode, and surrogates, which UTF-8 cannot carry.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def name_is_good(name: str, bytes_max: int) -> bool:
    """Say whether ``name`` has 1 to ``bytes_max`` bytes, no control characters, no space at an end."""
    if name.isascii():
        return (
            0 < len(name) <= bytes_max and name.isprintable() and name[0] != " " and name[-1] != " "
        )
    return (
        _FORBIDDEN.search(name) is None and len(name.encode()) <= bytes_max and name == name.strip()
    )


def names_are_good(names: Collection[str], bytes_max: int) -> bool:
    """Say whether each of ``names`` is good."""
    together = "".join(names)
    if together.isascii() and together.isprintable() and " " not in together:
        lengths = list(map(len, names))
        return not lengths or (min(lengths) > 0 and max(lengths) <= bytes_max)
    return all(name_is_good(name, bytes_max) for name in names)


def name_problem(field: str, name: str, bytes_max: int) -> FieldProblem:
    """Return what is wrong with a name that is not good."""
    forbidden = _FORBIDDEN.search(name)
    if not name:
        expected = f"1 to {bytes_max} bytes"
    elif forbidden is not None:
        expected = f"no control characters (character {forbidden.start()} is one)"
    elif name != name.strip():
        expected = "no white space at the beginning or end"
    else:
        expected = f"at most {bytes_max} bytes of UTF-8, not {len(name.encode())}"
    return FieldProblem(field, found_value(name), expected)
