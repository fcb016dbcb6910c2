"""Connections of the fast path from first to last: who waits, who goes, who is never forgotten."""

import asyncio
import random
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from ocean_core.config.settings import ServerSettings
from ocean_core.ingress.fast_http import HELD_BYTES_MAX
from ocean_core.ingress.reaper import SWEEPS_PER_TIMEOUT, Reaper
from ocean_core.model.errors import DiskFullError
from ocean_core.obs.clock import ManualClock
from support.listening import REQUEST, Rig
from support.listening import run as run_rig
from support.two_ways import REFUSAL, Box, Said, open_box, play, request
from support.web import BATCH, INGEST

pytestmark = pytest.mark.timeout(60)

ITEM = b'{"sensor_id":"s","value":1}'
GOOD = request(INGEST, ITEM)
LARGE = request(BATCH, b"[%b]" % ITEM + b" " * 60_000)
OK = b"HTTP/1.1 200 OK\r\n"
KEEP_ALIVE_S = ServerSettings().keep_alive_s


def run(scenario: Callable[[Box], Awaitable[Any]], **server: Any) -> Any:
    """Play a scenario on the fast path; the sensor s is known already."""

    async def whole() -> Any:
        settings = ServerSettings(port=0, **server)
        async with asyncio.timeout(40), open_box(None, fast=True, server=settings) as box:
            await box.ask(GOOD)
            assert "Traceback" not in box.told.getvalue()
            return await scenario(box)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


# --- idle connections


def test_an_idle_connection_is_closed_in_time_and_not_before() -> None:
    async def scenario(box: Box) -> None:
        early, late = box.connect(), box.connect()
        for line in (early, late):
            assert (await line.ask(GOOD)).content.startswith(OK)
        box.clock.advance(KEEP_ALIVE_S - 1)
        assert (await late.ask(GOOD)).content.startswith(OK)
        box.reaper.sweep()
        assert not early.is_closed()
        box.clock.advance(1)
        box.reaper.sweep()
        assert early.is_closed()
        assert not late.is_closed()
        box.clock.advance(KEEP_ALIVE_S)
        box.reaper.sweep()
        assert late.is_closed()
        await box.settle()
        assert not box.server.server_state.connections

    run(scenario)


def test_one_that_waits_for_its_answer_is_not_idle_nor_one_just_answered() -> None:
    async def scenario(box: Box) -> None:
        busy, gathering, slow = box.connect(), box.connect(), box.connect()
        lines = (busy, gathering, slow)
        for line in lines:
            await line.ask(GOOD)
        box.buffer.gate.clear()
        busy.send(GOOD)
        gathering.send(GOOD[:-3])
        slow.send(request(INGEST, ITEM, "Expect: 100-continue"))
        await box.settle()
        box.clock.advance(KEEP_ALIVE_S * 2)
        box.reaper.sweep()
        assert not any(line.is_closed() for line in lines)
        box.buffer.gate.set()
        gathering.send(GOOD[-3:])
        await box.settle()
        box.reaper.sweep()
        assert [line.take().content.count(OK) for line in lines] == [1, 1, 1]
        # They have been quiet for long, but were answered just now.
        assert not any(line.is_closed() for line in lines)
        box.clock.advance(KEEP_ALIVE_S)
        box.reaper.sweep()
        assert all(line.is_closed() for line in lines)

    run(scenario)


def test_the_reaper_has_a_timer_only_while_it_watches() -> None:
    class Idler:
        is_idle = True
        heard_at = 1000.0

        def give_way(self) -> None:
            self.is_idle = False

    class Loop:
        def __init__(self) -> None:
            self.calls: list[tuple[float, Callable[[], None]]] = []

        def call_later(self, delay: float, call: Callable[[], None]) -> "Loop":
            self.calls.append((delay, call))
            return self

        def cancel(self) -> None:
            self.calls.clear()

    clock, loop = ManualClock(), Loop()
    reaper = Reaper(loop, clock, 8)  # type: ignore[arg-type]
    one, other = Idler(), Idler()
    reaper.watch(one)
    reaper.watch(other)
    assert [delay for delay, _ in loop.calls] == [8 / SWEEPS_PER_TIMEOUT]
    reaper.forget(other)
    for _ in range(SWEEPS_PER_TIMEOUT - 1):
        clock.advance(1)
        loop.calls.pop()[1]()
        assert one.is_idle
        assert len(loop.calls) == 1
    clock.advance(1)
    loop.calls.pop()[1]()
    assert not one.is_idle
    assert other.is_idle
    assert loop.calls == []
    reaper.watch(other)
    reaper.close()
    assert loop.calls == []


