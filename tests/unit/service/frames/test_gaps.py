"""Gaps of devices: what counts as one, what fills it, when it is final, and what bounds it all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from ocean_core.model import limits
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.frames.gaps import GapBook
from ocean_core.service.ledger import RefusalBook

START_S = 1_780_000_000
MAX_AGE_S = 3_600


class Box:
    """A book of gaps over the book of the ledger."""

    def __init__(self) -> None:
        self.ledger = RefusalBook()
        self.book = GapBook(self.ledger, MetricsRegistry(METRICS), MAX_AGE_S)

    def sends(self, sensor_id: str, *times_s: int) -> None:
        """Frames of a device, seconds after the start, each for itself."""
        for time_s in times_s:
            self.book.note([sensor_id], np.zeros(1, np.int64), np.array([START_S + time_s]))

    def steady(self, sensor_id: str, count: int = 20, spacing: int = 10) -> None:
        self.sends(sensor_id, *range(0, count * spacing, spacing))

    def final(self, at_s: int) -> Mapping[tuple[str, str], int]:
        self.book.tick(START_S + at_s)
        return self.ledger.take()


@pytest.fixture
def box() -> Box:
    return Box()


def test_frames_that_never_come_are_counted_when_they_no_longer_can(box: Box) -> None:
    box.steady("a")
    box.sends("a", 250, 260)
    assert box.book.open_frames == 5
    assert box.final(250 + MAX_AGE_S) == {}
    assert box.final(251 + MAX_AGE_S) == {("a", "gap"): 5}
    assert box.final(10**6) == {}


def test_late_frames_fill_a_gap(box: Box) -> None:
    box.steady("a")
    box.sends("a", 250, 200, 230, 230, 210)
    # Twice the same moment: two metrics, one frame each.
    assert box.book.open_frames == 2
    box.sends("a", 220, 240, 190, 200)
    assert box.book.open_frames == 0
    assert box.final(10**6) == {}


def test_devices_without_a_pace_have_no_gaps(box: Box) -> None:
    at = 0
    for step in (1, 50, 2, 300, 7, 90, 1, 4, 700, 20, 3, 1, 60, 9, 200, 2, 3_000, 1, 25, 400):
        at += step
        box.sends("events", at)
    box.steady("few", count=8)
    box.sends("few", 1_000)
    assert box.book.open_frames == 0


def test_a_pace_that_changes_is_no_loss(box: Box) -> None:
    box.steady("a")
    box.sends("a", *range(250, 250 + 60 * 14, 60))
    assert box.book.open_frames == 0
    box.sends("a", 250 + 60 * 13 + 600)
    assert box.book.open_frames == 9


def test_a_clock_that_was_ahead_for_a_moment_heals(box: Box) -> None:
    box.steady("a")
    box.sends("a", 240)
    assert box.book.open_frames == 4
    box.sends("a", 200, 210, 220, 230, 240, 250)
    assert box.book.open_frames == 0


def test_single_frames_are_taken_together(box: Box) -> None:
    for i in range(20):
        box.book.note_one("a", START_S + 10 * i)
        box.book.note_one("b", START_S + 10 * i)
    assert box.book.devices == 0
    box.book.tick(START_S)
    assert box.book.devices == 2
    for _ in range(600):
        box.book.note_one("a", START_S + 300)
    assert box.book.open_frames == 10
    box.book.note_one("b", START_S + 300)
    box.book.close()
    assert box.ledger.take() == {("a", "gap"): 10, ("b", "gap"): 10}


def test_devices_and_gaps_are_bounded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GAP_DEVICES_MAX", 300)
    monkeypatch.setattr(limits, "GAPS_PER_DEVICE_MAX", 3)
    box.steady("a")
    box.sends("a", *(200 + 50 * i + j for i in range(1, 4) for j in (0, 10, 20, 30)))
    at = 10_000
    for _ in range(5):
        box.sends("a", at, *(at + 10 * j for j in range(12)))
        at += 1_000
    assert len(box.book._gaps[0]) == 3
    lost_early = sum(box.ledger.take().values())
    assert lost_early > 900
    open_frames = box.book.open_frames
    names = [f"device-{i}" for i in range(700)]
    places = np.arange(700)
    box.book.note(names, places, np.full(700, START_S, dtype=np.uint32))
    # More than there is room for at once: those that found room stay.
    assert box.book.devices == 300
    assert sum(box.ledger.take().values()) == open_frames
    for place in range(700):
        box.sends(names[place], 20_000)
    assert box.book.devices <= 300
    assert box.book.open_frames == 0


def test_all_gaps_together_are_bounded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GAPS_MAX", 2)
    for name in "abcd":
        box.steady(name)
        box.sends(name, 300)
    assert box.book.open_frames == 20
    assert box.ledger.take() == {("c", "gap"): 10, ("d", "gap"): 10}
