"""One run from begin to end: look for the server, send, wait for the last answer, audit."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import uvloop

from ocean_core.client.http import ApiClient, ServerSource
from ocean_core.model.errors import ForbiddenError
from ocean_core.obs.clock import Clock
from ocean_core.simulator.audit import Audit, Name, compare, read_shares
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.fleet import Fleet
from ocean_core.simulator.network import Network
from ocean_core.simulator.parcels import Parcels
from ocean_core.simulator.plan import Order, sensor_names, timing_of
from ocean_core.simulator.sender import Run, Sender
from ocean_core.simulator.tally import Share, Tally

TICK_S: Final = 1.0
MEET_WITHIN_S: Final = 30.0
AUDIT_WITHIN_S: Final = 900.0

Progress = Callable[[str, bool], object]
"""Gets a line, and whether it is the last."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of sending. ``interrupted``: somebody ended it early."""

    figures: Figures
    unresolved: int
    interrupted: bool
    gave_up: bool


class Simulation:
    """A run against one server."""

    def __init__(
        self,
        order: Order,
        source: ServerSource,
        *,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._order = order
        self._source = source
        self._clock = clock
        self._pause = pause
        self.run_id = random_bytes(4).hex()
        self.prefix = order.prefix if order.prefix is not None else f"sim-{self.run_id}-"
        sensors = sensor_names(self.prefix, order.sensors)
        now_us = clock.now_us()
        timing = timing_of(order, now_us)
        fleet = Fleet(
            sensors, order.metrics, seed=order.seed, faults=order.faults, timing=timing,
            now_us=now_us,
        )  # fmt: skip
        self.names: list[Name] = list(zip(fleet.sensor_ids, fleet.metrics, strict=True))
        self._run = Run(
            order, timing, self.run_id, Parcels(order, fleet, timing), Tally(len(self.names)),
            Figures(),
        )  # fmt: skip
        self._before: dict[Name, Share] = {}

    def meet(self, *, verify: bool) -> None:
        """See that the server answers and, to compare with later, what it already holds.

        Raises OceanError: it is not there, or the key is not valid or does not allow to ask.
        """
        with self._asking(MEET_WITHIN_S) as api:
            # A key that may only send is as good as any; one that is not valid is told here.
            with contextlib.suppress(ForbiddenError):
                api.call("GET", "/api/ocean/status")
            if verify:
                self._before = read_shares(api, self.prefix)

    def send(self, progress: Progress) -> Outcome:
        """Send until it is over; ``progress`` gets a line each second. Ctrl-C ends it early."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._send(progress))

    def audit(self) -> Audit:
        """Compare what was acknowledged with what the server holds. Raises OceanError."""
        with self._asking(AUDIT_WITHIN_S) as api:
            return compare(self.names, self._run.tally, self._before, read_shares(api, self.prefix))

    @contextlib.contextmanager
    def _asking(self, within_s: float) -> Iterator[ApiClient]:
        api = ApiClient(self._source, timeout_s=within_s, clock=self._clock, pause=self._pause)
        try:
            yield api
        finally:
            api.close()

    async def _send(self, progress: Progress) -> Outcome:
        order, figures = self._order, self._run.figures
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        network = Network(loop, self._source, self._source.target(), self._clock)
        sender = Sender(self._run, network, self._clock, Random(order.seed))  # noqa: S311
        sender.on_done = done.set
        with _ending_by_signal(loop, sender) as interrupted:
            sender.begin()
            if order.seconds is not None:
                loop.call_later(order.seconds, sender.end)
            shown_at, shown = figures.began_s, 0
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await done.wait()
                sender.look(order.give_up_s)
                now = self._clock.monotonic()
                # The last line has the average: its own second may be a moment.
                fresh = (figures.acknowledged_readings - shown) / (now - shown_at)
                per_second = figures.per_second if done.is_set() else fresh
                progress(figures.progress(now - figures.began_s, per_second), done.is_set())
                shown_at, shown = now, figures.acknowledged_readings
        sender.close()
        await network.close()
        return Outcome(
            figures, self._run.tally.unresolved_readings, bool(interrupted), sender.given_up
        )


@contextlib.contextmanager
def _ending_by_signal(loop: asyncio.AbstractEventLoop, sender: Sender) -> Iterator[list[int]]:
    """End at the first Ctrl-C or SIGTERM, and give up at the second; gives those that came."""
    came: list[int] = []

    def interrupt(number: int) -> None:
        came.append(number)
        if len(came) == 1:
            sender.end()
        else:
            sender.give_up()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield came
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
