"""A TOML table read key by key; every mistake is told with file, line, found and expected."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NoReturn

from ocean_core.config.toml_lines import Place, line_of
from ocean_core.model.errors import FieldProblem, ModelsFileError
from ocean_core.protocol.readings.wording import found_value, shorten

NUMBER_MAX: Final = 1e100
TEXT_CHARS_MAX: Final = 256
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Document:
    """A TOML file: its name as people know it, and the lines of what is in it."""

    name: str
    lines: Mapping[Place, int]


class Table:
    """One table. Keys that nobody asked for are mistakes, which ``finish`` tells."""

    def __init__(self, document: Document, place: Place, values: Mapping[str, Any]) -> None:
        """Read ``values``, which stand at ``place`` in the document."""
        self._document = document
        self._place = place
        self._values = values
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def has(self, *keys: str) -> str:
        """Return the first of the keys that is there, empty if none is."""
        return next((key for key in keys if key in self._values), "")

    def value(self, key: str) -> Any:  # noqa: ANN401 - whatever somebody wrote
        """Return what stands at a key, None if nothing does."""
        self._asked.append(key)
        return self._values.get(key)

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise ModelsFileError for what stands at a key; empty for the table itself."""
        found = _told(self._values[key]) if key in self._values else "nothing"
        raise self.mistake((key,) if key else (), found, expected)

    def mistake(self, inner: Place, found: str, expected: str) -> ModelsFileError:
        """Return the error for a place inside this table."""
        place = (*self._place, *inner)
        line = line_of(self._document.lines, place)
        where = self._document.name + (f", line {line}" if line else "")
        field = dotted(place)
        return ModelsFileError(
            f"{where}: {field or 'the file'}: found {found}, expected {expected}",
            fields=(FieldProblem(field, found, expected),),
        )

    def text(self, key: str, default: str = "", *, empty: bool = True) -> str:
        """Return text of one line."""
        value = self.value(key)
        if value is None:
            return default
        good = isinstance(value, str) and len(value) <= TEXT_CHARS_MAX and _is_line(value)
        if not good or not (value or empty):
            self.refuse(key, f"text on one line, at most {TEXT_CHARS_MAX} characters")
        return str(value)

    def number(self, key: str) -> float | None:
        """Return a finite number, None if it is not there."""
        value = self.value(key)
        if value is not None and not is_number(value):
            self.refuse(key, "a number such as 0.01")
        return value  # type: ignore[no-any-return]

    def bound(self, key: str, default: float) -> float:
        """Return a number that may be infinite."""
        value = self.value(key)
        if value is None:
            return default
        if not is_bound(value):
            self.refuse(key, "a number, or inf or -inf for no bound")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return true or false; false if it is not there."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false, without quotation marks")
        return bool(value)

    def table(self, key: str) -> Table:
        """Return the table at a key, an empty one if it is not there."""
        value = self.value(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.refuse(key, "a table")
        return Table(self._document, (*self._place, key), value)

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Return every key with the table there."""
        for key in self._values:
            yield key, self.table(key)

    def items(self, key: str, items_max: int) -> list[Table]:
        """Return the tables of an array, none if it is not there."""
        value = self.value(key)
        if value is None:
            return []
        if not isinstance(value, list) or not 0 < len(value) <= items_max:
            self.refuse(key, f"a list of 1 to {items_max} tables such as {{ name = ... }}")
        found: list[Table] = []
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.mistake((key, number), _told(item), "a table such as { name = ... }")
            found.append(Table(self._document, (*self._place, key, number), item))
        return found

    def keys(self) -> list[str]:
        """Return the keys, all of which count as asked for."""
        self._asked.extend(self._values)
        return list(self._values)

    def finish(self) -> None:
        """Refuse a key that has no meaning here."""
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                tail = f"; did you mean `{near[0]}`?" if near else ""
                known = ", ".join(dict.fromkeys(self._asked))
                raise self.mistake((key,), f"`{shorten(key)}`", f"one of {known}{tail}")


def is_number(value: object) -> bool:
    """Return whether something is a finite number of a sensible size."""
    return is_bound(value) and isfinite(value) and abs(value) <= NUMBER_MAX  # type: ignore[arg-type]


def is_bound(value: object) -> bool:
    """Return whether something is a number, finite or not."""
    if isinstance(value, float):
        return value == value  # noqa: PLR0124 - NaN is not
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= NUMBER_MAX


def dotted(place: Place) -> str:
    """Return a place as one would write it: ``model.0x50.fields[2].type``, counted from 1."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part + 1}]"
            continue
        word = part if _BARE_KEY.fullmatch(part) else json.dumps(shorten(part))
        text += f".{word}" if text else word
    return text


def _is_line(text: str) -> bool:
    return text.isprintable()


def _told(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return found_value(value)
    kinds = {list: "a list", dict: "a table"}
    if isinstance(value, list | dict):
        return kinds[type(value)] if value else f"{kinds[type(value)]} with nothing in it"
    return shorten(str(value))
