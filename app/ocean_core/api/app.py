"""The Litestar application, and the thin layer around it that measures and knows slashes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from litestar import Litestar
from litestar.config.response_cache import ResponseCacheConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from ocean_core import __version__
from ocean_core.api.controllers.analytics import AnalyticsController, SensorsController
from ocean_core.api.controllers.ingest import IngestController
from ocean_core.api.controllers.state import StateController
from ocean_core.api.guard import refuse_foreign_pages
from ocean_core.api.problems import ErrorHandlers
from ocean_core.api.services import Services
from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.obs.metrics import MetricsRegistry

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


ROUTE_HANDLERS: Final = (
    IngestController,
    AnalyticsController,
    SensorsController,
    StateController,
)


def create_app(services: Services) -> Litestar:
    """Return the application for these services."""
    handlers = ErrorHandlers(services.log, services.metrics)
    return Litestar(
        route_handlers=ROUTE_HANDLERS,
        state=State({"services": services}),
        exception_handlers={
            OceanError: handlers.ocean,
            HTTPException: handlers.http,
            Exception: handlers.unexpected,
        },
        before_request=refuse_foreign_pages,
        openapi_config=OpenAPIConfig(
            title="Clisonix Ocean Core",
            version=__version__,
            path="/api/ocean/openapi.json",
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
        # Bodies are limited by api.body, which also counts chunked ones and answers in our words.
        request_max_body_size=None,
        response_cache_config=ResponseCacheConfig(default_expiration=None),
        # Our log events are the only log.
        logging_config=None,
        debug=False,
    )


class Front:
    """The ASGI callable that the server talks to."""

    def __init__(self, app: Litestar, metrics: MetricsRegistry, clock: Clock) -> None:
        self._app: Any = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; count it and its duration by route."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw_path: bytes = scope.get("raw_path") or b""
        if b"%2f" in raw_path or b"%2F" in raw_path:
            _keep_encoded_slashes(scope, raw_path)
        started = self._clock.monotonic()
        status = 500

        async def counting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting_send)
        finally:
            template = scope.get("path_template") or "other"
            route = f"{scope['method']} {template}" if template != "other" else template
            self._metrics.add("ocean_requests_total", 1, route, str(status))
            self._metrics.histogram("ocean_request_duration_seconds", route).observe(
                self._clock.monotonic() - started
            )


def _keep_encoded_slashes(scope: Scope, raw_path: bytes) -> None:
    """Let ``a%2Fb`` be one path segment: MQTT-like sensor names have slashes."""
    path = unquote_to_bytes(raw_path.replace(b"%2f", b"%1f").replace(b"%2F", b"%1f"))
    scope["path"] = path.decode("utf-8", "replace")
