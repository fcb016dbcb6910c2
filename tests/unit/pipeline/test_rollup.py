import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.pipeline.rollup import (
    HOUR_US,
    MINUTE_US,
    concat,
    merge_partials,
    minute_partials,
    rebucket,
    sort_into_runs,
    take,
)
from ocean_core.storage.analytics import Partials, ReadingColumns


def columns(series: list[int], ts: list[int], value: list[float]) -> ReadingColumns:
    return ReadingColumns(
        np.arange(1, len(ts) + 1, dtype=np.int64),
        np.array(series, dtype=np.int32),
        np.array(ts, dtype=np.int64),
        np.array(value, dtype=np.float64),
        np.zeros(len(ts), dtype=np.uint8),
    )


def minutes_of(rows: ReadingColumns) -> Partials:
    return minute_partials(sort_into_runs(rows))


@pytest.mark.parametrize("highest_series", [900, 150_000])
def test_statistics_equal_numpy_at_mean_1e9_deviation_1(highest_series: int) -> None:
    rng = np.random.default_rng(7)
    count = 20_000
    series = rng.integers(highest_series - 5, highest_series, count)
    ts = rng.integers(0, 10 * MINUTE_US, count)
    value = rng.normal(1e9, 1.0, count)
    found = minutes_of(columns(series.tolist(), ts.tolist(), value.tolist()))
    for k in range(len(found)):
        mine = (series == found.series_id[k]) & (ts // MINUTE_US * MINUTE_US == found.bucket_us[k])
        chosen = value[mine]
        assert found.n[k] == len(chosen)
        assert found.mean[k] == pytest.approx(chosen.mean(), rel=1e-14)
        assert found.m2[k] == pytest.approx(chosen.var() * len(chosen), rel=1e-6, abs=1e-6)
        assert found.min[k] == chosen.min()
        assert found.max[k] == chosen.max()
    assert int(found.n.sum()) == count


def test_merged_hours_equal_numpy_at_mean_1e9_deviation_1() -> None:
    rng = np.random.default_rng(8)
    value = rng.normal(1e9, 1.0, 36_000)
    ts = np.arange(36_000) * 100_000
    found = rebucket(minutes_of(columns([1] * 36_000, ts.tolist(), value.tolist())), HOUR_US)
    assert len(found) == 1
    assert found.m2[0] / found.n[0] == pytest.approx(value.var(), rel=1e-6)


def test_equal_times_go_by_id() -> None:
    found = minutes_of(columns([1, 1, 1, 1], [5, 9, 5, 9], [1.0, 2.0, 3.0, 4.0]))
    assert (found.first_ts_us[0], found.first_value[0]) == (5, 1.0)
    assert (found.last_ts_us[0], found.last_value[0]) == (9, 4.0)


def test_equal_times_in_different_partials_go_by_the_order_of_writing() -> None:
    early = minutes_of(columns([1, 1], [5, 9], [1.0, 2.0]))
    late = minutes_of(columns([1, 1], [5, 9], [3.0, 4.0]))
    found = merge_partials(concat([early, late]))
    assert (found.first_value[0], found.last_value[0]) == (1.0, 4.0)


def test_runs_are_ordered_by_series_time_and_id() -> None:
    runs = sort_into_runs(columns([2, 1, 2, 1], [4, 7, 4, 3], [1.0, 2.0, 3.0, 4.0]))
    assert runs.series_id.tolist() == [1, 2]
    assert runs.starts.tolist() == [0, 2]
    assert runs.rows.id.tolist() == [4, 2, 1, 3]


def test_buckets_may_start_anywhere() -> None:
    found = minutes_of(columns([1] * 3, [0, MINUTE_US, 5 * MINUTE_US], [1.0, 2.0, 4.0]))
    wide = rebucket(found, 5 * MINUTE_US, MINUTE_US)
    assert wide.bucket_us.tolist() == [-4 * MINUTE_US, MINUTE_US]
    assert wide.n.tolist() == [1, 2]


def test_merging_sorts_and_leaves_single_rows_alone() -> None:
    found = minutes_of(columns([1, 2, 3], [0, 0, 0], [1.0, 2.0, 4.0]))
    mixed = take(found, np.array([2, 0, 1]))
    assert merge_partials(mixed).series_id.tolist() == [1, 2, 3]
    empty = take(found, slice(0, 0))
    assert len(merge_partials(empty)) == 0


def test_huge_values_keep_a_finite_mean() -> None:
    found = minutes_of(columns([1] * 4, [0, 1, 2, 3], [1.7e308, 1.7e308, -1.7e308, 1.7e308]))
    assert math.isfinite(found.mean[0])
    assert found.m2[0] == math.inf
    twice = merge_partials(concat([found, found]))
    assert math.isfinite(twice.mean[0])
    assert twice.m2[0] == math.inf


SORTABLE = st.lists(
    st.tuples(st.sampled_from([1, 2, 300, 70_000]), st.sampled_from([0, 1, 2, 60_000_000, 2**62])),
    min_size=1,
    max_size=40,
)


@given(SORTABLE)
def test_runs_are_in_the_order_of_series_time_and_id(rows: list[tuple[int, int]]) -> None:
    given_rows = columns([row[0] for row in rows], [row[1] for row in rows], [0.5] * len(rows))
    runs = sort_into_runs(given_rows)
    expected = sorted((series, ts, number) for number, (series, ts) in enumerate(rows, 1))
    found = runs.rows
    assert expected == list(
        zip(found.series_id.tolist(), found.ts_us.tolist(), found.id.tolist(), strict=True)
    )
    assert runs.series_id.tolist() == sorted({row[0] for row in rows})
    assert found.series_id[runs.lasts].tolist() == runs.series_id.tolist()


@given(SORTABLE)
def test_minutes_are_those_of_single_rows_merged(rows: list[tuple[int, int]]) -> None:
    value = [float(number) for number in range(len(rows))]
    found = minutes_of(columns([row[0] for row in rows], [row[1] for row in rows], value))
    groups = sorted({(series, ts // MINUTE_US * MINUTE_US) for series, ts in rows})
    assert list(zip(found.series_id.tolist(), found.bucket_us.tolist(), strict=True)) == groups
    assert found.n.tolist() == [
        sum((series, ts // MINUTE_US * MINUTE_US) == group for series, ts in rows)
        for group in groups
    ]
