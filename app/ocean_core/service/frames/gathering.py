"""Refused frames on their way into quarantine: gathered in memory, written many at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from ocean_core.model import limits
from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.protocol.nanogridata.frame import FRAME_ID_BYTES, HEADER_BYTES, MAGIC
from ocean_core.service.frames.terms import RefusedFrame
from ocean_core.storage.operational.quarantine import Arrival

SETTLE_S: Final = 2.0
PAUSE_S: Final = 0.25
ROWS_PER_S: Final = 1_000
STEADY_PAUSE_S: Final = 5.0
STEADY_ROWS_PER_S: Final = 10
"""A row costs about 5 KB on the disk: ten a second are as much as ten lone readings a second."""

_CRC_BYTES: Final = 2
_MAC_BYTES: Final[Mapping[int, tuple[int, ...]]] = {0: (2,), 1: (16,), 2: (32, 16), 3: (32, 16)}

Write = Callable[[Sequence[RefusedFrame], Mapping[str, int]], Awaitable[None]]
"""Makes frames durable, and counts those by sensor that found no room. Raises OceanError."""


class Gathering:
    """Frames that are not durable yet; bounded, the oldest give way. For the event loop.

    While nobody waits for it, what comes is written a few times a second at most, and never more
    than ROWS_PER_S on average: a flood must not keep the disk busy. Nor may it wear the disk:
    beyond ``burst`` rows no more than STEADY_ROWS_PER_S are written, now and then, and nobody is
    made to wait for them.
    """

    def __init__(
        self,
        write: Write,
        clock: Clock,
        counted_as: Callable[[str], str],
        turned_away: Callable[[], None],
        *,
        burst: int,
    ) -> None:
        """``turned_away`` is called for each frame that gave way."""
        self._write = write
        self._clock = clock
        self._counted_as = counted_as
        self._on_turned_away = turned_away
        self._waiting: deque[RefusedFrame] = deque()
        self._turned_away: Counter[str] = Counter()
        self._taken = 0
        self._settled = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._hurry = asyncio.Event()
        self._next_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self._is_closing = False
        self._burst = float(max(burst, 2 * limits.QUARANTINE_WAITING_MAX))
        self._credit = self._burst
        self._credit_at = clock.monotonic()

    def add(self, frame: RefusedFrame) -> None:
        """Take a frame."""
        self._waiting.append(frame)
        self._taken += 1
        self._bound()
        if self._task is None and not self._is_failing and self._rows_allowed():
            self._begin()

    async def settle(self) -> None:
        """Return when all that was taken is durable, or given up; after SETTLE_S at the latest.

        While the store fails, or a flood has used up what may be written, it is not waited for at
        all: what waits is written later.
        """
        if self._settled >= self._taken or self._is_failing or not self._rows_allowed():
            return
        done = asyncio.get_running_loop().create_future()
        self._waiters.append((self._taken, done))
        self._hurry.set()
        await asyncio.wait({done}, timeout=SETTLE_S)

    async def flush(self) -> None:
        """Try again what could not be written, and write what waits, as far as that is allowed."""
        if self._task is None and (self._waiting or self._turned_away):
            self._begin()
        if self._task is not None:
            # Not for what comes meanwhile: a flood has no end.
            done = asyncio.get_running_loop().create_future()
            self._waiters.append((self._taken, done))
            self._hurry.set()
            await asyncio.wait({done, self._task}, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Write all that waits, as far as the store takes it."""
        self._is_closing = True
        await self.flush()
        # A task that was under way may not have known that all is to be written.
        await self.flush()

    def _rows_allowed(self) -> int:
        """Return how many rows may be written now."""
        if self._is_closing:
            return len(self._waiting) + 1
        now = self._clock.monotonic()
        earned = (now - self._credit_at) * STEADY_ROWS_PER_S
        self._credit, self._credit_at = min(self._burst, self._credit + earned), now
        return max(0, int(self._credit))

    def _begin(self) -> None:
        self._is_failing = False
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or task.exception() is not None:
            self._is_failing = True
        if self._is_failing or not self._rows_allowed():
            self._let_go(self._taken)
        elif self._waiting:
            self._begin()

    async def _run(self) -> None:
        while self._waiting or self._turned_away:
            await self._pause()
            allowed = self._rows_allowed()
            batch = deque(self._waiting.popleft() for _ in range(min(allowed, len(self._waiting))))
            upto = self._taken - len(self._waiting)
            counts, self._turned_away = self._turned_away, Counter()
            try:
                await self._write(batch, counts)
            except OceanError:
                self._waiting = batch + self._waiting
                self._turned_away += counts
                self._bound()
                self._is_failing = True
                return
            self._settled = upto
            self._let_go(upto)
            self._credit -= len(batch)
            is_over = not self._rows_allowed()
            pause_s = STEADY_PAUSE_S if is_over else max(PAUSE_S, len(batch) / ROWS_PER_S)
            self._next_at = self._clock.monotonic() + pause_s
            if is_over:
                # Goes on with the next frame, or flush.
                return

    async def _pause(self) -> None:
        """Wait until it is time to write again, or somebody waits for it."""
        left_s = self._next_at - self._clock.monotonic()
        if left_s > 0 and not self._waiters:
            waiting = asyncio.ensure_future(self._hurry.wait())
            await asyncio.wait({waiting}, timeout=left_s)
            waiting.cancel()
        self._hurry.clear()

    def _bound(self) -> None:
        while len(self._waiting) > limits.QUARANTINE_WAITING_MAX:
            gone = self._waiting.popleft()
            self._turned_away[self._counted_as(gone.sensor_id)] += 1
            self._on_turned_away()

    def _let_go(self, upto: int) -> None:
        """Tell those who wait for what was taken up to here."""
        for target, done in self._waiters:
            if target <= upto and not done.done():
                done.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if not waiter[1].done()]


