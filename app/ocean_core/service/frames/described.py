"""A model that an operator described: what its payloads measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from ocean_core.pipeline.routing import Range, device_text, find
from ocean_core.pipeline.routing.profile import Path
from ocean_core.protocol.nanogridata.frame import (
    CustomModel,
    FrameRefusedError,
    Header,
    Measurement,
    Outcome,
)
from ocean_core.protocol.readings.wording import found_value
from ocean_core.service.frames.layout import Layout, Scaling

TIME_UNITS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclass(frozen=True, slots=True)
class Measured:
    """A value that becomes a reading: where it is, and what it is.

    Without a value (missing, null, NaN, or the number ``absent``) there is no reading if it is
    ``optional``, else the frame is refused.
    """

    path: Path
    metric: str
    unit: str = ""
    scaling: Scaling | None = None
    range: Range | None = None
    optional: bool = False
    absent: float | None = None


@dataclass(frozen=True, slots=True)
class DescribedModel(CustomModel):
    """How a model's payloads are to be understood; all paths may be empty for "nowhere".

    ``time_divisor``: units of the device's time in a second. With ``entries`` the values are in
    each map of the array there, and their time at ``entry_time`` in it.
    """

    measured: Sequence[Measured]
    layout: Layout | None = None
    device_id: Path = ("device_id",)
    timestamp: Path = ("timestamp",)
    time_divisor: int = 1
    entries: Path = ()
    entry_time: Path = ("ts",)

    def decode_binary(self, plaintext: bytes) -> dict[str, Any] | None:
        """Return the fields, None if no binary layout was described."""
        return None if self.layout is None else self.layout.decode(plaintext)

    def measure(self, decoded: dict[str, Any], header: Header) -> list[Measurement]:
        """Return the readings. Raises FrameRefusedError (E_PROFILE) naming the key at fault."""
        if self.device_id and not device_text(find(decoded, self.device_id)):
            raise _refused(self.device_id, find(decoded, self.device_id), "the id of the device")
        base = self._time(decoded, self.timestamp, header.timestamp)
        measurements: list[Measurement] = []
        if not self.entries:
            self._measure(decoded, base, measurements)
            return measurements
        entries = find(decoded, self.entries)
        if not isinstance(entries, list) or not entries:
            raise _refused(self.entries, entries, "a list of entries")
        for entry in entries:
            if not isinstance(entry, Mapping):
                raise _refused(self.entries, entry, "a map for each entry")
            self._measure(entry, self._time(entry, self.entry_time, base), measurements)
        return measurements

    def _time(self, decoded: Mapping[str, Any], path: Path, otherwise: float) -> float:
        value = find(decoded, path)
        if value is None:
            return otherwise
        if not _is_number(value):
            raise _refused(path, value, "a time as a number")
        divisor = self.time_divisor
        if divisor == 1:
            return value  # type: ignore[no-any-return]
        whole, rest = divmod(value, divisor)
        return value / divisor if rest or isinstance(value, float) else whole  # type: ignore[no-any-return]

    def _measure(
        self, decoded: Mapping[str, Any], ts: float, measurements: list[Measurement]
    ) -> None:
        for item in self.measured:
            value = find(decoded, item.path)
            if item.optional and _is_nothing(value, item.absent):
                continue
            if not _is_number(value):
                raise _refused(item.path, value, "a finite number")
            if item.scaling is not None:
                value = item.scaling.apply(value)
                if not isfinite(value):
                    raise _refused(item.path, value, "a number that is finite in its unit")
            measurements.append(Measurement(item.metric, ts, value, item.unit))


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_nothing(value: object, absent: float | None) -> bool:
    if isinstance(value, float) and not isfinite(value):
        return True
    # True equals 1, but is a mistake.
    return value is None or (value == absent and not isinstance(value, bool))


def _refused(path: Path, found: object, expected: str) -> FrameRefusedError:
    told = (
        found_value(found) if isinstance(found, str | int | float)
        else "nothing" if found is None else f"a {type(found).__name__}"
    )  # fmt: skip
    key = ".".join(path)
    return FrameRefusedError(Outcome.PROFILE, 0, f"`{key}`: found {told}, expected {expected}")
