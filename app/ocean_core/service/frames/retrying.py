"""Trying frames in quarantine again, each stored once whatever dies in between.

A retry is noted in the operational store before it begins and after it ended, and the frame's
digest is an Idempotency-Key of the journal, in the transaction that stores it. So a retry that a
crash cuts off between the two files is simply done again, and found to be a duplicate. Keys are
kept for some hours only; a retry that was cut off longer ago is left to a person.

============ ============================================= ==================================
a row is     until                                         then
============ ============================================= ==================================
held         a retry begins                                trying
trying       the frame is durable                          gone
trying       it is refused again, or nothing is decided    held
trying       the process dies, and is back in time         trying, done again by ``resume``
trying       the process dies, and is back too late        unsure, until a person names it
any          it makes room, or is deleted                  gone
============ ============================================= ==================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Origin, Principal, Scope
from ocean_core.model.errors import BufferUnavailableError, OceanError
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import Faults
from ocean_core.protocol.nanogridata.frame import HEADER_BYTES, Outcome
from ocean_core.service.frames.quarantine_answers import Retried, RetriedFrame, RetryOrder
from ocean_core.service.frames.terms import DUPLICATE, STORED, FrameResult, FrameTaker, Source
from ocean_core.storage.operational import quarantine
from ocean_core.storage.operational.quarantine import Order, QuarantineRow, Tried
from ocean_core.storage.operational.store import OperationalStore

EARLY_CHUNKS_MAX: Final = 4
_MARGIN_S: Final = 600
_OF_TIME: Final = frozenset({Outcome.FUTURE, Outcome.STALE})
_CUT: Final = "E_LENGTH"

Named = Callable[[], AbstractAsyncContextManager[Callable[[str], str]]]


class Retrying:
    """Takes frames out of quarantine, one retry at a time."""

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        named: Named,
        released: Callable[[int, list[bytes]], None],
        taker: Callable[[], FrameTaker | None],
        markers_kept_s: int,
        faults: Faults,
    ) -> None:
        """``released`` is told how many rows are left, and the notes of those that went."""
        self.lock = asyncio.Lock()
        """Held while frames are tried: nothing else may delete them then."""
        self._store = store
        self._clock = clock
        self._named = named
        self._released = released
        self._taker = taker
        self._markers_kept_s = markers_kept_s
        self._faults = faults

    async def retry(self, order: RetryOrder, origin: Origin) -> Retried:
        """Try again what somebody wants. Raises BufferUnavailableError, errors of the store."""
        taker = self._taker()
        if taker is None:
            raise BufferUnavailableError("frames cannot be taken yet", retry_after_s=1)
        most = limits.QUARANTINE_RETRIED_MAX
        async with self.lock:
            if order.ids is not None:
                ids = sorted({found for found in order.ids if found > order.after})
            else:
                held = partial(
                    quarantine.held, outcome=order.outcome, after=order.after, limit=most + 1
                )
                ids = await self._store.read(held)
            chosen, more = ids[:most], len(ids) > most
            note: Order | None = Order(origin, *_told(order, len(chosen)))
            tried: list[tuple[QuarantineRow, FrameResult]] = []
            for chunk in _chunks(chosen):
                tried += await self._try(taker, chunk, note, asked=True, any_time=order.any_time)
                note = None
        return _answer(tried, chosen[-1] if more else None)

    async def retry_early(self) -> None:
        """Try again what came too early; the box's clock is right now. Some at a time."""
        taker = self._taker()
        if taker is None:
            return
        after = 0
        async with self.lock:
            for _ in range(EARLY_CHUNKS_MAX):
                early = partial(
                    quarantine.early,
                    boot=self._clock.boot_id(),
                    steady_us=self._steady_us(),
                    after=after,
                    limit=limits.QUARANTINE_RETRY_CHUNK,
                )
                ids = await self._store.read(early)
                if not ids:
                    return
                after = ids[-1]
                tried = await self._try(taker, ids)
                if any(result.may_retry for _, result in tried):
                    return

    async def resume(self) -> None:
        """Bring retries to their end that were cut off."""
        taker = self._taker()
        if taker is None:
            return
        async with self.lock:
            found = await self._store.read(quarantine.interrupted)
            if not found:
                return
            until_us = (self._markers_kept_s - _MARGIN_S) * 1_000_000
            now_us = self._clock.now_us()
            # The longest ago first.
            late = [row_id for row_id, tried_us in found if now_us - tried_us >= until_us]
            if late:
                await self._store.write(partial(quarantine.doubt, row_ids=late))
            for chunk in _chunks([row_id for row_id, _ in found[len(late) :]]):
                await self._try(taker, chunk)

    async def _try(
        self,
        taker: FrameTaker,
        ids: Sequence[int],
        note: Order | None = None,
        *,
        asked: bool = False,
        any_time: bool = False,
    ) -> list[tuple[QuarantineRow, FrameResult]]:
        """Try frames again; ``asked``: a person wants it. ``note`` goes into the audit log."""
        begin = partial(quarantine.begin, row_ids=ids, now_us=self._clock.now_us(), order=note)
        rows = await self._store.write(begin)
        results = await asyncio.gather(
            *(self._take(taker, row, asked=asked, any_time=any_time) for row in rows)
        )
        self._faults.hit("quarantine.after_take")
        tried = list(zip(rows, results, strict=True))
        verdicts = [self._verdict(row, result) for row, result in tried]
        async with self._named() as name:
            finish = partial(
                quarantine.finish, tried=verdicts, now_us=self._clock.now_us(), name=name
            )
            rows_left = await self._store.write(finish)
        gone = [row.note for row, result in tried if result.is_good and row.note is not None]
        self._released(rows_left, gone)
        return tried

    async def _take(
        self, taker: FrameTaker, row: QuarantineRow, *, asked: bool, any_time: bool
    ) -> FrameResult:
        if row.size > len(row.frame):
            detail = f"only the first {len(row.frame)} of its {row.size} bytes were kept"
            return FrameResult(row.outcome or _CUT, detail)
        try:
            (result,) = await taker.take(
                [row.frame],
                Source("retry", row.address),
                _sender(row, asked=asked),
                given=row.given,
                arrival_us=self._arrival_us(row, any_time=any_time),
                marker=row.digest.hex(),
            )
        except OceanError as error:
            return FrameResult(error.code, error.detail, may_retry=error.transient)
        return result

    def _verdict(self, row: QuarantineRow, result: FrameResult) -> Tried:
        if result.is_good:
            return Tried(row.id, "released")
        unsettled = row.is_early and not (self._is_this_boot(row) and self._clock.synchronised())
        if result.may_retry or (unsettled and result.outcome in _OF_TIME):
            return Tried(row.id, "later")
        detail = result.detail[: limits.QUARANTINE_DETAIL_CHARS_MAX]
        return Tried(row.id, "refused", result.outcome, detail, result.offset)

    def _arrival_us(self, row: QuarantineRow, *, any_time: bool) -> int:
        """Return when a frame came: by the steady clock, if the wall clock may have been wrong."""
        if any_time and len(row.frame) >= HEADER_BYTES:
            return int.from_bytes(row.frame[8:12], "big") * 1_000_000
        if self._is_this_boot(row) and self._clock.synchronised():
            return self._clock.now_us() - (self._steady_us() - row.steady_us)
        return row.first_us

    def _is_this_boot(self, row: QuarantineRow) -> bool:
        here = row.boot == self._clock.boot_id()
        return here and bool(row.boot) and row.steady_us <= self._steady_us()

    def _steady_us(self) -> int:
        return round(self._clock.since_boot() * 1e6)