def arrival_of(refused: RefusedFrame, boot: str, counted_as: str) -> Arrival:
    """Return what is stored of a frame; one that is too long for a frame is cut."""
    frame, sender = refused.frame, refused.sender
    return Arrival(
        digest=hashlib.sha256(frame).digest(),
        arrival_us=refused.arrival_us,
        boot=boot,
        steady_us=round(refused.steady_s * 1e6),
        transport=refused.source.transport,
        address=_clean(refused.source.address),
        actor=sender.actor,
        pattern=sender.sensors,
        user_id=sender.user_id,
        outcome=refused.outcome,
        detail=_clean(refused.detail),
        offset=refused.offset,
        model_id=refused.model_id,
        sensor_id=_clean(refused.sensor_id),
        counted_as=counted_as,
        given=_clean(refused.given),
        is_early=refused.is_early,
        note=note_of(frame),
        size=len(frame),
        frame=bytes(frame[: limits.QUARANTINE_FRAME_BYTES_MAX]),
    )


def note_of(frame: bytes) -> bytes | None:
    """Return header time and identity of bytes that are exactly one frame, as the journal does."""
    if len(frame) < HEADER_BYTES + _CRC_BYTES or frame[:2] != MAGIC:
        return None
    covered = HEADER_BYTES + int.from_bytes(frame[6:8], "big")
    level = frame[5] & 0x0F
    if len(frame) - covered not in _MAC_BYTES.get(level, ()):
        return None
    if level:
        return frame[8:12] + frame[covered : covered + FRAME_ID_BYTES]
    return frame[8:12] + hashlib.sha256(frame[:covered]).digest()[:FRAME_ID_BYTES]


def _clean(text: str) -> str:
    """Return text that UTF-8 can carry, of a length that can be kept."""
    return text[: limits.QUARANTINE_DETAIL_CHARS_MAX].encode(errors="replace").decode()
