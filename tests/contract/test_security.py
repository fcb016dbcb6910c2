"""Who is let in, and what an attacker gets; ``docs/security.md`` names these tests line by line."""

import itertools
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

from support.appliance import Appliance
from support.routes import declared_routes
from support.web import BATCH, INGEST, STATUS, Http, Reply

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("security"), pytest.mark.timeout(120)]

API = "/api/ocean"
PASSWORD = "correct horse battery staple"
NETWORK = {
    "OCEAN_NETWORK__HOST": "127.0.0.1",
    "OCEAN_NETWORK__PORT": "0",
    "OCEAN_NETWORK__ALLOW_PLAIN": "true",
}
# Whom each route lets in. A route that is missing here fails the test below.
ACCESS = {
    "public": """
        GET / · GET /health · GET /api/ocean/docs/ui · GET /api/ocean/docs/ui/{name}
        POST /api/ocean/sessions/create · POST /api/ocean/sessions/validate
        POST /api/ocean/sessions/revoke
    """,
    "self": """
        GET /api/ocean/users/{user_id} · GET /api/ocean/billing/{user_id}
        GET /api/ocean/billing/{user_id}/ledger · GET /api/ocean/sessions
        DELETE /api/ocean/sessions/{session_id}
    """,
    "ingest": """
        POST /api/ocean/telemetry/ingest · POST /api/ocean/telemetry/batch
    """,
    "read": """
        GET /api/ocean/status · GET /api/ocean/alarms · GET /api/ocean/docs · GET /metrics
        GET /api/ocean/analytics/sensor/{sensor_id}/stats
        GET /api/ocean/analytics/sensor/{sensor_id}/timeseries
        GET /api/ocean/analytics/sensor/{sensor_id}/anomalies
        POST /api/ocean/analytics/compare
        GET /api/ocean/sensors · GET /api/ocean/sensors/latest
        GET /api/ocean/sensors/{sensor_id} · GET /api/ocean/sensors/{sensor_id}/latest
        GET /api/ocean/sensors/{sensor_id}/events
        GET /api/ocean/metadata · GET /api/ocean/metadata/{key}
        GET /api/ocean/profiles · GET /api/ocean/profiles/{profile_id}
        GET /api/ocean/telemetry/unprocessed · POST /api/ocean/telemetry/mark-processed
        GET /api/ocean/telemetry/groups · GET /api/ocean/ledger
        GET /api/ocean/verify · GET /api/ocean/telemetry/digests
        GET /api/ocean/quarantine · GET /api/ocean/quarantine/{frame_id}
    """,
    "admin": """
        POST /api/ocean/users · GET /api/ocean/users · PATCH /api/ocean/users/{user_id}
        POST /api/ocean/billing/{user_id}/add-credits
        POST /api/ocean/metadata/{key} · DELETE /api/ocean/metadata/{key}
        POST /api/ocean/profiles/store · DELETE /api/ocean/profiles/{profile_id}
        PATCH /api/ocean/sensors/{sensor_id} · POST /api/ocean/sensors/{sensor_id}/rename
        POST /api/ocean/sensors/{sensor_id}/forget
        POST /api/ocean/keys · GET /api/ocean/keys · DELETE /api/ocean/keys/{key_id}
        GET /api/ocean/audit · DELETE /api/ocean/telemetry/groups/{name}
        POST /api/ocean/quarantine/retry · POST /api/ocean/quarantine/forget
        DELETE /api/ocean/quarantine/{frame_id}
        POST /api/ocean/archive/seal · GET /api/ocean/jobs · GET /api/ocean/jobs/{job_id}
        DELETE /api/ocean/jobs/{job_id}
    """,
}
ROUTES = {
    route.strip(): access
    for access, routes in ACCESS.items()
    for route in re.split(r"·|\n", routes)
    if route.strip()
}
MAY = {
    "ingest": {"public", "self", "ingest"},
    "read": {"public", "self", "read"},
    "admin": {"public", "self", "ingest", "read", "admin"},
}


