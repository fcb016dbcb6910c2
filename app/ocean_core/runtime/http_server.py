"""uvicorn as a part of our process: our sockets, our signals, no ticking while idle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, cast

import uvicorn

from ocean_core.config.settings import Settings
from ocean_core.ingress.admission import Admission
from ocean_core.ingress.answers import Answers
from ocean_core.ingress.fast_http import FastServices, fast_protocol
from ocean_core.ingress.http_protocol import BoundedHttpProtocol, bounded_protocol
from ocean_core.ingress.reaper import Reaper
from ocean_core.ingress.tally import Tally
from ocean_core.ingress.tls_server import HandshakeRules, TlsServer
from ocean_core.model.errors import PortError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.runtime.listeners import Listener

_GRACE_S: Final = 10
_BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True)
class Refusals:
    """Whole HTTP answers to those who are not served at all."""

    full: bytes
    """There is no room."""
    plain: bytes
    """Plain HTTP came where TLS is spoken."""


class HttpServer(uvicorn.Server):
    """A uvicorn server on several listeners, started and stopped by its owner.

    uvicorn's own main loop wakes ten times a second to refresh the Date header, its signal handling
    raises SIGTERM again after a clean stop, and it knows one TLS setting for all its sockets. None
    of that is wanted here.
    """

    def __init__(
        self,
        app: object,
        settings: Settings,
        clock: Clock,
        log: EventLog,
        refusals: Refusals,
        fast: FastServices | None = None,
    ) -> None:
        """``fast``: what readings take the short way with; None: they go to ``app`` too."""
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=BoundedHttpProtocol,
            loop="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=settings.server.keep_alive_s,
            timeout_graceful_shutdown=_GRACE_S,
        )
        super().__init__(config)
        self._settings = settings
        self._clock = clock
        self._log = log
        self._refusals = refusals
        self._fast = fast
        self._reaper: Reaper | None = None
        self._dating: asyncio.Task[None] | None = None

    async def open(self, listeners: Sequence[Listener]) -> None:
        """Listen and answer.

        Raises PortError if another program has begun to listen at one of the addresses.
        """
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.lifespan.startup()
        admission = Admission(
            self._settings.server.connections_max,
            self._settings.network.connections_per_address_max,
            has_local_listener=any(listener.info.trusted for listener in listeners),
        )
        keep_alive_s = self._settings.server.keep_alive_s
        self._reaper = Reaper(asyncio.get_running_loop(), self._clock, keep_alive_s)
        self.servers = []
        try:
            for listener in listeners:
                self.servers.append(await self._add(listener, admission))
        except BaseException:
            for server in self.servers:
                server.close()
            raise
        self.started = True
        self._dating = asyncio.get_running_loop().create_task(self._keep_date())

    async def close(self) -> None:
        """Stop accepting, answer what is in flight, close connections."""
        if self._dating is not None:
            self._dating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._dating
        await self.shutdown()
        if self._reaper is not None:
            self._reaper.close()

    async def _add(self, listener: Listener, admission: Admission) -> asyncio.Server:
        try:
            return await self._listen(listener, self._protocol_maker(listener, admission))
        except OSError as error:
            raise PortError(f"{listener.url}: {error.strerror or error}") from error

    async def _listen(
        self, listener: Listener, make: Callable[[], BoundedHttpProtocol]
    ) -> asyncio.Server:
        if listener.tls is None:
            loop = asyncio.get_running_loop()
            return await loop.create_server(make, sock=listener.socket, backlog=_BACKLOG)
        rules = HandshakeRules(self._settings.server.request_timeout_s, self._refusals.plain)
        server = TlsServer(listener.socket, make, listener.tls, rules, self._log)
        server.start(_BACKLOG)
        # uvicorn only closes it and waits for that.
        return cast("asyncio.Server", server)

    def _protocol_maker(
        self, listener: Listener, admission: Admission
    ) -> Callable[[], BoundedHttpProtocol]:
        protocol: type[BoundedHttpProtocol]
        bounds, full = self._settings.server, self._refusals.full
        if self._fast is None:
            protocol = bounded_protocol(bounds, self._clock, full, listener.info, admission)
        else:
            assert self._reaper is not None
            tally = Tally(asyncio.get_running_loop(), self._clock, self._fast.metrics)
            protocol = fast_protocol(
                bounds, self._clock, full, listener.info, admission,
                self._fast, Answers(self.server_state), self._reaper, tally,
            )  # fmt: skip
        return lambda: protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def _keep_date(self) -> None:
        while True:
            now = formatdate(self._clock.now_us() / 1e6, usegmt=True).encode()
            self.server_state.default_headers = [(b"date", now)]
            await asyncio.sleep(1)
