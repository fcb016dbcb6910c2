"""Sends the requests over a number of connections until each has met its fate.

A closed loop: a connection sends a request, waits for the whole answer, takes the next. A request
stays with its connection until it is acknowledged or refused, however often the connection is made
anew; what is sent again is the same bytes with the same Idempotency-Key. Nothing here waits or
reads a clock by itself: the rim does, so that tests can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from ocean_core.client.connection import Target, split_url
from ocean_core.obs.clock import Clock
from ocean_core.protocol.media import Encoding
from ocean_core.simulator.answers import Answer, refused_frames
from ocean_core.simulator.channel import Channel
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.parcels import Parcel
from ocean_core.simulator.plan import Order, Timing
from ocean_core.simulator.tally import Tally

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0
# As exact as timers of event loops are.
TICK_S: Final = 0.001
HOPELESS_REQUESTS: Final = 100

_DUPLICATE: Final = b'"duplicate":true'
_PARTLY: Final = b'"rejected_count":'


class Requests(Protocol):
    """What makes the requests: ``parcels.Parcels``, or ``prepare.FrameParcels``."""

    def next(self) -> Parcel | None:
        """Return the next request; None when all were made."""
        ...

    def is_repeated(self, parcel: Parcel) -> bool:
        """Return whether its sender sends it once more after it was answered."""
        ...


class Rim(Protocol):
    """What the sender needs of the world."""

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Call back after a time."""
        ...

    def connect(self, channel: Channel) -> None:
        """Connect, and tell the channel: ``greet`` and ``connection_made``, or ``not_connected``."""
        ...


@dataclass(slots=True)
class Run:
    """What one run consists of. ``run_id`` makes Idempotency-Keys its own."""

    order: Order
    timing: Timing
    run_id: str
    parcels: Requests
    tally: Tally
    figures: Figures


