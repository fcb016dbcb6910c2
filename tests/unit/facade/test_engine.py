"""Which request each method becomes, and which engine one gets."""

import datetime as dt
import inspect
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from msgspec import UNSET

import ocean_core
from ocean_core import facade
from ocean_core.client.connection import Target
from ocean_core.client.http import FixedServer
from ocean_core.facade import DataEngine, get_data_engine
from ocean_core.facade.telemetry import CHUNK_ITEMS
from ocean_core.model.errors import (
    CommandError,
    FieldProblem,
    InvalidReadingError,
    SeriesQuotaError,
    StoreUnavailableError,
    UnknownUserError,
)
from ocean_core.model.limits import QUARANTINE_RETRIED_MAX

HERE = Target("http://127.0.0.1:1")
NOON = dt.datetime(2026, 1, 17, 12, tzinfo=dt.UTC)

Call = tuple[str, str, dict[str, Any], Any, bool]


class Recorder:
    """Stands where the client of the API stands."""

    def __init__(self, *answers: Any) -> None:
        self.calls: list[Call] = []
        self.keys: list[str | None] = []
        self._answers = list(answers)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        idempotency_key: str | None = None,
        repeatable: bool | None = None,
    ) -> Any:
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        body = json.loads(body) if isinstance(body, bytes) else body
        safe = method != "POST" or bool(repeatable) or idempotency_key is not None
        self.calls.append((method, path, asked, body, safe))
        self.keys.append(idempotency_key)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def engine_with(*answers: Any) -> tuple[DataEngine, Recorder]:
    engine = DataEngine(FixedServer(HERE), random_bytes=lambda size: b"\x01" * size)
    recorder = Recorder(*answers)
    engine._api = recorder  # type: ignore[assignment]
    return engine, recorder


PAGE: dict[str, Any] = {name: [] for name in (
    "users", "entries", "sessions", "metadata", "profiles", "sensors", "keys", "data", "events",
    "anomalies", "groups", "series",
)}  # fmt: skip
ANYTHING: dict[str, Any] = {
    **PAGE, "next": None, "session": {}, "value": 1, "latest": {}, "comparison": {}, "processed": 2,
}  # fmt: skip

