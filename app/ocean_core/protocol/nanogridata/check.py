"""Check values, and what is judged beside them (checks 11 to 16 of section 7).

The CRC forms of level 0 are told apart by computing them; at levels 1 to 3 an HMAC is compared in
constant time, and never told.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.nanogridata.frame import (
    FRAME_ID_BYTES,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    CrcVariant,
    FrameRefusedError,
    Header,
    Keyring,
    Options,
    Outcome,
    Policy,
    Proof,
    Secret,
)
from ocean_core.protocol.nanogridata.header import check_bytes

CRC_VARIANTS: Final[tuple[CrcVariant, ...]] = ("ccitt", "split", "modbus")
_CRC_INITIAL: Final = 0xFFFF
_MODBUS_POLYNOMIAL: Final = 0xA001
_US_PER_S: Final = 1_000_000


# --- CRC ----------------------------------------------------------------------------------------


def crc(variant: CrcVariant, covered: bytes) -> bytes:
    """Return the two bytes of a CRC form (section 4) over header and payload, as on the wire.

    ``covered`` has 2 bytes or more, and no more than header and payload of the largest frame.
    """
    if variant == "ccitt":
        return crc_hqx(covered, _CRC_INITIAL).to_bytes(2, "big")
    if variant == "split":
        header = crc_hqx(covered[:HEADER_BYTES], _CRC_INITIAL)
        payload = crc_hqx(covered[HEADER_BYTES:], _CRC_INITIAL)
        return (header ^ payload).to_bytes(2, "big")
    return _modbus(covered).to_bytes(2, "little")


def _modbus(covered: bytes) -> int:
    """Return CRC-16/MODBUS. A CRC is linear, so each byte's share can be looked up by its place."""
    shares = _modbus_shares()
    # The initial value acts like a change of the first two bytes.
    padded = bytes([covered[0] ^ 0xFF, covered[1] ^ 0xFF]) + covered[2:]
    values = np.frombuffer(padded, dtype=np.uint8)
    places = np.arange(len(padded) - 1, -1, -1)
    return int(np.bitwise_xor.reduce(shares[places, values]))


@cache
def _modbus_shares() -> npt.NDArray[np.uint16]:
    """Return what each value of a byte adds to the CRC when so many bytes follow it."""
    single = np.arange(256, dtype=np.uint16)
    for _ in range(8):
        single = np.where(single & 1, single >> 1 ^ _MODBUS_POLYNOMIAL, single >> 1)
    shares = np.empty((HEADER_BYTES + PAYLOAD_BYTES_MAX, 256), dtype=np.uint16)
    shares[0] = single
    for place in range(1, len(shares)):
        before = shares[place - 1]
        shares[place] = before >> 8 ^ single[before & 0xFF]
    return shares


# --- proof --------------------------------------------------------------------------------------


def prove(frame: bytes, header: Header, policy: Policy, keys: Keyring) -> Proof:
    """Return by what the check value of a whole frame is right: checks 11 to 14.

    Raises FrameRefusedError: E_MODEL, E_POLICY, E_KEY or E_MAC.
    """
    options = policy.options(header.model_id)
    attempt = attempt_proof(frame, header, options, policy, keys)
    if attempt.proof is None:
        raise explain(frame, header, options, attempt)
    return attempt.proof


class Attempt(NamedTuple):
    """How checks 11 to 14 went: the proof, or the outcome of the check that failed.

    ``tries`` is how many check values were computed, each over all covered bytes.
    """

    proof: Proof | None
    outcome: Outcome
    tries: int


def attempt_proof(
    frame: bytes, header: Header, options: Options, policy: Policy, keys: Keyring
) -> Attempt:
    """Run checks 11 to 14 without a word about why one failed: `explain` finds the words.

    A stream is searched with this: garbage may look like thousands of frames.
    """
    level = header.flags & 0x0F
    if options.unknown_model == "reject" and not policy.is_known(header.model_id):
        return Attempt(None, Outcome.MODEL, 0)
    if level < options.min_level:
        return Attempt(None, Outcome.POLICY, 0)
    at = HEADER_BYTES + header.length
    # Its length is that of the level: what is too short must never be compared with as little.
    size = check_bytes(level, options)
    covered, found = frame[:at], frame[at : at + size]
    if level == 0:
        for variant in options.crc_variants:
            if crc(variant, covered) == found:
                return Attempt(Proof(None, variant), Outcome.OK, 1)
        return Attempt(None, Outcome.MAC, len(options.crc_variants))
    secrets = keys.candidates(header.model_id)
    if not secrets:
        return Attempt(None, Outcome.KEY, 0)
    secret = _signer(secrets, covered, found, size)
    if secret is None:
        return Attempt(None, Outcome.MAC, len(secrets))
    return Attempt(Proof(secret, None), Outcome.OK, 1)


