"""Routes of users, billing and sessions, without a server."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote, unquote, urlencode

import pytest
from litestar import Litestar

from ocean_core.api.access import ORIGIN_KEY
from ocean_core.api.app import create_app
from ocean_core.api.services import Services
from ocean_core.config.settings import ServerSettings
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, NOBODY, Origin, Principal, Scope
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.rates import FairShare
from support.accounts import PASSWORD, UNKNOWN_ID, AccountsLab, on_accounts

USERS = "/api/ocean/users"
BILLING = "/api/ocean/billing"
SESSIONS = "/api/ocean/sessions"
READ_KEY = Principal("key", "r", scopes=frozenset({Scope.READ, Scope.INGEST}))
ADMIN_KEY = Principal("key", "a", scopes=frozenset({Scope.ADMIN}))
LOG = io.StringIO()


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def good(self) -> Any:
        assert self.status == 200, self.body
        assert self.headers["cache-control"] == "no-store"
        return json.loads(self.body)

    def problem(self, status: int, code: str, *fields: str) -> Any:
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert problem["code"] == code, problem
        if fields:
            assert [one["field"] for one in problem["errors"]] == list(fields)
        return problem


class Box:
    """The application over the services of a test; who asks is up to the test."""

    def __init__(self, app: Litestar, lab: AccountsLab) -> None:
        self.app: Any = app
        self.lab = lab
        self.principal = LOCAL
        app.state["services"] = SimpleNamespace(
            users=lab.users,
            billing=lab.billing,
            sessions=lab.sessions,
            server=ServerSettings(),
            bodies=FairShare(limits.BODIES_BYTES_MAX),
        )

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes = b"",
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        """Send a request through the application."""
        content = json.dumps(body).encode() if body is not None else raw
        messages = [{"type": "http.request", "body": content, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        named = {"host": "localhost", "content-length": str(len(content)), **(headers or {})}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": method, "path": unquote(path), "raw_path": path.encode(),
            "query_string": urlencode(query, doseq=True).encode(), "root_path": "",
            "headers": [(name.lower().encode(), text.encode()) for name, text in named.items()],
            "client": ("10.0.0.7", 1), "server": ("localhost", 80), "state": {},
            ORIGIN_KEY: Origin(self.principal, "10.0.0.7"),
        }  # fmt: skip
        await self.app(scope, receive, send)
        got = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
        return Answer(sent[0]["status"], got, b"".join(each["body"] for each in sent[1:]))

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.ask("GET", path, **query)

    async def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return await self.ask("POST", path, body, **more)

    async def user(self, name: str = "anna", password: str | None = None) -> str:
        return await self.lab.user(name, password)

    async def as_session(self, user_id: str) -> str:
        """Ask from now on as a session of a user; return the session's token."""
        token = (await self.lab.session(user_id)).token
        principal = await self.lab.sessions.authenticate(token)
        assert principal is not None
        self.principal = principal
        return token


@pytest.fixture(scope="module")
def app() -> Litestar:
    """Made once, because that takes longer than a test; each test brings its services."""
    log = EventLog(ManualClock(), stream=LOG)
    return create_app(cast("Services", SimpleNamespace(log=log, metrics=MetricsRegistry(METRICS))))


@pytest.fixture
def box(app: Litestar, tmp_path: Path) -> Callable[..., None]:
    """Runs a test with a box of its own; no request may meet a fault of our own."""

    def run(test: Callable[[Box], Awaitable[None]], **billing: Any) -> None:
        LOG.truncate(0)
        on_accounts(tmp_path, lambda lab: test(Box(app, lab)), **billing)
        assert "internal_error" not in LOG.getvalue(), LOG.getvalue()

    return run


Run = Callable[..., None]


# --- the original's endpoints ---


