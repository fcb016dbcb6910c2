"""Routes of consumer groups over a real journal, without a server."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import pytest
from litestar import Litestar

from ocean_core.api.access import ORIGIN_KEY
from ocean_core.api.app import create_app
from ocean_core.api.services import Services
from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.config.settings import ServerSettings
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, NOBODY, Origin, Principal, Scope
from ocean_core.model.naming import NO_RULES
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.groups import GroupService
from ocean_core.service.rates import FairShare
from ocean_core.storage.operational.store import OperationalStore
from support.journal_kit import START_US, events, intake_of, readings, settings_for

UNPROCESSED = "/api/ocean/telemetry/unprocessed"
MARK = "/api/ocean/telemetry/mark-processed"
GROUPS = "/api/ocean/telemetry/groups"

READ_KEY = Principal("key", "r", scopes=frozenset({Scope.READ}))
INGEST_KEY = Principal("key", "i", scopes=frozenset({Scope.INGEST}))
ADMIN_KEY = Principal("key", "a", scopes=frozenset({Scope.ADMIN}))
HALL_KEY = Principal("key", "h", scopes=frozenset({Scope.ADMIN}), sensors="hall-b/*")

LOG = io.StringIO()


class Answer:
    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.json: Any = json.loads(body)

    def good(self) -> Any:
        assert self.status == 200, self.json
        assert self.headers["cache-control"] == "no-store"
        return self.json

    def problem(self, status: int, field: str | None = None) -> Any:
        assert self.status == status, self.json
        assert self.headers["content-type"] == "application/problem+json"
        if field is not None:
            assert [problem["field"] for problem in self.json["errors"]] == [field]
        return self.json


class Audit:
    """An operational store that only takes writes."""

    def __init__(self) -> None:
        self.acts: list[str] = []

    async def write(self, command: Any) -> None:
        self.acts.append(command.keywords["act"])


@pytest.fixture(scope="module")
def app() -> Litestar:
    """Made once, because that takes longer than a test; each test brings its services."""
    log = EventLog(ManualClock(), stream=LOG)
    return create_app(cast("Services", SimpleNamespace(log=log, metrics=MetricsRegistry(METRICS))))


class Box:
    """The application on a loop of its own over a journal; who asks is up to the test."""

    def __init__(self, directory: Path, app: Litestar) -> None:
        self.app = app
        self.runner = asyncio.Runner()
        self.journal = EmbeddedJournal(settings_for(directory))
        self.audit = Audit()
        self.principal = LOCAL
        self.do(self.journal.open())
        app.state["services"] = SimpleNamespace(
            groups=GroupService(
                self.journal,
                cast("OperationalStore", self.audit),
                ManualClock(START_US),
                lambda: NO_RULES,
            ),
            server=ServerSettings(),
            bodies=FairShare(limits.BODIES_BYTES_MAX),
        )
        self.do(self.journal.append(intake_of(readings(7, 3))))
        self.do(self.journal.append(intake_of(events(8, 2))))

    def do(self, work: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(bounded())

    def close(self) -> None:
        self.do(self.journal.close())
        self.runner.close()

    def ask(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> Answer:
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        return cast("Answer", self.do(self._ask(method, path, content)))

    async def _ask(self, method: str, path: str, content: bytes) -> Answer:
        plain, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "method": method, "scheme": "http", "path": plain, "raw_path": plain.encode(),
            "query_string": query.encode(), "root_path": "",
            "headers": [
                (b"host", b"localhost"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
            ],
            "client": ("10.0.0.7", 1), "server": ("localhost", 8030), "extensions": {},
            ORIGIN_KEY: Origin(self.principal, "10.0.0.7"),
        }  # fmt: skip
        messages = [{"type": "http.request", "body": content, "more_body": False}]
        got: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            got.append(message)

        await cast("Any", self.app)(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in got[0]["headers"]}
        whole = b"".join(message.get("body", b"") for message in got[1:])
        return Answer(got[0]["status"], whole, headers)

    def unprocessed(self, query: str = "") -> list[int]:
        answer = self.ask("GET", UNPROCESSED + query).good()
        assert answer["count"] == len(answer["data"])
        return [row["id"] for row in answer["data"]]


@pytest.fixture
def box(tmp_path: Path, app: Litestar) -> Iterator[Box]:
    running = Box(tmp_path, app)
    yield running
    running.close()
    assert "internal_error" not in LOG.getvalue(), LOG.getvalue()


def test_the_original_way(box: Box) -> None:
    """Read, mark with a bare array, read again: what is marked does not come back."""
    answer = box.ask("GET", UNPROCESSED).good()
    assert (answer["group"], answer["count"]) == ("api", 5)
    assert [row["data"] for row in answer["data"]][:1] == ["7"]
    assert answer["data"][4]["data"] == "8-1-" + "x" * 20
    assert {"id", "sensor_id", "timestamp", "data"} <= answer["data"][0].keys()
    assert box.ask("GET", UNPROCESSED).good() == answer
    assert box.ask("POST", MARK, [4, 1, 1]).good() == {
        "processed": 2, "success": True, "already": 0,
    }  # fmt: skip
    assert box.unprocessed() == [2, 3, 5]
    assert box.ask("POST", MARK, [4, 2]).good() == {"processed": 1, "success": True, "already": 1}
    assert box.unprocessed("?limit=1") == [3]
    assert box.ask("POST", MARK, []).good()["processed"] == 0


def test_groups_by_name(box: Box) -> None:
    box.ask("POST", MARK, {"group": "export", "ids": [1, 2]}).good()
    box.ask("POST", MARK + "?group=other", [5]).good()
    box.ask("POST", MARK + "?group=other", {"ids": [1], "group": None}).good()
    box.ask("POST", MARK + "?group=other", {"ids": [2], "group": "other"}).good()
    assert box.unprocessed("?group=export") == [3, 4, 5]
    assert box.unprocessed("?group=other") == [3, 4]
    assert box.unprocessed() == [1, 2, 3, 4, 5]
    assert box.ask("GET", GROUPS).good() == {
        "groups": [
            {"name": "export", "cursor": 2, "ahead": 0, "pending": 3, "evicted": 0},
            {"name": "other", "cursor": 2, "ahead": 1, "pending": 2, "evicted": 0},
        ]
    }


def test_forgetting_a_group(box: Box) -> None:
    name = "Größe x"
    box.ask("POST", MARK, {"group": name, "ids": [1]}).good()
    assert box.ask("DELETE", f"{GROUPS}/{name}").good() == {"name": name, "forgotten": True}
    assert box.audit.acts == ["groups.forget"]
    assert box.ask("GET", GROUPS).good() == {"groups": []}
    assert box.ask("DELETE", f"{GROUPS}/{name}").problem(404)["code"] == "OC-8005"
    assert box.unprocessed(f"?group={quote(name)}") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"[1", 400, None),
        (b'"1"', 422, "body"),
        (b"[1.0]", 422, "[0]"),
        (b"[1, 2e0]", 422, "[1]"),
        (b"[true]", 422, "[0]"),
        (b"[null]", 422, "[0]"),
        (b'["1"]', 422, "[0]"),
        (b"[0]", 422, "[0]"),
        (b"[-1]", 422, "[0]"),
        (b"[9007199254740992]", 422, "[0]"),
        (b"[123456789012345678901234567890]", 422, "[0]"),
        (b"[1, 6]", 422, "ids[1]"),
        (b"{}", 422, "ids"),
        (b'{"ids": 1}', 422, "ids"),
        (b'{"ids": [1.5]}', 422, "ids[0]"),
        (b'{"ids": [1], "grp": "x"}', 422, "grp"),
        (b'{"ids": [1], "group": 5}', 422, "group"),
        (b'{"ids": [1], "group": ""}', 422, "group"),
        (b'{"ids": [1], "group": "a\\u0000b"}', 422, "group"),
        (b"[" + b"1," * limits.MARK_IDS_MAX + b"1]", 422, "body"),
        (b"\xff", 400, None),
    ],
)
def test_bad_bodies_mark_nothing(box: Box, body: bytes, status: int, field: str | None) -> None:
    box.ask("POST", MARK, raw=body).problem(status, field)
    assert box.ask("GET", GROUPS).good() == {"groups": []}


@pytest.mark.parametrize(
    ("method", "path", "status", "field"),
    [
        ("GET", UNPROCESSED + "?limit=0", 400, "limit"),
        ("GET", UNPROCESSED + "?limit=10001", 400, "limit"),
        ("GET", UNPROCESSED + "?limit=1.5", 400, "limit"),
        ("GET", UNPROCESSED + "?limit=", 400, "limit"),
        ("GET", UNPROCESSED + "?limit=1&limit=2", 400, "limit"),
        ("GET", UNPROCESSED + "?max=1", 400, "max"),
        ("GET", UNPROCESSED + "?group=", 422, "group"),
        ("GET", UNPROCESSED + "?group=" + "x" * 65, 422, "group"),
        ("GET", UNPROCESSED + "?group=%0A", 422, "group"),
        ("GET", GROUPS + "?a=1", 400, "a"),
        ("DELETE", GROUPS + "/x?a=1", 400, "a"),
    ],
)
def test_bad_addresses(box: Box, method: str, path: str, status: int, field: str) -> None:
    box.ask(method, path).problem(status, field)


def test_two_groups_in_one_request(box: Box) -> None:
    box.ask("POST", MARK + "?group=a", {"ids": [1], "group": "b"}).problem(422, "group")


@pytest.mark.parametrize(
    ("method", "path", "access"),
    [
        ("GET", UNPROCESSED, "read"),
        ("POST", MARK, "read"),
        ("GET", GROUPS, "read"),
        ("DELETE", GROUPS + "/api", "admin"),
    ],
)
def test_who_may(box: Box, method: str, path: str, access: str) -> None:
    body = [1] if method == "POST" else None
    box.ask("POST", MARK, [2]).good()
    box.principal = NOBODY
    box.ask(method, path, body).problem(401)
    box.principal = INGEST_KEY
    box.ask(method, path, body).problem(403)
    # Whatever its scope: groups are about all sensors.
    box.principal = HALL_KEY
    box.ask(method, path, body).problem(403)
    box.principal = READ_KEY
    if access == "read":
        box.ask(method, path, body).good()
    else:
        box.ask(method, path, body).problem(403)
    box.principal = ADMIN_KEY
    box.ask(method, path, body).good()


def test_the_document_says_so(app: Litestar) -> None:
    paths = app.openapi_schema.to_schema()["paths"]
    assert paths[UNPROCESSED]["get"]["parameters"][1]["schema"]["maximum"] == 10_000
    body = paths[MARK]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["examples"]) == {"the original shape", "for a group"}
    assert {"get"} == paths[GROUPS].keys()
    assert {"delete"} == paths[GROUPS + "/{name}"].keys()
