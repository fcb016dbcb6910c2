"""Each of the frames with a known result, one test each."""

from math import isclose
from typing import Any

import pytest

from ocean_core.protocol.nanogridata.frame import FrameRefusedError
from ocean_core.protocol.nanogridata.header import unpack_header
from support.nanogrid import as_json, decode_vector, golden

VECTORS = golden()["vectors"]
DERIVED = {"pressure_kpa", "pressure_atm"}


def test_the_file_is_complete() -> None:
    assert len(VECTORS) == 581
    assert len({vector["id"] for vector in VECTORS}) == 581


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_frame(vector: dict[str, Any]) -> None:
    check_header(vector)
    if vector["outcome"] != "ok":
        with pytest.raises(FrameRefusedError) as refusal:
            decode_vector(vector)
        error = refusal.value
        assert error.outcome == vector["outcome"]
        assert error.detail == str(error) != ""
        assert 0 <= error.offset <= len(vector["frame"]) // 2
        return
    decoded = decode_vector(vector)
    content = decoded.content
    frame = bytes.fromhex(vector["frame"])
    assert frame[14 + decoded.header.length :].hex() == vector["mac"]
    assert content.encrypted == vector["encrypted"]
    assert content.encoding == vector["encoding"]
    assert decoded.proof.crc_variant == vector.get("crc_variant")
    assert (decoded.proof.secret is None) == (decoded.header.level == 0)
    assert content.decoded.keys() == vector["decoded"].keys()
    for key, expected in vector["decoded"].items():
        same(as_json(content.decoded[key]), expected, derived=key in DERIVED)
    same([reading._asdict() for reading in content.measurements], vector["measurements"])


def check_header(vector: dict[str, Any]) -> None:
    """Compare the header as it stands on the wire, right or wrong."""
    frame = bytes.fromhex(vector["frame"])
    if vector["header"] is None:
        assert len(frame) < 14
        return
    header = unpack_header(frame)
    assert {"magic": frame[:2].hex(), **header._asdict()} == vector["header"]
    assert header.level == vector["security_level"]


def same(found: Any, expected: Any, *, derived: bool = False) -> None:
    """Compare as IEEE doubles, integers and floats being one kind of number."""
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        assert found is expected or found == expected
        assert type(found) is type(expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert not isinstance(found, bool)
        if derived:
            assert isclose(float(found), float(expected), rel_tol=1e-9)
        else:
            assert float(found) == float(expected)
