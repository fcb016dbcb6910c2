"""Accepts connections for TLS and does the handshake before HTTP sees them.

asyncio's own way of doing this counts a connection only after its handshake, holds a quarter of a
megabyte for each that never sends a byte, and says nothing of those that fail. Here a connection
takes its place when it is accepted, gets its buffers when its first byte is there, and what went
wrong is told. Who speaks plain HTTP here is told so in plain HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ocean_core.ingress.http_protocol import BoundedHttpProtocol, plain_address
from ocean_core.obs.log import EventLog

ACCEPTED_AT_ONCE: Final = 4
"""Accepted before others get a turn: each handshake costs up to some milliseconds."""
REFUSED_HANDSHAKES_MAX: Final = 16
"""Clients without a place that are told so at once; the others are cut off."""
PAUSE_S: Final = 1.0
SHUTDOWN_S: Final = 1.0
"""How long a closed connection waits for its client to say goodbye."""
_HANDSHAKE: Final = 0x16
_DISTRUST: Final = frozenset(
    f"{version}_ALERT_{what}"
    for version in ("SSLV3", "TLSV1")
    for what in ("BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA")
)
_PLAIN_BYTES_MAX: Final = 64 * 1024


class ContextSource(Protocol):
    """Has the certificate that counts now."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        ...


@dataclass(frozen=True, slots=True)
class HandshakeRules:
    """How a TLS server treats its clients."""

    timeout_s: float
    plain_answer: bytes
    """The whole HTTP answer to a client that does not speak TLS."""


class TlsServer:
    """One listening socket for TLS. Is closed like an asyncio server."""

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], BoundedHttpProtocol],
        tls: ContextSource,
        rules: HandshakeRules,
        log: EventLog,
    ) -> None:
        self._sock = sock
        self._make_protocol = make_protocol
        self._tls = tls
        self._rules = rules
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._pause: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        """Listen. Raises OSError if another program does so at this address."""
        self._sock.setblocking(False)
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more and end handshakes; connections go on."""
        if self._pause is not None:
            self._pause.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait for the end of handshakes."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._have_pause(error)
                return
            sock.setblocking(False)
            self._receive(sock, plain_address(peer[0]))

    def _have_pause(self, error: OSError) -> None:
        """Try again a moment later: without free descriptors there would be no end of calls."""
        self._log.warning("network.accept_failed", error=error.strerror or str(error))
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(
            PAUSE_S, lambda: self._loop.add_reader(self._sock.fileno(), self._accept)
        )

    def _receive(self, sock: socket.socket, address: str) -> None:
        connection = self._make_protocol()
        is_admitted = connection.reserve(address)
        if not is_admitted:
            self._log.info("network.refused", address=address)
            if self._refused >= REFUSED_HANDSHAKES_MAX:
                sock.close()
                return
        task = self._loop.create_task(self._shake_hands(sock, connection, is_admitted=is_admitted))
        connection.begin_handshake(task.cancel)
        self._refused += not is_admitted
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._refused -= not is_admitted
            connection.end_handshake()
            if not connection.is_connected:
                # Also for a task that was cancelled before it had begun.
                sock.close()

        task.add_done_callback(ended)

    async def _shake_hands(
        self, sock: socket.socket, connection: BoundedHttpProtocol, *, is_admitted: bool
    ) -> None:
        try:
            async with asyncio.timeout(self._rules.timeout_s):
                first = await self._first_byte(sock)
                if first != _HANDSHAKE:
                    self._send_away(sock, connection.address, first)
                    return
                await self._loop.connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=self._tls.context,
                    ssl_handshake_timeout=self._rules.timeout_s,
                    ssl_shutdown_timeout=SHUTDOWN_S,
                )
        except TimeoutError:
            self._tell(connection.address, "the handshake took too long")
        except OSError as error:
            if is_admitted:
                self._tell(connection.address, _reason(error))

    async def _first_byte(self, sock: socket.socket) -> int | None:
        """Return the first byte, which stays to be read; None if the client went away."""
        while True:
            with contextlib.suppress(BlockingIOError):
                return next(iter(sock.recv(1, socket.MSG_PEEK)), None)
            await self._readable(sock)

    async def _readable(self, sock: socket.socket) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(sock.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(sock.fileno())

    def _send_away(self, sock: socket.socket, address: str, first: int | None) -> None:
        if first is None:
            # Port scanners and load balancers do this; it is not worth a line.
            self._log.debug("network.handshake_failed", address=address, reason="said nothing")
            return
        self._tell(address, "does not speak TLS")
        with contextlib.suppress(OSError):
            # Unread, it would make the kernel cut the client off, and throw our answer away.
            sock.recv(_PLAIN_BYTES_MAX)
            if chr(first).isalpha():
                sock.send(self._rules.plain_answer)
            sock.shutdown(socket.SHUT_WR)

    def _tell(self, address: str, reason: str) -> None:
        self._log.info("network.handshake_failed", address=address, reason=reason)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        reason: str = getattr(error, "reason", None) or str(error)
        if reason in _DISTRUST:
            return "the client does not trust our certificate"
        return reason.replace("_", " ").lower()
    if isinstance(error, ConnectionResetError) or error.errno == errno.EPIPE:
        return "the client went away"
    return error.strerror or str(error) or type(error).__name__
