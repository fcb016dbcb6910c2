"""Makes frames durable, many at a time, and tells their parcels.

Transports share one cargo: it grows while the one before becomes durable. A request that has to be
admitted by itself brings its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import numpy as np

from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.errors import InternalError, OceanError
from ocean_core.model.receipt import IdempotencyKey, Receipt
from ocean_core.protocol.nanogridata.replay import Seen
from ocean_core.service.frames.cargo import Cargo, Loaded, OneFrame, PlainFrames, frames_of
from ocean_core.service.frames.names import PlainNames
from ocean_core.service.frames.parts import FrameParts
from ocean_core.service.frames.terms import DUPLICATE, STORED, FrameResult

RETRY_S: Final = 0.5


class FrameStore:
    """Brings cargo to the journal. For the event loop alone."""

    def __init__(
        self,
        parts: FrameParts,
        names: PlainNames,
        judge: Callable[[Cargo], None],
        settled: Callable[[], None],
    ) -> None:
        """``judge`` turns the runs of a cargo into its rows.

        ``settled`` is called whenever it is known of some frames whether they are durable.
        """
        self._parts = parts
        self._names = names
        self._judge = judge
        self._settled = settled
        self.cargo = Cargo()
        self._is_due = False
        self._under_way = False
        self._is_closing = False
        self._again: list[PlainFrames | OneFrame] = []
        self._again_rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nobody should bring more for now."""
        return self.cargo.size + self._again_rows >= limits.FRAME_GROUP_ROWS_MAX

    def send(self) -> None:
        """Store the shared cargo as soon as it is its turn."""
        if self.cargo.size and not self._is_due and not self._under_way:
            # Whatever else arrives in this turn of the loop comes with it.
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._launch)

    async def close(self) -> None:
        """Store what was taken, as far as that is possible now; then nothing is tried again."""
        self._is_closing = True
        self._put_back()
        self._launch()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _launch(self) -> None:
        self._is_due = False
        if self._under_way or not self.cargo.size:
            return
        cargo, self.cargo = self.cargo, Cargo()
        self._under_way = True
        task = asyncio.get_running_loop().create_task(self._store_shared(cargo))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store_shared(self, cargo: Cargo) -> None:
        try:
            await self.store(cargo)
        except Exception as fault:  # noqa: BLE001 - all that comes after must not wait for ever
            self._parts.log.error("api.internal_error", request="frames", error=repr(fault))
        self._under_way = False
        if self._is_closing:
            self._launch()
        else:
            self.send()

    async def store(
        self, cargo: Cargo, principal: Principal = LOCAL, key: IdempotencyKey | None = None
    ) -> None:
        """Make a cargo durable and tell its parcels what became of it; raises nothing.

        With ``key`` it is stored at most once, as any other request.
        """
        self._judge(cargo)
        loads = (cargo.readings(self._names.series), cargo.events())
        try:
            await asyncio.gather(
                *(self._store_load(load, principal, key) for load in loads if load is not None)
            )
        finally:
            self._settled()

    async def _store_load(
        self, loaded: Loaded, principal: Principal, key: IdempotencyKey | None
    ) -> None:
        parts, intake = self._parts, loaded.intake
        try:
            if principal is LOCAL:
                # Who sends too much is not read from; nothing else is to be checked.
                receipt = await parts.buffer.append(intake, key)
            else:
                with parts.policy.admit(principal, intake) as owner:
                    receipt = await parts.buffer.append(intake, key, owner)
        except OceanError as error:
            self._failed(loaded, error)
        except Exception as fault:  # noqa: BLE001 - nobody else could answer the senders
            parts.log.error("api.internal_error", request="frames", error=repr(fault))
            self._failed(loaded, InternalError("an unexpected fault; the log tells more"))
        else:
            self._stored(loaded, receipt)

    def _stored(self, loaded: Loaded, receipt: Receipt) -> None:
        parts, intake = self._parts, loaded.intake
        parts.memory.mark(*frames_of(intake.frames), Seen.STORED)
        if receipt.duplicate:
            for one in loaded.frames:
                self._release(one)
                loaded.settle(one, FrameResult(DUPLICATE, sensor_id=_sensor_of(one)))
            return
        try:
            self._note_stored(loaded)
        finally:
            # They are durable, and must be told so whatever else goes wrong.
            loaded.stored(receipt.first_reading_id or receipt.first_event_id)

    def _note_stored(self, loaded: Loaded) -> None:
        parts = self._parts
        parts.metrics.add("ocean_telemetry_ingested_total", loaded.intake.rows)
        for one in loaded.frames:
            if isinstance(one, PlainFrames):
                parts.gaps.note(self._names.sensors, one.places, one.times_s)
                parts.count_models(one.transport, self._names.models(one.places), STORED)
            else:
                parts.count(one.transport, one.model_id, STORED, 1)
                parts.quota.learn(one.new_series)

    def _failed(self, loaded: Loaded, error: OceanError) -> None:
        """Release frames that could not be stored; keep those whose sender cannot be told."""
        parts = self._parts
        may_retry = error.transient or isinstance(error, InternalError)
        result = FrameResult(error.code, error.detail, may_retry=may_retry)
        for frames in loaded.frames:
            silent, one = _split(frames) if may_retry and not self._is_closing else (None, frames)
            if silent is not None:
                self._again.append(silent)
                self._again_rows += silent.size
            if one is None:
                continue
            self._release(one)
            parts.memory.mark(one.ids, one.times_s, Seen.RELEASED)
            parts.metrics.add("ocean_telemetry_refused_total", len(one.ids), error.code)
            parts.count(one.transport, None, error.code, len(one.ids))
            refused = parts.quota.by_known_sensor(self._sensors_of(one))
            parts.refusals.refused(error.code, refused)
            loaded.settle(one, result, error.retry_after_s or 1)
        if self._again and self._timer is None:
            # Their connections are not read from until then.
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    def _release(self, one: PlainFrames | OneFrame) -> None:
        """Let others have the series that would have been new."""
        if isinstance(one, OneFrame):
            self._parts.quota.release(one.new_series)

    def _sensors_of(self, one: PlainFrames | OneFrame) -> dict[str, int]:
        """Return how many frames there are of which sensor."""
        if isinstance(one, OneFrame):
            return {one.result.sensor_id: 1}
        places, counts = np.unique(one.places, return_counts=True)
        sensors = self._names.sensors
        # A sensor may have several places: one for each of its series.
        found: dict[str, int] = {}
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            found[sensors[place]] = found.get(sensors[place], 0) + count
        return found

    def _try_again(self) -> None:
        self._put_back()
        self.send()

    def _put_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        again, self._again = self._again, []
        self._again_rows = 0
        for one in again:
            self.cargo.add(one)


def _split(
    one: PlainFrames | OneFrame,
) -> tuple[PlainFrames | OneFrame | None, PlainFrames | OneFrame | None]:
    """Return the part whose senders cannot be told, and the part whose can; None for no part."""
    if isinstance(one, OneFrame):
        return (None, one) if one.parcel.can_tell else (one, None)
    can_tell = np.zeros(one.size, dtype=np.bool_)
    for parcel, rows, at in one.shares:
        can_tell[at : at + len(rows)] = parcel.can_tell
    if can_tell.all():
        return None, one
    return one.only(~can_tell), one.only(can_tell) if can_tell.any() else None


def _sensor_of(one: PlainFrames | OneFrame) -> str:
    return one.result.sensor_id if isinstance(one, OneFrame) else ""
