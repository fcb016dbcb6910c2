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
from ocean_core.simulator.audit import Arrival, Audit, Name, arrived, compare, read_shares
from ocean_core.simulator.datagrams import DatagramSender
from ocean_core.simulator.device_network import DeviceNetwork, Locate
from ocean_core.simulator.device_sender import DeviceSender
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.mischief import Mischief
from ocean_core.simulator.network import Network
from ocean_core.simulator.plan import Order, Transport
from ocean_core.simulator.prepare import prepare
from ocean_core.simulator.sender import Run, Sender
from ocean_core.simulator.tally import Share

TICK_S: Final = 1.0
MEET_WITHIN_S: Final = 30.0
AUDIT_WITHIN_S: Final = 900.0

Progress = Callable[[str, bool], object]
"""Gets a line, and whether it is the last."""

AnySender = Sender | DeviceSender | DatagramSender


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
        locate: Locate | None = None,
    ) -> None:
        """``locate`` says where frames go over TCP and UDP."""
        self._order = order
        self._source = source
        self._clock = clock
        self._pause = pause
        self._locate = locate
        self.run_id = random_bytes(4).hex()
        self.prefix = order.prefix if order.prefix is not None else f"sim-{self.run_id}-"
        self.names, self._run = prepare(
            order, self.prefix, self.run_id, clock=clock, random_bytes=random_bytes
        )
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

    def arrival(self) -> Arrival:
        """Compare what was sent without being answered with what the server holds."""
        with self._asking(AUDIT_WITHIN_S) as api:
            after = read_shares(api, self.prefix)
            return arrived(self.names, self._run.tally, self._before, after)

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
        network, sender = self._rim_and_sender(loop)
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

    def _rim_and_sender(
        self, loop: asyncio.AbstractEventLoop
    ) -> tuple[Network | DeviceNetwork, AnySender]:
        run, clock, random = self._run, self._clock, Random(self._order.seed)  # noqa: S311
        if isinstance(run, Run):
            network = Network(
                loop, self._source, self._source.target(), clock, run.figures.unreachable
            )
            return network, Sender(run, network, clock, random)
        assert self._locate is not None
        assert run.order.frames is not None
        devices = DeviceNetwork(loop, self._locate, clock, run.figures.unreachable)
        if run.order.frames.transport is Transport.UDP:
            mischief = Mischief(run.order.faults, random)
            return devices, DatagramSender(run, devices, clock, mischief)
        return devices, DeviceSender(run, devices, clock, random)


@contextlib.contextmanager
def _ending_by_signal(loop: asyncio.AbstractEventLoop, sender: AnySender) -> Iterator[list[int]]:
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
