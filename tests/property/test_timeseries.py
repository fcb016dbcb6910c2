"""Time series equal a plain computation for any data, interval, range and zone."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.query_lab import DAY_US, T0, QueryLab

ORIGIN = datetime(2000, 1, 3)  # noqa: DTZ001 - a local clock's reading
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
HOUR = 3_600 * SECOND

intervals = st.one_of(
    st.sampled_from(
        [1, 7, 60, 90, 300, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800, 2592000]
    ),
    st.integers(1, 30 * 86400),
)
# Offsets from T0: dense, spread over a day, or over a year.
offsets = st.one_of(
    st.lists(st.integers(0, 120 * SECOND), min_size=1, max_size=60),
    st.lists(st.integers(0, DAY_US), min_size=1, max_size=60),
    st.lists(st.integers(-400 * DAY_US, 400 * DAY_US), min_size=1, max_size=60),
)
numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
zones = st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Africa/Casablanca",
                         "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia"])  # fmt: skip


def ask(data: list[tuple[int, float]], parts: int, **params: object) -> Any:
    """Store the data in several transactions, the order kept, and ask memory and file."""
    with tempfile.TemporaryDirectory() as folder:
        lab = QueryLab(Path(folder), ring_rows=16)
        for chunk in np.array_split(np.arange(len(data)), parts):
            if len(chunk):
                lab.add("s", [data[k][0] for k in chunk], [data[k][1] for k in chunk])
        try:
            return lab.ask("timeseries", sensor_id="s", **params)
        finally:
            lab.close()


def moment_of(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(), moments=offsets, width=intervals, parts=st.integers(1, 4),
    bounds=st.tuples(st.none() | st.integers(-DAY_US, DAY_US), st.none() | st.integers(0, DAY_US)),
)  # fmt: skip
def test_utc_series_equal_numpy(
    data: st.DataObject, moments: list[int], width: int, parts: int,
    bounds: tuple[int | None, int | None],
) -> None:  # fmt: skip
    values = data.draw(st.lists(numbers, min_size=len(moments), max_size=len(moments)))
    rows = [(T0 + moment, value) for moment, value in zip(moments, values, strict=True)]
    params: dict[str, object] = {"interval": f"{width}s"}
    start = None if bounds[0] is None else T0 + bounds[0]
    end = None if bounds[1] is None else (T0 if start is None else start) + bounds[1]
    if start is not None:
        params["start"] = start
    if end is not None:
        params["end"] = end
    answer = ask(rows, parts, **params)

    inside = [
        (t, v) for t, v in rows if (start is None or t >= start) and (end is None or t <= end)
    ]
    origin = 946_857_600 * SECOND
    groups: dict[int, list[float]] = {}
    for moment, value in inside:
        bucket = origin + (moment - origin) // (width * SECOND) * (width * SECOND)
        groups.setdefault(bucket, []).append(value)
    assert [moment_of(row["bucket"]) for row in answer["data"]] == sorted(groups)
    for row, key in zip(answer["data"], sorted(groups), strict=True):
        group = np.array(groups[key])
        assert (row["count"], row["min_value"], row["max_value"]) == (
            len(group), group.min(), group.max(),
        )  # fmt: skip
        assert row["avg_value"] == pytest.approx(group.mean(), rel=1e-9, abs=1e-6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    days=st.lists(st.integers(-4000 * DAY_US, 400 * DAY_US), min_size=1, max_size=60),
    number=st.sampled_from([1, 2, 7, 30]), zone=zones,
)  # fmt: skip
def test_local_days_equal_the_calendar(days: list[int], number: int, zone: str) -> None:
    rows = [(T0 + day, 1.0) for day in days]
    answer = ask(rows, 2, interval=f"{number}d", tz=zone)
    info = ZoneInfo(zone)
    counts: dict[str, int] = {}
    for moment, _ in rows:
        local = (EPOCH + timedelta(microseconds=moment)).astimezone(info)
        day = (local.replace(tzinfo=None) - ORIGIN).days // number * number
        first = (ORIGIN + timedelta(days=day)).date().isoformat()
        counts[first] = counts.get(first, 0) + 1
    assert {row["bucket"][:10]: row["count"] for row in answer["data"]} == counts
    for row in answer["data"]:
        begin = datetime.fromisoformat(row["bucket"])
        assert begin.astimezone(info).utcoffset() == begin.utcoffset()
        assert begin.replace(tzinfo=None).time().isoformat() in {"00:00:00", "01:00:00"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    around=st.integers(0, 400), shifts=st.lists(st.integers(-30 * HOUR, 30 * HOUR), min_size=1, max_size=60),
    width=st.sampled_from([1, 60, 420, 900, 1800, 3600, 5400, 7200, 21600, 25200, 43200]), zone=zones,
    fill=st.sampled_from(["none", "null"]),
)  # fmt: skip
def test_local_buckets_hold_what_begins_in_them(
    around: int, shifts: list[int], width: int, zone: str, fill: str
) -> None:
    rows = [(T0 + around * DAY_US + shift, float(k)) for k, shift in enumerate(shifts)]
    if fill == "null" and width == 1:
        width = 60
    answer = ask(rows, 2, interval=f"{width}s", tz=zone, fill=fill)
    begins = [moment_of(row["bucket"]) for row in answer["data"]]
    assert begins == sorted(set(begins))
    assert sum(row["count"] for row in answer["data"]) == len(rows)
    info = ZoneInfo(zone)
    moments = np.array(sorted(moment for moment, _ in rows))
    placed = np.searchsorted(begins, moments, side="right") - 1
    assert np.bincount(placed, minlength=len(begins)).tolist() == [
        row["count"] for row in answer["data"]
    ]
    for moment, k in zip(moments.tolist(), placed.tolist(), strict=True):
        # Beginning and reading lie within one multiple of the interval on the local clock.
        clocks = [
            (EPOCH + timedelta(microseconds=us)).astimezone(info).replace(tzinfo=None)
            for us in (begins[k], moment)
        ]
        numbers_of = [(clock - ORIGIN) // timedelta(seconds=width) for clock in clocks]
        assert numbers_of[0] == numbers_of[1]
    if fill == "null":
        gaps = np.diff(begins)
        assert len(gaps) == 0 or gaps.max() <= width * SECOND + HOUR
