"""Answers in the analytics process: fresh when asked, honest while rebuilding, never an exception."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from ocean_core.model import limits
from ocean_core.model.errors import AnalyticsUnavailableError, QueryError, UnknownSensorError
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.mover import Mover, Progress
from ocean_core.service.answering import Answering, WatermarkWaiters
from ocean_core.service.messages import Answer, Query


class StillMover:
    """A mover that drains when the test says so."""

    def __init__(self) -> None:
        self.watermark = 0
        self.rebuilding = False
        self.due_s = 0.0
        self.wanted: list[tuple[int, bool]] = []
        self.on_want: Callable[[], None] = lambda: None

    def progress(self) -> Progress:
        return Progress(self.watermark, 100, self.rebuilding, 200)

    def touch(self) -> None:
        return

    def want(self, reading_id: int, *, urgent: bool) -> float | None:
        if self.watermark >= reading_id:
            return None
        self.wanted.append((reading_id, urgent))
        self.on_want()
        return 0.0 if urgent else self.due_s


class Engine:
    """Knows a sensor once the mover has passed id 5."""

    def __init__(self, mover: StillMover) -> None:
        self.mover = mover
        self.error: Exception | None = None
        self.given_s: list[float | None] = []
        self.blocked: threading.Event | None = None
        self.begun = threading.Event()

    def interrupt_all(self) -> None:
        self.error = AnalyticsUnavailableError("interrupted")
        if self.blocked is not None:
            self.blocked.set()

    def answer(
        self, name: str, params: Mapping[str, object], *, timeout_s: float | None = None
    ) -> bytes:
        self.given_s.append(timeout_s)
        if self.blocked is not None:
            self.begun.set()
            assert self.blocked.wait(20)
        if self.error is not None:
            raise self.error
        if self.mover.watermark < 5:
            raise UnknownSensorError(f"{name} {params}")
        return b"{}"


class Rig:
    def __init__(self, threads: ThreadPoolExecutor, timeout_s: float = 30) -> None:
        self.clock = clock = ManualClock()
        self.stream = io.StringIO()
        self.mover = StillMover()
        self.engine = Engine(self.mover)
        self.waiters = WatermarkWaiters()
        self.metrics = MetricsRegistry(METRICS)
        self.answering = Answering(
            engine=self.engine,
            mover=cast("Mover", self.mover),
            waiters=self.waiters,
            threads=threads,
            clock=clock,
            log=EventLog(clock, stream=self.stream),
            metrics=self.metrics,
            query_timeout_s=timeout_s,
        )

    def drain_when_wanted(self) -> None:
        def drain() -> None:
            self.mover.watermark = 10
            asyncio.get_running_loop().call_soon(self.waiters.reached, 10)

        self.mover.on_want = drain

    async def ask(self, *, wait: bool = False) -> Answer:
        async with asyncio.timeout(20):
            return await self.answering.answer(Query(7, "stats", {}, 10, wait))


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_a_query_sees_what_was_acknowledged_before_it(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.drain_when_wanted()
    assert asyncio.run(rig.ask()) == Answer(7, b"{}")
    assert rig.mover.wanted == [(10, False)]
    assert rig.metrics.value("ocean_queries_processed_total", "stats") == 1


def test_under_steady_load_a_query_does_not_wait_for_the_next_drain(
    threads: ThreadPoolExecutor,
) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 9
    rig.mover.due_s = 0.2
    assert asyncio.run(rig.ask()).error is None
    assert rig.mover.wanted == [(10, False)]


def test_wait_true_has_it_drained_at_once(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 9
    rig.drain_when_wanted()
    assert asyncio.run(rig.ask(wait=True)).error is None
    assert rig.mover.wanted == [(10, True)]


def test_wait_true_does_not_pass_off_old_answers_as_new(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads, timeout_s=0.02)
    rig.mover.watermark = 9
    error = asyncio.run(rig.ask(wait=True)).error
    assert error is not None
    assert (error.code, error.retry_after_s) == ("OC-5006", 1)
    assert "9" in error.detail
    assert "10" in error.detail
    assert rig.engine.given_s == []


def test_waiting_counts_towards_the_time_limit(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 9
    rig.drain_when_wanted()
    drain = rig.mover.on_want

    def drain_slowly() -> None:
        rig.clock.advance(12)
        drain()

    rig.mover.on_want = drain_slowly
    assert asyncio.run(rig.ask(wait=True)).error is None
    assert rig.engine.given_s == [18]


def test_a_query_that_nobody_waits_for_any_more_is_not_executed(
    threads: ThreadPoolExecutor,
) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 10
    rig.engine.blocked = threading.Event()

    async def scenario() -> list[Answer]:
        first = asyncio.create_task(rig.ask())
        await asyncio.to_thread(rig.engine.begun.wait, 20)
        second = asyncio.create_task(rig.ask())
        await asyncio.sleep(0)
        rig.clock.advance(31)
        assert rig.engine.blocked is not None
        rig.engine.blocked.set()
        return [await first, await second]

    first, second = asyncio.run(scenario())
    assert first.error is None
    assert second.error is not None
    assert second.error.code == "OC-5005"
    assert len(rig.engine.given_s) == 1


def test_the_queue_is_bounded(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 10
    rig.engine.blocked = threading.Event()

    async def scenario() -> list[Answer]:
        waiting = [asyncio.create_task(rig.ask()) for _ in range(limits.QUERIES_WAITING_MAX)]
        await asyncio.sleep(0)
        refused = await rig.ask()
        assert rig.engine.blocked is not None
        rig.engine.blocked.set()
        return [refused, *await asyncio.gather(*waiting), await rig.ask()]

    refused, *answered = asyncio.run(scenario())
    assert refused.error is not None
    assert (refused.error.code, refused.error.retry_after_s) == ("OC-5007", 1)
    assert all(answer.error is None for answer in answered)


def test_a_stop_ends_what_waits_and_what_runs(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 10
    rig.engine.blocked = threading.Event()

    async def scenario() -> list[Answer]:
        running = asyncio.create_task(rig.ask())
        await asyncio.to_thread(rig.engine.begun.wait, 20)
        rig.mover.watermark = 9
        waiting = asyncio.create_task(rig.ask(wait=True))
        await asyncio.sleep(0)
        rig.answering.stop()
        return [await running, await waiting, await rig.ask(wait=True), await rig.ask()]

    for answer in asyncio.run(scenario()):
        assert answer.error is not None
        assert answer.error.code == "OC-5006"
    assert len(rig.engine.given_s) == 1
    assert rig.stream.getvalue() == "", "a stop is no fault"


def test_nobody_is_called_unknown_before_the_mover_has_caught_up(
    threads: ThreadPoolExecutor,
) -> None:
    rig = Rig(threads)
    rig.mover.due_s = 0.2

    def drain_if_urgent() -> None:
        if rig.mover.wanted[-1][1]:
            rig.mover.watermark = 10
            asyncio.get_running_loop().call_soon(rig.waiters.reached, 10)

    rig.mover.on_want = drain_if_urgent
    assert asyncio.run(rig.ask()).error is None
    assert rig.mover.wanted == [(10, False), (10, True)]


def test_while_rebuilding_the_answer_tells_the_progress(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.mover.rebuilding = True
    rig.mover.watermark = 50
    error = asyncio.run(rig.ask()).error
    assert error is not None
    assert (error.code, error.retry_after_s) == ("OC-5006", 2)
    assert "25 %" in error.detail


def test_errors_travel_and_faults_are_logged(threads: ThreadPoolExecutor) -> None:
    rig = Rig(threads)
    rig.mover.watermark = 10
    rig.engine.error = QueryError("bad parameter")
    error = asyncio.run(rig.ask()).error
    assert error is not None
    assert error.code == "OC-5001"
    rig.engine.error = ZeroDivisionError("ours")
    error = asyncio.run(rig.ask()).error
    assert error is not None
    assert error.code == "OC-9001"
    assert "ZeroDivisionError" in rig.stream.getvalue()


def test_waiters_wake_in_any_order_and_give_up_in_time() -> None:
    async def scenario() -> None:
        waiters = WatermarkWaiters()
        one = asyncio.create_task(waiters.wait(5, 20))
        two = asyncio.create_task(waiters.wait(9, 20))
        await asyncio.sleep(0)
        waiters.reached(5)
        assert await one
        assert not two.done()
        waiters.reached(9)
        assert await two
        assert not await waiters.wait(10, 0.001)
        waiters.reached(10)

    asyncio.run(scenario())