class Lab:
    """A box with a listener for the network, and a key of each kind."""

    def __init__(self, box: Appliance) -> None:
        self.box = box
        self.local = box.http()
        info = json.loads((box.data_dir / "run.json").read_text())
        self.network = Http(info["network_url"])
        self.secrets = [(box.data_dir / "local.key").read_text().strip()]
        self.keys = {scope: self.key([scope]) for scope in MAY}
        self.users = [self.user(name) for name in ("ada", "bob")]
        self.sessions = [self.log_in(name) for name in ("ada", "bob")]

    def key(self, scopes: list[str], **more: Any) -> str:
        name = f"k{len(self.secrets)}"
        made = self.local.post(f"{API}/keys", {"name": name, "scopes": scopes, **more}).good()
        self.secrets.append(made["key"])
        return str(made["key"])

    def user(self, name: str) -> str:
        body = {"username": name, "email": f"{name}@x.example", "password": PASSWORD}
        return str(self.local.post(f"{API}/users", body).good()["id"])

    def log_in(self, name: str) -> str:
        body = {"username": name, "password": PASSWORD}
        token = self.network.post(f"{API}/sessions/create", body).good()["token"]
        self.secrets.append(token)
        return str(token)

    def ask(self, route: str, key: str | None, **values: str) -> Reply:
        method, path = route.split(" ", 1)
        path = re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "x"), path)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        body = b"{}" if method in ("POST", "PATCH") else None
        return self.network.request(method, path, body, headers)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Appliance(tmp_path_factory.mktemp("security") / "data", settings=NETWORK) as box:
        box.start()
        made = Lab(box)
        yield made
        made.network.close()
        log = box.log()
        assert "api.internal_error" not in log
        assert "Traceback" not in log
        assert box.stop() == 0
        kept = b"".join(
            path.read_bytes() for path in box.data_dir.iterdir()
            if path.is_file() and path.name != "local.key"
        )  # fmt: skip
        open_to_others = [
            path.name for path in box.data_dir.iterdir() if path.stat().st_mode & 0o077
        ]
        assert open_to_others == [], "files that others on this machine can read"
        for secret in [*made.secrets, PASSWORD]:
            assert secret not in log, "a secret is in the log"
            assert secret.encode() not in kept, "a secret is on the disk"


# --- scopes


def test_the_table_names_every_route() -> None:
    assert set(ROUTES) == set(declared_routes())


@pytest.mark.parametrize("route", ROUTES)
def test_other_machines_get_nothing_without_a_key(lab: Lab, route: str) -> None:
    reply = lab.ask(route, None)
    if ROUTES[route] == "public":
        # Refused perhaps, but for what was sent.
        assert reply.status not in (403, 500), reply.body
        assert b"OC-6005" not in reply.body
    else:
        reply.problem(401, "OC-6005")
        assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scope", MAY)
def test_a_key_opens_what_its_scope_says(lab: Lab, route: str, scope: str) -> None:
    reply = lab.ask(route, lab.keys[scope])
    if ROUTES[route] == "self" and scope != "admin":
        assert reply.status in (200, 403, 404), reply.body
    elif ROUTES[route] in MAY[scope]:
        assert reply.status not in (401, 403, 500) or b"OC-8006" in reply.body, reply.body
    else:
        reply.problem(403, "OC-6006")


@pytest.mark.parametrize("route", [route for route in ROUTES if ROUTES[route] == "admin"])
def test_a_session_is_no_administrator(lab: Lab, route: str) -> None:
    lab.ask(route, lab.sessions[0]).problem(403, "OC-6006")


