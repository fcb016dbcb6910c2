"""Sends frames as datagrams. Nothing answers: what was sent is known, not what arrived."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from ocean_core.obs.clock import Clock
from ocean_core.simulator.bursts import Burst
from ocean_core.simulator.device_sender import DeviceRun
from ocean_core.simulator.mischief import Mischief
from ocean_core.simulator.network import why_not
from ocean_core.simulator.plan import DATAGRAMS_PER_S

EVERY_S: Final = 0.002
# After a hold-up not everything at once: receive buffers are small.
_AT_ONCE_MAX: Final = 64


class Rim(Protocol):
    """What the sender needs of the world."""

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        """Call back after a time."""
        ...

    def open(self, sender: DatagramSender) -> None:
        """Open a socket, and tell ``connection_made``."""
        ...


class DatagramSender(asyncio.DatagramProtocol):
    """All devices send through one socket, at a steady rate."""

    def __init__(self, run: DeviceRun, rim: Rim, clock: Clock, mischief: Mischief) -> None:
        self._run = run
        self._rim = rim
        self._clock = clock
        self._mischief = mischief
        self._rate = run.order.rate or DATAGRAMS_PER_S
        self._ready: deque[Burst] = deque()
        self._transport: Any = None
        self._from_s = 0.0
        self._began_s = 0.0
        self._credit = 0.0
        self.given_up = False
        self.on_done: Callable[[], object] = lambda: None

    def begin(self) -> None:
        """Open the socket, and send from then on."""
        self._began_s = self._clock.monotonic()
        self._run.figures.began_s = self._run.figures.last_answer_s = self._began_s
        self._rim.open(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send (asyncio calls this)."""
        self._transport = transport
        self._from_s = self._clock.monotonic()
        self._send()

    def error_received(self, exc: Exception) -> None:
        """Go on: that nobody listens may be over in a moment (asyncio calls this)."""
        self._run.figures.unreachable(why_not(exc, "udp"))

    def end(self) -> None:
        """Send nothing more."""
        if self._transport is not None:
            self._transport.close()
        self._run.tally.settle()
        self.on_done()

    def give_up(self) -> None:
        """The same: there is nothing to wait for."""
        self.end()

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    def look(self, give_up_s: float) -> None:
        """End if there is no socket to send through."""
        if self._transport is None and self._clock.monotonic() - self._began_s > give_up_s:
            self.given_up = True
            self.end()

    def _send(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        now = self._clock.monotonic()
        self._credit = min(_AT_ONCE_MAX, self._credit + (now - self._from_s) * self._rate)
        self._from_s = now
        run = self._run
        while self._credit >= 1:
            burst = self._next()
            if burst is None:
                if run.bursts.is_over:
                    self.end()
                    return
                break
            self._credit -= 1
            run.figures.sent_requests += 1
            run.figures.sent_readings += burst.rows
            run.figures.last_answer_s = now
            run.tally.open(burst.lot)
            if burst.is_astray:
                run.tally.drop(burst)
            else:
                run.tally.acknowledge(burst)
            self._transport.sendto(burst.frames[0])
            # One that is to be refused would be refused twice.
            if not burst.is_astray and self._mischief.is_repeated():
                run.figures.repeats += 1
                self._transport.sendto(burst.frames[0])
        self._rim.later(EVERY_S, self._send)

    def _next(self) -> Burst | None:
        """Return the next frame that is due."""
        bursts = self._run.bursts
        if not self._ready and not bursts.is_over:
            bursts.make()
            while bursts.next_of(0) is not None:
                self._ready.append(bursts.take(0))
            self._ready = deque(sorted(self._ready, key=lambda burst: burst.due_us))
        paced = self._run.timing.paced
        if not self._ready or (paced and self._ready[0].due_us > self._clock.now_us()):
            return None
        return self._ready.popleft()