def test_users_billing_and_sessions_as_in_the_original(box: Run) -> None:
    async def test(box: Box) -> None:
        user = (await box.post(USERS, {"username": "anna", "email": "anna@plant.example"})).good()
        assert {"id", "username", "email"} <= set(user)
        again = await box.post(USERS, {"username": "anna", "email": "other@plant.example"})
        again.problem(409, "OC-8002", "username")
        found = (await box.get(f"{USERS}/{user['id']}")).good()
        assert list(found) == ["id", "username", "email", "status", "created_at", "updated_at"]
        assert found["status"] == "active"
        (await box.get(f"{USERS}/{UNKNOWN_ID}")).problem(404, "OC-8001")

        billing = f"{BILLING}/{user['id']}"
        account = (await box.get(billing)).good()
        assert {"id", "user_id", "plan", "credits", "usage", "created_at"} <= set(account)
        assert (await box.post(f"{billing}/add-credits", amount=50)).good() == {
            "user_id": user["id"], "credits": 50,
        }  # fmt: skip
        assert (await box.post(f"{billing}/add-credits", amount=-20)).good()["credits"] == 30
        (await box.get(f"{BILLING}/{UNKNOWN_ID}")).problem(404, "OC-8001")
        (await box.post(f"{BILLING}/{UNKNOWN_ID}/add-credits", amount=1)).problem(404, "OC-8001")

        wanted = {"user_id": user["id"], "username": "anna", "email": None}
        made = (await box.post(f"{SESSIONS}/create", wanted)).good()
        assert list(made) == ["session_id", "token", "expires_at"]
        answer = await box.post(f"{SESSIONS}/validate", token=made["token"])
        assert answer.headers["deprecation"] == "@1768608000"
        valid = answer.good()
        assert valid["valid"] is True
        assert list(valid["session"]) == [
            "id", "user_id", "token", "created_at", "expires_at", "last_activity",
        ]  # fmt: skip
        assert valid["session"]["token"] == made["token"]
        (await box.post(f"{SESSIONS}/validate", token="x")).problem(401, "OC-8006")
        (await box.post(f"{SESSIONS}/create", {"user_id": UNKNOWN_ID, "username": "x"})).problem(
            404, "OC-8001"
        )

    box(test)


# --- who may what ---

ADMIN_ONLY = [
    ("POST", USERS, {"username": "eve", "email": "eve@plant.example"}),
    ("GET", USERS, None),
    ("PATCH", USERS + "/{anna}", {"status": "active", "email": "new@plant.example"}),
    ("POST", BILLING + "/{anna}/add-credits", {"amount": 5}),
    ("POST", SESSIONS + "/create", {"username": "anna"}),
    ("GET", SESSIONS + "?user_id={ben}", None),
    ("GET", USERS + "/{ben}", None),
    ("GET", USERS + "/" + UNKNOWN_ID, None),
    ("GET", BILLING + "/{ben}", None),
    ("GET", BILLING + "/{ben}/ledger", None),
]
OWN = [
    ("GET", USERS + "/{anna}", None),
    ("GET", BILLING + "/{anna}", None),
    ("GET", BILLING + "/{anna}/ledger", None),
    ("GET", SESSIONS, None),
    ("GET", SESSIONS + "?user_id={anna}", None),
]


@pytest.mark.parametrize("who", ["nobody", "read key", "session", "admin key", "local"])
def test_who_may_do_what(box: Run, who: str) -> None:
    async def test(box: Box) -> None:
        ids = {"anna": await box.user("anna"), "ben": await box.user("ben")}
        if who == "session":
            await box.as_session(ids["anna"])
        else:
            box.principal = {
                "nobody": NOBODY, "read key": READ_KEY, "admin key": ADMIN_KEY, "local": LOCAL,
            }[who]  # fmt: skip
        for routes, allowed in (
            (ADMIN_ONLY, {"admin key", "local"}),
            (OWN, {"session", "admin key", "local"}),
        ):
            for method, template, body in routes:
                path, _, query = template.format(**ids).partition("?")
                params: dict[str, Any] = dict([query.split("=")]) if query else {}
                answer = await box.ask(method, path, body, **params)
                what = f"{who}: {method} {template}"
                if who in allowed:
                    assert answer.status == (404 if UNKNOWN_ID in template else 200), what
                elif who == "nobody":
                    assert answer.status == 401, what
                    answer.problem(401, "OC-6005")
                else:
                    assert answer.status == 403, what
                    answer.problem(403, "OC-6006")
        if who not in {"admin key", "local"}:
            assert (await box.lab.users.get(ids["anna"])).email == "anna@plant.example"
            assert len(await box.lab.rows("users")) == 2

    box(test)


