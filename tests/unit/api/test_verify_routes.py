"""The routes verify and digests: what they take, whom they let in, what they pass on."""

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ocean_core.api.access import ORIGIN_KEY
from ocean_core.api.app import create_app
from ocean_core.api.services import Services
from ocean_core.model.access import Origin, Principal, Scope
from ocean_core.model.errors import AnalyticsUnavailableError
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.metrics import MetricsRegistry
from support.analytics import quiet_log

VERIFY = "/api/ocean/verify"
DIGESTS = "/api/ocean/telemetry/digests"
READER = Principal("key", "k1", name="hall", scopes=frozenset({Scope.READ}), sensors="hall-1/*")
FREE = Principal("key", "k2", scopes=frozenset({Scope.READ}))
SENDER = Principal("key", "k3", scopes=frozenset({Scope.INGEST}))


class Link:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], bool]] = []
        self.error: Exception | None = None

    async def query(self, name: str, params: Mapping[str, Any], *, wait: bool = False) -> bytes:
        self.asked.append((name, dict(params), wait))
        if self.error is not None:
            raise self.error
        return b'{"from": "analytics"}'


class Lab:
    def __init__(self) -> None:
        clock = ManualClock()
        self.link = Link()
        parts: dict[str, Any] = {field.name: None for field in dataclasses.fields(Services)}
        parts |= {
            "link": self.link, "metrics": MetricsRegistry(METRICS), "log": quiet_log(clock),
            "clock": clock,
        }  # fmt: skip
        self.app = create_app(Services(**parts))

    def get(self, path: str, query: str = "", who: Principal = FREE) -> tuple[int, Any]:
        return asyncio.run(self._get(path, query, who))

    async def _get(self, path: str, query: str, who: Principal) -> tuple[int, Any]:
        sent: list[Any] = []
        parts = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            return parts.pop(0) if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "", "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            ORIGIN_KEY: Origin(who, "127.0.0.1"),
        }  # fmt: skip
        await self.app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], json.loads(text)


@pytest.fixture(scope="module")
def shared() -> Lab:
    return Lab()


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.link.asked.clear()
    shared.link.error = None
    return shared


def test_what_is_asked_of_analytics(lab: Lab) -> None:
    assert lab.get(VERIFY) == (200, {"from": "analytics"})
    assert lab.get(VERIFY, "after_id=7&wait=true")[0] == 200
    assert lab.get(DIGESTS, "prefix=a&limit=5&wait=1&after=%5B%22a%22%2C%22value%22%5D")[0] == 200
    assert lab.link.asked == [
        ("verify", {}, False),
        ("verify", {"after_id": "7"}, True),
        ("digests", {"prefix": "a", "limit": "5", "after": '["a","value"]'}, True),
    ]


def test_a_limited_key_may_not_verify_and_sees_digests_of_its_own_only(lab: Lab) -> None:
    status, problem = lab.get(VERIFY, who=READER)
    assert status == 403
    assert "hall-1/*" in problem["detail"]
    assert "about all" in problem["detail"]
    assert lab.link.asked == []
    assert lab.get(DIGESTS, who=READER)[0] == 200
    assert lab.link.asked == [("digests", {"pattern": "hall-1/*"}, False)]
    for path in (VERIFY, DIGESTS):
        assert lab.get(path, who=SENDER)[0] == 403
        assert lab.get(path, who=Principal("nobody"))[0] == 401


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        (VERIFY, "after_id=-1", "after_id"),
        (VERIFY, "after_id=x", "after_id"),
        (VERIFY, "after_id=99999999999999999", "after_id"),
        (VERIFY, "after_id=1&after_id=2", "after_id"),
        (VERIFY, "after=1", "after"),
        (VERIFY, "wait=perhaps", "wait"),
        (DIGESTS, "limit=0", "limit"),
        (DIGESTS, "limit=10001", "limit"),
        (DIGESTS, "after=press-01", "after"),
        (DIGESTS, "after=%5B1%2C2%5D", "after"),
        (DIGESTS, "after=%5B%22a%22%5D", "after"),
        (DIGESTS, "prefix=", "prefix"),
        (DIGESTS, "pattern=*", "pattern"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(lab: Lab, path: str, query: str, named: str) -> None:
    status, problem = lab.get(path, query)
    assert status == 400
    assert problem["errors"][0]["field"] == named
    assert lab.link.asked == []


def test_errors_of_analytics_are_passed_on(lab: Lab) -> None:
    lab.link.error = AnalyticsUnavailableError("analytics are being rebuilt", retry_after_s=2)
    status, problem = lab.get(VERIFY)
    assert (status, problem["detail"]) == (503, "analytics are being rebuilt")
