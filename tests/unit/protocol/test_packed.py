"""Packed blocks as requests: what is taken over, and what each mistake is answered with."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ocean_core.model import limits
from ocean_core.model.block import Block, Events, Readings, SeriesName, pack_block, unpack_block
from ocean_core.model.errors import BodyTooLargeError, InvalidReadingError, MalformedBodyError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_batch_quickly,
    rejected_items,
)
from support.intakes import rows_of

NOW = 1_768_651_200_000_000
MINUTE = 60_000_000
CONTEXT = DecodeContext(arrival_us=NOW, clock_trusted=True)
UNSURE = DecodeContext(arrival_us=NOW, clock_trusted=False)
NAN, INF = float("nan"), float("inf")


def block(
    series: list[SeriesName],
    rows: Sequence[tuple[int, int, float, int]],
    **head: Any,
) -> bytes:
    """Return a packed block of (place in the dictionary, timestamp, value, quality)."""
    index, moments, values, quality = map(list, zip(*rows, strict=True))
    readings = Readings(series, index, moments, values, quality)
    return pack_block(Block(head.get("first_id", 0), head.get("arrival", 0), bytes(16), readings))


def changed(body: bytes, at: int, form: str, number: int) -> bytes:
    """Return the block with another number in it, and the CRC that fits."""
    data = bytearray(body)
    struct.pack_into(form, data, at, number)
    struct.pack_into("<I", data, 60, zlib.crc32(data[64:], zlib.crc32(data[:60])))
    return bytes(data)


def packed(body: bytes, context: DecodeContext = CONTEXT, *, partial: bool = False) -> Intake:
    return decode_batch(body, context, partial=partial, media=Media.BLOCK)


def malformed(body: bytes) -> str:
    with pytest.raises(MalformedBodyError) as caught:
        packed(body)
    return caught.value.detail


def refused(
    body: bytes, context: DecodeContext = CONTEXT
) -> list[tuple[int | None, str, str, str]]:
    with pytest.raises(InvalidReadingError) as caught:
        packed(body, context)
    return [(each.item, each.field, each.found, each.expected) for each in caught.value.fields]


A, B = ("a", "value"), ("b", "température")
ONE = block([A], [(0, NOW, 1.5, 0)])


@pytest.mark.parametrize("repeated", [1, 20])
def test_rows(repeated: int) -> None:
    rows = [(1, NOW - 5, 1.5, 0), (0, NOW, -2.0, 1), (1, NOW + MINUTE, 0.0, 200)]
    intake = packed(block([A, B], rows * repeated, first_id=77, arrival=-1))
    assert (
        rows_of(intake)
        == [
            ("b", "température", NOW - 5, 1.5, 0),
            ("a", "value", NOW, -2.0, 1),
            ("b", "température", NOW + MINUTE, 0.0, 200),
        ]
        * repeated
    )
    assert intake.columnar
    assert intake.items == 3 * repeated
    assert intake.layout is None
    assert intake.refused is None


def test_what_is_not_used_becomes_no_series() -> None:
    series = [("unused", "value"), B, ("", ""), A, B]
    intake = packed(block(series, [(3, NOW, 1, 0), (1, NOW, 2, 0), (4, NOW, 3, 0)]))
    assert intake.readings is not None
    assert sorted(intake.readings.series) == [A, B]
    assert [row[0] for row in rows_of(intake)] == ["a", "b", "b"]


def test_the_same_dictionary_is_the_same_object() -> None:
    first, second = (packed(block([A, B], [(0, NOW, n, 0), (1, NOW, n, 0)])) for n in (1, 2))
    assert first.readings is not None
    assert second.readings is not None
    assert first.readings.series is second.readings.series


@pytest.mark.parametrize("sent", [0, 1, 2, 9])
def test_qualities(sent: int) -> None:
    """Those of the client are kept; where a clock cannot be trusted the box says so."""
    old, late = 0, NOW + MINUTE + 1
    rows = [(0, old, 1, sent), (0, NOW, 1, sent), (0, late, 1, sent)]
    assert [row[4] for row in rows_of(packed(block([A], rows), UNSURE))] == [2, sent, 2]
    partly = packed(block([A], [*rows, (0, NOW, NAN, sent)]), UNSURE, partial=True)
    assert [row[4] for row in rows_of(partly)] == [2, sent, 2]


def test_mistakes_in_rows() -> None:
    series = [A, ("", "value"), ("c", "m" * 129), (" d", "e\n")]
    rows = [
        (0, NOW, 1, 0), (4, NOW, 1, 0), (1, NOW, 1, 0), (2, NOW, INF, 0), (3, NOW, 1, 0),
        (0, -1, NAN, 0), (0, NOW + MINUTE + 1, 1, 0), (0, limits.TIMESTAMP_US_MAX + 1, 1, 0),
    ]  # fmt: skip
    late = "no later than 2026-01-17T12:01:00Z, which is 60 s after arrival"
    moment = "a moment from 1970-01-01 to 9999-12-31 UTC"
    expected = [
        (1, "series", "4", "a series from 0 to 3"),
        (2, "sensor_id", '""', "1 to 256 bytes"),
        (3, "metric", '"' + "m" * 76 + "...", "at most 128 bytes of UTF-8, not 129"),
        (3, "value", "inf", "a finite number"),
        (4, "sensor_id", '" d"', "no white space at the beginning or end"),
        (4, "metric", '"e\\n"', "no control characters (character 1 is one)"),
        (5, "timestamp", "-1", moment),
        (5, "value", "nan", "a finite number"),
        (6, "timestamp", str(NOW + MINUTE + 1), late),
        (7, "timestamp", str(limits.TIMESTAMP_US_MAX + 1), moment),
    ]
    body = block(series, rows)
    assert refused(body) == expected
    intake = packed(body, partial=True)
    assert rows_of(intake) == [("a", "value", NOW, 1.0, 0)]
    assert [(each.item, each.field) for each in intake.rejects] == [each[:2] for each in expected]
    assert rejected_items(intake.rejects) == 7
    assert intake.refused == {"a": 3, "": 4}
    assert intake.columnar


def test_names_that_are_no_utf8() -> None:
    body = block([("aa", "value"), B], [(0, NOW, 1, 0), (1, NOW, 2, 0)])
    at = body.index(b"aa")
    broken = changed(body, at + 1, "B", 0xFF)
    assert refused(broken) == [(0, "sensor_id", "a", "UTF-8; its byte 1 is 0xff")]
    assert [row[0] for row in rows_of(packed(broken, partial=True))] == ["b"]


def test_only_the_first_problems_are_listed() -> None:
    rows = [(0, NOW, NAN, 0)] * 1_000 + [(0, NOW, 1, 0)]
    with pytest.raises(InvalidReadingError, match=r"\(and 999 more\)") as caught:
        packed(block([A], rows))
    assert len(caught.value.fields) == limits.REJECTS_LISTED_MAX
    intake = packed(block([A], rows), partial=True)
    assert rejected_items(intake.rejects) == 1_000
    assert len(intake.rejects) == limits.REJECTS_LISTED_MAX + 1
    with pytest.raises(InvalidReadingError):
        packed(block([A], rows[:-1]), partial=True)


@pytest.mark.parametrize(
    ("at", "form", "number", "found"),
    [
        (0, "<I", 0x0A0A, "byte 0, magic: found 0x0a0a0000, expected 0x4f434231 (OCB1)"),
        (4, "B", 1, "byte 4, kind: found 1, expected 0, readings; send events as JSON"),
        (5, "B", 1, "byte 5, flags: found 1, expected 0"),
        (6, "<H", 65, "byte 6, header size: found 65, expected 64"),
        (16, "<I", 0, "byte 16, rows: found 0, expected at least 1"),
        (16, "<I", 2, ("byte 48, dictionary size: found 10, expected -11: 64 bytes of header and 2 "
         "rows of 21 bytes end at byte 106, the body at 95")),
        (20, "<I", 0, "byte 20, series: found 0, expected 1 to 200000"),
        (20, "<I", 200_001, "byte 20, series: found 200001"),
        (48, "<I", 9, "byte 48, dictionary size: found 9, expected 10: "),
        (52, "<I", 1, "byte 52, payload size: found 1, expected 0, readings have none"),
        (56, "<I", 1, "byte 56, reserved: found 1, expected 0"),
        (20, "<I", 2, "The dictionary ends after 10 bytes, in entry 1 (from 0) of 2."),
        (85, "<H", 2, "The dictionary ends after 10 bytes, in entry 0 (from 0) of 1."),
        (85, "<H", 0, "The dictionary has 10 bytes, but its 1 entries end after 9."),
    ],
)  # fmt: skip
def test_mistakes_in_the_header(at: int, form: str, number: int, found: str) -> None:
    assert found in malformed(changed(ONE, at, form, number))


def test_the_crc_is_checked() -> None:
    crc = struct.unpack_from("<I", ONE, 60)[0]
    for at in (8, 30, 70, 90):
        damaged = bytearray(ONE)
        damaged[at] ^= 1
        assert f"byte 60, CRC: found 0x{crc:08x}, expected 0x" in malformed(bytes(damaged))


@pytest.mark.parametrize("length", [0, 63, 64, len(ONE) - 1])
def test_cut_off(length: int) -> None:
    assert ("ends after" if length < 64 else "dictionary size") in malformed(ONE[:length])


def test_events_are_sent_as_json() -> None:
    events = Events([("a", "")], [0], [NOW], [0], [b"true"])
    assert "send events as JSON" in malformed(pack_block(Block(1, 0, bytes(16), events)))


def test_limits() -> None:
    context = DecodeContext(arrival_us=NOW, clock_trusted=True, items_max=2, body_bytes_max=200)
    rows = [(0, NOW, 1.0, 0)] * 2
    assert packed(block([A], rows), context).items == 2
    with pytest.raises(BodyTooLargeError, match="more than 2 items"):
        packed(block([A], [*rows, *rows]), context)
    with pytest.raises(BodyTooLargeError, match="at most 200"):
        packed(block([("a" * 200, "m")], rows), context)


def test_columns_do_not_hold_a_large_dictionary() -> None:
    rows = [(0, NOW, 1.0, 0)] * 100
    small, large = ([A], [A, *[(f"{n:0200}", "m") for n in range(100)]])
    for series, is_view in ((small, True), (large, False)):
        readings = packed(block(series, rows)).readings
        assert readings is not None
        for column in (readings.timestamp_us, readings.value, readings.quality):
            assert isinstance(column, np.ndarray)
            assert (column.base is not None) is is_view
            assert column.flags.aligned


def test_what_is_quick() -> None:
    rows = [(0, NOW, 1.0, 0)] * 10_000
    assert decode_batch_quickly(block([A], rows), CONTEXT, Media.BLOCK) is not None
    many = [(f"s{n}", "m") for n in range(2_000)]
    assert decode_batch_quickly(block(many, rows), CONTEXT, Media.BLOCK) is None
    assert decode_batch_quickly(block([A], [(0, NOW, NAN, 0)]), CONTEXT, Media.BLOCK) is None


def test_the_journal_reads_what_a_client_packs() -> None:
    stored = unpack_block(ONE).rows
    assert isinstance(stored, Readings)
    assert list(stored.series) == [A]
