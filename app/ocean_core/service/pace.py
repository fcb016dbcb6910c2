"""Lets large requests wait a little while analytics fall behind, so that the backlog stays bounded.

Packed blocks can arrive faster than anything could index them on the same two cores. Whoever sends
the next one only after the answer is slowed to what analytics take in; the readings are durable
before the wait begins. Requests of few readings never wait, and nobody does when analytics are away
or build their file anew: then readings are worth more than answers about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

BACKLOG_FREE: Final = 2_000_000
"""Readings that may wait for analytics before anybody is slowed; about a second's worth."""
ROWS_FREE: Final = 100
_PAUSE_PER_ROW_S: Final = 4e-6
"""For each ``BACKLOG_FREE`` of readings beyond it."""
_PAUSE_S_MAX: Final = 0.5


class Pace:
    """Knows how long the answer to a request should wait."""

    def __init__(
        self,
        backlog: Callable[[], int],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """``backlog`` tells how many readings wait for analytics that could take them now."""
        self._backlog = backlog
        self._sleep = sleep

    def pause_s(self, rows: int) -> float:
        """Return how long the answer to a request with so many readings should wait."""
        if rows < ROWS_FREE:
            return 0.0
        excess = self._backlog() - BACKLOG_FREE
        if excess <= 0:
            return 0.0
        return min(_PAUSE_S_MAX, rows * _PAUSE_PER_ROW_S * excess / BACKLOG_FREE)

    async def keep(self, rows: int) -> None:
        """Wait as long as a request with so many readings should."""
        pause_s = self.pause_s(rows)
        if pause_s:
            await self._sleep(pause_s)


NO_PACE: Final = Pace(lambda: 0)