class Sender:
    """Deals requests out to its channels, and keeps the books."""

    def __init__(self, run: Run, rim: Rim, clock: Clock, random: Random) -> None:
        self._run = run
        self._rim = rim
        self._clock = clock
        self._random = random
        self._parcels = run.parcels
        self._tally = run.tally
        self.figures = run.figures
        self._next: Parcel | None = None
        self._idle: dict[Channel, None] = {}
        self._channels: list[Channel] = []
        self._is_timed = False
        self._began_s = 0.0
        self._ended_s = 0.0
        self.keys = run.order.keys
        self.repeatable = self.keys or run.order.frames is not None
        self.is_ending = False
        self.given_up = False
        self.last_answer_s = 0.0
        self.on_done: Callable[[], object] = lambda: None

    def begin(self) -> None:
        """Connect all channels, and send from then on."""
        self._began_s = self.last_answer_s = self._clock.monotonic()
        self.figures.began_s = self.figures.last_answer_s = self._began_s
        self._channels = [
            Channel(self, self._clock) for _ in range(self._run.order.connections_used)
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
        """End at once: what was not answered is left open, or dropped if it surely did nothing."""
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
        """Ask again where no answer comes, and give up what takes too long; about once a second."""
        now = self._clock.monotonic()
        waiting = [channel for channel in self._channels if channel.parcel is not None]
        for channel in waiting:
            channel.lose_patience(now)
        is_alone = not any(channel.is_connected for channel in self._channels)
        last_s = self._ended_s if self.is_ending else self.last_answer_s
        if now - last_s > give_up_s and (waiting or is_alone or self.is_ending):
            self.give_up()

    @property
    def is_done(self) -> bool:
        """Whether nothing new comes and everything is answered."""
        return self.is_ending and not any(channel.parcel for channel in self._channels)

    @property
    def is_hopeless(self) -> bool:
        """Whether only refusals came, and enough of them."""
        figures = self.figures
        return not figures.acknowledged_requests and figures.refused_requests >= HOPELESS_REQUESTS

    # --- what channels ask and tell

    def head_for(self, target: Target) -> bytes:
        """Return the head of a request up to what differs: key and length."""
        order = self._run.order
        parts = split_url(target.url)
        lines = [
            f"POST {order.path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            f"Content-Type: {order.media}",
        ]
        if order.encoding is not Encoding.IDENTITY:
            lines.append(f"Content-Encoding: {order.encoding}")
        if target.key:
            lines.append(f"Authorization: Bearer {target.key}")
        lines.append(f"Idempotency-Key: sim-{self._run.run_id}-" if order.keys else "")
        return "\r\n".join(lines).encode("ascii")

    def later(self, delay_s: float, callback: Callable[[], object]) -> None:
        """Call back after a time."""
        self._rim.later(delay_s, callback)

    def connect(self, channel: Channel) -> None:
        """Connect a channel."""
        self._rim.connect(channel)

    def pause_s(self, failures: int, at_least_s: float = 0.0) -> float:
        """Return how long to wait after so many failures; never the same for all channels."""
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * (1 << min(failures, 10)))
        # What many are told alike must not bring all of them back at one moment.
        return at_least_s * self._random.uniform(1.0, 1.2) + pause_s * self._random.uniform(0.5, 1)

    def take(self, channel: Channel) -> Parcel | None:
        """Return the next request that is due; without one the channel is called when there is."""
        parcel = None if self.is_ending else self._due()
        if parcel is None:
            self._idle[channel] = None
            return None
        self._next = None
        figures = self.figures
        figures.sent_requests += 1
        figures.sent_readings += parcel.rows
        self._tally.open(parcel.lot)
        return parcel

    def acknowledge(self, parcel: Parcel, answer: Answer) -> bool:
        """Count an acknowledged request; return whether it is to be sent once more."""
        figures = self.figures
        if parcel.is_repeat:
            figures.repeats += 1
            if _DUPLICATE not in answer.body:
                figures.repeats_stored_again += 1
            self._tell_if_done()
            return False
        figures.acknowledged_requests += 1
        figures.last_answer_s = self.last_answer_s
        if parcel.bounds and _PARTLY in answer.body:
            self._acknowledge_part(parcel, answer)
        else:
            figures.acknowledged_readings += parcel.rows
            self._tally.acknowledge(parcel)
        if self._parcels.is_repeated(parcel) and not self.is_ending:
            parcel.is_repeat = True
            return True
        self._tell_if_done()
        return False

    def refuse(self, parcel: Parcel, reason: str, errors: Mapping[str, int] | None = None) -> None:
        """Count a request that was refused for good; ``errors`` of its frames, if they are known."""
        if parcel.is_repeat:
            return
        self.figures.refuse_together(parcel.rows, errors or {reason: 1})
        if parcel.was_lost:
            # An earlier attempt may have been stored, only its answer did not arrive.
            self._tally.leave_open(parcel)
        else:
            self._tally.drop(parcel)
        if self.is_hopeless:
            self.end()
        self._tell_if_done()

    def _acknowledge_part(self, parcel: Parcel, answer: Answer) -> None:
        """Count a request of which some frames were refused."""
        refused = refused_frames(answer.body)
        if refused is None:
            self._tally.leave_open(parcel)
            return
        bounds, left_out = parcel.bounds, bytearray(parcel.rows)
        for number, reason in refused.items():
            rows = bounds[number + 1] - bounds[number]
            left_out[bounds[number] : bounds[number + 1]] = b"\1" * rows
            self.figures.refuse(rows, reason)
        self.figures.acknowledged_readings += parcel.rows - sum(left_out)
        self._tally.acknowledge(parcel, left_out)

    def leave_open(self, parcel: Parcel) -> None:
        """Keep a request apart of which nobody knows what became of it."""
        if not parcel.is_repeat:
            self._tally.leave_open(parcel)
        self._tell_if_done()

    # --- what is due

    def _due(self) -> Parcel | None:
        if self._next is None:
            self._next = self._parcels.next()
            if self._next is None:
                self.end()
                return None
        if self._run.timing.paced:
            due_s = self._began_s + (self._next.due_us - self._run.timing.start_us) / 1e6
            wait_s = due_s - self._clock.monotonic()
            if wait_s > 0:
                if not self._is_timed:
                    self._is_timed = True
                    self._rim.later(max(TICK_S, wait_s), self._deal)
                return None
        return self._next

    def _deal(self) -> None:
        """Give idle channels what has become due."""
        self._is_timed = False
        for channel in list(self._idle):
            del self._idle[channel]
            if not channel.proceed():
                return

    def _tell_if_done(self) -> None:
        if self.is_ending and self.is_done and not self.given_up:
            self._tally.settle()
            self.on_done()
