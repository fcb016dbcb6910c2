"""uvicorn as a part of our process: our socket, our signals, no ticking while idle."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from email.utils import formatdate
from typing import Final

import uvicorn

from ocean_core.config.settings import ServerSettings
from ocean_core.ingress.http_protocol import bounded_protocol
from ocean_core.model.errors import PortError
from ocean_core.obs.clock import Clock

_GRACE_S: Final = 10
_BACKLOG: Final = 2048


def bind_socket(settings: ServerSettings) -> socket.socket:
    """Bind the listening socket, not yet listening.

    Raises PortError if the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise PortError(f"{settings.host}:{settings.port}: {error.strerror or error}") from error
    sock.set_inheritable(False)
    return sock


def socket_url(sock: socket.socket) -> str:
    """Return the address a client on this machine uses."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """A uvicorn server that is started and stopped by its owner.

    uvicorn's own main loop wakes ten times a second to refresh the Date header, and its signal
    handling raises SIGTERM again after a clean stop. Neither is wanted here.
    """

    def __init__(
        self, app: object, settings: ServerSettings, clock: Clock, *, refusal: bytes
    ) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=bounded_protocol(settings, clock, refusal),
            loop="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
            backlog=_BACKLOG,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=_GRACE_S,
        )
        super().__init__(config)
        self._clock = clock
        self._dating: asyncio.Task[None] | None = None

    async def open(self, sock: socket.socket) -> None:
        """Listen and answer."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[sock])
        self._dating = asyncio.get_running_loop().create_task(self._keep_date())

    async def close(self) -> None:
        """Stop accepting, answer what is in flight, close connections."""
        if self._dating is not None:
            self._dating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._dating
        await self.shutdown()

    async def _keep_date(self) -> None:
        while True:
            now = formatdate(self._clock.now_us() / 1e6, usegmt=True).encode()
            self.server_state.default_headers = [(b"date", now)]
            await asyncio.sleep(1)
