"""The ASGI callable that the server talks to: in front of Litestar, for what concerns all routes.

It finds out who asks, keeps other sites' pages and too fast senders away, lets slashes into names,
measures, and puts the headers on every answer that tell browsers what not to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from litestar import Litestar

from ocean_core.api.access import ORIGIN_KEY, REFUSAL_KEY
from ocean_core.api.problems import brings_readings, response_of
from ocean_core.model.access import LISTENER_KEY, NOBODY, Origin
from ocean_core.model.errors import OceanError, RequestError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.access import AccessService
from ocean_core.service.guard import HostNames, tells_of_a_proxy
from ocean_core.service.ingest import IngestService
from ocean_core.service.problems import PROBLEM_TYPE, log_refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_POLICY: Final = b"content-security-policy"
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
# Answers are data: shown in a browser they load, run and embed nothing.
_NOTHING: Final = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")
_LOOKED_AT: Final = frozenset({b"authorization", b"host", b"origin", b"sec-fetch-site"})


class Front:
    """Takes every request first, and its answer last."""

    def __init__(
        self,
        app: Litestar,
        access: AccessService,
        hosts: HostNames,
        metrics: MetricsRegistry,
        log: EventLog,
        clock: Clock,
        ingest: IngestService,
    ) -> None:
        self._app: Any = app
        self._access = access
        self._hosts = hosts
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._ingest = ingest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; count it and its duration by route."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._clock.monotonic()
        status = 500

        async def last_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *_HEADERS]
                if not any(name == _POLICY for name, _ in headers):
                    headers.append(_NOTHING)
                message["headers"] = headers
            await send(message)

        try:
            try:
                _check_address(scope)
                scope[ORIGIN_KEY] = await self._admit(scope)
            except OceanError as error:
                await self._refuse(error, scope, last_send)
            else:
                await self._app(scope, receive, last_send)
        finally:
            template = scope.get("path_template") or "other"
            route = f"{scope['method']} {template}" if template != "other" else template
            self._metrics.add("ocean_requests_total", 1, route, str(status))
            self._metrics.histogram("ocean_request_duration_seconds", route).observe(
                self._clock.monotonic() - started
            )

    async def _admit(self, scope: Scope) -> Origin:
        """Return who asks. Raises OriginError, RateLimitError or RequestError.

        A key that is not valid makes nobody of a sender: what is open to everybody stays open, such
        as the state of health, and all else is refused for the reason left in the scope.
        """
        seen: dict[bytes, bytes] = {}
        forwarded = False
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:
                if name in seen:
                    # Which one counts is what an attacker would like others to see differently.
                    raise RequestError(f"the header {name.decode()} is given twice")
                seen[name] = value
            elif tells_of_a_proxy(name):
                forwarded = True
        client = scope.get("client")
        address = client[0] if client else ""
        listener = scope.get(LISTENER_KEY)
        # The second question costs little, should a kernel route others to a loopback address.
        trusted = listener is not None and listener.trusted and _is_loopback(address)
        if not trusted:
            self._access.check_rate(address)
        try:
            principal = await self._access.principal_of(
                seen.get(b"authorization"), is_local=trusted and not forwarded, address=address
            )
        except OceanError as error:
            scope[REFUSAL_KEY] = error
            principal = NOBODY
        if trusted or b"origin" in seen or b"sec-fetch-site" in seen:
            self._hosts.check(
                scope["method"],
                host=_text(seen.get(b"host")),
                origin=_text(seen.get(b"origin")),
                fetch_site=_text(seen.get(b"sec-fetch-site")),
                any_host=not trusted or principal.kind not in {"local", "nobody"},
            )
        return Origin(principal, address)

    async def _refuse(self, error: OceanError, scope: Scope, send: Send) -> None:
        self._metrics.add("ocean_errors_total", 1, error.code)
        if brings_readings(scope["method"], scope["path"]):
            self._ingest.count_refused(error)
        client = scope.get("client")
        log_refusal(self._log, error, client[0] if client else "")
        answer = response_of(error)
        headers = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(answer.content)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in answer.headers.items()),
        ]
        if isinstance(error, RequestError):
            # What follows on a connection that said two things at once is not worth reading.
            headers.append((b"connection", b"close"))
        await send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )
        await send({"type": "http.response.body", "body": answer.content, "more_body": False})


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _check_address(scope: Scope) -> None:
    """Let ``a%2Fb`` be one path segment: MQTT-like sensor names have slashes.

    Raises RequestError if path or query are no UTF-8: replaced letters would make two names one.
    """
    raw_path: bytes = scope.get("raw_path") or b""
    query: bytes = scope.get("query_string") or b""
    try:
        if b"%" in raw_path:
            kept = raw_path.replace(b"%2f", b"%1f").replace(b"%2F", b"%1f")
            scope["path"] = unquote_to_bytes(kept).decode()
        if b"%" in query:
            unquote_to_bytes(query).decode()
    except UnicodeDecodeError as error:
        raise RequestError("the address is not UTF-8 once its % signs are resolved") from error