@pytest.mark.parametrize(
    "route",
    ["GET /api/ocean/users/{user_id}", "GET /api/ocean/billing/{user_id}",
     "GET /api/ocean/billing/{user_id}/ledger"],
)  # fmt: skip
def test_guessing_ids_tells_nothing_about_others(lab: Lab, route: str) -> None:
    assert lab.ask(route, lab.sessions[0], user_id=lab.users[0]).status == 200
    unknown = "00000000-0000-4000-8000-000000000000"
    for user_id in (lab.users[1], unknown, "%00", "..%2f", "' OR '1'='1"):
        reply = lab.ask(route, lab.sessions[0], user_id=quote(user_id, safe="%"))
        reply.problem(403, "OC-6006")
        assert lab.users[1] not in reply.body.decode() or user_id == lab.users[1]


def test_a_session_cannot_end_that_of_another(lab: Lab) -> None:
    token = lab.log_in("bob")
    mine = lab.network.post(f"{API}/sessions/validate", {"token": token}).good()["session"]["id"]
    reply = lab.ask("DELETE /api/ocean/sessions/{session_id}", lab.sessions[0], session_id=mine)
    assert reply.status in (403, 404)
    assert lab.network.post(f"{API}/sessions/validate", {"token": token}).good()["valid"]


# --- keys


def test_a_revoked_key_stops_at_once_on_an_open_connection(lab: Lab) -> None:
    key = lab.key(["ingest"])
    headers = {"Authorization": f"Bearer {key}"}
    item = {"sensor_id": "r", "value": 1}
    lab.network.post(INGEST, item, headers=headers).good()
    key_id = key.split("_")[1]
    assert lab.local.request("DELETE", f"{API}/keys/{key_id}").status == 200
    lab.network.post(INGEST, item, headers=headers).problem(401, "OC-6005")


def test_disabling_a_user_stops_keys_and_sessions_at_once(lab: Lab) -> None:
    user_id = lab.user("carol")
    key = {"Authorization": "Bearer " + lab.key(["ingest"], user_id=user_id)}
    token = lab.log_in("carol")
    item = {"sensor_id": "c", "value": 1}
    lab.network.post(INGEST, item, headers=key).good()

    def set_status(status: str) -> None:
        body = json.dumps({"status": status}).encode()
        headers = {"Content-Type": "application/json"}
        assert lab.local.request("PATCH", f"{API}/users/{user_id}", body, headers).status == 200

    set_status("disabled")
    lab.network.post(INGEST, item, headers=key).problem(401, "OC-6005")
    lab.network.post(f"{API}/sessions/validate", {"token": token}).problem(401, "OC-8006")
    body = {"name": "another", "scopes": ["ingest"], "user_id": user_id}
    lab.local.post(f"{API}/keys", body).problem(403, "OC-8003")
    set_status("active")
    lab.network.post(INGEST, item, headers=key).good()
    assert lab.network.post(f"{API}/sessions/validate", {"token": token}).status == 401


def test_a_key_for_some_sensors_reads_and_writes_only_those(lab: Lab) -> None:
    items = [{"sensor_id": name, "value": 1} for name in ("hall/1", "yard/1")]
    lab.local.post(BATCH, items).good()
    lab.local.get(f"{API}/sensors", wait="true").good()
    headers = {"Authorization": "Bearer " + lab.key(["ingest", "read"], sensors="hall/*")}
    lab.network.post(INGEST, items[0], headers=headers).good()
    lab.network.post(INGEST, items[1], headers=headers).problem(403, "OC-6006")
    lab.network.post(BATCH, items, headers=headers).problem(403, "OC-6006")
    for path in (f"{API}/sensors", f"{API}/sensors/latest"):
        body = lab.network.request("GET", path, None, headers).body
        assert b"hall/1" in body
        assert b"yard/1" not in body
    for question in ("stats", "timeseries", "anomalies"):
        path = f"{API}/analytics/sensor/yard%2F1/{question}"
        lab.network.request("GET", path, None, headers).problem(403, "OC-6006")
    for path in (f"{API}/sensors/yard%2F1", f"{API}/sensors/yard%2F1/latest"):
        lab.network.request("GET", path, None, headers).problem(403, "OC-6006")
    compare = {"sensor_ids": ["hall/1", "yard/1"]}
    lab.network.post(f"{API}/analytics/compare", compare, headers=headers).problem(403, "OC-6006")
    unprocessed = f"{API}/telemetry/unprocessed"
    lab.network.request("GET", unprocessed, None, headers).problem(403, "OC-6006")


