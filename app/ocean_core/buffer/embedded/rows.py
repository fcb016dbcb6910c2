"""Rows of the journal's tables, as they travel between the writer and the salvage.

An idempotency key stands twice: in table ``idempotency``, where it is looked up, and in the row
of the block that holds its readings. When a block is brought back from a damaged file its keys
come with it: otherwise a client's retry would store the same readings again. Whose readings they
are stands there for the same reason: so that they are counted. The notes of the frames that they
came from stand there only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ocean_core.buffer.port import IdRange
from ocean_core.model.block import Block, BlockDamagedError, BlockKind, unpack_block
from ocean_core.model.limits import BLOCK_ROWS_MAX

_CRC_BYTES: Final = 4

_BLOCK_COLUMNS: Final = (
    "(id, count, timestamp, kind, uuid, data, keys) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
ADD_BLOCK: Final = f"INSERT INTO telemetry_buffer {_BLOCK_COLUMNS}"
PUT_BLOCK_BACK: Final = f"INSERT OR IGNORE INTO telemetry_buffer {_BLOCK_COLUMNS}"
PUT_KEY_BACK: Final = (
    "INSERT OR IGNORE INTO idempotency (scope, key, digest, created_us, receipt) "
    "VALUES (?, ?, ?, ?, ?)"
)
INSERT_MISSING: Final = (
    "INSERT OR REPLACE INTO missing (first_id, last_id, found_us, reason, crc) "
    "VALUES (?, ?, ?, ?, ?)"
)
SELECT_MISSING: Final = "SELECT first_id, last_id, crc FROM missing"
SET_META: Final = "INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?, ?, ?)"
GET_META: Final = "SELECT value, crc FROM meta WHERE key = ?"
SET_CURSOR: Final = "INSERT OR REPLACE INTO cursors (group_name, epoch, id) VALUES (?, ?, ?)"
SET_USAGE: Final = (
    "INSERT INTO usage (user_id, stored, charged, crc) VALUES (?, ?, ?, ?) ON CONFLICT (user_id) "
    "DO UPDATE SET stored = excluded.stored, charged = excluded.charged, crc = excluded.crc"
)
SET_DUPLICATES: Final = (
    "INSERT OR REPLACE INTO duplicates (sensor_id, count, updated_us, crc) VALUES (?, ?, ?, ?)"
)
SET_GROUP: Final = (
    "INSERT OR REPLACE INTO consumers (group_name, created_us, cursor, evicted, crc) "
    "VALUES (?, ?, ?, ?, ?)"
)
SET_RANGE: Final = (
    "INSERT OR REPLACE INTO acknowledged (group_name, first_id, last_id, crc) VALUES (?, ?, ?, ?)"
)

UsageRow = tuple[str, int, int, int]
"""user, stored, charged, CRC"""

DuplicatesRow = tuple[str, int, int, int]
"""sensor, count, updated, CRC"""

GroupRow = tuple[str, int, int, int, int]
"""group, created, cursor, evicted, CRC"""

RangeRow = tuple[str, int, int, int]
"""group, first id, last id, CRC; the CRC also covers when the group was created"""


class KeyRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of table ``idempotency``; ``receipt`` is what ``sealed_receipt`` returned."""

    scope: str
    key: str
    digest: bytes
    created_us: int
    receipt: bytes


class BlockRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of table ``telemetry_buffer``."""

    id: int
    count: int
    timestamp: int
    kind: int
    uuid: bytes
    data: bytes
    keys: bytes | None

    @property
    def last_id(self) -> int:
        """Id of the last reading."""
        return self.id + self.count - 1


Grown = dict[str, tuple[int, int]]
"""By user: how many rows are stored, and how many of them cost credits."""


def add_growth(grown: Grown, user_id: str, stored: int, charged: int) -> None:
    """Add counts of a user."""
    before = grown.get(user_id, (0, 0))
    grown[user_id] = before[0] + stored, before[1] + charged


class BlockNotes(msgspec.Struct, omit_defaults=True):
    """What column ``keys`` holds when a block has owners or frames, else it is the list of keys.

    ``frames`` are the notes of Nanogridata frames, FRAME_NOTE_BYTES each. An executable that does
    not know a field passes over it.
    """

    keys: list[KeyRow] = msgspec.field(default_factory=list)
    usage: Grown = msgspec.field(default_factory=dict)
    frames: bytes = b""


_decoder: msgspec.msgpack.Decoder[list[KeyRow] | BlockNotes] = msgspec.msgpack.Decoder(
    list[KeyRow] | BlockNotes
)


def with_crc(body: bytes) -> bytes:
    """Return ``body`` behind its CRC-32."""
    return zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body


def checked(data: bytes) -> bytes | None:
    """Return what ``with_crc`` was given, None if it is damaged."""
    body = data[_CRC_BYTES:]
    return body if zlib.crc32(body).to_bytes(_CRC_BYTES, "little") == data[:_CRC_BYTES] else None


def meta_row(key: str, value: str | int) -> tuple[str, str | int, int]:
    """Return the parameters of SET_META."""
    return key, value, zlib.crc32(f"{key}={value!r}".encode())


def meta_is_whole(key: str, value: object, crc: object) -> bool:
    """Whether a row of ``meta`` is what was written."""
    return crc == zlib.crc32(f"{key}={value!r}".encode())


def missing_row(item: IdRange, now_us: int, reason: str) -> tuple[int, int, int, str, int]:
    """Return the parameters of INSERT_MISSING."""
    return item.first, item.last, now_us, reason, zlib.crc32(f"{item.first}-{item.last}".encode())


def missing_range(first: object, last: object, crc: object) -> IdRange | None:
    """Return the range in a row of ``missing``, None if the row is damaged."""
    if not isinstance(first, int) or not isinstance(last, int):
        return None
    return IdRange(first, last) if crc == zlib.crc32(f"{first}-{last}".encode()) else None


def missing_ranges(rows: Iterable[Sequence[object]]) -> list[IdRange]:
    """Return the ranges in undamaged rows of ``missing``."""
    found = (missing_range(*row) for row in rows)
    return sorted((item for item in found if item is not None), key=lambda item: item.first)


def usage_row(user_id: str, stored: int, charged: int) -> UsageRow:
    """Return the parameters of SET_USAGE."""
    return user_id, stored, charged, _tagged_crc("usage", user_id, stored, charged)


def duplicates_row(sensor_id: str, count: int, updated_us: int) -> DuplicatesRow:
    """Return the parameters of SET_DUPLICATES."""
    crc = _tagged_crc("duplicates", sensor_id, count, updated_us)
    return sensor_id, count, updated_us, crc


def group_row(name: str, created_us: int, cursor: int, evicted: int) -> GroupRow:
    """Return the parameters of SET_GROUP."""
    crc = _tagged_crc("group", name, created_us, cursor, evicted)
    return name, created_us, cursor, evicted, crc


def range_row(name: str, created_us: int, item: IdRange) -> RangeRow:
    """Return the parameters of SET_RANGE."""
    crc = _tagged_crc("range", name, created_us, item.first, item.last)
    return name, item.first, item.last, crc


def _tagged_crc(table: str, name: str, *numbers: int) -> int:
    # Rows found loose in a damaged file show by their CRC which table they are of.
    return zlib.crc32("\0".join([table, name, *map(str, numbers)]).encode())


def sealed_receipt(scope: str, key: str, digest: bytes, receipt: bytes) -> bytes:
    """Return a packed receipt behind a CRC of everything in its row."""
    crc = zlib.crc32(receipt, zlib.crc32(f"{scope}\0{key}\0".encode() + digest))
    return crc.to_bytes(_CRC_BYTES, "little") + receipt


def opened_receipt(scope: str, key: str, digest: object, sealed: object) -> bytes | None:
    """Return the packed receipt of an undamaged row of ``idempotency``, None for a damaged one."""
    if not isinstance(digest, bytes) or not isinstance(sealed, bytes):
        return None
    receipt = sealed[_CRC_BYTES:]
    return receipt if sealed_receipt(scope, key, digest, receipt) == sealed else None


def count_of(value: object) -> int:
    """Return column ``count`` as a number in any case: SQLite does not check what it reads."""
    return value if isinstance(value, int) and 1 <= value <= BLOCK_ROWS_MAX else 1


def pack_keys(rows: list[KeyRow], usage: Grown, frames: bytes = b"") -> bytes | None:
    """Return the value of column ``keys``; None if there is nothing to note."""
    if usage or frames:
        return msgspec.msgpack.encode(BlockNotes(rows, usage, frames))
    return msgspec.msgpack.encode(rows) if rows else None


def uuid_with_keys(random: bytes, keys: bytes | None) -> bytes:
    """Return the UUID of a block: 12 random bytes, then the CRC-32 of its keys.

    Thus the CRC of the block vouches for its keys too, and for there being none.
    """
    return random[:12] + zlib.crc32(keys or b"").to_bytes(4, "little")


def keys_fit(uuid: bytes, keys: bytes | None) -> bool:
    """Whether these are the keys that were stored with the block."""
    return uuid[12:] == zlib.crc32(keys or b"").to_bytes(4, "little")


def unpack_keys(uuid: bytes, keys: bytes | None) -> BlockNotes:
    """Return what is noted beside a block: keys, owners, frames; nothing if it is damaged."""
    if not keys or not keys_fit(uuid, keys):
        return BlockNotes()
    try:
        found = _decoder.decode(keys)
    except msgspec.DecodeError:
        return BlockNotes()
    return found if isinstance(found, BlockNotes) else BlockNotes(found)


def frames_of(uuid: object, keys: object) -> bytes:
    """Return the notes of frames beside a block, from columns of any condition."""
    if not isinstance(uuid, bytes) or not isinstance(keys, bytes):
        return b""
    return unpack_keys(uuid, keys).frames


def whole_block(data: object) -> Block | None:
    """Return the block in ``data``, None if it is damaged."""
    if not isinstance(data, bytes):
        return None
    try:
        return unpack_block(data)
    except BlockDamagedError:
        return None


def row_of(block: Block, data: bytes, keys: bytes | None) -> BlockRow:
    """Return the row for a packed block."""
    kind = int(block.kind)
    assert kind in {BlockKind.READINGS, BlockKind.EVENTS}
    return BlockRow(
        block.first_id, block.count, block.arrival_us, kind, block.uuid, data, keys
    )  # fmt: skip


def subtract(ranges: Iterable[IdRange], known: Iterable[IdRange]) -> list[IdRange]:
    """Return the parts of ``ranges`` (in order, apart) that no range of ``known`` covers."""
    known = sorted(known, key=lambda item: item.first)
    left: list[IdRange] = []
    for item in ranges:
        first = item.first
        for other in known:
            if other.last < first or other.first > item.last:
                continue
            if other.first > first:
                left.append(IdRange(first, other.first - 1))
            first = max(first, other.last + 1)
        if first <= item.last:
            left.append(IdRange(first, item.last))
    return left


def gaps(blocks: Iterable[tuple[int, int]], expected: int) -> Iterable[IdRange]:
    """Return the ids from ``expected`` on that lie between blocks, given as (first id, count)."""
    for first, count in blocks:
        if first > expected:
            yield IdRange(expected, first - 1)
        expected = max(expected, first + count)