def test_idle_ones_give_way_at_the_limit_and_busy_ones_do_not() -> None:
    async def scenario(box: Box) -> None:
        first, second = box.connect(), box.connect()
        await first.ask(GOOD)
        box.clock.advance(1)
        await second.ask(GOOD)
        box.buffer.gate.clear()
        first.send(GOOD)
        third = box.connect()
        assert second.is_closed()
        assert not first.is_closed()
        third.send(GOOD[:-1])
        late = box.connect()
        assert late.take() == Said(REFUSAL, closed=True)
        assert (await late.ask(GOOD)).content == b""
        box.buffer.gate.set()
        third.send(GOOD[-1:])
        await box.settle()
        assert first.take().content.startswith(OK)
        assert third.take().content.startswith(OK)

    run(scenario, connections_max=2)


# --- clients that leave


def test_one_that_leaves_before_its_answer_has_its_reading_stored_and_costs_no_other() -> None:
    async def scenario(box: Box) -> None:
        lines = [box.connect() for _ in range(5)]
        box.buffer.gate.clear()
        for line in lines:
            line.send(GOOD + GOOD)
        await box.settle()
        before = len(box.stored())
        for line in lines[1:4]:
            line.hang_up()
        box.buffer.gate.set()
        await box.settle()
        # Their first readings are stored, their second ones were never begun.
        assert len(box.stored()) - before == 5 + 2
        assert [line.take().content.count(OK) for line in lines] == [2, 0, 0, 0, 2]
        assert "error" not in box.told.getvalue()
        for line in lines:
            line.hang_up()
        assert not box.server.server_state.connections

    run(scenario)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_written_or_held_after_the_end(fails: bool) -> None:
    async def scenario(box: Box) -> None:
        waiting, gathering = box.connect(), box.connect()
        box.buffer.gate.clear()
        if fails:
            box.buffer.failure = lambda: DiskFullError("no space")
        waiting.send(LARGE)
        gathering.send(LARGE[:-10])
        await box.settle()
        assert box.bodies.held == 2 * len(ITEM + b"[]" + b" " * 60_000)
        for line in (waiting, gathering):
            line.hang_up()
        box.buffer.gate.set()
        await box.settle()
        assert box.bodies.held == 0
        assert waiting.take().content == gathering.take().content == b""
        assert box.server.server_state.connections == set()

    run(scenario)


def test_what_comes_after_the_end_is_not_read() -> None:
    """TLS may bring bytes after a close: those of a body that was refused are no request."""

    async def scenario(box: Box) -> None:
        line = box.connect()
        line.send(request(INGEST, ITEM + b" " * 500)[:-500])
        async with asyncio.timeout(10):
            while not line.is_closed():  # noqa: ASYNC110 - the server's own timer
                await asyncio.sleep(0.01)
        assert line.take().content.startswith(b"HTTP/1.1 408 ")
        before = len(box.stored())
        line.protocol.data_received(GOOD)
        await box.settle()
        assert len(box.stored()) == before

    run(scenario, request_timeout_s=1)


# --- a clean stop


def test_a_stop_answers_what_is_in_flight_as_uvicorn_would() -> None:
    async def scenario(box: Box) -> tuple[Any, ...]:
        await box.ask(GOOD)
        lines = {name: box.connect() for name in ("idle", "fresh", "single", "batch", "gathering")}
        await lines["idle"].ask(GOOD)
        box.buffer.gate.clear()
        lines["single"].send(GOOD)
        lines["batch"].send(request(BATCH, b"[%b]" % ITEM))
        lines["gathering"].send(GOOD[:-4])
        await box.settle()
        for line in lines.values():
            line.protocol.shutdown()
        assert lines["idle"].is_closed()
        assert lines["fresh"].is_closed()
        assert not lines["gathering"].is_closed()
        lines["gathering"].send(GOOD[-4:])
        box.buffer.gate.set()
        await box.settle()
        said = [line.take() for line in lines.values()]
        assert b"\r\nconnection: close\r\n" in said[-1].content
        return (
            [len(said[n].content) for n in range(5)],
            [each.closed for each in said],
            sorted(each.content.split(b"{")[0] for each in said),
        )

    fast, slow = play(None, scenario)
    assert fast == slow


