"""Takes Nanogridata frames to a durable outcome, whichever way they came.

A frame that is proven and new is *reserved* in the memory of frames, then stored together with all
others that came meanwhile, its identity in the same transaction; if that fails it is released. A
repeat of a stored frame is a duplicate, counted durably before it is told; a repeat of one that is
just being stored waits for that. Whatever else is refused goes into quarantine.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

from ocean_core.buffer.port import BufferState
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.errors import BufferUnavailableError, FrameError, OceanError
from ocean_core.model.receipt import FRAME_NOTE_BYTES, IdempotencyKey
from ocean_core.protocol.nanogridata.check import frame_id, prove
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    FrameRefusedError,
    Header,
    Outcome,
    Proof,
)
from ocean_core.protocol.nanogridata.header import check_size, read_header
from ocean_core.protocol.nanogridata.replay import Seen
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.service.frames.cargo import Cargo, OneFrame, frames_of, single_id
from ocean_core.service.frames.delivery import Delivery
from ocean_core.service.frames.horizon import Horizon
from ocean_core.service.frames.judge import Arrival, Judge, Opened, refused
from ocean_core.service.frames.names import Place, PlainNames, is_plain
from ocean_core.service.frames.parcel import ResultParcel, Rows
from ocean_core.service.frames.parts import FrameParts
from ocean_core.service.frames.plain import PlainJudge
from ocean_core.service.frames.repeats import Repeat, RepeatBook
from ocean_core.service.frames.store import FrameStore
from ocean_core.service.frames.stream import FrameStream
from ocean_core.service.frames.terms import DUPLICATE, FrameResult, RefusedFrame, Source

QUARANTINE_SCOPE: Final = "quarantine"
_ONE_UNKNOWN: Final[Mapping[str, int]] = {"": 1}
_REPLAYED: Final = FrameRefusedError(
    Outcome.REPLAY, 0, "the same frame came before, and was refused for what it holds"
)
_STREAM_STEP_BYTES: Final = 64 * 1024
_LOADED_BYTES: Final = 16_384 * FRAME_NOTE_BYTES


class FrameService:
    """What listeners and routes call; a FrameTaker. For the event loop alone."""

    def __init__(self, parts: FrameParts) -> None:
        self.parts = parts
        self.names = PlainNames()
        self.on_open: list[Callable[[], None]] = []
        self._judge = Judge(parts.models, parts.quota)
        self._repeats = RepeatBook(parts, self._judge)
        self.store = FrameStore(parts, self.names, PlainJudge(self).judge, self._resolve)
        self._keys_version = parts.keys.version
        # A frame is remembered as long as its time lets it in.
        self._window_s = parts.models.window_s
        self._horizon = Horizon(parts.clock, self._window_s)
        self._is_open = False

    # --- start, upkeep, end ---

    @property
    def is_open(self) -> bool:
        """Whether it is known which frames came before, so that frames can be taken."""
        return self._is_open

    async def open(self) -> None:
        """Learn which frames are stored; until then frames are refused.

        Raises the buffer's errors.
        """
        if self._is_open:
            return
        parts = self.parts
        # A clock that is ahead now may be right again tomorrow.
        self._horizon.begin(parts.buffer.newest_arrival_us)
        since_us = (self._horizon.now_s() - self._window_s) * 1_000_000
        kept = await parts.buffer.kept_frames(since_us, parts.memory.frames_max)
        kept.reverse()
        # The newest last: of too many those are forgotten that came first. There may be as many
        # blocks as frames, so they are put together, and others get their turn in between.
        notes = b"".join(kept)
        for at in range(0, len(notes), _LOADED_BYTES):
            parts.memory.load(*frames_of(notes[at : at + _LOADED_BYTES]))
            await asyncio.sleep(0)
        self._is_open = True
        for tell in self.on_open:
            tell()

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nobody should bring more for now."""
        return self.store.is_full or self._repeats.is_full

    async def tick(self) -> None:
        """Look after what changes with time; every few seconds."""
        parts = self.parts
        if not self._is_open and parts.buffer.state is BufferState.READY:
            try:
                await self.open()
            except OceanError as error:
                parts.log.warning("runtime.background_failed", task="frames", error=error.detail)
        parts.memory.expire(self._horizon.now_s() - self._window_s)
        parts.gaps.tick(parts.clock.now_us() // 1_000_000)
        parts.metrics.set("ocean_nanogridata_remembered_frames", len(parts.memory))
        name = "ocean_nanogridata_forgotten_frames_total"
        parts.metrics.add(name, parts.memory.forgotten - parts.metrics.value(name))

    async def close(self) -> None:
        """Store what was taken, as far as that is possible now."""
        await self.store.close()
        await self._repeats.close()
        self.parts.gaps.close()

    # --- whole frames ---

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
        """Check each frame by itself, store the good ones; see ``FrameTaker.take``."""
        if source.transport == "retry":
            # Whoever has just put a secret right should not have to wait until it is noticed.
            await asyncio.to_thread(self.parts.keys.reload_if_changed)
            self.follow_keys()
        key = _key_of(marker, frames)
        if key is not None and await self.parts.buffer.lookup(key, {}) is not None:
            return [FrameResult(DUPLICATE)] * len(frames)
        settled = asyncio.Event()
        parcel = ResultParcel(settled.set)
        way = Delivery(parcel, Cargo(), source, self.arrival(arrival_us), principal, given)
        # What was reserved is stored or released, even if whoever asked has left.
        return await uninterrupted(self._take(frames, way, key, parcel, settled))

    async def _take(
        self,
        frames: Sequence[bytes],
        way: Delivery,
        key: IdempotencyKey | None,
        parcel: ResultParcel,
        settled: asyncio.Event,
    ) -> list[FrameResult]:
        for frame in frames:
            self.take_whole(frame, way)
        parcel.close()
        await self.store.store(way.cargo, way.principal, key)
        await settled.wait()
        return await self._told(parcel, way.source)

    async def take_stream(
        self, body: bytes, source: Source, principal: Principal = LOCAL
    ) -> list[FrameResult]:
        """The same for frames back to back; see ``FrameTaker.take_stream``."""
        return await uninterrupted(self._take_stream(body, source, principal))

    async def _take_stream(
        self, body: bytes, source: Source, principal: Principal
    ) -> list[FrameResult]:
        settled = asyncio.Event()
        parcel = ResultParcel(settled.set)
        stream = FrameStream(self)
        for at in range(0, max(1, len(body)), _STREAM_STEP_BYTES):
            way = Delivery(parcel, Cargo(), source, self.arrival(), principal)
            stream.feed(body[at : at + _STREAM_STEP_BYTES], way)
            while stream.has_more:
                await asyncio.sleep(0)
                stream.feed(b"", way)
            if at + _STREAM_STEP_BYTES >= len(body):
                stream.end(way)
                parcel.close()
            await self.store.store(way.cargo, principal)
        await settled.wait()
        return await self._told(parcel, source)

    async def _told(self, parcel: ResultParcel, source: Source) -> list[FrameResult]:
        results = parcel.results()
        if source.transport != "retry" and not all(result.is_good for result in results):
            await self.parts.quarantine.settle()
        return results

    def take_whole(self, frame: bytes, way: Delivery) -> None:
        """Take bytes that are to be one frame and nothing else."""
        parts, header = self.parts, None
        try:
            header = read_header(frame, parts.models)
            check_size(frame, header, parts.models.options(header.model_id))
            proof = prove(frame, header, parts.models, parts.keys)
        except FrameRefusedError as error:
            self.refuse(frame, header, error, way)
            return
        self.take_proven(frame, header, proof, way)

    # --- proven frames ---

    def arrival(self, arrival_us: int | None = None) -> Arrival:
        """Return when frames that are here now came."""
        clock = self.parts.clock
        now_us = clock.now_us()
        trusted = clock.synchronised() and now_us >= self.parts.buffer.newest_arrival_us
        return Arrival(now_us if arrival_us is None else arrival_us, trusted)

    def take_proven(
        self, frame: bytes, header: Header, proof: Proof, way: Delivery, rows: Rows | None = None
    ) -> None:
        """Take a frame whose check value is right: into the cargo, or to an outcome.

        ``rows``: where it is in the parcel already.
        """
        if rows is None:
            rows = way.parcel.add(frame, HEADER_BYTES + header.length)
        try:
            if not self._is_open:
                raise BufferUnavailableError("what came before is not known yet", retry_after_s=1)
            self._judge.check_time(header, way.arrival)
        except (FrameRefusedError, OceanError) as error:
            sensor_id = self._judge.sensor_of(frame, header, proof)
            self.refuse_rows(rows, frame, header, error, way, sensor_id)
            return
        identity = frame_id(frame, header)
        state = self._reserve(identity, header, way.source)
        if state in {Seen.RESERVED, Seen.STORED}:
            repeat = Repeat(way.parcel, rows, frame, header, proof, way.source, way.arrival)
            self._repeats.take(repeat, state)
            return
        if state is Seen.REFUSED:
            sensor_id = self._judge.sensor_of(frame, header, proof)
            self.refuse_rows(rows, frame, header, _REPLAYED, way, sensor_id)
            return
        try:
            opened = self._judge.open(frame, header, proof, way.arrival, way.principal, way.given)
        except (FrameRefusedError, OceanError) as error:
            # Only what the frame itself holds can never become right.
            by_content = isinstance(error, FrameRefusedError) and error.outcome is not Outcome.MAC
            state = Seen.REFUSED if by_content else Seen.RELEASED
            self.parts.memory.mark(*single_id(identity, header.timestamp), state)
            sensor_id = self._judge.sensor_of(frame, header, proof)
            self.refuse_rows(rows, frame, header, error, way, sensor_id)
            return
        ids, times_s = single_id(identity, header.timestamp)
        way.cargo.add(
            OneFrame(
                way.parcel, rows, ids, times_s, opened.readings, opened.event, opened.result,
                way.source.transport, header.model_id, opened.new_series,
            )
        )  # fmt: skip
        self.parts.quota.promise(opened.new_series)
        self._learn(frame, header, proof, opened)

    def take_again(self, frame: bytes, rows: Rows, state: Seen, way: Delivery) -> None:
        """Take a frame with care that was taken for a plain one, and is in its parcel already.

        ``state``: what is known of it, NEW if that was not asked yet.
        """
        models = self.parts.models
        header = read_header(frame, models)
        try:
            proof = prove(frame, header, models, self.parts.keys)
        except FrameRefusedError as error:
            # Its secret was taken away since it came.
            self.refuse_rows(rows, frame, header, error, way)
            return
        if state is Seen.NEW:
            self.take_proven(frame, header, proof, way, rows)
        elif state is Seen.REFUSED:
            sensor_id = self._judge.sensor_of(frame, header, proof)
            self.refuse_rows(rows, frame, header, _REPLAYED, way, sensor_id)
        else:
            repeat = Repeat(way.parcel, rows, frame, header, proof, way.source, way.arrival)
            self._repeats.take(repeat, state)

    def skipped(self, count: int, error: FrameRefusedError | None, way: Delivery) -> None:
        """Count bytes that belong to no frame, and say so once for each run of them."""
        parts, source = self.parts, way.source
        parts.metrics.add("ocean_nanogridata_skipped_bytes_total", count, source.transport)
        why = "no frame begins there" if error is None else f"{error.outcome}: {error.detail}"
        parts.log.warning(
            "nanogridata.skipped", source=source.address, transport=source.transport,
            bytes=count, reason=why,
        )  # fmt: skip
        way.parcel.skipped(count, why)

    def _reserve(self, identity: bytes, header: Header, source: Source) -> Seen:
        memory = self.parts.memory
        if source.transport == "retry":
            ids, times_s = single_id(identity, header.timestamp)
            if memory.look(ids, times_s)[0] == Seen.REFUSED:
                # What was wrong with it may have been put right on this side.
                memory.mark(ids, times_s, Seen.RELEASED)
        return memory.reserve_one(identity, header.timestamp)

    def _learn(self, frame: bytes, header: Header, proof: Proof, opened: Opened) -> None:
        """Remember the device, and that frames like this one are plain from now on."""
        parts = self.parts
        result, readings = opened.result, opened.readings
        profile = parts.models.profile(header.model_id)
        parts.facts.note(result.sensor_id, opened.lab_id, profile.name, opened.units)
        parts.gaps.note_one(result.sensor_id, header.timestamp)
        if readings is None or opened.new_series:
            # A series that is not stored yet may never be; the next frame will be learned from.
            return
        options = parts.models.options(header.model_id)
        secret = proof.secret
        if (
            parts.models.custom(header.model_id) is None
            and (secret is None or isinstance(secret, HmacSecret))
            and is_plain(header, options, opened.content.encoding, len(readings))
        ):
            low, high = profile.range_of(readings.series[0][1]) or (-inf, inf)
            place = Place(readings.series[0], header.model_id, low, high)
            self.names.learn(frame, header, secret, place)

    def follow_keys(self) -> None:
        """Forget what was learned with secrets that have changed."""
        if self.parts.keys.version != self._keys_version:
            self._keys_version = self.parts.keys.version
            self.names.forget()

    # --- refusals and repeats ---

    def refuse(
        self,
        frame: bytes,
        header: Header | None,
        error: FrameRefusedError | OceanError,
        way: Delivery,
        sensor_id: str = "",
    ) -> None:
        """Settle a frame that is not taken, and put it into quarantine."""
        check_at = len(frame) if header is None else HEADER_BYTES + header.length
        rows = way.parcel.add(frame, check_at)
        self.refuse_rows(rows, frame, header, error, way, sensor_id)
        variant = getattr(error, "crc_disabled", None)
        if variant:
            self.parts.metrics.add("ocean_nanogridata_crc_disabled_total", 1, variant)

    def refuse_rows(
        self,
        rows: Rows,
        frame: bytes,
        header: Header | None,
        error: FrameRefusedError | OceanError,
        way: Delivery,
        sensor_id: str = "",
    ) -> None:
        """The same for a frame that is in the parcel already."""
        parts, source, result = self.parts, way.source, refused(error)
        model_id = None if header is None else header.model_id
        # Whoever is told to send it again later does so.
        if source.transport != "retry" and not (result.may_retry and way.parcel.can_tell):
            is_early = not way.arrival.clock_trusted and result.outcome in {
                Outcome.FUTURE,
                Outcome.STALE,
            }
            parts.quarantine.keep(
                RefusedFrame(
                    frame, source, way.arrival.now_us, parts.clock.since_boot(), result.outcome,
                    result.detail, result.offset, model_id, sensor_id, is_early, way.given, way.principal,
                )
            )  # fmt: skip
        elif source.transport != "retry":
            parts.refusals.refused(
                result.outcome, parts.quota.by_known_sensor({sensor_id: len(rows)})
            )
        parts.count(source.transport, model_id, result.outcome, len(rows))
        code = result.outcome if isinstance(error, OceanError) else FrameError.code
        parts.metrics.add("ocean_telemetry_refused_total", len(rows), code)
        retry_after_s = error.retry_after_s if isinstance(error, OceanError) else None
        way.parcel.settle(rows, result, retry_after_s or 1)

    def were_stored(self, notes: Sequence[bytes]) -> list[bool]:
        """Tell of the notes of frames (header time and identity) whether they are stored."""
        states = self.parts.memory.look(*frames_of(b"".join(notes)))
        return [state == Seen.STORED for state in states.tolist()]

    def _resolve(self) -> None:
        for repeat, error in self._repeats.resolve():
            way = Delivery(repeat.parcel, self.store.cargo, repeat.source, repeat.arrival)
            self.refuse_rows(repeat.rows, repeat.frame, repeat.header, error, way)

    def refuse_uncounted(self, frame: bytes, error: OceanError, way: Delivery) -> None:
        """Refuse bytes that cannot be looked at now, whatever they are; count, but do not keep them.

        For transports that cannot make a sender wait.
        """
        parts = self.parts
        parts.count(way.source.transport, None, error.code, 1)
        parts.metrics.add("ocean_telemetry_refused_total", 1, error.code)
        parts.refusals.refused(error.code, _ONE_UNKNOWN)
        way.parcel.settle(way.parcel.add(frame, len(frame)), refused(error), 1)

    def count_repeats(self, way: Delivery, rows: Rows, sensor_id: str, model_id: int) -> None:
        """Settle repeats of stored frames of a sensor, once they are counted."""
        self._repeats.count(way.parcel, rows, sensor_id, model_id, way.source)


def _key_of(marker: str, frames: Sequence[bytes]) -> IdempotencyKey | None:
    if not marker:
        return None
    return IdempotencyKey(QUARANTINE_SCOPE, marker, hashlib.sha256(b"".join(frames)).digest())
