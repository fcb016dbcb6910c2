"""Deals frames out to the connections of devices, and keeps the books.

A frame stays with its connection until it is acknowledged or refused. As everywhere in the
simulator, nothing here waits or reads a clock by itself: the rim does, so that tests can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from ocean_core.obs.clock import Clock
from ocean_core.simulator.bursts import Burst, Bursts, Letter
from ocean_core.simulator.device_channel import IN_FLIGHT_FRAMES_MAX, DeviceChannel
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.mischief import Mischief
from ocean_core.simulator.plan import Order, Timing
from ocean_core.simulator.sender import HOPELESS_REQUESTS, PAUSE_FIRST_S, PAUSE_MAX_S, TICK_S
from ocean_core.simulator.tally import Tally

# A silent device has nothing to send for a while, however much is made for the others.
_MADE_IN_VAIN_MAX: Final = 4
_SILENT_S: Final = 0.05
_IN_FLIGHT_ALL: Final = 32_768
_AHEAD_US: Final = 250_000


class Rim(Protocol):
    """What the sender needs of the world."""

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Call back after a time."""
        ...

    def connect(self, channel: DeviceChannel) -> None:
        """Connect, and tell the channel: ``connection_made``, or ``not_connected``."""
        ...


@dataclass(slots=True)
class DeviceRun:
    """What one run of devices consists of."""

    order: Order
    timing: Timing
    bursts: Bursts
    tally: Tally
    figures: Figures


