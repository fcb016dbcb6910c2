"""Nanogridata over TCP: persistent connections of devices, read no faster than they are stored.

A device that wants acknowledgements says so with its first four bytes; all others are never sent
anything. A connection whose frames wait for the disk is not read from: the sender's own buffers
fill, and nothing is lost here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Final, cast

from ocean_core.config.settings import NanogridataSettings
from ocean_core.model import limits
from ocean_core.model.access import ListenerInfo
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.frames.delivery import Delivery
from ocean_core.service.frames.intake import FrameService
from ocean_core.service.frames.parcel import AckParcel, Parcel
from ocean_core.service.frames.stream import FrameStream
from ocean_core.service.frames.terms import Source
from ocean_core.service.rates import network_of

ACK_REQUEST: Final = b"\xc1ACK"
LOOK_EVERY_S: Final = 5.0
CLOSE_WITHIN_S: Final = 2.0
_WAITING_BYTES_MAX: Final = 2 * limits.FRAME_READ_BYTES


@dataclass(frozen=True, kw_only=True)
class TcpServices:
    """What connections work with."""

    service: FrameService
    settings: NanogridataSettings
    clock: Clock
    log: EventLog
    metrics: MetricsRegistry


class FrameConnections:
    """The open connections of one listener: lets new ones in, looks after silent ones."""

    def __init__(self, services: TcpServices, info: ListenerInfo) -> None:
        self.services = services
        self._info = info
        self._open: set[FrameConnection] = set()
        self._addresses: dict[str, int] = {}
        self._left = asyncio.Event()
        self._waiting_bytes = 0
        services.service.on_open.append(self._wake)

    @property
    def is_full(self) -> bool:
        """Whether what waits of all connections together is as much as may be."""
        return self._waiting_bytes >= limits.FRAMES_WAITING_BYTES_MAX

    def note_waiting(self, change: int) -> None:
        """Count bytes that wait now, or do no more; at the bound nobody is read from."""
        was_full = self.is_full
        self._waiting_bytes += change
        if self.is_full != was_full:
            self._wake()

    def make(self) -> FrameConnection:
        """Return the protocol of a new connection."""
        return FrameConnection(self)

    def admit(self, connection: FrameConnection, address: str) -> bool:
        """Let a connection in, unless there are too many, in all or of its address."""
        settings = self.services.settings
        count = self._addresses.get(address, 0)
        of_one = settings.connections_max
        if not self._info.trusted:
            of_one = min(of_one, settings.connections_per_address_max)
        if len(self._open) >= settings.connections_max or count >= of_one:
            self.services.log.warning(
                "nanogridata.connection_refused", source=address, open=len(self._open)
            )
            return False
        self._open.add(connection)
        self._addresses[address] = count + 1
        self._show()
        return True

    def leave(self, connection: FrameConnection, address: str) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)
        self._left.set()
        left = self._addresses.pop(address, 1) - 1
        if left:
            self._addresses[address] = left
        self._show()

    def look(self) -> None:
        """End what has been silent for too long; every few seconds."""
        now = self.services.clock.monotonic()
        for connection in list(self._open):
            connection.look(now)

    def close(self) -> None:
        """End all connections, each once what it has sent has its outcome."""
        for connection in list(self._open):
            connection.finish()

    async def closed(self) -> None:
        """Return when all have ended, at the latest after CLOSE_WITHIN_S: a peer may not read."""
        until = self.services.clock.monotonic() + CLOSE_WITHIN_S
        while self._open and self.services.clock.monotonic() < until:
            self._left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), CLOSE_WITHIN_S)

    def _wake(self) -> None:
        for connection in list(self._open):
            connection.wake()

    def _show(self) -> None:
        self.services.metrics.set("ocean_nanogridata_connections", len(self._open))


class FrameConnection(asyncio.Protocol):
    """One device."""

    def __init__(self, connections: FrameConnections) -> None:
        self._connections = connections
        services = connections.services
        self._service = services.service
        self._clock = services.clock
        self._log = services.log
        self._rate = services.settings.frames_per_second_max
        self._idle_s = services.settings.idle_s
        self._stream = FrameStream(services.service)
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._source = Source("tcp")
        self._is_admitted = False
        self._acks: bool | None = None
        self._first = b""
        self._early = b""
        self._parcels: deque[tuple[Parcel, int]] = deque()
        self._waiting_bytes = 0
        self._heard_at = self._begun_at = services.clock.monotonic()
        self._credit = float(self._rate)
        self._credit_at = self._heard_at
        self._slowed = False
        self._is_paused = False
        self._can_write = True
        self._is_ending = False
        self._is_going_on = False

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        # Whoever has one IPv6 address has 2^64 of them.
        self._address = network_of(str(peer[0]))
        self._source = Source("tcp", f"{peer[0]}:{peer[1]}")
        self._is_admitted = self._connections.admit(self, self._address)
        if not self._is_admitted:
            self._transport.close()
            return
        self.follow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take what is left as all there was; what was taken is stored all the same."""
        del exc
        if not self._is_admitted:
            return
        self._end_stream()
        self._transport = None
        self._connections.leave(self, self._address)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._is_admitted or self._is_ending:
            return
        if not self._service.is_open:
            # uvloop reads a new connection once although it was told to wait.
            self._early += data
            if self._transport is not None:
                self._transport.pause_reading()
            return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self._stream.is_clean and not self._parcels:
            # An unfinished frame, if it becomes one, begins now.
            self._begun_at = self._clock.monotonic()
        if self._acks is None:
            data = self._greeted(self._first + data)
        if data:
            self._take(data)

    def _take_early(self) -> None:
        early, self._early = self._early, b""
        if early:
            self._receive(early)

    def _go_on(self) -> None:
        """Look at what was put off."""
        self._is_going_on = False
        if self._stream.has_more and self._transport is not None and not self._is_ending:
            self._take(b"")

    def _check_garbage(self) -> None:
        stream = self._stream
        if stream.garbage > limits.GARBAGE_BYTES_MAX or stream.is_hopeless:
            self._log.warning(
                "nanogridata.garbage", source=self._source.address, bytes=stream.garbage
            )
            self.finish()

    def eof_received(self) -> bool:
        """The device sends no more; it may still wait for acknowledgements."""
        self._end_stream()
        self._is_ending = True
        self._advance()
        return bool(self._parcels)

    def pause_writing(self) -> None:
        """The device does not read its acknowledgements: then it is not read from either."""
        self._can_write = False
        self.follow()

    def resume_writing(self) -> None:
        """It does again."""
        self._can_write = True
        self.follow()

    # --- frames ---

    def _greeted(self, data: bytes) -> bytes:
        """Find out whether acknowledgements are wanted; return what comes behind, if anything."""
        if len(data) < len(ACK_REQUEST) and ACK_REQUEST.startswith(data):
            self._first = data
            return b""
        self._first = b""
        self._acks = data.startswith(ACK_REQUEST)
        return data[len(ACK_REQUEST) :] if self._acks else data

    def _take(self, data: bytes) -> None:
        self._note_waiting(len(data))
        held = self._stream.held + len(data)
        parcel, way = self._delivery()
        self._stream.feed(data, way)
        # What is not looked at yet goes on being counted as waiting.
        self._parcels.append((parcel, held - self._stream.held))
        if self._stream.has_more and not self._is_going_on:
            self._is_going_on = True
            asyncio.get_running_loop().call_soon(self._go_on)
        self._close_parcel(parcel)
        self._check_garbage()

    def _end_stream(self) -> None:
        """Judge what is left of an unfinished frame (section 9, step 5)."""
        self._take_early()
        if self._first:
            first, self._first, self._acks = self._first, b"", False
            self._take(first)
        if not self._stream.has_news:
            return
        parcel, way = self._delivery()
        self._parcels.append((parcel, self._stream.held))
        self._stream.end(way)
        self._close_parcel(parcel)

    def _delivery(self) -> tuple[Parcel, Delivery]:
        service = self._service
        parcel = AckParcel(self._advance) if self._acks else Parcel(self._advance)
        return parcel, Delivery(parcel, service.store.cargo, self._source, service.arrival())

    def _close_parcel(self, parcel: Parcel) -> None:
        if parcel.frames:
            self._heard_at = self._clock.monotonic()
        if self._rate:
            self._spend(parcel.frames)
        parcel.close()
        self._service.store.send()
        self.follow()

    def _advance(self) -> None:
        """Acknowledge what has its outcome, in the order it came."""
        transport = self._transport
        while self._parcels and self._parcels[0][0].is_settled:
            parcel, size = self._parcels.popleft()
            self._note_waiting(-size)
            if isinstance(parcel, AckParcel) and transport is not None:
                records = parcel.records()
                if records and not transport.is_closing():
                    transport.write(records)
        if self._is_ending and not self._parcels and transport is not None:
            transport.close()
        self.follow()

    # --- pace ---

    def _note_waiting(self, change: int) -> None:
        self._waiting_bytes += change
        self._connections.note_waiting(change)

    def _spend(self, frames: int) -> None:
        """Count frames against the rate; sleep as long as they were too many."""
        now = self._clock.monotonic()
        self._credit = min(self._rate, self._credit + (now - self._credit_at) * self._rate) - frames
        self._credit_at = now
        if self._credit < 0 and not self._slowed:
            self._slowed = True
            asyncio.get_running_loop().call_later(-self._credit / self._rate, self._speed_up)

    def _speed_up(self) -> None:
        self._slowed = False
        self.follow()

    def wake(self) -> None:
        """Go on, if what was in the way is not there any more."""
        if self._early and self._service.is_open and not self._is_ending:
            self._take_early()
        self.follow()

    def follow(self) -> None:
        """Read from the device, or do not, whichever is right now."""
        transport = self._transport
        if transport is None or self._is_ending or transport.is_closing():
            return
        must_wait = (
            self._waiting_bytes >= _WAITING_BYTES_MAX
            or self._slowed
            or self._stream.has_more
            or not self._can_write
            or not self._service.is_open
            or self._connections.is_full
            or (self._service.is_full and bool(self._parcels))
        )
        if must_wait != self._is_paused:
            self._is_paused = must_wait
            if must_wait:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def look(self, now: float) -> None:
        """End an unfinished frame, or the connection, when no frame has come for long.

        Bytes alone are no sign of life: a frame takes a second on the slowest line.
        """
        silent_s = now - self._heard_at
        if self._is_paused or self._parcels:
            # It is not silent, it is not listened to.
            self._heard_at = now
        elif silent_s >= self._idle_s:
            self.finish()
        elif (
            min(silent_s, now - self._begun_at) >= limits.FRAME_PARTIAL_S and self._stream.has_news
        ):
            self._end_stream()

    def finish(self) -> None:
        """Take no more; close once everything taken has its outcome."""
        if self._is_ending or self._transport is None:
            return
        self._end_stream()
        self._is_ending = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._advance()