def test_session_sees_and_ends_its_own_user_s_sessions_only(box: Run) -> None:
    async def test(box: Box) -> None:
        anna, ben = await box.user("anna"), await box.user("ben")
        annas, bens = await box.lab.session(anna), await box.lab.session(ben)
        await box.as_session(anna)
        listed = (await box.get(SESSIONS)).good()
        assert {one["user_id"] for one in listed["sessions"]} == {anna}
        assert "token" not in json.dumps(listed)
        missing = await box.ask("DELETE", f"{SESSIONS}/{bens.session_id}")
        missing.problem(404, "OC-8005")
        gone = (await box.ask("DELETE", f"{SESSIONS}/{annas.session_id}")).good()
        assert gone == {"id": annas.session_id, "revoked": True}
        box.principal = READ_KEY
        (await box.ask("DELETE", f"{SESSIONS}/{bens.session_id}")).problem(403, "OC-6006")
        box.principal = LOCAL
        (await box.ask("DELETE", f"{SESSIONS}/{bens.session_id}")).good()
        (await box.ask("DELETE", f"{SESSIONS}/{bens.session_id}")).problem(404, "OC-8005")

    box(test)


# --- users ---


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "OC-2001"),
        (b"{", 400, "OC-2001"),
        (b"\xff", 400, "OC-2001"),
        (b'{"username": "\\ud800", "email": "a@b.example"}', 400, "OC-2001"),
        (b"[" * 100_000, 422, "OC-2009"),
        (b'{"username": ' + b"[" * 100_000, 422, "OC-2009"),
        (b'{"x": ' + b"[" * 100_000, 422, "OC-2009"),
        (b"null", 422, "OC-2009"),
        (b"[]", 422, "OC-2009"),
        (b"{}", 422, "OC-2009"),
        (b'{"username": "anna"}', 422, "OC-2009"),
        (b'{"username": 5, "email": "a@b.example"}', 422, "OC-2009"),
        (b'{"username": "anna", "email": "a@b.example", "admin": true}', 422, "OC-2009"),
        (b'{"username": "anna", "email": "a@b.example", "password": 12345678}', 422, "OC-2009"),
        (b'{"username": "anna", "email": "a@b.example", "password": "short"}', 422, "OC-2009"),
        (b'{"username": "a\\u0000b", "email": "a@b.example"}', 422, "OC-2009"),
        (b'{"username": "anna", "email": "nowhere"}', 422, "OC-2009"),
    ],
)
def test_bodies_that_make_no_user(box: Run, raw: bytes, status: int, code: str) -> None:
    async def test(box: Box) -> None:
        (await box.post(USERS, raw=raw)).problem(status, code)
        assert await box.lab.rows("users") == []

    box(test)


