"""NDJSON: which lines are items, and what each mistake is answered with."""

import json

import pytest

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
CONTEXT = DecodeContext(arrival_us=NOW, clock_trusted=True)
A, B = b'{"sensor_id":"a","value":1}', b'{"sensor_id":"b","value":2}'
TWO = [("a", "value", NOW, 1.0, 0), ("b", "value", NOW, 2.0, 0)]


def lines(body: bytes, context: DecodeContext = CONTEXT, *, partial: bool = False) -> Intake:
    return decode_batch(body, context, partial=partial, media=Media.NDJSON)


def refused(body: bytes) -> str:
    with pytest.raises(InvalidReadingError) as caught:
        lines(body)
    return caught.value.detail


@pytest.mark.parametrize(
    "body",
    [
        A + b"\n" + B,
        A + b"\n" + B + b"\n",
        A + b"\r\n" + B + b"\r\n",
        b"\n\n  \n" + A + b"\n\t\r\n" + B + b"\n\n",
        b"  " + A + b"  \n" + B,
    ],
)
@pytest.mark.parametrize("repeated", [1, 20])
def test_lines(body: bytes, repeated: int) -> None:
    whole = b"\n".join([body] * repeated)
    intake = lines(whole)
    assert rows_of(intake) == TWO * repeated
    assert intake.items == 2 * repeated
    assert not intake.columnar


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_many_plain_lines_are_quick(ending: bytes) -> None:
    body = ending.join([A, B] * 100)
    for whole in (body, body + ending):
        intake = decode_batch_quickly(whole, CONTEXT, Media.NDJSON)
        assert intake is not None
        assert rows_of(intake) == TWO * 100
    assert decode_batch_quickly(body + b"x", CONTEXT, Media.NDJSON) is None
    assert decode_batch_quickly(ending.join([A] * 5_000), CONTEXT, Media.NDJSON) is None


def test_any_item() -> None:
    body = b"""{"sensor_id": "a", "values": {"t": 1, "h": 2}}
        {"sensor_id": "a", "data": "opened"}
        {"sensor_id": "a", "value": 3, "metric": "m"}"""
    intake = lines(body)
    assert intake.layout == (2, 0, 1)
    assert len(rows_of(intake)) == 3
    assert intake.events is not None
    assert intake.events.payload == [b'"opened"']


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (b'{"sensor_id":"b","value":null}', "value: found null, expected a number"),
        (b"17", "body: found 17, expected an object with sensor_id and one of value, values, data"),
        (b"{", "found {, expected one JSON object per line (line 3, byte 1: ends too early)"),
        (b'{"a" 1}', ('found {"a" 1}, expected one JSON object per line (line 3, byte 5: '
         "expected ':')")),
        (B + b",", (f"found {B.decode()},, expected one JSON object per line (line 3, byte 27: "
         "trailing characters)")),
        (A + A, (f"found {A.decode() + A.decode()}, expected one JSON object per line (line 3, "
         "byte 27: trailing characters)")),
        (A + b"\r" + B, "trailing characters)"),
        (b'{"x":"\xff"}', 'found {"x":""}, expected one JSON object per line, in UTF-8 (line 3)'),
        (b'{"sensor_id":' + b"[" * 100_000, "expected JSON that is not so deeply nested (line 3)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [0, 50])
def test_a_bad_line(second: bytes, problem: str, more: int) -> None:
    body = b"\n\n".join([A, second, B]) + b"\n" + b"\n".join([B] * more)
    detail = refused(body)
    assert detail.startswith("item 1")
    assert problem.removeprefix("body: ") in detail
    intake = lines(body, partial=True)
    assert rows_of(intake) == TWO + TWO[1:] * more
    assert {reject.item for reject in intake.rejects} == {1}
    assert rejected_items(intake.rejects) == 1


def test_values_over_several_lines_do_not_pass_as_lines() -> None:
    """As many values as lines, but not one in each."""
    split = b'{"sensor_id":"a",\n"value":1}'
    body = b"\n".join([A] * 20 + [split, A + A])
    assert "item 20: found" in refused(body)
    nested = b"\n".join([A] * 20 + [b'{"sensor_id":"a","data":[{}', b"{}]}" + A])
    assert "item 20: found" in refused(nested)
    assert lines(body, partial=True).items == 20


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n"])
def test_nothing(body: bytes) -> None:
    with pytest.raises(MalformedBodyError, match=r"The body is empty\."):
        lines(body)


def test_a_byte_order_mark() -> None:
    with pytest.raises(MalformedBodyError, match="byte order mark"):
        lines(b"\xef\xbb\xbf" + A)


def test_lines_are_counted_before_they_are_decoded() -> None:
    context = DecodeContext(arrival_us=NOW, clock_trusted=True, items_max=20)
    body = b"\n".join([A] * 20)
    assert lines(body + b"\n\n\n", context).items == 20
    for more in (A, b"1", b"{"):
        with pytest.raises(BodyTooLargeError, match="more than 20 items"):
            lines(body + b"\n" + more, context, partial=True)


def test_too_long() -> None:
    context = DecodeContext(arrival_us=NOW, clock_trusted=True, body_bytes_max=20)
    with pytest.raises(BodyTooLargeError, match="at most 20"):
        lines(A, context)


def test_no_good_line() -> None:
    with pytest.raises(InvalidReadingError, match="item 0"):
        lines(b"x\ny", partial=True)


def test_refused_sensors_are_told() -> None:
    body = b"\n".join([A, b'{"sensor_id":"c","value":', json.dumps({"sensor_id": "d"}).encode()])
    assert lines(body, partial=True).refused == {"c": 1, "d": 1}
