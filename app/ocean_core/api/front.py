"""The ASGI callable that the server talks to: in front of Litestar, for what concerns all routes.

It finds out who asks, keeps other sites' pages and too fast senders away, lets slashes into names,
measures, and puts the headers on every answer that tell browsers what not to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from litestar import Litestar

from ocean_core.api.access import ORIGIN_KEY
from ocean_core.api.guard import FORWARDING, HostNames
from ocean_core.api.problems import PROBLEM_TYPE, response_of
from ocean_core.model.access import LISTENER_KEY, Origin
from ocean_core.model.errors import OceanError, RequestError
from ocean_core.obs.clock import Clock
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.access import AccessService

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
        clock: Clock,
    ) -> None:
        self._app: Any = app
        self._access = access
        self._hosts = hosts
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; count it and its duration by route."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw_path: bytes = scope.get("raw_path") or b""
        if b"%2f" in raw_path or b"%2F" in raw_path:
            _keep_encoded_slashes(scope, raw_path)
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
                scope[ORIGIN_KEY] = await self._admit(scope)
            except OceanError as error:
                await self._refuse(error, last_send)
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
        """Return who asks. Raises OriginError, UnauthenticatedError or RateLimitError."""
        seen: dict[bytes, bytes] = {}
        forwarded = False
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:
                if name in seen:
                    # Which one counts is what an attacker would like others to see differently.
                    raise RequestError(f"the header {name.decode()} is given twice")
                seen[name] = value
            elif name in FORWARDING:
                forwarded = True
        listener = scope.get(LISTENER_KEY)
        trusted = listener is not None and listener.trusted
        client = scope.get("client")
        address = client[0] if client else ""
        if not trusted:
            self._access.check_rate(address)
        principal = await self._access.principal_of(
            seen.get(b"authorization"), is_local=trusted and not forwarded, address=address
        )
        if trusted or b"origin" in seen or b"sec-fetch-site" in seen:
            self._hosts.check(
                scope["method"],
                host=_text(seen.get(b"host")),
                origin=_text(seen.get(b"origin")),
                fetch_site=_text(seen.get(b"sec-fetch-site")),
                any_host=not trusted or principal.kind not in {"local", "nobody"},
            )
        return Origin(principal, address)

    async def _refuse(self, error: OceanError, send: Send) -> None:
        self._metrics.add("ocean_errors_total", 1, error.code)
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


def _keep_encoded_slashes(scope: Scope, raw_path: bytes) -> None:
    """Let ``a%2Fb`` be one path segment: MQTT-like sensor names have slashes."""
    path = unquote_to_bytes(raw_path.replace(b"%2f", b"%1f").replace(b"%2F", b"%1f"))
    scope["path"] = path.decode("utf-8", "replace")
