"""Binary payloads of models that an operator described: fields one after another, big-endian."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple

from ocean_core.protocol.nanogridata.frame import FrameRefusedError, Outcome

TEXT: Final = "text8"
NUMBER_CODES: Final = {
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q",
    "f32": "f", "f64": "d",
}  # fmt: skip
TYPES: Final = (TEXT, *NUMBER_CODES, "bytesN (N bytes)")


class Scaling(NamedTuple):
    """What turns a number as sent into one in its unit: times ``factor``, then plus ``offset``.

    Where ``divisor`` is not 0 it is 1 / ``factor``: 2151 / 100 is 21.51, but 2151 * 0.01 is not
    for every number.
    """

    factor: float = 1
    offset: float = 0
    divisor: int = 0

    @classmethod
    def of(cls, factor: float, offset: float) -> Scaling | None:
        """Return the scaling, None if it changes nothing."""
        if factor == 1 and offset == 0:
            return None
        # Beyond 1e15 there is no such whole number to be exact about.
        divisor = round(1 / factor) if 1e-15 < abs(factor) < 1 else 0
        return cls(factor, offset, divisor if divisor and 1 / divisor == factor else 0)

    def apply(self, number: float) -> float:
        """Return a number in its unit."""
        scaled = number / self.divisor if self.divisor else number * self.factor
        return scaled + self.offset if self.offset else scaled


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``type`` as in TYPES; ``absent`` is the number sent for "nothing measured"."""

    name: str
    type: str
    size: int
    scaling: Scaling | None = None
    absent: float | None = None

    @property
    def code(self) -> str:
        """Its code in ``struct``; a text has none."""
        return NUMBER_CODES.get(self.type) or f"{self.size}s"

    @property
    def is_number(self) -> bool:
        """Whether it can be measured."""
        return self.type in NUMBER_CODES

    @property
    def is_plain(self) -> bool:
        """Whether its value is what was sent."""
        return self.scaling is None and self.absent is None

    def value_of(self, sent: float) -> float | None:
        """Return the value of a number as sent, None if it stands for nothing measured."""
        if sent == self.absent:
            return None
        if self.scaling is None or not isfinite(sent):
            return sent
        return self.scaling.apply(sent)


@dataclass(frozen=True, slots=True)
class _Run:
    """Fields of fixed size in a row, which are read together."""

    form: struct.Struct
    fields: tuple[Field, ...]
    is_plain: bool


class Layout:
    """How a binary payload reads."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._steps = _steps(fields)

    @property
    def bytes_min(self) -> int:
        """Size of the shortest payload: texts empty."""
        return sum(field.size for field in self.fields)

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields by name, numbers in their units.

        Raises FrameRefusedError (E_PAYLOAD) with the offset in the payload when it is too short or
        too long, or a text is not UTF-8.
        """
        decoded: dict[str, Any] = {}
        at, size = 0, len(payload)
        for step in self._steps:
            if isinstance(step, Field):
                at = self._text(step, payload, at, decoded)
                continue
            if at + step.form.size > size:
                raise _too_short(step, payload, at)
            numbers = step.form.unpack_from(payload, at)
            if step.is_plain:
                decoded.update(zip([field.name for field in step.fields], numbers, strict=True))
            else:
                for field, sent in zip(step.fields, numbers, strict=True):
                    decoded[field.name] = sent if field.is_plain else field.value_of(sent)
            at += step.form.size
        if at < size:
            raise _refused(
                at, f"{size - at} bytes follow the last field `{self.fields[-1].name}`, "
                f"which ends after {at} bytes of the payload"
            )  # fmt: skip
        return decoded

    @staticmethod
    def _text(field: Field, payload: bytes, at: int, decoded: dict[str, Any]) -> int:
        if at >= len(payload):
            raise _refused(at, f"the payload ends before the length of `{field.name}`")
        start = at + 1
        end = start + payload[at]
        if end > len(payload):
            raise _refused(
                at,
                f"`{field.name}` is said to have {payload[at]} bytes, "
                f"but {len(payload) - start} are left",
            )
        try:
            decoded[field.name] = str(payload[start:end], "utf-8")
        except UnicodeDecodeError as error:
            raise _refused(
                start + error.start,
                f"`{field.name}` is not UTF-8: its byte {error.start} is "
                f"0x{payload[start + error.start]:02x}",
            ) from None
        return end


def _steps(fields: Sequence[Field]) -> list[Field | _Run]:
    steps: list[Field | _Run] = []
    run: list[Field] = []
    for field in (*fields, None):
        if field is not None and field.type != TEXT:
            run.append(field)
            continue
        if run:
            form = struct.Struct(">" + "".join(item.code for item in run))
            steps.append(_Run(form, tuple(run), all(item.is_plain for item in run)))
            run = []
        if field is not None:
            steps.append(field)
    return steps


def _too_short(run: _Run, payload: bytes, at: int) -> FrameRefusedError:
    for field in run.fields:
        if at + field.size > len(payload):
            left = len(payload) - at
            return _refused(
                at, f"`{field.name}` ({field.type}) takes {field.size} bytes, but {left} are left"
            )
        at += field.size
    raise AssertionError("the payload is long enough")


def _refused(at: int, detail: str) -> FrameRefusedError:
    return FrameRefusedError(Outcome.PAYLOAD, at, detail)
