"""What the quarantine's routes take and return, and what refusals mean in plain words."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, InvalidInputError, all_error_classes
from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.nanogridata.frame import HEADER_BYTES, MAGIC, PayloadType
from ocean_core.storage.operational.quarantine import UNSURE, QuarantineRow

_CLOCKS: Final = "Compare the clocks of device and box (date), and set the wrong one."
_DEVICE: Final = "Look at the device's firmware: the bytes are not as docs/nanogridata.md says."
_SAME: Final = "Give the device and this box the same secret (`ocean keys nanogridata list`)."
MEANINGS: Final[dict[str, tuple[str, str]]] = {
    "E_SHORT": ("The bytes end before the frame does.", _DEVICE),
    "E_MAGIC": ("It does not begin as a frame does, with C1 53.", _DEVICE),
    "E_VERSION": ("It has a version that this box does not know.", _DEVICE),
    "E_LEVEL": ("Its security level is none of 0 to 3.", _DEVICE),
    "E_FLAGS": ("It sets bits that have no meaning yet.", _DEVICE),
    "E_TYPE": ("Its payload type is none of 1 to 5.", _DEVICE),
    "E_RESERVED": ("Its reserved bytes are not 0.", _DEVICE),
    "E_LENGTH": (
        "Its payload is longer than this box takes.",
        "Let the device send less at once, or raise nanogridata.max_payload and try again.",
    ),
    "E_TRAILING": ("Bytes follow the frame where one frame stands alone.", _DEVICE),
    "E_MODEL": (
        "Nobody described this model, and unknown ones are rejected.",
        "Describe it in nanogridata.toml, or set nanogridata.unknown_model = accept; then retry.",
    ),
    "E_POLICY": (
        "Its security level is lower than this box demands.",
        "Let the device sign or encrypt, or lower min_level for its model and retry.",
    ),
    "E_KEY": (
        "This box has no secret for its model.",
        "Add it with `ocean keys nanogridata add`, then retry.",
    ),
    "E_MAC": (
        "Its check value is wrong: damaged on the way, signed with another secret, or forged.",
        _SAME + " Then retry.",
    ),
    "E_FUTURE": ("Its time is ahead of this box's clock.", _CLOCKS),
    "E_STALE": (
        "It is older than this box takes.",
        _CLOCKS + " For devices that store and forward raise nanogridata.max_age_s; or retry with "
        "--any-time.",
    ),
    "E_REPLAY": (
        "The same frame came before.",
        "A device that repeats itself must change time or payload; else somebody else repeats it.",
    ),
    "E_DECRYPT": ("It cannot be decrypted.", _SAME + " Then retry."),
    "E_PAYLOAD": ("Its payload is not laid out as its model's is.", _DEVICE),
    "E_CBOR": ("Its payload is no CBOR that this box takes.", _DEVICE),
    "E_CBOR_LIMIT": ("Its payload is larger or nested deeper than this box takes.", _DEVICE),
    "E_PROFILE": (
        "Its payload lacks fields that its model's profile demands, or they do not fit.",
        "Correct the device, or describe the model in nanogridata.toml; then retry.",
    ),
}
"""What each outcome of the wire format means, and what to do."""

_OWN: Final = {kind.code: (kind("").title + ".", kind.hint) for kind in all_error_classes()}
_UNSURE: Final = (
    "A retry of it was cut off, and nobody can tell any more whether it was stored. Look whether its "
    "readings are there; then retry it by its id, or forget it."
)


class QuarantinedFrame(msgspec.Struct):
    """A refused frame. ``early``: refused for its time by a clock that was not trusted.

    ``state`` is ``held``, ``trying`` (a retry is under way) or ``unsure`` (a retry was cut off, and
    nobody can tell any more whether it stored the frame). ``seen``: how often the same bytes came.
    """

    id: int
    first_seen_at: str
    last_seen_at: str
    seen: int
    transport: str
    address: str
    sender: str
    outcome: str
    detail: str
    offset: int | None
    model: str | None
    sensor_id: str
    given: str
    early: bool
    state: str
    size: int


class QuarantineList(msgspec.Struct):
    """A page, newest first; ``next`` is what to send as ``after``, null at the end."""

    frames: list[QuarantinedFrame]
    next: str | None


class FrameHeader(msgspec.Struct):
    """The header as it stands in the bytes, checked or not."""

    magic: str
    version: int
    model: str
    payload_type: int
    payload_type_name: str | None
    flags: int
    level: int
    length: int
    timestamp: int
    time: str
    reserved: int


class QuarantinedBytes(QuarantinedFrame, kw_only=True):
    """A refused frame with its bytes in hex (the first ones, if ``size`` is more).

    ``header`` is null if there are too few bytes for one. ``meaning`` and ``next_step`` tell in
    plain words why it is here and what to do.
    """

    frame: str
    header: FrameHeader | None
    meaning: str
    next_step: str


class ForgetOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Which frames: ``ids``, or all of an ``outcome``, or ``all``, the oldest first.

    ``after``: only what has a larger id.
    """

    ids: (
        Annotated[
            list[Annotated[int, msgspec.Meta(ge=1, le=limits.READING_ID_MAX)]],
            msgspec.Meta(min_length=1, max_length=limits.QUARANTINE_RETRIED_MAX),
        ]
        | None
    ) = None
    outcome: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    all: bool = False
    after: Annotated[int, msgspec.Meta(ge=0, le=limits.READING_ID_MAX)] = 0


