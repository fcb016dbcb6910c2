"""From a proven frame to what it holds: decryption, form, profile (checks 18 to 20)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from ocean_core.protocol.nanogridata.binary import decode_binary
from ocean_core.protocol.nanogridata.cbor import locate, read_map
from ocean_core.protocol.nanogridata.encryption import IV_BYTES, OVERHEAD_BYTES, decrypt
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    Content,
    CustomModel,
    FrameRefusedError,
    Header,
    Measurement,
    Options,
    Outcome,
    PayloadType,
    Policy,
    Proof,
)
from ocean_core.protocol.nanogridata.profiles import ProfileError, measure

_Encoding = Literal["cbor", "binary", "raw"]


class _Plaintext(NamedTuple):
    """A payload in the clear; its first byte stands at ``at`` in the frame."""

    text: bytes
    at: int
    encrypted: bool


def open_payload(frame: bytes, header: Header, proof: Proof, policy: Policy) -> Content:
    """Return what a proven frame holds.

    Raises FrameRefusedError: E_DECRYPT, E_PAYLOAD, E_CBOR, E_CBOR_LIMIT or E_PROFILE.
    """
    plain = _plaintext(frame, header, proof, policy.options(header.model_id))
    custom = policy.custom(header.model_id)
    try:
        encoding, decoded = _decode(plain.text, header, custom)
        measurements = _measure(plain.text, encoding, decoded, header, custom)
    except FrameRefusedError as error:
        # The readers count from the payload's first byte.
        error.offset += plain.at
        raise
    return Content(plain.encrypted, encoding, decoded, measurements)


def check_group(header: Header, proof: Proof, content: Content) -> None:
    """Refuse a frame that was signed with the secret of devices to which its own does not belong.

    Whoever holds the secret of a few devices must not speak for others. Raises FrameRefusedError
    (E_MAC).
    """
    if proof.secret is None or not proof.secret.sensors:
        return
    device = content.decoded.get("device_id")
    if isinstance(device, str) and fnmatchcase(device, proof.secret.sensors):
        return
    named = f"device {device!r}" if isinstance(device, str) else "a frame that names no device"
    raise FrameRefusedError(
        Outcome.MAC, HEADER_BYTES + header.length,
        f"signed with the secret {proof.secret.name!r}, which is for devices "
        f"{proof.secret.sensors!r} alone, not for {named}",
    )  # fmt: skip


def _plaintext(frame: bytes, header: Header, proof: Proof, options: Options) -> _Plaintext:
    payload = frame[HEADER_BYTES : HEADER_BYTES + header.length]
    if header.level <= 1:
        return _Plaintext(payload, HEADER_BYTES, encrypted=False)
    assert proof.secret is not None, "a level that encrypts was proven by a secret"
    try:
        text = decrypt(frame[:HEADER_BYTES], payload, proof.secret.encryption_key())
    except FrameRefusedError:
        if options.plaintext_high:
            return _Plaintext(payload, HEADER_BYTES, encrypted=False)
        raise
    assert len(text) == len(payload) - OVERHEAD_BYTES
    return _Plaintext(text, HEADER_BYTES + IV_BYTES, encrypted=True)


def _decode(
    plaintext: bytes, header: Header, custom: CustomModel | None
) -> tuple[_Encoding, dict[str, Any]]:
    if plaintext and 0xA0 <= plaintext[0] <= 0xBF:
        return "cbor", read_map(plaintext)
    if custom is not None:
        fields = custom.decode_binary(plaintext)
        if fields is not None:
            return "binary", fields
    return decode_binary(header.model_id, plaintext)


def _measure(
    plaintext: bytes,
    encoding: _Encoding,
    decoded: dict[str, Any],
    header: Header,
    custom: CustomModel | None,
) -> list[Measurement]:
    # Opaque bytes have no readings: no source says what they mean.
    if header.payload_type != PayloadType.TELEMETRY or encoding == "raw":
        return []
    if custom is not None:
        return custom.measure(decoded, header)
    try:
        return measure(header.model_id, decoded, header)
    except ProfileError as error:
        offset = locate(plaintext, error.path) if encoding == "cbor" else 0
        raise FrameRefusedError(Outcome.PROFILE, offset, str(error)) from None