def test_a_stop_does_not_begin_what_was_sent_ahead() -> None:
    async def scenario(box: Box) -> None:
        line = box.connect()
        box.buffer.gate.clear()
        line.send(GOOD * 5)
        await box.settle()
        line.protocol.shutdown()
        before = len(box.stored())
        box.buffer.gate.set()
        await box.settle()
        said = line.take()
        assert said.closed
        assert said.content.count(OK) == 1
        assert len(box.stored()) - before == 1

    run(scenario)


# --- pressure


def test_one_that_does_not_read_is_not_read_from() -> None:
    async def scenario(box: Box) -> None:
        line = box.connect()
        line.protocol.pause_writing()
        before = len(box.stored())
        for _ in range(2 * HELD_BYTES_MAX // len(GOOD)):
            line.send(GOOD)
        await box.settle()
        assert len(box.stored()) == before
        assert line.is_waiting()
        # Others are served meanwhile.
        assert (await box.ask(GOOD)).content.startswith(OK)
        line.protocol.resume_writing()
        await box.settle()
        assert not line.is_waiting()
        assert line.take().content.count(OK) == 2 * HELD_BYTES_MAX // len(GOOD)

    run(scenario)


def test_one_that_stops_reading_in_between_goes_on_where_it_was() -> None:
    async def scenario(box: Box) -> None:
        line = box.connect()
        box.buffer.gate.clear()
        line.send(GOOD * 4 + request("/nothing", method="GET") + GOOD)
        await box.settle()
        line.protocol.pause_writing()
        box.buffer.gate.set()
        await box.settle()
        # What was in flight is answered, nothing else is begun.
        assert line.take().content.count(OK) == 1
        line.protocol.resume_writing()
        await box.settle()
        content = line.take().content
        assert content.count(OK) == 4
        assert content.count(b"HTTP/1.1 404") == 1
        assert content.index(b"HTTP/1.1 404") < content.rindex(OK)

    run(scenario)


def test_one_that_sends_ahead_does_not_keep_others_waiting() -> None:
    async def scenario(box: Box) -> None:
        greedy = [box.connect() for _ in range(3)]
        start = len(box.buffer.intakes)
        for line in greedy:
            line.send(GOOD * 300)
        modest = box.connect()
        other = request(INGEST, b'{"sensor_id":"m","value":1}')
        await modest.ask(other)
        modest.take()
        for _ in range(5):
            for _ in range(10):
                await asyncio.sleep(0)
            asked_at = len(box.buffer.intakes)
            modest.send(other)
            while not modest.wire.written:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0)
            # In the group that is on its way then there is no place any more; in the next one.
            assert len(box.buffer.intakes) - asked_at <= 3
            modest.take()
        await box.settle()
        for intake in box.buffer.intakes[start:]:
            assert intake.rows <= len(greedy) + 1, "somebody had two turns"
        assert [line.take().content.count(OK) for line in greedy] == [300] * 3

    run(scenario)


