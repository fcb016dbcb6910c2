"""Whose readings a refused body seems to hold."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from ocean_core.protocol.media import Media
from ocean_core.protocol.readings.attribution import NAMES_MAX, UNNAMED, sensors_in
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)

NOW = 1_768_651_200_000_000
IDS = ["a", 'b ä"\\', "c"]
INDEX = np.array([0, 1, 0, 0, 2], dtype=np.uint32)
MOMENTS = np.arange(NOW, NOW + 5)
VALUES = np.arange(5.0)
EXPECTED = {"a": 3, 'b ä"\\': 1, "c": 1}

FORMS: list[tuple[Callable[..., bytes], Media]] = [
    (encode_rows, Media.JSON),
    (encode_ndjson, Media.NDJSON),
    (encode_columnar, Media.JSON),
    (encode_block, Media.BLOCK),
]


@pytest.mark.parametrize(("encode", "media"), FORMS)
def test_every_form_also_when_damaged(encode: Callable[..., bytes], media: Media) -> None:
    body = encode(IDS, INDEX, MOMENTS, VALUES)
    assert sensors_in(body, media) == EXPECTED
    assert sensors_in(body[:-1], media) == EXPECTED
    assert sensors_in(body + b"}", media) == EXPECTED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"sensor_id": "s", "value": null}', {"s": 1}),
        (b'{"sensor_id" : "s", "value": nul', {"s": 1}),
        (b'{"readings": [{"sensor_id": "s"}, {"value": 1}]}', {"s": 1, UNNAMED: 1}),
        (b'[{"sensor_id": "s", "data": {"sensor_id": "inner"}}]', {"s": 1}),
        (b'[{"sensor_id": "s", "data": "\\"sensor_id\\":\\"inner\\""}', {"s": 1}),
        (b'{"sensor_id": "s", "value": [1, 2, null]}', {"s": 3}),
        (b'{"sensor_id": "s", "value": [1, 2', {"s": 2}),
        (b'{"sensor_id": "s", "value": []}', {}),
        (b'{"sensor_id": ["s", "t", "s"], "value": [1]}', {"s": 2, "t": 1}),
        (b'[{"sensor_id": " bad"}, {"sensor_id": "\\ud800"}', {UNNAMED: 2}),
        (b'[{"sensor_id": 5}]', {}),
        (b"17", {}),
        (b"", {}),
        (b"\xff\xfe", {}),
    ],
)
def test_texts(body: bytes, expected: dict[str, int]) -> None:
    assert sensors_in(body, Media.JSON) == expected


def test_many_names() -> None:
    body = json.dumps([{"sensor_id": f"s{n}"} for n in [*range(5_000), 7]]).encode()
    counts = sensors_in(body, Media.JSON)
    assert len(counts) == NAMES_MAX + 1
    assert counts["s7"] == 2
    assert sum(counts.values()) == 5_001


@pytest.mark.parametrize(
    "text",
    [b'"sensor_id":"', b'"sensor_id":["\\', b'"value":[', b"[", b"{", b'"sensor_id" ', b'"\\'],
)
def test_hostile_texts_take_no_longer(text: bytes) -> None:
    for media in Media:
        assert len(sensors_in(text * (1_000_000 // len(text)), media)) <= 2


def test_columns_of_a_damaged_block() -> None:
    body = encode_block(IDS, INDEX, MOMENTS, VALUES)
    assert sensors_in(body[: 64 + 21 * 5 + 8], Media.BLOCK) == {"a": 3, UNNAMED: 2}
    assert sensors_in(body[: 64 + 21 * 5], Media.BLOCK) == {UNNAMED: 5}
    assert sensors_in(body[:100], Media.BLOCK) == {}
    assert sensors_in(b"\xff" * 200, Media.BLOCK) == {}
