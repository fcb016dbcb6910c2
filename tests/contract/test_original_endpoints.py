"""Every endpoint of the original system: the same address, the same fields, none of its defects."""

import datetime as dt
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from support.appliance import Appliance
from support.waiting import until
from support.web import Http, Reply

# One story in one server: later rows use what earlier ones made.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("original"), pytest.mark.timeout(120)]

SENSOR = "press-01"


@dataclass
class Story:
    """The box, and what the tests know of it."""

    http: Http
    user_id: str
    token: str


Ask = Callable[[Story], Reply]


@dataclass(frozen=True)
class Row:
    """One endpoint as the original had it: a good request, its fields, and a bad one."""

    name: str
    ask: Ask
    fields: frozenset[str]
    bad: Ask | None = None
    bad_status: int = 0


def get(path: str, **query: str | float) -> Ask:
    return lambda story: story.http.get(path.format(user=story.user_id), **query)


def post(path: str, body: Any) -> Ask:
    return lambda story: story.http.post(path.format(user=story.user_id), body)


def row(name: str, ask: Ask, fields: str, bad: Ask | None = None, bad_status: int = 0) -> Row:
    return Row(name, ask, frozenset(fields.split()), bad, bad_status)


API = "/api/ocean"
NOBODY = "00000000-0000-4000-8000-000000000000"
READING = {"sensor_id": SENSOR, "data": "101.3", "timestamp": "2026-01-17T08:00:00Z"}

