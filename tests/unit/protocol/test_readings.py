"""Items and batches: what each shape becomes, and what each mistake is answered with."""

import json
from typing import Any

import numpy as np
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import BodyTooLargeError, InvalidReadingError, MalformedBodyError
from ocean_core.model.receipt import Intake, Receipt
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_single,
    rejected_items,
)

NOW = 1_768_651_200_000_000
CONTEXT = DecodeContext(arrival_us=NOW, clock_trusted=True)


def rows(intake: Intake) -> list[tuple[str, str, int, float, int]]:
    found = intake.readings
    if found is None:
        return []
    return [
        (*found.series[index], int(moment), float(value), int(quality))
        for index, moment, value, quality in zip(
            found.series_index, found.timestamp_us, found.value, found.quality, strict=True
        )
    ]


def payloads(intake: Intake) -> list[bytes]:
    return [] if intake.events is None else list(intake.events.payload)


def single(body: str | bytes, context: DecodeContext = CONTEXT) -> Intake:
    return decode_single(body.encode() if isinstance(body, str) else body, context)


def batch(body: str | bytes, context: DecodeContext = CONTEXT, *, partial: bool = False) -> Intake:
    return decode_batch(body.encode() if isinstance(body, str) else body, context, partial=partial)


def item(**fields: Any) -> str:
    return json.dumps({"sensor_id": "s", **fields})


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ('"value": 21.5', [("value", 21.5)]),
        ('"value": 21', [("value", 21.0)]),
        ('"value": -0.5e-3, "metric": "temp"', [("temp", -0.0005)]),
        ('"values": {"b": 1, "a": 2.5}', [("b", 1.0), ("a", 2.5)]),
        ('"values": {"a": 1, "a": 2}', [("a", 2.0)]),
        ('"value": 1, "value": 2', [("value", 2.0)]),
        ('"data": 21.5', [("value", 21.5)]),
        ('"data": "21.5"', [("value", 21.5)]),
        ('"data": "-1e3"', [("value", -1000.0)]),
        ('"data": "\\u0032\\u0031"', [("value", 21.0)]),
        ('"data": {"t": 1, "h": 2}', [("t", 1.0), ("h", 2.0)]),
        ('"data": "{\\"t\\": 1, \\"h\\": 2}"', [("t", 1.0), ("h", 2.0)]),
        ('"data": 1e-400', [("value", 0.0)]),
    ],
)
def test_numbers(fields: str, expected: list[tuple[str, float]]) -> None:
    body = f'{{"sensor_id": "s", {fields}}}'
    wanted = [("s", metric, NOW, value, 0) for metric, value in expected]
    assert rows(single(body)) == wanted
    assert rows(batch(f"[{body}]")) == wanted
    assert rows(batch(f"[{','.join([body] * 20)}]")) == wanted * 20


