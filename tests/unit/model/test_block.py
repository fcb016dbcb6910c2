"""Blocks: what is packed comes back, and damage of any byte is noticed."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.model.block import (
    HEADER_BYTES,
    Block,
    BlockDamagedError,
    BlockKind,
    Events,
    EventsBuilder,
    Readings,
    ReadingsBuilder,
    _KnownNames,
    pack_block,
    unpack_block,
)

UUID = bytes(range(16))
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
ROWS = st.lists(
    st.tuples(
        st.tuples(NAMES, NAMES),
        st.integers(0, 2**62),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=30,
)
Row = tuple[tuple[str, str], int, float, int]


def readings_of(rows: list[Row], *, as_arrays: bool) -> Readings:
    series = list(dict.fromkeys(row[0] for row in rows))
    index = [series.index(row[0]) for row in rows]
    columns = [row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows]
    if not as_arrays:
        return Readings(series, index, *columns)
    return Readings(
        series,
        np.array(index, np.uint32),
        np.array(columns[0], np.int64),
        np.array(columns[1], np.float64),
        np.array(columns[2], np.uint8),
    )


def rows_of(readings: Readings) -> list[Row]:
    return [
        (readings.series[int(i)], int(t), float(v), int(q))
        for i, t, v, q in zip(
            readings.series_index,
            readings.timestamp_us,
            readings.value,
            readings.quality,
            strict=True,
        )
    ]


@given(st.lists(st.tuples(ROWS, st.booleans()), min_size=1, max_size=5))
def test_merged_packed_and_unpacked_readings_are_the_same(
    requests: list[tuple[list[Row], bool]],
) -> None:
    builder = ReadingsBuilder()
    expected: list[Row] = []
    for rows, as_arrays in requests:
        assert builder.add(readings_of(rows, as_arrays=as_arrays)) == len(expected)
        expected += rows
    block = unpack_block(pack_block(Block(7, 8, UUID, builder.build())))
    assert isinstance(block.rows, Readings)
    assert rows_of(block.rows) == expected
    assert (block.first_id, block.last_id, block.arrival_us, block.uuid, block.kind) == (
        7,
        6 + len(expected),
        8,
        UUID,
        BlockKind.READINGS,
    )


@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), min_size=1, max_size=20))
def test_events_keep_their_bytes(items: list[tuple[str, bytes]]) -> None:
    builder = EventsBuilder()
    for sensor, payload in items:
        builder.add(Events([(sensor, "")], [0], [5], [2], [payload]))
    block = unpack_block(pack_block(Block(1, 2, UUID, builder.build())))
    assert isinstance(block.rows, Events)
    assert [
        (block.rows.series[int(i)][0], payload)
        for i, payload in zip(block.rows.series_index, block.rows.payload, strict=True)
    ] == items


def test_every_flipped_byte_and_every_cut_is_noticed() -> None:
    rows: list[Row] = [(("s", "value"), 1, 2.0, 0), (("t", "value"), 2, 3.0, 1)]
    data = pack_block(Block(1, 2, UUID, readings_of(rows, as_arrays=True)))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        with pytest.raises(BlockDamagedError):
            unpack_block(bytes(damaged))
        with pytest.raises(BlockDamagedError):
            unpack_block(data[:position])
    with pytest.raises(BlockDamagedError):
        unpack_block(data + b"\0")


def test_a_dictionary_that_comes_again_is_the_same_object() -> None:
    rows = readings_of([(("a", "value"), 1, 1.5, 0), (("b", "value"), 2, 2.5, 0)], as_arrays=True)
    first = unpack_block(pack_block(Block(1, 7, UUID, rows)))
    second = unpack_block(pack_block(Block(3, 8, UUID, rows)))
    assert first.rows.series is second.rows.series
    assert list(first.rows.series) == [("a", "value"), ("b", "value")]


def test_the_known_dictionaries_are_bounded() -> None:
    known = _KnownNames(100)
    for number in range(50):
        known.keep(b"%020d" % number, (("s", str(number)),))
    known.keep(bytes(26), (("large", ""),))
    kept = [number for number in range(50) if known.get(b"%020d" % number) is not None]
    assert kept == [45, 46, 47, 48, 49]
    assert known.get(bytes(26)) is None


def test_a_dictionary_that_ends_within_a_name_is_damage() -> None:
    rows = readings_of([(("abcdef", "value"), 1, 1.5, 0)], as_arrays=True)
    packed = bytearray(pack_block(Block(1, 7, UUID, rows)))
    # The length of the first name says more than is there; the CRC is right.
    packed[HEADER_BYTES + 21] = 200
    crc = zlib.crc32(packed[HEADER_BYTES:], zlib.crc32(packed[:60]))
    packed[60:64] = struct.pack("<I", crc)
    with pytest.raises(BlockDamagedError, match="dictionary"):
        unpack_block(bytes(packed))


@given(st.lists(st.sampled_from(["abc", "ab", "cba", "c", "abd"]), min_size=1, max_size=8))
def test_requests_with_shared_dictionaries_keep_their_names(requests: list[str]) -> None:
    dictionaries = {word: tuple((letter, "value") for letter in word) for word in requests}
    builder = ReadingsBuilder()
    expected: list[Row] = []
    for number, word in enumerate(requests):
        mine = [((letter, "value"), number, 0.5, 0) for letter in reversed(word)]
        expected += mine
        index = np.arange(len(word) - 1, -1, -1, dtype=np.uint32)
        columns = readings_of(mine, as_arrays=True)
        assert builder.add(
            Readings(
                dictionaries[word], index, columns.timestamp_us, columns.value, columns.quality
            )
        ) == len(expected) - len(mine)
    assert rows_of(builder.build()) == expected
