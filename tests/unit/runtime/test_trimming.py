"""What the archive holds is trimmed from the journal: once, in order, and again when held back."""

import asyncio
from typing import Any, cast

from ocean_core.model.errors import BufferUnavailableError
from ocean_core.obs.clock import ManualClock
from ocean_core.runtime.trimming import JournalTrimmer
from support.archive_kit import quiet_log


class FakeJournal:
    """Trims as far as it may."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.held_at = 2**53
        self.failures = 0

    async def trim(self, up_to_id: int) -> int:
        self.asked.append(up_to_id)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        if self.failures:
            self.failures -= 1
            raise BufferUnavailableError("not now")
        return min(up_to_id, self.held_at)


def run_with(journal: FakeJournal, *steps: object) -> None:
    async def run() -> None:
        trimmer = JournalTrimmer(cast("Any", journal), quiet_log(ManualClock()))
        for step in steps:
            if isinstance(step, int):
                trimmer.sealed(step)
            elif step == "tick":
                trimmer.tick()
            while step != "at once" and trimmer._task is not None:
                await asyncio.wait({trimmer._task}, timeout=20)
        await trimmer.close()

    asyncio.run(run())


def test_each_seal_is_trimmed_once() -> None:
    journal = FakeJournal()
    run_with(journal, 10, "tick", 20, 20, 15, "tick")
    assert journal.asked == [10, 20]


def test_what_is_held_back_or_fails_is_tried_again_at_the_next_tick() -> None:
    journal = FakeJournal()
    journal.failures = 1
    run_with(journal, 10, "tick", "tick")
    assert journal.asked == [10, 10]
    journal = FakeJournal()
    journal.held_at = 5
    run_with(journal, 10, "tick")
    assert journal.asked == [10, 10]
