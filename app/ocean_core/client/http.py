"""Calls of the API: JSON out, JSON in, errors as exceptions, and repeats where they are safe.

A call is sent again, until its time is over,

    nobody answers               if somebody has answered before, or may yet: then nothing was done
    the answer was lost          if doing it twice is as good as once: GET, PUT, PATCH, DELETE, and
                                 whatever carries an Idempotency-Key
    429, 503 or 507 with         always, after the time that the server asks for: it did nothing;
    Retry-After                  but a wait for a wrong password is for a person to know of
    401                          once, if there is another key or another server by now
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from ocean_core.client.connection import (
    Connections,
    LostError,
    RawAnswer,
    Target,
    UnreachableError,
)
from ocean_core.client.problems import error_of
from ocean_core.model.errors import (
    LoginBackoffError,
    MalformedBodyError,
    NotRunningError,
    OceanError,
)
from ocean_core.obs.clock import Clock

PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
_BUSY: Final = frozenset({429, 503, 507})
_REPEATABLE: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})


class ServerSource(Protocol):
    """Knows where the server is."""

    def target(self) -> Target:
        """Return where it is; may start one. Raises OceanError if there is none."""
        ...

    def renewed(self, stale: Target) -> Target:
        """Return where it is after ``stale`` did not answer, or did not take the key."""
        ...

    @property
    def is_patient(self) -> bool:
        """Whether a server that was never met may be about to come."""
        ...


class FixedServer:
    """A server at an address that somebody named."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def target(self) -> Target:
        """Return it."""
        return self._target

    def renewed(self, stale: Target) -> Target:  # noqa: ARG002 - there is no other
        """Return it."""
        return self._target

    @property
    def is_patient(self) -> bool:
        """Whoever names an address expects someone there."""
        return False


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    repeatable: bool


class ApiClient:
    """Calls a server. For any number of threads."""

    def __init__(
        self,
        source: ServerSource,
        *,
        timeout_s: float,
        clock: Clock,
        pause: Callable[[float], object],
        tell: Callable[[OceanError], object] = lambda _: None,
        connect: Callable[[Target], Connections] = Connections,
    ) -> None:
        """``timeout_s`` bounds each call; ``tell`` hears once per call why it is waiting."""
        self._source = source
        self._timeout_s = timeout_s
        self._clock = clock
        self._pause = pause
        self._tell = tell
        self._connect = connect
        self._connections: Connections | None = None
        self._was_met = False
        self._lock = threading.Lock()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        idempotency_key: str | None = None,
        repeatable: bool | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of the answer, None if there is none.

        ``body`` is what becomes JSON, or bytes that are JSON already. Values of ``query`` that are
        None are left out. Raises the error that the server names, NotRunningError if none answers
        in time, MalformedBodyError for what JSON does not have (NaN, infinity).
        """
        if repeatable is None:
            repeatable = method in _REPEATABLE or idempotency_key is not None
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            content = body if isinstance(body, bytes) else to_json(body)
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self._repeat(
            _Request(method, path + _query_text(query), content, headers, repeatable)
        )

    def url(self) -> str:
        """Return the address of the server."""
        return self._current().target.url

    @property
    def connected_to(self) -> str:
        """The address of the server used last; empty while there is none. Starts nothing."""
        connections = self._connections
        return "" if connections is None else connections.target.url

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    def _repeat(self, request: _Request) -> Any:  # noqa: ANN401 - JSON
        """Send a request until it is answered for good; the table is at the head of the module."""
        deadline = self._clock.monotonic() + self._timeout_s
        pause_s, was_lost, was_refused = PAUSE_FIRST_S, False, False
        while True:
            left_s = max(0.001, deadline - self._clock.monotonic())
            connections = self._current()
            wait_s = pause_s
            try:
                answer = self._send(connections, request, left_s)
            except LostError as error:
                failure: OceanError = NotRunningError(
                    f"the connection was lost before the answer came: {error}",
                    hint="It may have been done or not: look before you do it again.",
                )
                if not request.repeatable:
                    raise failure from error
                was_lost = True
                self._renew(connections)
            except UnreachableError as error:
                failure = NotRunningError(str(error))
                changed = self._renew(connections)
                if not changed and not (self._was_met or self._source.is_patient):
                    raise failure from error
            else:
                self._was_met = True
                if answer.status < 300:
                    return _decoded(answer)
                if was_lost and request.method == "DELETE" and answer.status == 404:
                    # The first attempt did it, only its answer did not arrive.
                    return None
                failure = _failure(answer)
                if answer.status == 401 and not was_refused and self._renew(connections):
                    was_refused, wait_s = True, 0.0
                elif answer.status in _BUSY and failure.retry_after_s is not None and not (
                    isinstance(failure, LoginBackoffError)
                ):  # fmt: skip
                    wait_s = max(pause_s, failure.retry_after_s)
                else:
                    raise failure
            if self._clock.monotonic() + wait_s >= deadline:
                raise failure
            if pause_s == PAUSE_FIRST_S:
                self._tell(failure)
            self._pause(wait_s)
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    def _send(self, connections: Connections, request: _Request, left_s: float) -> RawAnswer:
        headers = dict(request.headers)
        if connections.target.key:
            headers["Authorization"] = f"Bearer {connections.target.key}"
        return connections.exchange(request.method, request.path, request.body, headers, left_s)

    def _current(self) -> Connections:
        # Others wait while the first one finds, or starts, the server.
        with self._lock:
            if self._connections is None:
                self._connections = self._connect(self._source.target())
            return self._connections

    def _renew(self, stale: Connections) -> bool:
        """Ask anew where the server is; return whether that is elsewhere, or with another key."""
        with self._lock:
            if self._connections is not stale:
                # Another thread was first.
                return True
            target = self._source.renewed(stale.target)
            if target == stale.target:
                return False
            self._connections = self._connect(target)
        stale.close()
        return True


def to_json(value: object) -> bytes:
    """Return a value as JSON text; moments as ISO 8601, numbers of numpy as numbers.

    Raises MalformedBodyError for what JSON does not have.
    """
    try:
        return json.dumps(value, allow_nan=False, default=_plain, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedBodyError(f"{error}") from error


def _plain(value: object) -> object:
    for name in ("isoformat", "item"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _query_text(query: Mapping[str, object] | None) -> str:
    pairs = [(name, _query_value(value)) for name, value in (query or {}).items()
             if value is not None]  # fmt: skip
    return "?" + urlencode(pairs) if pairs else ""


def _query_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat() if callable(isoformat) else value)


def _decoded(answer: RawAnswer) -> Any:  # noqa: ANN401 - JSON
    if not answer.body:
        return None
    try:
        return json.loads(answer.body)
    except ValueError:
        return answer.body.decode("utf-8", "replace")


def _failure(answer: RawAnswer) -> OceanError:
    after = answer.headers.get("retry-after", "")
    return error_of(answer.status, _decoded(answer), int(after) if after.isdigit() else None)
