"""Every form of a batch, compressed or not: only our own errors, and both ways of decoding agree."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model import limits
from ocean_core.model.errors import BodyTooLargeError, InvalidReadingError, OceanError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.compression import expand
from ocean_core.protocol.media import Encoding, Media
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_batch_quickly,
    decode_batch_thoroughly,
)
from ocean_core.protocol.readings.attribution import sensors_in
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)
from ocean_core.protocol.readings.ndjson import ndjson_thoroughly
from ocean_core.protocol.readings.syntax import check_item_count
from support.intakes import rows_of

NOW = 1_768_651_200_000_000
MEDIA = st.sampled_from(list(Media))
ENCODINGS = st.sampled_from(list(Encoding))
ENCODERS: list[tuple[Callable[..., bytes], Media]] = [
    (encode_rows, Media.JSON),
    (encode_columnar, Media.JSON),
    (encode_ndjson, Media.NDJSON),
    (encode_block, Media.BLOCK),
]
PACK: dict[Encoding, Callable[[bytes], bytes]] = {
    Encoding.IDENTITY: bytes,
    Encoding.GZIP: gzip.compress,
    Encoding.ZSTD: zstd.compress,
}

contexts = st.builds(
    DecodeContext,
    arrival_us=st.just(NOW),
    clock_trusted=st.booleans(),
    items_max=st.sampled_from([limits.BATCH_ITEMS_MAX, 20]),
)
names = st.text(max_size=4) | st.sampled_from(["a", "b", "température", " a", "\x00", "a b"])
good_names = st.sampled_from(["a", "b", "température", "a b", "s" * 256])
moments = st.integers(0, NOW) | st.sampled_from([0, NOW, limits.TIMESTAMP_US_MAX])
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | floats | names
times = st.none() | st.integers(0, 2 * 10**18) | st.sampled_from(["2020-01-01", "x", 1e9]) | scalars


def column(element: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[Any]:
    return st.lists(element, min_size=size, max_size=size) | element


@st.composite
def columnar_bodies(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from([0, 1, 2, 17, 21]))
    careful = draw(st.booleans())
    name, number = (good_names, floats) if careful else (names | scalars, floats | scalars)
    fields: dict[str, Any] = {
        "sensor_id": draw(column(name, size)),
        "value": draw(st.lists(number, min_size=size, max_size=size)),
    }
    if draw(st.booleans()):
        fields["timestamp"] = draw(column(st.integers(0, NOW // 1000) if careful else times, size))
    if draw(st.booleans()):
        fields["metric"] = draw(column(good_names if careful else names, size))
    if draw(st.integers(0, 9)) == 0:
        fields[draw(st.sampled_from(["unit", "readings", "value", "sensor_id"]))] = draw(scalars)
    order = draw(st.permutations(list(fields)))
    return json.dumps({key: fields[key] for key in order}, ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "replace"
    )


lines = st.sampled_from(
    [
        '{"sensor_id":"a","value":1}', '{"sensor_id":"b","value":2,"timestamp":1e9}',
        '{"sensor_id":"ä","value":-0.0}', '{"sensor_id":"a","value":1}{"sensor_id":"a","value":1}',
        '{"sensor_id":"a","data":"x"}', '{"sensor_id":"a","values":{"x":1}}', "", " ", "17", "{",
        '{"sensor_id":"a",', '"value":3}', '{"sensor_id":"a","data":[{}', "{}]}", "[]", "\ufeff",
        '{"sensor_id":"","value":1}', '{"sensor_id":"a","value":null}',
    ]
)  # fmt: skip
ndjson_bodies = st.one_of(
    st.builds(
        lambda found, ending, last: (ending.join(found) + last).encode(),
        st.lists(lines, max_size=24)
        | st.lists(lines.filter(lambda line: line.endswith("1}")), min_size=16, max_size=24),
        st.sampled_from(["\n", "\r\n", "\n\n", "\r"]),
        st.sampled_from(["", "\n", "\r\n", " "]),
    ),
    st.lists(lines, min_size=1, max_size=24).map(
        lambda found: b"\xff\n" + "\n".join(found).encode()
    ),
)


@st.composite
def packed_bodies(draw: st.DrawFn) -> bytes:
    """Blocks with a CRC that fits, whatever else may be wrong."""
    rows = draw(st.integers(1, 24))
    series = draw(st.lists(st.tuples(names, names), max_size=4))
    dictionary = b"".join(
        struct.pack("<HH", len(a.encode()), len(b.encode())) + a.encode() + b.encode()
        for a, b in series
    )

    def numbers(element: st.SearchStrategy[Any], dtype: str) -> bytes:
        return np.array([draw(element) for _ in range(rows)], dtype=dtype).tobytes()

    body = (
        numbers(moments | st.integers(-(2**63), 2**63 - 1), "<i8")
        + numbers(st.floats(), "<f8")
        + numbers(st.integers(0, 4), "<u4")
        + numbers(st.integers(0, 255), "u1")
        + dictionary
        + draw(st.just(b"") | st.binary(max_size=3))
    )
    head = struct.pack(
        "<4sBBHQIIq16sIII",
        b"OCB1", draw(st.sampled_from([0, 0, 0, 1])), 0, 64, 0, rows, len(series), 0, bytes(16),
        len(dictionary) + draw(st.sampled_from([0, 0, 0, 1])), 0, 0,
    )  # fmt: skip
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body


bodies = st.one_of(columnar_bodies(), ndjson_bodies, packed_bodies(), st.binary(max_size=200))


def outcome(decode: Callable[[], Intake]) -> object:
    """Everything that a caller can see of a decoded or refused request."""
    try:
        intake = decode()
    except OceanError as error:
        return type(error), error.detail, error.fields
    return (
        [[*map(repr, row)] for row in rows_of(intake)],
        intake.events,
        intake.items,
        intake.layout,
        intake.rejects,
        intake.columnar,
        intake.refused,
    )


@settings(max_examples=300, deadline=None)
@given(bodies, contexts, MEDIA, ENCODINGS, st.booleans(), st.booleans())
def test_nothing_but_our_own_errors(
    body: bytes,
    context: DecodeContext,
    media: Media,
    encoding: Encoding,
    partial: bool,
    packed: bool,
) -> None:
    sent = PACK[encoding](body) if packed else body
    try:
        expanded = expand(sent, encoding, 1 << 16)
    except OceanError:
        assert not packed
        return
    if packed:
        assert expanded == body
    assert outcome(lambda: decode_batch(expanded, context, partial=partial, media=media))
    assert sum(sensors_in(expanded, media).values()) >= 0


@settings(max_examples=300, deadline=None)
@given(columnar_bodies(), contexts, st.booleans())
def test_columnar_both_ways(body: bytes, context: DecodeContext, partial: bool) -> None:
    assert outcome(lambda: decode_batch(body, context, partial=partial)) == outcome(
        lambda: decode_batch_thoroughly(body, context, partial=partial)
    )


@settings(max_examples=300, deadline=None)
@given(ndjson_bodies, contexts, st.booleans())
def test_ndjson_both_ways(body: bytes, context: DecodeContext, partial: bool) -> None:
    assert outcome(
        lambda: decode_batch(body, context, partial=partial, media=Media.NDJSON)
    ) == outcome(lambda: ndjson_thoroughly(body, context, partial=partial))


@settings(max_examples=200, deadline=None)
@given(ndjson_bodies, contexts)
def test_ndjson_is_an_array_of_its_lines(body: bytes, context: DecodeContext) -> None:
    found = [line.strip(b" \t\r") for line in body.split(b"\n") if line.strip(b" \t\r")]
    array = b"[%b]" % b",".join(found)
    try:
        lines_intake = decode_batch(body, context, partial=False, media=Media.NDJSON)
    except OceanError:
        return
    assert outcome(lambda: lines_intake) == outcome(
        lambda: decode_batch(array, context, partial=False)
    )


@settings(max_examples=300, deadline=None)
@given(packed_bodies(), contexts)
def test_packed_rows_are_judged_like_items(body: bytes, context: DecodeContext) -> None:
    """The good rows of a partial request are those that are accepted when each comes alone."""
    try:
        kept = rows_of(decode_batch(body, context, partial=True, media=Media.BLOCK))
    except InvalidReadingError:
        kept = []
    except OceanError:
        return
    alone: list[tuple[str, str, int, float, int]] = []
    for row in range(struct.unpack_from("<I", body, 16)[0]):
        try:
            one = decode_batch(single_row(body, row), context, partial=False, media=Media.BLOCK)
        except InvalidReadingError:
            continue
        alone += rows_of(one)
    assert kept == alone


def single_row(body: bytes, row: int) -> bytes:
    """Return a block of only one of the rows, with the whole dictionary."""
    count = struct.unpack_from("<I", body, 16)[0]
    parts, at = [], 64
    for size in (8, 8, 4, 1):
        parts.append(body[at + size * row : at + size * (row + 1)])
        at += size * count
    rest = b"".join([*parts, body[at:]])
    head = bytearray(body[:60])
    struct.pack_into("<I", head, 16, 1)
    return bytes(head) + struct.pack("<I", zlib.crc32(rest, zlib.crc32(head))) + rest


@settings(max_examples=200, deadline=None)
@given(bodies, contexts, MEDIA)
def test_what_is_decoded_quickly_is_right(
    body: bytes, context: DecodeContext, media: Media
) -> None:
    def quickly() -> Intake | None:
        return decode_batch_quickly(body, context, media)

    try:
        intake = quickly()
    except OceanError as error:
        with pytest.raises(type(error)):
            decode_batch(body, context, partial=False, media=media)
        return
    if intake is not None:
        assert outcome(lambda: intake) == outcome(
            lambda: decode_batch(body, context, partial=False, media=media)
        )


tricky = st.sampled_from(["a,b", '"', "\\", '\\"', "[{", "é,\\\\", "}]", "", ","])
nested = st.recursive(
    tricky | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky, inner, max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(nested, min_size=2, max_size=6), st.booleans())
def test_items_are_counted_before_they_are_decoded(items: list[Any], wrapped: bool) -> None:
    body = json.dumps({"readings": items} if wrapped else items).encode()
    for items_max in (len(items) - 1, len(items)):
        context = DecodeContext(arrival_us=NOW, clock_trusted=True, items_max=items_max)
        try:
            check_item_count(body, context)
        except BodyTooLargeError:
            assert items_max < len(items)
        else:
            assert items_max == len(items)


readings = st.lists(st.tuples(st.integers(0, 2), moments, floats), min_size=1, max_size=24)


@settings(max_examples=150, deadline=None)
@given(readings, st.booleans(), ENCODINGS)
def test_what_is_encoded_comes_back(
    sent: list[tuple[int, int, float]], named: bool, encoding: Encoding
) -> None:
    index = np.array([row[0] for row in sent], dtype=np.uint32)
    moment = np.array([row[1] for row in sent], dtype=np.int64)
    value = np.array([row[2] for row in sent], dtype=np.float64)
    ids, metrics = ["a", "température", 'b"\\'], ["m", "value", "n"] if named else None
    context = DecodeContext(arrival_us=NOW, clock_trusted=False)
    for encode, media in ENCODERS:
        body = PACK[encoding](encode(ids, index, moment, value, metrics=metrics))
        intake = decode_batch(expand(body, encoding, 1 << 20), context, partial=False, media=media)
        assert [[*map(repr, row[:4])] for row in rows_of(intake)] == [
            [repr(ids[place]), repr(metrics[place] if metrics else "value"), repr(us), repr(number)]
            for place, us, number in sent
        ]


HOSTILE: list[bytes] = [
    b"[", b'{"a":', b'{"value":[', b"\n", b"\n1", b"1\n", b"{}\n", b'"', b"\\", b'["\\",', b" ",
    b'{"sensor_id":["', b'{"sensor_id":"a"}\n', b'{"value":[1,', b"\xff\n", b'\\ud800"', b",",
    b"OCB1\x00\x00\x40\x00", b'{"sensor_id":"a","value":1},\n', b"-", b"1e9,",
]  # fmt: skip


@pytest.mark.parametrize("media", list(Media))
@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_repetition_comes_to_an_end(unit: bytes, media: Media) -> None:
    """What takes time in proportion ends at once; what does not would run into the timeout."""
    context = DecodeContext(arrival_us=NOW, clock_trusted=True)
    for size, head in ((256 * 1024, b""), (1 << 20, b"["), (1 << 20, b'{"value":[')):
        body = head + unit * (size // len(unit))
        with pytest.raises(OceanError):
            decode_batch(body, context, partial=size == 256 * 1024, media=media)
        sensors_in(body, media)
