"""The keeper: chores in their order, calls in between, failures with patience."""

from pathlib import Path

import pytest

from ocean_core.model.errors import StoreIOError
from ocean_core.obs.clock import ManualClock
from ocean_core.pipeline.archiving.keeper import RETRY_FIRST_S, RETRY_MAX_S, Keeper
from support.archive_kit import ArchiveBox, quiet_log


class FakeChore:
    """Due as told; fails as often as told."""

    def __init__(self, name: str, due: float | None, failures: int = 0) -> None:
        self.name = name
        self.due = due
        self.failures = failures
        self.steps = 0

    def due_in(self) -> float | None:
        return self.due

    def step(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreIOError("no")
        self.steps += 1
        self.due = None


def keeper_of(*chores: FakeChore) -> tuple[Keeper, ManualClock]:
    clock = ManualClock()
    keeper = Keeper(chores, clock=clock, log=quiet_log(clock))
    keeper.work_once()
    return keeper, clock


def test_chores_run_in_their_order_until_nothing_is_due() -> None:
    first, second, later = FakeChore("a", 0), FakeChore("b", 0), FakeChore("c", 50.0)
    keeper, _ = keeper_of(first, second, later)
    assert keeper.work_once() == 0
    assert (first.steps, second.steps) == (1, 0)
    assert keeper.work_once() == 0
    assert keeper.work_once() == 50.0
    assert (first.steps, second.steps, later.steps) == (1, 1, 0)


def test_a_chore_that_fails_waits_longer_each_time_and_holds_no_other_up() -> None:
    bad, good = FakeChore("bad", 0, failures=20), FakeChore("good", 0)
    keeper, clock = keeper_of(bad, good)
    assert keeper.work_once() == RETRY_FIRST_S
    assert "bad: StoreIOError" in keeper.trouble
    assert keeper.work_once() == 0
    assert good.steps == 1
    waits = []
    for _ in range(19):
        clock.advance(RETRY_MAX_S)
        waits.append(keeper.work_once())
    assert waits[:3] == [2, 4, 8]
    assert waits[-1] == RETRY_MAX_S
    clock.advance(RETRY_MAX_S)
    keeper.work_once()
    assert bad.steps == 1
    assert keeper.trouble == ""


def test_what_is_called_runs_in_its_thread_and_errors_belong_to_the_caller(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    box.journal.add_readings(10)
    keeper = Keeper([box.sealer], clock=box.clock, log=box.log)
    keeper.start()
    try:
        assert keeper.call(box.sealer.seal_up_to).result(20).sealed_up_to == 10

        def fail() -> None:
            raise StoreIOError("no")

        with pytest.raises(StoreIOError):
            keeper.call(fail).result(20)
        assert keeper.trouble == ""
    finally:
        assert keeper.stop(20)
    assert keeper.call(box.sealer.seal_up_to).cancelled()


def test_the_archive_is_opened_first_and_again_until_that_works() -> None:
    clock = ManualClock()
    attempts = 0

    def prepare() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise StoreIOError("not yet")

    chore = FakeChore("a", 0)
    keeper = Keeper([chore], clock=clock, log=quiet_log(clock), prepare=prepare)
    for _ in range(3):
        keeper.work_once()
        clock.advance(100)
    assert (attempts, chore.steps, keeper.trouble) == (3, 0, "")
    keeper.work_once()
    assert chore.steps == 1
