"""CBOR: the examples of RFC 8949 that are taken, and those that are not."""

import math
from typing import Any

import pytest

from ocean_core.protocol.nanogridata.cbor import locate, read_map, write_map
from ocean_core.protocol.nanogridata.frame import FrameRefusedError, Outcome

# Appendix A of RFC 8949, as the value of key "k".
TAKEN = {
    "00": 0,
    "17": 23,
    "1818": 24,
    "1903e8": 1000,
    "1a000f4240": 1_000_000,
    "1b000000e8d4a51000": 1_000_000_000_000,
    "1bffffffffffffffff": 18_446_744_073_709_551_615,
    "3bffffffffffffffff": -18_446_744_073_709_551_616,
    "20": -1,
    "29": -10,
    "3863": -100,
    "3903e7": -1000,
    "f93e00": 1.5,
    "f97bff": 65504.0,
    "fa47c35000": 100_000.0,
    "fb3ff199999999999a": 1.1,
    "f90001": 5.960464477539063e-08,
    "f90400": 0.00006103515625,
    "f9c400": -4.0,
    "f97c00": math.inf,
    "fbfff0000000000000": -math.inf,
    "f4": False,
    "f5": True,
    "f6": None,
    "40": b"",
    "4401020304": b"\1\2\3\4",
    "60": "",
    "6449455446": "IETF",
    "62225c": '"\\',
    "64f0908591": "\U00010151",
    "80": [],
    "83010203": [1, 2, 3],
    "8301820203820405": [1, [2, 3], [4, 5]],
    "a0": {},
    "a26161016162820203": {"a": 1, "b": [2, 3]},
    # Lengths and numbers need not be at their shortest.
    "1b0000000000000001": 1,
    "7b000000000000000161": "a",
    "9a0000000101": [1],
    "ba00000000": {},
}
REFUSED = {
    "an integer cut short": "1a000f42",
    "a float cut short": "fb3ff1",
    "a text cut short": "6449",
    "a byte string cut short": "440102",
    "a tag": "c074323031332d30332d32315432303a30343a30305a",
    "a bignum": "c249010000000000000000",
    "undefined": "f7",
    "a simple value": "f0",
    "a long simple value": "f8ff",
    "a break": "ff",
    "an indefinite byte string": "5f42010243030405ff",
    "an indefinite text": "7f657374726561646d696e67ff",
    "an indefinite array": "9fff",
    "an indefinite map": "bf61610161629f0203ffff",
    "an indefinite integer": "1f",
    "an indefinite negative": "3f",
    "an indefinite tag": "df",
    "a number as key": "a10102",
    "an array as key": "a18001",
    "a key twice": "a2616101616102",
    "additional information 28": "1c",
    "additional information 29": "7d",
    "additional information 30": "fe",
}


def item(hex_text: str) -> bytes:
    return b"\xa1\x61k" + bytes.fromhex(hex_text)


def refusal(data: bytes) -> FrameRefusedError:
    with pytest.raises(FrameRefusedError) as caught:
        read_map(data)
    return caught.value


@pytest.mark.parametrize(("encoded", "value"), TAKEN.items())
def test_taken(encoded: str, value: Any) -> None:
    found = read_map(item(encoded))["k"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number_here() -> None:
    assert math.isnan(read_map(item("f97e00"))["k"])
    assert write_map({"k": math.nan}) == item("f97e00")


@pytest.mark.parametrize("encoded", REFUSED.values(), ids=REFUSED)
def test_refused(encoded: str) -> None:
    assert refusal(item(encoded)).outcome == Outcome.CBOR


@pytest.mark.parametrize("encoded", ["", "00", "6161", "8101", "f6", "d9d9f7a0", "a0a0", "a000"])
def test_anything_but_one_map_is_refused(encoded: str) -> None:
    assert refusal(bytes.fromhex(encoded)).outcome == Outcome.CBOR


@pytest.mark.parametrize("head", ["590101", "790101", "9841", "b5", "b815", "9bffffffffffffffff"])
def test_a_count_is_judged_before_what_it_counts(head: str) -> None:
    error = refusal(item(head))
    assert error.outcome == Outcome.CBOR_LIMIT
    assert error.offset == 3


def test_depth() -> None:
    assert read_map(b"\xa1\x61k" + b"\x81" * 6 + b"\x80")
    error = refusal(b"\xa1\x61k" + b"\x81" * 7 + b"\x80")
    assert (error.outcome, error.offset) == (Outcome.CBOR_LIMIT, 10)
    assert refusal(b"\xa1\x61k" * 300).outcome == Outcome.CBOR_LIMIT


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        ("a26161016161", 4),  # The second key.
        ("a2616101", 4),  # Where the second key should be.
        ("a16161c0", 3),
        ("a1616162c328", 4),  # The byte that is no UTF-8.
        ("a061", 1),
        ("a1616164aa", 3),  # The text that is too long for the payload.
    ],
)
def test_offset_of_a_fault(data: str, offset: int) -> None:
    assert refusal(bytes.fromhex(data)).offset == offset


def test_keys_are_plain_data() -> None:
    assert read_map(write_map({"__proto__": {"__class__": 1}})) == {"__proto__": {"__class__": 1}}


def test_locate() -> None:
    fields = {"device": "d", "entries": [{"ts": 1, "value": 2}, {"ts": 3, "value": "x"}]}
    data = write_map(fields)
    assert data[locate(data, ("entries", 1, "value")) :] == b"\x61x"
    assert data[locate(data, ("entries", 1)) :] == write_map({"ts": 3, "value": "x"})
    # What is missing: the map that should have it.
    assert locate(data, ("entries", 1, "ppm")) == locate(data, ("entries", 1))
    assert locate(data, ("gas_type",)) == locate(data, ()) == 0


@pytest.mark.parametrize(
    "encoded",
    ["00", "17", "1818", "18ff", "190100", "1a00010000", "1b0000000100000000", "20", "37", "3818",
     "3903e7", "f93e00", "fa47c35000", "fb3ff199999999999a", "f97c00", "f98000", "f4", "f5", "f6",
     "6161", "4101", "80", "a0", "83010203"],
)  # fmt: skip
def test_written_at_its_shortest(encoded: str) -> None:
    assert write_map(read_map(item(encoded))) == item(encoded)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"a": 1 << 64}, "a"),
        ({"a": -(1 << 64) - 1}, "a"),
        ({"a": ["x" * 257]}, r"a\[0\]"),
        ({"a": b"x" * 257}, "a"),
        ({"a": {"b": [0] * 65}}, r"a\.b"),
        ({str(n): n for n in range(21)}, "value"),
        ({"a": [[[[[[[[0]]]]]]]]}, "a"),
    ],
)
def test_what_could_not_be_read_is_not_written(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=f"^{place}"):
        write_map(fields)


@pytest.mark.parametrize("fields", [[], {1: 2}, {"a": {b"x": 1}}, {"a": object()}, {"a": {1}}])
def test_what_has_no_form_is_not_written(fields: Any) -> None:
    with pytest.raises(TypeError):
        write_map(fields)
