"""The fast path: requests that bring readings, answered without uvicorn's cycle and Litestar.

Requests whose heads ``ingress.heads`` takes are served here, one at a time per connection and in
order; everything else goes to uvicorn as it came. The two never share a request:

========== ================================= ====================================================
state      bytes that arrive                 what becomes of them
========== ================================= ====================================================
free       a head that is taken, whole body  served: busy
free       a head that is taken, part of it  kept: gathering
free       anything else                     uvicorn's, until it has read and answered a request
gathering  the rest of the body              served: busy
busy       anything                          kept until the answer is written, then looked at
========== ================================= ====================================================

A client that sends ahead is not read from beyond a bound, so that each connection has its turn. The
answers are those of Litestar, byte for byte (a contract test compares), and so are limits,
counters and refusals.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ocean_core.config.settings import ServerSettings
from ocean_core.ingress.admission import Admission
from ocean_core.ingress.answers import Answers
from ocean_core.ingress.heads import END, Form, Head, HeadReader
from ocean_core.ingress.http_protocol import BoundedHttpProtocol
from ocean_core.ingress.reaper import Reaper
from ocean_core.ingress.tally import Tally
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, ListenerInfo, Principal, Scope
from ocean_core.model.errors import (
    InternalError,
    OceanError,
    RateLimitError,
    RequestError,
    RequestTimeoutError,
)
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.access import AccessService
from ocean_core.service.ingest import IngestService
from ocean_core.service.problems import log_refusal
from ocean_core.service.rates import FairShare
from ocean_core.service.singles import SingleReadings

HELD_BYTES_MAX: Final = 64 * 1024
"""What a client may send ahead before it is not read from until its turn comes."""

_PATHS: Final = {
    Form.SINGLE: "/api/ocean/telemetry/ingest",
    Form.BATCH: "/api/ocean/telemetry/batch",
    Form.PARTIAL: "/api/ocean/telemetry/batch",
}
_ROUTES: Final = {form: f"POST {path}" for form, path in _PATHS.items()}


@dataclass(frozen=True, kw_only=True)
class FastServices:
    """What the fast path works with, made by the composition root."""

    ingest: IngestService
    singles: SingleReadings
    access: AccessService
    metrics: MetricsRegistry
    log: EventLog
    bodies: FairShare
    """Shared with the other routes: memory that large bodies may hold together."""
    is_own_host: Callable[[str], bool]


class FastHttpProtocol(BoundedHttpProtocol):
    """One connection. Made through ``fast_protocol``, which sets the class attributes."""

    services: FastServices
    heads: HeadReader
    answers: Answers
    reaper: Reaper
    tally: Tally

    _is_fast = False
    _is_local = False
    _at_home: Principal | None = None
    """Who sends requests without a key here; None: nobody may."""
    _is_busy = False
    _is_watched = False
    _closes = False
    # Of the request being gathered or served.
    _head: Head | None = None
    _principal: Principal = LOCAL
    _started = 0.0
    _reserved = 0
    _missing = 0
    _body_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **named)
        self._gathered = bytearray()
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come that is not answered."""
        return self._head is None and super().is_idle

    # --- what asyncio and uvicorn call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find out who is there (asyncio calls this)."""
        super().connection_made(transport)
        is_loopback = self.address.startswith("127.") or self.address == "::1"
        self._is_local = self.is_trusted and is_loopback
        self._at_home = self.services.access.principal_at_once(None, is_local=self._is_local)
        # Somebody else on the local listener is for the front to judge.
        self._is_fast = not self._is_refused and self._is_local == self.is_trusted

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (asyncio calls this)."""
        self.reaper.forget(self)
        if self._missing:
            size = len(self._gathered)
            self._refuse(RequestError(f"the client hung up after {size} bytes of the body"))
        self._held.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Serve, gather, keep, or pass on (asyncio calls this)."""
        # uvicorn declares it as always there; before its first request it is None.
        cycle: RequestResponseCycle | None = self.cycle
        if self._is_busy:
            self._hold(data)
        elif self._missing:
            self._gather(data)
        elif (
            not self._is_fast
            or self._in_message
            or (cycle is not None and not cycle.response_complete)
        ):
            super().data_received(data)
        elif self.flow.write_paused:
            self._hold(data)
        else:
            self._begin(data)

    def resume_writing(self) -> None:
        """Go on with a client that reads its answers again (asyncio calls this)."""
        super().resume_writing()
        if not self._is_busy:
            self._go_on()

    def shutdown(self) -> None:
        """Close once the request in flight is answered (uvicorn calls this for a clean stop)."""
        if self._head is not None:
            self._closes = True
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """Note the moment from which the connection idles (uvicorn calls this)."""
        self.heard_at = self.clock.monotonic()
        super().on_response_complete()

    # --- a request comes in

    def _begin(self, data: bytes) -> None:
        if self.transport.is_closing():
            # TLS may bring more. It could be the rest of a body that was too slow.
            return
        end = data.find(END) + len(END)
        if end < len(END):
            super().data_received(data)
            return
        block = data[:end]
        head = self.heads.known.get(block) or self.heads.read(block)
        if head is None or not self._lets_in(head):
            super().data_received(data)
            return
        if self._header_timer is not None:
            self._stop_timer()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._head = head
        self._started = self.heard_at = self.clock.monotonic()
        body = data[end:]
        if len(body) == head.length:
            self._serve(body)
        else:
            self._missing = head.length
            self._gather(body)

    def _lets_in(self, head: Head) -> bool:
        """Whether the request is one to serve here; what it needs is taken then.

        Whoever is to be refused is left to the front, which asks the same questions again.
        """
        principal = self._at_home
        if head.is_small and head.authorization is None and principal is LOCAL:
            # Nearly every request: nothing to ask, nothing to take.
            self._principal = principal
            return True
        services = self.services
        if head.authorization is not None:
            principal = services.access.principal_at_once(
                head.authorization, is_local=self._is_local
            )
        if (
            principal is None
            or not principal.may(Scope.INGEST)
            or head.length > self.bounds.body_bytes_max
        ):
            return False
        self._principal = principal
        if head.length > limits.BODY_BYTES_COUNTED_FROM:
            if not services.bodies.reserve(principal.id or self.address, head.length):
                return False
            self._reserved = head.length
        if not self.is_trusted:
            try:
                services.access.check_rate(self.address)
            except RateLimitError:
                self._release()
                return False
        return True

    def _gather(self, data: bytes) -> None:
        """Take a part of the body, perhaps all of it, perhaps more."""
        missing = self._missing
        if len(data) > missing:
            self._hold(data[missing:])
            data = data[:missing]
        missing -= len(data)
        if missing:
            self._missing = missing
            # One buffer: an object for each segment could take many times what is announced.
            self._gathered += data
            if self._body_timer is None:
                self._body_timer = self.loop.call_later(
                    self.bounds.request_timeout_s, self._body_too_slow
                )
            return
        if self._gathered:
            self._gathered += data
            data = bytes(self._gathered)
        self._stop_gathering()
        self._serve(data)

    def _stop_gathering(self) -> None:
        self._missing = 0
        self._gathered = bytearray()
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _body_too_slow(self) -> None:
        self._body_timer = None
        size = len(self._gathered)
        self._refuse(
            RequestTimeoutError(
                f"{size} bytes came within {self.bounds.request_timeout_s} s, then nothing more"
            )
        )

    def _serve(self, body: bytes) -> None:
        head, principal = self._head, self._principal
        assert head is not None
        self._is_busy = True
        if (
            head.is_plain
            and principal.user_id is None
            and principal.rate is None
            and self.services.singles.offer(body, principal, self)
        ):
            return
        task = self.loop.create_task(self._store(head, body, principal))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _store(self, head: Head, body: bytes, principal: Principal) -> None:
        ingest = self.services.ingest
        store = {
            Form.SINGLE: ingest.ingest_single,
            Form.BATCH: ingest.ingest_batch,
            Form.PARTIAL: ingest.ingest_partial,
        }[head.form]
        try:
            answer = await store(body, head.sent, principal, self.address)
        except OceanError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - as Litestar's last handler: answered, and logged
            self.services.log.error(
                "api.internal_error",
                request=_ROUTES[head.form],
                error=repr(error),
                traceback="".join(traceback.format_exception(error)),
            )
            self._refuse(InternalError("an unexpected fault; the log tells more"))
        else:
            self.stored(answer)

    # --- the answer goes out

    def stored(self, answer: bytes) -> None:
        """Write the answer to a request that is durable now."""
        self._finish(200, self.answers.good(answer, closes=self._closes))

    def refused(self, error: OceanError, sensor_id: str) -> None:
        """Write why a reading of this sensor was not stored."""
        self._refuse(error, {sensor_id: 1})

    def _refuse(self, error: OceanError, sensors: Mapping[str, int] | None = None) -> None:
        self.services.ingest.count_refused(error, sensors)
        self._answer_problem(error)

    def _answer_problem(self, error: OceanError) -> None:
        self.services.metrics.add("ocean_errors_total", 1, error.code)
        log_refusal(self.services.log, error, self.address)
        problem = self.answers.problem(error, closes=self._closes)
        self._closes |= problem.closes
        self._finish(problem.status, problem.content)

    def _finish(self, status: int, response: bytes) -> None:
        head = self._head
        assert head is not None
        self.tally.note(_ROUTES[head.form], status, self._started)
        self.heard_at = self.clock.monotonic()
        self._head = None
        self._is_busy = False
        if self._missing:
            self._stop_gathering()
        if self._reserved:
            self._release()
        transport = self.transport
        if transport.is_closing():
            return
        transport.write(response)
        if self._closes:
            self._close()
            return
        if not self._is_watched:
            self._is_watched = True
            self.reaper.watch(self)
        if self._held:
            self._go_on()

    def _release(self) -> None:
        if self._reserved:
            self.services.bodies.release(self._principal.id or self.address, self._reserved)
            self._reserved = 0

    # --- what was sent ahead

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX:
            self.flow.pause_reading()

    def _go_on(self) -> None:
        if self._held and not self.transport.is_closing():
            data = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            self.flow.resume_reading()
            self.data_received(data)


def fast_protocol(
    bounds: ServerSettings,
    clock: Clock,
    refusal: bytes,
    listener: ListenerInfo,
    admission: Admission,
    services: FastServices,
    answers: Answers,
    reaper: Reaper,
    tally: Tally,
) -> type[FastHttpProtocol]:
    """Return the protocol class for the connections of one listener."""
    attributes: dict[str, Any] = {
        "bounds": bounds,
        "clock": clock,
        "refusal": refusal,
        "listener": listener,
        "admission": admission,
        "services": services,
        # Where a key is demanded, the name asked for does not matter; see service.guard.
        "heads": HeadReader(services.is_own_host if listener.trusted else None),
        "answers": answers,
        "reaper": reaper,
        "tally": tally,
    }
    return type("FastServerHttpProtocol", (FastHttpProtocol,), attributes)
