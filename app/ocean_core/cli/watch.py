"""`ocean status --watch`: a line per interval, for a technician who looks on.

Figures of an interval are differences between two snapshots, so they are exact whoever else looks.
A server that cannot be reached, or was started again, is told and waited for.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ocean_core.model.errors import (
    ConnectionsFullError,
    InternalError,
    NotRunningError,
    OceanError,
    RateLimitError,
)
from ocean_core.obs.clock import Clock, iso_utc

HEADER_EVERY: Final = 20
WORDS: Final = {"operational": "OK", "degraded": "DEGRADED"}
"""Status to word; anything else is REFUSING."""

HEADER: Final = "time     state   readings/s refused repeats   waiting commit ms    CPU %    MB !"
"""80 letters wide, so that no line is broken on the smallest terminal."""
_MAYBE_SOON: Final = (NotRunningError, ConnectionsFullError, RateLimitError, InternalError)
Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """A snapshot, and when it came: wall clock in microseconds, monotonic clock in seconds."""

    at_us: int
    at_s: float
    status: Status


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two looks. Figures of an interval are None after a (re)start."""

    at_us: int
    state: str
    restarted: bool
    readings_per_second: float
    refused: int | None
    duplicates: int | None
    waiting: int
    commit_ms_p50: float | None
    commit_ms_p99: float | None
    processes: Mapping[str, Mapping[str, float]]
    alarms: tuple[str, ...]
    raised: tuple[Mapping[str, str], ...]
    cleared: tuple[str, ...]


def interval_between(before: Look | None, now: Look) -> Interval:
    """Compare two looks; without a first one, or after a restart, only what is true now is known."""
    status, ingest = now.status, now.status["ingest"]
    restarted = before is not None and _was_restarted(before, now)
    last = None if before is None or restarted else before
    was = None if last is None else last.status["ingest"]
    rate = float(ingest["readings_per_second"])
    if last is not None and was is not None:
        rate = (ingest["acknowledged"] - was["acknowledged"]) / max(now.at_s - last.at_s, 1e-3)
    known = [] if before is None else [alarm["name"] for alarm in before.status["alarms"]]
    open_now = tuple(alarm["name"] for alarm in status["alarms"])
    commits = _commits(ingest, was)
    return Interval(
        at_us=now.at_us,
        state=status["status"],
        restarted=restarted,
        readings_per_second=round(rate, 1),
        refused=None if was is None else ingest["refused"] - was["refused"],
        duplicates=None if was is None else ingest["duplicates"] - was["duplicates"],
        waiting=status["buffer"]["depth"],
        commit_ms_p50=_quantile(commits, 0.5),
        commit_ms_p99=_quantile(commits, 0.99),
        processes={
            name: {"cpu_percent": found["cpu_percent"], "memory_mb": found["memory_mb"]}
            for name, found in status["processes"].items()
        },
        alarms=open_now,
        raised=tuple(
            {key: alarm[key] for key in ("name", "detail", "next_step")}
            for alarm in status["alarms"]
            if alarm["name"] not in known
        ),
        cleared=tuple(name for name in known if name not in open_now),
    )


def _was_restarted(before: Look, now: Look) -> bool:
    # A counter that went back shows it as well, should the clocks have been asked at odd moments.
    return bool(
        now.status["uptime_seconds"] < before.status["uptime_seconds"]
        or now.status["ingest"]["acknowledged"] < before.status["ingest"]["acknowledged"]
    )


def _commits(ingest: Status, was: Status | None) -> list[tuple[float, int]]:
    """Return (milliseconds, commits that took at most so long), of the interval alone."""
    counts: Mapping[str, int] = ingest["commits_within_ms"]
    former: Mapping[str, int] = {} if was is None else was["commits_within_ms"]
    bounds = [float(name) for name in counts if name != "more"]
    # What took longer than the last bound is told as that bound, as everywhere else.
    values = [*bounds, max(bounds, default=0.0)]
    return [
        (value, count - former.get(name, 0))
        for value, (name, count) in zip(values, counts.items(), strict=True)
    ]


def _quantile(counts: Sequence[tuple[float, int]], share: float) -> float | None:
    """Return an upper bound of the quantile, None if nothing was committed."""
    total = counts[-1][1] if counts else 0
    if not total:
        return None
    return next(bound for bound, count in counts if count >= share * total)


# --- lines --------------------------------------------------------------------------------------


