"""Answers the analytics queries. Lives in the analytics process; may be used by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    QueryTooLargeError,
    StoreIOError,
)
from ocean_core.model.naming import NO_RULES, Names
from ocean_core.obs.clock import Clock
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries.anomalies import answer_anomalies
from ocean_core.service.queries.answers import (
    Anomalies,
    Answer,
    Comparison,
    Events,
    Latest,
    LatestAll,
    Sensors,
    Stats,
    Timeseries,
    encode,
)
from ocean_core.service.queries.digests import answer_digests
from ocean_core.service.queries.listing import (
    answer_events,
    answer_latest,
    answer_latest_all,
    answer_sensors,
)
from ocean_core.service.queries.requests import (
    AnomaliesRequest,
    CompareRequest,
    DigestsRequest,
    EventsRequest,
    LatestAllRequest,
    LatestRequest,
    Request,
    SensorsRequest,
    StatsRequest,
    TimeseriesRequest,
    VerifyRequest,
    parse_request,
)
from ocean_core.service.queries.series import answer_timeseries
from ocean_core.service.queries.session import Cursors, Session
from ocean_core.service.queries.statistics import answer_compare, answer_stats
from ocean_core.service.queries.verified import Digests, VerifyStep
from ocean_core.service.queries.verify import OneAtATime, Verifier
from ocean_core.storage.analytics.errors import (
    DuckError,
    InterruptError,
    OutOfMemoryError,
    is_damage,
    is_system_error,
)
from ocean_core.storage.analytics.store import AnalyticsStore


class QueryEngine:
    """One method per query; memory first where it covers the question, the file otherwise.

    ``on_damage`` is told, from the asking thread, when a query finds analytics.duckdb damaged, or
    DuckDB failing by itself; the store has noted it by then for its next open.
    """

    def __init__(
        self,
        store: AnalyticsStore,
        window: LiveWindow | None,
        clock: Clock,
        query_timeout_s: float,
        on_damage: Callable[[str], None] | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """``window`` None answers everything from the file; without ``verifier`` there is none."""
        self._store = store
        self._window = window
        self._clock = clock
        self._timeout_s = query_timeout_s
        self._on_damage = on_damage
        self._verifier = verifier
        self._long = OneAtATime()
        self._cursors = Cursors(store)
        self._sessions: set[Session] = set()
        self._sessions_lock = threading.Lock()
        self._stopping = False
        self._names = NO_RULES

    def use_names(self, names: Names) -> None:
        """Follow other rules about names: who asks for an old name means the new one."""
        self._names = names

    def answer(
        self, name: str, params: Mapping[str, object], *, timeout_s: float | None = None
    ) -> bytes:
        """Return the JSON answer to a query with the parameters as they came.

        ``timeout_s`` is what is left of the time limit, None if all of it is. Raises QueryError,
        UnknownSensorError, MetricChoiceError, QueryTooLargeError, QueryTimeoutError,
        AnalyticsUnavailableError, StoreIOError.
        """
        return self.answer_request(parse_request(name, params, internal=True), timeout_s=timeout_s)

    def answer_request(self, request: Request, *, timeout_s: float | None = None) -> bytes:
        """Return the JSON answer to a checked request. Raises what ``answer`` raises."""
        request = _with_present_names(request, self._names)
        left_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        session = Session(self._cursors, left_s, limit_s=self._timeout_s)
        self._enter(session)
        try:
            return encode(_METHODS[type(request)](self, session, request))
        except InterruptError as error:
            raise session.end_error() from error
        except OutOfMemoryError as error:
            raise QueryTooLargeError(
                "The query needs more memory than analytics may use.",
                hint="Choose a longer interval or a shorter range.",
            ) from error
        except (DuckError, UnicodeDecodeError) as error:
            session.fail()
            raise self._explain(error) from error
        finally:
            with self._sessions_lock:
                self._sessions.discard(session)
            session.close()
            if session.has_failed:
                # Its transaction may be half open.
                self._cursors.drop_mine()

    def interrupt_all(self) -> None:
        """End the queries that run, and refuse those that come, with AnalyticsUnavailableError."""
        with self._sessions_lock:
            self._stopping = True
            sessions = list(self._sessions)
        for session in sessions:
            session.interrupt()

    def _enter(self, session: Session) -> None:
        with self._sessions_lock:
            if self._stopping:
                session.interrupt()
                raise session.end_error()
            self._sessions.add(session)

    def stats(self, session: Session, request: StatsRequest) -> Stats:
        """Count, mean, extremes and deviation."""
        return answer_stats(self._window, session, request)

    def timeseries(self, session: Session, request: TimeseriesRequest) -> Timeseries:
        """Means and extremes per bucket."""
        return answer_timeseries(self._window, session, request)

    def anomalies(self, session: Session, request: AnomaliesRequest) -> Anomalies:
        """Readings far from the mean."""
        return answer_anomalies(self._window, session, request)

    def compare(self, session: Session, request: CompareRequest) -> Comparison:
        """Statistics of several sensors."""
        return answer_compare(self._window, session, request)

    def sensors(self, session: Session, request: SensorsRequest) -> Sensors:
        """What sensors there are."""
        return answer_sensors(self._window, session, request)

    def latest(self, session: Session, request: LatestRequest) -> Latest:
        """The newest readings of a sensor."""
        return answer_latest(self._window, session, request, self._clock.now_us())

    def latest_all(self, session: Session, request: LatestAllRequest) -> LatestAll:
        """The newest readings of many sensors."""
        return answer_latest_all(self._window, session, request, self._clock.now_us())

    def events(self, session: Session, request: EventsRequest) -> Events:
        """The newest events of a sensor."""
        return answer_events(self._window, session, request)

    def verify(self, session: Session, request: VerifyRequest) -> VerifyStep:
        """Journal and analytics against each other."""
        if self._verifier is None:
            raise AnalyticsUnavailableError("there is no journal to compare with")
        with self._long.turn():
            return self._verifier.step(session, request)

    def digests(self, session: Session, request: DigestsRequest) -> Digests:
        """Count and digest per series."""
        with self._long.turn():
            return answer_digests(session, request)

    def _explain(self, error: Exception) -> Exception:
        """Return what to raise for an error of DuckDB; a fault of our own stays what it is."""
        if is_damage(error):
            reason = self._store.condemn(error)
            if self._on_damage is not None:
                self._on_damage(reason)
            detail = (
                "analytics.duckdb is damaged and will be rebuilt."
                if self._store.is_suspect
                else "DuckDB failed by itself; analytics are restarted."
            )
            return AnalyticsUnavailableError(detail, retry_after_s=5)
        if is_system_error(error):
            return StoreIOError(f"analytics.duckdb: {error}")
        return error


def _with_present_names(request: Request, names: Names) -> Request:
    """Return the request for the sensors as they are called now."""
    if not names.renames or isinstance(
        request, SensorsRequest | LatestAllRequest | VerifyRequest | DigestsRequest
    ):
        return request
    if isinstance(request, CompareRequest):
        present = tuple(dict.fromkeys(map(names.asked, request.sensor_ids)))
        return msgspec.structs.replace(request, sensor_ids=present)
    return msgspec.structs.replace(request, sensor_id=names.asked(request.sensor_id))


_METHODS: Final[dict[type[Request], Callable[[QueryEngine, Session, Any], Answer]]] = {
    StatsRequest: QueryEngine.stats,
    TimeseriesRequest: QueryEngine.timeseries,
    AnomaliesRequest: QueryEngine.anomalies,
    CompareRequest: QueryEngine.compare,
    SensorsRequest: QueryEngine.sensors,
    LatestRequest: QueryEngine.latest,
    LatestAllRequest: QueryEngine.latest_all,
    EventsRequest: QueryEngine.events,
    VerifyRequest: QueryEngine.verify,
    DigestsRequest: QueryEngine.digests,
}
