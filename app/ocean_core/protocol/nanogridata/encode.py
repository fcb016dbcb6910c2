"""Frames as devices make them: for tools, the simulator and tests."""

from __future__ import annotations

import math
import struct
from typing import Any, Final

from ocean_core.protocol.nanogridata.binary import NAME_BYTES_MAX
from ocean_core.protocol.nanogridata.cbor import write_map
from ocean_core.protocol.nanogridata.check import crc
from ocean_core.protocol.nanogridata.encryption import IV_BYTES, OVERHEAD_BYTES, encrypt
from ocean_core.protocol.nanogridata.frame import (
    PAYLOAD_BYTES_MAX,
    CrcVariant,
    Header,
    Options,
    PayloadType,
    Secret,
)
from ocean_core.protocol.nanogridata.header import LEVEL_MAX, VERSION, check_bytes, pack_header
from ocean_core.protocol.nanogridata.secret import HmacSecret

_SECONDS_END: Final = 1 << 32
_SIZES: Final = {16: Options(high_mac_size=16), 32: Options(high_mac_size=32)}


def encode(
    model_id: int,
    payload_type: int,
    plaintext: bytes,
    *,
    level: int,
    timestamp: int,
    secret: bytes | Secret | None = None,
    iv: bytes | None = None,
    crc_variant: CrcVariant = "ccitt",
    high_mac_size: int = 32,
    encrypted: bool = True,
) -> bytes:
    """Return a frame. ``timestamp`` is the header time in seconds since 1970 UTC.

    ``secret`` is needed from level 1 on; one that is used often is worth preparing, as HmacSecret.
    ``iv``, 12 bytes that never come twice, is needed for what is encrypted: levels 2 and 3, unless
    ``encrypted`` is false. ``high_mac_size`` 16 is what old senders do at level 2. Raises
    ValueError, with what was given and what is allowed.
    """
    _check("model id", model_id, 0, 0xFF)
    _check("payload type", payload_type, 1, PayloadType.CALIBRATION)
    _check("level", level, 0, LEVEL_MAX)
    _check("timestamp", timestamp, 0, _SECONDS_END - 1)
    if high_mac_size not in _SIZES:
        raise ValueError(f"high_mac_size is {high_mac_size}, 16 or 32 expected")
    is_encrypted = encrypted and level > 1
    length = len(plaintext) + (OVERHEAD_BYTES if is_encrypted else 0)
    _check("length of the payload on the wire", length, 0, PAYLOAD_BYTES_MAX)
    header = pack_header(Header(VERSION, model_id, payload_type, level, length, timestamp, 0))
    if level == 0:
        covered = header + plaintext
        return covered + crc(crc_variant, covered)
    if secret is None:
        raise ValueError(f"level {level} needs a secret")
    signer = HmacSecret(secret, "given") if isinstance(secret, bytes) else secret
    payload = plaintext
    if is_encrypted:
        if iv is None or len(iv) != IV_BYTES:
            given = "none" if iv is None else f"one of {len(iv)} bytes"
            raise ValueError(f"level {level} needs an IV of {IV_BYTES} bytes, {given} was given")
        payload = encrypt(header, plaintext, signer.encryption_key(), iv)
    covered = header + payload
    return covered + signer.mac(covered)[: check_bytes(level, _SIZES[high_mac_size])]


def pressure_payload(device_id: str, lab_id: str, timestamp: int, pressure_pa: int) -> bytes:
    """Return the binary form of model 0x10. Raises ValueError for what has no place in it."""
    _check("timestamp", timestamp, 0, _SECONDS_END - 1)
    _check("pressure_pa", pressure_pa, 0, _SECONDS_END - 1)
    names = _text("device_id", device_id, 1) + _text("lab_id", lab_id, 0)
    return names + struct.pack(">II", timestamp, pressure_pa)


def gas_payload(device_id: str, gas_type: str, timestamp: int, concentration_ppm: float) -> bytes:
    """Return the binary form of model 0x20; the concentration is rounded to single precision.

    Raises ValueError for what has no place in it.
    """
    _check("timestamp", timestamp, 0, _SECONDS_END - 1)
    names = _text("device_id", device_id, 1) + _text("gas_type", gas_type, 1)
    try:
        if not math.isfinite(concentration_ppm):
            raise OverflowError
        return names + struct.pack(">If", timestamp, concentration_ppm)
    except OverflowError:
        raise ValueError(
            f"concentration_ppm is {concentration_ppm}, which is no finite single-precision number"
        ) from None


def cbor_payload(fields: dict[str, Any]) -> bytes:
    """Return a CBOR payload.

    Raises ValueError or TypeError for what is beyond the limits of section 6.3, except the total
    length, which `encode` checks.
    """
    return write_map(fields)


def _text(field: str, text: str, least: int) -> bytes:
    encoded = text.encode()
    _check(f"length of {field} in bytes", len(encoded), least, NAME_BYTES_MAX)
    return bytes([len(encoded)]) + encoded


def _check(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{field} is {value}, {least} to {most} expected")
