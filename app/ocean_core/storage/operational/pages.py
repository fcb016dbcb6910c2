"""A page of a list: as many rows as were asked for, and no more bytes than an answer may have."""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw

from ocean_core.model import limits

Row = tuple[Any, ...]


class Page(NamedTuple):
    """Rows, and whether more follow behind the last one."""

    rows: list[Row]
    more: bool


def page_of(db: apsw.Connection, sql: str, params: tuple[Any, ...], limit: int) -> Page:
    """Return the first rows of a query whose last parameter is its LIMIT.

    At least one row, if there is any; else at most RECORDS_PAGE_BYTES_MAX of text.
    """
    rows: list[Row] = []
    size = 0
    cursor = db.cursor()
    try:
        for row in cursor.execute(sql, (*params, limit + 1)):
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if len(rows) == limit or (rows and size > limits.RECORDS_PAGE_BYTES_MAX):
                return Page(rows, more=True)
            rows.append(row)
    finally:
        # A statement that was not read to its end would keep an old state of the file alive.
        cursor.close(True)
    return Page(rows, more=False)


def behind_prefix(prefix: str) -> str | bytes:
    """Return what sorts right behind all texts that begin with ``prefix``.

    Texts sort by code point; any blob sorts behind any text.
    """
    for place in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[place])
        if point < 0x10FFFF:
            # What lies between is reserved and in no text.
            following = 0xE000 if point == 0xD7FF else point + 1
            return prefix[:place] + chr(following)
    return b""
