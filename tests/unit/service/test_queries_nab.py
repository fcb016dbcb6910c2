"""Answers on real series equal a computation that shares no code with ours."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.paths import REPO
from support.query_lab import QueryLab

NAB = REPO / "tests" / "data" / "nab"
FILES = sorted(path.stem for path in NAB.glob("*.csv"))
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def load(name: str) -> tuple[Ints, Floats]:
    with (NAB / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    moments = np.array([row["timestamp"] for row in rows], dtype="M8[us]").astype(np.int64)
    return moments, np.array([float(row["value"]) for row in rows])


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueryLab]:
    lab = QueryLab(tmp_path_factory.mktemp("nab"))
    for name in FILES:
        moments, values = load(name)
        for part in np.array_split(np.arange(len(moments)), 7):
            lab.add(name, moments[part], values[part])
    yield lab
    lab.close()


def test_there_are_three_series() -> None:
    assert len(FILES) == 3


@pytest.mark.parametrize("name", FILES)
def test_stats(lab: QueryLab, name: str) -> None:
    moments, values = load(name)
    answer = lab.ask_live("stats", sensor_id=name)
    assert answer["count"] == len(values)
    assert answer["avg_value"] == pytest.approx(values.mean(), rel=1e-12)
    assert (answer["min_value"], answer["max_value"]) == (values.min(), values.max())
    assert answer["stddev_value"] == pytest.approx(values.std(ddof=1), rel=1e-10)
    assert us(answer["first_reading"]) == moments.min()
    assert us(answer["last_reading"]) == moments.max()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.3, 0.301), (0.0, 0.5), (0.99, 1.0)])
@pytest.mark.parametrize("shift_us", [0, 1, 30_000_000, 3_599_999_999])
def test_stats_of_a_range(lab: QueryLab, name: str, low: float, high: float, shift_us: int) -> None:
    moments, values = load(name)
    start = int(moments[int(low * (len(moments) - 1))]) + shift_us
    end = max(start, int(moments[int(high * (len(moments) - 1))]) + shift_us)
    chosen = values[(moments >= start) & (moments <= end)]
    answer = lab.ask("stats", sensor_id=name, start=start, end=end)
    assert answer["count"] == len(chosen)
    if len(chosen) > 1:
        assert answer["avg_value"] == pytest.approx(chosen.mean(), rel=1e-12)
        assert answer["stddev_value"] == pytest.approx(chosen.std(ddof=1), rel=1e-9)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("interval", "seconds"),
    [("1s", 1), ("90s", 90), ("5m", 300), ("7 minutes", 420), ("1 hour", 3600), ("1d", 86400),
     ("2w", 1209600), ("30d", 2592000)],
)  # fmt: skip
def test_timeseries(lab: QueryLab, name: str, interval: str, seconds: int) -> None:
    moments, values = load(name)
    origin, width = us("2000-01-03"), seconds * 1_000_000
    starts = origin + (moments - origin) // width * width
    answer = lab.ask("timeseries", sensor_id=name, interval=interval)
    expected = np.unique(starts)
    assert [us(row["bucket"]) for row in answer["data"]] == expected.tolist()
    for row, start in zip(answer["data"][::13], expected[::13].tolist(), strict=True):
        inside = values[starts == start]
        assert row["count"] == len(inside)
        assert row["avg_value"] == pytest.approx(inside.mean(), rel=1e-12)
        assert (row["min_value"], row["max_value"]) == (inside.min(), inside.max())
    assert sum(row["count"] for row in answer["data"]) == len(values)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("threshold", [0.5, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("part", [(0, 1), (0.4, 0.7)])
def test_anomalies(lab: QueryLab, name: str, threshold: float, part: tuple[float, float]) -> None:
    moments, values = load(name)
    start, end = (int(moments[int(share * (len(moments) - 1))]) for share in part)
    inside = (moments >= start) & (moments <= end)
    moments, values = moments[inside], values[inside]
    z = (values - values.mean()) / values.std(ddof=1)
    which = np.flatnonzero(np.abs(z) > threshold)
    # Stable from the back: of equal times the reading stored last comes first.
    which = which[np.argsort(moments[which], kind="stable")][::-1]
    answer = lab.ask(
        "anomalies", sensor_id=name, start=start, end=end, threshold=str(threshold), limit="1000"
    )
    assert answer["count"] == len(which)
    assert answer["truncated"] == (len(which) > 1000)
    assert answer["method"] == "zscore"
    which = which[:1000]
    assert [us(row["timestamp"]) for row in answer["anomalies"]] == moments[which].tolist()
    assert [row["value"] for row in answer["anomalies"]] == values[which].tolist()
    assert [row["z_score"] for row in answer["anomalies"]] == pytest.approx(z[which], rel=1e-8)


@pytest.mark.parametrize("bounds", [{}, {"start_time": "2014-01-20T00:00:30Z", "end_time": "2014-06"
                                         "-01T12:34:56"}])  # fmt: skip
def test_compare(lab: QueryLab, bounds: dict[str, str]) -> None:
    answer = lab.ask("compare", sensor_ids=[*FILES, "nobody"], aggregation="5m", **bounds)
    assert answer["unknown"] == ["nobody"]
    averages = []
    for name, row in answer["comparison"].items():
        moments, values = load(name)
        if bounds:
            low, high = us("2014-01-20T00:00:30"), us("2014-06-01T12:34:56")
            values = values[(moments >= low) & (moments <= high)]
        assert row["count"] == len(values)
        assert row["avg_value"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["stddev_value"] == pytest.approx(values.std(ddof=1), rel=1e-9)
        assert (row["min_value"], row["max_value"]) == (values.min(), values.max())
        averages.append(row["avg_value"])
    assert averages == sorted(averages, reverse=True)
    assert set(answer["comparison"]) == set(FILES)


def test_data_came_with_its_licence() -> None:
    assert "Numenta" in Path(NAB / "LICENSE.txt").read_text(encoding="utf-8")
