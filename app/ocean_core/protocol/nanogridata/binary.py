"""Payloads that are no CBOR: the binary form of each model (section 6.2)."""

from __future__ import annotations

import math
import struct
from typing import Any, Final, Literal, NoReturn

from ocean_core.protocol.nanogridata.frame import (
    GAS,
    MULTI_SENSOR,
    PRESSURE,
    FrameRefusedError,
    Outcome,
)

NAME_BYTES_MAX: Final = 64
PA_PER_KPA: Final = 1000
PA_PER_ATM: Final = 101_325
_WORD_BYTES: Final = 4
_PRESSURE_TAIL: Final = struct.Struct(">II")
_GAS_TAIL: Final = struct.Struct(">If")


def decode_binary(
    model_id: int, plaintext: bytes
) -> tuple[Literal["binary", "raw"], dict[str, Any]]:
    """Return the label of the form that a model has, and the fields.

    Raises FrameRefusedError (E_PAYLOAD, or E_PROFILE for a concentration that is not finite), its
    offset counted from the payload's first byte.
    """
    if model_id == PRESSURE:
        return "binary", _pressure(plaintext)
    if model_id == GAS:
        return "binary", _gas(plaintext)
    if model_id == MULTI_SENSOR:
        return "raw", {
            "sensor_count": len(plaintext) // _WORD_BYTES,
            "raw_hex": plaintext.hex(),
        }
    return "raw", {"raw": plaintext.hex()}


def _pressure(data: bytes) -> dict[str, Any]:
    device_id, at = _text(data, 0, "device id", 1)
    lab_id, at = _text(data, at, "lab id", 0)
    _check_tail(data, at, "pressure")
    timestamp, pressure = _PRESSURE_TAIL.unpack_from(data, at)
    return {
        "device_id": device_id,
        "lab_id": lab_id,
        "timestamp": timestamp,
        "pressure_pa": pressure,
        "pressure_kpa": pressure / PA_PER_KPA,
        "pressure_atm": pressure / PA_PER_ATM,
    }


def _gas(data: bytes) -> dict[str, Any]:
    device_id, at = _text(data, 0, "device id", 1)
    gas_type, at = _text(data, at, "gas type", 1)
    _check_tail(data, at, "concentration")
    timestamp, concentration = _GAS_TAIL.unpack_from(data, at)
    if not math.isfinite(concentration):
        raise FrameRefusedError(
            Outcome.PROFILE, at + 4,
            f"concentration {concentration} ({data[at + 4 : at + 8].hex()}) found, "
            "a finite number expected",
        )  # fmt: skip
    return {
        "device_id": device_id,
        "gas_type": gas_type,
        "timestamp": timestamp,
        "concentration_ppm": concentration,
    }


def _text(data: bytes, at: int, field: str, least: int) -> tuple[str, int]:
    """Return a text with its length before it, and where the next field begins."""
    if at >= len(data):
        _refuse(at, f"the payload ends before the length of the {field}")
    length = data[at]
    if not least <= length <= NAME_BYTES_MAX:
        _refuse(at, f"length {length} of the {field} found, {least} to {NAME_BYTES_MAX} expected")
    end = at + 1 + length
    if end > len(data):
        _refuse(at, f"a {field} of {length} bytes found, {len(data) - at - 1} bytes follow")
    try:
        return str(data[at + 1 : end], "utf-8"), end
    except UnicodeDecodeError as error:
        place = at + 1 + error.start
        _refuse(place, f"byte 0x{data[place]:02x} of the {field} is no UTF-8 ({error.reason})")


def _check_tail(data: bytes, at: int, value: str) -> None:
    found = len(data) - at
    if found == _PRESSURE_TAIL.size:
        return
    if found > _PRESSURE_TAIL.size:
        end = at + _PRESSURE_TAIL.size
        _refuse(end, f"{len(data) - end} bytes after the {value}, the last field")
    field = "time" if found < _WORD_BYTES else value
    have = found % _WORD_BYTES
    _refuse(at + found - have, f"{have} bytes left for the {field}, {_WORD_BYTES} expected")


def _refuse(offset: int, detail: str) -> NoReturn:
    raise FrameRefusedError(Outcome.PAYLOAD, offset, detail)
