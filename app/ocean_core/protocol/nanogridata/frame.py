"""What a frame consists of, and what can become of one: the words all other modules use.

Section numbers in this package are those of the wire format's description, ``docs/nanogridata.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

MAGIC: Final = b"\xc1\x53"
HEADER_BYTES: Final = 14
PAYLOAD_BYTES_MAX: Final = 1024
FRAME_BYTES_MIN: Final = 16
FRAME_BYTES_MAX: Final = HEADER_BYTES + PAYLOAD_BYTES_MAX + 32
FRAME_ID_BYTES: Final = 16

CrcVariant = Literal["ccitt", "split", "modbus"]

PRESSURE: Final = 0x10
GAS: Final = 0x20
MULTI_SENSOR: Final = 0x30
RASPBERRY_PI: Final = 0x40
CUSTOM: Final = 0xFF
KNOWN_MODELS: Final = frozenset({PRESSURE, GAS, MULTI_SENSOR, RASPBERRY_PI, CUSTOM})


class Outcome(StrEnum):
    """What became of a frame: accepted, or the first check it failed (section 7)."""

    OK = "ok"
    SHORT = "E_SHORT"
    MAGIC = "E_MAGIC"
    VERSION = "E_VERSION"
    LEVEL = "E_LEVEL"
    FLAGS = "E_FLAGS"
    TYPE = "E_TYPE"
    RESERVED = "E_RESERVED"
    LENGTH = "E_LENGTH"
    TRAILING = "E_TRAILING"
    MODEL = "E_MODEL"
    POLICY = "E_POLICY"
    KEY = "E_KEY"
    MAC = "E_MAC"
    FUTURE = "E_FUTURE"
    STALE = "E_STALE"
    REPLAY = "E_REPLAY"
    DECRYPT = "E_DECRYPT"
    PAYLOAD = "E_PAYLOAD"
    CBOR = "E_CBOR"
    CBOR_LIMIT = "E_CBOR_LIMIT"
    PROFILE = "E_PROFILE"

    @property
    def number(self) -> int:
        """Its place in the list above, 0 for ``ok``; what an acknowledgement record carries."""
        return _NUMBERS[self]


_NUMBERS: Final = {outcome: number for number, outcome in enumerate(Outcome)}


class PayloadType(IntEnum):
    """What a payload is for."""

    TELEMETRY = 1
    CONFIG = 2
    EVENT = 3
    COMMAND = 4
    CALIBRATION = 5


class FrameRefusedError(Exception):
    """A frame failed a check; ``offset`` is the byte of the frame that the check looked at.

    For ciphertext it is that of the first encrypted byte, for a payload that of the byte where
    reading it failed.
    """

    def __init__(self, outcome: Outcome, offset: int, detail: str) -> None:
        """Keep ``detail``: in plain words what was found and what would be right."""
        super().__init__(detail)
        self.outcome = outcome
        self.offset = offset
        self.detail = detail
        self.crc_disabled: CrcVariant | None = None
        """The CRC form that would have fitted, had it been enabled: it names the firmware."""


class Header(NamedTuple):
    """The 14 bytes a frame begins with, without its magic."""

    version: int
    model_id: int
    payload_type: int
    flags: int
    length: int
    timestamp: int
    reserved: int

    @property
    def level(self) -> int:
        """Security level, 0 to 15; only 0 to 3 are defined."""
        return self.flags & 0x0F


class Measurement(NamedTuple):
    """One normalised reading: ``ts`` in seconds since 1970 UTC, ``value`` in ``unit``."""

    metric: str
    ts: int | float
    value: int | float
    unit: str


class Content(NamedTuple):
    """What a frame holds: ``decoded`` are its fields, CBOR byte strings among them as ``bytes``."""

    encrypted: bool
    encoding: Literal["cbor", "binary", "raw"]
    decoded: dict[str, Any]
    measurements: list[Measurement]


class Options(msgspec.Struct, frozen=True):
    """What a server accepts; names, meaning and defaults of section 7."""

    max_payload: int = PAYLOAD_BYTES_MAX
    future_tolerance_s: int = 60
    max_age_s: int = 3600
    min_level: int = 0
    unknown_model: Literal["accept", "reject"] = "accept"
    crc_variants: tuple[CrcVariant, ...] = ("ccitt",)
    plaintext_high: bool = False
    high_mac_size: Literal[16, 32] = 32

    def __post_init__(self) -> None:
        """Raise ValueError for a limit beyond that of the format."""
        if not 0 <= self.max_payload <= PAYLOAD_BYTES_MAX:
            raise ValueError(
                f"max_payload is {self.max_payload}, the format allows 0 to {PAYLOAD_BYTES_MAX}"
            )


class Secret(Protocol):
    """A key that frames are signed, and at levels 2 and 3 encrypted, with."""

    @property
    def name(self) -> str:
        """How people call it; never anything of the secret itself."""
        ...

    @property
    def sensors(self) -> str:
        """Pattern (as in ``Principal.sensors``) of the device ids it is for, empty for all."""
        ...

    def mac(self, covered: bytes) -> bytes:
        """Return HMAC-SHA256 over ``covered``, 32 bytes."""
        ...

    def encryption_key(self) -> bytes:
        """Return the AES-256 key of section 5."""
        ...


class Keyring(Protocol):
    """Knows the secrets."""

    def candidates(self, model_id: int) -> Sequence[Secret]:
        """Return the secrets that may have signed a frame of a model, the likeliest first."""
        ...


class CustomModel(Protocol):
    """A model that the operator described: how its binary payload reads, what it measures."""

    def decode_binary(self, plaintext: bytes) -> dict[str, Any] | None:
        """Return the fields, None if no binary layout was described (then it is raw).

        Raises FrameRefusedError (E_PAYLOAD) with ``offset`` counted from the payload's first byte.
        """
        ...

    def measure(self, decoded: dict[str, Any], header: Header) -> list[Measurement]:
        """Return the readings of a telemetry payload. Raises FrameRefusedError (E_PROFILE)."""
        ...


class Policy(Protocol):
    """Knows what is accepted of each model."""

    def options(self, model_id: int) -> Options:
        """Return the options for a model; those of unknown models for one nobody described."""
        ...

    def is_known(self, model_id: int) -> bool:
        """Whether check 11 lets a model through when unknown ones are rejected."""
        ...

    def custom(self, model_id: int) -> CustomModel | None:
        """Return the operator's description of a model, if there is one."""
        ...


class Proof(NamedTuple):
    """By what a frame's check value was found right."""

    secret: Secret | None
    crc_variant: CrcVariant | None
