"""What the controllers work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from litestar import Request

from ocean_core.config.settings import ServerSettings
from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, RequestError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink
from ocean_core.service.ingest import IngestService
from ocean_core.service.state import StateService

SLASH_STAND_IN: Final = "\x1f"
"""Stands for an encoded slash inside one path segment; no sensor id may contain it."""

_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}

AnyRequest = Request[Any, Any, Any]


class BodyBudget:
    """Memory that all large request bodies being read or decoded may hold together."""

    def __init__(self, bytes_max: int = limits.BODIES_BYTES_MAX) -> None:
        self._left = bytes_max

    def reserve(self, size: int) -> bool:
        """Take ``size`` bytes, or return False and take nothing."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self._left += size


@dataclass(frozen=True)
class Services:
    """Everything the routes need, made by the composition root."""

    ingest: IngestService
    link: AnalyticsLink
    state: StateService
    alarms: AlarmBook
    metrics: MetricsRegistry
    log: EventLog
    clock: Clock
    server: ServerSettings
    bodies: BodyBudget


def services_of(request: AnyRequest) -> Services:
    """Return the services of the application that got the request."""
    return cast("Services", request.app.state["services"])


def path_text(segment: str) -> str:
    """Return a path parameter as the client meant it."""
    return segment.replace(SLASH_STAND_IN, "/")


def parse_flag(name: str, text: str | None) -> bool:
    """Return a true/false query parameter, False when absent."""
    if text is None:
        return False
    if text.lower() not in _TRUTH:
        raise RequestError(
            f"{name} is {text[:80]!r}", fields=(FieldProblem(name, text[:80], "true or false"),)
        )
    return _TRUTH[text.lower()]
