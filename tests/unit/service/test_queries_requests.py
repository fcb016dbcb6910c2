"""How parameters are read and refused; the ingest process does this without DuckDB."""

import subprocess
import sys

import pytest

from ocean_core.model import limits
from ocean_core.model.errors import QueryError
from ocean_core.service.queries.requests import (
    AnomaliesRequest,
    CompareRequest,
    StatsRequest,
    TimeseriesRequest,
    parse_request,
    query_names,
)
from ocean_core.service.queries.values import ROUND_INTERVALS, interval_for, parse_interval


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("5m", 300), ("5 minutes", 300), ("1 hour", 3600), ("2H", 7200), ("1d", 86400),
     ("30 days", 2592000), ("4w", 2419200), (" 90 sec ", 90), ("1 minute", 60)],
)  # fmt: skip
def test_intervals(text: str, seconds: int) -> None:
    assert parse_interval("interval", text) == seconds * 1_000_000


BAD: dict[tuple[str, str], list[object]] = {
    ("timeseries", "interval"): [
        "", "5", "m", "0s", "31d", "5w", "-1m", "1.5h", "5 parsecs", "1 month", "5m; DROP", "\u0665m",
        "999999999999s", 300, True, ["5m"],
    ],
    ("timeseries", "fill"): ["", "nan", "inf", "1e999", "next", "0x10"],
    ("timeseries", "tz"): [
        "", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "\x00", "a" * 999, 1,
    ],
    ("stats", "start"): [
        "", "soon", "2026-13-01", "nan", "1e400", "-1", "10000-01-01", "2026-01-01T00:00:00 02:00",
        True, [1], float("nan"), float("inf"), -1,
    ],
    ("anomalies", "threshold"): ["", "0", "-2", "nan", "inf", "1e999", "1_0", "two", {}, 10**400],
    ("anomalies", "limit"): ["0", "10001", "-1", "1.5", "9" * 30, "1_0", 2.0, True],
    ("stats", "sensor_id"): ["", "x" * 257, "\ud800", 5],
    ("stats", "metric"): ["", "x" * 129],
    ("stats", "intervall"): ["5m"],
    ("sensors", "limit"): [str(limits.SENSORS_PAGE_MAX + 1)],
    ("sensors", "after"): ["\udcff"],
    ("events", "limit"): [str(limits.EVENTS_PAGE_MAX + 1)],
    ("compare", "sensor_ids"): [[], "s", ["x"] * 1001, [1], [""], {"a": 1}],
    ("compare", "aggregation"): ["no"],
}  # fmt: skip
CASES = [
    pytest.param(*place, found, id=f"{'-'.join(place)}-{k}")
    for place, values in BAD.items()
    for k, found in enumerate(values)
]


@pytest.mark.parametrize(("query", "parameter", "found"), CASES)
def test_bad_parameter_is_named(query: str, parameter: str, found: object) -> None:
    params: dict[str, object] = {"sensor_ids": ["s"]} if query == "compare" else {"sensor_id": "s"}
    if query == "sensors":
        params = {}
    with pytest.raises(QueryError) as caught:
        parse_request(query, {**params, parameter: found})
    (problem,) = caught.value.fields
    assert problem.field.startswith(parameter)
    assert problem.expected
    assert len(problem.found) < 200
    caught.value.detail.encode()


def test_defaults_and_none_as_absent() -> None:
    assert parse_request("stats", {"sensor_id": "s", "start": None}) == StatsRequest("s")
    request = parse_request("timeseries", {"sensor_id": "s"})
    assert isinstance(request, TimeseriesRequest)
    assert (request.interval_us, request.fill, request.zone) == (300_000_000, "none", "UTC")
    request = parse_request("anomalies", {"sensor_id": "s"})
    assert isinstance(request, AnomaliesRequest)
    assert (request.threshold, request.limit) == (2.0, 100)


def test_moments_follow_the_rules_of_readings() -> None:
    for text in ("2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01 01:00:00+01:00", "1767225600",
                 1767225600, "1767225600000", 1767225600000000, "1767225600000000000"):  # fmt: skip
        assert parse_request("stats", {"sensor_id": "s", "start": text}) == StatsRequest(
            "s", start_us=1767225600000000
        )


def test_end_before_start_is_refused() -> None:
    with pytest.raises(QueryError, match="end: "):
        parse_request("stats", {"sensor_id": "s", "start": 5, "end": 4})
    with pytest.raises(QueryError, match="end_time: "):
        parse_request("compare", {"sensor_ids": ["s"], "start_time": 5, "end_time": 4})
    parse_request("stats", {"sensor_id": "s", "start": 5, "end": 5})


def test_original_compare_body_is_taken() -> None:
    body = {"sensor_id": "x", "sensor_ids": ["b", "a", "b"], "start_time": None, "end_time": None,
            "aggregation": "5m"}  # fmt: skip
    assert parse_request("compare", body) == CompareRequest(("b", "a"))
    with pytest.raises(QueryError, match="sensor_ids"):
        parse_request("compare", {"sensor_id": "x"})


def test_missing_sensor_and_unknown_query() -> None:
    with pytest.raises(QueryError, match="sensor_id"):
        parse_request("stats", {})
    with pytest.raises(QueryError, match="query"):
        parse_request("drop", {})


def test_requests_can_key_a_cache() -> None:
    for name in query_names():
        params = {"sensor_ids": ["s"]} if name == "compare" else {"sensor_id": "s"}
        if name in {"sensors", "latest_all", "verify", "digests"}:
            params = {}
        assert hash(parse_request(name, params)) == hash(parse_request(name, dict(params)))


def test_suggested_interval_fits() -> None:
    for span in (1, 10**12, 10**15, 10**17, limits.TIMESTAMP_US_MAX):
        width = parse_interval("interval", interval_for(span))
        assert span // width + 2 <= limits.TIMESERIES_BUCKETS_MAX
    widths = [parse_interval("interval", text) for text in ROUND_INTERVALS]
    assert widths == sorted(widths)


def test_parsing_does_not_load_duckdb() -> None:
    code = "import sys, ocean_core.service.queries.requests; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


WITH_PATTERN = {"sensors", "latest_all", "digests"}


@pytest.mark.parametrize("name", sorted(WITH_PATTERN))
def test_the_pattern_of_a_key_is_no_parameter_for_others(name: str) -> None:
    with pytest.raises(QueryError, match="no such parameter"):
        parse_request(name, {"pattern": "*"})
    assert parse_request(name, {"pattern": "a*"}, internal=True).pattern == "a*"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(set(query_names()) - WITH_PATTERN))
def test_other_queries_have_no_pattern_at_all(name: str) -> None:
    with pytest.raises(QueryError, match="no such parameter"):
        parse_request(name, {"pattern": "*"}, internal=True)
