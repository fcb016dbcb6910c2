"""What the controllers work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from litestar import Request

from ocean_core.config.settings import ServerSettings
from ocean_core.model.errors import FieldProblem, RequestError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.accounts.audit import AuditService
from ocean_core.service.accounts.billing import BillingService
from ocean_core.service.accounts.keys import KeyService
from ocean_core.service.accounts.metadata import MetadataService
from ocean_core.service.accounts.profiles import ProfileService
from ocean_core.service.accounts.sensors import SensorRecords
from ocean_core.service.accounts.sessions import SessionService
from ocean_core.service.accounts.users import UserService
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink
from ocean_core.service.frames.quarantine import Quarantine
from ocean_core.service.groups import GroupService
from ocean_core.service.ingest import IngestService
from ocean_core.service.jobs import JobBook
from ocean_core.service.ledger import LedgerService
from ocean_core.service.rates import FairShare
from ocean_core.service.state import StateService

SLASH_STAND_IN: Final = "\x1f"
"""Stands for an encoded slash inside one path segment; no sensor id may contain it."""

_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}

AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, kw_only=True)
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
    bodies: FairShare
    """Memory that all large request bodies being read or decoded may hold together."""
    groups: GroupService
    metadata: MetadataService
    profiles: ProfileService
    sensors: SensorRecords
    ledger: LedgerService
    quarantine: Quarantine
    keys: KeyService
    audit: AuditService
    users: UserService
    billing: BillingService
    sessions: SessionService
    jobs: JobBook


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