class RetryOrder(ForgetOrder, forbid_unknown_fields=True):
    """What to try again. ``any_time`` leaves the checks of time out."""

    any_time: bool = False


class RetriedFrame(msgspec.Struct):
    """What became of a frame: ``released`` ones (stored, duplicate) are in quarantine no more."""

    id: int
    outcome: str
    detail: str
    released: bool
    sensor_id: str
    rows: int


class Retried(msgspec.Struct):
    """What became of all; ``next`` is what to send as ``after`` to go on, null if none are left."""

    stored: int
    duplicate: int
    kept: int
    frames: list[RetriedFrame]
    next: int | None


class FrameForgotten(msgspec.Struct):
    """The answer to a frame that was deleted."""

    id: int
    forgotten: bool


class FramesForgotten(msgspec.Struct):
    """How many frames were deleted, and which; ids that were not there are left out.

    ``next`` is what to send as ``after`` to go on, null if none are left.
    """

    forgotten: int
    ids: list[int]
    next: int | None


def check_order(order: ForgetOrder) -> None:
    """Require exactly one choice. Raises InvalidInputError."""
    chosen = [
        name
        for name, is_chosen in (
            ("ids", order.ids is not None),
            ("outcome", order.outcome is not None),
            ("all", order.all),
        )
        if is_chosen
    ]
    if len(chosen) != 1:
        found = " and ".join(chosen) or "none of them"
        raise InvalidInputError(
            f"exactly one of ids, outcome and all is needed; found {found}.",
            fields=(FieldProblem("body", found, "one of ids, outcome, all"),),
        )


def shown(row: QuarantineRow) -> QuarantinedFrame:
    """Return a row for a list."""
    return QuarantinedFrame(**_fields(row))


def shown_whole(row: QuarantineRow) -> QuarantinedBytes:
    """Return a row with all that can be told of it."""
    meaning, next_step = MEANINGS.get(row.outcome) or _OWN.get(row.outcome) or ("", "")
    return QuarantinedBytes(
        **_fields(row),
        frame=row.frame.hex(),
        header=_header(row.frame),
        meaning=meaning,
        next_step=_UNSURE if row.state == UNSURE else next_step,
    )


def _fields(row: QuarantineRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "first_seen_at": iso_utc(row.first_us),
        "last_seen_at": iso_utc(row.last_us),
        "seen": row.seen,
        "transport": row.transport,
        "address": row.address,
        "sender": row.actor,
        "outcome": row.outcome,
        "detail": row.detail,
        "offset": row.byte_offset,
        "model": None if row.model_id is None else f"0x{row.model_id:02x}",
        "sensor_id": row.sensor_id,
        "given": row.given,
        "early": bool(row.is_early),
        "state": row.state,
        "size": row.size,
    }


def _header(frame: bytes) -> FrameHeader | None:
    """Return the header's fields as they are; None for too few bytes, or something else."""
    if len(frame) < HEADER_BYTES or frame[:2] != MAGIC:
        return None
    kind, timestamp = frame[4], int.from_bytes(frame[8:12], "big")
    names = {each.value: each.name.lower() for each in PayloadType}
    return FrameHeader(
        magic=frame[:2].hex(),
        version=frame[2],
        model=f"0x{frame[3]:02x}",
        payload_type=kind,
        payload_type_name=names.get(kind),
        flags=frame[5],
        level=frame[5] & 0x0F,
        length=int.from_bytes(frame[6:8], "big"),
        timestamp=timestamp,
        time=iso_utc(timestamp * 1_000_000),
        reserved=int.from_bytes(frame[12:14], "big"),
    )
