"""The sensors: what each measures at each moment, and what goes wrong with it. Pure.

A reading depends on the seed, its series and the number of its moment alone, by a mixing function
in place of a generator with a state: so the same fleet says the same, however it is asked.

    base, daily cycle, drift, noise   of every series, drawn once
    spikes                            single readings far off
    stuck                             a series repeats one value for a while
    silent                            a sensor says nothing for a while
    bad clock                         a sensor that begins in 1970, or is hours ahead
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column, UInt32Column
from ocean_core.model.digest import mixed
from ocean_core.simulator.plan import Faults, Timing

# A sensor is stuck, or silent, for whole windows of this many moments.
WINDOW: Final = 64
DECIMALS: Final = 3

_DAY_US: Final = 86_400_000_000
_HOUR_US: Final = 3_600_000_000
# The sum of three uniform 16-bit numbers has about this mean and, exactly enough, this deviation.
_MEAN: Final = 98302.5
_DEVIATION: Final = 32768.0
_LOW: Final = np.uint64(0xFFFF)
_OF_65536: Final = 65536

UInt64s = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Shares:
    """How much goes wrong. ``sensors``: how many of them are prone to each fault of that kind."""

    spikes: float
    sensors: float
    windows: float
    repeats: float


SHARES: Final = {
    Faults.NONE: Shares(spikes=0.0, sensors=0.0, windows=0.0, repeats=0.0),
    Faults.FEW: Shares(spikes=0.0005, sensors=0.02, windows=0.1, repeats=0.005),
    Faults.MANY: Shares(spikes=0.01, sensors=0.2, windows=0.3, repeats=0.05),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Readings in the order of their moments. ``index`` is the place of the series."""

    index: UInt32Column
    timestamp_us: Int64Column
    value: Float64Column


