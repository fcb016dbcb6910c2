"""A device's connection: acknowledgements in order, no faster than the disk, silence and garbage."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from ocean_core.config.settings import NanogridataSettings
from ocean_core.ingress.frames_tcp import (
    ACK_REQUEST,
    FrameConnection,
    FrameConnections,
    TcpServices,
)
from ocean_core.model import limits
from ocean_core.model.access import ListenerInfo
from ocean_core.model.errors import DiskFullError
from ocean_core.obs.log import EventLog
from support.frame_kit import NOW_S, FrameKit, pressure

STORED, DUPLICATE, REFUSED, LATER = range(4)


class Wire(asyncio.Transport):
    """The other end of a connection."""

    def __init__(self, protocol: FrameConnection, address: str = "10.0.0.9") -> None:
        super().__init__({"peername": (address, 4000)})
        self.protocol = protocol
        self.sent = b""
        self.reads_now = True
        self.is_closed = False
        protocol.connection_made(self)

    def pause_reading(self) -> None:
        self.reads_now = False

    def resume_reading(self) -> None:
        self.reads_now = True

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def records(self) -> list[tuple[int, int, int]]:
        """Return (status, error, seconds to wait) of each record."""
        assert len(self.sent) % 12 == 0
        parts = [self.sent[at : at + 12] for at in range(0, len(self.sent), 12)]
        assert all(part.startswith(b"\xc1\x41") for part in parts)
        return [(part[2], part[3], int.from_bytes(part[10:], "big")) for part in parts]


class Box:
    def __init__(self, *, trusted: bool = True, **settings: Any) -> None:
        self.kit = FrameKit(settings=NanogridataSettings(**settings))
        services = TcpServices(
            service=self.kit.service,
            settings=self.kit.settings,
            clock=self.kit.clock,
            log=EventLog(self.kit.clock, stream=self.kit.log),
            metrics=self.kit.metrics,
        )
        info = ListenerInfo("local" if trusted else "network", trusted=trusted)
        self.connections = FrameConnections(services, info)

    def connect(self, address: str = "10.0.0.9") -> Wire:
        return Wire(self.connections.make(), address)


def run(case: Callable[[Box], Awaitable[None]], *, is_open: bool = True, **settings: Any) -> Box:
    box = Box(**settings)

    async def whole() -> None:
        if is_open:
            await box.kit.opened()
        await asyncio.wait_for(case(box), 20)

    asyncio.run(whole())
    return box


def test_each_frame_gets_its_record_in_order() -> None:
    frames = [
        pressure(pa=1),
        pressure(pa=2)[:-1] + b"\0",
        pressure(pa=3, at=NOW_S + 90),
        pressure(pa=1),
        pressure(pa=4, level=0),
    ]

    async def case(box: Box) -> None:
        wire = box.connect()
        wire.protocol.data_received(ACK_REQUEST + b"".join(frames))
        await box.kit.settle()
        assert wire.records() == [
            (STORED, 0, 0),
            (REFUSED, 13, 0),
            (REFUSED, 14, 0),
            (DUPLICATE, 0, 0),
            (STORED, 0, 0),
        ]
        for frame, at in zip(frames, range(0, 60, 12), strict=True):
            level = frame[5]
            check_at = len(frame) - (2 if level == 0 else 16)
            assert wire.sent[at + 4 : at + 10] == frame[8:12] + frame[check_at : check_at + 2]

    run(case)


def test_nothing_is_sent_to_those_who_did_not_ask() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        wire.protocol.data_received(pressure() + b"garbage" + pressure(pa=2))
        await box.kit.settle()
        assert wire.sent == b""
        assert len(box.kit.readings()) == 2

    run(case)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_the_request_may_come_in_pieces(cut: int) -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        data = ACK_REQUEST + pressure()
        wire.protocol.data_received(data[:cut])
        wire.protocol.data_received(data[cut:])
        await box.kit.settle()
        assert wire.records() == [(STORED, 0, 0)]

    run(case)


@pytest.mark.parametrize("start", [b"\xc1", b"\xc1A", b"\xc1AC"])
def test_what_only_begins_like_the_request_is_no_request(start: bytes) -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        wire.protocol.data_received(start)
        wire.protocol.data_received(b"zz" + pressure())
        await box.kit.settle()
        assert wire.sent == b""
        assert len(box.kit.readings()) == 1

    run(case)


def test_acknowledgements_wait_for_the_disk_and_keep_their_order() -> None:
    async def case(box: Box) -> None:
        box.kit.buffer.gate.clear()
        wire = box.connect()
        wire.protocol.data_received(ACK_REQUEST + pressure())
        await box.kit.settle()
        wire.protocol.data_received(pressure()[:-1] + b"\0")
        await box.kit.settle()
        assert wire.sent == b""
        box.kit.buffer.gate.set()
        await box.kit.settle()
        assert [one[0] for one in wire.records()] == [STORED, REFUSED]

    run(case)


def test_a_full_disk_is_told_with_the_time_to_wait() -> None:
    async def case(box: Box) -> None:
        box.kit.buffer.failure = lambda: DiskFullError("no space", retry_after_s=7)
        wire = box.connect()
        wire.protocol.data_received(ACK_REQUEST + pressure())
        await box.kit.settle()
        assert wire.records() == [(LATER, 255, 7)]
        box.kit.buffer.failure = None
        wire.protocol.data_received(pressure())
        await box.kit.settle()
        assert wire.records()[1:] == [(STORED, 0, 0)]
        assert box.kit.refusals.take() == {("", "refused OC-4001"): 1}

    run(case)


def test_a_device_is_not_read_from_while_much_of_it_waits() -> None:
    async def case(box: Box) -> None:
        box.kit.buffer.gate.clear()
        wire = box.connect()
        frames = b"".join(pressure(pa=n) for n in range(2_500))
        wire.protocol.data_received(frames)
        await box.kit.settle()
        assert not wire.reads_now
        other = box.connect()
        other.protocol.data_received(pressure("P-2"))
        assert other.reads_now
        box.kit.buffer.gate.set()
        for _ in range(10):
            await box.kit.settle()
        assert len(box.kit.readings()) == 2_501
        assert [one.reads_now for one in (wire, other)] == [True, True]

    run(case)


def test_a_device_that_does_not_read_its_records_is_not_read_from() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        wire.protocol.pause_writing()
        assert not wire.reads_now
        wire.protocol.resume_writing()
        assert wire.reads_now

    run(case)


def test_nobody_is_read_from_before_it_is_known_what_came() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        assert not wire.reads_now
        await box.kit.service.open()
        assert wire.reads_now

    run(case, is_open=False)


def test_what_is_read_before_all_the_same_waits_for_it() -> None:
    """As uvloop does: it begins to read a connection that was told to wait when it was made."""

    async def case() -> None:
        box, loop = Box(), asyncio.get_running_loop()
        server = await loop.create_server(box.connections.make, "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(ACK_REQUEST + pressure(pa=1) + pressure(pa=2))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            await box.kit.service.open()
            records = await asyncio.wait_for(reader.readexactly(24), 10)
            assert (records[2], records[14]) == (STORED, STORED)
            assert not box.kit.quarantine.frames
            writer.close()
        finally:
            server.close()
            box.connections.close()
            await box.kit.service.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(case(), 20))


def test_a_rate_slows_a_device_down() -> None:
    async def case(box: Box) -> None:
        wire, other = box.connect(), box.connect()
        wire.protocol.data_received(b"".join(pressure(pa=n) for n in range(150)))
        assert not wire.reads_now
        assert other.reads_now
        await box.kit.settle()
        assert len(box.kit.readings()) == 150
        assert not wire.reads_now

    run(case, frames_per_second_max=100)


def test_connections_are_bounded_in_all_and_by_address() -> None:
    async def case(box: Box) -> None:
        wires = [box.connect(), box.connect(), box.connect()]
        assert [wire.is_closed for wire in wires] == [False, False, True]
        assert not box.connect("10.0.0.1").is_closed
        assert box.connect("10.0.0.2").is_closed
        wires[0].close()
        await box.kit.settle()
        assert not box.connect("10.0.0.2").is_closed
        assert "nanogridata.connection_refused" in box.kit.log.getvalue()
        assert box.kit.metrics.value("ocean_nanogridata_connections") == 3

    run(case, trusted=False, connections_max=3, connections_per_address_max=2)


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    async def case(box: Box) -> None:
        addresses = ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")
        wires = [box.connect(address) for address in addresses]
        assert [wire.is_closed for wire in wires] == [False, False, True, False]

    run(case, trusted=False, connections_max=9, connections_per_address_max=2)


def test_garbage_alone_closes_the_connection() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        for _ in range(66):
            if not wire.is_closed:
                wire.protocol.data_received(bytes(1024))
                await box.kit.settle()
        assert wire.is_closed
        assert "nanogridata.garbage" in box.kit.log.getvalue()

    run(case)


def test_bytes_that_never_become_a_frame_are_counted_and_told() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        wire.protocol.data_received(b"GET / HTTP/1.0\r\n\r\n")
        assert box.kit.log.getvalue() == ""
        wire.close()
        await box.kit.settle()
        assert "nanogridata.skipped" in box.kit.log.getvalue()
        other = box.connect()
        other.protocol.data_received(pressure()[:-1] + b"\0")
        box.kit.clock.advance(31)
        box.connections.look()
        assert not other.is_closed
        skipped = box.kit.metrics.value("ocean_nanogridata_skipped_bytes_total", "tcp")
        assert skipped == 18 + len(pressure())

    run(case)


def test_garbage_between_good_frames_is_borne() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        for pa in range(100):
            wire.protocol.data_received(bytes(1024) + pressure(pa=pa))
            await box.kit.settle()
        assert not wire.is_closed
        assert len(box.kit.readings()) == 100

    run(case)


def test_an_unfinished_frame_is_given_up_after_a_silence() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        # It claims more than follows, and swallows a good frame until it is given up.
        claims = pressure()[:6] + b"\x03\x00" + pressure()[8:14]
        wire.protocol.data_received(claims + pressure())
        await box.kit.settle()
        assert box.kit.readings() == []
        box.kit.clock.advance(29)
        box.connections.look()
        assert box.kit.readings() == []
        box.kit.clock.advance(2)
        box.connections.look()
        await box.kit.settle()
        assert len(box.kit.readings()) == 1
        assert not wire.is_closed

    run(case)


def test_a_silent_connection_is_closed() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        wire.protocol.data_received(pressure())
        await box.kit.settle()
        box.kit.clock.advance(599)
        box.connections.look()
        assert not wire.is_closed
        box.kit.clock.advance(2)
        box.connections.look()
        assert wire.is_closed

    run(case)


def test_a_byte_now_and_then_is_no_sign_of_life() -> None:
    async def case(box: Box) -> None:
        wire = box.connect()
        frame = pressure()
        wire.protocol.data_received(frame)
        await box.kit.settle()
        for at in range(25):
            box.kit.clock.advance(25)
            wire.protocol.data_received(frame[at : at + 1])
            box.connections.look()
            await box.kit.settle()
        assert wire.is_closed

    run(case)


def test_all_connections_together_hold_a_bounded_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FRAMES_WAITING_BYTES_MAX", 10_000)

    async def case(box: Box) -> None:
        box.kit.buffer.gate.clear()
        wires = [box.connect() for _ in range(5)]
        for number, wire in enumerate(wires):
            if wire.reads_now:
                frames = (pressure(f"P-{number}", n) for n in range(60))
                wire.protocol.data_received(b"".join(frames))
        assert [wire.reads_now for wire in wires] == [False] * 5
        box.kit.buffer.gate.set()
        for _ in range(5):
            await box.kit.settle()
        assert [wire.reads_now for wire in wires] == [True] * 5
        assert len({row[0] for row in box.kit.readings()}) < 5

    run(case)


def test_the_end_of_input_ends_an_unfinished_frame_and_keeps_the_way_back_open() -> None:
    async def case(box: Box) -> None:
        box.kit.buffer.gate.clear()
        wire = box.connect()
        wire.protocol.data_received(ACK_REQUEST + pressure() + pressure(pa=2)[:20])
        assert wire.protocol.eof_received() is True
        await box.kit.settle()
        assert not wire.is_closed
        box.kit.buffer.gate.set()
        await box.kit.settle()
        assert wire.records() == [(STORED, 0, 0)]
        assert wire.is_closed

    run(case)


def test_a_lost_connection_loses_nothing_that_was_read() -> None:
    async def case(box: Box) -> None:
        box.kit.buffer.gate.clear()
        wire = box.connect()
        wire.protocol.data_received(ACK_REQUEST + b"".join(pressure(pa=n) for n in range(300)))
        wire.protocol.connection_lost(None)
        box.kit.buffer.gate.set()
        await box.kit.settle()
        assert len(box.kit.readings()) == 300

    run(case)


def test_stopping_stores_and_acknowledges_what_was_taken() -> None:
    async def case(box: Box) -> None:
        wire, idle = box.connect(), box.connect()
        wire.protocol.data_received(ACK_REQUEST + pressure())
        box.connections.close()
        await box.kit.service.close()
        await box.connections.closed()
        assert wire.records() == [(STORED, 0, 0)]
        assert wire.is_closed
        assert idle.is_closed
        assert len(box.kit.readings()) == 1

    run(case)
