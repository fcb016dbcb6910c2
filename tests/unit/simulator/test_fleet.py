"""The sensors: the same for the same seed however they are asked, and each fault does occur."""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from ocean_core.model.digest import digest_of, digest_text
from ocean_core.simulator.fleet import WINDOW, Columns, Fleet
from ocean_core.simulator.plan import Faults, Order, Timing, sensor_names, timing_of

NOW_US = 1_780_000_000_000_000
START_US = 1_779_000_000_000_000
TIMING = Timing(START_US, 1_000_000, paced=False)
YEAR_2000_US = 946_684_800_000_000


def fleet_of(
    sensors: int = 40,
    *,
    seed: int = 7,
    faults: Faults = Faults.MANY,
    metrics: tuple[str, ...] = ("value",),
    timing: Timing = TIMING,
) -> Fleet:
    return Fleet(
        sensor_names("s-", sensors), metrics, seed=seed, faults=faults, timing=timing, now_us=NOW_US
    )


def joined(parts: Iterable[Columns]) -> Columns:
    found = list(parts)
    return Columns(
        np.concatenate([part.index for part in found]),
        np.concatenate([part.timestamp_us for part in found]),
        np.concatenate([part.value for part in found]),
    )


def digest(columns: Columns) -> str:
    # Which series a reading belongs to counts too.
    by_series = columns.timestamp_us * 1_000 + columns.index
    return digest_text(digest_of(by_series, columns.value))