def test_a_large_body_of_one_does_not_stop_another_and_memory_is_given_back() -> None:
    async def scenario(box: Box) -> None:
        line, other = box.connect(), box.connect()
        box.buffer.gate.clear()
        line.send(LARGE + GOOD)
        await box.settle()
        assert box.bodies.held
        box.buffer.gate.set()
        other.send(GOOD)
        await box.settle()
        assert other.take().content.startswith(OK)
        assert line.take().content.count(OK) == 2
        assert box.bodies.held == 0

    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_answers_come_once_and_in_order(seed: int) -> None:
    """Many connections send short and long ways mixed, in pieces, stop reading, and leave."""
    chance = random.Random(seed)

    def ask_for(value: int) -> bytes:
        item = b'{"sensor_id":"s","value":%d}' % value
        return chance.choice(
            [
                request(INGEST, item),
                request(INGEST, item),
                request(BATCH, b"[%b]" % item),
                request(INGEST, item, f"Idempotency-Key: {value}"),
                request(INGEST, item, "Origin: http://localhost"),
                b"\r\n" + request(INGEST, item),
                request(INGEST, item + b" " * 9_000),
            ]
        )

    async def scenario(box: Box) -> None:
        lines = [box.connect() for _ in range(8)]
        sent: list[list[int]] = [[] for _ in lines]
        stream = [b"" for _ in lines]
        value = 1_000
        for _ in range(600):
            number = chance.randrange(len(lines))
            line = lines[number]
            action = chance.random()
            if action < 0.4:
                value += 1
                sent[number].append(value)
                stream[number] += ask_for(value)
            elif action < 0.8:
                size = chance.randint(0, len(stream[number]))
                line.send(stream[number][:size])
                stream[number] = stream[number][size:]
            elif action < 0.85:
                line.protocol.pause_writing()
            elif action < 0.92:
                line.protocol.resume_writing()
            elif action < 0.95:
                box.buffer.gate.clear()
            else:
                box.buffer.gate.set()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            for other in lines:
                other.pump()
        # Two leave with whatever they have on their way; the others are answered to the end.
        for line in lines[:2]:
            line.hang_up()
        box.buffer.gate.set()
        for line, rest in zip(lines[2:], stream[2:], strict=True):
            line.protocol.resume_writing()
            line.send(rest)
        await box.settle()
        values = [row[4] for row in box.stored()]
        assert len(set(values)) == len(values), "a request was served twice"
        for number, (line, expected) in enumerate(zip(lines, sent, strict=True)):
            content = line.take().content
            ids = [int(found) for found in re.findall(rb'"ids?":\[?(\d+)', content)]
            answered = [values[reading_id - 1] for reading_id in ids]
            assert content.count(b"HTTP/1.1 ") == len(ids) == content.count(OK)
            assert answered == expected[: len(answered)]
            assert number < 2 or len(answered) == len(expected)
        assert box.bodies.held == 0

    run(scenario)


def test_an_empty_line_does_not_keep_a_connection_for_ever() -> None:
    async def scenario(box: Box) -> None:
        fresh, used = box.connect(), box.connect()
        await used.ask(request("/nothing", method="GET"))
        for line in (fresh, used):
            line.send(b"\r\n")
        async with asyncio.timeout(10):
            while not (fresh.is_closed() and used.is_closed()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert fresh.take().content == used.take().content == b""

    run(scenario, request_timeout_s=1)


@pytest.mark.parametrize("path", ["fast", "slow"])
def test_who_never_reads_its_answers_is_cut_off_in_the_end(path: str) -> None:
    """While it holds a place, and after a close, which would wait for it for ever."""

    async def scenario(box: Box) -> None:
        stuck, slow, closing = box.connect(), box.connect(), box.connect()
        raw = GOOD if path == "fast" else request("/nothing", method="GET")
        for line in (stuck, slow):
            line.wire.unread = 100_000
            line.protocol.pause_writing()
            line.send(raw)
        closing.wire.unread = 500
        closing.send(request(INGEST, ITEM, "Connection: close"))
        await box.settle()
        assert closing.is_closed()
        assert not closing.was_aborted()
        async with asyncio.timeout(10):
            while not (stuck.was_aborted() and closing.was_aborted()):
                slow.wire.unread = max(1, slow.wire.unread - 1)
                await asyncio.sleep(0.01)
        assert not slow.is_closed()
        slow.wire.unread = 0
        slow.protocol.resume_writing()
        await box.settle()
        assert slow.take().content.startswith(b"HTTP/1.1 ")

    run(scenario, keep_alive_s=1)


def test_a_real_client_that_never_reads_is_cut_off() -> None:
    async def scenario(rig: Rig) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", rig.ports[0]))
            client.setblocking(False)
            await rig.counted(1)
            (held,) = rig.server.server_state.connections
            type(held).bounds = ServerSettings(port=0, keep_alive_s=1)  # type: ignore[union-attr]
            held.transport.write(b"x" * 20_000_000)
            await asyncio.get_running_loop().sock_sendall(client, REQUEST)
            await rig.counted(0)

    run_rig(scenario)
