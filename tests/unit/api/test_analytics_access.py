"""Keys that are limited to some sensors ask for these only, whatever names the sensors had."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from litestar import Litestar
from litestar.datastructures import State

from ocean_core.api.access import ORIGIN_KEY
from ocean_core.api.app import create_app
from ocean_core.api.controllers.analytics import AnalyticsController, SensorsController
from ocean_core.api.controllers.ingest import IngestController
from ocean_core.api.controllers.state import StateController
from ocean_core.api.services import Services
from ocean_core.config.settings import Settings
from ocean_core.model.access import LOCAL, Origin, Principal, Scope
from ocean_core.model.errors import ForbiddenError
from ocean_core.model.naming import Names
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.rates import FairShare
from support.analytics import quiet_log
from support.renaming import rename

READER = Principal("key", "k1", scopes=frozenset({Scope.READ}), sensors="hall-1/*")
FREE = Principal("key", "k2", scopes=frozenset({Scope.READ}))

ONE_SENSOR = [
    "/api/ocean/analytics/sensor/{}/stats",
    "/api/ocean/analytics/sensor/{}/timeseries",
    "/api/ocean/analytics/sensor/{}/anomalies",
    "/api/ocean/sensors/{}/latest",
    "/api/ocean/sensors/{}/events",
]
LISTS = ["/api/ocean/sensors", "/api/ocean/sensors/latest"]


class Link:
    """Takes down what analytics would be asked."""

    def __init__(self) -> None:
        self.names = Names(
            [rename(1, "hall-1/old", "hall-2/new"), rename(2, "hall-2/old", "hall-1/new")]
        )
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def query(self, name: str, params: Mapping[str, Any], *, wait: bool = False) -> bytes:
        self.asked.append((name, dict(params)))
        return b'{"sensors": []}'


class Lab:
    def __init__(self) -> None:
        clock = ManualClock()
        self.link = Link()
        unused: dict[str, Any] = dict.fromkeys(
            (
                "ingest", "state", "alarms", "groups", "metadata", "profiles", "sensors", "ledger", "keys",
                "audit", "users", "billing", "sessions", "quarantine", "jobs",
            )
        )  # fmt: skip
        self.services: Any = Services(
            **unused,
            link=cast("Any", self.link),
            metrics=MetricsRegistry(METRICS),
            log=quiet_log(clock),
            clock=clock,
            server=Settings().server,
            bodies=FairShare(1 << 20),
        )
        self.app = create_app(self.services)

    def ask(
        self, who: Principal, path: str, body: object = None, query: str = ""
    ) -> tuple[int, Any]:
        return asyncio.run(self._ask(who, path, body, query))

    async def _ask(self, who: Principal, path: str, body: object, query: str) -> tuple[int, Any]:
        raw = b"" if body is None else json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        headers.append((b"content-length", str(len(raw)).encode()))
        sent: list[Any] = []
        parts = [{"type": "http.request", "body": raw, "more_body": False}]

        async def receive() -> Any:
            return parts.pop(0) if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "method": "GET" if body is None else "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            ORIGIN_KEY: Origin(who, "127.0.0.1"),
        }  # fmt: skip
        await self.app(scope, receive, send)
        status = sent[0]["status"]
        text = b"".join(message.get("body", b"") for message in sent[1:])
        return status, json.loads(text) if text else None


@pytest.fixture(scope="module")
def shared() -> Lab:
    return Lab()


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.link.asked.clear()
    return shared


@pytest.mark.parametrize("route", ONE_SENSOR)
@pytest.mark.parametrize(
    ("sensor_id", "status"),
    [
        ("hall-1\x1fa", 200),
        ("hall-2\x1fa", 403),
        ("HALL-1\x1fa", 403),
        # Its name of today is not within the pattern.
        ("hall-1\x1fold", 403),
        # It is now, but the key does not cover the name that was used.
        ("hall-2\x1fold", 403),
        ("hall-1\x1fnew", 200),
    ],
)
def test_one_sensor(lab: Lab, route: str, sensor_id: str, status: int) -> None:
    # The front puts this character in the place of an encoded slash.
    found, problem = lab.ask(READER, route.format(sensor_id))
    assert found == status, problem
    assert len(lab.link.asked) == (status == 200)
    if status == 403:
        assert problem["code"] == ForbiddenError.code
    assert lab.ask(FREE, route.format(sensor_id))[0] == 200


def test_every_sensor_of_a_comparison(lab: Lab) -> None:
    path = "/api/ocean/analytics/compare"
    assert lab.ask(READER, path, {"sensor_ids": ["hall-1/a", "hall-1/b"]})[0] == 200
    assert lab.ask(READER, path, {"sensor_ids": ["hall-1/a", "hall-2/b"]})[0] == 403
    assert lab.ask(READER, path, {"sensor_ids": ["hall-1/old"]})[0] == 403
    assert len(lab.link.asked) == 1
    status, _ = lab.ask(READER, path, {"sensor_ids": ["hall-1/a"], "pattern": "*"})
    assert status == 400


@pytest.mark.parametrize("path", LISTS)
def test_lists_are_asked_for_with_the_pattern_of_the_key(lab: Lab, path: str) -> None:
    assert lab.ask(READER, path, query="limit=5")[0] == 200
    assert lab.link.asked[-1][1] == {"limit": "5", "pattern": "hall-1/*"}
    assert lab.ask(LOCAL, path)[0] == 200
    assert lab.link.asked[-1][1] == {}
    for who in (READER, FREE):
        assert lab.ask(who, path, query="pattern=*")[0] == 400


def test_each_route_says_whom_it_lets_in() -> None:
    app = Litestar(
        [AnalyticsController, SensorsController, IngestController, StateController],
        state=State({}), openapi_config=None,
    )  # fmt: skip
    access = {
        f"{method} {route.path}": handler.opt.get("access")
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        for method in getattr(handler, "http_methods", [])
        if "OPTIONS" not in getattr(handler, "http_methods", [])
    }
    assert access.pop("GET /health") == "public"
    for path in ("ingest", "batch"):
        assert access.pop(f"POST /api/ocean/telemetry/{path}") == "ingest"
    assert len(access) >= 12
    assert set(access.values()) == {"read"}, access
