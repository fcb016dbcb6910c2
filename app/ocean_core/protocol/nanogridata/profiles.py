"""What the telemetry of the known models must hold, and its readings (sections 6.4 and 6.5)."""

from __future__ import annotations

import math
from typing import Any, Final

from ocean_core.protocol.nanogridata.binary import NAME_BYTES_MAX
from ocean_core.protocol.nanogridata.frame import (
    GAS,
    MULTI_SENSOR,
    PRESSURE,
    Header,
    Measurement,
)

Path = tuple[str | int, ...]
Number = int | float

_KIND_NAMES: Final = {
    type(None): "null",
    bool: "a boolean",
    bytes: "a byte string",
    dict: "a map",
    list: "an array",
}


class ProfileError(Exception):
    """A field is missing or wrong; ``path`` leads to it, or to where it should be."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        """Make the text from the parts."""
        super().__init__(f"{_told(path)}: {found} found, {expected} expected")
        self.path = path


def measure(model_id: int, fields: dict[str, Any], header: Header) -> list[Measurement]:
    """Return the readings of a telemetry payload, in the order they were sent.

    ``fields`` are those of a CBOR map, or of a binary form that has names. Raises ProfileError.
    """
    if model_id == PRESSURE:
        _name(fields, "device_id", 1)
        _name(fields, "lab_id", 0)
        readings = _readings(fields, "value", "pressure_pa", header)
        return [Measurement("pressure", ts, value, "Pa") for ts, value in readings]
    if model_id == GAS:
        _name(fields, "device_id", 1)
        metric = f"gas:{_name(fields, 'gas_type', 1)}"
        _optional_text(fields, "lab_id")
        readings = _readings(fields, "ppm", "concentration_ppm", header)
        return [Measurement(metric, ts, value, "ppm") for ts, value in readings]
    if model_id == MULTI_SENSOR:
        _name(fields, "device_id", 1)
        _optional_text(fields, "lab_id")
        return _sensors(fields)
    return []


def _sensors(fields: dict[str, Any]) -> list[Measurement]:
    found = []
    for place, sensor in enumerate(_items(fields, "sensors", least=1)):
        path: Path = ("sensors", place)
        if not isinstance(sensor, dict):
            raise ProfileError(path, _kind(sensor), "a map")
        metric, unit = _text(sensor, "type", path), _text(sensor, "unit", path)
        entries = _items(sensor, "entries", path, least=0)
        found += [
            Measurement(metric, ts, value, unit)
            for ts, value in _entries(entries, "value", (*path, "entries"))
        ]
    return found


def _readings(
    fields: dict[str, Any], value_key: str, flat_key: str, header: Header
) -> list[tuple[Number, Number]]:
    if "entries" in fields:
        entries = _items(fields, "entries", least=1)
        return _entries(entries, value_key, ("entries",))
    if flat_key not in fields:
        raise ProfileError((), "no readings", f"entries, or {flat_key},")
    value = _number(fields, flat_key)
    ts = _number(fields, "timestamp") if "timestamp" in fields else header.timestamp
    return [(ts, value)]


def _entries(entries: list[Any], value_key: str, path: Path) -> list[tuple[Number, Number]]:
    readings = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ProfileError((*path, place), _kind(entry), f"a map of ts and {value_key}")
        ts, value = entry.get("ts"), entry.get(value_key)
        # Most are plain; the other form knows what to say.
        if type(ts) is not int or type(value) is not int:
            ts = _number(entry, "ts", (*path, place))
            value = _number(entry, value_key, (*path, place))
        readings.append((ts, value))
    return readings


def _items(fields: dict[str, Any], key: str, path: Path = (), *, least: int) -> list[Any]:
    found = fields.get(key)
    if not isinstance(found, list):
        raise ProfileError((*path, key), _found(fields, key), "an array")
    if len(found) < least:
        raise ProfileError((*path, key), "an empty array", "at least one item")
    return found


def _number(fields: dict[str, Any], key: str, path: Path = ()) -> Number:
    found = fields.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ProfileError((*path, key), _found(fields, key), "a number")
    if not math.isfinite(found):
        raise ProfileError((*path, key), str(found), "a finite number")
    return found


def _name(fields: dict[str, Any], key: str, least: int) -> str:
    text = _text(fields, key)
    # No character of UTF-8 has more than 4 bytes.
    size = len(text) if text.isascii() else len(text.encode())
    if not least <= size <= NAME_BYTES_MAX:
        raise ProfileError((key,), f"a text of {size} bytes", f"{least} to {NAME_BYTES_MAX}")
    return text


def _optional_text(fields: dict[str, Any], key: str) -> None:
    if key in fields:
        _text(fields, key)


def _text(fields: dict[str, Any], key: str, path: Path = ()) -> str:
    found = fields.get(key)
    if not isinstance(found, str):
        raise ProfileError((*path, key), _found(fields, key), "a text")
    return found


def _found(fields: dict[str, Any], key: str) -> str:
    return _kind(fields[key]) if key in fields else "nothing"


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a text"
    return _KIND_NAMES.get(type(value), "a number")


def _told(path: Path) -> str:
    """Return a path as people write it: ``entries[2].value``."""
    told = ""
    for step in path:
        told += f"[{step}]" if isinstance(step, int) else f".{step}" if told else step
    return told or "the map"
