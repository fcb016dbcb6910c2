"""Wires what answers over HTTP: the service of readings, the routes, the fast path, the server.

Imported late: Litestar takes a fifth of a second to import.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from ocean_core.api.app import create_app
from ocean_core.api.front import Front
from ocean_core.api.services import Services
from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.config.settings import Settings
from ocean_core.ingress.fast_http import FastServices
from ocean_core.model import limits
from ocean_core.model.errors import ConnectionsFullError, PlainHttpError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.accounts import Accounts
from ocean_core.runtime.http_server import HttpServer, Refusals
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink
from ocean_core.service.frames.terms import FrameTaker
from ocean_core.service.groups import GroupService
from ocean_core.service.guard import HostNames
from ocean_core.service.ingest import IngestService
from ocean_core.service.jobs import JobBook
from ocean_core.service.pace import Pace
from ocean_core.service.problems import raw_response_of
from ocean_core.service.rates import FairShare
from ocean_core.service.series_quota import SeriesQuota
from ocean_core.service.singles import SingleReadings
from ocean_core.service.state import StateService

GROUPS_WAITING_MAX: Final = 1024
"""How many groups of single readings may gather in a journal that delays its commits."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is there before anything is answered."""

    settings: Settings
    clock: Clock
    log: EventLog
    metrics: MetricsRegistry
    alarms: AlarmBook
    journal: EmbeddedJournal
    link: AnalyticsLink
    accounts: Accounts
    state: StateService
    quota: SeriesQuota
    frames: FrameTaker
    jobs: JobBook


def make_ingest(parts: Parts, decoders: ThreadPoolExecutor) -> IngestService:
    """Return the service that takes readings; large bodies are decoded by ``decoders``."""
    return IngestService(
        parts.journal,
        parts.clock,
        parts.metrics,
        parts.alarms,
        parts.quota,
        parts.accounts.policy,
        decoders,
        body_bytes_max=parts.settings.server.body_bytes_max,
        refusals=parts.accounts.ledger.refusals,
        pace=Pace(lambda: _backlog(parts)),
        frames=parts.frames,
    )


def _backlog(parts: Parts) -> int:
    """Return how many readings wait for analytics, 0 if analytics could not take them now."""
    report = parts.link.report
    if report is None or report.rebuilding or report.trouble or not parts.link.is_up:
        return 0
    return parts.journal.head_id - report.watermark


def make_server(parts: Parts, ingest: IngestService) -> HttpServer:
    """Return the server with all routes, not yet listening."""
    services = _services(parts, ingest)
    hosts = HostNames(parts.settings.access.allowed_hosts)
    front = Front(
        create_app(services),
        parts.accounts.access,
        hosts,
        parts.metrics,
        parts.log,
        parts.clock,
        ingest,
    )
    refusals = Refusals(
        full=raw_response_of(
            ConnectionsFullError("all connections, or all of your address, are busy")
        ),
        plain=raw_response_of(PlainHttpError("this port speaks TLS, the request came without")),
    )
    fast = _fast(parts, services, hosts) if parts.settings.server.fast_path else None
    return HttpServer(front, parts.settings, parts.clock, parts.log, refusals, fast)


def _services(parts: Parts, ingest: IngestService) -> Services:
    accounts = parts.accounts
    return Services(
        ingest=ingest,
        link=parts.link,
        state=parts.state,
        alarms=parts.alarms,
        metrics=parts.metrics,
        log=parts.log,
        clock=parts.clock,
        server=parts.settings.server,
        bodies=FairShare(limits.BODIES_BYTES_MAX),
        groups=GroupService(parts.journal, accounts.store, parts.clock, lambda: parts.link.names),
        users=accounts.users,
        billing=accounts.billing,
        sessions=accounts.sessions,
        metadata=accounts.metadata,
        profiles=accounts.profiles,
        sensors=accounts.sensors,
        ledger=accounts.ledger,
        quarantine=accounts.quarantine,
        keys=accounts.keys,
        audit=accounts.audit,
        jobs=parts.jobs,
    )


def _fast(parts: Parts, services: Services, hosts: HostNames) -> FastServices:
    # A journal that waits before it commits gathers by itself: held back here, readings would
    # wait twice.
    delays = bool(parts.settings.journal.commit_delay_ms)
    return FastServices(
        ingest=services.ingest,
        singles=SingleReadings(
            parts.journal,
            parts.clock,
            parts.metrics,
            parts.log,
            parts.quota.knows,
            groups_max=GROUPS_WAITING_MAX if delays else 1,
        ),
        access=parts.accounts.access,
        metrics=parts.metrics,
        log=parts.log,
        bodies=services.bodies,
        is_own_host=hosts.is_own,
    )
