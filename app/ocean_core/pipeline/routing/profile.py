"""What is known of a model of devices: how its sensors are named, what its readings may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ocean_core.model.block import Quality

GENERIC: Final = "generic"
WILDCARD: Final = "*"

Path = tuple[str, ...]
"""Where a value is in what a device sent: the keys to follow from the outermost map."""


class Range(NamedTuple):
    """Values that a reading should have, both bounds included, in the reading's unit."""

    low: float
    high: float


class Profile:
    """A model's profile. Ranges are looked up by metric: exact names first, then the longest prefix.

    ``device_id`` and ``lab_id`` tell where these are in the decoded payload, empty for nowhere.
    ``prefix`` comes before a device id to make the sensor id.
    """

    __slots__ = (
        "_exact",
        "_prefixes",
        "device_id",
        "lab_id",
        "model",
        "model_id",
        "name",
        "prefix",
    )

    def __init__(
        self,
        model_id: int,
        name: str = GENERIC,
        *,
        ranges: Mapping[str, Range] | None = None,
        device_id: Path = ("device_id",),
        lab_id: Path = ("lab_id",),
        prefix: str = "",
    ) -> None:
        """Take ``ranges`` by metric; a metric that ends in ``*`` stands for all that begin so."""
        self.model_id = model_id
        self.model = f"0x{model_id:02x}"
        self.name = name
        self.device_id = device_id
        self.lab_id = lab_id
        self.prefix = prefix
        by_metric = ranges or {}
        self._exact = {m: r for m, r in by_metric.items() if not m.endswith(WILDCARD)}
        wild = {m.removesuffix(WILDCARD): r for m, r in by_metric.items() if m.endswith(WILDCARD)}
        self._prefixes = sorted(wild.items(), key=lambda item: -len(item[0]))

    def __repr__(self) -> str:
        return f"Profile({self.model} {self.name})"

    def range_of(self, metric: str) -> Range | None:
        """Return what readings of a metric may be, None if nobody said."""
        found = self._exact.get(metric)
        if found is not None:
            return found
        for start, limits in self._prefixes:
            if metric.startswith(start):
                return limits
        return None

    def quality_of(self, metric: str, value: float) -> int:
        """Return the quality of a value whose time is plausible: GOOD or OUT_OF_RANGE."""
        limits = self.range_of(metric)
        if limits is None or limits[0] <= value <= limits[1]:
            return Quality.GOOD.value
        return Quality.OUT_OF_RANGE.value


def find(decoded: Mapping[str, Any], path: Path) -> Any:  # noqa: ANN401 - whatever a device sent
    """Return the value at a path, None if it is not there or the path is empty."""
    if len(path) == 1:
        return decoded.get(path[0])
    found: Any = decoded if path else None
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def device_text(value: object) -> str:
    """Return a device id as text: text as it is, whole numbers in decimal, bytes in hex.

    Empty for anything else, which is no device id.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.hex() if isinstance(value, bytes) else ""
