"""Check values, secrets, and the order in which a frame is judged."""

import copy
import hashlib
import hmac
import pickle
from random import Random

import pytest

from ocean_core.protocol.nanogridata.check import crc, frame_id, prove
from ocean_core.protocol.nanogridata.decoder import FixedKeys, FixedPolicy, RecentFrames, decode
from ocean_core.protocol.nanogridata.encode import encode
from ocean_core.protocol.nanogridata.frame import FrameRefusedError, Header, Options, Outcome
from ocean_core.protocol.nanogridata.header import check_bytes, check_size, read_header
from ocean_core.protocol.nanogridata.secret import HmacSecret
from support.nanogrid import KEYS, NO_KEYS, NOW, POLICY, SECRET, outcome, pressure_frame

DIGITS = b"123456789"


def plain_modbus(data: bytes) -> int:
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0xA001 if register & 1 else register >> 1
    return register


def refusal(
    frame: bytes, policy: FixedPolicy = POLICY, keys: FixedKeys = KEYS
) -> FrameRefusedError:
    with pytest.raises(FrameRefusedError) as caught:
        decode(frame, NOW, policy, keys, RecentFrames())
    return caught.value


# --- check values -------------------------------------------------------------------------------


def test_crc_check_values() -> None:
    assert crc("ccitt", DIGITS) == bytes.fromhex("29b1")
    assert crc("modbus", DIGITS) == bytes.fromhex("374b")
    # The payload is empty: its share is the initial value.
    header = DIGITS.ljust(14, b"0")
    split = int.from_bytes(crc("ccitt", header), "big") ^ 0xFFFF
    assert crc("split", header) == split.to_bytes(2, "big")


@pytest.mark.parametrize("size", [14, 15, 45, 1038])
def test_modbus_by_tables_is_modbus(size: int) -> None:
    data = Random(size).randbytes(size)
    assert int.from_bytes(crc("modbus", data), "little") == plain_modbus(data)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 63, 64, 65, 100, 1024])
def test_a_prepared_secret_gives_the_same_hmac(length: int) -> None:
    secret = Random(length).randbytes(length)
    prepared = HmacSecret(secret, "s")
    for message in (b"", b"x", bytes(1038)):
        assert prepared.mac(message) == hmac.digest(secret, message, "sha256")
    key = hashlib.sha256(secret + b"AES-KEY-EXPANSION" + secret).digest()
    assert prepared.encryption_key() == key


def test_a_secret_shows_and_leaves_nothing_of_itself() -> None:
    prepared = HmacSecret(SECRET, "lab", "lab-*")
    shown = repr(prepared) + str(prepared) + f"{prepared}"
    assert shown == "HmacSecret('lab', sensors='lab-*')" * 3
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be written"):
            leave(prepared)


def test_high_mac_size_is_about_level_2() -> None:
    old = Options(high_mac_size=16)
    assert [check_bytes(level, old) for level in range(4)] == [2, 16, 16, 32]
    assert [check_bytes(level, Options()) for level in range(4)] == [2, 16, 32, 32]


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("cut", [1, 16, 17, 33])
def test_a_check_value_that_is_cut_proves_nothing(level: int, cut: int) -> None:
    frame = pressure_frame(level=level)
    header = read_header(frame, POLICY)
    with pytest.raises(FrameRefusedError):
        prove(frame[:-cut], header, POLICY, KEYS)


def test_any_of_several_secrets() -> None:
    secrets = [HmacSecret(bytes([value]) * 32, f"{value}") for value in range(3)]
    frame = pressure_frame(secret=bytes([2]) * 32)
    proof = prove(frame, read_header(frame, POLICY), POLICY, FixedKeys({0x10: secrets}))
    assert proof.secret is secrets[2]
    error = refusal(pressure_frame(), keys=FixedKeys({0x10: secrets}))
    assert error.outcome == Outcome.MAC
    assert "none of the 3 secrets of model 0x10" in error.detail


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_computed_hmac_is_never_told(level: int) -> None:
    frame = pressure_frame(level=level)
    right = frame[14 + read_header(frame, POLICY).length :]
    wrong = frame[: -len(right)] + bytes(len(right))
    assert right[:2].hex() not in refusal(wrong).detail


def test_a_crc_that_is_wrong_is_told() -> None:
    frame = pressure_frame(level=0)
    error = refusal(frame[:-2] + b"\0\0")
    assert "0000 found" in error.detail
    assert f"{frame[-2:].hex()} with ccitt" in error.detail
    assert error.crc_disabled is None
    assert "swapped" in refusal(frame[:-2] + frame[:-3:-1]).detail


@pytest.mark.parametrize("variant", ["split", "modbus"])
def test_a_crc_form_that_is_not_enabled_is_named(variant: str) -> None:
    frame = pressure_frame(level=0, crc_variant=variant)
    error = refusal(frame)
    assert error.crc_disabled == variant
    assert variant in error.detail
    enabled = FixedPolicy(Options(crc_variants=("ccitt", "split", "modbus")))
    assert decode(frame, NOW, enabled, KEYS, RecentFrames()).proof.crc_variant == variant


