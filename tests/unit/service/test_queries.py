"""What each query answers at the edges of its definition, from memory and from the file alike."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    MetricChoiceError,
    QueryError,
    QueryTimeoutError,
    QueryTooLargeError,
    UnknownSensorError,
)
from ocean_core.model.naming import Names
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries import listing
from ocean_core.service.queries.engine import QueryEngine
from ocean_core.service.queries.session import Cursors, Session
from ocean_core.storage.analytics import InterruptError
from support.query_lab import DAY_US, T0, QueryLab, assert_same, decode
from support.renaming import rename

MINUTE = 60_000_000
HOUR = 60 * MINUTE
INJECTIONS = [
    "'; DROP TABLE readings; --",
    '" OR 1=1 --',
    "a' OR 'a'='a",
    "$1 ?; SELECT 1",
    "x\\",
    "%_",
    "{parts}{series}{table}",
    "naïve 温度 🌡",
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[QueryLab]:
    lab = QueryLab(tmp_path)
    yield lab
    lab.close()


def values_of(answer: Any) -> list[Any]:
    return [row["avg_value"] for row in answer["data"]]


def buckets_of(answer: Any) -> list[str]:
    return [row["bucket"] for row in answer["data"]]


# --- stats --------------------------------------------------------------------------------------


def test_single_reading_has_no_deviation(lab: QueryLab) -> None:
    lab.add("s", [T0 + 123_456], [4.5])
    assert lab.ask_live("stats", sensor_id="s") == {
        "sensor_id": "s", "metric": "value", "count": 1, "avg_value": 4.5, "min_value": 4.5,
        "max_value": 4.5, "stddev_value": None, "first_reading": "2023-11-15T00:00:00.123456Z",
        "last_reading": "2023-11-15T00:00:00.123456Z", "source": "live",
    }  # fmt: skip
    assert lab.ask("anomalies", sensor_id="s")["anomalies"] == []


def test_constant_series_has_deviation_zero_and_no_anomalies(lab: QueryLab) -> None:
    lab.add("s", [T0 + k * 7_000_001 for k in range(5000)], [0.1] * 5000)
    assert lab.ask("stats", sensor_id="s")["stddev_value"] == 0
    answer = lab.ask("anomalies", sensor_id="s", threshold="1e-9")
    assert (answer["count"], answer["anomalies"], answer["stddev"]) == (0, [], 0)


def test_small_deviation_at_a_large_mean(lab: QueryLab) -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, 20_000)
    lab.add("s", T0 + np.arange(20_000) * 1_000_000, 1e9 + noise)
    for bounds in ({}, {"start": T0 + 61_500_000}, {"end": T0 + 4000 * 1_000_000 + 1}):
        size = {0: slice(None), 1: slice(62, None), 2: slice(0, 4001)}[
            len(bounds) and 1 + ("end" in bounds)
        ]
        answer = lab.ask("stats", sensor_id="s", **bounds)
        assert answer["stddev_value"] == pytest.approx((1e9 + noise)[size].std(ddof=1), rel=1e-6)


def test_bounds_are_inclusive_and_exact(lab: QueryLab) -> None:
    moments = [T0 + k * 20_000_001 for k in range(2000)]
    lab.add("s", moments, list(range(2000)))
    for low, high in [(0, 0), (1, 4), (5, 1500), (100, 1999)]:
        answer = lab.ask("stats", sensor_id="s", start=moments[low], end=moments[high])
        assert (answer["min_value"], answer["max_value"]) == (low, high)
        assert answer["count"] == high - low + 1
        answer = lab.ask(
            "stats",
            sensor_id="s",
            start=moments[low] + 1,
            end=moments[high] - 1 + (low == high) * 2,
        )
        assert answer["count"] == max(high - low - 1, 0)


def test_range_without_readings_counts_zero(lab: QueryLab) -> None:
    lab.add("s", [T0, T0 + 2 * HOUR], [1, 2])
    answer = lab.ask("stats", sensor_id="s", start=T0 + 1, end=T0 + HOUR)
    assert answer["count"] == 0
    assert answer["avg_value"] is answer["stddev_value"] is answer["first_reading"] is None
    assert lab.ask("stats", sensor_id="s", end=5)["count"] == 0
    assert lab.ask("timeseries", sensor_id="s", end="1970-01-02")["data"] == []
    assert lab.ask("anomalies", sensor_id="s", end=5)["mean"] is None


def test_recent_range_comes_from_memory_and_old_from_rollups(tmp_path: Path) -> None:
    lab = QueryLab(tmp_path, ring_rows=100)
    lab.add("s", T0 + np.arange(1000) * HOUR // 4, np.arange(1000.0))
    recent = lab.ask_live("stats", sensor_id="s", start=T0 + 950 * HOUR // 4 + 5)
    assert recent["count"] == 49
    body = lab.file_engine.answer(
        "stats", {"sensor_id": "s", "start": T0, "end": T0 + 10 * HOUR - 1}
    )
    assert decode(body)["source"] == "rollup_1h"
    body = lab.file_engine.answer("stats", {"sensor_id": "s", "start": T0, "end": T0 + HOUR})
    assert decode(body)["source"] == "rollup_1h+raw"
    body = lab.file_engine.answer(
        "stats", {"sensor_id": "s", "start": T0 + 1, "end": T0 + 10 * HOUR}
    )
    assert decode(body)["source"] == "rollup_1h+rollup_1m+raw"
    lab.close()


def test_equal_timestamps_are_all_kept(lab: QueryLab) -> None:
    lab.add("s", [T0] * 5, [1, 2, 3, 4, 100])
    lab.add("s", [T0] * 2, [7, 8])
    assert lab.ask("stats", sensor_id="s")["count"] == 7
    (row,) = lab.ask("timeseries", sensor_id="s", interval="1s")["data"]
    assert (row["count"], row["max_value"]) == (7, 100)
    latest = lab.ask("latest", sensor_id="s")["latest"]["value"]
    assert (latest["value"], latest["id"]) == (8, 7)


def test_numbers_that_overflow_are_null(lab: QueryLab) -> None:
    lab.add("s", [T0, T0 + 1, T0 + 2], [1.7e308, -1.7e308, 1.7e308])
    for query in ("stats", "timeseries", "anomalies"):
        for engine in (lab.engine, lab.file_engine):
            decode(engine.answer(query, {"sensor_id": "s"}))
    assert lab.ask("stats", sensor_id="s")["stddev_value"] is None


def test_numbers_that_overflow_are_the_same_after_a_restart(lab: QueryLab) -> None:
    lab.add("s", [T0, T0 + HOUR, T0 + 2 * HOUR, T0 + 3 * HOUR], [1.7e308, -1.7e308, 1.7e308, 1.0])
    lab.add("t", [T0, T0 + HOUR], [-1.7e308, 1.7e308])
    lab.add("u", [T0, T0 + HOUR, T0 + 2 * HOUR], [1.5, 2.5, 3.5])
    window = LiveWindow()
    window.warm(lab.store)
    for name in ("s", "t", "u"):
        before, after = lab.window.catalog[name]["value"], window.catalog[name]["value"]
        assert math.isfinite(after.totals.mean)
        assert after.totals == pytest.approx(before.totals)
        restarted = QueryEngine(lab.store, window, lab.clock, 30)
        assert_same(
            decode(restarted.answer("stats", {"sensor_id": name})), lab.ask("stats", sensor_id=name)
        )


# --- timeseries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("none", [1, 4]),
        ("null", [1, None, None, 4]),
        ("previous", [1, 1, 1, 4]),
        ("linear", [1, 2, 3, 4]),
        ("0", [1, 0, 0, 4]),
        ("-2.5", [1, -2.5, -2.5, 4]),
    ],
)
def test_fill_between_readings(lab: QueryLab, fill: str, expected: list[float | None]) -> None:
    lab.add("s", [T0 + 10, T0 + 15 * MINUTE + 10], [1, 4])
    answer = lab.ask("timeseries", sensor_id="s", fill=fill)
    assert values_of(answer) == expected
    assert [row["count"] for row in answer["data"]] == [
        int(v in {1, 4} and k in {0, len(expected) - 1}) for k, v in enumerate(expected)
    ]
    if fill == "previous":
        assert answer["data"][1]["min_value"] == 1


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("none", [1, 4]),
        ("null", [None, 1, None, 4, None]),
        ("previous", [None, 1, 1, 4, 4]),
        ("linear", [None, 1, 2.5, 4, None]),
        ("9", [9, 1, 9, 4, 9]),
    ],
)
def test_fill_reaches_to_the_given_bounds(
    lab: QueryLab, fill: str, expected: list[float | None]
) -> None:
    lab.add("s", [T0 + 5 * MINUTE, T0 + 15 * MINUTE], [1, 4])
    answer = lab.ask("timeseries", sensor_id="s", fill=fill, start=T0, end=T0 + 24 * MINUTE)
    assert values_of(answer) == expected


def test_fill_of_a_range_without_readings(lab: QueryLab) -> None:
    lab.add("s", [T0], [1])
    for fill, value in [("null", None), ("previous", None), ("linear", None), ("3", 3)]:
        answer = lab.ask(
            "timeseries", sensor_id="s", fill=fill, start=T0 + HOUR, end=T0 + HOUR + 6 * MINUTE
        )
        assert values_of(answer) == [value, value]
    assert lab.ask("timeseries", sensor_id="s", fill="0", end=T0 - 1)["data"] == []


@pytest.mark.parametrize(
    ("interval", "first"),
    [("1s", "2023-11-15T10:20:31Z"), ("90s", "2023-11-15T10:19:30Z"),
     ("1m", "2023-11-15T10:20:00Z"), ("5 minutes", "2023-11-15T10:20:00Z"),
     ("1 hour", "2023-11-15T10:00:00Z"), ("1d", "2023-11-15T00:00:00Z"),
     ("1w", "2023-11-13T00:00:00Z"), ("30d", "2023-10-29T00:00:00Z")],
)  # fmt: skip
def test_buckets_begin_where_duckdb_puts_them(lab: QueryLab, interval: str, first: str) -> None:
    moment = T0 + 10 * HOUR + 20 * MINUTE + 31_500_000
    lab.add("s", [moment], [1])
    assert buckets_of(lab.ask("timeseries", sensor_id="s", interval=interval)) == [first]
    words = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
    text = interval if " " in interval else f"{interval[:-1]} {words[interval[-1]]}"
    (found,) = lab.store.cursor().execute(
        "SELECT strftime(time_bucket(CAST(? AS INTERVAL), make_timestamp(?::BIGINT)), '%xT%XZ')", [text, moment]
    ).fetchall()  # fmt: skip
    assert found[0] == first


@pytest.mark.parametrize(
    ("day", "hours", "offsets"),
    [("2024-03-31", 23, ("+01:00", "+02:00")), ("2024-10-27", 25, ("+02:00", "+01:00")),
     ("2024-06-01", 24, ("+02:00", "+02:00"))],
)  # fmt: skip
def test_local_days_have_their_true_length(
    lab: QueryLab, day: str, hours: int, offsets: tuple[str, str]
) -> None:
    # A reading each half hour, from two days before to two days behind.
    noon = int(np.datetime64(f"{day}T12:00", "us").astype(np.int64))
    lab.add("s", noon - 2 * DAY_US + np.arange(193) * HOUR // 2, np.ones(193))
    answer = lab.ask("timeseries", sensor_id="s", interval="1d", tz="Europe/Berlin")
    counts = {row["bucket"]: row["count"] for row in answer["data"]}
    assert counts[f"{day}T00:00:00{offsets[0]}"] == 2 * hours
    by_hour = lab.ask("timeseries", sensor_id="s", interval="1h", tz="Europe/Berlin")
    assert {row["count"] for row in by_hour["data"]} <= {1, 2}
    assert len(set(buckets_of(by_hour))) == len(by_hour["data"])
    assert len([text for text in buckets_of(by_hour) if text.startswith(day)]) == hours
    assert any(text.startswith(day) and text.endswith(offsets[1]) for text in buckets_of(by_hour))


def test_six_hours_go_on_over_a_change_of_the_clock(lab: QueryLab) -> None:
    start = int(np.datetime64("2024-10-26T22:00", "us").astype(np.int64))  # local midnight
    lab.add("s", start + np.arange(25) * HOUR, np.ones(25))
    answer = lab.ask("timeseries", sensor_id="s", interval="6h", tz="Europe/Berlin")
    assert [(row["bucket"], row["count"]) for row in answer["data"]] == [
        ("2024-10-27T00:00:00+02:00", 7), ("2024-10-27T06:00:00+01:00", 6),
        ("2024-10-27T12:00:00+01:00", 6), ("2024-10-27T18:00:00+01:00", 6),
    ]  # fmt: skip


def test_zone_with_a_quarter_hour_offset(lab: QueryLab) -> None:
    lab.add("s", T0 + np.arange(48) * HOUR // 2, np.arange(48.0))
    answer = lab.ask("timeseries", sensor_id="s", interval="1d", tz="Asia/Kathmandu")
    assert buckets_of(answer) == ["2023-11-15T00:00:00+05:45", "2023-11-16T00:00:00+05:45"]
    assert [row["count"] for row in answer["data"]] == [37, 11]


def test_lone_reading_of_1970_does_not_make_the_series_too_long(lab: QueryLab) -> None:
    lab.add("s", [5, T0], [1, 2])
    for zone in ("UTC", "Europe/Berlin"):
        assert values_of(lab.ask("timeseries", sensor_id="s", interval="1s", tz=zone)) == [1, 2]


def test_too_many_buckets_name_an_interval_that_works(lab: QueryLab) -> None:
    size = limits.TIMESERIES_BUCKETS_MAX + 1
    lab.add("s", T0 + np.arange(size) * 1_000_000, np.ones(size))
    for engine in (lab.engine, lab.file_engine):
        for fill in ("none", "null"):
            with pytest.raises(QueryTooLargeError) as caught:
                engine.answer("timeseries", {"sensor_id": "s", "interval": "1s", "fill": fill})
            better = caught.value.detail.partition("interval=")[2].partition(" ")[0]
            body = engine.answer("timeseries", {"sensor_id": "s", "interval": better, "fill": fill})
            assert len(decode(body)["data"]) == size // 2 + 1
    with pytest.raises(QueryTooLargeError):
        lab.engine.answer(
            "timeseries", {"sensor_id": "s", "start": 0, "end": "9999-12-31", "fill": "0"}
        )


def test_the_end_of_time(lab: QueryLab) -> None:
    lab.add("s", [0, limits.TIMESTAMP_US_MAX], [1, 2])
    for zone in ("UTC", "Pacific/Kiritimati", "America/New_York"):
        for interval in ("30d", "1d", "1h", "1s"):
            answer = lab.ask("timeseries", sensor_id="s", interval=interval, tz=zone)
            assert values_of(answer) == [1, 2]
    assert lab.ask("stats", sensor_id="s", start=0, end="9999-12-31T23:59:59.999999Z")["count"] == 2


# --- anomalies, compare -------------------------------------------------------------------------


def test_anomalies_are_cut_at_the_limit_and_counted(lab: QueryLab) -> None:
    values = np.zeros(10_000)
    values[::100] = np.where(np.arange(100) % 2, 50, -50)
    lab.add("s", T0 + np.arange(10_000) * MINUTE, values)
    answer = lab.ask("anomalies", sensor_id="s")
    assert (answer["count"], len(answer["anomalies"]), answer["truncated"]) == (100, 100, False)
    answer = lab.ask("anomalies", sensor_id="s", limit="3")
    assert (answer["count"], len(answer["anomalies"]), answer["truncated"]) == (100, 3, True)
    newest = [row["timestamp"] for row in answer["anomalies"]]
    assert newest == sorted(newest, reverse=True)
    assert answer["anomalies"][0]["z_score"] == pytest.approx(50 / values.std(ddof=1))


def test_threshold_is_strict(lab: QueryLab) -> None:
    lab.add("s", [T0, T0 + 1, T0 + 2], [-1, 0, 1])  # sample deviation 1
    assert lab.ask("anomalies", sensor_id="s", threshold=1)["count"] == 0
    assert lab.ask("anomalies", sensor_id="s", threshold="0.999")["count"] == 2


def test_compare_orders_by_average_and_names_the_unknown(lab: QueryLab) -> None:
    lab.add("low", [T0], [1])
    lab.add("high", [T0, T0 + 1], [5, 7])
    lab.add("away", [T0 + HOUR], [100])
    answer = lab.ask("compare", sensor_ids=["nope", "low", "away", "high", "low"], end_time=T0 + 5)
    assert list(answer["comparison"]) == ["high", "low", "away"]
    assert answer["unknown"] == ["nope"]
    assert answer["comparison"]["away"]["count"] == 0
    assert answer["comparison"]["high"] == {
        "count": 2, "avg_value": 6, "min_value": 5, "max_value": 7,
        "stddev_value": pytest.approx(2**0.5),
    }  # fmt: skip
    with pytest.raises(UnknownSensorError):
        lab.engine.answer("compare", {"sensor_ids": ["x", "y"]})


def test_compare_of_a_thousand_sensors(lab: QueryLab) -> None:
    names = [f"s{k}" for k in range(limits.COMPARE_SENSORS_MAX)]
    for k, name in enumerate(names[:50]):
        lab.add(name, [T0, T0 + HOUR], [k, k])
    answer = lab.ask("compare", sensor_ids=names, start=T0, end=T0 + MINUTE)
    assert (len(answer["comparison"]), len(answer["unknown"])) == (50, 950)


# --- which metric -------------------------------------------------------------------------------


def test_metric_rules(lab: QueryLab) -> None:
    lab.add("plain", [T0], [1])
    lab.add("plain", [T0], [2], metric="other")
    lab.add("only", [T0], [3], metric="temperature")
    lab.add("two", [T0], [4], metric="a")
    lab.add("two", [T0], [5], metric="b")
    assert lab.ask("stats", sensor_id="plain")["avg_value"] == 1
    assert lab.ask("stats", sensor_id="plain", metric="other")["avg_value"] == 2
    assert lab.ask("stats", sensor_id="only")["metric"] == "temperature"
    for engine in (lab.engine, lab.file_engine):
        for query in ("stats", "timeseries", "anomalies"):
            with pytest.raises(MetricChoiceError, match="a, b"):
                engine.answer(query, {"sensor_id": "two"})
            with pytest.raises(QueryError, match="one of a, b"):
                engine.answer(query, {"sensor_id": "two", "metric": "c"})
            with pytest.raises(UnknownSensorError):
                engine.answer(query, {"sensor_id": "nobody"})


def test_sensor_with_events_alone(lab: QueryLab) -> None:
    lab.add_events("door", [T0], [b'"open"'])
    for engine in (lab.engine, lab.file_engine):
        with pytest.raises(QueryError, match="only events") as caught:
            engine.answer("stats", {"sensor_id": "door"})
        assert "events" in caught.value.hint


# --- lists --------------------------------------------------------------------------------------


def test_latest(lab: QueryLab) -> None:
    lab.clock.set_wall(T0 + 90_000_000)
    lab.add("s", [T0, T0 - 5], [1, 2], metric="a", quality=1)
    lab.add("s", [T0 + 60_000_000], [3], metric="b")
    lab.add_events("s", [T0, T0 + 1, T0 - 9], [b"1", b'{"z": 1,  "a":[1.50]}', b"3"])
    answer = lab.ask("latest", sensor_id="s")
    assert answer["latest"]["a"] == {
        "timestamp": "2023-11-15T00:00:00Z", "value": 1, "quality": 1, "id": 1, "age_s": 90,
    }  # fmt: skip
    assert answer["latest"]["b"]["age_s"] == 30
    assert (answer["event"]["id"], answer["event"]["data"]) == (5, {"z": 1, "a": [1.5]})
    only = lab.ask("latest", sensor_id="s", metric="b")
    assert (list(only["latest"]), only["event"]) == (["b"], None)
    with pytest.raises(UnknownSensorError):
        lab.engine.answer("latest", {"sensor_id": "t"})


def test_events_come_as_they_went_in(lab: QueryLab) -> None:
    payloads = [b'{"b":1,  "a":[1.50,1e2]}', b'"text"', b"null", '"ü\\u00fc"'.encode()]
    lab.add_events("s", [T0 + k for k in range(4)], payloads)
    for engine in (lab.engine, lab.file_engine):
        body = engine.answer("events", {"sensor_id": "s"})
        for payload in payloads:
            assert b'"data":' + payload in body
    answer = lab.ask("events", sensor_id="s", limit="2", end=T0 + 2)
    assert [row["id"] for row in answer["events"]] == [3, 2]
    assert answer["truncated"]
    assert not lab.ask("events", sensor_id="s", start=T0 + 3)["truncated"]
    lab.add("readings", [T0], [1])
    assert lab.ask("events", sensor_id="readings")["events"] == []


def test_events_answer_is_bounded_in_bytes(lab: QueryLab) -> None:
    large = b'"' + b"x" * (limits.EVENT_BYTES_MAX - 2) + b'"'
    for k in range(18):
        lab.add_events("s", [T0 + k], [large])
    answer = decode(lab.file_engine.answer("events", {"sensor_id": "s"}))
    assert (answer["count"], answer["truncated"]) == (16, True)


def test_sensors_are_paged_by_name(lab: QueryLab) -> None:
    for name in ("b", "a", "ä", "ab", "Z"):
        lab.add(name, [T0, T0 + 1], [1, 2])
    lab.add("a", [T0 - 1], [9], metric="m")
    lab.add_events("e", [T0], [b"1"])
    answer = lab.ask("sensors")
    assert [row["sensor_id"] for row in answer["sensors"]] == ["Z", "a", "ab", "b", "e", "ä"]
    assert answer["next"] is None
    assert answer["sensors"][1] == {
        "sensor_id": "a", "metrics": ["m", "value"], "count": 3,
        "first_reading": "2023-11-14T23:59:59.999999Z",
        "last_reading": "2023-11-15T00:00:00.000001Z", "last_value": 2, "events": 0,
    }  # fmt: skip
    assert answer["sensors"][4]["events"] == 1
    page = lab.ask("sensors", limit="2", after="Z")
    assert ([row["sensor_id"] for row in page["sensors"]], page["next"]) == (["a", "ab"], "ab")
    assert lab.ask("sensors", prefix="a", limit=2)["next"] is None
    everything = lab.ask("latest_all", limit="10", after="ab")
    assert [row["sensor_id"] for row in everything["sensors"]] == ["b", "e", "ä"]


# --- safety -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", INJECTIONS)
def test_user_text_is_never_sql(lab: QueryLab, text: str) -> None:
    lab.add("s", [T0], [1])
    lab.add(text, [T0, T0 + 1], [1, 2], metric=text)
    for query in ("stats", "timeseries", "anomalies", "latest"):
        lab.ask(query, sensor_id=text, metric=text)
        with pytest.raises(UnknownSensorError):
            lab.engine.answer(query, {"sensor_id": text + "!"})
    lab.ask("compare", sensor_ids=[text, text + "!"], metric=text)
    assert len(lab.ask("sensors", prefix=text)["sensors"]) == 1
    lab.ask("latest_all", after=text)
    for parameter in ("interval", "fill", "tz", "start"):
        with pytest.raises(QueryError):
            lab.engine.answer("timeseries", {"sensor_id": "s", parameter: text})
    assert lab.ask("stats", sensor_id="s")["count"] == 1


def test_query_that_takes_too_long_is_ended(lab: QueryLab) -> None:
    lab.add("s", T0 + np.arange(500_000) * 1_000_003, np.arange(500_000) % 977)
    hasty = QueryEngine(lab.store, None, lab.clock, 0.003)

    def insist(query: str, **params: object) -> None:
        for _ in range(100):
            hasty.answer(query, params)

    with pytest.raises(QueryTimeoutError):
        insist("timeseries", sensor_id="s", interval="61s", tz="Europe/Berlin")
    with pytest.raises(QueryTimeoutError):
        insist("anomalies", sensor_id="s", threshold="0.001")
    # What was ended leaves nothing behind in this thread.
    calm = QueryEngine(lab.store, None, lab.clock, 30)
    assert decode(calm.answer("anomalies", {"sensor_id": "s"}))["count"] == 0
    hasty_again = decode(lab.file_engine.answer("stats", {"sensor_id": "s"}))
    assert hasty_again["count"] == 500_000


def test_interrupted_queries_end_soon_and_no_new_ones_begin(lab: QueryLab) -> None:
    lab.add("s", T0 + np.arange(500_000) * 1_000_003, np.arange(500_000) % 977)
    engine = QueryEngine(lab.store, None, lab.clock, 30)
    begun, ended = threading.Event(), list[Exception]()

    def ask() -> None:
        try:
            while True:
                engine.answer(
                    "timeseries", {"sensor_id": "s", "interval": "61s", "tz": "Asia/Tokyo"}
                )
                begun.set()
        except AnalyticsUnavailableError as error:
            ended.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    engine.interrupt_all()
    for thread in threads:
        thread.join(5)
    assert [str(error) for error in ended] == ["analytics are stopping"] * 2
    with pytest.raises(AnalyticsUnavailableError):
        engine.answer("stats", {"sensor_id": "s"})


def test_an_interrupt_ends_a_statement_that_runs(lab: QueryLab) -> None:
    session = Session(Cursors(lab.store), 60)
    timer = threading.Timer(0.1, session.interrupt)
    timer.start()
    with pytest.raises(InterruptError):
        session.rows("SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b", ())
    with pytest.raises(AnalyticsUnavailableError):
        session.rows("SELECT 1", ())
    session.close()
    timer.join()


def test_what_is_left_of_the_time_limit_counts(lab: QueryLab) -> None:
    lab.add("s", T0 + np.arange(500_000) * 1_000_003, np.arange(500_000) % 977)
    engine = QueryEngine(lab.store, None, lab.clock, 30)

    def insist() -> None:
        for _ in range(100):
            engine.answer(
                "timeseries",
                {"sensor_id": "s", "interval": "61s", "tz": "Europe/Berlin"},
                timeout_s=0.003,
            )

    with pytest.raises(QueryTimeoutError, match="within 30 s"):
        insist()


@pytest.mark.parametrize("certain", [True, False])
def test_damage_is_told_once_and_noted_by_the_store(
    lab: QueryLab, monkeypatch: pytest.MonkeyPatch, certain: bool
) -> None:
    told: list[str] = []
    engine = QueryEngine(lab.store, None, lab.clock, 30, on_damage=told.append)
    error = (duckdb.IOException if certain else duckdb.InternalException)("a wrong pointer")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Session, "rows", fail)
    with pytest.raises(AnalyticsUnavailableError) as caught:
        engine.answer("stats", {"sensor_id": "s"})
    assert told == [f"{type(error).__name__}: a wrong pointer"]
    assert lab.store.is_suspect is certain
    assert ("rebuilt" in str(caught.value)) is certain


def test_a_failed_query_leaves_no_cursor_behind(
    lab: QueryLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_NAMES", "SELECT nothing FROM nowhere WHERE ? + ? + ?")
    before = list(lab.store._cursors)
    for _ in range(5):
        with pytest.raises(duckdb.Error):
            lab.file_engine.answer("sensors", {})
    assert lab.store._cursors == before


def test_sensors_with_events_are_listed_from_memory(
    lab: QueryLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.add_events("door", [T0, T0 + 1, T0 + 2], [b"1", b"2", b"3"])
    lab.add("s", [T0], [1])
    expected = lab.ask("sensors")
    assert [sensor["events"] for sensor in expected["sensors"]] == [3, 0]
    monkeypatch.delattr(Session, "rows")
    assert decode(lab.engine.answer("sensors", {})) == expected


def test_several_threads_ask_at_once(lab: QueryLab) -> None:
    lab.add("s", T0 + np.arange(50_000) * 1_000_000, np.arange(50_000.0))
    expected = lab.file_engine.answer("timeseries", {"sensor_id": "s"})
    answers: list[bytes] = []

    def ask() -> None:
        answers.extend(lab.file_engine.answer("timeseries", {"sensor_id": "s"}) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 40


def test_closed_store_is_reported(lab: QueryLab) -> None:
    lab.add("s", [T0], [1])
    lab.store.close()
    with pytest.raises(AnalyticsUnavailableError):
        QueryEngine(lab.store, None, lab.clock, 30).answer("stats", {"sensor_id": "s"})


# --- sensors under other names, and keys that may touch some only --------------------------------


def test_an_old_name_means_the_sensor_that_has_it_no_longer(lab: QueryLab) -> None:
    lab.add("new", [T0, T0 + MINUTE], [1.0, 3.0])
    lab.add_events("new", [T0], [b"1"])
    lab.add("other", [T0], [9.0])
    for engine in (lab.engine, lab.file_engine):
        engine.use_names(Names([rename(1, "old", "middle"), rename(2, "middle", "new")]))
    for old in ("old", "middle", "new"):
        for query in ("stats", "timeseries", "anomalies", "latest", "events"):
            answer = lab.ask(query, sensor_id=old)
            assert answer["sensor_id"] == "new", (query, old)
    compared = lab.ask("compare", sensor_ids=["other", "old", "new", "middle", "gone"])
    assert list(compared["comparison"]) == ["other", "new"]
    assert compared["unknown"] == ["gone"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("hall-1/*", ["hall-1/a", "hall-1/b/c"]),
        ("hall-?/a", ["hall-1/a", "hall-2/a"]),
        ("HALL*", []),
        ("*", ["hall-1/a", "hall-1/b/c", "hall-2/a", "odd[1]"]),
        ("odd[[]1]", ["odd[1]"]),
        ("hall-[!1]*", ["hall-2/a"]),
        ("' OR 1=1 --", []),
    ],
)
def test_a_pattern_hides_all_other_sensors(
    lab: QueryLab, pattern: str, expected: list[str]
) -> None:
    for name in ("hall-1/a", "hall-2/a", "odd[1]"):
        lab.add(name, [T0], [1.0])
    lab.add_events("hall-1/b/c", [T0], [b"1"])
    for query in ("sensors", "latest_all"):
        answer = lab.ask(query, pattern=pattern)
        assert [sensor["sensor_id"] for sensor in answer["sensors"]] == expected


def test_pages_under_a_pattern_are_full(lab: QueryLab) -> None:
    for k in range(20):
        lab.add(f"{'in' if k % 2 else 'out'}-{k:02}", [T0], [1.0])
    first = lab.ask("sensors", pattern="in-*", limit=4)
    assert [s["sensor_id"] for s in first["sensors"]] == ["in-01", "in-03", "in-05", "in-07"]
    assert first["next"] == "in-07"
    second = lab.ask("latest_all", pattern="in-*", limit=6, after="in-07")
    assert [s["sensor_id"] for s in second["sensors"]][-1] == "in-19"
    assert second["next"] is None
    assert lab.ask("sensors", pattern="in-*", prefix="in-1", limit=2)["next"] == "in-13"
