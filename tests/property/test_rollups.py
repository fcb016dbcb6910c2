"""However rows are split into batches and minutes, merging gives the same statistics."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.pipeline.rollup import (
    concat,
    merge_per_series,
    minute_partials,
    rebucket,
    sort_into_runs,
)
from ocean_core.storage.analytics import Partials, ReadingColumns

rows_strategy = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(0, 5) | st.integers(0, 10_000_000_000),
        st.floats(-1e6, 1e6) | st.floats(1e9 - 3, 1e9 + 3),
    ),
    min_size=1,
    max_size=60,
)


def partials_of(rows: list[tuple[int, int, float]], first_id: int) -> Partials:
    readings = ReadingColumns(
        np.arange(first_id, first_id + len(rows), dtype=np.int64),
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.zeros(len(rows), dtype=np.uint8),
    )
    return minute_partials(sort_into_runs(readings))


@settings(max_examples=200, deadline=None)
@given(rows=rows_strategy, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_split_gives_the_same_statistics(
    rows: list[tuple[int, int, float]], cuts: list[int]
) -> None:
    whole = merge_per_series(partials_of(rows, 1))
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [partials_of(rows[a:b], a + 1) for a, b in pairwise(edges)]
    merged = merge_per_series(rebucket(concat(parts), 600_000_000))
    for name in ("series_id", "n", "min", "max"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist()
    for name in ("first_ts_us", "first_value", "last_ts_us", "last_value"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist()
    scale = max(abs(row[2]) for row in rows)
    assert merged.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-9 * scale)
    # Equal up to what the values themselves can resolve.
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-12 * scale)


@settings(max_examples=100, deadline=None)
@given(rows=rows_strategy)
def test_statistics_are_those_of_the_rows(rows: list[tuple[int, int, float]]) -> None:
    merged = merge_per_series(partials_of(rows, 1))
    for k, series_id in enumerate(merged.series_id.tolist()):
        mine = [(ts, i, value) for i, (s, ts, value) in enumerate(rows) if s == series_id]
        values = np.array([value for *_, value in mine])
        assert merged.n[k] == len(mine)
        assert merged.mean[k] == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
        assert merged.m2[k] == pytest.approx(values.var() * len(mine), rel=1e-6, abs=1e-3)
        first = min(mine, key=lambda row: row[:2])
        last = max(mine, key=lambda row: row[:2])
        assert (merged.first_ts_us[k], merged.first_value[k]) == (first[0], first[2])
        assert (merged.last_ts_us[k], merged.last_value[k]) == (last[0], last[2])
