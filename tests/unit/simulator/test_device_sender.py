"""The sender of devices: whatever the box does, each frame meets its fate once."""

import heapq
import itertools
import os
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from ocean_core.obs.clock import ManualClock
from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE
from ocean_core.simulator.device_channel import ANSWER_WITHIN_S, IN_FLIGHT_FRAMES_MAX, DeviceChannel
from ocean_core.simulator.device_sender import DeviceRun, DeviceSender
from ocean_core.simulator.plan import Faults, FrameOrder, Order
from ocean_core.simulator.prepare import prepare
from ocean_core.simulator.tally import Tally
from support.frame_box import LATER, LOSE, LOSE_AFTER, Decide, FrameBox, Visit

SECRET = b"s" * 32
LATENCY_S = 0.001


class Rim:
    """Virtual time, and connections to the box."""

    def __init__(self, box: FrameBox, clock: ManualClock) -> None:
        self.box = box
        self.clock = clock
        self.is_up: Callable[[], bool] = lambda: True
        self.is_silent = False
        self.piece_bytes = 65536
        self.wires: list[Wire] = []
        self._todo: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        heapq.heappush(self._todo, (self.clock.monotonic() + delay_s, next(self._order), callback))
        return None

    def connect(self, channel: DeviceChannel) -> None:
        def connected() -> None:
            if not self.is_up():
                channel.not_connected()
                return
            wire = Wire(self, channel, self.box.connect())
            self.wires.append(wire)
            channel.connection_made(wire)  # type: ignore[arg-type]

        self.later(LATENCY_S, connected)

    def run(self, until: Callable[[], bool], *, within_s: float = 600.0) -> None:
        deadline = self.clock.monotonic() + within_s
        while not until():
            assert self._todo, "nothing is left to happen"
            at, _, callback = heapq.heappop(self._todo)
            assert at <= deadline, "it takes too long"
            self.clock.advance(max(0.0, at - self.clock.monotonic()))
            callback()


