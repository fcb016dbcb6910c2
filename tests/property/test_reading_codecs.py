"""Reading codecs: nothing but an Intake or an OceanError, and both ways of decoding agree."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model import limits
from ocean_core.model.block import Events, Readings
from ocean_core.model.errors import OceanError
from ocean_core.model.receipt import Intake, Receipt
from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_batch_thoroughly,
    decode_single,
    decode_single_thoroughly,
)
from ocean_core.protocol.readings.timestamps import timestamp_column, timestamp_us

NOW = 1_768_651_200_000_000

contexts = st.builds(
    DecodeContext,
    arrival_us=st.just(NOW),
    clock_trusted=st.booleans(),
    items_max=st.sampled_from([limits.BATCH_ITEMS_MAX, 20]),
    rows_max=st.sampled_from([limits.BLOCK_ROWS_MAX, 25]),
    event_bytes_max=st.sampled_from([limits.EVENT_BYTES_MAX, 12]),
    metrics_per_item_max=st.sampled_from([limits.METRICS_PER_ITEM_MAX, 2]),
)
names = st.sampled_from(["a", "b", "température", "a b"]) | st.text(max_size=5)
number_texts = st.sampled_from(
    ["1", "-0", "1.5", "1e3", "1e400", "-1e400", "01", "1.", " 1", "1 ", "1,2", "", "NaN", "inf",
     "1_0", "0x1", "\uff11", "9" * 400, "9007199254740993", "5e-324", "\t1", '"1"', "[1]", "]", "["]
)  # fmt: skip
numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | number_texts | st.text(max_size=8)
payloads = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
metrics = st.dictionaries(names, numbers | scalars, max_size=4)
times = st.one_of(
    st.none(),
    st.integers(0, 2 * 10**18),
    st.floats(0, 2e18),
    st.integers(0, limits.TIMESTAMP_US_MAX).map(iso_utc),
    st.sampled_from(
        ["2014-05-14 01:14:00", "2014-05-14", "1400030040", "x", "2014-05-14T01:14+02"]
    ),
    scalars,
)
contents = st.one_of(
    st.fixed_dictionaries({"value": numbers}, optional={"metric": names}),
    st.fixed_dictionaries({"data": payloads | numbers.map(str) | metrics.map(json.dumps)}),
    st.fixed_dictionaries({"values": metrics}),
    st.dictionaries(st.sampled_from(["value", "values", "data", "metric", "unit"]), payloads),
)
items = st.builds(
    lambda head, content: {**head, **content},
    st.fixed_dictionaries({}, optional={"sensor_id": names | scalars, "timestamp": times}),
    contents,
)
good_items = st.builds(
    lambda name, time, content: {"sensor_id": name, **time, **content},
    st.sampled_from(["a", "b", "c"]),
    st.one_of(
        st.just({}),
        st.integers(0, NOW).map(lambda us: {"timestamp": iso_utc(us)}),
        st.integers(10**11, NOW // 1000).map(lambda ms: {"timestamp": ms}),
    ),
    st.one_of(
        numbers.map(lambda value: {"value": value}),
        numbers.map(lambda value: {"data": str(value)}),
        st.just({"data": "text"}),
        st.just({"values": {"x": 1, "y": 2}}),
    ),
)
item_texts = items.map(json.dumps) | good_items.map(json.dumps)
# Raw numbers that json.dumps would not write.
raw_texts = st.sampled_from(
    ['{"sensor_id":"a","value":1e400}', '{"sensor_id":"a","data":1e400}',
     '{"sensor_id":"a","value":null,"value":1}', '{"sensor_id":"a","data": [1e400, "\\ud83d\\ude00"] }',
     '{"sensor_id":"a","values":{"x":1,"x":"2"}}', '{"sensor_id":"\\ud800","value":1}', "5", "[]"]
)  # fmt: skip


def uniform(one: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[str]:
    return st.lists(one, min_size=16, max_size=24).map(json.dumps)


plain = st.fixed_dictionaries(
    {"sensor_id": st.sampled_from(["a", "b"]), "value": numbers}, optional={"timestamp": times}
)
iso = st.fixed_dictionaries(
    {
        "sensor_id": st.just("a"),
        "value": numbers,
        "timestamp": st.integers(0, NOW).map(iso_utc) | st.just("2014-05-14T01:14:00Z"),
    }
)
original = st.fixed_dictionaries(
    {"sensor_id": st.just("a"), "data": numbers.map(str) | number_texts}
)
batches = st.one_of(
    uniform(plain),
    uniform(iso),
    uniform(original),
    uniform(good_items),
    st.lists(item_texts | raw_texts, max_size=24).map(lambda texts: f"[{','.join(texts)}]"),
    st.lists(item_texts, max_size=4).map(lambda texts: f'{{"readings":[{",".join(texts)}]}}'),
)


def plain_columns(rows: Readings | Events | None) -> object:
    if rows is None:
        return None
    columns = [rows.series_index, rows.timestamp_us, rows.quality]
    columns.append(rows.value if isinstance(rows, Readings) else rows.payload)  # type: ignore[arg-type]
    return [list(rows.series), *[(type(c), [repr(x) for x in list(c)]) for c in columns]]


def outcome(decode: Callable[[], Intake]) -> object:
    """Everything that a caller can see of a decoded or refused request."""
    try:
        intake = decode()
    except OceanError as error:
        return type(error), error.detail, error.fields
    return (
        plain_columns(intake.readings),
        plain_columns(intake.events),
        intake.items,
        intake.layout,
        intake.rejects,
    )


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode), contexts, st.booleans())
def test_any_bytes(body: bytes, context: DecodeContext, partial: bool) -> None:
    assert outcome(lambda: decode_single(body, context))
    assert outcome(lambda: decode_batch(body, context, partial=partial))


@settings(deadline=None)
@given(batches | item_texts, contexts, st.booleans(), st.data())
def test_broken_bodies(
    text: str, context: DecodeContext, partial: bool, data: st.DataObject
) -> None:
    body = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(body) - 1)))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    broken = bytes(body)
    assert outcome(lambda: decode_single(broken, context)) == outcome(
        lambda: decode_single_thoroughly(broken, context)
    )
    assert outcome(lambda: decode_batch(broken, context, partial=partial)) == outcome(
        lambda: decode_batch_thoroughly(broken, context, partial=partial)
    )


@settings(deadline=None)
@given(item_texts | raw_texts, contexts)
def test_single_both_ways(text: str, context: DecodeContext) -> None:
    body = text.encode()
    assert outcome(lambda: decode_single(body, context)) == outcome(
        lambda: decode_single_thoroughly(body, context)
    )


@settings(max_examples=400, deadline=None)
@given(batches, contexts, st.booleans())
def test_batch_both_ways(text: str, context: DecodeContext, partial: bool) -> None:
    body = text.encode()
    assert outcome(lambda: decode_batch(body, context, partial=partial)) == outcome(
        lambda: decode_batch_thoroughly(body, context, partial=partial)
    )


@settings(deadline=None)
@given(st.lists(good_items, min_size=1, max_size=30), st.integers(1, 2**40), st.integers(1, 2**40))
def test_ids(batch: list[dict[str, Any]], first_reading: int, first_event: int) -> None:
    context = DecodeContext(arrival_us=NOW, clock_trusted=True)
    intake = decode_batch(json.dumps(batch).encode(), context, partial=False)
    assert intake.items == len(batch)
    ids = Receipt(first_reading, first_event, NOW, intake.items, intake.layout).item_ids()
    assert len(ids) == len(batch)
    reading, event = first_reading, first_event
    for item, number in zip(batch, ids, strict=True):
        if item.get("data") == "text":
            assert number == event
            event += 1
        else:
            assert number == reading
            reading += len(item.get("values", "1"))
    assert intake.rows == (reading - first_reading) + (event - first_event)


@given(st.integers(0, limits.TIMESTAMP_US_MAX))
def test_iso_round_trip(moment: int) -> None:
    text = iso_utc(moment)
    assert timestamp_us(text) == moment
    assert timestamp_us(text.replace("T", " ").removesuffix("Z")) == moment
    assert timestamp_column([text, text], 0).tolist() == [moment, moment]


@pytest.mark.parametrize(("unit_us", "least"), [(1_000_000, 0), (1_000, 10**11), (1, 10**14)])
@given(data=st.data())
def test_epoch_round_trip(unit_us: int, least: int, data: st.DataObject) -> None:
    number = data.draw(
        st.integers(least, min(limits.TIMESTAMP_US_MAX // unit_us, 1000 * least or 10**11) - 1)
    )
    assert timestamp_us(number) == number * unit_us
    assert timestamp_us(str(number)) == number * unit_us
    assert timestamp_column([number, number], 0).tolist() == [number * unit_us] * 2
