"""The connection of devices that send frames over TCP and ask for acknowledgements.

What is under way stays in order. After a lost connection all of it is sent again: the box knows
frames that it has, and answers ``duplicate``, which is as good as stored. Twelve bytes answer each
frame; those that answer whole bursts as hoped are compared at once, others one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from ocean_core.obs.clock import Clock
from ocean_core.protocol.nanogridata.frame import Outcome
from ocean_core.simulator.bursts import ECHO, RECORD_BEGIN, RECORD_BYTES, Burst, Letter
from ocean_core.simulator.mischief import Mischief, Writing

ASK: Final = b"\xc1ACK"
IN_FLIGHT_FRAMES_MAX: Final = 256
ANSWER_WITHIN_S: Final = 15.0
PIECE_EVERY_S: Final = 0.02

STORED, DUPLICATE, REFUSED, LATER = range(4)
_OUTCOMES: Final = tuple(Outcome)
_WAIT: Final = slice(10, 12)


class Desk(Protocol):
    """Who deals out frames and keeps the books: ``device_sender.DeviceSender``."""

    mischief: Mischief
    window: int
    given_up: bool

    @property
    def is_done(self) -> bool:
        """Whether nothing new comes and everything is answered."""
        ...

    def later(self, delay_s: float, callback: Any) -> object:  # noqa: ANN401 - any callable
        """Call back after a time."""
        ...

    def connect(self, channel: DeviceChannel) -> None:
        """Connect the channel; it is told ``connection_made``, or ``not_connected``."""
        ...

    def pause_s(self, failures: int, at_least_s: float = 0.0) -> float:
        """Return how long to wait after so many failures."""
        ...

    def take(self, channel: DeviceChannel) -> Burst | None:
        """Return what is due; without it the channel is called when there is something."""
        ...

    def acknowledge(self, sent: Burst | Letter, latency_s: float) -> Letter | None:
        """Count what is stored; return a frame of it that is to be sent once more."""
        ...

    def repeated(self, *, known: bool) -> None:
        """Count the answer to a frame that was sent once more."""
        ...

    def refuse(self, letter: Letter, reason: str) -> None:
        """Count a frame that was refused for good."""
        ...

    def note(self, *, resent: int = 0, busy: int = 0, lost: int = 0) -> None:
        """Count frames sent again, busy answers, and lost connections with frames under way."""
        ...

    def leave_open(self, sent: Burst | Letter) -> None:
        """Keep frames apart of which nobody knows what became of them."""
        ...


class DeviceChannel(asyncio.Protocol):
    """One connection, made again whenever it breaks."""

    def __init__(self, desk: Desk, clock: Clock, number: int) -> None:
        self.number = number
        self.failures = 0
        self._desk = desk
        self._monotonic = clock.monotonic
        self._transport: Any = None
        self._received = b""
        self._flight: deque[Burst | Letter] = deque()
        self._frames = 0
        self._moved_at = 0.0
        self._pieces: deque[bytes] = deque()
        self._cuts = False
        self._put_off: list[Letter] = []

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for acknowledgements, send again what was not answered, and go on (asyncio calls)."""
        self._transport = transport
        self._received = b""
        self._pieces.clear()
        self._cuts = False
        self._moved_at = self._monotonic()
        if self._desk.given_up:
            transport.close()
            return
        again = b"".join(frame for sent in self._flight for frame in _frames_of(sent))
        self._transport.write(ASK + again)
        if again:
            self._desk.note(resent=self._frames)
        self.proceed()

    def not_connected(self) -> None:
        """Try again later."""
        self.failures += 1
        if not self._desk.is_done:
            self._connect_later()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it came to nothing
        """Keep what is under way, and connect again (asyncio calls this)."""
        self._transport = None
        if self._desk.given_up or self._desk.is_done:
            return
        if self._flight:
            self.failures += 1
            self._desk.note(lost=1)
            for sent in self._flight:
                sent.was_lost = True
        self._connect_later()

    def _connect_later(self) -> None:
        self._desk.later(self._desk.pause_s(self.failures), self._reconnect)

    def _reconnect(self) -> None:
        if not self._desk.given_up and not self._desk.is_done:
            self._desk.connect(self)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._transport is not None

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._flight or self._put_off)

    def lose_patience(self, now_s: float) -> None:
        """Break the connection if it has been without an answer for too long."""
        if (
            self._flight
            and self._transport is not None
            and now_s - self._moved_at > ANSWER_WITHIN_S
        ):
            self._transport.abort()

    def abandon(self) -> None:
        """Let go of what is under way, and of the connection."""
        while self._flight:
            self._desk.leave_open(self._flight.popleft())
        for letter in self._put_off:
            self._desk.refuse(letter, "still busy at the end")
        self._put_off.clear()
        self._frames = 0
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # --- frames

    def proceed(self) -> None:
        """Send what is due, as far as there is room for it."""
        while self._can_write and self._frames < self._desk.window:
            burst = self._desk.take(self)
            if burst is None:
                return
            self._launch(burst, len(burst.frames))
            if burst.is_astray:
                # They are to be refused once, not again and again.
                self._write(Writing((b"".join(burst.frames),)))
            else:
                self._write(self._desk.mischief.writing(burst.frames))

    @property
    def _can_write(self) -> bool:
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and not self._pieces
            and not self._cuts
        )

    def _launch(self, sent: Burst | Letter, frames: int) -> None:
        sent.sent_at = self._monotonic()
        if not self._flight:
            self._moved_at = sent.sent_at
        self._flight.append(sent)
        self._frames += frames

    def _write(self, writing: Writing) -> None:
        self._transport.write(writing.pieces[0])
        self._pieces.extend(writing.pieces[1:])
        self._cuts = writing.cuts
        if self._cuts:
            self._transport.close()
        elif self._pieces:
            self._desk.later(PIECE_EVERY_S, self._write_piece)

    def _write_piece(self) -> None:
        if self._transport is None or self._transport.is_closing() or not self._pieces:
            return
        self._transport.write(self._pieces.popleft())
        if self._pieces:
            self._desk.later(PIECE_EVERY_S, self._write_piece)
        else:
            self.proceed()

    def _send_letter(self, letter: Letter) -> None:
        """Send one frame, now or with the next connection."""
        self._launch(letter, 1)
        if self._transport is not None and not self._transport.is_closing():
            if self._pieces:
                self._pieces.append(letter.frame)
            else:
                self._transport.write(letter.frame)

    # --- answers

    def data_received(self, data: bytes) -> None:
        """Take answers (asyncio calls this)."""
        data = self._received + data
        at = 0
        while self._flight:
            head = self._flight[0]
            if isinstance(head, Letter):
                if len(data) - at < RECORD_BYTES:
                    break
                record = data[at : at + RECORD_BYTES]
                at += RECORD_BYTES
                if not record.startswith(RECORD_BEGIN):
                    self._transport.abort()
                    return
                if record[ECHO] == head.echo:
                    self._answered(head, record)
                continue
            wanted = head.wanted
            if data.startswith(wanted, at):
                at += len(wanted)
                self._flight.popleft()
                self._stored(head, len(head.frames))
            elif wanted.startswith(data[at:]):
                break
            else:
                self._flight.popleft()
                self._flight.extendleft(reversed(list(head.letters())))
        # Without anything under way there is nothing that an answer could concern.
        self._received = data[at:] if self._flight else b""
        self.proceed()

    def _stored(self, sent: Burst | Letter, frames: int) -> None:
        self._frames -= frames
        self.failures = 0
        now = self._monotonic()
        self._moved_at = now
        repeat = self._desk.acknowledge(sent, now - sent.sent_at)
        if repeat is not None:
            repeat.is_repeat = True
            self._send_letter(repeat)

    def _answered(self, letter: Letter, record: bytes) -> None:
        self._flight.popleft()
        status = record[2]
        if letter.is_repeat and status != LATER:
            self._frames -= 1
            self._moved_at = self._monotonic()
            self._desk.repeated(known=status == DUPLICATE)
        elif status in {STORED, DUPLICATE}:
            self._stored(letter, 1)
        elif status == LATER:
            self._frames -= 1
            self._moved_at = self._monotonic()
            self._put_off.append(letter)
            self.failures += 1
            self._desk.note(busy=1)
            wait_s = self._desk.pause_s(min(self.failures, 3), int.from_bytes(record[_WAIT], "big"))
            self._desk.later(wait_s, lambda: self._again(letter))
        else:
            self._frames -= 1
            self._moved_at = self._monotonic()
            self._desk.refuse(letter, reason_of(record[3]))

    def _again(self, letter: Letter) -> None:
        if self._desk.given_up:
            return
        self._put_off.remove(letter)
        self._desk.note(resent=1)
        self._send_letter(letter)


def reason_of(number: int) -> str:
    """Return the name of the error in an acknowledgement record.

    >>> reason_of(14), reason_of(255)
    ('E_FUTURE', 'error 255')
    """
    return str(_OUTCOMES[number]) if 0 < number < len(_OUTCOMES) else f"error {number}"


def _frames_of(sent: Burst | Letter) -> list[bytes]:
    return sent.frames if isinstance(sent, Burst) else [sent.frame]
