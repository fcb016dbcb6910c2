"""Counts answers of the fast path, many at a time.

A counter and a histogram cost as much per request as decoding it does. What is noted here goes into
the metrics once per turn of the event loop, so that a reader never misses more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ocean_core.obs.clock import Clock
from ocean_core.obs.metrics import MetricsRegistry


class Tally:
    """Notes answers by route and status."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, metrics: MetricsRegistry
    ) -> None:
        self._soon: Callable[[Callable[[], None]], object] = loop.call_soon
        self._clock = clock
        self._metrics = metrics
        self._noted: dict[tuple[str, int], list[float]] = {}

    def note(self, route: str, status: int, started: float) -> None:
        """Note that a request was answered; ``started`` as the clock's monotonic seconds."""
        noted = self._noted.get((route, status))
        if noted is None:
            if not self._noted:
                self._soon(self.flush)
            noted = self._noted[route, status] = []
        noted.append(started)

    def flush(self) -> None:
        """Put what was noted into the metrics."""
        now = self._clock.monotonic()
        noted, self._noted = self._noted, {}
        for (route, status), moments in noted.items():
            self._metrics.add("ocean_requests_total", len(moments), route, str(status))
            self._metrics.add("ocean_ingress_fast_requests_total", len(moments))
            histogram = self._metrics.histogram("ocean_request_duration_seconds", route)
            histogram.observe_all([now - started for started in moments])
