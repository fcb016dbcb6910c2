"""Lists for people: columns that fit the terminal, and records as lines."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

COLUMN_LETTERS_MIN: Final = 6
_GAP: Final = "  "
_CUT: Final = "…"
_FRACTION: Final = re.compile(r"\.[0-9]+(?=Z$)")

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, for programs."
)


def print_json(value: object) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_list(
    entries: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], object]],
    *,
    empty: str,
    as_json: bool,
) -> None:
    """Print entries: a table whose columns are named and computed so, or a JSON array."""
    if as_json:
        print_json(entries)
    else:
        rows = [[cell(entry) for cell in columns.values()] for entry in entries]
        print_table(list(columns), rows, empty)


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a record: one line per field, or a JSON object."""
    if as_json:
        print_json(record)
    else:
        click.echo("\n".join(record_lines(record)))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows in columns, cut to the width of a terminal, whole for a pipe or file."""
    if not rows:
        click.echo(empty)
        return
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None
    click.echo("\n".join(table_lines(headings, rows, width)))


def moment(text: str | None) -> str | None:
    """Return a moment to the second, which is enough for a table."""
    return None if text is None else _FRACTION.sub("", text)


def counted(number: int, noun: str) -> str:
    """Return how many there are of something.

    >>> counted(1, "reading"), counted(1200, "reading")
    ('1 reading', '1,200 readings')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table_lines(
    headings: Sequence[str], rows: Sequence[Sequence[object]], width: int | None
) -> list[str]:
    """Return a heading and the rows; the first column is never cut, for it is what one copies."""
    cells = [list(headings), *[[shown(cell) for cell in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        _shrink(widths, width - len(_GAP) * (len(widths) - 1))
    return [
        _GAP.join(_fitted(cell, size) for cell, size in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def record_lines(record: Mapping[str, Any]) -> list[str]:
    """Return one line per field of a record."""
    width = max(map(len, record), default=0)
    return [f"{name:<{width}}  {shown(value)}" for name, value in record.items()]


def shown(value: object) -> str:
    """Return a value as a person reads it, on one line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}={shown(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    # What came over the network must not steer the terminal.
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _shrink(widths: list[int], room: int) -> None:
    """Take letters from the widest columns but the first, until all fit or are narrow."""
    while sum(widths) > room:
        widest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        if not widest or widths[widest] <= COLUMN_LETTERS_MIN:
            return
        widths[widest] -= 1


def _fitted(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + _CUT
