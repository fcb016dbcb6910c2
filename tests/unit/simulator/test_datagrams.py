"""Frames as datagrams: a steady rate, and books of what was sent."""

import heapq
import itertools
import os
from collections.abc import Callable
from random import Random

import pytest

from ocean_core.obs.clock import ManualClock
from ocean_core.simulator.audit import arrived
from ocean_core.simulator.datagrams import DatagramSender
from ocean_core.simulator.device_sender import DeviceRun
from ocean_core.simulator.mischief import Mischief
from ocean_core.simulator.plan import DATAGRAMS_PER_S, Faults, FrameOrder, Order, Transport
from ocean_core.simulator.prepare import prepare
from ocean_core.simulator.tally import Share


class Rim:
    """Virtual time, and a socket that keeps what it is given."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, bytes]] = []
        self.is_there = True
        self.is_over = False
        self._todo: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        heapq.heappush(self._todo, (self.clock.monotonic() + delay_s, next(self._order), callback))
        return None

    def open(self, sender: DatagramSender) -> None:
        if self.is_there:
            self.later(0.0, lambda: sender.connection_made(self))  # type: ignore[arg-type]

    def sendto(self, data: bytes) -> None:
        self.sent.append((self.clock.monotonic(), data))

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def run(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self._todo and self._todo[0][0] <= end and not self.is_over:
            at, _, callback = heapq.heappop(self._todo)
            self.clock.advance(max(0.0, at - self.clock.monotonic()))
            callback()


def lab(
    *, rate: float | None = None, count: int | None = None, faults: Faults = Faults.NONE
) -> tuple[DatagramSender, DeviceRun, Rim]:
    clock = ManualClock()
    order = Order(
        sensors=20, faults=faults, rate=rate, count=count, seconds=None, keys=False,
        frames=FrameOrder(Transport.UDP, 0),
    )  # fmt: skip
    _, run = prepare(order, "s-", "cafe", clock=clock, random_bytes=os.urandom)
    assert isinstance(run, DeviceRun)
    rim = Rim(clock)
    return DatagramSender(run, rim, clock, Mischief(faults, Random(1))), run, rim


def test_without_a_rate_it_sends_what_a_box_surely_takes() -> None:
    sender, run, rim = lab()
    sender.begin()
    rim.run(2.0)
    assert len(rim.sent) == pytest.approx(2 * DATAGRAMS_PER_S, rel=0.02)
    assert run.figures.sent_requests == len(rim.sent)
    assert run.figures.acknowledged_readings == 0


def test_a_rate_is_of_now_and_no_frame_is_ahead_of_its_time() -> None:
    sender, run, rim = lab(rate=100.0)
    sender.begin()
    rim.run(10.0)
    assert run.figures.sent_readings == pytest.approx(1000, rel=0.05)
    now_us = rim.clock.now_us() - int(rim.clock.monotonic() * 1e6)
    for at_s, frame in rim.sent:
        assert int.from_bytes(frame[8:12]) <= (now_us + at_s * 1e6) / 1e6


def test_it_ends_when_all_is_sent() -> None:
    sender, run, rim = lab(count=300)
    ended: list[bool] = []
    sender.on_done = lambda: ended.append(True)
    sender.begin()
    rim.run(5.0)
    assert ended == [True]
    assert rim.is_over
    assert run.figures.sent_readings == 300
    assert int(run.tally.counts.sum()) == 300


def test_repeats_and_wrong_clocks_are_not_expected_to_arrive_twice_or_at_all() -> None:
    sender, run, rim = lab(count=4_000, faults=Faults.MANY)
    sender.begin()
    rim.run(30.0)
    assert run.figures.repeats > 0
    assert len(rim.sent) == run.figures.sent_requests + run.figures.repeats
    assert int(run.tally.counts.sum()) < run.figures.sent_readings == 4_000


def test_without_a_socket_it_gives_up() -> None:
    sender, _, rim = lab()
    rim.is_there = False
    sender.begin()
    sender.look(30.0)
    assert not sender.given_up
    rim.clock.advance(31.0)
    sender.look(30.0)
    assert sender.given_up


def test_what_arrived_is_what_came_to_be_there() -> None:
    _, run, _ = lab(count=10)
    run.tally.counts[:2] = [5, 7]
    names = [("a", "pressure"), ("b", "pressure")]
    before = {names[0]: Share(2, 0)}
    after = {names[0]: Share(6, 0), names[1]: Share(9, 0)}
    found = arrived(names, run.tally, before, after)
    assert (found.sent, found.arrived, found.doubled) == (12, 13, 2)
