"""Real connections for the sender: TCP and TLS on the event loop, and where the server is by now."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from ocean_core.client.connection import Target, split_url
from ocean_core.client.http import ServerSource
from ocean_core.client.trust import Trust, context_of
from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.simulator.channel import Channel

CONNECT_WITHIN_S: Final = 10.0
LOOK_AGAIN_AFTER_S: Final = 0.25
_PORTS: Final = {"http": 80, "https": 443}


class Network:
    """The sender's rim on a running event loop. ``target`` is where the server was just met."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: ServerSource,
        target: Target,
        clock: Clock,
        tell: Callable[[str], object],
    ) -> None:
        """``tell`` gets why a connection could not be made."""
        self._loop = loop
        self._source = source
        self._target = target
        self._clock = clock
        self._tell = tell
        self._looked_at = clock.monotonic()
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._contexts: dict[Trust, ssl.SSLContext] = {}

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Call back after a time."""
        return self._loop.call_later(delay_s, callback)

    def connect(self, channel: Channel) -> None:
        """Connect a channel, or tell it that it could not be done."""
        task = self._loop.create_task(self._connect(channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is still connecting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, channel: Channel) -> None:
        where = ""
        try:
            target = await self._locate()
            where = target.url
            parts = split_url(target.url)

            def made() -> Channel:
                channel.greet(target)
                return channel

            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._loop.create_connection(
                    made,
                    parts.hostname or "",
                    parts.port or _PORTS[parts.scheme],
                    ssl=self._context(target.trust) if parts.scheme == "https" else None,
                )
        except (OSError, OceanError, TimeoutError) as error:
            self._tell(why_not(error, where))
            channel.not_connected()

    async def _locate(self) -> Target:
        """Return where the server is: after a restart it may have another port and another key."""
        async with self._lock:
            if self._clock.monotonic() - self._looked_at > LOOK_AGAIN_AFTER_S:
                self._target = await asyncio.to_thread(self._source.renewed, self._target)
                self._looked_at = self._clock.monotonic()
            return self._target

    def _context(self, trust: Trust) -> ssl.SSLContext:
        if trust not in self._contexts:
            self._contexts[trust] = context_of(trust)
        return self._contexts[trust]


def why_not(error: Exception, where: str) -> str:
    """Return why no connection could be made, as one line.

    >>> why_not(ConnectionRefusedError(111, "Connection refused"), "127.0.0.1:5999")
    '127.0.0.1:5999: connection refused'
    """
    if isinstance(error, ConnectionRefusedError):
        text = "connection refused"
    elif isinstance(error, TimeoutError):
        text = f"no connection within {CONNECT_WITHIN_S:g} s"
    else:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = " ".join(text.split()) or type(error).__name__
    return f"{where}: {text}" if where else text