def test_users_are_listed_in_pages(box: Run) -> None:
    async def test(box: Box) -> None:
        made = [await box.user(f"user{number}") for number in range(5)]
        (await box.ask("PATCH", f"{USERS}/{made[2]}", {"status": "disabled"})).good()
        first = (await box.get(USERS, limit=3)).good()
        rest = (await box.get(USERS, limit=3, after=first["next"])).good()
        assert rest["next"] is None
        assert sorted(user["id"] for user in first["users"] + rest["users"]) == sorted(made)
        disabled = (await box.get(USERS, status="disabled")).good()
        assert [user["id"] for user in disabled["users"]] == [made[2]]
        for query in (
            {"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"limit": ["1", "2"]}, {"after": "x"},
            {"after": "1.x"}, {"after": "9" * 19 + "." + UNKNOWN_ID}, {"status": "gone"},
            {"other": 1},
        ):  # fmt: skip
            (await box.get(USERS, **query)).problem(400, "OC-6003")

    box(test)


def test_user_is_changed(box: Run) -> None:
    async def test(box: Box) -> None:
        anna = await box.user("anna", PASSWORD)
        await box.user("ben")
        path = f"{USERS}/{anna}"
        changed = (await box.ask("PATCH", path, {"username": "Anna M", "password": None})).good()
        assert changed["username"] == "Anna M"
        assert (await box.get(path)).good() == changed
        taken = {"username": "BEN", "email": "ben@plant.example"}
        (await box.ask("PATCH", path, taken)).problem(409, "OC-8002", "username", "email")
        (await box.ask("PATCH", path, {})).problem(422, "OC-2009", "body")
        for body in ({"status": "gone"}, {"username": None}, {"id": "x"}, {"password": "short"}):
            (await box.ask("PATCH", path, body)).problem(422, "OC-2009")
        for user_id in (UNKNOWN_ID, "x", quote("' OR 1=1 --"), "%2e%2e", quote("\x1f")):
            answer = await box.ask("PATCH", f"{USERS}/{user_id}", {"status": "disabled"})
            answer.problem(404, "OC-8001")

    box(test)


def test_repeated_creation(box: Run) -> None:
    async def test(box: Box) -> None:
        new = {"username": "anna", "email": "anna@plant.example"}
        first = (await box.post(USERS, new, headers={"Idempotency-Key": "k"})).good()
        again = (await box.post(USERS, new, headers={"Idempotency-Key": "k"})).good()
        assert first == again
        other = {"username": "ben", "email": "ben@plant.example"}
        (await box.post(USERS, other, headers={"Idempotency-Key": "k"})).problem(422, "OC-2005")
        (await box.post(USERS, other, headers={"Idempotency-Key": "x" * 256})).problem(
            400, "OC-2006"
        )

    box(test)


# --- billing ---


@pytest.mark.parametrize(
    ("body", "query", "status", "code"),
    [
        (None, {}, 422, "OC-2009"),
        ({}, {}, 422, "OC-2009"),
        ({"note": "x"}, {}, 422, "OC-2009"),
        ({"amount": 0}, {}, 422, "OC-2009"),
        ({"amount": 2**53}, {}, 422, "OC-2009"),
        ({"amount": 10**30}, {}, 422, "OC-2009"),
        ({"amount": 1.5}, {}, 422, "OC-2009"),
        ({"amount": "5"}, {}, 422, "OC-2009"),
        ({"amount": True}, {}, 422, "OC-2009"),
        ({"amount": None}, {}, 422, "OC-2009"),
        ({"amount": 5, "credits": 5}, {}, 422, "OC-2009"),
        ({"amount": 5, "note": "x" * 257}, {}, 422, "OC-2009"),
        ({"amount": 5}, {"amount": 6}, 400, "OC-6003"),
        (None, {"amount": "5.0"}, 400, "OC-6003"),
        (None, {"amount": "\u0665"}, 400, "OC-6003"),
        (None, {"amount": ""}, 400, "OC-6003"),
        (None, {"amount": ["5", "5"]}, 400, "OC-6003"),
        (None, {"amount": "9" * 30}, 400, "OC-6003"),
        (None, {"amount": 2**53}, 422, "OC-2009"),
        (None, {"amount": 5, "plan": "gold"}, 400, "OC-6003"),
        ({"amount": -1}, {}, 402, "OC-8004"),
    ],
)
def test_credits_that_are_refused(
    box: Run, body: Any, query: dict[str, Any], status: int, code: str
) -> None:
    async def test(box: Box) -> None:
        anna = await box.user()
        path = f"{BILLING}/{anna}/add-credits"
        (await box.post(path, body, **query)).problem(status, code)
        assert (await box.get(f"{BILLING}/{anna}")).good()["credits"] == 0

    box(test)


def test_credits_in_the_body_and_in_the_address(box: Run) -> None:
    async def test(box: Box) -> None:
        anna = await box.user()
        path = f"{BILLING}/{anna}/add-credits"
        assert (await box.post(path, {"amount": 5, "note": "a"})).good()["credits"] == 5
        assert (await box.post(path, {"amount": 5}, amount=5)).good()["credits"] == 10
        assert (await box.post(path, {"note": "b"}, amount=-3)).good()["credits"] == 7
        key = {"Idempotency-Key": "k"}
        for _ in range(3):
            assert (await box.post(path, {"amount": 1}, headers=key)).good()["credits"] == 8
        (await box.post(path, {"amount": 2}, headers=key)).problem(422, "OC-2005")
        page = (await box.get(f"{BILLING}/{anna}/ledger", limit=3)).good()
        assert [(e["amount"], e["note"]) for e in page["entries"]] == [(1, ""), (-3, "b"), (5, "")]
        assert list(page["entries"][0]) == [
            "id", "created_at", "kind", "amount", "credits", "note", "actor",
        ]  # fmt: skip
        rest = (await box.get(f"{BILLING}/{anna}/ledger", after=page["next"])).good()
        assert [entry["amount"] for entry in rest["entries"]] == [5]
        assert rest["next"] is None
        (await box.get(f"{BILLING}/{anna}/ledger", after="x")).problem(400, "OC-6003")
        (await box.get(f"{BILLING}/{UNKNOWN_ID}/ledger")).problem(404, "OC-8001")

    box(test)


# --- sessions ---


def test_token_may_stand_in_three_places(box: Run) -> None:
    async def test(box: Box) -> None:
        token = (await box.lab.session(await box.user())).token
        other = (await box.lab.session(await box.user("ben"))).token
        box.principal = NOBODY
        path = f"{SESSIONS}/validate"
        bearer = {"Authorization": f"Bearer {token}"}
        for answer in (
            await box.post(path, {"token": token}),
            await box.post(path, headers=bearer),
            await box.post(path, headers={"Authorization": f"bearer  {token} "}),
            await box.post(path, {"token": token}, headers={"Authorization": "Bearer ocean_key"}),
        ):
            assert answer.good()["session"]["token"] == token
            assert "deprecation" not in answer.headers
        assert "deprecation" in (await box.post(path, {"token": token}, token=token)).headers
        for answer in (
            await box.post(path, {"token": token}, token=other),
            await box.post(path, token=[token, other]),
        ):
            answer.problem(400, "OC-6003", "token")
            assert token.encode() not in answer.body
            assert other.encode() not in answer.body
        for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}):
            (await box.post(path, headers=headers)).problem(422, "OC-2009", "token")
        bodies: list[Any] = [{}, {"token": 5}, {"token": None}, {"token": token, "x": 1}, [token]]
        for body in bodies:
            (await box.post(path, body)).problem(422, "OC-2009")
        for wrong in ("", "x", "A" * 43, "\u0430" * 43):
            (await box.post(path, {"token": wrong})).problem(401, "OC-8006")

    box(test)


