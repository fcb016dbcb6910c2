"""Gaps of devices: columns of many devices do what one simple list per device would."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.frames.gaps import GAP, METRIC, GapBook

MAX_AGE_S = 600
START_S = 1_780_000_000


@dataclass
class Sink:
    found: dict[str, int] = field(default_factory=dict)

    def lost(self, loss_class: str, sensors: Mapping[str, int]) -> None:
        assert loss_class == GAP
        for name, count in sensors.items():
            self.found[name] = self.found.get(name, 0) + count


@dataclass
class Missing:
    after: int
    before: int
    count: int
    late: int | None = None


@dataclass
class Device:
    """What the book is to know of one device, the simple way."""

    newest: int | None = None
    differences: list[int] = field(default_factory=list)
    gaps: list[Missing] = field(default_factory=list)
    final: int = 0

    @property
    def spacing(self) -> float:
        last = self.differences[-16:]
        if len(last) < 8:
            return math.inf
        median = statistics.median(last)
        alike = sum(abs(one - median) <= median / 2 for one in last)
        return median if alike / len(last) >= 0.625 else math.inf

    def take(self, times: Sequence[int]) -> None:
        spacing = self.spacing
        grown: list[int] = []
        for time in times:
            if self.newest is None:
                self.newest = time
            elif time > self.newest:
                step = time - self.newest
                grown.append(step)
                if step >= 2.5 * spacing:
                    self.gaps.append(Missing(self.newest, time, round(step / spacing) - 1))
                    if len(self.gaps) > 16:
                        self.final += self.gaps.pop(0).count
                self.newest = time
            else:
                self.late(time)
        self.differences += grown
        spacing = self.spacing
        if grown and spacing < math.inf:
            self.gaps = [one for one in self.gaps if one.before - one.after >= 2.5 * spacing]

    def late(self, time: int) -> None:
        for gap in self.gaps:
            if gap.after < time < gap.before:
                gap.count -= gap.late != time
                gap.late = time
        self.gaps = [gap for gap in self.gaps if gap.count]

    def tick(self, now: int) -> None:
        self.final += sum(gap.count for gap in self.gaps if gap.before < now - MAX_AGE_S)
        self.gaps = [gap for gap in self.gaps if gap.before >= now - MAX_AGE_S]


# Mostly a steady pace, with pauses, jumps back (late frames) and repeats of a moment.
STEPS = st.one_of(
    st.sampled_from([10, 10, 10, 10, 10, 9, 11]),
    st.sampled_from([0, 5, 20, 24, 25, 26, 30, 60, 200, 1]),
    st.integers(-120, -1),
)
FRAMES = st.lists(st.tuples(st.integers(0, 3), STEPS), max_size=60)
ACTS = st.lists(st.one_of(FRAMES, st.integers(0, 2 * MAX_AGE_S)), max_size=12)


@settings(max_examples=300)
@given(ACTS, st.booleans())
def test_many_devices_at_a_time_are_each_one_alone(
    acts: list[list[tuple[int, int]] | int], begins_steady: bool
) -> None:
    sink = Sink()
    metrics = MetricsRegistry(METRICS)
    book = GapBook(sink, metrics, MAX_AGE_S)
    sensors = [f"device-{i}" for i in range(4)]
    devices = [Device() for _ in sensors]
    at = [START_S] * len(sensors)
    if begins_steady:
        acts = [[(i % 4, 10) for i in range(4 * 20)], *acts]
    for act in acts:
        if isinstance(act, int):
            now = max(at) + act
            book.tick(now)
            for device in devices:
                device.tick(now)
            continue
        times = []
        for device_no, step in act:
            if step < 0:
                times.append(at[device_no] + step)
            else:
                at[device_no] += step
                times.append(at[device_no])
        places = [device_no for device_no, _ in act]
        book.note(sensors, np.array(places, dtype=np.int64), np.array(times, dtype=np.uint32))
        for i, device in enumerate(devices):
            own = [t for t, place in zip(times, places, strict=True) if place == i]
            if own:
                device.take(own)
    assert book.open_frames == sum(gap.count for one in devices for gap in one.gaps)
    book.close()
    for device in devices:
        device.tick(2**40)
    expected = {n: one.final for n, one in zip(sensors, devices, strict=True) if one.final}
    assert sink.found == expected
    assert metrics.value(METRIC) == sum(expected.values())
    assert book.open_frames == 0
