"""Frames that came before: counted durably before they are answered, or waiting for the first."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from ocean_core.model.access import LOCAL
from ocean_core.model.errors import BufferUnavailableError, OceanError
from ocean_core.protocol.nanogridata.check import frame_id
from ocean_core.protocol.nanogridata.frame import FrameRefusedError, Header, Outcome, Proof
from ocean_core.protocol.nanogridata.replay import Seen
from ocean_core.service.frames.cargo import single_id
from ocean_core.service.frames.judge import Arrival, Judge
from ocean_core.service.frames.parcel import Parcel, Rows
from ocean_core.service.frames.parts import FrameParts
from ocean_core.service.frames.terms import DUPLICATE, FrameResult, Source

_HELD_MAX: Final = 8_192


class Repeat(NamedTuple):
    """A proven frame that is being stored, or was."""

    parcel: Parcel
    rows: Rows
    frame: bytes
    header: Header
    proof: Proof
    source: Source
    arrival: Arrival


class Stuck(NamedTuple):
    """A repeat of a frame that turned out not to be stored, and why it is refused now."""

    repeat: Repeat
    error: FrameRefusedError | OceanError


class RepeatBook:
    """Knows the repeats that wait. For the event loop alone."""

    def __init__(self, parts: FrameParts, judge: Judge) -> None:
        self._parts = parts
        self._judge = judge
        self._counted: list[tuple[Parcel, Rows, str]] = []
        self._counting: asyncio.Task[None] | None = None
        self._waiting: list[Repeat] = []

    @property
    def is_full(self) -> bool:
        """Whether so many wait that nobody should bring more for now."""
        return len(self._waiting) + len(self._counted) >= _HELD_MAX

    def take(self, repeat: Repeat, state: Seen) -> None:
        """Take a repeat of a frame that is STORED, or RESERVED: then it waits for ``resolve``."""
        if state is Seen.RESERVED:
            self._waiting.append(repeat)
            return
        sensor_id = ""
        try:
            opened = self._judge.open(
                repeat.frame, repeat.header, repeat.proof, repeat.arrival, LOCAL, ""
            )
            sensor_id = opened.result.sensor_id
        except (FrameRefusedError, OceanError):
            # It was stored under other rules: it counts as a repeat of nobody known.
            sensor_id = ""
        self.count(repeat.parcel, repeat.rows, sensor_id, repeat.header.model_id, repeat.source)

    def count(
        self, parcel: Parcel, rows: Rows, sensor_id: str, model_id: int, source: Source
    ) -> None:
        """Settle repeats of stored frames of a sensor once they are counted."""
        self._parts.count(source.transport, model_id, DUPLICATE, len(rows))
        self._parts.metrics.add("ocean_telemetry_duplicate_total", len(rows))
        self._counted.append((parcel, rows, sensor_id))
        if self._counting is None:
            self._counting = asyncio.get_running_loop().create_task(self._count())

    async def _count(self) -> None:
        while self._counted:
            several, self._counted = self._counted, []
            counts: dict[str, int] = {}
            for _, rows, sensor_id in several:
                counts[sensor_id] = counts.get(sensor_id, 0) + len(rows)
            try:
                await self._parts.buffer.count_repeats(counts)
            except OceanError as error:
                # What they repeat is stored: only the figure is too low.
                self._parts.log.warning(
                    "runtime.background_failed", task="duplicates", error=error.detail
                )
            for parcel, rows, sensor_id in several:
                parcel.settle(rows, FrameResult(DUPLICATE, sensor_id=sensor_id))
        self._counting = None

    def resolve(self) -> list[Stuck]:
        """Go on with those whose first has an outcome; return those that it was not stored for."""
        several, self._waiting = self._waiting, []
        stuck: list[Stuck] = []
        for one in several:
            identity = frame_id(one.frame, one.header)
            state = Seen(
                int(self._parts.memory.look(*single_id(identity, one.header.timestamp))[0])
            )
            if state in {Seen.RESERVED, Seen.STORED}:
                self.take(one, state)
            elif state is Seen.REFUSED:
                stuck.append(Stuck(one, FrameRefusedError(Outcome.REPLAY, 0, "it came before")))
            else:
                detail = "the same frame, sent just before, could not be stored"
                stuck.append(Stuck(one, BufferUnavailableError(detail, retry_after_s=1)))
        return stuck

    async def close(self) -> None:
        """Return when all are counted."""
        if self._counting is not None:
            await asyncio.wait([self._counting])