def test_identity() -> None:
    for level in range(4):
        frame = pressure_frame(level=level)
        header = read_header(frame, POLICY)
        identity = frame_id(frame, header)
        assert len(identity) == 16
        covered = frame[: 14 + header.length]
        if level == 0:
            assert identity == hashlib.sha256(covered).digest()[:16]
        else:
            assert identity == frame[len(covered) :][:16]
    # The CRC form does not make it another frame.
    split = pressure_frame(level=0, crc_variant="split")
    plain = pressure_frame(level=0)
    header = read_header(plain, POLICY)
    assert frame_id(split, header) == frame_id(plain, header)


# --- order of checks ----------------------------------------------------------------------------


def test_the_first_check_that_fails_wins() -> None:
    """Begin with a frame that fails all of them; repair one at a time."""
    policy = FixedPolicy(Options(unknown_model="reject", min_level=2, max_payload=900))
    frame = bytearray.fromhex("ffff 09 77 09 f9 ffff 00000000 ffff")

    def judged(keys: FixedKeys = NO_KEYS, now_s: int = NOW) -> str:
        return outcome(bytes(frame), now_s, policy, keys)

    def sign(secret: bytes) -> None:
        del frame[14 + 4 :]
        frame.extend(HmacSecret(secret, "s").mac(bytes(frame)))

    assert outcome(bytes(frame[:13]), NOW, policy) == "E_SHORT"
    assert judged() == "E_MAGIC"
    frame[:2] = b"\xc1\x53"
    assert judged() == "E_VERSION"
    frame[2] = 1
    assert judged() == "E_LEVEL"
    frame[5] = 0xF1
    assert judged() == "E_FLAGS"
    frame[5] = 0x01
    assert judged() == "E_TYPE"
    frame[4] = 1
    assert judged() == "E_RESERVED"
    frame[12:14] = bytes(2)
    assert judged() == "E_LENGTH"
    frame[6:8] = (4).to_bytes(2, "big")
    assert judged() == "E_SHORT"
    frame.extend(bytes(4 + 16 + 1))
    assert judged() == "E_TRAILING"
    del frame[-1]
    assert judged() == "E_MODEL"
    frame[3] = 0x10
    assert judged() == "E_POLICY"
    frame[5] = 0x02
    frame.extend(bytes(16))
    assert judged() == "E_KEY"
    assert judged(KEYS) == "E_MAC"
    frame[8:12] = (NOW + 61).to_bytes(4, "big")
    sign(SECRET)
    assert judged(KEYS) == "E_FUTURE"
    assert judged(KEYS, NOW + 3662) == "E_STALE"
    replay = RecentFrames()
    inside = (bytes(frame), NOW + 1, policy, KEYS, replay)
    assert outcome(*inside) == "E_DECRYPT"
    # It was remembered, although it does not decrypt.
    assert outcome(*inside) == "E_REPLAY"


@pytest.mark.parametrize(
    ("plaintext", "expected"),
    [(b"\1D", "E_PAYLOAD"), (b"\xa1", "E_CBOR"), (b"\xb5", "E_CBOR_LIMIT"), (b"\xa0", "E_PROFILE")],
)
def test_what_a_frame_holds_comes_last(plaintext: bytes, expected: str) -> None:
    frame = encode(0x10, 1, plaintext, level=2, timestamp=NOW, secret=SECRET, iv=bytes(12))
    replay = RecentFrames()
    assert outcome(frame, replay=replay) == expected
    assert outcome(frame, replay=replay) == "E_REPLAY"


@pytest.mark.parametrize(("late", "expected"), [(0, "ok"), (1, "E_STALE")])
def test_the_oldest_and_the_newest_time_pass(late: int, expected: str) -> None:
    assert outcome(pressure_frame(timestamp=NOW - 3600 - late)) == expected
    ahead = {"E_STALE": "E_FUTURE"}.get(expected, expected)
    assert outcome(pressure_frame(timestamp=NOW + 60 + late)) == ahead


@pytest.mark.parametrize(
    "change",
    [
        {"secret": bytes(32)},
        {"timestamp": NOW + 61},
        {"timestamp": NOW - 3601},
    ],
)
def test_only_what_is_authentic_and_timely_is_remembered(change: dict[str, object]) -> None:
    replay = RecentFrames()
    frame = pressure_frame(**change)  # type: ignore[arg-type]
    for _ in range(2):
        assert outcome(frame, replay=replay) in {"E_MAC", "E_FUTURE", "E_STALE"}
    assert outcome(pressure_frame(), replay=replay) == "ok"


def test_size_of_a_frame_in_words() -> None:
    header = Header(1, 0x10, 1, 2, 4, NOW, 0)
    for size, words in {49: "option high_mac_size", 34: "option high_mac_size"}.items():
        with pytest.raises(FrameRefusedError) as caught:
            check_size(bytes(size), header, Options())
        assert (words in caught.value.detail) == (size == 34)


@pytest.mark.parametrize("max_payload", [-1, 1025])
def test_no_payload_beyond_the_format(max_payload: int) -> None:
    with pytest.raises(ValueError, match="max_payload"):
        Options(max_payload=max_payload)
