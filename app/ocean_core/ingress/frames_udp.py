"""Nanogridata over UDP: one datagram, one frame, no acknowledgement.

Datagrams that arrive in one turn of the event loop are looked at together. What comes while too
much waits for the disk is refused and counted; what the system drops before it can be read, too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from ocean_core.config.settings import NanogridataSettings
from ocean_core.model import limits
from ocean_core.model.errors import BufferFullError, BufferUnavailableError, RateLimitError
from ocean_core.obs.clock import Clock
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.nanogridata.bulk import PREFIX_BYTES, read_run
from ocean_core.protocol.nanogridata.frame import FRAME_BYTES_MAX
from ocean_core.service.frames.delivery import Delivery
from ocean_core.service.frames.intake import FrameService
from ocean_core.service.frames.parcel import Parcel
from ocean_core.service.frames.terms import Source
from ocean_core.service.rates import RateBook, network_of

_TURN_MAX: Final = 4_096
_TABLES: Final = (Path("/proc/net/udp"), Path("/proc/net/udp6"))
_INODE_AT: Final = 9
_DROPS_AT: Final = 12

_Address = tuple[str, int]


class FrameDatagrams(asyncio.DatagramProtocol):
    """The datagrams of one socket."""

    def __init__(
        self,
        service: FrameService,
        settings: NanogridataSettings,
        clock: Clock,
        metrics: MetricsRegistry,
    ) -> None:
        self._service = service
        self._rate = settings.frames_per_second_max
        self._rates = RateBook(clock, limits.ADDRESSES_REMEMBERED_MAX)
        self._metrics = metrics
        self._turn: list[tuple[bytes, _Address]] = []
        self._inode = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out by which number the system counts this socket's drops."""
        sock = transport.get_extra_info("socket")
        self._inode = 0 if sock is None else Path(f"/proc/self/fd/{sock.fileno()}").stat().st_ino

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        """Take a datagram."""
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._take_turn)
        elif len(self._turn) >= _TURN_MAX:
            self._take_turn()
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._turn.append((data, addr))

    def _take_turn(self) -> None:
        turn, self._turn = self._turn, []
        if not turn:
            return
        service = self._service
        service.follow_keys()
        if self._rate:
            turn = [one for one in turn if self._is_in_rate(*one)]
        if not service.is_open or service.is_full:
            for data, address in turn:
                self._refuse(data, address, is_full=service.is_open)
            return
        kinds = service.names.kinds
        plain: list[tuple[bytes, _Address]] = []
        for one in turn:
            kind = kinds.get(one[0][:PREFIX_BYTES])
            if kind is not None and kind.total == len(one[0]):
                plain.append(one)
            else:
                self._take_one(*one)
        self._take_plain(plain)
        service.store.send()

    def _take_plain(self, datagrams: list[tuple[bytes, _Address]]) -> None:
        """Take datagrams of known kinds, together as far as they are what they seem to be."""
        service = self._service
        while datagrams:
            joined = b"".join([data for data, _ in datagrams])
            run = read_run(joined, 0, service.names.kinds, len(datagrams))
            taken = len(run)
            if taken:
                # All of one turn are told together, so the address of the first stands for them.
                parcel, way = self._delivery(datagrams[0][1])
                way.cargo.add_run(run, way)
                parcel.close()
            if taken < len(datagrams):
                self._take_one(*datagrams[taken])
            datagrams = datagrams[taken + 1 :]

    def _take_one(self, data: bytes, address: _Address) -> None:
        parcel, way = self._delivery(address)
        # What is longer than any frame need not be kept whole to say so.
        self._service.take_whole(data[: FRAME_BYTES_MAX + 1], way)
        parcel.close()

    def _delivery(self, address: _Address) -> tuple[Parcel, Delivery]:
        parcel = Parcel()
        source = Source("udp", f"{address[0]}:{address[1]}")
        service = self._service
        return parcel, Delivery(parcel, service.store.cargo, source, service.arrival())

    def _is_in_rate(self, data: bytes, address: _Address) -> bool:
        # Programs on this machine share one address; each has its own port.
        name = f"{address[0]}:{address[1]}" if address[0] == "127.0.0.1" else network_of(address[0])
        if not self._rates.take(name, self._rate):
            return True
        parcel, way = self._delivery(address)
        error = RateLimitError(f"{name} sends more than {self._rate} frames per second")
        self._service.refuse_uncounted(data, error, way)
        parcel.close()
        return False

    def _refuse(self, data: bytes, address: _Address, *, is_full: bool) -> None:
        parcel, way = self._delivery(address)
        error = (
            BufferFullError("more frames wait for the disk than may")
            if is_full
            else BufferUnavailableError("what came before is not known yet")
        )
        self._service.refuse_uncounted(data, error, way)
        parcel.close()

    def look(self) -> None:
        """Take over how many datagrams the system has dropped; every few seconds."""
        for table in _TABLES:
            try:
                lines = table.read_text(encoding="ascii").splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                fields = line.split()
                if len(fields) > _DROPS_AT and fields[_INODE_AT] == str(self._inode):
                    name = "ocean_nanogridata_udp_dropped_total"
                    self._metrics.add(name, int(fields[_DROPS_AT]) - self._metrics.value(name))
