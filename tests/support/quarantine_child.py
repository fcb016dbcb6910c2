"""A process that tries frames of a quarantine again until a fault point ends it.

Over the real store and the real journal; what a frame becomes there is one reading each, stored
under its marker as the service of frames does it. Arguments: directory, ``fill`` or ``go on``.
"""

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.receipt import IdempotencyKey
from ocean_core.obs.clock import ManualClock, SystemClock
from ocean_core.obs.faults import Faults
from ocean_core.service.frames.quarantine import Quarantine
from ocean_core.service.frames.quarantine_answers import RetryOrder
from ocean_core.service.frames.terms import FrameResult, RefusedFrame, Source
from ocean_core.storage.operational import OperationalStore
from support import journal_kit
from support.operational_kit import settings_for
from support.quarantine_kit import HERE, FixedNames, Lab, frame_of

FRAMES = 40


class JournalTaker:
    """Stores a reading for each frame."""

    def __init__(self, journal: EmbeddedJournal) -> None:
        self._journal = journal

    async def take(
        self,
        frames: Sequence[bytes],
        source: Source,
        principal: Principal = LOCAL,
        *,
        given: str = "",
        arrival_us: int | None = None,
        marker: str = "",
    ) -> list[FrameResult]:
        (frame,) = frames
        digest = hashlib.sha256(frame).digest()
        key = IdempotencyKey("quarantine", marker, digest)
        intake = journal_kit.intake_of(journal_kit.readings(int(frame[14:20])))
        receipt = await self._journal.append(intake, key)
        return [FrameResult("duplicate" if receipt.duplicate else "stored")]

    async def take_stream(
        self, body: bytes, source: Source, principal: Principal = LOCAL
    ) -> list[FrameResult]:
        raise NotImplementedError


async def main(directory: Path, mode: str) -> None:
    clock, faults = SystemClock(), Faults.from_environment()
    settings = replace(settings_for(directory), clock=clock, was_clean=False, faults=faults)
    store = OperationalStore(settings, on_state=lambda *_: None)
    await store.open()
    journal = EmbeddedJournal(
        replace(journal_kit.settings_for(directory), clock=clock, faults=faults)
    )
    await journal.open()
    box = Lab(store, ManualClock(), FRAMES)
    quarantine = Quarantine(
        store, clock, box.metrics, box.alarms, FixedNames(), frames_max=FRAMES,
        newest_arrival_us=lambda: 0, markers_kept_s=86_400, faults=faults,
    )  # fmt: skip
    quarantine.taker = JournalTaker(journal)
    if mode == "fill":
        for number in range(FRAMES):
            arrived = clock.now_us(), clock.since_boot()
            quarantine.keep(RefusedFrame(frame_of(number), Source("tcp"), *arrived, "E_KEY"))
        await quarantine.settle()
    else:
        await quarantine.tick()
    answer = await quarantine.retry(RetryOrder(all=True), HERE)
    await box.check_books()
    print(answer.stored, answer.duplicate, len(await box.rows()), flush=True)
    await journal.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