class Wire:
    """One connection."""

    def __init__(self, rim: Rim, channel: DeviceChannel, visit: Visit) -> None:
        self._rim = rim
        self._channel: Any = channel
        self._visit = visit
        self.is_over = False

    def is_closing(self) -> bool:
        return self.is_over

    def write(self, data: bytes) -> None:
        assert not self.is_over
        if self._rim.is_silent:
            return
        answer, ends = self._visit.feed(data)

        def arrive() -> None:
            size = self._rim.piece_bytes
            for at in range(0, len(answer), size):
                self._channel.data_received(answer[at : at + size])
            if ends:
                self.close()

        self._rim.later(LATENCY_S, arrive)

    def close(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._rim.later(LATENCY_S, lambda: self._channel.connection_lost(None))

    abort = close


class Lab:
    """A sender in virtual time."""

    def __init__(
        self, decide: Decide = lambda _: None, *, count: int | None = 3_000, rate: float | None = None,
        faults: Faults = Faults.NONE, level: int = 1, connections: int | None = None,
    ) -> None:  # fmt: skip
        self.clock = ManualClock()
        self.began_s = self.clock.monotonic()
        order = Order(
            sensors=10, faults=faults, count=count, seconds=None, rate=rate, keys=False,
            connections=connections,
            frames=FrameOrder(level=level, secrets={PRESSURE: SECRET, GAS: SECRET}),
        )  # fmt: skip
        self.names, run = prepare(order, "s-", "cafe", clock=self.clock, random_bytes=os.urandom)
        assert isinstance(run, DeviceRun)
        self.figures, self.tally = run.figures, run.tally
        self.box = FrameBox(lambda: self.clock.now_us() // 1_000_000, SECRET, decide)
        self.rim = Rim(self.box, self.clock)
        self.sender = DeviceSender(run, self.rim, self.clock, Random(5))

    @property
    def passed_s(self) -> float:
        return self.clock.monotonic() - self.began_s

    def run(self, within_s: float = 600.0) -> "Lab":
        self.sender.begin()
        self.rim.run(lambda: self.sender.is_done, within_s=within_s)
        return self

    def check_clean(self) -> None:
        """What was acknowledged is what the box has."""
        tally: Tally = self.tally
        for place, (device, metric) in enumerate(self.names):
            stored = [one for one in self.box.readings() if one[:2] == (device, metric)]
            assert tally.share(place).count == len(stored)
        assert tally.unresolved_readings == 0
        assert self.figures.repeats_stored_again == 0


def on(what: object, *numbers: int) -> Decide:
    return lambda number: what if number in numbers else None


def test_everything_is_sent_once_and_counted() -> None:
    lab = Lab().run()
    lab.check_clean()
    figures = lab.figures
    assert figures.acknowledged_readings == figures.sent_readings == 3_000
    assert figures.acknowledged_requests == figures.sent_requests == len(lab.box.stored)
    assert (figures.resent, figures.refused_requests, lab.box.duplicates) == (0, 0, 0)
    assert lab.box.connections == 10
    assert figures.latencies.percentile_s(50) == pytest.approx(LATENCY_S, rel=0.05)


@pytest.mark.parametrize("piece_bytes", [1, 5, 12, 1000])
def test_answers_in_pieces_are_answers(piece_bytes: int) -> None:
    lab = Lab(on(LATER, 77))
    lab.rim.piece_bytes = piece_bytes
    lab.run().check_clean()
    assert lab.figures.acknowledged_readings == 3_000


@pytest.mark.parametrize("level", [0, 1, 2])
def test_after_a_lost_connection_everything_unanswered_is_sent_again(level: int) -> None:
    events = {5: LOSE, 300: LOSE_AFTER, 301: LOSE, 700: LOSE_AFTER, 1200: LOSE}
    lab = Lab(events.get, level=level).run()
    lab.check_clean()
    assert lab.figures.acknowledged_readings == 3_000
    assert lab.figures.lost_answers >= 4
    assert lab.box.duplicates >= 2
    assert lab.figures.refused_requests == 0


def test_a_frame_that_is_put_off_comes_again_after_its_time() -> None:
    lab = Lab(on(LATER, 10, 11, 500)).run()
    lab.check_clean()
    assert lab.figures.busy_answers == lab.figures.resent == 3
    assert lab.passed_s > 1.0
    assert lab.figures.acknowledged_readings == 3_000


def test_all_faults_together_lose_nothing() -> None:
    chance = Random(1)

    def decide(number: int) -> object:
        return chance.choice([LOSE, LOSE_AFTER, LATER]) if chance.random() < 0.01 else None

    lab = Lab(decide, faults=Faults.MANY, count=20_000).run()
    lab.check_clean()
    figures = lab.figures
    assert figures.acknowledged_readings + figures.refused_readings == 20_000
    assert set(figures.reasons) == {"E_FUTURE", "E_STALE"}
    assert figures.repeats > 0
    assert lab.box.suspects > 0


def test_a_box_that_is_away_is_waited_for() -> None:
    lab = Lab()
    lab.rim.is_up = lambda: lab.passed_s > 7.0
    lab.run().check_clean()
    assert lab.figures.acknowledged_readings == 3_000


def test_a_box_that_says_nothing_is_connected_to_anew() -> None:
    lab = Lab()
    lab.rim.is_silent = True
    lab.sender.begin()
    lab.rim.later(1.1, lambda: None)
    lab.rim.run(lambda: lab.passed_s > 1.0)
    assert lab.figures.sent_requests <= 10 * (IN_FLIGHT_FRAMES_MAX + 128)
    lab.clock.advance(ANSWER_WITHIN_S)
    lab.rim.is_silent = False
    lab.sender.look(600)
    lab.rim.run(lambda: lab.sender.is_done)
    lab.check_clean()
    assert lab.figures.acknowledged_readings == 3_000


def test_what_is_never_answered_is_left_open() -> None:
    lab = Lab()
    lab.rim.is_silent = True
    lab.sender.begin()
    lab.rim.later(1.1, lambda: None)
    lab.rim.run(lambda: lab.passed_s > 1.0)
    lab.clock.advance(31.0)
    lab.sender.look(30.0)
    assert lab.sender.given_up
    assert lab.tally.unresolved_readings == lab.figures.sent_readings > 0


def test_only_refusals_end_the_run() -> None:
    lab = Lab(count=None)
    lab.box.keys = type(lab.box.keys)({})
    lab.run()
    assert set(lab.figures.reasons) == {"E_KEY"}
    assert lab.figures.acknowledged_readings == 0
    assert not lab.box.stored


def test_a_rate_is_kept() -> None:
    lab = Lab(rate=50.0, count=500).run()
    lab.check_clean()
    assert lab.figures.acknowledged_readings == 500
    assert lab.passed_s == pytest.approx(10.0, abs=1.5)
    ahead = [one[2] - lab.clock.now_us() / 1e6 for one in lab.box.readings()]
    assert max(ahead) <= 0
    assert min(ahead) > -12


def test_an_end_waits_for_what_is_under_way() -> None:
    lab = Lab(count=None)
    lab.sender.begin()
    lab.rim.run(lambda: lab.figures.acknowledged_requests > 500)
    lab.sender.end()
    lab.rim.run(lambda: lab.sender.is_done)
    lab.check_clean()
    assert lab.figures.acknowledged_readings == lab.figures.sent_readings
