"""One end of the socket pair between the two processes, for an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from ocean_core.model import limits
from ocean_core.service.messages import LENGTH, Message, pack_message, unpack_message


class Channel(asyncio.Protocol):
    """Sends messages, and hands over each one received, in order.

    ``on_message`` runs on the loop and must not block. ``on_closed`` runs once.
    """

    def __init__(
        self, on_message: Callable[[Message], None], on_closed: Callable[[], None]
    ) -> None:
        self._on_message = on_message
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_closed: Callable[[], None],
    ) -> Channel:
        """Take over a connected Unix socket."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(
            lambda: cls(on_message, on_closed), sock=sock
        )
        return channel

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> None:
        """Send a message; after the other end is gone this does nothing."""
        if self._transport is not None:
            self._transport.write(pack_message(message))

    def close(self) -> None:
        """Close after what was sent is out."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this)."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into messages (asyncio calls this)."""
        received = self._received
        received += data
        start = 0
        while len(received) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(received, start)
            assert size <= limits.IPC_MESSAGE_BYTES_MAX, size
            end = start + LENGTH.size + size
            if len(received) < end:
                break
            message = unpack_message(bytes(received[start + LENGTH.size : end]))
            start = end
            self._on_message(message)
        del received[:start]

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell that the other end is gone (asyncio calls this)."""
        self._transport = None
        self._on_closed()
