"""Columnar JSON: what the columns become, and what each mistake is answered with."""

import json
from typing import Any

import numpy as np
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import BodyTooLargeError, InvalidReadingError, MalformedBodyError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_batch_quickly,
    decode_batch_thoroughly,
    rejected_items,
)
from support.intakes import rows_of

NOW = 1_768_651_200_000_000
CONTEXT = DecodeContext(arrival_us=NOW, clock_trusted=True)


def columns(context: DecodeContext = CONTEXT, *, partial: bool = False, **fields: Any) -> Intake:
    body = json.dumps(fields).encode()
    intake = decode_batch(body, context, partial=partial)
    again = decode_batch_thoroughly(body, context, partial=partial)
    assert rows_of(intake) == rows_of(again)
    assert intake.columnar
    assert again.columnar
    return intake


def refused(context: DecodeContext = CONTEXT, **fields: Any) -> InvalidReadingError:
    with pytest.raises(InvalidReadingError) as caught:
        decode_batch(json.dumps(fields).encode(), context, partial=False)
    return caught.value


def test_a_column_for_each_field() -> None:
    intake = columns(
        sensor_id=["a", "b", "a"], timestamp=[1.5e9, "2020-01-01", None], value=[1, 2.5, -3]
    )
    assert rows_of(intake) == [
        ("a", "value", 1_500_000_000_000_000, 1.0, 0),
        ("b", "value", 1_577_836_800_000_000, 2.5, 0),
        ("a", "value", NOW, -3.0, 0),
    ]
    assert intake.items == 3
    assert intake.layout is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sensor_id": "s"}, [("s", "value", NOW, 1.0, 0), ("s", "value", NOW, 2.0, 0)]),
        (
            {"sensor_id": "s", "timestamp": None, "metric": "t"},
            [("s", "t", NOW, 1.0, 0), ("s", "t", NOW, 2.0, 0)],
        ),
        (
            {"sensor_id": ["x", "y"], "timestamp": 1_577_836_800, "metric": "t"},
            [("x", "t", 1577836800 * 10**6, 1.0, 0), ("y", "t", 1577836800 * 10**6, 2.0, 0)],
        ),
        (
            {"sensor_id": "s", "metric": ["t", "h"], "timestamp": "1970-01-01"},
            [("s", "t", 0, 1.0, 2), ("s", "h", 0, 2.0, 2)],
        ),
        (
            {"sensor_id": ["x", "x"], "metric": ["t", "h"]},
            [("x", "t", NOW, 1.0, 0), ("x", "h", NOW, 2.0, 0)],
        ),
    ],
)
def test_one_value_for_all_rows(
    fields: dict[str, Any], expected: list[tuple[str, str, int, float, int]]
) -> None:
    assert rows_of(columns(**fields, value=[1, 2])) == expected


def test_many_rows_are_arrays() -> None:
    intake = columns(sensor_id="s", timestamp=list(range(10**9, 10**9 + 100)), value=[0.5] * 100)
    readings = intake.readings
    assert readings is not None
    assert isinstance(readings.value, np.ndarray)
    assert list(readings.series) == [("s", "value")]


def test_a_future_that_cannot_be_judged_is_kept() -> None:
    unsure = DecodeContext(arrival_us=NOW, clock_trusted=False)
    intake = columns(unsure, sensor_id="s", timestamp=["2030-01-01", None], value=[1, 2])
    assert [row[4] for row in rows_of(intake)] == [2, 0]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"value": [1], "sensor_id": []},
         "sensor_id: found an array of 0, expected an array of 1 like value, or one for all."),
        ({"value": [1], "sensor_id": "s", "timestamp": [1, 2]},
         "timestamp: found an array of 2, expected an array of 1 like value, or one for all."),
        ({"value": [1, 2], "sensor_id": "s", "metric": ["m"]},
         "metric: found an array of 1, expected an array of 2 like value, or one for all."),
        ({"value": [1]},
         "sensor_id: found nothing, expected an array of strings, or one string for all rows."),
        ({"sensor_id": ["a"]}, "value: found nothing, expected an array of numbers."),
        ({"sensor_id": ["a"], "value": 1}, "value: found 1, expected an array of numbers."),
        ({"sensor_id": ["a"], "value": [1], "unit": "C"},
         'unit: found "C", expected only the fields sensor_id, timestamp, value, metric.'),
        ({"sensor_id": "s", "value": []}, "body: found [], expected at least one reading."),
        ({"sensor_id": 7, "value": [1, 2]}, "sensor_id: found 7, expected a string."),
        ({"sensor_id": "s", "timestamp": True, "value": [1, 2]},
         "timestamp: found true, expected a string, a number, or null for the time of arrival."),
        ({"sensor_id": " s", "value": [1, 2]},
         'sensor_id: found " s", expected no white space at the beginning or end.'),
        ({"sensor_id": "s", "value": [1, "2"]}, 'item 1, value: found "2", expected a number.'),
        ({"sensor_id": ["s", None], "value": [1, 2]},
         "item 1, sensor_id: found null, expected a string."),
        ({"sensor_id": "s", "value": [1, 2], "metric": ["m", ""]},
         'item 1, metric: found "", expected 1 to 128 bytes.'),
        ({"sensor_id": "s", "value": [1, 2], "timestamp": ["2026-01-17", "2026-02-01"]},
         ('item 1, timestamp: found "2026-02-01", expected no later than '
         "2026-01-17T12:01:00Z, which is 60 s after arrival.")),
    ],
)  # fmt: skip
def test_mistakes(fields: dict[str, Any], detail: str) -> None:
    assert refused(**fields).detail == detail


