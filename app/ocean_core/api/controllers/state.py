"""How the box is: health, status, alarms, metrics, and what this API is."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Litestar, Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.routes import HTTPRoute

from ocean_core import __version__
from ocean_core.api.openapi import answers, operation, query_parameter
from ocean_core.api.services import AnyRequest, parse_flag, services_of
from ocean_core.service.alarms import Alarm
from ocean_core.service.state import ARCHITECTURE
from ocean_core.service.status import SystemStatus

# Litestar adds the charset to every text.
_TEXT_FORMAT = "text/plain; version=0.0.4"
_HEALTH_OPERATION = operation(
    query_parameter("ready", "true: answer 503 while the journal cannot be written.", "true")
)
_NO_STORE = {"Cache-Control": "no-store"}


def described_routes(app: Litestar) -> list[str]:
    """Return the application's routes as ``METHOD /path``, sorted."""
    return sorted(
        f"{method} {route.path_format}"
        for route in app.routes
        if isinstance(route, HTTPRoute) and "openapi.json" not in route.path_format
        for method in route.methods
        if method not in ("OPTIONS", "HEAD")
    )


class Health(msgspec.Struct):
    """The original's fields, and whether readings can be taken."""

    status: str
    engine: str
    architecture: str
    cpu_mode: str
    telemetry_buffer: int
    db_size_mb: float
    timestamp: str
    ready: bool
    reason: str


class AlarmList(msgspec.Struct):
    """Open alarms, and those cleared since the start."""

    open: list[Alarm]
    cleared: list[Alarm]


class StateController(Controller):
    """Routes that change nothing and touch no disk."""

    tags = ("State",)

    @get(
        "/health",
        operation_class=_HEALTH_OPERATION,
        opt={"access": "public"},
        responses={
            **answers(Health, 400),
            503: ResponseSpec(Health, description="Readings cannot be taken now."),
        },
        summary="Is the box alive, is it ready",
    )
    async def health(self, request: AnyRequest) -> Response[bytes]:
        """Answer 200 while the process lives; with ready=true 503 while it cannot take readings."""
        state = services_of(request).state
        await state.refresh()
        well, body = state.health(ready=parse_flag("ready", request.query_params.get("ready")))
        headers = dict(_NO_STORE)
        if not well:
            headers["Retry-After"] = "1"
        return Response(
            msgspec.json.encode(body),
            status_code=200 if well else 503,
            media_type="application/json",
            headers=headers,
        )

    @get(
        "/api/ocean/status",
        opt={"access": "read"},
        responses=answers(SystemStatus),
        summary="Everything about the box",
    )
    async def status(self, request: AnyRequest) -> Response[bytes]:
        """Return the snapshot that console and metrics show too."""
        state = services_of(request).state
        await state.refresh()
        return Response(
            msgspec.json.encode(state.status()), media_type="application/json", headers=_NO_STORE
        )

    @get(
        "/api/ocean/alarms", opt={"access": "read"}, responses=answers(AlarmList), summary="Alarms"
    )
    async def alarms(self, request: AnyRequest) -> Response[bytes]:
        """Return what needs attention, and what did."""
        book = services_of(request).alarms
        await services_of(request).state.refresh()
        body = AlarmList(book.open_alarms(), book.cleared_alarms())
        return Response(msgspec.json.encode(body), media_type="application/json", headers=_NO_STORE)

    @get(
        "/api/ocean/docs",
        opt={"access": "read"},
        responses=answers(dict[str, Any]),
        summary="What this is",
    )
    async def docs(self, request: AnyRequest) -> Response[bytes]:
        """Describe the system; the figures are measured on this box since its start."""
        services = services_of(request)
        await services.state.refresh()
        routes = described_routes(request.app)
        body = {
            "system": f"Clisonix Ocean Core {__version__}",
            "architecture": ARCHITECTURE,
            "layers": {
                "1_ingestion": "HTTP into a journal (SQLite WAL), acknowledged after fsync",
                "2_core": "a mover takes each reading into analytics exactly once",
                "3_storage": "journal.db is the truth; analytics.duckdb a rebuildable index; "
                "clisonix_operational.db keeps users, sessions, billing, keys, metadata",
                "4_removed": "no PostgreSQL, no MySQL, no other service",
            },
            "performance": services.state.measured(),
            "endpoints": {
                "health": [r for r in routes if "/health" in r],
                "status": [r for r in routes if r.endswith(("status", "alarms", "metrics"))],
                "telemetry": [r for r in routes if "/telemetry" in r],
                "analytics": [r for r in routes if "/analytics" in r or "/sensors" in r],
                "profiles": [r for r in routes if "/profiles" in r],
                "accounts": [
                    r
                    for r in routes
                    if any(part in r for part in ("/users", "/sessions", "/billing", "/keys"))
                ],
                "all": routes,
            },
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    @get(
        "/metrics",
        opt={"access": "read"},
        media_type="text/plain",
        summary="Metrics for Prometheus",
    )
    async def metrics(self, request: AnyRequest) -> Response[str]:
        """Return the text exposition format."""
        state = services_of(request).state
        await state.refresh()
        return Response(state.prometheus(), media_type=_TEXT_FORMAT, headers=_NO_STORE)
