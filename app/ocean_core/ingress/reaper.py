"""Closes connections that have been idle for long, all of them with one timer.

uvicorn starts a timer after each answer and cancels it with the next request; at a hundred thousand
requests a second that is dear. A sweep now and then does the same, a little less exactly.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from ocean_core.obs.clock import Clock

SWEEPS_PER_TIMEOUT: Final = 8


class Idler(Protocol):
    """A connection as the reaper sees it."""

    heard_at: float

    @property
    def is_idle(self) -> bool:
        """Whether it could be closed without harm."""
        ...

    def give_way(self) -> None:
        """Close."""
        ...


class Reaper:
    """Watches connections; costs nothing while there are none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, keep_alive_s: float) -> None:
        self._loop = loop
        self._clock = clock
        self._keep_alive_s = keep_alive_s
        self._watched: set[Idler] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: Idler) -> None:
        """Close a connection once it has been idle for the time allowed."""
        self._watched.add(connection)
        if self._timer is None:
            self._start()

    def forget(self, connection: Idler) -> None:
        """Watch a connection no longer."""
        self._watched.discard(connection)

    def sweep(self) -> None:
        """Close what has been idle for long; called by the timer."""
        self._timer = None
        oldest = self._clock.monotonic() - self._keep_alive_s
        for connection in [item for item in self._watched if item.heard_at <= oldest]:
            if connection.is_idle:
                self._watched.discard(connection)
                connection.give_way()
        if self._watched:
            self._start()

    def close(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._timer = self._loop.call_later(self._keep_alive_s / SWEEPS_PER_TIMEOUT, self.sweep)
