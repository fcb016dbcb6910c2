"""How long a group is gathered (``journal.commit_delay_ms``): on a clock that the waits move."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.buffer.embedded.writer import (
    GROUP_BYTES_MAX,
    GROUP_REQUESTS_MAX,
    Callbacks,
    JournalWriter,
    Waiting,
)
from ocean_core.buffer.port import BufferState
from ocean_core.obs.clock import ManualClock
from support.journal_kit import WAIT_S, intake_of, readings, settings_for


class Condition:
    """Stands in for the thread's: a wait moves the clock by its whole time, or until ``events``."""

    def __init__(self, clock: ManualClock) -> None:
        self.waits: list[float] = []
        self.notified = 0
        self.events: list[tuple[float, Callable[[], None]]] = []
        self._clock = clock

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return

    def notify(self) -> None:
        self.notified += 1

    def wait(self, seconds: float | None) -> bool:
        assert seconds is not None, "there is work: it must not wait for ever"
        self.waits.append(round(seconds, 6))
        ends, before = self._clock.monotonic() + seconds, self.notified
        while self.events and self.events[0][0] <= ends:
            at, event = self.events.pop(0)
            self._clock.advance(at - self._clock.monotonic())
            event()
            if self.notified > before:
                return True
        self._clock.advance(ends - self._clock.monotonic())
        return False


class Bench:
    def __init__(self, directory: Path, commit_delay_ms: int) -> None:
        self.clock = ManualClock()
        settings = settings_for(directory, clock=self.clock, commit_delay_ms=commit_delay_ms)
        self.loop = asyncio.new_event_loop()
        callbacks = Callbacks(self.loop, lambda *_: None, lambda *_: None)
        self.writer = JournalWriter(settings, callbacks)
        self.writer.state = BufferState.READY
        self.condition = Condition(self.clock)
        self.writer._condition = self.condition  # type: ignore[assignment]
        self.begun = self.clock.monotonic()

    def put(self, count: int = 1, cost: int = 100) -> None:
        for _ in range(count):
            self.writer.put(
                Waiting(
                    intake_of(readings(1)), None, None, cost, self.loop.create_future(),
                    self.clock.monotonic(),
                )
            )  # fmt: skip

    def put_at(self, seconds: float, count: int = 1, cost: int = 100) -> None:
        at = self.begun + seconds
        self.condition.events.append((at, lambda: self.put(count, cost)))

    def take(self) -> tuple[int, float]:
        """Return the size of the group and how long after the beginning it was taken."""
        group, _ = self.writer._take()
        return len(group), round(self.clock.monotonic() - self.begun, 6)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[int], Bench]]:
    made: list[Bench] = []

    def make(commit_delay_ms: int) -> Bench:
        made.append(Bench(tmp_path, commit_delay_ms))
        return made[-1]

    yield make
    for one in made:
        one.loop.close()


def test_without_a_delay_nothing_waits(bench: Callable[[int], Bench]) -> None:
    rig = bench(0)
    rig.put(3)
    assert rig.take() == (3, 0.0)
    assert rig.condition.waits == []


def test_a_lone_reading_waits_for_the_whole_delay(bench: Callable[[int], Bench]) -> None:
    rig = bench(1000)
    rig.put()
    assert rig.take() == (1, 1.0)


def test_the_delay_counts_from_the_first_reading_of_the_group(
    bench: Callable[[int], Bench],
) -> None:
    rig = bench(100)
    rig.put()
    rig.clock.advance(0.03)  # the commit before took so long
    for at in (0.05, 0.09, 0.2):
        rig.put_at(at)
    assert rig.take() == (3, 0.1)
    assert rig.condition.waits == [0.07], "readings that only wait do not wake the thread"


def test_what_has_waited_long_enough_is_not_made_to_wait_again(
    bench: Callable[[int], Bench],
) -> None:
    rig = bench(100)
    rig.put()
    rig.clock.advance(5)
    assert rig.take() == (1, 5.0)
    assert rig.condition.waits == []


@pytest.mark.parametrize(
    ("count", "cost"), [(GROUP_REQUESTS_MAX, 10), (2, GROUP_BYTES_MAX // 2)], ids=["many", "large"]
)
def test_a_full_group_closes_early(bench: Callable[[int], Bench], count: int, cost: int) -> None:
    rig = bench(1000)
    rig.put(1, cost)
    rig.put_at(0.2, count - 2, cost)
    rig.put_at(0.3, 1, cost)
    rig.put_at(0.4, 1, cost)
    assert rig.take() == (count, 0.3)
    assert rig.condition.notified == 1


def test_a_full_group_is_acknowledged_before_its_time(tmp_path: Path) -> None:
    """The same with the real thread: only a full group can end this test in time."""
    journal = EmbeddedJournal(settings_for(tmp_path, commit_delay_ms=600_000))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            one = intake_of(readings(1))
            await asyncio.gather(*[journal.append(one) for _ in range(GROUP_REQUESTS_MAX)])
            assert journal.head_id == GROUP_REQUESTS_MAX
            await journal.close()

    asyncio.run(scenario())
