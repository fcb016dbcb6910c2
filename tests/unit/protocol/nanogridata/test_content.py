"""What frames hold: where a fault is told, groups of devices, models that an operator described."""

from typing import Any

import pytest

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
    FrameRefusedError,
    Header,
    Measurement,
    Options,
    Outcome,
)
from ocean_core.protocol.nanogridata.secret import HmacSecret
from support.nanogrid import KEYS, NOW, POLICY, SECRET, pressure_frame

PRESSURE_MAP = {"device_id": "D", "lab_id": "L", "entries": [{"ts": NOW, "value": 5}]}


def decoded(
    plaintext: bytes,
    model_id: int = 0x10,
    payload_type: int = 1,
    *,
    level: int = 1,
    policy: FixedPolicy = POLICY,
    keys: FixedKeys = KEYS,
    **how: Any,
) -> Decoded:
    frame = encode(
        model_id, payload_type, plaintext, level=level, timestamp=NOW, secret=SECRET,
        iv=bytes(range(12)), **how,
    )  # fmt: skip
    return decode(frame, NOW, policy, keys, RecentFrames())


def refusal(plaintext: bytes, *args: Any, **how: Any) -> FrameRefusedError:
    with pytest.raises(FrameRefusedError) as caught:
        decoded(plaintext, *args, **how)
    return caught.value


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "begins"), [(0, 14), (1, 14), (2, 26), (3, 26)])
def test_offset_counts_from_the_frame(level: int, begins: int) -> None:
    error = refusal(cbor_payload({**PRESSURE_MAP, "lab_id": 5}), level=level)
    assert error.outcome == Outcome.PROFILE
    assert error.offset == begins + len(cbor_payload({"device_id": "D"}) + b"\x66lab_id")
    assert error.detail == "lab_id: a number found, a text expected"
    assert refusal(b"\x41", level=level).offset == begins


@pytest.mark.parametrize(
    ("cut", "offset", "words"),
    [
        (0, 0, "before the length of the device id"),
        (3, 0, "a device id of 3 bytes found, 2 bytes follow"),
        (4, 4, "before the length of the lab id"),
        (5, 4, "a lab id of 1 bytes found, 0 bytes follow"),
        (6, 6, "0 bytes left for the time"),
        (9, 6, "3 bytes left for the time"),
        (10, 10, "0 bytes left for the pressure"),
        (13, 10, "3 bytes left for the pressure"),
    ],
)
def test_a_binary_payload_that_is_cut(cut: int, offset: int, words: str) -> None:
    error = refusal(pressure_payload("DEV", "L", NOW, 1)[:cut])
    assert (error.outcome, error.offset) == (Outcome.PAYLOAD, 14 + offset)
    assert words in error.detail


@pytest.mark.parametrize("payload_type", range(1, 6))
def test_a_concentration_must_be_finite_whatever_it_is_for(payload_type: int) -> None:
    plaintext = gas_payload("D", "CO", NOW, 1.0)[:-4] + bytes.fromhex("7f800000")
    error = refusal(plaintext, 0x20, payload_type)
    assert error.outcome == Outcome.PROFILE
    assert error.offset == 14 + len(plaintext) - 4


def test_entries_decide_over_a_flat_value() -> None:
    content = decoded(cbor_payload({**PRESSURE_MAP, "pressure_pa": "?"})).content
    assert content.measurements == [Measurement("pressure", NOW, 5, "Pa")]
    error = refusal(cbor_payload({**PRESSURE_MAP, "pressure_pa": 1, "entries": []}))
    assert error.outcome == Outcome.PROFILE


@pytest.mark.parametrize("payload_type", range(2, 6))
def test_a_map_that_is_no_telemetry_is_free(payload_type: int) -> None:
    content = decoded(cbor_payload({"anything": [1]}), payload_type=payload_type).content
    assert content.decoded == {"anything": [1]}
    assert content.measurements == []


def test_names_are_counted_in_bytes() -> None:
    assert decoded(cbor_payload({**PRESSURE_MAP, "device_id": "ë" * 32})).content.measurements
    error = refusal(cbor_payload({**PRESSURE_MAP, "device_id": "ë" * 33}))
    assert "66 bytes" in error.detail


def test_plaintext_at_high_levels_only_by_option() -> None:
    plaintext = pressure_payload("A-DEVICE-WITH-A-NAME", "LAB", NOW, 1)
    assert refusal(plaintext, level=3, encrypted=False).outcome == Outcome.DECRYPT
    lenient = FixedPolicy(Options(plaintext_high=True))
    assert not decoded(plaintext, level=3, encrypted=False, policy=lenient).content.encrypted
    assert decoded(plaintext, level=3, policy=lenient).content.encrypted


# --- groups -------------------------------------------------------------------------------------


def test_a_secret_of_a_group_speaks_for_its_devices_only() -> None:
    keys = FixedKeys({}, [HmacSecret(SECRET, "lab a", "lab-a-*")])
    assert decoded(pressure_payload("lab-a-1", "", NOW, 1), keys=keys).content.measurements
    for plaintext in (pressure_payload("lab-b-1", "", NOW, 1), cbor_payload(PRESSURE_MAP)):
        error = refusal(plaintext, keys=keys)
        assert error.outcome == Outcome.MAC
        assert "'lab a'" in error.detail
    assert refusal(b"raw", 0x40, keys=keys).outcome == Outcome.MAC


