"""HTTP connections with bounds: how many, and how long one may say nothing.

uvicorn counts connections too, but at its limit answers 503 on all of them, also on those of
sensors that have been connected for weeks; and it waits for ever for a request to begin or for a
header to end, however long it gets. Here an idle connection gives way to a new one (see
``ingress.admission``), and only when all are busy the new one is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ocean_core.config.settings import ServerSettings
from ocean_core.ingress.admission import Admission
from ocean_core.ingress.upgrades import UpgradeIgnoringParser
from ocean_core.model import limits
from ocean_core.model.access import LISTENER_KEY, WHOLE_KEY, ListenerInfo
from ocean_core.obs.clock import Clock

_TIMED_OUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_MAPPED: Final = "::ffff:"


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Made through ``bounded_protocol``, which sets the class attributes."""

    bounds: ServerSettings
    clock: Clock
    refusal: bytes
    """The whole HTTP answer to a connection for which there is no room."""
    listener: ListenerInfo
    admission: Admission

    address = ""
    heard_at = 0.0
    _is_reserved = False
    _is_refused = False
    _cancel_handshake: Callable[[], object] | None = None
    _header_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _in_header = False
    _in_message = False
    _header_bytes = 0
    """What came while the header now being read was not complete; at least as much as its part."""
    _is_too_large = False

    @property
    def is_trusted(self) -> bool:
        """Whether it came through the local listener."""
        return self.listener.trusted

    @property
    def is_connected(self) -> bool:
        """Whether the TLS handshake, if there is one, is done."""
        # uvicorn declares the transport as always there; before that it is None.
        transport: asyncio.Transport | None = self.transport
        return transport is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come that is not answered."""
        # The same for the cycle: before the first request it is None.
        cycle: RequestResponseCycle | None = self.cycle
        return not self._in_header and (cycle is None or cycle.response_complete)

    def reserve(self, address: str) -> bool:
        """Take a place for a client whose TLS handshake is about to begin.

        Return False if there is none: then it gets its refusal once it can be understood.
        """
        self._is_reserved = True
        return self._enter(address)

    def begin_handshake(self, cancel: Callable[[], object]) -> None:
        """Note how to end the handshake, for the case that this connection has to give way."""
        self._cancel_handshake = cancel

    def end_handshake(self) -> None:
        """Give the place back if the handshake led to nothing."""
        self._cancel_handshake = None
        if not self.is_connected:
            self._leave()

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **named)
        self._offers = UpgradeIgnoringParser(self)
        self.parser = self._offers  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room or refuse (asyncio calls this)."""
        if not self._is_reserved:
            peer = transport.get_extra_info("peername")
            self._enter(plain_address(str(peer[0])) if peer else "")
        if self._is_refused:
            transport.write(self.refusal)
            transport.close()
            self.transport = transport
            return
        self.heard_at = self.clock.monotonic()
        super().connection_made(transport)
        if self.client is not None:
            self.client = (self.address, self.client[1])
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (asyncio calls this)."""
        self._stop_timer()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        self.admission.forget(self)
        if not self._is_refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see whether a header is left unfinished (asyncio calls this)."""
        if self._is_refused:
            return
        self._header_bytes += len(data)
        super().data_received(data)
        if not self._in_header:
            self._header_bytes = 0
        elif self._header_bytes > limits.HEADER_BYTES_MAX and not self.transport.is_closing():
            self._refuse_header()
        if self._in_header or self.is_idle:
            # The second: an empty line came, and uvicorn has ended the timer that it had.
            if self._header_timer is None and not self.transport.is_closing():
                self._start_timer()
        elif self._header_timer is not None:
            self._stop_timer()

    def on_message_begin(self) -> None:
        """Note that a request begins (the parser calls this)."""
        self._in_header = True
        self._in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that its header is complete (the parser calls this)."""
        if self._offers.is_offered:
            # It is parsed once more, see ``ingress.upgrades``.
            return
        if self._header_bytes > limits.HEADER_BYTES_MAX:
            size = sum(len(name) + len(value) for name, value in self.headers)
            if size > limits.HEADER_BYTES_MAX or len(self.headers) > limits.HEADERS_MAX:
                self._is_too_large = True
                # The parser stops, and uvicorn calls send_400_response.
                raise ValueError("the header is too large")
        self._in_header = False
        self.heard_at = self.clock.monotonic()
        self.scope[LISTENER_KEY] = self.listener  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the whole request is there (the parser calls this)."""
        if self._offers.is_offered:
            return
        self._in_message = False
        self.scope[WHOLE_KEY] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request (uvicorn calls this) and close."""
        if self._is_too_large:
            self._refuse_header()
        else:
            super().send_400_response(msg)
            self._watch_reader()

    def on_response_complete(self) -> None:
        """Go on, or see that the connection ends (uvicorn calls this)."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever (asyncio calls this)."""
        super().pause_writing()
        self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close what has been idle for long (uvicorn calls this)."""
        if not self.transport.is_closing():
            self._close()

    def _refuse_header(self) -> None:
        self.transport.write(_TOO_LARGE)
        self._close()

    def give_way(self) -> None:
        """Close, for another connection (admission calls this; it has forgotten this one)."""
        self._leave()
        self._close()

    def shutdown(self) -> None:
        """Close once the request in flight is answered (uvicorn calls this for a clean stop)."""
        if self.is_connected:
            super().shutdown()
        else:
            self._close()

    def _enter(self, address: str) -> bool:
        self.address = address
        self.heard_at = self.clock.monotonic()
        self._is_refused = not self.admission.admit(self)
        if not self._is_refused:
            # Known to uvicorn from here on, so that a stop ends handshakes too.
            self.connections.add(self)
        return not self._is_refused

    def _leave(self) -> None:
        self.admission.forget(self)
        self.connections.discard(self)

    def _close(self) -> None:
        if self.is_connected:
            self.transport.close()
            self._watch_reader()
        elif self._cancel_handshake is not None:
            self._cancel_handshake()

    def _watch_reader(self) -> None:
        if self._reader_timer is None:
            self._look_at_reader(0)

    def _look_at_reader(self, unread_before: int) -> None:
        """Cut off a client that has read nothing of its answers for long.

        It would hold its place for ever, and after a close still a descriptor and memory.
        """
        self._reader_timer = None
        unread = self.transport.get_write_buffer_size()
        if unread_before and unread >= unread_before:
            self.transport.abort()
        elif unread:
            self._reader_timer = self.loop.call_later(
                self.bounds.keep_alive_s, self._look_at_reader, unread
            )

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.bounds.request_timeout_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            if self._in_header:
                self.transport.write(_TIMED_OUT)
            self._close()


def bounded_protocol(
    bounds: ServerSettings,
    clock: Clock,
    refusal: bytes,
    listener: ListenerInfo,
    admission: Admission,
) -> type[BoundedHttpProtocol]:
    """Return the protocol class for the connections of one listener."""
    attributes: dict[str, Any] = {
        "bounds": bounds,
        "clock": clock,
        "refusal": refusal,
        "listener": listener,
        "admission": admission,
    }
    return type("ServerHttpProtocol", (BoundedHttpProtocol,), attributes)


def plain_address(address: str) -> str:
    """Return an address as people write it: an IPv4 client of an IPv6 socket has a prefix."""
    return address.removeprefix(_MAPPED) if "." in address else address
