"""What to do about a refused frame: in general by error, and from what the frame itself shows.

The mistakes looked for here are those that senders in the field make; each is tried and not guessed,
so that what is told is true.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Iterator
from typing import Final

from ocean_core.cli.frame_explained import Explained
from ocean_core.model import limits
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    MAGIC,
    PAYLOAD_BYTES_MAX,
    Header,
    Outcome,
)

NEXT_STEPS: Final[dict[Outcome, str]] = {
    Outcome.SHORT: "Send all bytes of the frame; compare the header's length with what was written.",
    Outcome.MAGIC: "Begin each frame with C1 53; over UDP and HTTP nothing may stand before it.",
    Outcome.VERSION: "Send version 1, the only one.",
    Outcome.LEVEL: "Put a level from 0 to 3 into the low four bits of the flags.",
    Outcome.FLAGS: "Leave the high four bits of the flags 0.",
    Outcome.TYPE: "Send a payload type from 1 to 5: telemetry, config, event, command, calibration.",
    Outcome.RESERVED: "Leave the last two bytes of the header 0.",
    Outcome.LENGTH: "Send less in a frame: split what is too long, or shorten the texts in it.",
    Outcome.TRAILING: "Send one frame in a datagram or request, and nothing after its check value.",
    Outcome.MODEL: "Describe the model on the box (nanogridata.toml), or let nanogridata."
    "unknown_model be accept.",
    Outcome.POLICY: "Send at a higher level, or lower nanogridata.min_level (or min_level of the "
    "model) on the box.",
    Outcome.KEY: "Give the box the device's secret: `ocean keys nanogridata add` (and this command: "
    "--secret-file).",
    Outcome.MAC: "Compare the secrets of device and box (`ocean keys nanogridata list`), and what the "
    "check value is computed over: the 14 header bytes and the payload as sent.",
    Outcome.FUTURE: "Set the device's clock, in UTC; compare it with that of the box (`date -u`).",
    Outcome.STALE: "Set the device's clock, or make the frame when it is sent; for devices that store "
    "and forward raise nanogridata.max_age_s.",
    Outcome.REPLAY: "Send new readings as a new frame. A frame refused for what it holds is not taken "
    "again unchanged; one that was stored is answered as a duplicate.",
    Outcome.DECRYPT: "Compare key, IV and additional data with section 5 of docs/nanogridata.md; for "
    "senders that do not encrypt there is nanogridata.plaintext_high.",
    Outcome.PAYLOAD: "Compare the payload byte by byte with section 6.2 of docs/nanogridata.md.",
    Outcome.CBOR: "Send one CBOR map without tags, indefinite lengths and repeated keys (section 6.3 "
    "of docs/nanogridata.md).",
    Outcome.CBOR_LIMIT: "Keep within 256 bytes of text, 64 items, 20 pairs, 8 levels; send several "
    "frames.",
    Outcome.PROFILE: "Add or correct the named field (section 6.4 of docs/nanogridata.md).",
}
"""By error; the table of docs/nanogridata.md says the same."""


def advice(told: Explained, secret: bytes | None) -> list[str]:
    """Return what to do about the first problem of a frame, the most telling first."""
    if told.outcome is Outcome.OK:
        return []
    return [*_found(told, secret), NEXT_STEPS[told.outcome]]


def _found(told: Explained, secret: bytes | None) -> Iterator[str]:
    outcome, header = told.outcome, told.header
    if (outcome in {Outcome.MAGIC, Outcome.SHORT} and header is None) or outcome is Outcome.MAGIC:
        yield from _other_place(told.frame)
    elif header is None:
        return
    elif outcome is Outcome.SHORT:
        yield from _shortage(told, header, secret)
    elif outcome is Outcome.TRAILING:
        yield from _surplus(told)
    elif outcome is Outcome.LENGTH and header.length > PAYLOAD_BYTES_MAX:
        low, high = header.length & 0xFF, header.length >> 8
        if HEADER_BYTES + (low << 8) + high + told.mac_bytes == len(told.frame):
            yield "The length is right if its two bytes are swapped: write it big-endian."
    elif outcome in {Outcome.FUTURE, Outcome.STALE}:
        yield from _wrong_time(header, told.now_s)
    elif outcome is Outcome.MAC and header.level:
        yield from _wrong_mac(told.frame, header, told.mac_bytes, secret)
    elif outcome is Outcome.DECRYPT and 0xA0 <= told.frame[HEADER_BYTES] <= 0xBF:
        yield (
            "The payload looks like CBOR that was not encrypted; `--option plaintext_high=true` "
            "reads it so."
        )


def _other_place(frame: bytes) -> Iterator[str]:
    place = frame.find(MAGIC, 1)
    if place > 0:
        yield f"C1 53 stands at byte {place}: leave out the {place} bytes before it."


def _shortage(told: Explained, header: Header, secret: bytes | None) -> Iterator[str]:
    assert told.end is not None
    if header.level == 2 and len(told.frame) == told.end - 16:
        covered, check = told.frame[:-16], told.frame[-16:]
        if secret and hmac.compare_digest(_hmac(secret, covered)[:16], check):
            yield (
                "The frame is whole with a check value of 16 bytes, and that one is right: "
                "`--option high_mac_size=16`, on the box nanogridata.high_mac_size = 16."
            )
    elif header.level and len(told.frame) == HEADER_BYTES + header.length + 2:
        yield "It would be whole with a check value of 2 bytes: those of level 0."
    elif header.level and header.length == len(told.frame) - HEADER_BYTES:
        yield "The length counts the check value, too; it must count the payload only."


def _surplus(told: Explained) -> Iterator[str]:
    beyond = told.frame[told.end :]
    if beyond in {b"\n", b"\r\n"}:
        yield "What is too much is an end of line that a shell or an editor added."
    elif beyond.startswith(MAGIC):
        yield "What follows begins with C1 53: a second frame. Decode one after the other."


def _wrong_time(header: Header, now_s: int) -> Iterator[str]:
    apart = header.timestamp - now_s
    hours = round(apart / 3600)
    if header.timestamp < 1_000_000_000:
        yield (
            "The device counts from its start, or from another year than 1970: its clock was never "
            "set."
        )
    elif 1 <= abs(hours) <= 14 and abs(apart - hours * 3600) <= 60:
        yield f"It is off by {hours:+d} h: the device sends local time. Send UTC."


def _wrong_mac(frame: bytes, header: Header, size: int, secret: bytes | None) -> Iterator[str]:
    end = HEADER_BYTES + header.length
    covered, check = frame[:end], frame[end : end + size]
    if secret is not None:
        for name, other in _mistaken_secrets(secret):
            if hmac.compare_digest(_hmac(other, covered)[:size], check):
                yield f"The check value is right for {name}."
                return
        if hmac.compare_digest(_hmac(secret, covered[HEADER_BYTES:])[:size], check):
            yield "The check value covers the payload alone; it must cover the header, too."
            return
        if _firmware_check(covered, secret) == check[:2]:
            yield (
                "This is the C firmware's checksum, no HMAC: it proves nothing, and no option "
                "accepts it. Update the firmware."
            )
            return
    if binascii.crc_hqx(covered, 0xFFFF).to_bytes(2, "big") == check[:2]:
        yield "It begins with the CRC of level 0; at this level it must be an HMAC-SHA256."


def _mistaken_secrets(secret: bytes) -> Iterator[tuple[str, bytes]]:
    text = secret.hex()
    yield (
        "the hex text of the secret: the device must use the bytes that it stands for",
        text.encode(),
    )
    yield (
        "the hex text of the secret in capitals: use the bytes it stands for",
        text.upper().encode(),
    )
    yield (
        "the secret with an end of line after it: remove that from the device's copy",
        secret + b"\n",
    )
    stripped = secret.rstrip(b"\r\n")
    if stripped != secret:
        yield "the secret without the end of line that the file has", stripped
    if len(secret) > limits.SECRET_BYTES_MIN:
        yield "the first 32 bytes of the secret", secret[:32]


def _firmware_check(covered: bytes, secret: bytes) -> bytes:
    parts = (covered[:HEADER_BYTES], covered[HEADER_BYTES:], secret)
    value = 0
    for part in parts:
        value ^= binascii.crc_hqx(part, 0xFFFF)
    return value.to_bytes(2, "big")


def _hmac(secret: bytes, covered: bytes) -> bytes:
    return hmac.digest(secret, covered, "sha256")
