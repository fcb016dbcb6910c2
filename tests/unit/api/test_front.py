"""What holds for every request, whatever its route."""

import asyncio
import io
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import pytest

from ocean_core.api.access import ORIGIN_KEY, REFUSAL_KEY
from ocean_core.api.front import Front
from ocean_core.config.settings import AccessSettings
from ocean_core.model.access import LISTENER_KEY, LOCAL, NOBODY, Origin, Principal
from ocean_core.model.errors import UnauthenticatedError
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.access import AccessService
from ocean_core.service.guard import HostNames

KEY = Principal("key", "k1")


class Sources:
    is_loaded = True

    def principal_of(self, secret: str) -> Principal | None:
        return KEY if secret == "ocean_right" else None

    def note_used(self, key_id: str) -> None: ...

    async def authenticate(self, token: str) -> Principal | None:
        return None


@dataclass
class Listener:
    trusted: bool


@dataclass
class Seen:
    status: int
    headers: dict[bytes, bytes]
    body: bytes
    origin: Origin | None


class Lab:
    def __init__(self, **settings: Any) -> None:
        clock = ManualClock()
        self.metrics = MetricsRegistry(METRICS)
        access = AccessService(AccessSettings(**settings), clock, Sources(), Sources(), "owner_x")
        self.headers: list[tuple[bytes, bytes]] = [(b"content-length", b"2")]
        self.origin: Origin | None = None
        self.told = io.StringIO()
        log = EventLog(clock, stream=self.told)
        app: Any = self.app
        self.ingest: Any = Mock()
        self.front = Front(app, access, HostNames(), self.metrics, log, clock, self.ingest)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.origin = scope[ORIGIN_KEY]
        self.refusal = scope.get(REFUSAL_KEY)
        self.path = scope["path"]
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"{}"})

    def ask(
        self, headers: dict[bytes, bytes], *more: tuple[bytes, bytes], trusted: bool | None = True, method: str = "GET",
        raw_path: bytes = b"/x", address: str = "127.0.0.1", query: bytes = b"",
    ) -> Seen:  # fmt: skip
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("nobody reads here")

        scope: dict[str, Any] = {
            "type": "http", "method": method, "path": raw_path.decode(), "raw_path": raw_path,
            "query_string": query,
            "headers": [*headers.items(), *more], "client": (address, 5000),
        }  # fmt: skip
        if trusted is not None:
            scope[LISTENER_KEY] = Listener(trusted)
        self.origin = None
        asyncio.run(self.front(scope, receive, send))
        return Seen(sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], self.origin)


def test_a_program_on_this_machine_is_let_in() -> None:
    seen = Lab().ask({b"host": b"localhost:8030"})
    assert seen.origin == Origin(LOCAL, "127.0.0.1")


@pytest.mark.parametrize(
    "header",
    [
        b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-server", b"x-forwarded-anything",
        b"x-real-ip", b"x-original-forwarded-for", b"x-envoy-external-address", b"cf-connecting-ip",
        b"true-client-ip", b"fastly-client-ip", b"fly-client-ip", b"wl-proxy-client-ip",
    ],
)  # fmt: skip
def test_what_came_through_a_proxy_is_not_this_machine(header: bytes) -> None:
    assert Lab().ask({b"host": b"localhost", header: b"1.2.3.4"}).origin == Origin(
        NOBODY, "127.0.0.1"
    )


@pytest.mark.parametrize("trusted", [False, None])
def test_other_listeners_trust_nobody(trusted: bool | None) -> None:
    assert Lab().ask({b"host": b"localhost"}, trusted=trusted).origin == Origin(NOBODY, "127.0.0.1")


def test_a_key_counts_on_every_listener() -> None:
    for trusted in (True, False):
        seen = Lab().ask({b"authorization": b"Bearer ocean_right"}, trusted=trusted)
        assert seen.origin == Origin(KEY, "127.0.0.1")


def test_a_wrong_key_makes_nobody_and_the_reason_is_kept_for_the_route() -> None:
    lab = Lab()
    seen = lab.ask({b"authorization": b"Bearer ocean_wrong"})
    assert seen.origin == Origin(NOBODY, "127.0.0.1")
    assert isinstance(lab.refusal, UnauthenticatedError)
    lab.ask({b"authorization": b"Bearer ocean_right"})
    assert lab.refusal is None


def test_an_address_beyond_loopback_is_not_this_machine_whatever_the_listener() -> None:
    assert Lab().ask({}, address="192.168.1.9").origin == Origin(NOBODY, "192.168.1.9")
    assert Lab().ask({}, address="::1").origin == Origin(LOCAL, "::1")


@pytest.mark.parametrize(
    ("raw_path", "query"),
    [(b"/a/%ff", b""), (b"/a/%ED%A0%80", b""), (b"/a%2Fb/%fe", b""), (b"/a", b"after=%ff")],
)
def test_an_address_that_is_no_text_is_refused(raw_path: bytes, query: bytes) -> None:
    seen = Lab().ask({}, raw_path=raw_path, query=query)
    assert (seen.status, seen.origin) == (400, None)


def test_the_log_tells_who_was_not_let_in() -> None:
    lab = Lab()
    lab.ask({b"host": b"evil.example"})
    assert "access.refused address=127.0.0.1 code=OC-6004" in lab.told.getvalue()


@pytest.mark.parametrize("name", [b"host", b"authorization", b"origin"])
def test_a_header_that_decides_may_stand_only_once(name: bytes) -> None:
    seen = Lab().ask({name: b"localhost"}, (name, b"evil.example"))
    assert (seen.status, seen.origin) == (400, None)


def test_a_rebound_name_is_refused_where_no_key_is_needed() -> None:
    assert Lab().ask({b"host": b"evil.example"}).status == 403
    assert Lab().ask({b"host": b"gw.lan"}, trusted=False).status == 200
    assert Lab().ask({b"host": b"gw.lan", b"authorization": b"Bearer ocean_right"}).status == 200


@pytest.mark.parametrize("trusted", [True, False])
def test_pages_of_other_sites_cannot_post(trusted: bool) -> None:
    headers = {b"host": b"localhost", b"origin": b"http://evil.example"}
    assert Lab().ask(headers, trusted=trusted, method="POST").status == 403


def test_other_machines_are_limited_this_one_is_not() -> None:
    lab = Lab(requests_per_address_max=1)
    assert {lab.ask({}, trusted=True).status for _ in range(20)} == {200}
    statuses = [lab.ask({}, trusted=False) for _ in range(20)]
    assert statuses[-1].status == 429
    assert int(statuses[-1].headers[b"retry-after"]) >= 1


def test_every_answer_tells_browsers_to_do_nothing_with_it() -> None:
    for seen in (Lab().ask({}), Lab().ask({b"host": b"evil.example"})):
        assert seen.headers[b"content-security-policy"].startswith(b"default-src 'none'")
        assert seen.headers[b"x-content-type-options"] == b"nosniff"
        assert b"access-control-allow-origin" not in seen.headers


def test_a_route_may_have_its_own_content_policy() -> None:
    lab = Lab()
    lab.headers = [(b"content-security-policy", b"script-src 'self'")]
    assert lab.ask({}).headers[b"content-security-policy"] == b"script-src 'self'"


def test_an_encoded_slash_stays_inside_its_segment() -> None:
    lab = Lab()
    lab.ask({}, raw_path=b"/api/a%2Fb/%e2%82%ac")
    assert lab.path == "/api/a\x1fb/€"
