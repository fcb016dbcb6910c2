"""On which line of a TOML text a value stands; tomllib reads values, and does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

Place = tuple[str | int, ...]
"""Keys of tables and positions in arrays, from the outermost table on."""

_TOKEN: Final = re.compile(
    r"""
    (?P<skip>\#[^\n]*|[^\S\n]+)
    |(?P<string>
        \"{3}(?:\\.|[^\\])*?\"{3,5}
        |'{3}.*?'{3,5}
        |\"(?:\\.|[^\"\\\n])*\"
        |'[^'\n]*'
    )
    |(?P<newline>\n)
    |(?P<mark>[\[\]{}=,.])
    |(?P<word>[^\s\[\]{}=,.\"'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


_END: Final = _Token("end", "", 0)


def line_numbers(text: str) -> dict[Place, int]:
    """Return the line, counted from 1, of every table, key and item of an array in valid TOML."""
    scan = _Scan(text)
    scan.statements()
    return scan.lines


def line_of(lines: Mapping[Place, int], place: Sequence[str | int]) -> int | None:
    """Return the line of a place, or of the nearest thing around it that has one."""
    for length in range(len(place), 0, -1):
        line = lines.get(tuple(place[:length]))
        if line is not None:
            return line
    return None


class _Scan:
    """Walks along the tokens. The text is known to be valid, so it looks at nothing but its shape."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._tokens: list[_Token] = []
        self._at = 0
        # How many tables an array of tables has so far.
        self._counts: dict[Place, int] = {}
        line = 1
        for match in _TOKEN.finditer(text):
            kind = str(match.lastgroup)
            if kind != "skip":
                self._tokens.append(_Token(kind, match[0], line))
            line += match[0].count("\n")

    def statements(self) -> None:
        table: Place = ()
        while (token := self._peek()) is not _END:
            if token.kind == "newline":
                self._at += 1
            elif token.text == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Place:
        line = self._next().line
        is_array = self._take("[")
        keys = self._keys()
        while self._take("]"):
            pass
        place: Place = ()
        for number, key in enumerate(keys, 1):
            place += (key,)
            count = self._counts.get(place, 0)
            if is_array and number == len(keys):
                self._counts[place] = count + 1
                self.lines.setdefault(place, line)
                place += (count,)
            elif count:
                place += (count - 1,)
        self.lines.setdefault(place, line)
        return place

    def _pair(self, table: Place) -> None:
        line = self._peek().line
        place = table
        for key in self._keys():
            place += (key,)
            self.lines.setdefault(place, line)
        self._take("=")
        self._value(place)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while (token := self._peek()).kind in {"word", "string"}:
            self._at += 1
            keys.append(_unquoted(token))
            if not self._take("."):
                break
        if not keys:
            # Nothing that valid TOML has; go on, so that this ends whatever comes.
            self._at += 1
        return keys

    def _value(self, place: Place) -> None:
        if self._take("["):
            position = 0
            while (token := self._peek()) is not _END and not self._take("]"):
                if token.kind == "newline" or token.text == ",":
                    self._at += 1
                    continue
                self.lines.setdefault((*place, position), token.line)
                self._value((*place, position))
                position += 1
        elif self._take("{"):
            while (token := self._peek()) is not _END and not self._take("}"):
                if token.kind == "newline" or token.text == ",":
                    self._at += 1
                    continue
                self._pair(place)
        else:
            while (token := self._peek()) is not _END and (
                token.kind == "string" or (token.kind != "newline" and token.text not in ",]}")
            ):
                self._at += 1

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, mark: str) -> bool:
        token = self._peek()
        if token.kind == "mark" and token.text == mark:
            self._at += 1
            return True
        return False


def _unquoted(token: _Token) -> str:
    if token.kind == "word":
        return token.text
    try:
        return str(tomllib.loads(f"key = {token.text}")["key"])
    except tomllib.TOMLDecodeError:
        return token.text
