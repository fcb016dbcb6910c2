"""Nanogridata: what is encoded is decoded, and no bytes do harm.

`make fuzz` runs these for much longer: OCEAN_FUZZ is the number of examples of each.
"""

import math
import os
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocean_core.protocol.nanogridata import stream
from ocean_core.protocol.nanogridata.cbor import read_map, write_map
from ocean_core.protocol.nanogridata.check import CRC_VARIANTS
from ocean_core.protocol.nanogridata.decoder import (
    Decoded,
    FixedKeys,
    FixedPolicy,
    RecentFrames,
    decode,
)
from ocean_core.protocol.nanogridata.encode import (
    cbor_payload,
    encode,
    gas_payload,
    pressure_payload,
)
from ocean_core.protocol.nanogridata.frame import (
    FRAME_BYTES_MAX,
    FrameRefusedError,
    Options,
    Outcome,
)
from ocean_core.protocol.nanogridata.header import unpack_header
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.protocol.nanogridata.stream import Proven, Skipped, StreamReader, Suspect
from support.nanogrid import NOW, SECRET, golden, keys_of, options_of, read_all, told, total_bytes

T = TypeVar("T")
EXAMPLES = int(os.environ.get("OCEAN_FUZZ", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# What takes ten times as long to make up as to check.
fuzz_less = settings(fuzz, max_examples=max(100, EXAMPLES // 8))

SIGNER = HmacSecret(SECRET, "bench")
KEYS = FixedKeys({}, [HmacSecret(bytes(32), "other"), SIGNER])
SAMPLES = [bytes.fromhex(vector["frame"]) for vector in golden()["vectors"]]

models = st.sampled_from([0x10, 0x20, 0x30, 0x40, 0xFF]) | st.integers(0, 255)
types = st.integers(1, 5)
levels = st.integers(0, 3)
seconds = st.integers(0, (1 << 32) - 1)


def text(least: int, most: int) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"])
    texts = st.text(characters, min_size=least, max_size=most)
    return texts.filter(lambda value: len(value.encode()) <= most)


def attempt(action: Callable[[], T]) -> T | FrameRefusedError:
    """Return a refusal, as anything else that is returned; any other error is a failure."""
    try:
        return action()
    except FrameRefusedError as error:
        return error


# --- CBOR ---------------------------------------------------------------------------------------

keys_ = st.sampled_from(["device_id", "lab_id", "entries", "ts", "value"]) | text(0, 12)
integers = st.integers(-(1 << 64), (1 << 64) - 1) | st.integers(-300, 300)
scalars = (
    st.none() | st.booleans() | integers | st.floats() | text(0, 256) | st.binary(max_size=256)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys_, inner, max_size=5),
    max_leaves=12,
)
maps = st.dictionaries(keys_, values, max_size=20)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def alike(one: Any, other: Any) -> bool:
    """Compare to the bit: kinds of values, signs of zeros, and NaN with itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        same_sign = math.copysign(1, one) == math.copysign(1, other)
        return (one == other and same_sign) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict):
        same_keys = list(one) == list(other)
        return same_keys and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


@fuzz_less
@given(maps)
def test_cbor_reads_back(fields: dict[str, Any]) -> None:
    if depth(fields) > 8:
        with pytest.raises(ValueError, match="within each other"):
            write_map(fields)
        return
    assert alike(read_map(write_map(fields)), fields)


@fuzz_less
@given(maps.filter(lambda fields: depth(fields) <= 8), st.data())
def test_cbor_that_is_cut_or_longer_is_refused(fields: dict[str, Any], data: st.DataObject) -> None:
    encoded = write_map(fields)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for wrong in (encoded[:cut], encoded + data.draw(st.binary(min_size=1, max_size=3))):
        with pytest.raises(FrameRefusedError) as caught:
            read_map(wrong)
        assert caught.value.outcome == Outcome.CBOR


@fuzz
@given(st.binary(max_size=1024), st.integers(0xA0, 0xBF))
def test_any_bytes_are_cbor_or_refused(rest: bytes, first: int) -> None:
    data = bytes([first]) + rest
    fields = attempt(lambda: read_map(data))
    if isinstance(fields, FrameRefusedError):
        assert fields.outcome in {Outcome.CBOR, Outcome.CBOR_LIMIT}
        assert 0 <= fields.offset <= len(data)
        return
    # Written again it may be shorter, and then reads the same.
    again = write_map(fields)
    assert len(again) <= len(data)
    assert alike(read_map(again), fields)


# --- frames -------------------------------------------------------------------------------------

readings = st.lists(
    st.fixed_dictionaries({"ts": seconds, "value": st.integers(0, 10**6)}), min_size=1, max_size=8
)
pressure_maps = st.builds(
    lambda device, lab, entries: {"device_id": device, "lab_id": lab, "entries": entries},
    text(1, 64), text(0, 64), readings,
)  # fmt: skip
gas_maps = st.builds(
    lambda device, gas, entries: {
        "device_id": device,
        "gas_type": gas,
        "entries": [{"ts": entry["ts"], "ppm": entry["value"]} for entry in entries],
    },
    text(1, 64), text(1, 64), readings,
)  # fmt: skip
sensor_maps = st.builds(
    lambda device, sensors: {"device_id": device, "sensors": sensors},
    text(1, 64),
    st.lists(
        st.fixed_dictionaries({"type": text(1, 8), "unit": text(0, 4), "entries": readings}),
        min_size=1,
        max_size=3,
    ),
)
telemetry_maps = {0x10: pressure_maps, 0x20: gas_maps, 0x30: sensor_maps}
PLAINTEXT_BYTES_MAX = 1024 - 28


def sent(plaintext: bytes, model_id: int, payload_type: int, level: int, **how: Any) -> bytes:
    return encode(
        model_id, payload_type, plaintext, level=level, timestamp=NOW, secret=SIGNER,
        iv=bytes(12), **how,
    )  # fmt: skip


def received(frame: bytes, options: Options | None = None) -> Decoded:
    return decode(frame, NOW, FixedPolicy(options), KEYS, RecentFrames())


@fuzz_less
@given(models, types, levels, st.sampled_from(CRC_VARIANTS), st.sampled_from([16, 32]), st.data())
def test_cbor_frames_read_back(
    model_id: int, payload_type: int, level: int, variant: Any, size: Any, data: st.DataObject
) -> None:
    fields = data.draw(telemetry_maps.get(model_id, maps) if payload_type == 1 else maps)
    if depth(fields) > 8 or len(cbor_payload(fields)) > PLAINTEXT_BYTES_MAX:
        return
    frame = sent(
        cbor_payload(fields), model_id, payload_type, level, crc_variant=variant, high_mac_size=size
    )
    options = Options(crc_variants=(variant,), high_mac_size=size)
    header, proof, content = received(frame, options)
    assert header == (
        1,
        model_id,
        payload_type,
        level,
        len(frame) - 14 - _check(frame, size),
        NOW,
        0,
    )
    assert proof == ((SIGNER, None) if level else (None, variant))
    assert alike(content.decoded, fields)
    assert (content.encoding, content.encrypted) == ("cbor", level > 1)
    if payload_type == 1 and model_id in telemetry_maps:
        groups = [fields, *fields.get("sensors", [])]
        entries = [entry for group in groups for entry in group.get("entries", [])]
        assert [(reading.ts, reading.value) for reading in content.measurements] == [
            (entry["ts"], entry["ppm" if model_id == 0x20 else "value"]) for entry in entries
        ]
    else:
        assert content.measurements == []


def _check(frame: bytes, size: int) -> int:
    return {0: 2, 1: 16, 2: size, 3: 32}[frame[5]]


@fuzz
@given(types, levels, text(1, 64), text(0, 64), seconds, seconds)
def test_pressure_reads_back(
    payload_type: int, level: int, device: str, lab: str, ts: int, pascal: int
) -> None:
    plaintext = pressure_payload(device, lab, ts, pascal)
    content = received(sent(plaintext, 0x10, payload_type, level)).content
    assert content.encoding == "binary"
    assert content.decoded == {
        "device_id": device, "lab_id": lab, "timestamp": ts, "pressure_pa": pascal,
        "pressure_kpa": pytest.approx(pascal / 1000),
        "pressure_atm": pytest.approx(pascal / 101_325),
    }  # fmt: skip
    expected = [("pressure", ts, pascal, "Pa")] if payload_type == 1 else []
    assert content.measurements == expected


@fuzz
@given(
    types,
    levels,
    text(1, 64),
    text(1, 64),
    seconds,
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
def test_gas_reads_back(
    payload_type: int, level: int, device: str, gas: str, ts: int, ppm: float
) -> None:
    plaintext = gas_payload(device, gas, ts, ppm)
    content = received(sent(plaintext, 0x20, payload_type, level)).content
    assert content.encoding == "binary"
    assert content.decoded == {
        "device_id": device, "gas_type": gas, "timestamp": ts, "concentration_ppm": ppm,
    }  # fmt: skip
    expected = [(f"gas:{gas}", ts, ppm, "ppm")] if payload_type == 1 else []
    assert content.measurements == expected


@fuzz
@given(models, types, levels, st.binary(max_size=PLAINTEXT_BYTES_MAX))
def test_raw_frames_read_back(
    model_id: int, payload_type: int, level: int, plaintext: bytes
) -> None:
    if model_id in {0x10, 0x20} or 0xA0 <= (plaintext or b"\0")[0] <= 0xBF:
        return
    content = received(sent(plaintext, model_id, payload_type, level)).content
    raw = content.decoded["raw_hex" if model_id == 0x30 else "raw"]
    assert bytes.fromhex(raw) == plaintext
    assert (content.encoding, content.measurements) == ("raw", [])


# --- bad bytes ----------------------------------------------------------------------------------

some_options = st.builds(
    Options,
    max_payload=st.sampled_from([0, 20, 512, 1024]),
    min_level=levels,
    unknown_model=st.sampled_from(["accept", "reject"]),
    crc_variants=st.lists(st.sampled_from(CRC_VARIANTS), unique=True).map(tuple),
    plaintext_high=st.booleans(),
    high_mac_size=st.sampled_from([16, 32]),
)
patches = st.lists(st.tuples(st.integers(0, 1100), st.binary(max_size=4)), max_size=4)
samples = st.sampled_from(SAMPLES)


def patched(frame: bytes, changes: list[tuple[int, bytes]], cut: int, extra: bytes) -> bytes:
    changed = bytearray(frame)
    for place, replacement in changes:
        changed[place : place + len(replacement)] = replacement
    return bytes(changed[: len(changed) - cut]) + extra


mutated = st.builds(
    patched, samples, patches, st.integers(0, 3) | st.integers(0, 200), st.binary(max_size=3)
)


def judge(frame: bytes, options: Options, now_s: int = NOW) -> None:
    found = attempt(lambda: decode(frame, now_s, FixedPolicy(options), KEYS, RecentFrames()))
    if isinstance(found, FrameRefusedError):
        assert found.outcome is not Outcome.OK
        assert 0 <= found.offset <= len(frame)
        assert found.detail
    else:
        assert all(math.isfinite(reading.value) for reading in found.content.measurements)


@fuzz
@given(st.binary(max_size=1100) | mutated, some_options, seconds)
def test_bad_bytes_are_refused(frame: bytes, options: Options, now_s: int) -> None:
    judge(frame, options, now_s)
    # Whatever their time is, so that the checks behind it see them.
    if len(frame) >= 14:
        judge(frame, options, unpack_header(frame).timestamp)


@fuzz
@given(models, types, levels, mutated.map(lambda frame: frame[14:1010]), some_options)
def test_bad_payloads_of_good_frames_are_refused(
    model_id: int, payload_type: int, level: int, plaintext: bytes, options: Options
) -> None:
    judge(sent(plaintext[:PLAINTEXT_BYTES_MAX], model_id, payload_type, level), options)
    judge(sent(plaintext, model_id, payload_type, level, encrypted=False), options)


# --- streams ------------------------------------------------------------------------------------

headers = st.builds(
    lambda model, kind, level, length, ts: struct.pack(
        ">2sBBBBHIH", b"\xc1\x53", 1, model, kind, level, length, ts, 0
    ),
    st.sampled_from([0x10, 0xFF]), types, levels, st.integers(0, 1100), seconds,
)  # fmt: skip
# In an order that lets them overlap: what begins within another, and repeats of it.
fragments = st.one_of(
    samples,
    mutated,
    headers,
    st.binary(max_size=60),
    st.sampled_from(
        [b"\xc1", b"\x53", b"\xc1\x53", b"\xc1\x53\x01", bytes.fromhex("c1530110010000")]
    ),
    st.builds(lambda header, count: header * count, headers, st.integers(2, 60)),
)
streams = st.lists(fragments, max_size=12).map(b"".join)


@fuzz
@given(streams, some_options, st.lists(st.integers(0, 5_000), max_size=12))
def test_a_stream_is_accounted_for_however_it_is_cut(
    data: bytes, options: Options, cuts: list[int]
) -> None:
    policy = FixedPolicy(options)
    reader = StreamReader(policy, KEYS)
    found = read_all(reader, [data])
    assert total_bytes(found) == len(data)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = StreamReader(policy, KEYS)
    again: list[Any] = []
    for start, end in pairwise(places):
        again += reader.feed(data[start:end])
        assert reader.pending < FRAME_BYTES_MAX
    again += reader.end()
    assert reader.pending == 0
    assert told(again) == told(found)
    single = StreamReader(policy, KEYS)
    assert told(read_all(single, [data[at : at + 1] for at in range(len(data))])) == told(found)
    suspects = sum(len(item.frame) for item in found if isinstance(item, Suspect))
    assert suspects <= stream.SUSPECT_BYTES_PER_BYTE * len(data)


@fuzz
@given(streams, some_options)
def test_work_is_bounded_by_what_came(data: bytes, options: Options) -> None:
    hashed = 0

    class Counting(HmacSecret):
        def mac(self, covered: bytes) -> bytes:
            nonlocal hashed
            hashed += len(covered)
            return super().mac(covered)

    keys = FixedKeys({}, [Counting(bytes([value]) * 32, f"{value}") for value in range(3)])
    found = read_all(StreamReader(FixedPolicy(options), keys), [data])
    assert total_bytes(found) == len(data)
    # 85 for each secret in vain, and once for a frame that is good.
    assert hashed <= 3 * 86 * len(data)


@fuzz
@given(st.lists(st.tuples(st.binary(max_size=40), levels, text(1, 20)), max_size=8))
def test_good_frames_are_found_between_garbage(parts: list[tuple[bytes, int, str]]) -> None:
    frames, data = [], b""
    for garbage, level, device in parts:
        frame = sent(pressure_payload(device, "", NOW, 1), 0x10, 1, level)
        frames.append(frame)
        # No magic in it, and none that its last byte begins: it claims no byte of a frame.
        data += garbage.replace(b"\xc1", b"\xc0") + frame
    found = read_all(StreamReader(FixedPolicy(), KEYS), [data])
    assert [item.frame for item in found if isinstance(item, Proven)] == frames


@fuzz
@given(st.sampled_from(golden()["streams"]), st.lists(st.integers(0, 3000), max_size=20))
def test_known_streams_however_they_are_cut(case: dict[str, Any], cuts: list[int]) -> None:
    whole = bytes.fromhex("".join(case["chunks"]))
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    reader = StreamReader(FixedPolicy(options_of(case)), keys_of(case))
    found = read_all(reader, [whole[start:end] for start, end in pairwise(places)])
    proven = [item.frame.hex() for item in found if isinstance(item, Proven)]
    assert set(case["accepted"]) <= set(proven)
    skipped = sum(item.count for item in found if isinstance(item, Skipped))
    assert skipped == case["skipped_bytes"]