def test_a_limited_key_is_limited_on_this_machine_too(lab: Lab) -> None:
    headers = {"Authorization": f"Bearer {lab.keys['ingest']}"}
    lab.local.request("GET", STATUS, None, headers).problem(403, "OC-6006")


def test_an_old_name_is_no_way_to_a_sensor_that_a_key_is_not_for(lab: Lab) -> None:
    lab.local.post(INGEST, {"sensor_id": "old/1", "value": 1}).good()
    headers = {"Authorization": "Bearer " + lab.key(["read"], sensors="old/*")}
    lab.local.get(f"{API}/sensors", wait="true").good()
    lab.local.post(f"{API}/sensors/old%2F1/rename", {"to": "new/1"}).good()
    for path in ("sensors/old%2F1", "sensors/old%2F1/latest", "analytics/sensor/old%2F1/stats"):
        problem = lab.network.request("GET", f"{API}/{path}", None, headers).problem(403, "OC-6006")
        assert "is called 'new/1' now" in problem["detail"]


def test_a_session_cannot_take_readings_away_from_programs(lab: Lab) -> None:
    stored = lab.local.post(INGEST, {"sensor_id": "m", "value": 1}).good()["id"]
    headers = {"Authorization": f"Bearer {lab.sessions[0]}"}
    mark = f"{API}/telemetry/mark-processed"
    lab.network.post(mark, [stored], headers=headers).problem(403, "OC-6006")
    key = {"Authorization": f"Bearer {lab.keys['read']}"}
    assert lab.network.post(mark, [stored], headers=key).good()["processed"] == 1


def test_bodies_of_strangers_are_small(lab: Lab) -> None:
    """Announced bodies hold memory; whoever needs no key may announce little."""
    for path in ("create", "validate", "revoke"):
        body = json.dumps({"token": "x" * 20_000}).encode()
        lab.network.post(f"{API}/sessions/{path}", body).problem(413, "OC-2003")
    large = {"sensor_ids": ["x"] * 200_000}
    key = {"Authorization": f"Bearer {lab.keys['read']}"}
    lab.network.post(f"{API}/analytics/compare", large, headers=key).problem(413, "OC-2003")


def test_pages_of_a_limited_key_name_no_others_profiles(lab: Lab) -> None:
    for name in ("a1", "hall/1", "zz"):
        profile: dict[str, Any] = {"profile_id": f"p-{name}", "sensor_id": name, "metadata": {}}
        lab.local.post(f"{API}/profiles/store", profile).good()
    headers = {"Authorization": "Bearer " + lab.key(["read"], sensors="hall/*")}
    page = lab.network.request("GET", f"{API}/profiles?limit=1", None, headers).good()
    assert [each["sensor_id"] for each in page["profiles"]] == ["hall/1"]
    assert page["next"] in (None, "p-hall/1")


def test_what_came_through_a_proxy_needs_a_key(lab: Lab) -> None:
    lab.local.request("GET", STATUS, None, {"X-Forwarded-For": "10.0.0.9"}).problem(401, "OC-6005")
    headers = {"X-Forwarded-For": "10.0.0.9", "Authorization": f"Bearer {lab.keys['read']}"}
    assert lab.local.request("GET", STATUS, None, headers).status == 200


# --- guessing


def test_guessing_keys_is_slowed_down_for_who_guesses(lab: Lab) -> None:
    headers = {"Authorization": "Bearer ocean_000000000000_guess"}
    with closing(Http(lab.network.url, source="127.0.0.2")) as guesser:
        found = [guesser.request("GET", STATUS, None, headers).status for _ in range(80)]
        assert found[:50] == [401] * 50
        assert found[-1] == 429
        assert guesser.request("GET", "/health", None, headers).status == 200
        good = {"Authorization": f"Bearer {lab.keys['read']}"}
        assert guesser.request("GET", STATUS, None, good).status == 200
    assert lab.network.request("GET", STATUS, None, headers).status == 401


