"""What of the archive goes by policy, and why: decided from the manifest alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from ocean_core.config.upkeep import RetentionSettings, SensorDays, sensor_days
from ocean_core.storage.archive.manifest import RAW_KINDS, Manifest, Part
from ocean_core.storage.archive.store import DAY_US, day_start_us

TOO_OLD: Final = "age"
TOO_LARGE: Final = "size"
DISK_FULL: Final = "disk full"
_GB: Final = 1_000_000_000


class Removal(NamedTuple):
    """A part that goes, or of it only what came as ``sensors``; None: all of it."""

    part: Part
    reason: str
    sensors: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes, in this order.

    ``unknown`` are parts of which the sensors must be known to decide; ``held`` are parts that
    would go, if all their readings were in rollups already.
    """

    removals: list[Removal]
    unknown: list[Part]
    held: list[Part]


def age_from_us(part: Part) -> int:
    """Return from when on a part ages: the end of its UTC day, or later when it came late."""
    return max(day_start_us(part.date) + DAY_US, part.arrived_us)


def plan(
    manifest: Manifest,
    settings: RetentionSettings,
    now_us: int,
    *,
    sensors_of: Mapping[str, frozenset[str]],
    shown: Callable[[str], str] = str,
) -> Plan:
    """Return what goes at a moment.

    ``sensors_of`` has the stored names of the sensors in parts, by the part's name; patterns are
    compared with what ``shown`` makes of these. Raises ConfigError if a rule makes no sense.
    """
    rules = sensor_days(settings)
    found = Plan([], [], [])
    for part in _oldest_first(part for part in manifest.parts if part.kind in RAW_KINDS):
        over = _over(part, settings.archive_days, rules, now_us, sensors_of.get(part.name), shown)
        if over is False:
            continue
        if not _may_go(part):
            found.held.append(part)
        elif isinstance(over, str):
            found.unknown.append(part)
        else:
            sensors = None if over is True else over
            found.removals.append(Removal(part, TOO_OLD, sensors))
    left = _left(manifest, found.removals)
    days_of = {"rollup_1m": settings.rollup_1m_days, "rollup_1h": settings.rollup_1h_days}
    found.removals.extend(
        Removal(part, TOO_OLD)
        for part in _oldest_rollups(left)
        if _is_over(part, days_of[part.kind], now_us)
    )
    left = _left(manifest, found.removals)
    excess = sum(part.bytes for part in left) - settings.archive_gb * _GB
    if settings.archive_gb and excess > 0:
        found.removals.extend(oldest(left, excess, TOO_LARGE))
    return found


def oldest(parts: Iterable[Part], size: int, reason: str) -> list[Removal]:
    """Return the oldest parts that may go, until they have so many bytes: rollups last."""
    left = list(parts)
    removals: list[Removal] = []
    freed = 0
    raw = [part for part in left if part.kind in RAW_KINDS and _may_go(part)]
    for part in _oldest_first(raw):
        if freed >= size:
            return removals
        removals.append(Removal(part, reason))
        freed += part.bytes
    gone = {removal.part.name for removal in removals}
    for part in _oldest_rollups([part for part in left if part.name not in gone]):
        if freed >= size:
            break
        removals.append(Removal(part, reason))
        freed += part.bytes
    return removals


def _oldest_rollups(parts: list[Part]) -> list[Part]:
    """Return rollups of days without raw readings: minutes first, then hours.

    As long as there are some of them, they count as being in the rollups.
    """
    raw_days = {part.date for part in parts if part.kind == "readings"}
    minutes = [part for part in parts if part.kind == "rollup_1m" and part.date not in raw_days]
    hours = [part for part in parts if part.kind == "rollup_1h" and part.date not in raw_days]
    return [*_oldest_first(minutes), *_oldest_first(hours)]


def _over(
    part: Part,
    days: int,
    rules: tuple[SensorDays, ...],
    now_us: int,
    sensors: frozenset[str] | None,
    shown: Callable[[str], str],
) -> bool | str | frozenset[str]:
    """Return whether a part's time is over, or for which sensors; "unknown" without these."""
    over = {each: _is_over(part, each, now_us) for each in {days, *(rule.days for rule in rules)}}
    if not any(over.values()):
        return False
    if all(over.values()):
        return True
    if sensors is None:
        return "unknown"
    gone = frozenset(name for name in sensors if over[_days_of(shown(name), days, rules)])
    return True if gone == sensors else gone or False


def _days_of(sensor_id: str, days: int, rules: tuple[SensorDays, ...]) -> int:
    for rule in rules:
        if fnmatchcase(sensor_id, rule.pattern):
            return rule.days
    return days


def _is_over(part: Part, days: int, now_us: int) -> bool:
    return days > 0 and now_us >= age_from_us(part) + days * DAY_US


def _may_go(part: Part) -> bool:
    """Whether what is worth keeping of a part is elsewhere."""
    return part.kind != "readings" or part.rolled


def _left(manifest: Manifest, removals: list[Removal]) -> list[Part]:
    gone = {removal.part.name for removal in removals if removal.sensors is None}
    return [part for part in manifest.parts if part.name not in gone]


def _oldest_first(parts: Iterable[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: (age_from_us(part), part.date, part.name))
