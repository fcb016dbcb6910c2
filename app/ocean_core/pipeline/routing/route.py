"""From a frame that passed all checks to the rows of the buffer."""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec

from ocean_core.model import limits
from ocean_core.model.block import Quality, Readings, SeriesName
from ocean_core.model.errors import FieldProblem, InvalidReadingError
from ocean_core.obs.clock import iso_utc
from ocean_core.pipeline.routing.profile import Profile, device_text, find
from ocean_core.protocol.nanogridata.frame import Content, Header, Measurement, PayloadType
from ocean_core.protocol.readings.names import name_is_good, name_problem
from ocean_core.protocol.readings.wording import found_value, invalid_reading

_SECOND_US: Final = 1_000_000
_SECONDS_BELOW: Final = limits.TIMESTAMP_US_MAX // _SECOND_US + 1
_TYPE_NAMES: Final = {kind.value: kind.name.lower() for kind in PayloadType}
_JSON: Final = msgspec.json.Encoder()


class Routed(NamedTuple):
    """Where a frame belongs, and what becomes of it there: readings, or one event as JSON text.

    ``timestamp_us`` is that of the first row, ``quality`` the worst of all. ``lab_id`` and the
    units by metric are for people, so they have no control characters; empty where unknown.
    """

    sensor_id: str
    readings: Readings | None
    event: bytes | None
    timestamp_us: int
    quality: int
    lab_id: str
    units: dict[str, str]


def route(
    header: Header,
    content: Content,
    profile: Profile,
    *,
    arrival_us: int,
    clock_trusted: bool,  # noqa: ARG001 - see below
    given: str = "",
) -> Routed:
    """Make of a frame what is stored: its measurements as readings, else the whole as one event.

    The sensor id is the device id behind the profile's prefix; if the frame names no device, it is
    ``given``, else one that all such frames of the model share. A value outside the profile's range
    is kept with quality 1. A time before 2000 or over 60 s after ``arrival_us`` has quality 2,
    whether this box's clock is trusted or not: the frame itself was found to be fresh, what it
    carries is data. Raises InvalidReadingError for a name or a time that cannot be stored.
    """
    decoded = content.decoded
    device_id = device_text(find(decoded, profile.device_id))
    sensor_id = profile.prefix + device_id if device_id else given
    if not sensor_id:
        sensor_id = f"nanogridata_{header.model_id:02x}"
    elif not name_is_good(sensor_id, limits.SENSOR_ID_BYTES_MAX):
        field = ".".join(profile.device_id) if device_id else "sensor_id"
        raise _refused(name_problem(field, sensor_id, limits.SENSOR_ID_BYTES_MAX))
    lab = find(decoded, profile.lab_id)
    lab_id = _tidy(lab) if isinstance(lab, str) else ""
    if content.measurements and header.payload_type == PayloadType.TELEMETRY:
        readings, units = _readings(sensor_id, content.measurements, profile, arrival_us)
        quality = max(readings.quality)
        return Routed(sensor_id, readings, None, readings.timestamp_us[0], quality, lab_id, units)
    moment = header.timestamp * _SECOND_US
    event = _event(header, decoded, profile)
    return Routed(sensor_id, None, event, moment, _time_quality(moment, arrival_us), lab_id, {})


def moment_us(seconds: float) -> int:
    """Return microseconds since 1970 UTC, for whole seconds exact, else to the nearest.

    Raises ValueError for what is not finite, negative or beyond the year 9999.
    """
    # NaN compares false.
    if not 0 <= seconds < _SECONDS_BELOW:
        raise ValueError(seconds)
    if isinstance(seconds, int):
        return seconds * _SECOND_US
    return min(round(seconds * _SECOND_US), limits.TIMESTAMP_US_MAX)


def _readings(
    sensor_id: str, measurements: list[Measurement], profile: Profile, arrival_us: int
) -> tuple[Readings, dict[str, str]]:
    series: list[SeriesName] = []
    places: dict[str, int] = {}
    units: dict[str, str] = {}
    index: list[int] = []
    times: list[int] = []
    values: list[float] = []
    qualities: list[int] = []
    for number, (metric, ts, measured, unit) in enumerate(measurements):
        place = places.get(metric)
        if place is None:
            if not name_is_good(metric, limits.METRIC_BYTES_MAX):
                field = f"measurements[{number}].metric"
                raise _refused(name_problem(field, metric, limits.METRIC_BYTES_MAX))
            place = places[metric] = len(series)
            series.append((sensor_id, metric))
            units[metric] = _tidy(unit)
        value = float(measured)
        if not isfinite(value):
            raise _refused(
                FieldProblem(f"measurements[{number}].value", found_value(value), "a finite number")
            )
        try:
            moment = moment_us(ts)
        except ValueError:
            raise _refused(_time_problem(f"measurements[{number}].ts", ts)) from None
        index.append(place)
        times.append(moment)
        values.append(value)
        qualities.append(_time_quality(moment, arrival_us) or profile.quality_of(metric, value))
    return Readings(series, index, times, values, qualities), units


def _time_quality(moment: int, arrival_us: int) -> int:
    if limits.TIMESTAMP_PLAUSIBLE_US_MIN <= moment <= arrival_us + limits.FUTURE_TOLERANCE_US:
        return Quality.GOOD.value
    return Quality.UNTRUSTED_CLOCK.value


def _time_problem(field: str, ts: float) -> FieldProblem:
    expected = "seconds since 1970-01-01 UTC, not negative, at most 253402300799 (year 9999)"
    return FieldProblem(field, found_value(ts), expected)


def _refused(problem: FieldProblem) -> InvalidReadingError:
    error = invalid_reading((problem,), 1)
    error.hint = "Correct it in the device; the other frames are not affected."
    return error


def _event(header: Header, decoded: dict[str, Any], profile: Profile) -> bytes:
    return _JSON.encode(
        {
            "type": _TYPE_NAMES.get(header.payload_type, str(header.payload_type)),
            "model": f"0x{header.model_id:02x}",
            "profile": profile.name,
            "level": header.level,
            "timestamp": iso_utc(header.timestamp * _SECOND_US),
            "payload": _plain(decoded),
        }
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a device sent
    """Return the same with byte strings as JSON can say them. Payloads nest 8 deep at most."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


# Labs and units are few, and come with every frame.
@lru_cache(maxsize=1024)
def _tidy(text: str) -> str:
    """Return text on one line without anything that could steer a terminal."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(clean.split())