class DeviceSender:
    """The desk of the devices' connections."""

    def __init__(self, run: DeviceRun, rim: Rim, clock: Clock, random: Random) -> None:
        self._run = run
        self._rim = rim
        self._clock = clock
        self._random = random
        self._bursts = run.bursts
        self._tally = run.tally
        self._channels: list[DeviceChannel] = []
        self._called: set[int] = set()
        self._began_us = 0
        self._ended_s = 0.0
        self._unforeseen = 0
        self.figures = run.figures
        self.mischief = Mischief(run.order.faults, random)
        # What is under way on all connections together, a box should answer within seconds.
        share = _IN_FLIGHT_ALL // run.order.connections_used
        self.window = max(1, min(IN_FLIGHT_FRAMES_MAX, share))
        self.is_ending = False
        self.given_up = False
        self.last_answer_s = 0.0
        self.on_done: Callable[[], object] = lambda: None

    def begin(self) -> None:
        """Connect all channels, and send from then on."""
        self.last_answer_s = self._clock.monotonic()
        self.figures.began_s = self.figures.last_answer_s = self.last_answer_s
        self._channels = [
            DeviceChannel(self, self._clock, number)
            for number in range(self._run.order.connections_used)
        ]
        for channel in self._channels:
            self._rim.connect(channel)

    def end(self) -> None:
        """Send nothing new; what is under way goes on until it is answered."""
        if not self.is_ending:
            self.is_ending = True
            self._ended_s = self._clock.monotonic()
        self._tell_if_done()

    def give_up(self) -> None:
        """End at once; what was not answered is left open."""
        self.is_ending = self.given_up = True
        for channel in self._channels:
            channel.abandon()
        self._tally.settle()
        self.on_done()

    def close(self) -> None:
        """Close all connections."""
        for channel in self._channels:
            channel.close()

    def look(self, give_up_s: float) -> None:
        """Connect anew where no answer comes, and give up what takes too long; once a second."""
        now = self._clock.monotonic()
        for channel in self._channels:
            channel.lose_patience(now)
        is_waiting = any(channel.is_busy for channel in self._channels)
        is_alone = not any(channel.is_connected for channel in self._channels)
        last_s = self._ended_s if self.is_ending else self.last_answer_s
        if now - last_s > give_up_s and (is_waiting or is_alone or self.is_ending):
            self.give_up()

    @property
    def is_done(self) -> bool:
        """Whether nothing new comes and everything is answered."""
        return self.is_ending and not any(channel.is_busy for channel in self._channels)

    @property
    def is_hopeless(self) -> bool:
        """Whether only refusals came, and enough of them; not those of clocks that are wrong."""
        return not self.figures.acknowledged_requests and self._unforeseen >= HOPELESS_REQUESTS

    # --- what channels ask and tell

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Call back after a time."""
        return self._rim.later(delay_s, callback)

    def connect(self, channel: DeviceChannel) -> None:
        """Connect a channel."""
        self._rim.connect(channel)

    def pause_s(self, failures: int, at_least_s: float = 0.0) -> float:
        """Return how long to wait after so many failures; never the same for all channels."""
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * (1 << min(failures, 10)))
        return at_least_s * self._random.uniform(1.0, 1.2) + pause_s * self._random.uniform(0.5, 1)

    def take(self, channel: DeviceChannel) -> Burst | None:
        """Return what is due; without it the channel is called when there is something."""
        if self.is_ending:
            return None
        burst, wait_s = self._due(channel.number)
        if burst is None:
            self._call_later(channel, wait_s)
            return None
        self._bursts.take(channel.number)
        self._tally.open(burst.lot)
        self.figures.sent_requests += len(burst.frames)
        self.figures.sent_readings += burst.rows
        return burst

    def acknowledge(self, sent: Burst | Letter, latency_s: float) -> Letter | None:
        """Count what is stored; return a frame of it that is to be sent once more."""
        figures = self.figures
        figures.acknowledged_requests += len(sent.frames) if isinstance(sent, Burst) else 1
        figures.acknowledged_readings += sent.rows
        figures.latencies.add(latency_s)
        figures.last_answer_s = self.last_answer_s = self._clock.monotonic()
        self._tally.acknowledge(sent)
        if self.mischief.is_repeated():
            return Letter(sent, 0) if isinstance(sent, Burst) else sent
        self._tell_if_done()
        return None

    def repeated(self, *, known: bool) -> None:
        """Count the answer to a frame that was sent once more."""
        self.figures.repeats += 1
        if not known:
            self.figures.repeats_stored_again += 1
        self._tell_if_done()

    def refuse(self, letter: Letter, reason: str) -> None:
        """Count a frame that was refused for good."""
        if letter.is_repeat:
            return
        self.last_answer_s = self._clock.monotonic()
        self.figures.refuse(letter.rows, reason)
        self._unforeseen += not letter.is_astray
        if letter.was_lost and not letter.is_astray:
            # It may have been stored at the first time, only the answer did not arrive.
            self._tally.leave_open(letter)
        else:
            self._tally.drop(letter)
        if self.is_hopeless:
            self.end()
        self._tell_if_done()

    def note(self, *, resent: int = 0, busy: int = 0, lost: int = 0) -> None:
        """Count frames sent again, busy answers, and lost connections with frames under way."""
        self.figures.resent += resent
        self.figures.busy_answers += busy
        self.figures.lost_answers += lost
        if busy:
            self.last_answer_s = self._clock.monotonic()

    def leave_open(self, sent: Burst | Letter) -> None:
        """Keep frames apart of which nobody knows what became of them."""
        if isinstance(sent, Burst) or not sent.is_repeat:
            self._tally.leave_open(sent)

    # --- what is due

    def _due(self, number: int) -> tuple[Burst | None, float]:
        """Return what a connection may send now, or how long to wait before asking again."""
        bursts, paced = self._bursts, self._run.timing.paced
        for _ in range(_MADE_IN_VAIN_MAX):
            burst = bursts.next_of(number)
            now_us = self._clock.now_us()
            if burst is not None:
                wait_s = (burst.due_us - now_us) / 1e6 if paced else 0.0
                return (burst, 0.0) if wait_s <= 0 else (None, wait_s)
            if bursts.is_over:
                self._end_if_sent()
                return None, _SILENT_S
            if paced and bursts.reaches_us > now_us + _AHEAD_US:
                return None, (bursts.reaches_us - now_us) / 1e6
            bursts.make()
        return None, _SILENT_S

    def _call_later(self, channel: DeviceChannel, wait_s: float) -> None:
        if channel.number in self._called:
            return
        self._called.add(channel.number)

        def call() -> None:
            self._called.discard(channel.number)
            channel.proceed()

        self._rim.later(max(TICK_S, wait_s), call)

    def _end_if_sent(self) -> None:
        if all(self._bursts.next_of(channel.number) is None for channel in self._channels):
            self.end()

    def _tell_if_done(self) -> None:
        if self.is_ending and self.is_done and not self.given_up:
            self._tally.settle()
            self.on_done()
