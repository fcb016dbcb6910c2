"""B-tree pages taken apart byte by byte, trusting nothing: for salvage alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ocean_core.storage.operational.files import PAGE_BYTES

INDEX_INNER: Final = 0x02
TABLE_INNER: Final = 0x05
INDEX_LEAF: Final = 0x0A
TABLE_LEAF: Final = 0x0D
KINDS: Final = (INDEX_INNER, TABLE_INNER, INDEX_LEAF, TABLE_LEAF)

_FILE_HEADER_BYTES: Final = 100
_LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
_LOCAL_MAX: Final = {True: PAGE_BYTES - 35, False: (PAGE_BYTES - 12) * 64 // 255 - 23}
_OVERFLOW_BYTES: Final = PAGE_BYTES - 4
_PAYLOAD_MAX: Final = 64 * 1024 * 1024
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_ZEROS: Final = bytes(_OVERFLOW_BYTES)

Fetch = Callable[[int], bytes | None]
SqlValue = None | int | bytes | str


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: ``child`` of an inner page (else 0), ``rowid`` of a table's (else 0).

    ``page[start:]`` begins its payload of ``payload_bytes``, 0 if it has none.
    """

    page: bytes
    child: int
    rowid: int
    payload_bytes: int
    start: int


def kind_of(page: bytes, page_no: int) -> int:
    """Return which kind of b-tree page this is, 0 for none."""
    kind = page[_head(page_no)]
    return kind if kind in KINDS else 0


def _head(page_no: int) -> int:
    return _FILE_HEADER_BYTES if page_no == 1 else 0


def children_of(page: bytes, page_no: int) -> Iterator[int]:
    """Return the pages below an inner page."""
    if kind_of(page, page_no) in {INDEX_INNER, TABLE_INNER}:
        for cell in cells_of(page, page_no):
            yield cell.child
        head = _head(page_no)
        yield int.from_bytes(page[head + 8 : head + 12], "big")


def cells_of(page: bytes, page_no: int) -> Iterator[Cell]:
    """Return the cells of a b-tree page; nothing for any other page."""
    head = _head(page_no)
    kind = kind_of(page, page_no)
    if not kind:
        return
    inner = kind in {INDEX_INNER, TABLE_INNER}
    count = int.from_bytes(page[head + 3 : head + 5], "big")
    pointers = head + (12 if inner else 8)
    content = pointers + 2 * count
    if content > PAGE_BYTES:
        return
    for place in range(pointers, content, 2):
        at = int.from_bytes(page[place : place + 2], "big")
        if not content <= at <= PAGE_BYTES - 4:
            continue
        child = payload_bytes = rowid = 0
        if inner:
            child = int.from_bytes(page[at : at + 4], "big")
            at += 4
        if kind != TABLE_INNER:
            payload_bytes, at = _varint(page, at)
        if kind in {TABLE_INNER, TABLE_LEAF}:
            rowid, at = _varint(page, at)
        if payload_bytes <= _PAYLOAD_MAX and at <= PAGE_BYTES:
            yield Cell(page, child, _signed(rowid), payload_bytes, at)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        if at + i >= len(page):
            return 0, len(page) + 1
        byte = page[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    if at + 8 >= len(page):
        return 0, len(page) + 1
    return value << 8 | page[at + 8], at + 9


def payload_of(cell: Cell, fetch: Fetch, *, of_table: bool) -> bytes | None:
    """Return a cell's payload, gathered along its overflow pages; None if the chain breaks."""
    local, local_max = cell.payload_bytes, _LOCAL_MAX[of_table]
    if cell.payload_bytes > local_max:
        surplus = _LOCAL_MIN + (cell.payload_bytes - _LOCAL_MIN) % _OVERFLOW_BYTES
        local = surplus if surplus <= local_max else _LOCAL_MIN
    end = cell.start + local
    if end > PAGE_BYTES:
        return None
    parts = [cell.page[cell.start : end]]
    left = cell.payload_bytes - local
    next_page = int.from_bytes(cell.page[end : end + 4], "big") if left else 0
    while left > 0:
        page = fetch(next_page) if next_page > 1 else None
        # A page of zeros was wiped out: no text or JSON looks like that.
        if page is None or page.endswith(_ZEROS):
            return None
        parts.append(page[4 : 4 + min(left, _OVERFLOW_BYTES)])
        left -= _OVERFLOW_BYTES
        next_page = int.from_bytes(page[:4], "big")
    return b"".join(parts)


def record_of(payload: bytes) -> list[SqlValue] | None:
    """Return the columns of a record; None if it makes no sense. Floats are not expected here."""
    header_bytes, at = _varint(payload, 0)
    if not 1 <= header_bytes <= len(payload):
        return None
    body = header_bytes
    values: list[SqlValue] = []
    while at < header_bytes:
        serial, at = _varint(payload, at)
        if serial in {0, 8, 9}:
            values.append(serial - 8 if serial else None)
            continue
        size = _INTEGER_BYTES.get(serial, (serial - 12) // 2 if serial >= 12 else -1)
        if size < 0 or body + size > len(payload):
            return None
        piece = payload[body : body + size]
        body += size
        if serial < 12:
            values.append(int.from_bytes(piece, "big", signed=True))
        elif serial % 2 == 0:
            values.append(piece)
        else:
            try:
                values.append(piece.decode())
            except UnicodeDecodeError:
                return None
    return values if at == header_bytes and body == len(payload) else None