@pytest.mark.parametrize(
    "data",
    [
        '"door opened"', '""', '"NaN"', '"inf"', '"Infinity"', '"1_000"', '" 12 "', '"12 "',
        '" 12"', '"\\t12"', '"0x10"', '"\uff11\uff12"', '"01"', '".5"', '"5."', '"+5"', '"1,2"', '"1e400"',
        '"-"', '"true"', '"[1]"', '"{}"', '"{\\"a\\": \\"x\\"}"', '"{\\"a\\": 1} "', '"{\\"a\\": 1e400}"',
        "true", "false", "null", "[]", "[1, 2]", "{}", '{"a": "x"}', '{"a": 1, "b": null}',
        '{ "spaces" : [ 1 ,2 ] }', '"\\u00e9 é"', '{"n": {"n": 1e400}}', '"1\\n2"',
    ],
)  # fmt: skip
def test_everything_else_is_an_event_kept_as_sent(data: str) -> None:
    body = f'{{"sensor_id": "s", "data":  {data}  }}'
    for intake in (single(body), batch(f"[{body}]")):
        assert intake.readings is None
        assert payloads(intake) == [data.encode()]
        assert intake.layout == (0,)
        assert intake.events is not None
        assert intake.events.series == [("s", "")]
    many = batch(f"[{','.join([body] * 20)}]")
    assert payloads(many) == [data.encode()] * 20


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field", "found", "expected"),
    [
        ("{}", "sensor_id", "nothing", "a string"),
        ('{"sensor_id": "s"}', "value", "nothing", "exactly one of"),
        ('{"sensor_id": "s", "value": 1, "data": 2}', "value", "value and data", "exactly one of"),
        ('{"sensor_id": 7, "value": 1}', "sensor_id", "7", "a string"),
        ('{"sensor_id": null, "value": 1}', "sensor_id", "null", "a string"),
        ('{"sensor_id": "s", "value": null}', "value", "null", "a number"),
        ('{"sensor_id": "s", "value": "1"}', "value", '"1"', "a number"),
        ('{"sensor_id": "s", "value": true}', "value", "true", "a number"),
        ('{"sensor_id": "s", "value": 1e400}', "value", "1e400", "64-bit float"),
        ('{"sensor_id": "s", "data": -1e400}', "data", "-1e400", "64-bit float"),
        ('{"sensor_id": "s", "data": {"a": 1e400}}', "data.a", "1e400", "64-bit float"),
        ('{"sensor_id": "s", "values": {"a": 1e400}}', "values.a", "1e400", "64-bit float"),
        ('{"sensor_id": "s", "values": {}}', "values", "{}", "at least one"),
        ('{"sensor_id": "s", "values": [1]}', "values", "[1]", "object of numbers"),
        ('{"sensor_id": "s", "values": null}', "values", "null", "object of numbers"),
        ('{"sensor_id": "s", "values": {"a": "1"}}', "values.a", '"1"', "a number"),
        ('{"sensor_id": "s", "values": {"": 1}}', "values.", '""', "1 to 128 bytes"),
        ('{"sensor_id": "s", "data": {"": 1}}', "data.", '""', "1 to 128 bytes"),
        ('{"sensor_id": "s", "value": 1, "metric": ""}', "metric", '""', "1 to 128 bytes"),
        ('{"sensor_id": "s", "value": 1, "metric": null}', "metric", "null", "a string"),
        ('{"sensor_id": "s", "data": 1, "metric": "m"}', "metric", "metric beside data", "only"),
        ('{"sensor_id": "s", "value": 1, "unit": "C"}', "unit", '"C"', "only the fields sensor_id, "),
        ('{"sensor_id": "s", "value": null, "value": 1}', "value", "{", "Expected `float`"),
        ('{"sensor_id": "s", "value": 1, "timestamp": true}', "timestamp", "true", "a string, a"),
        ('{"sensor_id": "s", "value": 1, "timestamp": "x"}', "timestamp", '"x"', "ISO 8601"),
        ('{"sensor_id": "s", "value": 1, "timestamp": -1}', "timestamp", "-1", "1970-01-01 to"),
        ('{"sensor_id": "s", "value": 1, "timestamp": 1e400}', "timestamp", "1e400", "64-bit"),
        ('{"sensor_id": "s", "value": 1, "timestamp": 1800000000}', "timestamp", "18", "60 s"),
    ],
)  # fmt: skip
def test_refusals_name_field_found_and_expected(
    body: str, field: str, found: str, expected: str
) -> None:
    with pytest.raises(InvalidReadingError) as alone:
        single(body)
    problem = alone.value.fields[0]
    assert problem.field == field
    assert problem.found.startswith(found)
    assert expected in problem.expected
    assert problem.item is None
    assert alone.value.detail.startswith(f"{field}: found ")
    good = item(value=1)
    with pytest.raises(InvalidReadingError) as among:
        batch(f"[{good}, {body}, {good}]")
    assert among.value.fields[0].item == 1
    assert among.value.detail.startswith(f"item 1, {field}: found ")
    kept = batch(f"[{good}, {body}, {good}]", partial=True)
    assert (kept.items, kept.rows, rejected_items(kept.rejects)) == (2, 2, 1)
    assert kept.rejects == among.value.fields


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "1 to 256 bytes"),
        (" a", "white space"),
        ("a ", "white space"),
        ("\u00a0a", "white space"),
        ("a\nb", r"character 1"),
        ("a\x00", "control"),
        ("a\x7f", "control"),
        ("é\x85", "control"),
        ("é\u2028x", "control"),
        ("a\u2029x", "control"),
        ("a" * 257, "at most 256 bytes of UTF-8, not 257"),
        ("é" * 129, "not 258"),
    ],
)
def test_names_that_are_refused(name: str, says: str) -> None:
    bad = json.dumps({"sensor_id": name, "value": 1})
    with pytest.raises(InvalidReadingError, match=says):
        single(bad)
    with pytest.raises(InvalidReadingError, match=says):
        batch(f"[{','.join([bad] * 20)}]")