ROWS = [
    row(
        "GET /health", get("/health"),
        "status engine architecture cpu_mode telemetry_buffer db_size_mb timestamp",
    ),
    row(
        "GET /api/ocean/status", get(f"{API}/status"),
        "status cpu_efficient engine telemetry_buffer_size memory_usage_mb",
    ),
    row(
        "GET /api/ocean/docs", get(f"{API}/docs"),
        "system architecture layers performance endpoints",
    ),
    row(
        "POST /api/ocean/users",
        lambda story: story.http.post(
            f"{API}/users", {"username": f"u{uuid.uuid4()}", "email": f"{uuid.uuid4()}@x.example"}
        ),
        "id username email", post(f"{API}/users", {"username": "ada", "email": "b@x.example"}), 409,
    ),
    row(
        "GET /api/ocean/users/{id}", get(f"{API}/users/{{user}}"),
        "id username email created_at updated_at status", get(f"{API}/users/{NOBODY}"), 404,
    ),
    row(
        "POST /api/ocean/billing/{id}/add-credits",
        post(f"{API}/billing/{{user}}/add-credits?amount=5", b""),
        "user_id credits", post(f"{API}/billing/{NOBODY}/add-credits", {"amount": 5}), 404,
    ),
    row(
        "GET /api/ocean/billing/{id}", get(f"{API}/billing/{{user}}"),
        "id user_id plan credits usage created_at", get(f"{API}/billing/{NOBODY}"), 404,
    ),
    row(
        "POST /api/ocean/telemetry/ingest", post(f"{API}/telemetry/ingest", READING),
        "id sensor_id buffered timestamp",
        post(f"{API}/telemetry/ingest", {"sensor_id": "", "data": "1"}), 422,
    ),
    row(
        "POST /api/ocean/telemetry/batch", post(f"{API}/telemetry/batch", [READING, READING]),
        "count ids timestamp", post(f"{API}/telemetry/batch", [{"data": "1"}]), 422,
    ),
    row(
        "GET /api/ocean/telemetry/unprocessed", get(f"{API}/telemetry/unprocessed", limit=10),
        "count data", get(f"{API}/telemetry/unprocessed", limit=10_001), 400,
    ),
    row(
        "POST /api/ocean/telemetry/mark-processed", post(f"{API}/telemetry/mark-processed", [1]),
        "processed success", post(f"{API}/telemetry/mark-processed", [10**12]), 422,
    ),
    row(
        "GET /api/ocean/analytics/sensor/{id}/stats",
        get(f"{API}/analytics/sensor/{SENSOR}/stats", wait="true"),
        "count avg_value min_value max_value stddev_value first_reading last_reading",
        get(f"{API}/analytics/sensor/nobody/stats"), 404,
    ),
    row(
        "GET /api/ocean/analytics/sensor/{id}/timeseries",
        get(f"{API}/analytics/sensor/{SENSOR}/timeseries", interval="5m", wait="true"),
        "sensor_id interval data",
        get(f"{API}/analytics/sensor/{SENSOR}/timeseries", interval="5m'); DROP TABLE x; --"), 400,
    ),
    row(
        "GET /api/ocean/analytics/sensor/{id}/anomalies",
        get(f"{API}/analytics/sensor/{SENSOR}/anomalies", threshold=2.0, wait="true"),
        "sensor_id threshold anomalies count",
        get(f"{API}/analytics/sensor/{SENSOR}/anomalies", threshold="x"), 400,
    ),
    row(
        "POST /api/ocean/analytics/compare",
        post(f"{API}/analytics/compare", {"sensor_ids": [SENSOR], "aggregation": "5m"}),
        "comparison", post(f"{API}/analytics/compare", {}), 400,
    ),
    row(
        "POST /api/ocean/profiles/store",
        post(f"{API}/profiles/store", {"profile_id": "p", "sensor_id": SENSOR, "metadata": {"a": 1}}),
        "profile_id stored", post(f"{API}/profiles/store", {"profile_id": "p"}), 422,
    ),
    row(
        "GET /api/ocean/profiles/{id}", get(f"{API}/profiles/p"),
        "sensor_id timestamp metadata", get(f"{API}/profiles/none"), 404,
    ),
    row(
        "POST /api/ocean/sessions/create",
        lambda story: story.http.post(
            f"{API}/sessions/create", {"user_id": story.user_id, "username": "ada"}
        ),
        "session_id token expires_at",
        post(f"{API}/sessions/create", {"user_id": NOBODY, "username": "x"}), 404,
    ),
    row(
        "POST /api/ocean/sessions/validate",
        lambda story: story.http.post(f"{API}/sessions/validate?token={story.token}", b""),
        "valid session", post(f"{API}/sessions/validate", {"token": "wrong"}), 401,
    ),
    row(
        "POST /api/ocean/metadata/{key}", post(f"{API}/metadata/site?value=hall%203", b""),
        "key set", post(f"{API}/metadata/site", {}), 422,
    ),
    row(
        "GET /api/ocean/metadata/{key}", get(f"{API}/metadata/site"),
        "key value", get(f"{API}/metadata/none"), 404,
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Appliance(tmp_path_factory.mktemp("original") / "data") as box:
        box.start()
        until(
            lambda: box.status()["analytics"]["state"] == "up", within_s=30, what="analytics are up"
        )
        http = box.http()
        user = http.post(f"{API}/users", {"username": "ada", "email": "ada@x.example"}).good()
        session = http.post(f"{API}/sessions/create", {"user_id": user["id"]}).good()
        # What the rows read must be there in whatever order they run.
        http.post(f"{API}/telemetry/ingest", READING).good()
        profile = {"profile_id": "p", "sensor_id": SENSOR, "metadata": {"a": 1}}
        http.post(f"{API}/profiles/store", profile).good()
        http.post(f"{API}/metadata/site", {"value": "hall 3"}).good()
        yield Story(http, user["id"], session["token"])
        assert "api.internal_error" not in box.log()
        assert box.stop() == 0


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_fields_are_kept(story: Story, case: Row) -> None:
    answer = case.ask(story).good()
    assert case.fields <= set(answer), case.fields - set(answer)


@pytest.mark.parametrize("case", [row for row in ROWS if row.bad], ids=lambda case: case.name)
def test_what_is_wrong_is_refused_with_a_problem_document(story: Story, case: Row) -> None:
    assert case.bad is not None
    reply = case.bad(story)
    assert reply.status == case.bad_status, reply.body
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "hint"} <= set(problem), problem


# --- the listed defects, one by one


def new_user(story: Story, **more: Any) -> dict[str, Any]:
    name = f"u{uuid.uuid4().hex}"
    made: dict[str, Any] = story.http.post(
        f"{API}/users", {"username": name, "email": f"{name}@x.example", **more}
    ).good()
    return made


def test_a_billing_account_exists_from_the_users_creation(story: Story) -> None:
    user = new_user(story)
    account = story.http.get(f"{API}/billing/{user['id']}").good()
    assert (account["user_id"], account["credits"], account["usage"]) == (user["id"], 0, 0)


def test_a_duplicate_is_409_and_names_the_field(story: Story) -> None:
    user = new_user(story)
    for field in ("username", "email"):
        body = {"username": "other-name", "email": "other@x.example", field: user[field].upper()}
        problem = story.http.post(f"{API}/users", body).problem(409, "OC-8002")
        assert [error["field"] for error in problem["errors"]] == [field]


def test_the_timestamp_of_a_reading_is_not_dropped(story: Story) -> None:
    item = {"sensor_id": "dated", "data": "7", "timestamp": "2026-02-03T04:05:06.789Z"}
    assert story.http.post(f"{API}/telemetry/ingest", item).good()["timestamp"] == item["timestamp"]
    latest = story.http.get(f"{API}/sensors/dated/latest", wait="true").good()
    assert "2026-02-03T04:05:06.789Z" in str(latest)


def test_a_session_needs_an_existing_user_who_agrees_with_the_name(story: Story) -> None:
    story.http.post(f"{API}/sessions/create", {"user_id": NOBODY}).problem(404, "OC-8001")
    first, second = new_user(story), new_user(story)
    body = {"user_id": first["id"], "username": second["username"]}
    assert story.http.post(f"{API}/sessions/create", body).status in (400, 401, 404, 422)


def test_a_session_ends_at_its_moment_not_at_the_end_of_the_day(story: Story) -> None:
    session = story.http.post(f"{API}/sessions/create", {"user_id": story.user_id}).good()
    ends = dt.datetime.fromisoformat(session["expires_at"])
    left = ends - dt.datetime.now(dt.UTC)
    assert dt.timedelta(hours=23, minutes=59) < left <= dt.timedelta(hours=24)
    # To the second is tested with a clock that moves when told to: tests/unit/service/accounts.


def test_bytes_that_are_no_text_do_not_break_the_buffer(story: Story) -> None:
    event = {"sensor_id": "odd", "data": "\u0000\U0001f600 not a number"}
    stored = story.http.post(f"{API}/telemetry/ingest", event).good()["id"]
    page = story.http.get(f"{API}/telemetry/unprocessed", group="odd", limit=10_000).good()
    found = {item["id"]: item for item in page["data"]}
    assert found[stored]["data"] == event["data"]


def test_a_negative_amount_never_makes_a_negative_balance(story: Story) -> None:
    user = new_user(story)
    path = f"{API}/billing/{user['id']}/add-credits"
    story.http.post(path, {"amount": 10}).good()
    story.http.post(path, {"amount": -11}).problem(402, "OC-8004")
    assert story.http.post(path, {"amount": -10}).good()["credits"] == 0


def test_the_token_in_the_address_works_and_is_called_deprecated(story: Story) -> None:
    reply = story.http.post(f"{API}/sessions/validate?token={story.token}", b"")
    assert reply.good()["valid"] is True
    assert re.fullmatch(r"@\d+", reply.headers["deprecation"])
    body = story.http.post(f"{API}/sessions/validate", {"token": story.token})
    assert body.good()["session"]["user_id"] == story.user_id
    assert "deprecation" not in body.headers


def test_mark_processed_takes_any_order_and_counts_what_is_new(story: Story) -> None:
    items = [{"sensor_id": "group", "value": number} for number in range(5)]
    ids = story.http.post(f"{API}/telemetry/batch", items).good()["ids"]
    body = {"group": "order", "ids": [ids[3], ids[0], ids[3]]}
    assert story.http.post(f"{API}/telemetry/mark-processed", body).good()["processed"] == 2
    page = story.http.get(f"{API}/telemetry/unprocessed", group="order", limit=10_000).good()
    shown = [item["id"] for item in page["data"]]
    assert shown == sorted(shown)
    assert set(ids) & set(shown) == {ids[1], ids[2], ids[4]}
    again = story.http.get(f"{API}/telemetry/unprocessed", group="order", limit=10_000).good()
    assert again == page, "looking changes nothing"
    other = story.http.get(f"{API}/telemetry/unprocessed", group="other", limit=10_000).good()
    assert set(ids) <= {item["id"] for item in other["data"]}


@pytest.mark.parametrize("key", ["a/b", "../../etc/passwd", "x'; DROP TABLE metadata; --", "日本"])
def test_any_text_is_just_a_key(story: Story, key: str) -> None:
    path = f"{API}/metadata/{quote(key, safe='')}"
    assert story.http.post(path, {"value": {"n": [1, None]}}).good() == {"key": key, "set": True}
    found = story.http.get(path).good()
    assert (found["key"], found["value"]) == (key, {"n": [1, None]})


def test_what_people_wrote_about_a_sensor_is_in_the_list(story: Story) -> None:
    story.http.post(f"{API}/telemetry/ingest", {"sensor_id": "named", "value": 1}).good()
    body = b'{"display_name": "Press 1", "unit": "bar", "tags": {"hall": "3"}}'
    headers = {"Content-Type": "application/json"}
    assert story.http.request("PATCH", f"{API}/sensors/named", body, headers).status == 200
    listed = story.http.get(f"{API}/sensors", wait="true").good()["sensors"]
    (sensor,) = [sensor for sensor in listed if sensor["sensor_id"] == "named"]
    assert (sensor["display_name"], sensor["unit"]) == ("Press 1", "bar")
    assert (sensor["tags"], sensor["count"]) == ({"hall": "3"}, 1)
    (other,) = [sensor for sensor in listed if sensor["sensor_id"] == SENSOR]
    assert (other["display_name"], other["tags"]) == ("", {})
