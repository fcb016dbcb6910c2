"""Layouts of described models: what struct packs is read back; other bytes are refused, no worse."""

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model import limits
from ocean_core.model.errors import InvalidReadingError, ModelsFileError
from ocean_core.pipeline.routing import route
from ocean_core.protocol.nanogridata.frame import Content, FrameRefusedError, Header
from ocean_core.service.frames.layout import NUMBER_CODES, TEXT, Field, Layout
from ocean_core.service.frames.models_file import read_models

texts = st.text(max_size=20).filter(lambda text: len(text.encode()) <= 255)


def whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return (
        st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if signed
        else st.integers(0, 2**bits - 1)
    )


def numbers(kind: str) -> st.SearchStrategy[Any]:
    if kind[0] == "f":
        return st.floats(width=32 if kind == "f32" else 64)
    return whole(int(kind[1:]), signed=kind[0] == "i")


@st.composite
def payloads(draw: st.DrawFn) -> tuple[list[Field], list[Any], bytes]:
    fields: list[Field] = []
    values: list[Any] = []
    packed = b""
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from([TEXT, "bytes", *NUMBER_CODES]))
        name = f"f{number}"
        if kind == TEXT:
            value: Any = draw(texts)
            data = value.encode()
            fields.append(Field(name, TEXT, 1))
            packed += bytes([len(data)]) + data
        elif kind == "bytes":
            value = draw(st.binary(min_size=1, max_size=8))
            fields.append(Field(name, f"bytes{len(value)}", len(value)))
            packed += value
        else:
            value = draw(numbers(kind))
            data = struct.pack(">" + NUMBER_CODES[kind], value)
            fields.append(Field(name, kind, len(data)))
            packed += data
        values.append(value)
    return fields, values, packed


def same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return left == right and type(left) is type(right)


@given(payloads(), st.binary(min_size=1, max_size=3))
def test_what_is_packed_is_read_back(
    payload: tuple[list[Field], list[Any], bytes], more: bytes
) -> None:
    fields, values, packed = payload
    layout = Layout(fields)
    assert layout.bytes_min <= len(packed)
    decoded = layout.decode(packed)
    assert list(decoded) == [field.name for field in fields]
    assert all(map(same, decoded.values(), values))
    for wrong in (packed + more, packed[:-1]):
        with pytest.raises(FrameRefusedError) as caught:
            layout.decode(wrong)
        assert 0 <= caught.value.offset <= len(wrong)


@given(payloads(), st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(
    payload: tuple[list[Field], list[Any], bytes], data: bytes
) -> None:
    offset = 0
    try:
        Layout(payload[0]).decode(data)
    except FrameRefusedError as error:
        offset = error.offset
    assert 0 <= offset <= len(data)


GOOD = """[model.0x50]
label = "x"
device_id = "serial"
fields = [ { name = "serial", type = "u32" }, { name = "t", type = "i16", scale = 0.01, metric = "t" } ]
[model.0x20]
ranges = { "gas:*" = [0, 1] }
"""


@settings(max_examples=300)
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 8),
    st.text(alphabet="[]{}=\"'.,#\n0x a-9", max_size=6),
)
def test_a_file_with_typing_errors_is_read_or_refused(at: int, length: int, typed: str) -> None:
    with contextlib.suppress(ModelsFileError):
        read_models(GOOD[:at] + typed + GOOD[at + length :])


scalars = (
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=4)
)
anything = st.recursive(
    scalars | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "at", "e", "v", "w"]), inner, max_size=5)
    ),
)
maps = st.dictionaries(st.sampled_from(["id", "at", "e", "v", "w"]), anything, max_size=5)
CBOR_MODEL = read_models(
    """[model.0x50]
label = "x"
device_id = "id"
timestamp = "at"
time_unit = "ms"
entries = "e"
entry_time = "at"
readings = [ { key = "v", scale = 0.01, offset = -1, max = 5 }, { key = "v.w", absent = 3, metric = "x" } ]
"""
).models[0x50]


@given(maps, st.integers(1, 5))
def test_any_map_is_measured_and_routed_or_refused(decoded: dict[str, Any], kind: int) -> None:
    header = Header(1, 0x50, kind, 1, 20, 1_768_650_000, 0)
    assert CBOR_MODEL.custom is not None
    with contextlib.suppress(FrameRefusedError, InvalidReadingError):
        measurements = CBOR_MODEL.custom.measure(decoded, header) if kind == 1 else []
        found = route(
            header, Content(False, "cbor", decoded, measurements), CBOR_MODEL.profile,
            arrival_us=1_768_650_000_000_000, clock_trusted=False,
        )  # fmt: skip
        if found.readings is None:
            assert found.event is not None
            assert isinstance(json.loads(found.event)["payload"], dict)
        else:
            assert all(map(math.isfinite, found.readings.value))
            assert all(0 <= us <= limits.TIMESTAMP_US_MAX for us in found.readings.timestamp_us)