def test_guessing_passwords_is_slowed_down(lab: Lab) -> None:
    lab.user("eve")
    with closing(Http(lab.network.url, source="127.0.0.3")) as guesser:
        replies = [
            guesser.post(f"{API}/sessions/create", {"username": "eve", "password": f"wrong {n}"})
            for n in range(12)
        ]
        assert {reply.status for reply in replies} == {401, 429}
        assert int(replies[-1].headers["retry-after"]) >= 1
        right = {"username": "eve", "password": PASSWORD}
        guesser.post(f"{API}/sessions/create", right).problem(429, "OC-6009")
    assert lab.log_in("eve"), "the user is not locked out elsewhere"


def test_an_unknown_user_and_a_wrong_password_look_the_same(lab: Lab) -> None:
    lab.user("mallory")
    told = []
    for name in ("mallory", "nobody-of-this-name"):
        body = {"username": name, "password": "not the password"}
        problem = lab.network.post(f"{API}/sessions/create", body).problem(401, "OC-6008")
        told.append({**problem, "detail": problem["detail"].replace(name, "?")})
    assert told[0] == told[1]


# --- what is sent

INJECTIONS = {
    "sql": "'; DROP TABLE users; --",
    "sql or": '" OR "1"="1',
    "union": "x' UNION SELECT password_hash FROM users --",
    "duckdb": "x'); COPY (SELECT 1) TO '/tmp/owned'; --",
    "read": "read_csv('/etc/passwd')",
    "path": "../../../../etc/passwd",
    "percent": "%2e%2e%2f%00",
    "html": "<script>alert(1)</script>",
    "header": "a\r\nX-Injected: 1",
    "format": "{0.__class__} %s %n ${jndi:ldap://x}",
    "null": "a\0b",
    "bidi": "admin\u202enimda",
    "zero width": "ad\u200bmin",
    "surrogate": "\ud800",
    "emoji": "🌊" * 20,
    "long": "x" * 100_000,
    "deep": "[" * 5_000,
}


def bodies(text: str) -> Iterator[tuple[str, str, Any]]:
    """Yield every place where text can be put."""
    segment = quote(text[:2_000].encode("utf-8", "replace"), safe="")
    yield "POST", f"{API}/users", {"username": text, "email": "i@x.example"}
    yield "POST", f"{API}/users", {"username": "inj", "email": text, "password": text}
    yield "PATCH", f"{API}/users/{segment}", {"username": text}
    yield "POST", f"{API}/billing/{segment}/add-credits", {"amount": 1, "note": text}
    yield "POST", f"{API}/sessions/create", {"user_id": text, "username": text, "password": text}
    yield "POST", f"{API}/sessions/validate", {"token": text}
    yield "POST", f"{API}/metadata/{segment}", {"value": text}
    yield "POST", f"{API}/profiles/store", {
        "profile_id": text, "sensor_id": text, "metadata": {text: text}
    }  # fmt: skip
    yield "PATCH", f"{API}/sensors/{segment}", {
        "display_name": text, "unit": text, "note": text, "tags": {text: text}
    }  # fmt: skip
    yield "POST", f"{API}/sensors/{segment}/rename", {"to": text}
    yield "POST", f"{API}/keys", {"name": text, "scopes": ["read"], "sensors": text}
    yield "POST", f"{API}/telemetry/mark-processed", {"group": text, "ids": [1]}
    yield "POST", INGEST, {"sensor_id": text, "metric": text, "value": 1}
    for path in ("users", "sessions", "keys", "metadata", "profiles", "audit", "ledger"):
        yield "GET", f"{API}/{path}?after={segment}&limit={segment}&prefix={segment}", None
    for path in ("stats", "timeseries", "anomalies"):
        query = f"interval={segment}&tz={segment}&metric={segment}&start={segment}"
        yield "GET", f"{API}/analytics/sensor/{segment}/{path}?{query}", None


