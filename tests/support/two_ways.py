"""A whole server but for its sockets, with and without the fast path, to compare the two.

Connections are protocol objects with transports that only remember: what comes in, in which pieces
and when, is decided by the test, and the clock stands still.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from ocean_core.api.app import create_app
from ocean_core.api.front import Front
from ocean_core.api.services import Services
from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.buffer.port import BufferState, IngestBuffer
from ocean_core.config.settings import (
    AccessSettings,
    IngestSettings,
    ServerSettings,
    Settings,
)
from ocean_core.ingress.admission import Admission
from ocean_core.ingress.fast_http import FastHttpProtocol, FastServices
from ocean_core.ingress.http_protocol import BoundedHttpProtocol
from ocean_core.ingress.reaper import Reaper
from ocean_core.model.access import ListenerInfo, Principal, Scope
from ocean_core.model.block import Readings
from ocean_core.model.errors import CreditsError
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.http_server import HttpServer, Refusals
from ocean_core.service.access import AccessService
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.guard import HostNames
from ocean_core.service.ingest import IngestService
from ocean_core.service.ledger import RefusalBook
from ocean_core.service.policy import IngestPolicy
from ocean_core.service.rates import FairShare
from ocean_core.service.series_quota import SeriesQuota
from ocean_core.service.singles import SingleReadings
from support.fake_frames import FakeTaker
from support.ingest_bench import MemoryBuffer
from support.journal_kit import START_US, settings_for

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
DATE = b"Thu, 28 May 2026 20:26:40 GMT"
BODY_BYTES_MAX = 20_000
KEYS = {
    "ocean_good_1": Principal("key", "good", "good", frozenset({Scope.INGEST})),
    "ocean_admin_1": Principal("key", "admin", "admin", frozenset({Scope.ADMIN})),
    "ocean_read_1": Principal("key", "read", "read", frozenset({Scope.READ})),
    "ocean_hall_1": Principal("key", "hall", "hall", frozenset({Scope.INGEST}), sensors="hall/*"),
    "ocean_slow_1": Principal("key", "slow", "slow", frozenset({Scope.INGEST}), rate=2),
    "ocean_paid_1": Principal("key", "paid", "paid", frozenset({Scope.INGEST}), user_id="ada"),
    "ocean_brief_1": Principal(
        "key", "brief", "brief", frozenset({Scope.INGEST}), expires_us=START_US + 60_000_000
    ),
}
_QUIET_TURNS = 40


class Keys:
    """A KeySource of fixed keys, which can be revoked."""

    is_loaded = True

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.known = dict(KEYS)
        self.on_change: list[Callable[[], None]] = []
        self.used: list[str] = []

    def principal_of(self, secret: str) -> Principal | None:
        found = self.known.get(secret)
        if found is None:
            return None
        expires_us = found.expires_us
        return None if expires_us is not None and self._clock.now_us() >= expires_us else found

    def note_used(self, key_id: str) -> None:
        self.used.append(key_id)

    def revoke(self, secret: str) -> None:
        del self.known[secret]
        for changed in self.on_change:
            changed()


class Sessions:
    """A SessionSource without sessions."""

    async def authenticate(self, token: str) -> Principal | None:
        del token
        return None


class Purse:
    """Credits for three readings."""

    enforced = True
    left = 3

    def reserve(self, user_id: str, readings: int) -> None:
        if readings > self.left:
            raise CreditsError(f"{user_id} has {self.left} credits, {readings} are needed")
        self.left -= readings

    def release(self, user_id: str, readings: int) -> None:
        """What was reserved here stays spent."""


class WatchedBuffer:
    """A buffer that knows how many wait for it; it fails, or lets wait, when told to."""

    def __init__(self, inner: IngestBuffer) -> None:
        self.inner = inner
        self.failure: Callable[[], Exception] | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.intakes: list[Intake] = []

    @property
    def state(self) -> BufferState:
        return self.inner.state

    @property
    def head_id(self) -> int:
        return self.inner.head_id

    @property
    def newest_arrival_us(self) -> int:
        return self.inner.newest_arrival_us

    async def append(
        self,
        intake: Intake,
        idempotency: IdempotencyKey | None = None,
        owner: Owner | None = None,
    ) -> Receipt:
        self.waiting += 1
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure()
            receipt = await self.inner.append(intake, idempotency, owner)
            self.intakes.append(intake)
            return receipt
        finally:
            self.waiting -= 1

    async def lookup(
        self, idempotency: IdempotencyKey, repeated: Mapping[str, int] | None = None
    ) -> Receipt | None:
        self.waiting += 1
        try:
            return await self.inner.lookup(idempotency, repeated)
        finally:
            self.waiting -= 1


class Decoders(ThreadPoolExecutor):
    """A pool that knows whether it works."""

    def __init__(self) -> None:
        super().__init__(1)
        self.pending = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.pending += 1
        future = super().submit(*arguments, **named)

        def done(_: object) -> None:
            self.pending -= 1

        future.add_done_callback(done)
        return future


class Wire(asyncio.Transport):
    """A transport that remembers what was written; ``unread`` of it the client has not read."""

    def __init__(self, peer: tuple[str, int]) -> None:
        super().__init__({"peername": peer, "sockname": ("127.0.0.1", 8030)})
        self.written = bytearray()
        self.is_closed = False
        self.is_paused = False
        self.was_aborted = False
        self.protocol: BoundedHttpProtocol | None = None
        self._is_lost = False
        self.unread = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closed:
            self.written += data

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if not self.unread:
                asyncio.get_running_loop().call_soon(self.lose, None)

    def abort(self) -> None:
        self.was_aborted = True
        self.is_closed = True
        asyncio.get_running_loop().call_soon(self.lose, None)

    def is_closing(self) -> bool:
        return self.is_closed

    def lose(self, error: Exception | None = None) -> None:
        """Tell the protocol that the connection is gone."""
        self.is_closed = True
        if not self._is_lost and self.protocol is not None:
            self._is_lost = True
            self.protocol.connection_lost(error)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unread


@dataclass(frozen=True, slots=True)
class Said:
    """What a server answered on one connection, and whether it hung up then."""

    content: bytes
    closed: bool


@dataclass
class Line:
    """One connection."""

    box: "Box"
    wire: Wire
    protocol: BoundedHttpProtocol
    unsent: list[bytes] = field(default_factory=list)

    def send(self, data: bytes) -> None:
        """Bring bytes in, unless the server has hung up; they wait while it does not read."""
        self.unsent.append(data)
        self.pump()

    def pump(self) -> None:
        """Bring in what has waited."""
        while self.unsent and not self.wire.is_closed and not self.wire.is_paused:
            self.protocol.data_received(self.unsent.pop(0))

    def take(self) -> Said:
        """Return what was said since the last time."""
        content = bytes(self.wire.written)
        self.wire.written.clear()
        return Said(content, self.wire.is_closed)

    async def ask(self, data: bytes) -> Said:
        """Send, and return what is said to that."""
        self.send(data)
        await self.box.settle()
        return self.take()

    def is_closed(self) -> bool:
        """Whether the server has hung up."""
        return self.wire.is_closed

    def was_aborted(self) -> bool:
        """Whether it did so without waiting for us to read."""
        return self.wire.was_aborted

    def is_waiting(self) -> bool:
        """Whether there is more to send that the server does not read."""
        return self.wire.is_paused and bool(self.unsent)

    def hang_up(self) -> None:
        """Leave, as a client that closes."""
        self.wire.lose()


class Box:
    """The server. Make it with ``open_box``."""

    def __init__(
        self,
        buffer: IngestBuffer,
        *,
        fast: bool,
        clock: ManualClock,
        metrics: MetricsRegistry,
        server: ServerSettings | None = None,
        ingest: IngestSettings | None = None,
        access: AccessSettings | None = None,
        frames: bool = True,
    ) -> None:
        self.fast = fast
        self.clock = clock
        self.metrics = metrics
        self.told = io.StringIO()
        self.log = EventLog(clock, level="debug", stream=self.told)
        self.buffer = WatchedBuffer(buffer)
        self.decoders = Decoders()
        self.keys = Keys(clock)
        self.purse = Purse()
        self.slow_requests: list[str] = []
        settings = Settings(
            server=server or ServerSettings(port=0, body_bytes_max=BODY_BYTES_MAX),
            ingest=ingest or IngestSettings(),
            access=access or AccessSettings(),
        )
        self.settings = settings
        self.bodies = FairShare(1 << 20)
        self.hosts = HostNames()
        self.access = AccessService(settings.access, clock, self.keys, Sessions(), "owner_x")
        self.quota = SeriesQuota(settings.ingest)
        self.refusals = RefusalBook()
        self.taker = FakeTaker()
        self.alarms = AlarmBook(clock, self.log, metrics)
        self.ingest = IngestService(
            self.buffer, clock, metrics, self.alarms, self.quota, IngestPolicy(clock, self.purse),
            self.decoders, body_bytes_max=settings.server.body_bytes_max, refusals=self.refusals,
            frames=self.taker if frames else None,
        )  # fmt: skip
        self.singles = SingleReadings(self.buffer, clock, metrics, self.log, self.quota.knows)
        self.server = self._make_server()
        self._lines: list[Line] = []

    def _make_server(self) -> HttpServer:
        services = SimpleNamespace(
            ingest=self.ingest, metrics=self.metrics, log=self.log, clock=self.clock,
            server=self.settings.server, bodies=self.bodies, alarms=self.alarms,
        )  # fmt: skip
        front = Front(
            create_app(cast("Services", services)), self.access, self.hosts, self.metrics,
            self.log, self.clock, self.ingest,
        )  # fmt: skip

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            self.slow_requests.append(f"{scope['method']} {scope['path']}")
            await front(scope, receive, send)

        fast = FastServices(
            ingest=self.ingest, singles=self.singles, access=self.access, metrics=self.metrics,
            log=self.log, bodies=self.bodies, is_own_host=self.hosts.is_own,
        )  # fmt: skip
        server = HttpServer(
            noted, self.settings, self.clock, self.log, Refusals(full=REFUSAL, plain=b""),
            fast if self.fast else None,
        )  # fmt: skip
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        server.server_state.default_headers = [(b"date", DATE)]
        self.reaper = server._reaper = Reaper(
            asyncio.get_running_loop(), self.clock, self.settings.server.keep_alive_s
        )
        admission = Admission(
            self.settings.server.connections_max,
            self.settings.network.connections_per_address_max,
            has_local_listener=True,
        )
        self._makers = {
            name: server._protocol_maker(
                cast("Any", SimpleNamespace(info=ListenerInfo(name, trusted=name == "local"))),
                admission,
            )
            for name in ("local", "network")
        }
        return server

    def connect(self, listener: str = "local", address: str = "127.0.0.1") -> Line:
        wire = Wire((address, 40_000 + len(self._lines)))
        protocol = self._makers[listener]()
        wire.protocol = protocol
        protocol.connection_made(wire)
        line = Line(self, wire, protocol)
        self._lines.append(line)
        return line

    async def ask(self, data: bytes, listener: str = "local", address: str = "127.0.0.1") -> Said:
        """Send bytes on a connection of its own; return what is said to them."""
        line = self.connect(listener, address)
        said = await line.ask(data)
        line.hang_up()
        return said

    async def settle(self) -> None:
        """Wait until nothing happens any more."""
        quiet = 0
        written = -1
        while quiet < _QUIET_TURNS:
            await asyncio.sleep(0)
            for line in self._lines:
                line.pump()
            now = sum(len(line.wire.written) for line in self._lines)
            waits = self.buffer.waiting and self.buffer.gate.is_set()
            if waits or self.decoders.pending or now != written:
                quiet, written = 0, now
            else:
                quiet += 1
        self._lines = [line for line in self._lines if not line.wire.is_closed]

    def counted(self) -> list[str]:
        """Return what was counted of requests and readings, as it is shown."""
        return [
            line
            for line in self.metrics.render().splitlines()
            if line.startswith(("ocean_requests_", "ocean_request_d", "ocean_errors_",
                                "ocean_telemetry_"))
        ]  # fmt: skip

    def stored(self) -> list[tuple[str, str, int, int, float | bytes]]:
        """Return what was stored, row by row: sensor, metric, moment, quality, content."""
        found: list[tuple[str, str, int, int, float | bytes]] = []
        for intake in self.buffer.intakes:
            for rows in (intake.readings, intake.events):
                if rows is None:
                    continue
                content = rows.value if isinstance(rows, Readings) else rows.payload
                for place, moment, quality, value in zip(
                    rows.series_index, rows.timestamp_us, rows.quality, content, strict=True
                ):
                    kept = value if isinstance(value, bytes) else float(value)
                    found.append((*rows.series[int(place)], int(moment), int(quality), kept))
        return found

    async def close(self) -> None:
        for line in self._lines:
            line.hang_up()
        await asyncio.sleep(0)
        self.reaper.close()
        self.decoders.shutdown()


@asynccontextmanager
async def open_box(folder: Path | None, *, fast: bool, **more: Any) -> AsyncIterator[Box]:
    """Open a server on a fresh journal in an empty folder, or, with None, on a buffer in memory."""
    clock, metrics = ManualClock(START_US), MetricsRegistry(METRICS)
    journal: EmbeddedJournal | None = None
    if folder is not None:
        journal = EmbeddedJournal(settings_for(folder, seed=4, clock=clock, metrics=metrics))
        await journal.open()
    box = Box(journal or MemoryBuffer(), fast=fast, clock=clock, metrics=metrics, **more)
    try:
        yield box
    finally:
        await box.close()
        if journal is not None:
            await journal.close()


def is_fast(line: Line) -> bool:
    """Return whether a connection knows the fast path."""
    return isinstance(line.protocol, FastHttpProtocol)


def play(folder: Path | None, scenario: Callable[[Box], Awaitable[Any]], **more: Any) -> list[Any]:
    """Play a scenario with the fast path and without; return what each came to."""

    async def whole(place: Path | None, *, fast: bool) -> Any:
        async with asyncio.timeout(60), open_box(place, fast=fast, **more) as box:
            return await scenario(box)

    results = []
    for fast in (True, False):
        place = None if folder is None else folder / ("fast" if fast else "slow")
        if place is not None:
            place.mkdir()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results.append(runner.run(whole(place, fast=fast)))
    return results


def request(
    path: str,
    body: bytes | str = b"",
    *headers: str,
    method: str = "POST",
    version: str = "1.1",
    kind: str | None = "application/json",
    length: str | None = "",
    host: str | None = "localhost",
) -> bytes:
    """Return a request; what is None is left out, an empty ``length`` is that of the body."""
    content = body if isinstance(body, bytes) else body.encode()
    lines = [f"{method} {path} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if length is not None:
        lines.append(f"Content-Length: {length or len(content)}")
    lines.extend(headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content
