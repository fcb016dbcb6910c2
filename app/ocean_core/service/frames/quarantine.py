"""Quarantine: every refused frame, kept with its reason, to be looked at and tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import islice
from typing import Final, Protocol

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.frames.gathering import Gathering, arrival_of
from ocean_core.service.frames.quarantine_answers import (
    ForgetOrder,
    FrameForgotten,
    FramesForgotten,
    QuarantinedBytes,
    QuarantineList,
    Retried,
    RetryOrder,
    check_order,
    shown,
    shown_whole,
)
from ocean_core.service.frames.retrying import Retrying
from ocean_core.service.frames.terms import FrameTaker, QuarantineSink, RefusedFrame
from ocean_core.storage.operational import quarantine
from ocean_core.storage.operational.store import OperationalStore

ALARM_EARLY: Final = "frames.early"
NOTES_ASKED_MAX: Final = 50_000
"""How many frames are looked up at each tick: whether they have been stored otherwise."""

WereStored = Callable[[Sequence[bytes]], Sequence[bool]]
"""Tells of the notes of frames (header time and identity) whether they have been stored."""


class SteadyNames(Protocol):
    """Knows today's names of sensors."""

    def steady_names(self) -> AbstractAsyncContextManager[Names]:
        """Give the rules of names; none is added meanwhile."""
        ...


