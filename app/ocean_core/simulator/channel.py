"""One connection of the simulator, and the request that it holds.

What comes of a request: see ``answers``. Busy: wait as asked, at least the pause, and send it again.
A lost connection: a pause, connect, send it again; without a key it is left open instead, because
sent again it might be stored twice. Frames need no key: the box knows those that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ocean_core.client.connection import Target
from ocean_core.obs.clock import Clock
from ocean_core.simulator.answers import (
    Answer,
    BrokenAnswerError,
    Fate,
    fate_of,
    read_answer,
    reason_of,
    refusals_of,
)
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.parcels import Parcel

ANSWER_WITHIN_S: Final = 15.0


class Desk(Protocol):
    """Who deals out the requests and keeps the books: ``sender.Sender``."""

    figures: Figures
    keys: bool
    repeatable: bool
    given_up: bool
    last_answer_s: float

    @property
    def is_done(self) -> bool:
        """Whether nothing new comes and everything is answered."""
        ...

    def head_for(self, target: Target) -> bytes:
        """Return the head of a request up to what differs: key and length."""
        ...

    def later(self, delay_s: float, callback: Callable[[], object]) -> None:
        """Call back after a time."""
        ...

    def connect(self, channel: Channel) -> None:
        """Connect the channel; it is told ``greet`` and ``connection_made``, or ``not_connected``."""
        ...

    def pause_s(self, failures: int, at_least_s: float = 0.0) -> float:
        """Return how long to wait after so many failures; never the same for all channels."""
        ...

    def take(self, channel: Channel) -> Parcel | None:
        """Return the next request that is due; without one the channel is called when there is."""
        ...

    def acknowledge(self, parcel: Parcel, answer: Answer) -> bool:
        """Count an acknowledged request; return whether it is to be sent once more."""
        ...

    def refuse(self, parcel: Parcel, reason: str, errors: Mapping[str, int] | None = None) -> None:
        """Count a request that was refused for good; ``errors`` of its frames, if they are known."""
        ...

    def leave_open(self, parcel: Parcel) -> None:
        """Keep a request apart of which nobody knows what became of it."""
        ...


class Channel(asyncio.Protocol):
    """One connection, made again whenever it breaks; holds at most one request."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        self._desk = desk
        self._monotonic = clock.monotonic
        self._add_latency = desk.figures.latencies.add
        self._transport: Any = None
        self._head = b""
        self._received = b""
        self._sent_at = 0.0
        self._waits = False
        self._pauses = False
        self.failures = 0
        self.parcel: Parcel | None = None

    # --- the connection

    def greet(self, target: Target) -> None:
        """Take notice of whom the connection leads to."""
        self._head = self._desk.head_for(target)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with the request that is held, or the next (asyncio calls this)."""
        self._transport = transport
        self._received = b""
        if self._desk.given_up:
            transport.close()
        else:
            self.proceed()

    def not_connected(self) -> None:
        """Try again later."""
        self.failures += 1
        if not self._desk.is_done:
            self._connect_later()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it came to nothing
        """Keep the request and connect again (asyncio calls this)."""
        self._transport = None
        if self._desk.given_up or self._desk.is_done:
            return
        if self._waits:
            self._waits = False
            self._unclear()
        if not self._pauses:
            self._connect_later()

    def _connect_later(self) -> None:
        """Connect again, after a pause that failures have made longer."""
        self._desk.later(self._desk.pause_s(self.failures), self._reconnect)

    def _reconnect(self) -> None:
        if not self._desk.given_up and not self._desk.is_done:
            self._desk.connect(self)

    def abandon(self) -> None:
        """Let go of the request and the connection."""
        parcel, self.parcel = self.parcel, None
        if parcel is not None:
            if self._waits or parcel.was_lost:
                self._desk.leave_open(parcel)
            else:
                self._desk.refuse(parcel, "still busy at the end")
        self._waits = False
        self.close()

    def lose_patience(self, now_s: float) -> None:
        """Break the connection if it has been without an answer for too long."""
        if self._waits and self._transport is not None and now_s - self._sent_at > ANSWER_WITHIN_S:
            self._transport.abort()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._transport is not None

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # --- requests

    def proceed(self) -> bool:
        """Send what is held, or the next request; return whether there was one."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._waits or self._pauses:
            # ``connection_lost`` has come, or is on its way; or it is busy already.
            return True
        parcel = self.parcel
        if parcel is None:
            parcel = self.parcel = self._desk.take(self)
            if parcel is None:
                return False
        elif parcel.attempts:
            self._desk.figures.resent += 1
        parcel.attempts += 1
        body = parcel.body
        self._waits = True
        self._sent_at = self._monotonic()
        if self._desk.keys:
            transport.write(
                b"%b%d\r\nContent-Length: %d\r\n\r\n%b"
                % (self._head, parcel.number, len(body), body)
            )
        else:
            transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
        return True

    def data_received(self, data: bytes) -> None:
        """Collect the answer (asyncio calls this)."""
        if self._received:
            data = self._received + data
        try:
            answer = read_answer(data)
        except BrokenAnswerError:
            # Closed before an answer: what follows is the same as for a lost connection.
            self._transport.abort()
            return
        if answer is None:
            self._received = data
            return
        self._received = b""
        if not self._waits:
            self._transport.abort()
            return
        self._waits = False
        now = self._monotonic()
        self._desk.last_answer_s = now
        self._add_latency(now - self._sent_at)
        self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        parcel = self.parcel
        assert parcel is not None
        fate = fate_of(answer.status)
        if fate is Fate.ACKNOWLEDGED:
            self.failures = 0
            self.parcel = None
            if self._desk.acknowledge(parcel, answer):
                parcel.attempts = 0
                self.parcel = parcel
        elif fate is Fate.BUSY:
            self._desk.figures.busy_answers += 1
            self._pause(answer)
            return
        elif fate is Fate.UNCLEAR:
            self._unclear()
            self._pause(answer)
            return
        elif fate is Fate.KEY_REFUSED and parcel.refusals == 0:
            # A new connection asks anew where the server is, and which key it takes.
            parcel.refusals = 1
            self.close()
            return
        else:
            self.parcel = None
            frames = len(parcel.bounds) - 1
            errors = refusals_of(answer, frames) if frames > 0 else None
            self._desk.refuse(parcel, reason_of(answer), errors)
        if answer.closes:
            self.close()
        else:
            self.proceed()

    def _unclear(self) -> None:
        """Nobody knows what became of the request: send it again only if that does no harm."""
        self.failures += 1
        self._desk.figures.lost_answers += 1
        parcel = self.parcel
        if parcel is not None:
            parcel.was_lost = True
            if not self._desk.repeatable:
                self.parcel = None
                self._desk.leave_open(parcel)

    def _pause(self, answer: Answer) -> None:
        """Send again after the time that the server asks for."""
        self.failures += 1
        self._pauses = True
        wait_s = self._desk.pause_s(self.failures, answer.retry_after_s)
        if answer.closes:
            self.close()
        self._desk.later(wait_s, self._resume)

    def _resume(self) -> None:
        self._pauses = False
        if self._desk.given_up or self._desk.is_done:
            return
        if self._transport is None or self._transport.is_closing():
            self._desk.connect(self)
        else:
            self.proceed()
