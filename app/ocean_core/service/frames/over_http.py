"""Takes Nanogridata frames that come over HTTP: as a body of their own, or among JSON items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.errors import BodyTooLargeError, BufferFullError, MalformedBodyError
from ocean_core.model.receipt import CarriedFrame
from ocean_core.obs.clock import Clock
from ocean_core.protocol.compression import expand
from ocean_core.protocol.media import Encoding
from ocean_core.protocol.nanogridata.frame import MAGIC
from ocean_core.protocol.readings.framed import FRAME_KEPT_BYTES
from ocean_core.service.frames.http_answers import answer_to_frame, answer_to_frames
from ocean_core.service.frames.terms import FrameResult, FrameTaker, Source
from ocean_core.service.ingest_body import Sent, check_key
from ocean_core.service.pace import NO_PACE, Pace
from ocean_core.service.rates import FairShare

_TAKEN_AT_ONCE: Final = 256
"""How many names beside frames are dealt with together."""


class FramesOverHttp:
    """Between the ingest routes and the service of frames."""

    def __init__(
        self,
        taker: FrameTaker,
        clock: Clock,
        decoders: ThreadPoolExecutor,
        *,
        body_bytes_max: int,
        waiting_bytes_max: int = limits.FRAMES_WAITING_BYTES_MAX,
        pace: Pace = NO_PACE,
    ) -> None:
        """``decoders`` expand what is compressed; no more than ``waiting_bytes_max`` is held."""
        self._pace = pace
        self._taker = taker
        self._clock = clock
        self._decoders = decoders
        self._body_bytes_max = body_bytes_max
        self._waiting = FairShare(waiting_bytes_max)

    async def single(self, body: bytes, sent: Sent, principal: Principal, address: str) -> bytes:
        """Store the one frame that a body is and return the answer's JSON.

        Raises FrameError, or what else keeps it from being stored now; MalformedBodyError,
        BodyTooLargeError, IdempotencyKeyError, BufferFullError.
        """
        body = await self._opened(body, sent)
        frame = body[:FRAME_KEPT_BYTES]
        async with self._held(len(frame), principal, address):
            results = await self._taker.take([frame], Source("http", address), principal)
        return answer_to_frame(frame, "", results[0])

    async def batch(self, body: bytes, sent: Sent, principal: Principal, address: str) -> bytes:
        """Store the good ones of frames back to back and return the answer's JSON.

        Raises as ``single`` does, if no frame is good.
        """
        arrival_us = self._clock.now_us()
        body = await self._opened(body, sent)
        if body.count(MAGIC + b"\x01") > limits.FRAMES_PER_REQUEST_MAX:
            raise BodyTooLargeError(
                f"The body holds more than {limits.FRAMES_PER_REQUEST_MAX} frames.",
                hint="Send smaller batches.",
            )
        async with self._held(len(body), principal, address):
            results = await self._taker.take_stream(body, Source("http", address), principal)
        await self._pace.keep(sum(result.rows for result in results))
        return answer_to_frames(body, results, arrival_us)

    async def carried(
        self, frames: Sequence[CarriedFrame], principal: Principal, address: str
    ) -> list[FrameResult]:
        """Take frames that came in JSON; return what became of each, in order.

        Raises BufferFullError, and what concerns the sender as a whole.
        """
        together: dict[str, list[int]] = {}
        for place, frame in enumerate(frames):
            together.setdefault(frame.given, []).append(place)
        found: dict[int, FrameResult] = {}
        source = Source("json", address)

        async def take(given: str, places: list[int]) -> None:
            several = [frames[place].frame for place in places]
            results = await self._taker.take(several, source, principal, given=given)
            found.update(zip(places, results, strict=True))

        size = sum(len(frame.frame) for frame in frames)
        async with self._held(size, principal, address):
            todo = iter(together.items())
            while several := list(islice(todo, _TAKEN_AT_ONCE)):
                await _all(take(given, places) for given, places in several)
        return [found[place] for place in range(len(frames))]

    async def _opened(self, body: bytes, sent: Sent) -> bytes:
        if sent.idempotency_key is not None:
            # Frames are told from their repeats without it; but what is no key is refused.
            check_key(sent.idempotency_key)
        if sent.encoding is not Encoding.IDENTITY:
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(
                self._decoders, expand, body, sent.encoding, self._body_bytes_max
            )
        if not body:
            raise MalformedBodyError("The body is empty; a frame has 16 bytes or more.")
        return body

    @asynccontextmanager
    async def _held(self, size: int, principal: Principal, address: str) -> AsyncIterator[None]:
        """Hold a share of the memory for frames that wait; they may have come compressed."""
        source = principal.id or address
        if not self._waiting.reserve(source, size):
            raise BufferFullError(
                "the frames that wait for the disk hold as much memory as they may",
                retry_after_s=1,
            )
        try:
            yield
        finally:
            self._waiting.release(source, size)


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Wait for all, also when one fails; then raise that."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if outcome is not None:
            raise outcome