@pytest.mark.parametrize(
    "name", ["a", "a b", "température/1", "温度", "a" * 256, "é" * 128, "\u200bx"]
)
def test_names_that_are_accepted(name: str) -> None:
    assert rows(single(json.dumps({"sensor_id": name, "value": 1})))[0][0] == name


def test_all_problems_of_an_item_are_listed() -> None:
    body = '{"sensor_id": "", "timestamp": [], "value": "x", "unit": 1, "metric": " "}'
    with pytest.raises(InvalidReadingError) as caught:
        single(body)
    assert [problem.field for problem in caught.value.fields] == [
        "timestamp", "value", "unit", "sensor_id", "metric",
    ]  # fmt: skip
    assert caught.value.detail.endswith("(and 4 more).")


def test_found_is_short_and_printable() -> None:
    with pytest.raises(InvalidReadingError) as caught:
        single(json.dumps({"sensor_id": "\x1b[31m\u202e" + "ü" * 5000, "value": 1}))
    found = caught.value.fields[0].found
    assert len(found) <= 80
    assert found.isprintable()


def test_an_item_that_is_no_object() -> None:
    with pytest.raises(InvalidReadingError, match="item 1: found 5, expected an object"):
        batch(f"[{item(value=1)}, 5]")


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"sensor_id": "\xff"}', "byte 15 is 0xff"),
        (b'{"sensor_id": "\xed\xa0\x80"}', "byte 15 is 0xed"),
        (b'{"sensor_id": "s", "value": NaN}', "at byte 28"),
        (b'{"sensor_id": "s", "value": 01}', "at byte 29"),
        (b'{"sensor_id": "s", "value": 1', "too early, at byte 29"),
        (b'{"sensor_id": "s", "value": 1} x', "at byte 31: trailing"),
        (b'{"sensor_id": "s\n", "value": 1}', "at byte 16"),
        (
            b'{"sensor_id": "\\\\\\ud83d\\ude00\\ud800", "value": 1}',
            "at byte 29: half of a surrogate",
        ),
        (b'{"sensor_id": "s", "data": ' + b"[" * 100_000, "nested too deeply"),
        (b'[{"sensor_id": "s", "value": 1}]', "telemetry/batch"),
        (b"5", "a number"),
        (b'"x"', "a string"),
        (b"null", "null"),
    ],
)
def test_bodies_that_are_malformed(body: bytes, says: str) -> None:
    with pytest.raises(MalformedBodyError, match=says):
        single(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"sensor_id": "s", "value": 1}', "telemetry/ingest, or put it into square brackets"),
        ('{"readings": 5}', "readings is a number"),
        ("true", "true"),
        ('[{"sensor_id": "s", "value": 1},]', "trailing comma"),
        ('[{"sensor_id": "s", "value": null}, x]', "at byte 36"),
    ],
)
def test_batches_that_are_malformed(body: str, says: str) -> None:
    with pytest.raises(MalformedBodyError, match=says):
        batch(body, partial=True)


def test_wrapped_batches() -> None:
    assert batch(f' {{"readings": [{item(value=1)}, {item(value=2)}]}}').items == 2
    with pytest.raises(InvalidReadingError, match="site"):
        batch(f'{{"readings": [{item(value=1)}], "site": 1}}')


@pytest.mark.parametrize("body", ["[]", " [ ] ", '{"readings": []}'])
def test_an_empty_batch_is_refused(body: str) -> None:
    with pytest.raises(InvalidReadingError, match="at least one reading"):
        batch(body, partial=True)


# --- limits -------------------------------------------------------------------------------------


def context(**changed: Any) -> DecodeContext:
    return DecodeContext(arrival_us=NOW, clock_trusted=True, **changed)


def test_body_limit() -> None:
    body = item(value=1)
    assert single(body, context(body_bytes_max=len(body))).items == 1
    with pytest.raises(BodyTooLargeError):
        single(body, context(body_bytes_max=len(body) - 1))


