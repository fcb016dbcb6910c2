"""Routing: names, times, quality and events, for every kind of content."""

import json
import math
from typing import Any

import pytest

from ocean_core.config.settings import NanogridataSettings
from ocean_core.model import limits
from ocean_core.model.errors import InvalidReadingError
from ocean_core.pipeline.routing import Profile, Range, Routed, device_text, moment_us, route
from ocean_core.protocol.nanogridata.frame import Content, Header, Measurement
from ocean_core.service.frames.models import Models
from support.nanogrid import decode_vector, golden

NOW_S = 1_768_650_000
NOW_US = NOW_S * 1_000_000
PRESSURE = Profile(0x10, "pressure_v1", ranges={"pressure": Range(0, 200_000)})


def header(payload_type: int = 1, model_id: int = 0x10, level: int = 1) -> Header:
    return Header(1, model_id, payload_type, level, 10, NOW_S, 0)


def routed(
    decoded: dict[str, Any],
    *measurements: Measurement,
    profile: Profile = PRESSURE,
    head: Header | None = None,
    given: str = "",
) -> Routed:
    content = Content(False, "cbor", decoded, list(measurements))
    return route(
        head or header(), content, profile, arrival_us=NOW_US, clock_trusted=True, given=given
    )


def pressure(value: float = 101_325, ts: float = NOW_S) -> Measurement:
    return Measurement("pressure", ts, value, "Pa")


def test_a_measurement_becomes_a_reading_of_its_device() -> None:
    found = routed({"device_id": "ESP32-001", "lab_id": "LAB-1"}, pressure())
    assert found.sensor_id == "ESP32-001"
    assert found.lab_id == "LAB-1"
    assert found.units == {"pressure": "Pa"}
    assert (found.event, found.timestamp_us, found.quality) == (None, NOW_US, 0)
    assert found.readings is not None
    assert found.readings.series == [("ESP32-001", "pressure")]
    assert found.readings.value == [101_325.0]


def test_series_of_several_measurements_are_listed_once() -> None:
    a, b = (Measurement(name, NOW_S, 1, "") for name in "ab")
    found = routed({"device_id": "d"}, a, b, a, b, b).readings
    assert found is not None
    assert found.series == [("d", "a"), ("d", "b")]
    assert found.series_index == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("value", "quality"), [(0, 0), (200_000, 0), (-0.5, 1), (200_000.5, 1), (2**64, 1)]
)
def test_out_of_range_is_kept_with_quality_1(value: float, quality: int) -> None:
    assert routed({"device_id": "d"}, pressure(value)).quality == quality


@pytest.mark.parametrize(
    ("ts", "quality"),
    [(NOW_S + 60, 0), (NOW_S + 60.5, 2), (946_684_800, 0), (946_684_799, 2), (0, 2), (0.0, 2)],
)
@pytest.mark.parametrize("value", [1, -1])
def test_an_implausible_time_wins_over_the_range(ts: float, quality: int, value: int) -> None:
    assert routed({"device_id": "d"}, pressure(value, ts)).quality == (quality or int(value < 0))


def test_the_worst_quality_is_told_and_each_row_has_its_own() -> None:
    found = routed({"device_id": "d"}, pressure(), pressure(-1), pressure(-1, 5), pressure())
    assert found.readings is not None
    assert found.readings.quality == [0, 1, 2, 0]
    assert found.quality == 2


def test_ranges_are_found_by_the_longest_name() -> None:
    ranges = {"gas:*": Range(0, 10), "gas:C*": Range(0, 20), "gas:CO2": Range(0, 30)}
    profile = Profile(0x20, "gas_v1", ranges=ranges)
    highs = {
        m: r and r.high
        for m in ("gas:O3", "gas:CO", "gas:CO2", "gas")
        for r in [profile.range_of(m)]
    }
    assert highs == {"gas:O3": 10, "gas:CO": 20, "gas:CO2": 30, "gas": None}


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [(0, 0), (NOW_S, NOW_US), (NOW_S + 0.25, NOW_US + 250_000), (1768649992.123456, 1768649992123456),
     (253_402_300_799, limits.TIMESTAMP_US_MAX - 999_999), (math.nextafter(253402300800.0, 0), limits.TIMESTAMP_US_MAX - 31)],
)  # fmt: skip
def test_seconds_become_microseconds(seconds: float, micros: int) -> None:
    assert moment_us(seconds) == micros


@pytest.mark.parametrize(
    "ts", [-1, -1e-9, 253_402_300_800, 1e300, 10**30, float("nan"), float("inf"), float("-inf")]
)
def test_a_time_that_cannot_be_stored_is_refused_by_name(ts: float) -> None:
    with pytest.raises(InvalidReadingError) as caught:
        routed({"device_id": "d"}, pressure(), pressure(1, ts))
    assert caught.value.fields[0].field == "measurements[1].ts"