def matrix(fleet: Fleet, moments: int) -> np.ndarray:
    """Return the values by moment and sensor; NaN where a sensor was silent."""
    values = np.full((moments, len(fleet.sensor_ids)), np.nan)
    for columns in fleet.readings(0, moments):
        for row, place in enumerate(columns.index.tolist()):
            due_us = fleet.due_us(columns, row)
            values[(due_us - START_US) // TIMING.interval_us, place] = columns.value[row]
    return values


def test_a_seed_always_makes_the_same_readings() -> None:
    columns = joined(fleet_of().readings(0, 500))
    assert (len(columns.value), digest(columns)) == (19_308, "e3285dcb9b43758c")


def test_another_seed_makes_others() -> None:
    assert digest(joined(fleet_of(seed=8).readings(0, 50))) != digest(
        joined(fleet_of(seed=7).readings(0, 50))
    )


def test_readings_do_not_depend_on_how_many_are_asked_for_at_a_time() -> None:
    fleet = fleet_of()
    at_once = joined(fleet.readings(0, 300))
    steps = list(itertools.accumulate((0, 1, 2, 61, 100, 136)))
    parts = joined(
        itertools.chain.from_iterable(
            fleet.readings(first, last - first) for first, last in itertools.pairwise(steps)
        )
    )
    assert steps[-1] == 300
    assert digest(parts) == digest(at_once)


def test_without_faults_every_sensor_tells_every_moment_with_a_good_clock() -> None:
    fleet = fleet_of(faults=Faults.NONE, metrics=("a", "b"))
    (columns,) = fleet.readings(0, 100)
    assert len(columns.value) == 100 * 40 * 2
    assert bool((np.diff(columns.timestamp_us) >= 0).all())
    assert columns.timestamp_us.min() == START_US
    assert columns.timestamp_us.max() < START_US + 100 * TIMING.interval_us
    assert [*fleet.sensor_ids[:3]] == ["s-0001", "s-0001", "s-0002"]
    assert fleet.metrics[:3] == ["a", "b", "a"]
    assert fleet.repeats == 0


def test_values_have_three_decimals_and_no_negative_zero() -> None:
    value = joined(fleet_of().readings(0, 300)).value
    assert bool((np.round(value, 3) == value).all())
    assert not bool(np.signbit(value[value == 0]).any())


def test_values_follow_the_day_drift_and_scatter() -> None:
    # A reading every ten minutes for four days.
    timing = Timing(START_US, 600_000_000, paced=False)
    fleet = fleet_of(200, faults=Faults.NONE, timing=timing)
    (columns,) = fleet.readings(0, 4 * 144)
    values = columns.value.reshape(4 * 144, 200)
    swings = values.max(axis=0) - values.min(axis=0)
    assert swings.min() > 0.5
    assert swings.max() < 25
    # A day later it is much the same, but for noise and drift.
    day_apart = np.abs(values[144:] - values[:-144]).mean(axis=0)
    half_a_day_apart = np.abs(values[72:] - values[:-72]).mean(axis=0)
    assert np.median(half_a_day_apart / day_apart) > 3
    drifts = (values[3 * 144 :].mean(axis=0) - values[:144].mean(axis=0)) / 3
    assert drifts.max() > 0.1 > -0.1 > drifts.min()
    noise = np.diff(values, axis=0).std(axis=0)
    assert 0.03 < noise.min() < noise.max() < 1.5


def test_spikes_stand_out_and_are_rare() -> None:
    good, bad = fleet_of(faults=Faults.NONE), fleet_of(faults=Faults.MANY)
    difference = np.abs(matrix(bad, 2000) - matrix(good, 2000))
    speaking = ~np.isnan(difference)
    # What is stuck differs by less.
    share = (difference[speaking] > 5).mean()
    assert 0.005 < share < 0.02


def test_some_sensors_are_stuck_for_a_while() -> None:
    values = matrix(fleet_of(), 20 * WINDOW)
    windows = values.reshape(20, WINDOW, 40)
    stuck = np.nanmax(windows, axis=1, initial=-np.inf) == np.nanmin(
        windows, axis=1, initial=np.inf
    )
    share = stuck.any(axis=0).mean()
    assert 0.1 <= share <= 0.3
    assert 0.01 < stuck.mean() < 0.2


def test_some_sensors_say_nothing_for_a_while() -> None:
    silent = np.isnan(matrix(fleet_of(), 20 * WINDOW)).reshape(20, WINDOW, 40)
    assert bool((silent.all(axis=1) == silent.any(axis=1)).all()), "whole windows"
    assert silent.any(axis=(0, 1)).mean() == pytest.approx(0.2)
    assert 0.02 < silent.mean() < 0.15


def test_some_clocks_began_in_1970_and_some_are_hours_ahead() -> None:
    fleet = fleet_of()
    good, early, ahead = fleet.readings(0, 100)
    assert len(np.unique(early.index)) == len(np.unique(ahead.index)) == 4
    assert early.timestamp_us.min() >= 0
    assert early.timestamp_us.max() < YEAR_2000_US
    assert ahead.timestamp_us.min() >= NOW_US + 2 * 3_600_000_000
    assert ahead.timestamp_us.max() < NOW_US + 13 * 3_600_000_000
    assert good.timestamp_us.max() < NOW_US
    # And yet they are sent when they were measured.
    for columns in (good, early, ahead):
        assert 0 <= fleet.due_us(columns, 0) - START_US < 100 * TIMING.interval_us


def test_few_faults_are_fewer_than_many() -> None:
    few, many = fleet_of(400, faults=Faults.FEW), fleet_of(400, faults=Faults.MANY)
    rows = [
        sum(len(columns.value) for columns in list(fleet.readings(0, 640))[:1])
        for fleet in (few, many)
    ]
    assert 400 * 640 > rows[0] > rows[1]
    assert 0 < few.repeats < many.repeats


# --- when


def test_at_a_rate_readings_are_of_now() -> None:
    timing = timing_of(Order(sensors=100, rate=50), NOW_US)
    assert timing == Timing(NOW_US, 2_000_000, paced=True)


@pytest.mark.parametrize(
    "order",
    [
        Order(),
        Order(sensors=1),
        Order(sensors=1, seconds=3600),
        Order(sensors=100_000, seconds=86_400),
        Order(sensors=3, seconds=None, count=10**10),
        Order(sensors=1, rate=5e6),
    ],
)
def test_at_the_greatest_rate_readings_are_of_the_past_and_stay_there(order: Order) -> None:
    timing = timing_of(order, NOW_US)
    assert not timing.paced
    readings = order.count or 5_000_000 * (order.seconds or 0)
    end_us = timing.start_us + timing.interval_us * readings / order.readings_per_moment
    assert YEAR_2000_US <= timing.start_us < NOW_US - 9 * 86_400_000_000
    assert end_us <= NOW_US
