"""HTTP connections with bounds: how many, and how long one may say nothing.

uvicorn counts connections too, but at its limit answers 503 on all of them, also on those of
sensors that have been connected for weeks; and it waits for ever for a request to begin or for a
header to end. Here an idle connection gives way to a new one, the longest idle first, and only
when all are busy the new one is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ocean_core.config.settings import ServerSettings
from ocean_core.obs.clock import Clock

_TIMED_OUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Made through ``bounded_protocol``, which sets the class attributes."""

    bounds: ServerSettings
    clock: Clock
    refusal: bytes
    """The whole HTTP answer to a connection for which there is no room."""

    _is_refused = False
    _header_timer: asyncio.TimerHandle | None = None
    _in_header = False
    _has_begun = False
    _heard_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come that is not answered."""
        # uvicorn declares the cycle as always there; before the first request it is None.
        cycle: RequestResponseCycle | None = self.cycle
        return not self._in_header and (cycle is None or cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room or refuse (asyncio calls this)."""
        if len(self.connections) >= self.bounds.connections_max and not self._make_room():
            transport.write(self.refusal)
            transport.close()
            self.transport = transport
            self._is_refused = True
            return
        self._heard_at = self.clock.monotonic()
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (asyncio calls this)."""
        self._stop_timer()
        if not self._is_refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see whether a header is left unfinished (asyncio calls this)."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._in_header:
            if self._header_timer is None and not self.transport.is_closing():
                self._start_timer()
        elif self._header_timer is not None:
            self._stop_timer()

    def on_message_begin(self) -> None:
        """Note that a request begins (the parser calls this)."""
        self._in_header = True
        self._has_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that its header is complete (the parser calls this)."""
        self._in_header = False
        self._heard_at = self.clock.monotonic()
        super().on_headers_complete()

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; return whether there was one."""
        idle: BoundedHttpProtocol | None = None
        for other in self.connections:
            assert isinstance(other, BoundedHttpProtocol)
            if other.is_idle and (idle is None or other._heard_at < idle._heard_at):
                idle = other
        if idle is None:
            return False
        # Out of the count at once; its transport closes in the next turn of the loop.
        self.connections.discard(idle)
        idle.transport.close()
        return True

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.bounds.request_timeout_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            if self._has_begun:
                self.transport.write(_TIMED_OUT)
            self.transport.close()


def bounded_protocol(
    bounds: ServerSettings, clock: Clock, refusal: bytes
) -> type[BoundedHttpProtocol]:
    """Return the protocol class for a server, as uvicorn's ``http`` option wants it."""
    attributes: dict[str, Any] = {"bounds": bounds, "clock": clock, "refusal": refusal}
    return type("ServerHttpProtocol", (BoundedHttpProtocol,), attributes)