Use = Callable[[DataEngine], object]
# The method, the request as METHOD /path?query, its body, and whether it may be sent twice.
REQUESTS: list[tuple[Use, str, Any, bool]] = [
    (lambda e: e.create_user("a", "a@x"), "POST /users", {"username": "a", "email": "a@x"}, True),
    (
        lambda e: e.create_user("a", "a@x", password="secret-1"),
        "POST /users", {"username": "a", "email": "a@x", "password": "secret-1"}, True,
    ),
    (lambda e: e.get_user("u/1"), "GET /users/u%2F1", None, True),
    (lambda e: e.list_users(status="active", limit=7), "GET /users?status=active&limit=7", None, True),
    (
        lambda e: e.update_user("u", email="b@x", password=None),
        "PATCH /users/u", {"email": "b@x", "password": None}, True,
    ),
    (lambda e: e.disable_user("u"), "PATCH /users/u", {"status": "disabled"}, True),
    (lambda e: e.get_billing("u"), "GET /billing/u", None, True),
    (lambda e: e.add_credits("u", -5), "POST /billing/u/add-credits", {"amount": -5}, True),
    (
        lambda e: e.add_credits("u", 5, note="n"),
        "POST /billing/u/add-credits", {"amount": 5, "note": "n"}, True,
    ),
    (lambda e: e.update_credits("u", 5), "POST /billing/u/add-credits", {"amount": 5}, True),
    (lambda e: e.billing_ledger("u"), "GET /billing/u/ledger?limit=1000", None, True),
    (
        lambda e: e.create_session("u", "a", password="p"),
        "POST /sessions/create", {"user_id": "u", "username": "a", "password": "p"}, False,
    ),
    (lambda e: e.validate_session("t"), "POST /sessions/validate", {"token": "t"}, True),
    (lambda e: e.revoke_session("t"), "POST /sessions/revoke", {"token": "t"}, True),
    (lambda e: e.revoke_session(session_id="s"), "DELETE /sessions/s", None, True),
    (lambda e: e.list_sessions(user_id="u"), "GET /sessions?user_id=u&limit=1000", None, True),
    (lambda e: e.set_metadata("k/1", None), "POST /metadata/k%2F1", {"value": None}, True),
    (lambda e: e.set_metadata("k", [1], ttl_s=2), "POST /metadata/k", {"value": [1], "ttl_s": 2}, True),
    (lambda e: e.get_metadata("k"), "GET /metadata/k", None, True),
    (lambda e: e.delete_metadata("k"), "DELETE /metadata/k", None, True),
    (lambda e: e.list_metadata("a."), "GET /metadata?prefix=a.&limit=1000", None, True),
    (
        lambda e: e.store_profile("p", "s", {"a": 1}, timestamp=NOON),
        "POST /profiles/store",
        {"profile_id": "p", "sensor_id": "s", "metadata": {"a": 1},
         "timestamp": "2026-01-17T12:00:00+00:00"},
        True,
    ),
    (lambda e: e.get_profile("p"), "GET /profiles/p", None, True),
    (lambda e: e.list_profiles(sensor_id="s"), "GET /profiles?sensor_id=s&limit=1000", None, True),
    (lambda e: e.delete_profile("p"), "DELETE /profiles/p", None, True),
    (lambda e: e.ingest("s", 1.5), "POST /telemetry/ingest", {"sensor_id": "s", "value": 1.5}, True),
    (
        lambda e: e.ingest("s", 1, NOON, "t"),
        "POST /telemetry/ingest",
        {"sensor_id": "s", "value": 1, "timestamp": "2026-01-17T12:00:00+00:00", "metric": "t"},
        True,
    ),
    (lambda e: e.ingest("s", True), "POST /telemetry/ingest", {"sensor_id": "s", "data": True}, True),
    (lambda e: e.ingest("s", None), "POST /telemetry/ingest", {"sensor_id": "s", "data": None}, True),
    (lambda e: e.ingest("s", b"x", 5), "POST /telemetry/ingest", {"sensor_id": "s", "data": "x", "timestamp": 5}, True),
    (lambda e: e.ingest("s", "2", metric="t"), "POST /telemetry/ingest", {"sensor_id": "s", "value": "2", "metric": "t"}, True),
    (lambda e: e.unprocessed(limit=5), "GET /telemetry/unprocessed?group=api&limit=5", None, True),
    (lambda e: e.get_unprocessed_telemetry(5), "GET /telemetry/unprocessed?group=api&limit=5", None, True),
    (lambda e: e.mark_processed([3, 1], "g"), "POST /telemetry/mark-processed?group=g", [3, 1], True),
    (lambda e: e.mark_telemetry_processed((3, 1)), "POST /telemetry/mark-processed?group=api", [3, 1], True),
    (lambda e: e.groups(), "GET /telemetry/groups", None, True),
    (lambda e: e.forget_group("g"), "DELETE /telemetry/groups/g", None, True),
    (
        lambda e: e.get_sensor_stats("a b", start=NOON, end=5, metric="m", wait=True),
        "GET /analytics/sensor/a%20b/stats?start=2026-01-17T12:00:00%2B00:00&end=5&metric=m&wait=True",
        None, True,
    ),
    (
        lambda e: e.get_time_series("s", "1h", fill="null", tz="UTC"),
        "GET /analytics/sensor/s/timeseries?interval=1h&fill=null&tz=UTC", None, True,
    ),
    (lambda e: e.get_anomalies("s", 3, limit=9), "GET /analytics/sensor/s/anomalies?threshold=3&limit=9", None, True),
    (
        lambda e: e.compare_sensors(("a", "b"), NOON),
        "POST /analytics/compare",
        {"sensor_ids": ["a", "b"], "start": "2026-01-17T12:00:00+00:00"}, True,
    ),
    (lambda e: e.sensors("p"), "GET /sensors?prefix=p&limit=1000", None, True),
    (
        lambda e: e.digests("p", limit=9, wait=True),
        "GET /telemetry/digests?prefix=p&wait=True&limit=9", None, True,
    ),
    (lambda e: e.latest("s", "m"), "GET /sensors/s/latest?metric=m", None, True),
    (lambda e: e.events("s"), "GET /sensors/s/events?limit=100", None, True),
    (lambda e: e.get_sensor("s"), "GET /sensors/s", None, True),
    (
        lambda e: e.update_sensor("s", unit="bar", note=None),
        "PATCH /sensors/s", {"unit": "bar", "note": None}, True,
    ),
    (lambda e: e.rename_sensor("s", "t"), "POST /sensors/s/rename", {"to": "t"}, False),
    (lambda e: e.forget_sensor("s"), "POST /sensors/s/forget", {"confirm": "s"}, False),
    (lambda e: e.ledger(), "GET /ledger?limit=1000", None, True),
    (lambda e: e.ledger(sensor_id="s"), "GET /ledger?sensor_id=s&limit=1000", None, True),
    (
        lambda e: e.create_key("n", "read"),
        "POST /keys", {"name": "n", "scopes": ["read"]}, False,
    ),
    (
        lambda e: e.create_key("n", {"read"}, rate=5, expires="90d", sensors="p-*", user_id="u"),
        "POST /keys",
        {"name": "n", "scopes": ["read"], "sensors": "p-*", "rate": 5, "expires": "90d",
         "user_id": "u"},
        False,
    ),
    (lambda e: e.list_keys(), "GET /keys?limit=1000", None, True),
    (lambda e: e.revoke_key("k"), "DELETE /keys/k", None, True),
    (lambda e: e.audit(act="a"), "GET /audit?act=a&limit=1000", None, True),
    (lambda e: e.status(), "GET /status", None, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("use", "request_line", "body", "safe"),
    REQUESTS,
    ids=[f"{number}-{row[1].partition('?')[0]}" for number, row in enumerate(REQUESTS)],
)
def test_each_method_is_one_request(use: Use, request_line: str, body: Any, safe: bool) -> None:
    engine, recorder = engine_with(ANYTHING)
    use(engine)
    method, address = request_line.split(" ", 1)
    parts = urlsplit(address)
    ((found_method, path, query, found_body, found_safe),) = recorder.calls
    assert (found_method, path) == (method, "/api/ocean" + parts.path)
    assert {name: str(value) for name, value in query.items()} == dict(parse_qsl(parts.query))
    assert found_body == body
    assert found_safe == safe


def test_everything_public_is_described() -> None:
    methods = inspect.getmembers(DataEngine, inspect.isfunction)
    assert [
        name for name, method in methods if not name.startswith("_") and not method.__doc__
    ] == []


def test_the_names_of_the_original_are_there() -> None:
    """As services/ultra_light_engine.py and duckdb_analytics.py had them."""
    for name in (
        "create_user", "get_user", "update_credits", "get_billing", "create_session",
        "validate_session", "ingest_telemetry", "get_unprocessed_telemetry",
        "mark_telemetry_processed", "set_metadata", "get_metadata", "get_stats",
        "get_sensor_stats", "get_time_series", "get_anomalies", "compare_sensors",
    ):  # fmt: skip
        assert callable(getattr(DataEngine, name))


def test_the_old_order_of_arguments_is_refused_and_not_misread() -> None:
    engine, recorder = engine_with(ANYTHING)
    with pytest.raises(TypeError):
        engine.create_user("some-id", "ada", "ada@x.example")  # type: ignore[call-arg]
    assert recorder.calls == []


NEEDS_ID: list[Use] = [
    lambda e: e.get_user("ada"),
    lambda e: e.update_user("ada", email="a@x"),
    lambda e: e.disable_user("ada"),
    lambda e: e.get_billing("ada"),
    lambda e: e.add_credits("ada", 5),
    lambda e: e.billing_ledger("ada"),
]


@pytest.mark.parametrize("use", NEEDS_ID, ids=range(len(NEEDS_ID)))
def test_a_name_where_an_id_is_wanted_is_told(use: Use) -> None:
    engine, _ = engine_with(UnknownUserError("there is no user 'ada'"))
    with pytest.raises(UnknownUserError) as caught:
        use(engine)
    assert caught.value.hint == "'ada' is no id: list_users() shows ids and names of users."


def test_an_unknown_id_keeps_its_hint() -> None:
    engine, _ = engine_with(UnknownUserError("there is no such user"))
    with pytest.raises(UnknownUserError) as caught:
        engine.get_user("b0cc5d44-8039-43fa-b9d4-090d50e5f756")
    assert caught.value.hint == UnknownUserError.hint


def test_an_engine_shows_where_it_is_and_starts_nothing_for_that(tmp_path: Path) -> None:
    assert repr(get_data_engine("http://gateway.example:8030")) == (
        "<DataEngine http://gateway.example:8030>"
    )
    engine = get_data_engine(data_dir=tmp_path / "data")
    assert repr(engine) == f"<DataEngine not connected, data directory {tmp_path / 'data'}>"
    assert not (tmp_path / "data").exists()


def test_lists_go_on_until_the_end_or_the_limit() -> None:
    pages = [{"users": [{"id": n}], "next": f"c{n}"} for n in range(3)]
    engine, recorder = engine_with(*pages, {"users": [], "next": None})
    assert engine.list_users() == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert [call[2].get("after") for call in recorder.calls] == [None, "c0", "c1", "c2"]
    engine, recorder = engine_with(
        {"users": [{}] * 1000, "next": "c"}, {"users": [{}] * 500, "next": "c"}
    )
    assert len(engine.list_users(limit=1500)) == 1500
    assert [call[2]["limit"] for call in recorder.calls] == [1000, 500]


def test_a_verification_goes_step_by_step_and_asks_the_ledger_at_the_end() -> None:
    step = {
        **dict.fromkeys(
            ("readings", "events", "forgotten", "missing", "damaged", "trimmed", "kept", "equal",
             "absent", "changed", "doubled", "surplus", "series_differing", "waiting"), 0,
        ),
        **dict.fromkeys(("digest_journal", "digest_analytics"), "0" * 16),
        **{name: [] for name in ("series", "examples", "lost", "forgotten_sensors")},
        "head_id": 9, "watermark": 9, "totals": {"differing": 0},
    }  # fmt: skip
    steps = [{**step, "next_after_id": 5, "equal": 5}, {**step, "next_after_id": None, "equal": 4}]
    page: dict[str, Any] = {
        "sensors": [],
        "next": None,
        "totals": {"duplicate": 1},
        "approximate": None,
    }
    engine, recorder = engine_with(page, *steps, page)
    seen: list[Any] = []
    report = engine.verify(seen.append)
    assert (report["ok"], report["equal"], report["head_id"]) == (True, 9, 9)
    assert report["ledger"] == {"totals": {"duplicate": 1}, "approximate": None}
    assert seen == steps
    assert [(path, query) for _, path, query, _, _ in recorder.calls] == [
        ("/api/ocean/ledger", {"limit": 1}),
        ("/api/ocean/verify", {"after_id": 0, "wait": True}),
        ("/api/ocean/verify", {"after_id": 5}),
        ("/api/ocean/ledger", {"limit": 1}),
    ]
    engine, _ = engine_with(away := StoreUnavailableError("away"), steps[1], away)
    assert engine.verify()["ledger"] is None


def test_values_come_without_their_wrapping() -> None:
    engine, _ = engine_with({"key": "k", "value": {"a": 1}})
    assert engine.get_metadata("k") == {"a": 1}
    engine, _ = engine_with({"valid": True, "session": {"id": "s"}})
    assert engine.validate_session("t") == {"id": "s"}


def test_the_sums_of_the_ledger() -> None:
    sums = {"totals": {"stored": 1}, "approximate": None}
    engine, recorder = engine_with({"sensors": [], "next": None, **sums})
    assert engine.ledger_totals() == sums
    assert recorder.calls[0][2]["limit"] == 1


def test_stats_count_what_the_original_counted() -> None:
    status = {
        "buffer": {"head_id": 9},
        "files_mb": {"a": 1.25, "b": 0.5},
        "accounts": {"users": 3, "sessions": 1},
    }
    groups = {
        "groups": [
            {"name": "mover", "cursor": 1, "ahead": 0, "evicted": 0},
            {"name": "api", "cursor": 4, "ahead": 2, "evicted": 2},
        ]
    }
    engine, _ = engine_with(status, groups)
    assert engine.get_stats() == {
        "users": 3,
        "sessions": 1,
        "telemetry_buffer": 9,
        "telemetry_processed": 4,
        "db_size_mb": 1.75,
    }


# --- many readings ---


def test_items_go_in_requests_of_a_thousand_each_with_its_key() -> None:
    engine, recorder = engine_with({"ids": [1, 2]})
    moment = dt.datetime(2026, 1, 17)  # noqa: DTZ001 - without a zone it means UTC
    items: list[Any] = [
        ("a", 1.0),
        ("b", np.float32(2)),
        ("c", "open", moment),
        {"sensor_id": "d", "value": 3, "timestamp": moment},
    ]
    assert engine.ingest_many(items) == {"count": 2, "ids": [1, 2]}
    ((method, path, query, body, _),) = recorder.calls
    assert (method, path, query) == ("POST", "/api/ocean/telemetry/batch", {})
    assert body == [
        {"sensor_id": "a", "value": 1.0},
        {"sensor_id": "b", "value": 2.0},
        {"sensor_id": "c", "data": "open", "timestamp": "2026-01-17T00:00:00"},
        {"sensor_id": "d", "value": 3, "timestamp": "2026-01-17T00:00:00"},
    ]
    engine, recorder = engine_with({"ids": []})
    engine.ingest_many((("s", n) for n in range(2 * CHUNK_ITEMS + 1)), idempotency_prefix="mine")
    assert [len(call[3]) for call in recorder.calls] == [CHUNK_ITEMS, CHUNK_ITEMS, 1]
    assert recorder.keys == ["mine-0", "mine-1", "mine-2"]


def test_large_items_go_in_smaller_requests() -> None:
    engine, recorder = engine_with({"ids": []})
    engine.ingest_many(("s", "x" * 1_000_000) for _ in range(10))
    assert [len(call[3]) for call in recorder.calls] == [4, 4, 2]


def test_nothing_to_send_is_no_request() -> None:
    engine, recorder = engine_with({"ids": []})
    assert engine.ingest_many([]) == {"count": 0, "ids": []}
    assert recorder.calls == []


def test_a_refusal_says_what_was_stored_and_counts_over_all_items() -> None:
    bad = InvalidReadingError('value: found "x"', fields=(FieldProblem("value", "x", "n", item=3),))
    engine, _ = engine_with({"ids": []}, bad)
    with pytest.raises(InvalidReadingError, match="the 1000 items before") as caught:
        engine.ingest_many(("s", n) for n in range(1500))
    assert caught.value.fields == (FieldProblem("value", "x", "n", item=1003),)


def test_partial_collects_what_was_refused() -> None:
    rejected = [{"field": "value", "found": "x", "expected": "n", "item": 0}]
    partly = {"ids": [1], "rejected": rejected, "rejected_count": 1}
    wholly = InvalidReadingError("all", fields=(FieldProblem("value", "x", "n", item=1),))
    engine, recorder = engine_with(partly, wholly)
    found = engine.ingest_many((("s", n) for n in range(1002)), partial=True)
    assert (found["count"], found["rejected_count"]) == (1, 3)
    assert [entry["item"] for entry in found["rejected"]] == [0, 1001]
    assert recorder.calls[0][2] == {"partial": True}
    engine, _ = engine_with(SeriesQuotaError("quota"))
    with pytest.raises(SeriesQuotaError):
        engine.ingest_many([("s", 1)], partial=True)


def test_frames_to_forget_go_in_bounded_requests() -> None:
    pages = [{"ids": [1, 2], "next": 2}, {"ids": [3], "next": None}]
    engine, recorder = engine_with(*pages)
    assert engine.forget_frames(outcome="E_STALE") == [1, 2, 3]
    assert [call[3] for call in recorder.calls] == [
        {"outcome": "E_STALE", "after": 0}, {"outcome": "E_STALE", "after": 2}
    ]  # fmt: skip
    engine, recorder = engine_with({"ids": [1], "next": None}, {"ids": [], "next": None})
    assert engine.forget_frames(range(1, QUARANTINE_RETRIED_MAX + 2)) == [1]
    assert len(recorder.calls) == 2
    engine, recorder = engine_with({"ids": [], "next": None})
    assert engine.forget_frames() == []
    assert recorder.calls[0][3] == {"all": True, "after": 0}


def test_bytes_that_are_no_text_are_refused_here() -> None:
    engine, recorder = engine_with({})
    with pytest.raises(InvalidReadingError):
        engine.ingest("s", b"\xff")
    assert recorder.calls == []


@pytest.mark.parametrize(
    "number",
    [np.float32(2.5), np.int64(2), Decimal("2.5"), Fraction(5, 2)],
    ids=lambda n: type(n).__name__,
)
def test_numbers_of_other_libraries_are_numbers(number: Any) -> None:
    engine, recorder = engine_with({})
    engine.ingest("s", number)
    assert recorder.calls[0][3] == {"sensor_id": "s", "value": float(number)}


def test_ids_to_mark_go_in_bounded_requests() -> None:
    engine, recorder = engine_with({"processed": 100_000}, {"processed": 1})
    assert engine.mark_processed(range(100_001)) == 100_001
    assert [len(call[3]) for call in recorder.calls] == [100_000, 1]
    assert engine.mark_processed([]) == 0


def test_nothing_given_changes_nothing_by_accident() -> None:
    engine, recorder = engine_with({})
    engine.update_sensor("s", unit="bar", tags=UNSET)
    assert recorder.calls[0][3] == {"unit": "bar"}


# --- which engine ---


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCEAN_URL", "OCEAN_KEY", "OCEAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_the_package_offers_it() -> None:
    assert ocean_core.get_data_engine("http://127.0.0.1:1") is get_data_engine("http://127.0.0.1:1")
    outer = inspect.signature(ocean_core.get_data_engine).parameters
    inner = inspect.signature(facade.get_data_engine).parameters
    assert list(outer) == list(inner)
    assert [each.default for each in outer.values()] == [each.default for each in inner.values()]


def test_the_same_arguments_give_the_same_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = get_data_engine(data_dir=tmp_path)
    assert get_data_engine(data_dir=str(tmp_path)) is here
    assert get_data_engine(data_dir=tmp_path, timeout_s=5) is not here
    monkeypatch.setenv("OCEAN_DATA__DIR", str(tmp_path))
    assert get_data_engine() is here
    monkeypatch.setenv("OCEAN_URL", "http://127.0.0.1:1")
    assert get_data_engine() is get_data_engine("http://127.0.0.1:1")
    assert get_data_engine(data_dir=tmp_path) is here
    monkeypatch.setenv("OCEAN_KEY", "ocean_k")
    assert get_data_engine() is get_data_engine("http://127.0.0.1:1", key="ocean_k")


def test_a_key_comes_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.write_text("ocean_k\n", encoding="ascii")
    file.chmod(0o600)
    url = "http://127.0.0.1:1"
    assert get_data_engine(url, key_file=file) is get_data_engine(url, key="ocean_k")
    assert caplog.text == ""
    file.chmod(0o644)
    get_data_engine(url, key_file=file)
    assert "other users may read it" in caplog.text
    get_data_engine("http://10.0.0.1:1", key="ocean_k")
    assert "crosses the network unprotected" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "http://127.0.0.1:1", "data_dir": "/d"}, "both given"),
        ({"url": "http://127.0.0.1:1", "key": "a", "key_file": "b"}, "both given"),
        ({"url": "http://127.0.0.1:1", "key": "two words"}, "holds no key"),
        ({"url": "http://127.0.0.1:1", "key_file": "/none"}, "cannot be read"),
    ],
    ids=["two servers", "two keys", "no key", "no file"],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        get_data_engine(**arguments)


def test_an_address_that_is_none_is_told_when_used() -> None:
    with pytest.raises(CommandError, match="no address"):
        get_data_engine("ftp://here").status()