def interval_lines(interval: Interval, zone: dt.tzinfo | None = None) -> list[str]:
    """Return an interval as lines for people; ``zone`` None is that of this machine."""
    at = local_time(interval.at_us, zone)
    word = WORDS.get(interval.state, "REFUSING")
    commit = f"{_told(interval.commit_ms_p50)}/{_told(interval.commit_ms_p99)}"
    found = [interval.processes.get(name) for name in ("ingest", "analytics")]
    cpu = "+".join("-" if one is None else f"{one['cpu_percent']:.0f}" for one in found)
    memory = sum(one["memory_mb"] for one in found if one is not None)
    line = (
        f"{at} {word:<8}{interval.readings_per_second:>10,.0f}{_told(interval.refused):>8}"
        f"{_told(interval.duplicates):>8}{interval.waiting:>10,}{commit:>10}{cpu:>9}{memory:>6.0f}"
        f"{len(interval.alarms):>2}"
    )
    lines = [f"{at}  the server was started again", line] if interval.restarted else [line]
    for alarm in interval.raised:
        lines.append(f"{at}  ! {alarm['name']}: {alarm['detail']}")
        lines.append(f"{'':8}    {alarm['next_step']}")
    lines += [f"{at}  cleared: {name}" for name in interval.cleared]
    return lines


def _told(value: float | None) -> str:
    """Return a number with commas and without a needless fraction; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def local_time(at_us: int, zone: dt.tzinfo | None = None) -> str:
    """Return hours, minutes and seconds; ``zone`` None is that of this machine."""
    return (
        dt.datetime.fromtimestamp(at_us // 1_000_000, dt.UTC).astimezone(zone).strftime("%H:%M:%S")
    )


def interval_json(interval: Interval) -> str:
    """Return an interval as one line of JSON."""
    found = {"time": iso_utc(interval.at_us), "status": interval.state}
    names = [name for name in Interval.__slots__ if name not in {"at_us", "state"}]
    return json.dumps(found | {name: getattr(interval, name) for name in names})


# --- the loop -----------------------------------------------------------------------------------


class Watch:
    """Asks, compares, tells."""

    def __init__(
        self,
        ask: Callable[[], Status],
        *,
        clock: Clock,
        pause: Callable[[float], object],
        tell: Callable[[str], object],
        as_json: bool = False,
        is_terminal: bool = False,
        zone: dt.tzinfo | None = None,
    ) -> None:
        """``ask`` returns a snapshot or raises OceanError; ``tell`` gets each line."""
        self._ask = ask
        self._clock = clock
        self._pause = pause
        self._tell = tell
        self._as_json = as_json
        self._is_terminal = is_terminal
        self._zone = zone
        self._last: Look | None = None
        self._lost_at_us: int | None = None
        self._told = 0

    def run(self, interval_s: float, count: int | None = None) -> None:
        """Tell a line per interval, ``count`` of them or until interrupted.

        Raises OceanError if the first question fails for a reason that time does not heal.
        """
        due = self._clock.monotonic()
        while True:
            self._header()
            self._look()
            self._told += 1
            if self._told == count:
                return
            now = self._clock.monotonic()
            # Moments that passed while a server did not answer are left out, not made up for.
            due = max(due + interval_s, now)
            if due > now:
                self._pause(due - now)

    def _header(self) -> None:
        if not self._as_json and self._told % HEADER_EVERY == 0 and (
            self._is_terminal or not self._told
        ):  # fmt: skip
            self._tell(HEADER)

    def _look(self) -> None:
        asked_at_us = self._clock.now_us()
        try:
            status = self._ask()
        except OceanError as error:
            # Whom it has met once, it waits for, whatever happens on the way.
            if self._last is None and not isinstance(error, _MAYBE_SOON):
                raise
            if self._lost_at_us is None:
                self._lost_at_us = asked_at_us
            self._tell_lost(error, self._lost_at_us)
            return
        self._lost_at_us = None
        now = Look(self._clock.now_us(), self._clock.monotonic(), status)
        found = interval_between(self._last, now)
        self._last = now
        if self._as_json:
            self._tell(interval_json(found))
        else:
            for line in interval_lines(found, self._zone):
                self._tell(line)

    def _tell_lost(self, error: OceanError, since_us: int) -> None:
        now_us = self._clock.now_us()
        if self._as_json:
            self._tell(
                json.dumps(
                    {
                        "time": iso_utc(now_us),
                        "status": "unreachable",
                        "since": iso_utc(since_us),
                        "reason": error.detail,
                        "code": error.code,
                    }
                )
            )
            return
        since = local_time(since_us, self._zone)
        self._tell(f"{local_time(now_us, self._zone)}  not reachable since {since}: {error.detail}")
