"""Nanogridata frames written as text, in ``data`` of an item: the original's JSON shape for them."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from ocean_core.protocol.nanogridata.frame import FRAME_BYTES_MAX, FRAME_BYTES_MIN, MAGIC
from ocean_core.protocol.readings.shapes import TEXT

FRAME_KEPT_BYTES: Final = FRAME_BYTES_MAX + 1
"""What is kept of a frame that is too long: enough to find that it is."""

_BEGIN: Final = MAGIC + b"\x01"
_HEX: Final = (b'"c15301', b'"C15301')
_BASE64: Final = b'"wVMB'
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def frame_in(text: bytes) -> bytes | None:
    """Return the frame that a JSON text holds in hex or base64; None if it is anything else.

    Base64 is standard or URL-safe, with or without padding. A frame begins with magic and version
    and has at least 16 bytes; what is wrong with it otherwise is for others to say.
    """
    is_hex = text.startswith(_HEX)
    if not is_hex and not text.startswith(_BASE64):
        return None
    try:
        letters = TEXT.decode(text).encode("ascii")
        frame = binascii.unhexlify(letters) if is_hex else _from_base64(letters)
    except (msgspec.DecodeError, ValueError):
        return None
    if len(frame) < FRAME_BYTES_MIN or not frame.startswith(_BEGIN):
        return None
    return frame[:FRAME_KEPT_BYTES]


def _from_base64(text: bytes) -> bytes:
    """Raise ValueError for what is not base64 throughout."""
    bare = text.rstrip(b"=")
    padding = len(text) - len(bare)
    if padding and len(text) % 4:
        raise ValueError("the padding is wrong")
    if len(bare) % 4 == 1 or padding > 2:
        raise ValueError("no bytes have so many letters")
    return base64.b64decode(bare.translate(_STANDARD) + b"=" * (-len(bare) % 4), validate=True)
