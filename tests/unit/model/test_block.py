"""Blocks: what is packed comes back, and damage of any byte is noticed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.model.block import (
    Block,
    BlockDamagedError,
    BlockKind,
    Events,
    EventsBuilder,
    Readings,
    ReadingsBuilder,
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
