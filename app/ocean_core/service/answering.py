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
    QueriesFullError,
    QueryTimeoutError,
    UnknownSensorError,
)
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.mover import Mover
from ocean_core.service.messages import Answer, Query, report_error

FRESH_ENOUGH_S: Final = 0.1
"""How long a query waits for readings acknowledged before it, unless it says wait=true."""
NAMES_WAIT_S: Final = 5.0
"""How long a query waits for sensors to be renamed or forgotten as the rules say."""


class Engine(Protocol):
    """What answers queries."""

    def answer(
        self, name: str, params: Mapping[str, object], *, timeout_s: float | None = None
    ) -> bytes:
        """Return the answer's JSON, or raise an OceanError or an error of the store."""
        ...

    def interrupt_all(self) -> None:
        """End what runs, refuse what comes."""
        ...


class WatermarkWaiters:
    """Lets queries wait until the mover has passed an id, without holding a thread."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        self._given_up = False

    def reached(self, watermark: int) -> None:
        """Wake whoever waits for this id or an earlier one. Called on the loop."""
        still: list[tuple[int, asyncio.Future[bool]]] = []
        for wanted, future in self._waiting:
            if wanted > watermark:
                still.append((wanted, future))
            elif not future.done():
                future.set_result(True)
        self._waiting = still

    def give_up(self) -> None:
        """Wake everybody: nothing more will be reached."""
        self._given_up = True
        for _, future in self._waiting:
            if not future.done():
                future.set_result(False)
        self._waiting = []

    async def wait(self, wanted: int, timeout_s: float) -> bool:
        """Return whether the id was reached in time."""
        if self._given_up:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            return False


class Answering:
    """Answers queries on a few threads, each with its own cursor.

    The time limit counts from a query's arrival: for its waiting, its place in the queue, and its
    statements together. Whoever asked has given up a little later.
    """

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
        query_timeout_s: float,
    ) -> None:
        self._engine = engine
        self._mover = mover
        self._waiters = waiters
        self._threads = threads
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._timeout_s = query_timeout_s
        self._open = 0
        self._stopping = False
        self._names_settled = asyncio.Event()
        self._names_settled.set()

    def names_changing(self) -> None:
        """Hold questions up: rules about names have come that are not followed yet."""
        self._names_settled.clear()

    def names_settled(self) -> None:
        """Let questions through: names are as the last rules say."""
        self._names_settled.set()

    def stop(self) -> None:
        """End what runs and what waits; refuse what comes."""
        self._stopping = True
        self._names_settled.set()
        self._waiters.give_up()
        self._engine.interrupt_all()

    async def answer(self, query: Query) -> Answer:
        """Return the answer to a query; never raises."""
        started = self._clock.monotonic()
        self._open += 1
        try:
            if self._open > limits.QUERIES_WAITING_MAX:
                raise QueriesFullError(f"{self._open - 1} queries are waiting", retry_after_s=1)
            body = await self._answer_fresh(query, started + self._timeout_s)
            return Answer(query.id, body)
        except OceanError as error:
            return Answer(query.id, error=report_error(error))
        except Exception as error:  # noqa: BLE001 - the top of a query: whatever it is, answer
            return Answer(query.id, error=report_error(self._unexpected(query, error)))
        finally:
            self._open -= 1
            self._metrics.add("ocean_queries_processed_total", 1, query.name)
            self._metrics.histogram("ocean_database_query_duration_seconds", query.name).observe(
                self._clock.monotonic() - started
            )

    async def _answer_fresh(self, query: Query, deadline: float) -> bytes:
        progress = self._mover.progress()
        if progress.rebuilding:
            share = 100 * progress.watermark / max(1, progress.rebuild_target)
            raise AnalyticsUnavailableError(
                f"analytics are being rebuilt from the journal, {share:.0f} % done",
                retry_after_s=2,
            )
        self._mover.touch()
        await self._await_names(deadline)
        if query.wait:
            await self._catch_up(query.head_id, self._left(deadline), urgent=True)
            watermark = self._mover.progress().watermark
            if watermark < query.head_id:
                raise AnalyticsUnavailableError(
                    f"analytics have reached id {watermark}, not yet {query.head_id}",
                    retry_after_s=1,
                )
        else:
            await self._catch_up(query.head_id, FRESH_ENOUGH_S, urgent=False)
        try:
            return await self._execute(query, deadline)
        except UnknownSensorError:
            # It may have been acknowledged a moment ago.
            wait_s = min(limits.QUERY_FRESHNESS_WAIT_S, self._left(deadline))
            if not await self._catch_up(query.head_id, wait_s, urgent=True):
                raise
            return await self._execute(query, deadline)

    async def _await_names(self, deadline: float) -> None:
        """What was forgotten must not show once more after a restart."""
        if self._names_settled.is_set():
            return
        try:
            async with asyncio.timeout(min(NAMES_WAIT_S, self._left(deadline))):
                await self._names_settled.wait()
        except TimeoutError as error:
            raise AnalyticsUnavailableError(
                "sensors are being renamed or forgotten", retry_after_s=1
            ) from error

    async def _execute(self, query: Query, deadline: float) -> bytes:
        if self._stopping:
            raise AnalyticsUnavailableError("analytics are stopping", retry_after_s=1)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._run, query, deadline)

    def _run(self, query: Query, deadline: float) -> bytes:
        """Answer, on one of the threads; not if that took too long to begin."""
        left_s = self._left(deadline)
        if left_s <= 0:
            raise QueryTimeoutError(f"no answer within {self._timeout_s:g} s")
        return self._engine.answer(query.name, query.params, timeout_s=left_s)

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock.monotonic())

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
