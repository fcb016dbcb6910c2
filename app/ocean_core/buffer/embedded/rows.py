"""Rows of the journal's tables, as they travel between the writer and the salvage.

An idempotency key stands twice: in table ``idempotency``, where it is looked up, and in the row
of the block that holds its readings. When a block is brought back from a damaged file its keys
come with it: otherwise a client's retry would store the same readings again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ocean_core.buffer.port import IdRange
from ocean_core.model.block import Block, BlockDamagedError, BlockKind, unpack_block

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
    "INSERT OR REPLACE INTO missing (first_id, last_id, found_us, reason) VALUES (?, ?, ?, ?)"
)
SET_META: Final = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"


class KeyRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of table ``idempotency``; ``receipt`` is the msgpack of a Receipt."""

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


_decoder = msgspec.msgpack.Decoder(list[KeyRow])


def with_crc(body: bytes) -> bytes:
    """Return ``body`` behind its CRC-32."""
    return zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body


def checked(data: bytes) -> bytes | None:
    """Return what ``with_crc`` was given, None if it is damaged."""
    body = data[_CRC_BYTES:]
    return body if zlib.crc32(body).to_bytes(_CRC_BYTES, "little") == data[:_CRC_BYTES] else None


def pack_keys(rows: Sequence[KeyRow]) -> bytes | None:
    """Return the value of column ``keys``; None without keys."""
    return msgspec.msgpack.encode(rows) if rows else None


def uuid_with_keys(random: bytes, keys: bytes | None) -> bytes:
    """Return the UUID of a block: 12 random bytes, then the CRC-32 of its keys.

    Thus the CRC of the block vouches for its keys too, and for there being none.
    """
    return random[:12] + zlib.crc32(keys or b"").to_bytes(4, "little")


def keys_fit(uuid: bytes, keys: bytes | None) -> bool:
    """Whether these are the keys that were stored with the block."""
    return uuid[12:] == zlib.crc32(keys or b"").to_bytes(4, "little")


def unpack_keys(uuid: bytes, keys: bytes | None) -> list[KeyRow]:
    """Return the keys of a block; none if they are damaged."""
    if not keys or not keys_fit(uuid, keys):
        return []
    try:
        return _decoder.decode(keys)
    except msgspec.DecodeError:
        return []


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
