"""The scrub reports what it finds and takes its share of time, no more."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from ocean_core.buffer.port import IdRange
from ocean_core.model.errors import StoreCorruptError
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.pipeline.scrub import Scrubber, Step


@dataclass(frozen=True)
class Found:
    up_to_id: int
    damaged: list[IdRange]


class Journal:
    def __init__(self, steps: list[Step], error: StoreCorruptError | None = None) -> None:
        self.steps = steps
        self.error = error
        self.closed = False

    def verify_blocks(self, after_id: int = 0) -> Iterator[Step]:
        assert after_id == 0
        yield from self.steps
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed = True


def test_damage_is_reported_and_the_journal_closed() -> None:
    clock, stream = ManualClock(), io.StringIO()
    journal = Journal([Found(10, []), Found(20, [IdRange(12, 13)])])
    told: list[list[IdRange]] = []
    log = EventLog(clock, stream=stream)
    scrubber = Scrubber(lambda: journal, told.append, clock=clock, log=log)
    scrubber.start()
    scrubber.stop(10)
    assert journal.closed
    assert told in ([[IdRange(12, 13)]], [])
    assert scrubber.scrub(Journal(journal.steps)) == 10  # a stop is obeyed after the first step


def test_all_steps_are_taken_unless_stopped() -> None:
    clock = ManualClock()
    log = EventLog(clock, stream=io.StringIO())
    told: list[list[IdRange]] = []
    scrubber = Scrubber(lambda: Journal([]), told.append, clock=clock, log=log)
    steps: list[Step] = [Found(10, [IdRange(1, 2)]), Found(20, []), Found(30, [IdRange(25, 25)])]
    assert scrubber.scrub(Journal(steps)) == 30
    assert told == [[IdRange(1, 2)], [IdRange(25, 25)]]


def test_a_journal_that_cannot_be_read_ends_the_scrub_with_a_word() -> None:
    clock, stream = ManualClock(), io.StringIO()
    journal = Journal([], StoreCorruptError("file is not a database"))
    scrubber = Scrubber(
        lambda: journal, lambda _: None, clock=clock, log=EventLog(clock, stream=stream)
    )
    scrubber.start()
    scrubber.stop(10)
    assert "not a database" in stream.getvalue()
    assert journal.closed