# --- described models ---------------------------------------------------------------------------


class Soil:
    """A model that an operator described: one byte of moisture, or nothing known."""

    def __init__(self, *, layout: bool = True) -> None:
        self._layout = layout

    def decode_binary(self, plaintext: bytes) -> dict[str, Any] | None:
        if not self._layout:
            return None
        if len(plaintext) != 1:
            raise FrameRefusedError(Outcome.PAYLOAD, 1, "one byte expected")
        return {"moisture": plaintext[0]}

    def measure(self, decoded: dict[str, Any], header: Header) -> list[Measurement]:
        if "moisture" not in decoded:
            raise FrameRefusedError(Outcome.PROFILE, 0, "no moisture")
        return [Measurement("moisture", header.timestamp, decoded["moisture"], "%")]


def described(model_id: int = 0x77, *, layout: bool = True) -> FixedPolicy:
    options = Options(unknown_model="reject")
    return FixedPolicy(options, {model_id: Soil(layout=layout)})


@pytest.mark.parametrize("model_id", [0x77, 0x40, 0x10])
def test_a_described_model(model_id: int) -> None:
    policy = described(model_id)
    expected = [Measurement("moisture", NOW, 42, "%")]
    binary = decoded(b"\x2a", model_id, policy=policy).content
    assert (binary.encoding, binary.measurements) == ("binary", expected)
    cbor = decoded(cbor_payload({"moisture": 42}), model_id, policy=policy).content
    assert (cbor.encoding, cbor.measurements) == ("cbor", expected)
    assert decoded(b"\x2a", model_id, 2, policy=policy).content.measurements == []


def test_faults_of_a_described_model() -> None:
    assert refusal(b"\1\2", 0x77, policy=described(), level=2).offset == 27
    error = refusal(cbor_payload({}), 0x77, policy=described())
    assert (error.outcome, error.offset) == (Outcome.PROFILE, 14)


def test_a_described_model_without_a_layout_is_raw() -> None:
    content = decoded(b"\1\2", 0x77, policy=described(layout=False)).content
    assert content.decoded == {"raw": "0102"}
    assert (content.encoding, content.measurements) == ("raw", [])


# --- encoding -----------------------------------------------------------------------------------


def test_the_worked_example() -> None:
    """Section 16."""
    secret = bytes.fromhex("cca9c2d22fdbbe3aea381a08969e5bea9d360348773a063d5424db410830f527")
    plaintext = pressure_payload("ESP32-002", "LAB-NORTH-01", 1_768_649_992, 101_339)
    frame = encode(0x10, 1, plaintext, level=1, timestamp=1_768_649_993, secret=secret)
    assert frame.hex() == (
        "c15301100101001f696b75090000"
        "0945535033322d3030320c4c41422d4e4f5254482d3031696b750800018bdb"
        "a8c5004facde2e1f3a69d7ec037a07a8"
    )
    key = "6893796738d8208474cd549e62e582ccb75045f7d51b1648061bf27e3834395c"
    assert HmacSecret(secret, "example").encryption_key().hex() == key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_id": 256}, "model id is 256"),
        ({"payload_type": 0}, "payload type is 0"),
        ({"payload_type": 6}, "payload type is 6"),
        ({"level": 4}, "level is 4"),
        ({"timestamp": 1 << 32}, "timestamp is"),
        ({"timestamp": -1}, "timestamp is"),
        ({"plaintext": bytes(1025)}, "is 1025, 0 to 1024"),
        ({"plaintext": bytes(997), "level": 2}, "is 1025, 0 to 1024"),
        ({"secret": None}, "needs a secret"),
        ({"level": 2, "iv": None}, "needs an IV"),
        ({"level": 2, "iv": bytes(11)}, "one of 11 bytes"),
        ({"high_mac_size": 8}, "high_mac_size is 8"),
    ],
)
def test_what_is_no_frame_is_not_encoded(change: dict[str, Any], words: str) -> None:
    given = {
        "model_id": 0x10, "payload_type": 1, "plaintext": b"", "level": 1, "timestamp": NOW,
        "secret": SECRET, "iv": bytes(12),
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        encode(**{**given, **change})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("", "L", NOW, 1), "device_id"),
        (("D" * 65, "L", NOW, 1), "device_id"),
        (("D", "L" * 65, NOW, 1), "lab_id"),
        (("D", "L", 1 << 32, 1), "timestamp"),
        (("D", "L", NOW, -1), "pressure_pa"),
    ],
)
def test_what_is_no_pressure_is_not_encoded(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pressure_payload(*given)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_what_is_no_concentration_is_not_encoded(value: float) -> None:
    with pytest.raises(ValueError, match="concentration_ppm"):
        gas_payload("D", "CO", NOW, value)
    with pytest.raises(ValueError, match="gas_type"):
        gas_payload("D", "", NOW, 1.0)


def test_senders_of_old_cut_the_check_value_at_level_2_only() -> None:
    old = FixedPolicy(Options(high_mac_size=16))
    for level, size in {1: 16, 2: 16, 3: 32}.items():
        frame = pressure_frame(level=level, high_mac_size=16)
        header = decode(frame, NOW, old, KEYS, RecentFrames()).header
        assert len(frame) == 14 + header.length + size
