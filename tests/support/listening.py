"""An HTTP server in this process, with the listeners and limits that a test wants."""

import asyncio
import io
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from ocean_core.config.settings import NetworkSettings, ServerSettings, Settings
from ocean_core.model.access import LISTENER_KEY
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.runtime.certificate import make_self_signed
from ocean_core.runtime.http_server import HttpServer, Refusals
from ocean_core.runtime.listeners import bind_listeners
from ocean_core.runtime.tls import ServerTls, TlsFiles

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
PLAIN = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def make_certificate(folder: Path, *names: str, days: int = 90, now_us: int = 0) -> TlsFiles:
    """Write certificate and key, valid by the clock of tests unless told otherwise."""
    files = TlsFiles(folder / "tls" / "cert.pem", folder / "tls" / "key.pem")
    names = names or ("localhost", "127.0.0.1")
    make_self_signed(files, names, days, now_us or ManualClock().now_us(), replace=True)
    return files


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Trust this certificate alone, at any time: tests have clocks of their own."""
    context = ssl.create_default_context(cafile=files.cert)
    context.verify_flags |= getattr(ssl, "VERIFY_X509_NO_CHECK_TIME", 0x200000)
    return context


class Rig:
    """A server whose application answers 200 when the test lets it."""

    def __init__(
        self,
        connections_max: int = 9,
        *,
        per_address_max: int = 9,
        network: bool = False,
        files: TlsFiles | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.told = io.StringIO()
        log = EventLog(self.clock, level="debug", stream=self.told)
        settings = Settings(
            server=ServerSettings(port=0, connections_max=connections_max, request_timeout_s=1),
            network=NetworkSettings(
                host="127.0.0.1" if network or files else "",
                port=0,
                connections_per_address_max=per_address_max,
            ),
        )
        self.tls = None if files is None else ServerTls(files, self.clock, log)
        self.listeners = bind_listeners(settings, self.tls)
        self.ports = [listener.socket.getsockname()[1] for listener in self.listeners]
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.scopes: list[dict[str, Any]] = []
        refusals = Refusals(full=REFUSAL, plain=PLAIN)
        self.server = HttpServer(self.app, settings, self.clock, log, refusals, None)

    async def app(self, scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        self.scopes.append(scope)
        await self.open_gate.wait()
        body = scope[LISTENER_KEY].name.encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def connect(
        self, listener: int = 0, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1"
    ) -> Connection:
        return await asyncio.open_connection(
            "127.0.0.1", self.ports[listener], ssl=tls, local_addr=(source, 0)
        )

    async def all_busy(self, count: int) -> None:
        """Wait until this many requests are being answered."""
        while len(self.server.server_state.tasks) < count:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)

    async def counted(self, count: int) -> None:
        """Wait until the server holds this many connections."""
        while len(self.server.server_state.connections) != count:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)


def run(scenario: Callable[[Rig], Awaitable[None]], **options: Any) -> Rig:
    """Play a scenario on the event loop that the product uses."""

    async def whole() -> Rig:
        rig = Rig(**options)
        await rig.server.open(rig.listeners)
        try:
            async with asyncio.timeout(30):
                await scenario(rig)
        finally:
            rig.open_gate.set()
            await rig.server.close()
        return rig

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


async def ask(connection: Connection) -> bytes:
    """Send a request; return the status of the answer."""
    reader, writer = connection
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return head.split(b" ")[1]


async def hang_up(*connections: Connection) -> None:
    for _, writer in connections:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            # The server closed first.
            continue


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
