"""Compressed bodies: what comes out, and what each damage is answered with."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from ocean_core.model.errors import BodyTooLargeError, MalformedBodyError
from ocean_core.protocol.compression import BYTES_PER_PART, PARTS_MIN, expand
from ocean_core.protocol.media import Encoding

TEXT = b'[{"sensor_id":"a","value":1}]' * 1_000
MIB = 1 << 20
GZIP, ZSTD = Encoding.GZIP, Encoding.ZSTD
PACK: dict[Encoding, Callable[[bytes], bytes]] = {GZIP: gzip.compress, ZSTD: zstd.compress}
SKIPPABLE = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"

both = pytest.mark.parametrize("encoding", [GZIP, ZSTD])


def zstd_with(window_log: int, text: bytes = TEXT) -> bytes:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return packer.compress(text) + packer.flush()


def malformed(body: bytes, encoding: Encoding) -> str:
    with pytest.raises(MalformedBodyError) as caught:
        expand(body, encoding, 16 * MIB)
    return caught.value.detail


def test_identity() -> None:
    assert expand(TEXT, Encoding.IDENTITY, 0) is TEXT


@both
def test_what_was_compressed_comes_out(encoding: Encoding) -> None:
    packed = PACK[encoding](TEXT)
    noise = random.Random(1).randbytes(3 * MIB)
    assert expand(packed, encoding, MIB) == TEXT
    assert expand(PACK[encoding](noise), encoding, 4 * MIB) == noise
    assert expand(PACK[encoding](b""), encoding, MIB) == b""


@both
def test_several_parts(encoding: Encoding) -> None:
    packed = PACK[encoding]
    assert expand(packed(b"[") + packed(TEXT) + packed(b"]"), encoding, MIB) == b"[" + TEXT + b"]"


@both
def test_not_one_byte_more_than_allowed(encoding: Encoding) -> None:
    packed = PACK[encoding]
    two = packed(TEXT) + packed(TEXT)
    assert len(expand(two, encoding, 2 * len(TEXT))) == 2 * len(TEXT)
    with pytest.raises(BodyTooLargeError, match="expands to more"):
        expand(two, encoding, 2 * len(TEXT) - 1)


@both
def test_a_bomb_does_not_fill_the_memory(encoding: Encoding) -> None:
    bomb = PACK[encoding](bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            expand(bomb, encoding, 2 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 6 * MIB
    finally:
        tracemalloc.stop()


@both
def test_a_great_many_parts(encoding: Encoding) -> None:
    empty = PACK[encoding](b"")
    assert expand(empty * PARTS_MIN, encoding, 1) == b""
    with pytest.raises(BodyTooLargeError, match="too many"):
        expand(empty * (PARTS_MIN + 1), encoding, 1)
    assert expand(empty * (PARTS_MIN + 4), encoding, (PARTS_MIN + 4) * BYTES_PER_PART) == b""


@pytest.mark.parametrize(
    ("encoding", "kind"), [(GZIP, "gzip member"), (ZSTD, "zstd frame")], ids=["gzip", "zstd"]
)
def test_cut_off(encoding: Encoding, kind: str) -> None:
    packed = PACK[encoding](TEXT)
    for length in (1, len(packed) // 2, len(packed) - 1):
        assert malformed(packed[:length], encoding) == (
            f"The body is cut off: it ends after {length} bytes, inside the {kind} that begins at "
            "byte 0."
        )
    assert f"begins at byte {len(packed)}." in malformed(packed + packed[:5], encoding)


def test_other_bytes_behind() -> None:
    packed = gzip.compress(TEXT)
    assert malformed(packed + b"\n\n", GZIP) == (
        f"After the last gzip member, at byte {len(packed)}, 2 more bytes follow, beginning with "
        "0x0a0a; expected the end, or another gzip member beginning with 0x1f8b."
    )
    assert "1 more bytes follow" in malformed(zstd.compress(TEXT) + b"x", ZSTD)


def test_not_what_the_header_says() -> None:
    assert malformed(b"[{}]", GZIP) == (
        "The body begins with 0x5b7b; expected 0x1f8b, since Content-Encoding says gzip."
    )
    assert "expected 0x28b52ffd" in malformed(gzip.compress(TEXT), ZSTD)
    assert malformed(b"", GZIP) == "The body is empty, not gzip."


def test_damaged() -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    assert malformed(bytes(packed), GZIP) == (
        "The gzip member at byte 0 cannot be expanded: incorrect data check."
    )
    framed = bytearray(zstd.compress(TEXT))
    framed[9] ^= 0xFF
    assert malformed(bytes(framed), ZSTD).startswith("The zstd frame at byte 0 cannot be expanded")


def test_raw_deflate_is_no_gzip() -> None:
    assert "expected 0x1f8b" in malformed(zlib.compress(TEXT), GZIP)


def test_windows_are_bounded() -> None:
    assert expand(zstd_with(23), ZSTD, MIB) == TEXT
    assert malformed(zstd_with(24), ZSTD) == (
        "The zstd frame at byte 0 cannot be expanded: its window is larger than 8 MiB."
    )


def test_skippable_frames_are_skipped() -> None:
    assert expand(SKIPPABLE + zstd.compress(TEXT) + SKIPPABLE, ZSTD, MIB) == TEXT
