"""The dictionary of a packed block: the names of its series, read and checked."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ocean_core.model import limits
from ocean_core.model.block import SeriesName
from ocean_core.model.errors import FieldProblem, MalformedBodyError
from ocean_core.protocol.readings.names import name_is_good, name_problem
from ocean_core.protocol.readings.wording import found_json

HINT: Final = (
    "The block format and an encoder for it are in docs/block-format.md; all its numbers are "
    "little-endian."
)

_LENGTHS: Final = struct.Struct("<HH")
# Clients repeat themselves, so the last few dictionaries are remembered: many small ones and some
# larger ones, half a megabyte of each.
_SMALL_BYTES_MAX: Final = 4 * 1024
_LARGER_BYTES_MAX: Final = 32 * 1024
_SMALL_ONES: Final = 128
_LARGER_ONES: Final = 16
# Names without any doubt, one per line.
_PLAIN_NAMES = re.compile(r"(?:[!-~](?:[ -~]*+(?<! ))?\n)+", re.ASCII)

Entry = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Names of series by their place; those of ``bad`` places are empty, and not acceptable."""

    series: tuple[SeriesName, ...]
    bad: dict[int, Entry]
    distinct: bool

    def problems(self, place: int) -> list[FieldProblem]:
        """Return what is wrong with a bad entry, nothing for a good one."""
        entry = self.bad.get(place)
        if entry is None:
            return []
        sensor_id, metric = entry
        found = (
            _problem("sensor_id", sensor_id, limits.SENSOR_ID_BYTES_MAX),
            _problem("metric", metric, limits.METRIC_BYTES_MAX),
        )
        return [problem for problem in found if problem is not None]


def read_dictionary(names: bytes, entries: int) -> Dictionary:
    """Return the dictionary in ``names``. A bad name is noted, it may be that no row uses it.

    Raises MalformedBodyError when the lengths do not fit.
    """
    if len(names) <= _SMALL_BYTES_MAX:
        return _small(names, entries)
    if len(names) <= _LARGER_BYTES_MAX:
        return _larger(names, entries)
    return _read(names, entries)


def _read(names: bytes, entries: int) -> Dictionary:
    sensors, metrics = _split(names, entries)
    sensor_ids = _plain_names(sensors, limits.SENSOR_ID_BYTES_MAX)
    metric_ids = _plain_names(metrics, limits.METRIC_BYTES_MAX)
    bad: dict[int, Entry] = {}
    if sensor_ids is not None and metric_ids is not None:
        series = tuple(zip(sensor_ids, metric_ids, strict=True))
    else:
        series = tuple(
            _named(place, entry, bad)
            for place, entry in enumerate(zip(sensors, metrics, strict=True))
        )
    return Dictionary(series, bad, not bad and len(set(series)) == len(series))


_small = lru_cache(_SMALL_ONES)(_read)
_larger = lru_cache(_LARGER_ONES)(_read)


def _split(names: bytes, entries: int) -> tuple[list[bytes], list[bytes]]:
    sensors: list[bytes] = []
    metrics: list[bytes] = []
    offset, end = 0, len(names)
    for place in range(entries):
        if offset + _LENGTHS.size > end:
            raise _ended(place, entries, end)
        sensor_bytes, metric_bytes = _LENGTHS.unpack_from(names, offset)
        start = offset + _LENGTHS.size
        middle = start + sensor_bytes
        offset = middle + metric_bytes
        sensors.append(names[start:middle])
        metrics.append(names[middle:offset])
    if offset > end:
        raise _ended(entries - 1, entries, end)
    if offset < end:
        raise MalformedBodyError(
            f"The dictionary has {end} bytes, but its {entries} entries end after {offset}.",
            hint=HINT,
        )
    return sensors, metrics


def _ended(place: int, entries: int, end: int) -> MalformedBodyError:
    return MalformedBodyError(
        f"The dictionary ends after {end} bytes, in entry {place} (from 0) of {entries}.", hint=HINT
    )


def _plain_names(names: list[bytes], bytes_max: int) -> list[str] | None:
    """Return names as texts if all are plain ASCII and good, else None: look closer then."""
    joined = b"\n".join(names) + b"\n"
    if not joined.isascii() or max(map(len, names)) > bytes_max:
        return None
    text = joined.decode("ascii")
    if _PLAIN_NAMES.fullmatch(text) is None:
        return None
    texts = text.split("\n")
    texts.pop()
    return texts if len(texts) == len(names) else None


def _named(place: int, entry: Entry, bad: dict[int, Entry]) -> SeriesName:
    try:
        sensor_id, metric = str(entry[0], "utf-8"), str(entry[1], "utf-8")
    except UnicodeDecodeError:
        bad[place] = entry
        return "", ""
    if name_is_good(sensor_id, limits.SENSOR_ID_BYTES_MAX) and name_is_good(
        metric, limits.METRIC_BYTES_MAX
    ):
        return sensor_id, metric
    bad[place] = entry
    return "", ""


def _problem(field: str, name: bytes, bytes_max: int) -> FieldProblem | None:
    try:
        text = str(name, "utf-8")
    except UnicodeDecodeError as error:
        return FieldProblem(
            field, found_json(name), f"UTF-8; its byte {error.start} is 0x{name[error.start]:02x}"
        )
    return None if name_is_good(text, bytes_max) else name_problem(field, text, bytes_max)