def _sender(row: QuarantineRow, *, asked: bool) -> Principal:
    """Return on whose behalf a frame is tried again: whoever sent it.

    Its key may be for some sensors only; a person who may do everything may also lift that.
    """
    if row.actor == LOCAL.actor:
        return LOCAL
    kind, _, sender_id = row.actor.partition(":")
    return Principal(
        kind,
        sender_id,
        scopes=frozenset({Scope.INGEST}),
        user_id=row.user_id,
        sensors="" if asked else row.pattern,
    )


def _chunks(ids: Sequence[int]) -> list[Sequence[int]]:
    size = limits.QUARANTINE_RETRY_CHUNK
    return [ids[at : at + size] for at in range(0, len(ids), size)]


def _told(order: RetryOrder, count: int) -> tuple[str, dict[str, object]]:
    """Return what the audit log says of a retry."""
    detail: dict[str, object] = {"frames": count, "any_time": order.any_time}
    if order.ids is None:
        return order.outcome or "all", detail
    first = order.ids[:20]
    return str(first[0]) if count == 1 else "ids", {**detail, "ids": first}


def _answer(tried: Sequence[tuple[QuarantineRow, FrameResult]], following: int | None) -> Retried:
    outcomes = [result.outcome for _, result in tried]
    stored, duplicate = outcomes.count(STORED), outcomes.count(DUPLICATE)
    return Retried(
        stored,
        duplicate,
        len(tried) - stored - duplicate,
        [
            RetriedFrame(
                row.id,
                result.outcome,
                result.detail,
                result.is_good,
                result.sensor_id or row.sensor_id,
                result.rows,
            )
            for row, result in tried
        ],
        following,
    )