@pytest.mark.parametrize("form", ["[%s]", '{"readings": [%s]}'])
@pytest.mark.parametrize(
    "one", [item(value=1), item(data=', [{ " x'), item(values={"a": 1, "b": 2})]
)
def test_item_limit(form: str, one: str) -> None:
    assert batch(form % ",".join([one] * 20), context(items_max=20)).items == 20
    with pytest.raises(BodyTooLargeError, match="more than 20 items"):
        batch(form % ",".join([one] * 21), context(items_max=20), partial=True)


def test_row_limit() -> None:
    one = item(values={"a": 1, "b": 2})
    assert batch(f"[{one}, {one}]", context(rows_max=4)).rows == 4
    with pytest.raises(BodyTooLargeError, match="more than 3 readings"):
        batch(f"[{one}, {one}]", context(rows_max=3), partial=True)


def test_metric_limit() -> None:
    values = {f"m{number}": number for number in range(65)}
    for fields in ({"values": values}, {"data": values}, {"data": json.dumps(values)}):
        with pytest.raises(InvalidReadingError, match="65 metrics, expected at most 64"):
            single(item(**fields))
    del values["m64"]
    assert single(item(values=values)).layout == (64,)


def test_event_limit() -> None:
    assert single(item(data="x" * 8), context(event_bytes_max=10)).rows == 1
    for number in (1, 20):
        long = ",".join([item(data="1" * 9)] * number)
        with pytest.raises(InvalidReadingError, match="11 bytes, expected at most 10 bytes"):
            batch(f"[{long}]", context(event_bytes_max=10))


def test_payload_depth() -> None:
    assert single(item(data=json.loads("[" * 100 + "]" * 100))).rows == 1
    for levels in range(101, 1100, 7):
        deep = '{"sensor_id": "s", "data": ' + "[" * levels + "]" * levels + "}"
        with pytest.raises((InvalidReadingError, MalformedBodyError), match="nested"):
            single(deep)
        with pytest.raises((InvalidReadingError, MalformedBodyError), match="nested"):
            single(deep.replace("[", '{"a":').replace("]", "}").replace(":}", ":1}"))


def test_rejects_are_listed_up_to_a_limit_and_counted_exactly() -> None:
    many = batch(f"[{','.join([item(value=1)] + [item(value=None)] * 250)}]", partial=True)
    assert many.items == 1
    assert len(many.rejects) == limits.REJECTS_LISTED_MAX + 1
    assert many.rejects[-1].found == "150 more refused items"
    assert rejected_items(many.rejects) == 250
    assert rejected_items(()) == 0


def test_a_partial_batch_without_a_good_item_is_refused() -> None:
    with pytest.raises(InvalidReadingError) as caught:
        batch(f"[{','.join([item(value=None)] * 250)}]", partial=True)
    assert len(caught.value.fields) == limits.REJECTS_LISTED_MAX
    assert "(and 249 more)" in caught.value.detail


# --- columns and ids ----------------------------------------------------------------------------


def test_lists_for_few_rows_and_arrays_for_many() -> None:
    few = batch(f"[{','.join([item(value=1)] * 15)}]").readings
    many = batch(f"[{','.join([item(value=1)] * 16)}]").readings
    assert few is not None
    assert many is not None
    assert isinstance(few.value, list)
    assert [
        np.asarray(column).dtype
        for column in (many.series_index, many.timestamp_us, many.value, many.quality)
    ] == [np.uint32, np.int64, np.float64, np.uint8]


def test_layout_and_ids() -> None:
    body = ",".join([item(value=1), item(data="text"), item(values={"a": 1, "b": 2}), item(data=3)])
    intake = batch(f"[{body}]")
    assert intake.layout == (1, 0, 2, 1)
    assert [row[1] for row in rows(intake)] == ["value", "a", "b", "value"]
    assert Receipt(10, 50, NOW, intake.items, intake.layout).item_ids() == [10, 50, 11, 13]
    assert batch(f"[{item(value=1)}]").layout is None


@pytest.mark.parametrize("count", [1, 20])
def test_quality_2_for_times_that_cannot_be_trusted(count: int) -> None:
    untrusted = DecodeContext(arrival_us=NOW, clock_trusted=False)
    late, old = item(value=1, timestamp="2027-01-01"), item(value=1, timestamp=5)
    now = item(value=1)
    found = rows(batch(f"[{','.join([late, old, now] * count)}]", untrusted))
    assert [row[4] for row in found] == [2, 2, 0] * count
