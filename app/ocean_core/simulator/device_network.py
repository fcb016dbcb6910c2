"""Real connections for devices: TCP and UDP to wherever the box takes frames by now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.simulator.datagrams import DatagramSender
from ocean_core.simulator.device_channel import DeviceChannel
from ocean_core.simulator.network import CONNECT_WITHIN_S, LOOK_AGAIN_AFTER_S, why_not

Address = tuple[str, int]
Locate = Callable[[], Address]
"""Says where frames go; may read a file. Raises OceanError if nobody takes any."""


class DeviceNetwork:
    """The rim on a running event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        locate: Locate,
        clock: Clock,
        tell: Callable[[str], object],
    ) -> None:
        """``tell`` gets why a connection could not be made."""
        self._loop = loop
        self._locate = locate
        self._clock = clock
        self._tell = tell
        self._address: Address | None = None
        self._looked_at = clock.monotonic()
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Call back after a time."""
        return self._loop.call_later(delay_s, callback)

    def connect(self, channel: DeviceChannel) -> None:
        """Connect a channel, or tell it that it could not be done."""
        self._start(self._connect(channel))

    def open(self, sender: DatagramSender) -> None:
        """Open a socket for datagrams and tell the sender ``opened``."""
        self._start(self._open(sender))

    async def close(self) -> None:
        """End what is still connecting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: asyncio._CoroutineLike[None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, channel: DeviceChannel) -> None:
        try:
            host, port = await self._found()
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._loop.create_connection(lambda: channel, host, port)
        except (OSError, OceanError, TimeoutError) as error:
            self._tell(self._why_not(error))
            channel.not_connected()

    async def _open(self, sender: DatagramSender) -> None:
        try:
            host, port = await self._found()
            await self._loop.create_datagram_endpoint(lambda: sender, remote_addr=(host, port))
        except (OSError, OceanError) as error:
            self._tell(self._why_not(error))

    def _why_not(self, error: Exception) -> str:
        where = (
            "" if isinstance(error, OceanError) or self._address is None else shown(self._address)
        )
        return why_not(error, where)

    async def _found(self) -> Address:
        """Return where frames go: after a restart it may be another port."""
        async with self._lock:
            is_old = self._clock.monotonic() - self._looked_at > LOOK_AGAIN_AFTER_S
            if self._address is None or is_old:
                self._address = await asyncio.to_thread(self._locate)
                self._looked_at = self._clock.monotonic()
            return self._address


def shown(address: Address) -> str:
    """Return an address as it is typed.

    >>> shown(("127.0.0.1", 5678)), shown(("::1", 5678))
    ('127.0.0.1:5678', '[::1]:5678')
    """
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