def test_every_problem_is_listed() -> None:
    problems = refused(sensor_id=["a", "", "c"], value=["1", 2, [3]]).fields
    assert [(problem.item, problem.field) for problem in problems] == [
        (0, "value"), (1, "sensor_id"), (2, "value"),
    ]  # fmt: skip


def test_partial_keeps_the_good_rows() -> None:
    body = {"sensor_id": ["a", "b", "", "d"], "value": [1, None, 3, 4]}
    intake = decode_batch(json.dumps(body).encode(), CONTEXT, partial=True)
    assert rows_of(intake) == [("a", "value", NOW, 1.0, 0), ("d", "value", NOW, 4.0, 0)]
    assert [(problem.item, problem.field) for problem in intake.rejects] == [
        (1, "value"), (2, "sensor_id"),
    ]  # fmt: skip
    assert rejected_items(intake.rejects) == 2
    assert intake.columnar
    assert intake.items == 2


def test_partial_does_not_cover_the_shape() -> None:
    body = b'{"sensor_id": ["a", "b"], "value": [1]}'
    with pytest.raises(InvalidReadingError, match="an array of 2"):
        decode_batch(body, CONTEXT, partial=True)


def test_one_reading_is_not_columnar() -> None:
    with pytest.raises(MalformedBodyError, match="with an array per field"):
        decode_batch(b'{"sensor_id": "a", "value": 1}', CONTEXT, partial=False)


def test_rows_inside_an_object_are_not_columnar() -> None:
    intake = decode_batch(b'{"readings": [{"sensor_id": "a", "value": 1}]}', CONTEXT, partial=False)
    assert not intake.columnar
    with pytest.raises(InvalidReadingError, match="no field but readings"):
        decode_batch(b'{"readings": [], "value": [1]}', CONTEXT, partial=False)


def test_rows_are_counted_like_items() -> None:
    context = DecodeContext(arrival_us=NOW, clock_trusted=True, items_max=50)
    full: dict[str, Any] = {"sensor_id": ["s"] * 50, "timestamp": [1] * 50, "metric": ["m"] * 50}
    assert columns(context, **full, value=[1] * 50).items == 50
    for body in (
        {"value": [1] * 51, "sensor_id": "s"},
        {"value": [1] * 300, "sensor_id": "s"},
        {"unknown": [1] * 51},
    ):
        with pytest.raises(BodyTooLargeError, match="more than 50 items"):
            decode_batch(json.dumps(body).encode(), context, partial=False)


def test_what_is_quick() -> None:
    few = json.dumps({"sensor_id": "s", "value": [1.5] * 1_000}).encode()
    many = json.dumps({"sensor_id": "s", "value": [1.5] * 20_000}).encode()
    odd = {"sensor_id": "s", "timestamp": ["2020-01-01", 5] * 500, "value": [1.5] * 1_000}
    assert decode_batch_quickly(few, CONTEXT) is not None
    assert decode_batch_quickly(many, CONTEXT) is None
    assert decode_batch_quickly(json.dumps(odd).encode(), CONTEXT) is None
    assert decode_batch_quickly(few.replace(b"1.5]", b"null]"), CONTEXT) is None


@pytest.mark.parametrize("bytes_max", [10, limits.BODY_BYTES_MAX])
def test_bodies_that_are_no_json(bytes_max: int) -> None:
    context = DecodeContext(arrival_us=NOW, clock_trusted=True, body_bytes_max=bytes_max)
    with pytest.raises((MalformedBodyError, BodyTooLargeError)):
        decode_batch(b'{"sensor_id": "s", "value": [1, 2', context, partial=False)


@pytest.mark.parametrize("wanted", [b'"value": [1]', b'"readings": []'])
def test_a_great_many_fields(wanted: bytes) -> None:
    body = b"{%b, %b}" % (b", ".join(b'"%d": 1' % number for number in range(1_000)), wanted)
    with pytest.raises(InvalidReadingError, match="found an object of 1001 fields"):
        decode_batch(body, CONTEXT, partial=False)
