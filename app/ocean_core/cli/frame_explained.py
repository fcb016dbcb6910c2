"""What there is to know about one frame: the verdict, and what can be read beyond a failing check.

The verdict is the decoder's own. To look beyond it the check that failed is lifted, where nothing
unsafe comes of that, and the frame is decoded again: a frame that is too old shows what it holds,
and what else is wrong with it. What an unproven frame holds is told as unproven; what is encrypted is
never decrypted before its check value was right.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec

from ocean_core.protocol.nanogridata.check import check_time, prove
from ocean_core.protocol.nanogridata.content import open_payload
from ocean_core.protocol.nanogridata.decoder import FixedKeys, FixedPolicy, decode
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    Content,
    CustomModel,
    FrameRefusedError,
    Header,
    Options,
    Outcome,
    PayloadType,
    Proof,
    Secret,
)
from ocean_core.protocol.nanogridata.header import LEVEL_MAX, check_bytes

_FOREVER_S: Final = 1 << 33
_UNPROVEN: Final = Proof(secret=None, crc_variant=None)


class NoMemory:
    """Every frame is new: only a server knows what came before."""

    def check_and_remember(self, identity: bytes, timestamp: int, now_s: int) -> bool:
        """Return True."""
        del identity, timestamp, now_s
        return True


class Problem(msgspec.Struct, frozen=True):
    """A check that failed: ``offset`` is the byte of the frame at which it looked."""

    outcome: Outcome
    offset: int
    detail: str


@dataclass
class Explained:
    """A frame explained.

    ``content`` is there if the payload could be read, ``is_proven`` tells whether the check value is
    right; ``problems`` has the failing check first, then what else is wrong beyond it. ``end`` is
    where the frame ends by its own header.
    """

    frame: bytes
    now_s: int
    options: Options
    described: Mapping[int, CustomModel]
    header: Header | None = None
    end: int | None = None
    proof: Proof | None = None
    content: Content | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """The verdict."""
        return self.problems[0].outcome if self.problems else Outcome.OK

    @property
    def is_proven(self) -> bool:
        """Whether the check value was found right."""
        return self.proof is not None

    @property
    def mac_bytes(self) -> int:
        """How many bytes of check value the header calls for; 0 if it cannot be told."""
        if self.header is None or self.header.level > LEVEL_MAX:
            return 0
        return check_bytes(self.header.level, self.options)


def explain(
    frame: bytes,
    now_s: int,
    options: Options,
    secret: Secret | None,
    described: Mapping[int, CustomModel] = MappingProxyType({}),
) -> Explained:
    """Return all there is to know about ``frame``, judged by a clock at ``now_s``.

    ``described`` are the models of an operator.
    """
    told = Explained(frame, now_s, options, described)
    told.header = raw_header(frame)
    if told.header is not None and told.header.level <= LEVEL_MAX:
        told.end = HEADER_BYTES + told.header.length + told.mac_bytes
    keys = FixedKeys({}, () if secret is None else (secret,))
    data, lifted = frame, options
    # Each lifted check cannot fail again, so this ends.
    for _ in Outcome:
        try:
            done = decode(data, now_s, FixedPolicy(lifted, described), keys, NoMemory())
        except FrameRefusedError as error:
            told.problems.append(Problem(error.outcome, error.offset, error.detail))
            further = _lifted(error.outcome, told, data, lifted)
            if further is None:
                _look_in(told, data, lifted, keys)
                break
            data, lifted = further
        else:
            told.proof, told.content = done.proof, done.content
            break
    return told


def raw_header(frame: bytes) -> Header | None:
    """Return the header as its bytes are, right or wrong; None if there are too few."""
    if len(frame) < HEADER_BYTES:
        return None
    return Header(*struct.unpack(">BBBBHIH", frame[2:HEADER_BYTES]))


def _lifted(
    outcome: Outcome, told: Explained, data: bytes, options: Options
) -> tuple[bytes, Options] | None:
    """Return frame and options with which the check passes, None if it must not be lifted."""
    changes: dict[Outcome, dict[str, object]] = {
        Outcome.LENGTH: {"max_payload": PAYLOAD_BYTES_MAX},
        Outcome.MODEL: {"unknown_model": "accept"},
        Outcome.POLICY: {"min_level": 0},
        Outcome.FUTURE: {"future_tolerance_s": _FOREVER_S},
        Outcome.STALE: {"max_age_s": _FOREVER_S},
    }
    if outcome is Outcome.TRAILING and told.end is not None:
        return data[: told.end], options
    if outcome is Outcome.LENGTH and options.max_payload >= PAYLOAD_BYTES_MAX:
        return None
    if outcome not in changes:
        return None
    return data, msgspec.structs.replace(options, **changes[outcome])


def _look_in(told: Explained, data: bytes, options: Options, keys: FixedKeys) -> None:
    """Read what can be read of a frame that failed a check which is not lifted."""
    header = told.header
    outcome = told.problems[-1].outcome
    if header is None:
        return
    if outcome in {Outcome.KEY, Outcome.MAC} and header.level <= 1:
        _look_at_times(told, header)
        _open(told, data, header, _UNPROVEN, options)
    elif outcome in {Outcome.PAYLOAD, Outcome.CBOR, Outcome.CBOR_LIMIT, Outcome.DECRYPT}:
        told.proof = _proof(told, data, header, keys, options)
    elif outcome is Outcome.PROFILE:
        told.proof = _proof(told, data, header, keys, options)
        # For any other type of payload every map is right.
        _open(
            told, data, header._replace(payload_type=PayloadType.CONFIG), told.proof, options,
            is_known=True,
        )  # fmt: skip


def _look_at_times(told: Explained, header: Header) -> None:
    try:
        check_time(header, told.options, told.now_s)
    except FrameRefusedError as error:
        told.problems.append(Problem(error.outcome, error.offset, error.detail))


def _open(
    told: Explained,
    data: bytes,
    header: Header,
    proof: Proof | None,
    options: Options,
    *,
    is_known: bool = False,
) -> None:
    try:
        told.content = open_payload(
            data, header, proof or _UNPROVEN, FixedPolicy(options, told.described)
        )
    except FrameRefusedError as error:
        if not is_known:
            told.problems.append(Problem(error.outcome, error.offset, error.detail))


def _proof(
    told: Explained, data: bytes, header: Header, keys: FixedKeys, options: Options
) -> Proof | None:
    try:
        return prove(data, header, FixedPolicy(options, told.described), keys)
    except FrameRefusedError:
        return None