def test_log_in_and_out(box: Run) -> None:
    async def test(box: Box) -> None:
        await box.user("anna", PASSWORD)
        box.principal = NOBODY
        log_in = {"username": "anna", "password": PASSWORD}
        token = (await box.post(f"{SESSIONS}/create", log_in)).good()["token"]
        second = (await box.post(f"{SESSIONS}/create", log_in)).good()["token"]
        (await box.post(f"{SESSIONS}/revoke", {"token": token})).good()
        for path in ("validate", "revoke"):
            (await box.post(f"{SESSIONS}/{path}", {"token": token})).problem(401, "OC-8006")
        (await box.post(f"{SESSIONS}/revoke", headers={"Authorization": f"Bearer {second}"})).good()
        (await box.post(f"{SESSIONS}/revoke", token=second)).problem(400, "OC-6003")
        (await box.post(f"{SESSIONS}/revoke")).problem(422, "OC-2009")

    box(test)


def test_failed_log_ins(box: Run) -> None:
    async def test(box: Box) -> None:
        await box.user("anna", PASSWORD)
        box.principal = NOBODY
        path = f"{SESSIONS}/create"
        wrong = {"username": "anna", "password": "S3CRET wrong"}
        for _ in range(limits.LOGIN_FREE_FAILURES + 1):
            answer = await box.post(path, wrong)
            answer.problem(401, "OC-6008")
            assert b"S3CRET" not in answer.body
        answer = await box.post(path, {"username": "anna", "password": PASSWORD})
        answer.problem(429, "OC-6009")
        assert answer.headers["retry-after"] == "1"
        (await box.post(path, {"username": "anna"})).problem(401, "OC-6005")
        (await box.post(path, {})).problem(422, "OC-2009", "user_id")
        (await box.post(path, {"password": PASSWORD})).problem(422, "OC-2009", "user_id")
        bodies: list[Any] = [{"username": 5}, {"user": "anna"}, []]
        for body in bodies:
            (await box.post(path, body)).problem(422, "OC-2009")
        assert PASSWORD not in LOG.getvalue()

    box(test)