class Quarantine(QuarantineSink):
    """Keeps refused frames, shows them, and tries them again.

    Three things are set once they are there: ``taker`` takes frames that are tried again; without
    it nothing is retried. ``counted_as`` returns under which name the loss ledger counts frames of
    a sensor, empty for one that is not known. ``were_stored`` asks the memory of stored frames.
    """

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        metrics: MetricsRegistry,
        alarms: AlarmBook,
        names: SteadyNames,
        *,
        frames_max: int,
        newest_arrival_us: Callable[[], int],
        markers_kept_s: int,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """``markers_kept_s``: for how long the journal keeps Idempotency-Keys."""
        self.taker: FrameTaker | None = None
        self.counted_as: Callable[[str], str] = _unknown
        self.were_stored: WereStored = _none_of_them
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._alarms = alarms
        self._names = names
        self._frames_max = frames_max
        self._newest_arrival_us = newest_arrival_us
        self._notes: dict[bytes, None] = {}
        self._is_loaded = False
        self._gathering = Gathering(
            self._write, clock, self._counted_as, self._turned_away, burst=frames_max
        )
        self._retrying = Retrying(
            store, clock, self._named, self._gone, lambda: self.taker, markers_kept_s, faults
        )

    # --- for whoever refuses frames ---

    def keep(self, frame: RefusedFrame) -> None:
        """Take a frame; returns at once, never raises. What finds no room is counted."""
        self._gathering.add(frame)

    async def settle(self) -> None:
        """Return once all that was taken before is durable, or known not to become so.

        After two seconds at the latest: a disk that fails must not hold up answers.
        """
        await self._gathering.settle()

    # --- for people ---

    async def page(self, outcome: str | None, before: int | None, limit: int) -> QuarantineList:
        """Return frames, newest first, of one outcome or of all, older than the id ``before``."""
        rows, more = await self._store.read(
            partial(quarantine.page, outcome=outcome, before=before, limit=limit)
        )
        return QuarantineList([shown(row) for row in rows], str(rows[-1].id) if more else None)

    async def get(self, frame_id: int) -> QuarantinedBytes:
        """Return a frame with its bytes. Raises UnknownRecordError."""
        return shown_whole(await self._store.read(partial(quarantine.get, row_id=frame_id)))

    async def retry(self, order: RetryOrder, origin: Origin) -> Retried:
        """Try frames again as of their arrival; what is durable then is in quarantine no more.

        At most QUARANTINE_RETRIED_MAX at once. Raises InvalidInputError, BufferUnavailableError
        (frames cannot be taken now) and the errors of the store.
        """
        check_order(order)
        return await uninterrupted(self._retrying.retry(order, origin))

    async def forget(self, frame_id: int, origin: Origin) -> FrameForgotten:
        """Delete a frame. Raises UnknownRecordError."""
        await uninterrupted(self._forget(frame_id, origin))
        return FrameForgotten(frame_id, forgotten=True)

    async def forget_some(self, order: ForgetOrder, origin: Origin) -> FramesForgotten:
        """Delete frames, at most QUARANTINE_RETRIED_MAX at once. Raises InvalidInputError."""
        check_order(order)
        return await uninterrupted(self._forget_some(order, origin))

    # --- for the appliance ---

    async def tick(self) -> None:
        """Do what is due every few seconds. Raises the errors of the store: do it again then."""
        await self._gathering.flush()
        if not self._is_loaded:
            self._notes |= dict.fromkeys(await self._store.read(quarantine.notes))
            self._is_loaded = True
        await self._let_stored_go()
        await uninterrupted(self._retrying.resume())
        trusted = self._clock.synchronised() and self._clock.now_us() >= self._newest_arrival_us()
        if trusted:
            await uninterrupted(self._retrying.retry_early())
        await self._show()

    async def close(self) -> None:
        """Write what waits, as far as the store takes it."""
        await self._gathering.close()

    async def _let_stored_go(self) -> None:
        """Release frames that came again, were taken then, and so need not be tried any more.

        The memory of stored frames is shorter than quarantine's: later nobody could tell.
        """
        if not self._notes:
            return
        asked = list(islice(self._notes, NOTES_ASKED_MAX))
        answers = self.were_stored(asked)
        stored = [note for note, is_stored in zip(asked, answers, strict=True) if is_stored]
        if stored:
            async with self._named() as name:
                release = partial(
                    quarantine.release, stored=stored, now_us=self._clock.now_us(), name=name
                )
                self._gone(await self._store.write(release), stored)
        if len(asked) < len(self._notes):
            # Those behind the first ones have their turn the next time.
            left = [note for note in asked if self._notes.pop(note, False) is None]
            self._notes |= dict.fromkeys(left)

    async def _forget(self, frame_id: int, origin: Origin) -> None:
        async with self._retrying.lock, self._named() as name:
            forget = partial(
                quarantine.forget,
                row_id=frame_id, now_us=self._clock.now_us(), origin=origin, name=name,
            )  # fmt: skip
            row = await self._store.write(forget)
        if row.note is not None:
            self._notes.pop(row.note, None)
        await self._show()

    async def _forget_some(self, order: ForgetOrder, origin: Origin) -> FramesForgotten:
        most = limits.QUARANTINE_RETRIED_MAX
        ids = None if order.ids is None else sorted({i for i in order.ids if i > order.after})
        subject = order.outcome or ("all" if ids is None else "ids")
        async with self._retrying.lock, self._named() as name:
            forget = partial(
                quarantine.forget_some,
                unwanted=quarantine.Unwanted(ids, order.outcome, order.after, most),
                order=quarantine.Order(origin, subject, {}), now_us=self._clock.now_us(), name=name,
            )  # fmt: skip
            gone, notes = await self._store.write(forget)
        for note in notes:
            self._notes.pop(note, None)
        await self._show()
        # As many as fit: perhaps there are more.
        following = gone[-1] if ids is None and len(gone) == most else None
        return FramesForgotten(len(gone), gone, following)

    async def _write(self, frames: Sequence[RefusedFrame], turned_away: Mapping[str, int]) -> None:
        boot = self._clock.boot_id()
        async with self._named() as name:
            kept = await self._store.write(
                partial(
                    quarantine.keep,
                    # Computed by the thread that writes: hashing is the larger part of the work.
                    arrivals=(
                        arrival_of(frame, boot, self.counted_as(frame.sensor_id))
                        for frame in frames
                    ),
                    turned_away=turned_away,
                    frames_max=self._frames_max,
                    now_us=self._clock.now_us(),
                    name=name,
                )
            )
        self._notes |= dict.fromkeys(kept.come)
        self._metrics.add("ocean_quarantine_kept_total", len(frames))
        self._metrics.add("ocean_quarantine_evicted_total", kept.evicted)
        self._gone(kept.rows, kept.gone)

    def _counted_as(self, sensor_id: str) -> str:
        return self.counted_as(sensor_id)

    def _turned_away(self) -> None:
        self._metrics.add("ocean_quarantine_evicted_total", 1)

    def _gone(self, rows: int, notes: Sequence[bytes]) -> None:
        for note in notes:
            self._notes.pop(note, None)
        self._count(rows)

    def _count(self, rows: int) -> None:
        self._metrics.set("ocean_quarantine_frames", rows)

    async def _show(self) -> None:
        """Bring gauge and alarm up to date."""
        boot = self._clock.boot_id()
        found = await self._store.read(partial(quarantine.waiting, boot=boot))
        self._count(found.rows)
        detail = f"{found.early + found.early_of_others} wait"
        if found.early_of_others:
            detail += (
                f"; {found.early_of_others} of them came before this machine was started, "
                "so that their time of arrival is not known"
            )
        self._alarms.set_alarm(
            ALARM_EARLY, active=bool(found.early or found.early_of_others), detail=detail
        )

    @asynccontextmanager
    async def _named(self) -> AsyncIterator[Callable[[str], str]]:
        """Give what returns today's name of a sensor; no name changes meanwhile."""
        async with self._names.steady_names() as names:
            yield lambda sensor_id: names.asked(sensor_id) if sensor_id else ""


def _unknown(_sensor_id: str) -> str:
    return ""


def _none_of_them(notes: Sequence[bytes]) -> Sequence[bool]:
    return [False] * len(notes)
