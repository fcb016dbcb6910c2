"""The analytics process's end of the line: makes fresh, answers, tells how it is doing."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from ocean_core.model import limits
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    InternalError,
    OceanError,
    UnknownSensorError,
)
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.mover import Mover
from ocean_core.service.messages import Answer, Query, report_error

FRESH_ENOUGH_S: Final = 0.1
"""How long a query waits for readings acknowledged before it, unless it says wait=true."""


class Engine(Protocol):
    """What answers queries."""

    def answer(self, name: str, params: Mapping[str, object]) -> bytes:
        """Return the answer's JSON, or raise an OceanError or an error of the store."""
        ...


class WatermarkWaiters:
    """Lets queries wait until the mover has passed an id, without holding a thread."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def reached(self, watermark: int) -> None:
        """Wake whoever waits for this id or an earlier one. Called on the loop."""
        still: list[tuple[int, asyncio.Future[None]]] = []
        for wanted, future in self._waiting:
            if wanted > watermark:
                still.append((wanted, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still

    async def wait(self, wanted: int, timeout_s: float) -> bool:
        """Return whether the id was reached in time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            return False
        return True


class Answering:
    """Answers queries on a few threads, each with its own cursor."""

    def __init__(
        self,
        *,
        engine: Engine,
        mover: Mover,
        waiters: WatermarkWaiters,
        threads: ThreadPoolExecutor,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
    ) -> None:
        self._engine = engine
        self._mover = mover
        self._waiters = waiters
        self._threads = threads
        self._clock = clock
        self._log = log
        self._metrics = metrics

    async def answer(self, query: Query) -> Answer:
        """Return the answer to a query; never raises."""
        started = self._clock.monotonic()
        try:
            body = await self._answer_fresh(query)
            return Answer(query.id, body)
        except OceanError as error:
            return Answer(query.id, error=report_error(error))
        except Exception as error:  # noqa: BLE001 - the top of a query: whatever it is, answer
            return Answer(query.id, error=report_error(self._unexpected(query, error)))
        finally:
            self._metrics.add("ocean_queries_processed_total", 1, query.name)
            self._metrics.histogram("ocean_database_query_duration_seconds", query.name).observe(
                self._clock.monotonic() - started
            )

    async def _answer_fresh(self, query: Query) -> bytes:
        progress = self._mover.progress()
        if progress.rebuilding:
            share = 100 * progress.watermark / max(1, progress.rebuild_target)
            raise AnalyticsUnavailableError(
                f"analytics are being rebuilt from the journal, {share:.0f} % done",
                retry_after_s=2,
            )
        self._mover.touch()
        if query.wait:
            await self._catch_up(query.head_id, limits.QUERY_TIMEOUT_S, urgent=True)
        else:
            await self._catch_up(query.head_id, FRESH_ENOUGH_S, urgent=False)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._threads, self._engine.answer, query.name, query.params
            )
        except UnknownSensorError:
            # It may have been acknowledged a moment ago.
            if not await self._catch_up(query.head_id, limits.QUERY_FRESHNESS_WAIT_S, urgent=True):
                raise
            return await loop.run_in_executor(
                self._threads, self._engine.answer, query.name, query.params
            )

    async def _catch_up(self, head_id: int, timeout_s: float, *, urgent: bool) -> bool:
        """Have the mover drain, and wait a little; return whether anything could have changed.

        Under steady load the mover drains every 250 ms anyhow: then only who asks for it waits.
        """
        due_s = self._mover.want(head_id, urgent=urgent)
        if due_s is None or due_s > timeout_s:
            return False
        return await self._waiters.wait(head_id, timeout_s)

    def _unexpected(self, query: Query, error: Exception) -> OceanError:
        self._log.error(
            "analytics.query_failed",
            query=query.name,
            error=repr(error),
            traceback="".join(traceback.format_exception(error)),
        )
        return InternalError(f"the query {query.name} failed unexpectedly; the log tells more")