def test_sessions_are_listed_in_pages(box: Run) -> None:
    async def test(box: Box) -> None:
        users = [await box.user("anna"), await box.user("ben")]
        made = {(await box.lab.session(users[number % 2])).session_id for number in range(5)}
        found: set[str] = set()
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await box.get(SESSIONS, **query)).good()
            found |= {session["id"] for session in page["sessions"]}
            if page["next"] is None:
                break
            query["after"] = page["next"]
        assert found == made
        for query in ({"after": "x"}, {"after": f"{UNKNOWN_ID}.1"}, {"limit": -1}, {"x": 1}):
            (await box.get(SESSIONS, **query)).problem(400, "OC-6003")
        assert (await box.get(SESSIONS, user_id="' OR 1=1 --")).good()["sessions"] == []

    box(test)


# --- the document ---


def test_document_is_complete(app: Litestar) -> None:
    document = app.openapi_schema.to_schema()
    expected = {
        USERS: {"get", "post"},
        USERS + "/{user_id}": {"get", "patch"},
        BILLING + "/{user_id}": {"get"},
        BILLING + "/{user_id}/add-credits": {"post"},
        BILLING + "/{user_id}/ledger": {"get"},
        SESSIONS: {"get"},
        SESSIONS + "/create": {"post"},
        SESSIONS + "/validate": {"post"},
        SESSIONS + "/revoke": {"post"},
        SESSIONS + "/{session_id}": {"delete"},
    }
    for path, methods in expected.items():
        assert set(document["paths"][path]) >= methods, path
        for method in methods:
            operation = document["paths"][path][method]
            assert {"200", "400", "401", "403", "429", "503"} <= set(operation["responses"]), path
            assert operation["summary"]
            if method in {"post", "patch"}:
                body = operation["requestBody"]["content"]["application/json"]
                assert body["examples"], path
                assert body["schema"]["additionalProperties"] is False
    examples = json.dumps(document["paths"][USERS])
    assert "anna@plant.example" in examples


def test_examples_of_the_document_work(box: Run, app: Litestar) -> None:
    async def test(box: Box) -> None:
        document = app.openapi_schema.to_schema()

        def examples(path: str, method: str = "post") -> dict[str, Any]:
            body = document["paths"][path][method]["requestBody"]["content"]["application/json"]
            return {name: one["value"] for name, one in body["examples"].items()}

        ids = [(await box.post(USERS, body)).good()["id"] for body in examples(USERS).values()]
        log_in, by_admin = examples(f"{SESSIONS}/create").values()
        (await box.post(f"{SESSIONS}/create", log_in)).good()
        (await box.post(f"{SESSIONS}/create", by_admin | {"user_id": ids[0]})).good()
        for body in examples(BILLING + "/{user_id}/add-credits").values():
            (await box.post(f"{BILLING}/{ids[0]}/add-credits", body)).good()
        assert {"password": None} in examples(USERS + "/{user_id}", "patch").values()
        for body in examples(USERS + "/{user_id}", "patch").values():
            (await box.ask("PATCH", f"{USERS}/{ids[0]}", body)).good()
        for path in ("validate", "revoke"):
            for body in examples(f"{SESSIONS}/{path}").values():
                (await box.post(f"{SESSIONS}/{path}", body)).problem(401, "OC-8006")

    box(test)