def test_a_value_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidReadingError) as caught:
        routed({"device_id": "d"}, pressure(float("nan")))
    assert caught.value.fields[0].field == "measurements[0].value"


@pytest.mark.parametrize("name", ["a\n", " a", "x" * 257, "\x00"])
def test_a_bad_device_id_is_refused_by_name(name: str) -> None:
    for measurements in ([pressure()], []):
        with pytest.raises(InvalidReadingError) as caught:
            routed({"device_id": name}, *measurements)
        assert caught.value.fields[0].field == "device_id"


def test_a_bad_metric_is_refused_by_name() -> None:
    with pytest.raises(InvalidReadingError) as caught:
        routed({"device_id": "d"}, Measurement("gas:\n", NOW_S, 1, "ppm"))
    assert caught.value.fields[0].field == "measurements[0].metric"
    with pytest.raises(InvalidReadingError):
        routed({"device_id": "d"}, Measurement("m" * 129, NOW_S, 1, ""))


def test_texts_for_people_have_no_control_characters() -> None:
    found = routed(
        {"device_id": "d", "lab_id": " LAB\n\x1b[2J1 "}, Measurement("m", NOW_S, 1, "\x00°C\u202e")
    )
    assert found.lab_id == "LAB [2J1"
    assert found.units == {"m": "°C"}
    assert routed({"device_id": "d", "lab_id": 5}, pressure()).lab_id == ""


def test_what_is_no_telemetry_becomes_one_event() -> None:
    payload = {"device_id": "d", "key": b"\x01\xff", "list": [b"", {"x": None}], "big": -(2**64)}
    found = routed(payload, head=header(2, level=2))
    assert found.readings is None
    assert (found.timestamp_us, found.quality, found.sensor_id) == (NOW_US, 0, "d")
    assert found.event is not None
    assert json.loads(found.event) == {
        "type": "config",
        "model": "0x10",
        "profile": "pressure_v1",
        "level": 2,
        "timestamp": "2026-01-17T11:40:00Z",
        "payload": {
            "device_id": "d",
            "key": {"$bytes": "01ff"},
            "list": [{"$bytes": ""}, {"x": None}],
            "big": -(2**64),
        },
    }


@pytest.mark.parametrize(
    ("decoded", "given", "sensor_id"),
    [
        ({"device_id": "d"}, "given", "d"),
        ({"device_id": 17}, "given", "17"),
        ({"device_id": b"\xab\x01"}, "", "ab01"),
        ({"device_id": ""}, "given", "given"),
        ({"device_id": True}, "", "nanogridata_ff"),
        ({"device_id": ["x"]}, "", "nanogridata_ff"),
        ({"raw": "00"}, "given", "given"),
        ({}, "", "nanogridata_ff"),
    ],
)
def test_the_sensor_of_an_event(decoded: dict[str, Any], given: str, sensor_id: str) -> None:
    found = routed(decoded, profile=Profile(0xFF), head=header(3, 0xFF), given=given)
    assert found.sensor_id == sensor_id


def test_a_bad_given_name_is_refused() -> None:
    with pytest.raises(InvalidReadingError) as caught:
        routed({}, given="a\n")
    assert caught.value.fields[0].field == "sensor_id"


def test_raw_telemetry_is_an_event() -> None:
    assert routed({"sensor_count": 1, "raw_hex": "00010203"}).event is not None


def test_a_profile_says_where_the_device_is() -> None:
    profile = Profile(0x50, "own", device_id=("who", "id"), lab_id=(), prefix="own-")
    found = routed({"who": {"id": 7}, "device_id": "x", "lab_id": "L"}, pressure(), profile=profile)
    assert (found.sensor_id, found.lab_id) == ("own-7", "")
    assert routed({"who": 7}, pressure(), profile=profile).sensor_id == "nanogridata_10"
    assert device_text(1.5) == ""


ACCEPTED = [vector for vector in golden()["vectors"] if vector["outcome"] == "ok"]


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector["id"])
def test_every_accepted_vector_is_routed(vector: dict[str, Any]) -> None:
    decoded = decode_vector(vector)
    model = vector["header"]["model_id"]
    found = route(
        decoded.header, decoded.content, Models(NanogridataSettings()).profile(model),
        arrival_us=1_000_000 * vector["now"], clock_trusted=True,
    )  # fmt: skip
    expected = [(m["metric"], m["value"]) for m in vector["measurements"]]
    assert found.sensor_id == vector["decoded"].get("device_id", f"nanogridata_{model:02x}")
    if found.readings is None:
        assert expected == []
        assert found.event is not None
        assert json.loads(found.event)["payload"] == vector["decoded"]
        return
    rows = zip(found.readings.series_index, found.readings.value, strict=True)
    assert [(found.readings.series[index][1], value) for index, value in rows] == expected