class Fleet:
    """``sensors`` by name, each measuring all ``metrics``; series are ordered by sensor."""

    def __init__(
        self,
        sensors: list[str],
        metrics: tuple[str, ...],
        *,
        seed: int,
        faults: Faults,
        timing: Timing,
        now_us: int,
    ) -> None:
        """``now_us`` is what clocks that are ahead are ahead of."""
        self.sensor_ids = [name for name in sensors for _ in metrics]
        self.metrics = [metric for _ in sensors for metric in metrics]
        self._shares = SHARES[faults]
        self._timing = timing
        series = len(self.sensor_ids)
        # Of each series: where it stands, how it moves.
        self._key = _numbers(seed, 1, series)
        unit = [_fractions(_numbers(seed, 2 + trait, series)) for trait in range(5)]
        self._base = np.round(5 + 95 * unit[0], 1)
        self._swing = 0.5 + 7.5 * unit[1]
        self._phase = 2 * np.pi * unit[2]
        self._drift_per_day = 0.4 * (unit[3] - 0.5)
        self._noise = 0.05 + 0.6 * unit[4]
        self._spike = 5 * self._swing + 12 * self._noise
        self._offset_us = np.arange(series, dtype=np.int64) * timing.interval_us // series
        # Of each sensor: what it is prone to.
        count, each = len(sensors), len(metrics)
        self._sensor_key = np.repeat(_numbers(seed, 20, count), each)
        self._is_stuck_at_times = np.repeat(self._prone(_numbers(seed, 21, count)), each)
        self._is_silent_at_times = np.repeat(self._prone(_numbers(seed, 22, count)), each)
        astray = _numbers(seed, 23, count)
        has_bad_clock = self._prone(astray)
        begins_in_1970 = has_bad_clock & (np.cumsum(has_bad_clock) % 2 == 1)
        shift = np.where(
            begins_in_1970,
            -timing.start_us + (_fractions(mixed(astray)) * _HOUR_US).astype(np.int64),
            now_us - timing.start_us + 2 * _HOUR_US
            + (_fractions(mixed(astray)) * 10 * _HOUR_US).astype(np.int64),
        )  # fmt: skip
        shift[~has_bad_clock] = 0
        self._shift_us = np.repeat(shift, each)
        kind = np.repeat(np.where(begins_in_1970, 1, np.where(has_bad_clock, 2, 0)), each)
        # Apart, because a box that trusts its clock refuses a request that has what is ahead, and
        # because moments of 1970 take another way of writing.
        self._groups: list[Places] = [
            places for places in (np.flatnonzero(kind == number) for number in range(3))
            if len(places)
        ]  # fmt: skip

    @property
    def shift_us(self) -> Int64Column:
        """How far the clock of each series is ahead of one that is right; 0 for most."""
        return self._shift_us

    @property
    def repeats(self) -> float:
        """The share of requests that are sent once more after they were answered."""
        return self._shares.repeats

    def readings(self, first: int, moments: int) -> Iterator[Columns]:
        """Yield what is measured at these moments: those with good clocks, from 1970, and ahead."""
        numbers = np.arange(first, first + moments, dtype=np.int64)
        values = self._values(numbers)
        window, place = np.unique(numbers // WINDOW, return_inverse=True)
        stuck = self._at_times(self._is_stuck_at_times, self._key, window, salt=31)
        if stuck.any():
            frozen = self._values(window * WINDOW)
            values = np.where(stuck[place], frozen[place], values)
        silent = self._at_times(self._is_silent_at_times, self._sensor_key, window, salt=32)
        timing = self._timing
        moments_us = timing.start_us + numbers * timing.interval_us
        for places in self._groups:
            speaks = ~silent[place][:, places].ravel()
            at = moments_us[:, None] + (self._offset_us + self._shift_us)[places]
            index = np.broadcast_to(places.astype(np.uint32), at.shape)
            if speaks.any():
                yield Columns(
                    index.ravel()[speaks],
                    at.ravel()[speaks],
                    values[:, places].ravel()[speaks],
                )

    def due_us(self, columns: Columns, row: int) -> int:
        """Return when a row is measured, by a clock that is right."""
        return int(columns.timestamp_us[row]) - int(self._shift_us[columns.index[row]])

    def _values(self, numbers: Int64Column) -> npt.NDArray[np.float64]:
        """Return the values without what is stuck: a row for each moment."""
        chance = mixed(mixed(numbers.view(np.uint64))[:, None] ^ self._key)
        elapsed_us = numbers * self._timing.interval_us
        day = (self._timing.start_us + elapsed_us) / _DAY_US
        angle = (2 * np.pi * (day % 1.0))[:, None]
        # sin(a + b) by parts: sines of moments and of series are few, those of readings many.
        values: npt.NDArray[np.float64] = np.sin(angle) * (
            self._swing * np.cos(self._phase)
        ) + np.cos(angle) * (self._swing * np.sin(self._phase))
        values += self._base + (elapsed_us / _DAY_US)[:, None] * self._drift_per_day
        total = (chance & _LOW) + ((chance >> np.uint64(16)) & _LOW)
        total += (chance >> np.uint64(32)) & _LOW
        values += (total.astype(np.float64) - _MEAN) * (self._noise / _DEVIATION)
        spikes = (chance >> np.uint64(48)) < round(self._shares.spikes * _OF_65536)
        if spikes.any():
            sign = np.where(chance & np.uint64(1), 1.0, -1.0)
            values += np.where(spikes, sign * self._spike, 0.0)
        # Adding zero makes -0.0 a plain 0.
        return np.round(values, DECIMALS) + 0.0

    def _at_times(
        self, prone: npt.NDArray[np.bool_], key: UInt64s, windows: Int64Column, *, salt: int
    ) -> npt.NDArray[np.bool_]:
        """Return for each window which series have a fault for its duration."""
        chance = mixed(mixed(windows.view(np.uint64) + np.uint64(salt << 48))[:, None] ^ key)
        found: npt.NDArray[np.bool_] = (
            (chance & _LOW) < round(self._shares.windows * _OF_65536)
        ) & prone
        return found

    def _prone(self, drawn: UInt64s) -> npt.NDArray[np.bool_]:
        """Return which sensors have a fault: those that drew the lowest numbers."""
        prone = np.zeros(len(drawn), dtype=np.bool_)
        prone[np.argsort(drawn, kind="stable")[: round(self._shares.sensors * len(drawn))]] = True
        return prone


def _numbers(seed: int, trait: int, count: int) -> UInt64s:
    """Return a number for each of ``count``, the same for the same seed and trait."""
    start = mixed(
        np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64) ^ np.uint64(trait << 56)
    )
    return mixed(mixed(np.arange(count, dtype=np.uint64)) ^ start)


def _fractions(numbers: UInt64s) -> npt.NDArray[np.float64]:
    """Return them as fractions of one."""
    return (numbers >> np.uint64(11)).astype(np.float64) / float(1 << 53)
