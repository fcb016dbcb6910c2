"""The 14 bytes a frame begins with, and how long it is (checks 1 to 10 of section 7)."""

from __future__ import annotations

import struct
from typing import Final

from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    MAGIC,
    FrameRefusedError,
    Header,
    Options,
    Outcome,
    PayloadType,
    Policy,
)

VERSION: Final = 1
LEVEL_MAX: Final = 3
_FIELDS: Final = struct.Struct(">4BHIH")
_TYPES: Final = ", ".join(f"{kind.value} {kind.name.lower()}" for kind in PayloadType)
_SWAPPED_MAGIC: Final = MAGIC[::-1]

Bytes = bytes | bytearray | memoryview


def read_header(data: Bytes, policy: Policy, at: int = 0) -> Header:
    """Return the header that stands at ``at``, after checks 1 to 8.

    Raises FrameRefusedError, its offset counted from ``at``.
    """
    if len(data) - at < HEADER_BYTES:
        raise _too_short_for_a_header(len(data) - at)
    magic = data[at : at + 2]
    header = unpack_header(data, at)
    if (
        magic == MAGIC
        and header.version == VERSION
        and header.flags <= LEVEL_MAX
        and 1 <= header.payload_type <= PayloadType.CALIBRATION
        and not header.reserved
        and header.length <= policy.options(header.model_id).max_payload
    ):
        return header
    raise _fault(bytes(magic), header, policy)


def unpack_header(data: Bytes, at: int = 0) -> Header:
    """Return what stands in a header's fields, right or wrong; 14 bytes are there."""
    return Header._make(_FIELDS.unpack_from(data, at + len(MAGIC)))


def pack_header(header: Header) -> bytes:
    """Return the 14 bytes of a header. Raises struct.error for what does not fit its field."""
    return MAGIC + _FIELDS.pack(*header)


def check_bytes(level: int, options: Options) -> int:
    """Return the length of the check value at a level, 0 to 3.

    ``high_mac_size`` is about the level named high, 2: its senders cut nothing at level 3.
    """
    if level == 0:
        return 2
    if level == 1:
        return 16
    return options.high_mac_size if level == 2 else 32


def frame_bytes(header: Header, options: Options) -> int:
    """Return how long the frame is that a header begins: with payload and check value."""
    return HEADER_BYTES + header.length + check_bytes(header.level, options)


def check_size(data: Bytes, header: Header, options: Options) -> None:
    """Checks 9 and 10: ``data`` is one whole frame and nothing more. Raises FrameRefusedError."""
    needed = frame_bytes(header, options)
    if len(data) == needed:
        return
    check = check_bytes(header.level, options)
    parts = f"{HEADER_BYTES} of header, {header.length} of payload, {check} of check value"
    if len(data) > needed:
        follows = (
            "another frame follows" if data[needed : needed + 2] == MAGIC else "nothing may follow"
        )
        raise FrameRefusedError(
            Outcome.TRAILING, needed,
            f"{len(data)} bytes found, the frame ends after {needed} ({parts}); {follows}",
        )  # fmt: skip
    hint = ""
    if header.level == 2 and needed - len(data) == 16 == check - 16:
        hint = "; it would fit a check value of 16 bytes (option high_mac_size)"
    raise FrameRefusedError(
        Outcome.SHORT, len(data), f"{len(data)} bytes found, {needed} needed: {parts}{hint}"
    )


def _too_short_for_a_header(found: int) -> FrameRefusedError:
    return FrameRefusedError(
        Outcome.SHORT, found, f"{found} bytes found, a header alone has {HEADER_BYTES}"
    )


def _fault(magic: bytes, header: Header, policy: Policy) -> FrameRefusedError:
    """Return the first fault of a header that has one."""
    if magic != MAGIC:
        swapped = " (the two bytes are swapped)" if magic == _SWAPPED_MAGIC else ""
        return FrameRefusedError(
            Outcome.MAGIC, 0, f"begins with {magic.hex()}{swapped}, a frame with {MAGIC.hex()}"
        )
    if header.version != VERSION:
        return FrameRefusedError(
            Outcome.VERSION, 2, f"version {header.version} found, only {VERSION} exists"
        )
    if header.level > LEVEL_MAX:
        return FrameRefusedError(
            Outcome.LEVEL, 5,
            f"security level {header.level} found, 0 to {LEVEL_MAX} are defined "
            f"(low half of flags 0x{header.flags:02x})",
        )  # fmt: skip
    if header.flags > LEVEL_MAX:
        return FrameRefusedError(
            Outcome.FLAGS, 5, f"flags 0x{header.flags:02x} found, their high half must be 0"
        )
    if not 1 <= header.payload_type <= PayloadType.CALIBRATION:
        return FrameRefusedError(
            Outcome.TYPE, 4, f"payload type {header.payload_type} found, defined are {_TYPES}"
        )
    if header.reserved:
        return FrameRefusedError(
            Outcome.RESERVED, 12, f"reserved bytes {header.reserved:04x} found, 0000 expected"
        )
    limit = policy.options(header.model_id).max_payload
    return FrameRefusedError(
        Outcome.LENGTH, 6, f"length {header.length} found, at most {limit} bytes are taken"
    )