def _signer(secrets: Sequence[Secret], covered: bytes, found: bytes, size: int) -> Secret | None:
    for secret in secrets:
        if compare_digest(secret.mac(covered)[:size], found):
            return secret
    return None


def explain(frame: bytes, header: Header, options: Options, attempt: Attempt) -> FrameRefusedError:
    """Return the error for a frame whose proof failed."""
    model, level = f"0x{header.model_id:02x}", header.level
    if attempt.outcome is Outcome.MODEL:
        return FrameRefusedError(
            Outcome.MODEL, 3, f"model {model} found, which nobody described (unknown_model=reject)"
        )
    if attempt.outcome is Outcome.POLICY:
        return FrameRefusedError(
            Outcome.POLICY, 5,
            f"security level {level} found, at least {options.min_level} expected of model {model}",
        )  # fmt: skip
    if attempt.outcome is Outcome.KEY:
        return FrameRefusedError(
            Outcome.KEY, 5, f"security level {level} needs a secret, none is set for model {model}"
        )
    at = HEADER_BYTES + header.length
    if level == 0:
        return _wrong_crc(frame[:at], frame[at:], options)
    tried = "the secret" if attempt.tries == 1 else f"none of the {attempt.tries} secrets"
    fails = "does not give" if attempt.tries == 1 else "gives"
    return FrameRefusedError(
        Outcome.MAC, at,
        f"check value {frame[at:].hex()} found; {tried} of model {model} {fails} it: another "
        "secret, or the frame was changed on its way",
    )  # fmt: skip


def _wrong_crc(covered: bytes, found: bytes, options: Options) -> FrameRefusedError:
    computed = {variant: crc(variant, covered) for variant in CRC_VARIANTS}
    told = ", ".join(
        f"{computed[variant].hex()} with {variant}" for variant in options.crc_variants
    )
    detail = f"check value {found.hex()} found, computed {told or 'nothing, no form is enabled'}"
    fitting = next((variant for variant in CRC_VARIANTS if computed[variant] == found), None)
    if fitting is not None:
        detail += f"; it fits the form {fitting}, which crc_variants does not enable"
    elif found[::-1] == computed["ccitt"]:
        detail += "; its two bytes are swapped"
    error = FrameRefusedError(Outcome.MAC, len(covered), detail)
    error.crc_disabled = fitting
    return error


# --- time and identity --------------------------------------------------------------------------


def check_time(header: Header, options: Options, now_s: int) -> None:
    """Checks 15 and 16: the header time is neither ahead nor old. Raises FrameRefusedError."""
    ahead = header.timestamp - now_s
    if ahead > options.future_tolerance_s:
        raise FrameRefusedError(
            Outcome.FUTURE, 8,
            f"header time {_moment(header)} is {ahead} s ahead of the clock here, "
            f"at most {options.future_tolerance_s} s are allowed",
        )  # fmt: skip
    if -ahead > options.max_age_s:
        raise FrameRefusedError(
            Outcome.STALE, 8,
            f"header time {_moment(header)} is {-ahead} s old by the clock here, "
            f"at most {options.max_age_s} s are allowed",
        )  # fmt: skip


def _moment(header: Header) -> str:
    return f"{iso_utc(header.timestamp * _US_PER_S)} ({header.timestamp})"


def frame_id(frame: bytes, header: Header) -> bytes:
    """Return the identity of a frame, 16 bytes; ``frame`` is proven.

    At levels 1 to 3 the check value is one; at level 0, where it is too short, a hash of what it
    covers (section 8).
    """
    at = HEADER_BYTES + header.length
    if header.level:
        return frame[at : at + FRAME_ID_BYTES]
    return sha256(frame[:at]).digest()[:FRAME_ID_BYTES]