@pytest.mark.parametrize("name", INJECTIONS)
def test_text_is_only_ever_text(lab: Lab, name: str) -> None:
    """Stored as it is, or refused; never a fault of ours, never anything more than text."""
    text = INJECTIONS[name]
    users = len(lab.local.get(f"{API}/users", limit=1000).good()["users"])
    for method, path, body in bodies(text):
        content = None if body is None else json.dumps(body).encode()
        reply = lab.local.request(method, path, content, {"Content-Type": "application/json"})
        assert reply.status < 500, (method, path[:200], reply.body[:500])
        assert "x-injected" not in reply.headers
        if reply.status >= 400:
            assert {"code", "title", "detail"} <= set(reply.json()), reply.body[:500]
    after = lab.local.get(f"{API}/users", limit=1000).good()["users"]
    assert len(after) - users in (0, 1)
    assert lab.local.get(f"{API}/users/{lab.users[0]}").good()["username"] == "ada"


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/api/ocean/docs/ui/..%2f..%2f..%2fetc%2fpasswd",
        "/api/ocean/docs/ui/%2e%2e/%2e%2e/etc/passwd", "/api/ocean/docs/ui//etc/passwd",
        "/api/ocean/docs/ui/..\\..\\etc\\passwd", "//etc/passwd", "/%00", "/api/ocean/users/../keys",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file(lab: Lab, path: str) -> None:
    port = int(lab.box.url.rpartition(":")[2])
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(request.encode())
        answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:300]
    assert b"root:" not in answer


# --- browsers


@pytest.mark.parametrize("listener", ["local", "network"])
def test_pages_of_other_sites_change_nothing(lab: Lab, listener: str) -> None:
    http: Http = getattr(lab, listener)
    key = {"Authorization": f"Bearer {lab.keys['admin']}"}
    for extra in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for headers in ({}, key):
            http.post(INGEST, {"sensor_id": "x", "value": 1}, headers={**headers, **extra}).problem(
                403, "OC-6004"
            )


def test_a_name_pointed_at_this_machine_opens_nothing(lab: Lab) -> None:
    for path in (STATUS, "/health", "/metrics", f"{API}/keys"):
        lab.local.request("GET", path, None, {"Host": "evil.example"}).problem(403, "OC-6004")


def test_no_answer_invites_other_origins(lab: Lab) -> None:
    for method, path in itertools.product(("GET", "OPTIONS"), (STATUS, f"{API}/keys", "/health")):
        headers = {
            "Origin": "http://evil.example", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }  # fmt: skip
        reply = lab.local.request(method, path, None, headers)
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert "default-src 'none'" in reply.headers["content-security-policy"]


# --- the owner


def test_without_trust_this_machine_needs_a_key_and_the_owner_has_one(
    tmp_path: Any,
) -> None:
    with Appliance(tmp_path / "data", OCEAN_ACCESS__TRUST_LOOPBACK="false") as box:
        box.start()
        box.http().get(STATUS).problem(401, "OC-6005")
        key_file = box.data_dir / "local.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        first = key_file.read_text().strip()
        owner = {"Authorization": f"Bearer {first}"}
        assert box.http().request("GET", STATUS, None, owner).status == 200
        made = box.http().post(f"{API}/keys", {"name": "n", "scopes": ["read"]}, headers=owner)
        key = {"Authorization": f"Bearer {made.good()['key']}"}
        assert box.stop() == 0
        box.start()
        assert box.http().request("GET", STATUS, None, key).status == 200, "keys survive a restart"
        assert key_file.read_text().strip() != first
        box.http().request("GET", STATUS, None, owner).problem(401, "OC-6005")
        assert box.stop() == 0
