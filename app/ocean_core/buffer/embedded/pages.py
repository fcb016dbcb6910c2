"""SQLite's pages read byte by byte, trusting nothing: what is left of a damaged journal.

Layout: https://www.sqlite.org/fileformat2.html. Page size and reserved bytes are those the journal
is made with, not those that a damaged header claims. Only cells that a page points to are read:
of leaf pages, and of the inner pages of an index, which hold rows of tables without rowid. Bytes inside of a block that happen to look like another block (a client chooses them) are
never taken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ocean_core.buffer.embedded.wal import PAGE_BYTES
from ocean_core.model import limits
from ocean_core.model.block import HEADER, HEADER_BYTES, MAGIC

TABLE_LEAF: Final = 0x0D
INDEX_LEAF: Final = 0x0A
INDEX_INNER: Final = 0x02

_FILE_HEADER_BYTES: Final = 100
_LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
_INDEX_LOCAL_MAX: Final = (PAGE_BYTES - 12) * 64 // 255 - 23
_LOCAL_MAX: Final = {
    TABLE_LEAF: PAGE_BYTES - 35,
    INDEX_LEAF: _INDEX_LOCAL_MAX,
    INDEX_INNER: _INDEX_LOCAL_MAX,
}
_CHILD_BYTES: Final = 4
_OVERFLOW_BYTES: Final = PAGE_BYTES - 4
_PAYLOAD_MAX: Final = 2 * limits.BLOCK_BYTES_MAX
_ROW_BYTES: Final = {0: 21, 1: 17}
_BEFORE_BLOCK_MAX: Final = 64
_SMALL_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 8: 0, 9: 0}
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Page = bytes | memoryview
Fetch = Callable[[int], Page | None]
"""Return the image of a page, None if there is none."""

SqlValue = None | int | bytes | str


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with a row. ``page[start:]`` begins its payload of ``payload_bytes``."""

    page: Page
    kind: int
    rowid: int
    payload_bytes: int
    start: int


def row_cells(page: Page, page_no: int) -> Iterator[Cell]:
    """Return the cells of a page that holds rows; nothing for any other page."""
    head = _FILE_HEADER_BYTES if page_no == 1 else 0
    if len(page) != PAGE_BYTES or page[head] not in _LOCAL_MAX:
        return
    kind = page[head]
    count = int.from_bytes(page[head + 3 : head + 5], "big")
    # An inner page has the number of its last child in its head, and one before each cell.
    child = _CHILD_BYTES if kind == INDEX_INNER else 0
    pointers = head + 8 + child
    if pointers + 2 * count > PAGE_BYTES:
        return
    for i in range(count):
        at = int.from_bytes(page[pointers + 2 * i : pointers + 2 * i + 2], "big")
        if not pointers + 2 * count <= at <= PAGE_BYTES - 4:
            continue
        payload_bytes, at = _varint(page, at + child)
        rowid = 0
        if kind == TABLE_LEAF:
            rowid, at = _varint(page, at)
        if 0 < payload_bytes <= _PAYLOAD_MAX and at < PAGE_BYTES:
            yield Cell(page, kind, rowid, payload_bytes, at)


def _varint(page: Page, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        if at + i >= len(page):
            return 0, len(page)
        byte = page[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    if at + 8 >= len(page):
        return 0, len(page)
    return value << 8 | page[at + 8], at + 9


def payload_of(cell: Cell, payload_bytes: int, fetch: Fetch) -> bytes | None:
    """Return a cell's payload, gathered along its overflow pages; None if the chain breaks."""
    local = payload_bytes
    if payload_bytes > _LOCAL_MAX[cell.kind]:
        surplus = _LOCAL_MIN + (payload_bytes - _LOCAL_MIN) % _OVERFLOW_BYTES
        local = surplus if surplus <= _LOCAL_MAX[cell.kind] else _LOCAL_MIN
    end = cell.start + local
    if end > PAGE_BYTES:
        return None
    parts = [bytes(cell.page[cell.start : end])]
    left = payload_bytes - local
    next_page = int.from_bytes(cell.page[end : end + 4], "big") if left else 0
    while left:
        page = fetch(next_page) if next_page > 1 else None
        if page is None or len(page) != PAGE_BYTES:
            return None
        parts.append(bytes(page[4 : 4 + min(left, _OVERFLOW_BYTES)]))
        left -= len(parts[-1])
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
        if serial == 0:
            values.append(None)
            continue
        if serial in {8, 9}:
            values.append(serial - 8)
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
    return values if body == len(payload) else None


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """A block's header found in a cell: ``first_id`` and ``count`` are claims until the CRC holds.

    ``offset`` is where the block begins in the payload, ``block_bytes`` how long it is.
    """

    first_id: int
    count: int
    offset: int
    block_bytes: int


def find_block(cell: Cell) -> BlockTrace | None:
    """Return the block that a cell of ``telemetry_buffer`` holds, None for other cells.

    Its header stands in the page itself: what comes before it in the record is short.
    """
    if cell.kind != TABLE_LEAF:
        return None
    at = bytes(cell.page[cell.start : cell.start + _BEFORE_BLOCK_MAX]).find(MAGIC)
    start = cell.start + at
    if at < 0 or start + HEADER_BYTES > PAGE_BYTES:
        return None
    _, kind, flags, header_bytes, first_id, count, _, _, _, names, payload, _, _ = (
        HEADER.unpack_from(cell.page, start)
    )
    if kind not in _ROW_BYTES or flags or header_bytes != HEADER_BYTES:
        return None
    if not 1 <= count <= limits.BLOCK_ROWS_MAX or first_id + count > limits.READING_ID_MAX:
        return None
    block_bytes = HEADER_BYTES + count * _ROW_BYTES[kind] + names + payload
    return BlockTrace(first_id, count, at, block_bytes) if block_bytes <= _PAYLOAD_MAX else None


def claims_of(cell: Cell, trace: BlockTrace | None) -> Iterator[tuple[int, int]]:
    """Return which (first id, count) an unreadable block may have had, from what is left of it."""
    if trace is not None:
        yield trace.first_id, trace.count
    if cell.kind != TABLE_LEAF:
        return
    head = bytes(cell.page[cell.start : cell.start + _BEFORE_BLOCK_MAX])
    if len(head) < 4 or head[0] > len(head) or head[1] or head[2] not in _SMALL_INTEGERS:
        return
    size = _SMALL_INTEGERS[head[2]]
    count = head[2] - 8 if not size else int.from_bytes(head[head[0] : head[0] + size], "big")
    if 1 <= count <= limits.BLOCK_ROWS_MAX and 1 <= cell.rowid <= limits.READING_ID_MAX:
        yield cell.rowid, count
