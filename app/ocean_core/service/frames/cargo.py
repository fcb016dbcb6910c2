"""Frames that are to become durable together: what goes to the journal, and back to whom.

No I/O and no waiting here: ``Cargo`` turns gathered frames into at most two intakes, one of readings
and one of events, and their receipts into what each parcel is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import (
    EVENT_METRIC,
    Events,
    EventsBuilder,
    Readings,
    ReadingsBuilder,
    SeriesName,
)
from ocean_core.model.receipt import Intake
from ocean_core.protocol.nanogridata.bulk import Run
from ocean_core.protocol.nanogridata.replay import IdColumn, TimeColumn, id_column
from ocean_core.service.frames.parcel import Parcel, Rows
from ocean_core.service.frames.terms import FrameResult

if TYPE_CHECKING:
    from ocean_core.service.frames.delivery import Delivery


class Gathered(NamedTuple):
    """A run that came, not yet judged; ``first`` is its first row in the parcel."""

    run: Run
    way: Delivery
    first: int


class Share(NamedTuple):
    """Which of the frames taken together are whose: those from ``at`` on, in order of ``rows``."""

    parcel: Parcel
    rows: Rows
    at: int


@dataclass(slots=True)
class PlainFrames:
    """Frames that were judged many at a time: one reading each, of series known by their place."""

    shares: list[Share]
    ids: IdColumn
    times_s: TimeColumn
    places: npt.NDArray[np.int64]
    timestamp_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    quality: npt.NDArray[np.uint8]
    transport: str

    @property
    def size(self) -> int:
        """How many readings."""
        return len(self.ids)

    def only(self, mask: npt.NDArray[np.bool_]) -> PlainFrames:
        """Return those frames that a mask lets through."""
        shares: list[Share] = []
        at = 0
        for parcel, rows, start in self.shares:
            kept = np.flatnonzero(mask[start : start + len(rows)]).tolist()
            if kept:
                shares.append(Share(parcel, [rows[number] for number in kept], at))
                at += len(kept)
        return PlainFrames(
            shares,
            self.ids[mask],
            self.times_s[mask],
            self.places[mask],
            self.timestamp_us[mask],
            self.value[mask],
            self.quality[mask],
            self.transport,
        )


@dataclass(slots=True)
class OneFrame:
    """A frame that was decoded with care: some readings, or one event."""

    parcel: Parcel
    rows: Rows
    ids: IdColumn
    times_s: TimeColumn
    readings: Readings | None
    event: Events | None
    result: FrameResult
    transport: str
    model_id: int
    # Promised against the quota until it is known whether they are stored.
    new_series: Sequence[SeriesName] = ()

    @property
    def size(self) -> int:
        """How many readings; 1 for an event."""
        return len(self.readings) if self.readings is not None else 1


@dataclass(frozen=True, slots=True)
class _Placed:
    """Frames, and at which row of an intake those of each begin."""

    frames: list[PlainFrames | OneFrame]
    positions: list[int]

    def add(self, frames: PlainFrames | OneFrame, position: int) -> None:
        self.frames.append(frames)
        self.positions.append(position)


class Cargo:
    """Gathers frames for one transaction."""

    def __init__(self) -> None:
        self.runs: list[Gathered] = []
        self.plain: list[PlainFrames] = []
        self.single: list[OneFrame] = []
        self.size = 0

    def add_run(self, run: Run, way: Delivery) -> None:
        """Take plain frames in that are still to be judged; they are in their parcel then."""
        self.runs.append(Gathered(run, way, way.parcel.add_run(run)))
        self.size += len(run)

    def take_runs(self) -> list[Gathered]:
        """Return the runs, to be judged; they are not here any more."""
        runs, self.runs = self.runs, []
        self.size -= sum(len(one.run) for one in runs)
        return runs

    def add(self, frames: PlainFrames | OneFrame) -> None:
        """Take a frame in, or several that were read together."""
        if isinstance(frames, PlainFrames):
            self.plain.append(frames)
        else:
            self.single.append(frames)
        self.size += frames.size

    def readings(self, series: list[SeriesName]) -> Loaded | None:
        """Return the readings as an intake; ``series`` has the names of the places."""
        builder = ReadingsBuilder()
        frames = _Placed([], [])
        plain = self.plain
        if plain:
            places = np.concatenate([one.places for one in plain])
            present, index = np.unique(places, return_inverse=True)
            builder.add(
                Readings(
                    [series[place] for place in present.tolist()],
                    index.astype(np.uint32),
                    np.concatenate([one.timestamp_us for one in plain]),
                    np.concatenate([one.value for one in plain]),
                    np.concatenate([one.quality for one in plain]),
                )
            )
            position = 0
            for one in plain:
                frames.add(one, position)
                position += one.size
        for frame in self.single:
            if frame.readings is not None:
                frames.add(frame, builder.add(frame.readings))
        if not frames.frames:
            return None
        rows = builder.build()
        notes = notes_of(frames.frames)
        return Loaded(frames, Intake(rows, None, len(rows), frames=notes))

    def events(self) -> Loaded | None:
        """Return the events as an intake."""
        builder = EventsBuilder()
        frames = _Placed([], [])
        for frame in self.single:
            if frame.event is not None:
                frames.add(frame, builder.add(frame.event))
        if not frames.frames:
            return None
        rows = builder.build()
        notes = notes_of(frames.frames)
        return Loaded(frames, Intake(None, rows, len(rows), (0,) * len(rows), frames=notes))


@dataclass(frozen=True, slots=True)
class Loaded:
    """One intake, and what its rows are of."""

    placed: _Placed
    intake: Intake

    @property
    def frames(self) -> list[PlainFrames | OneFrame]:
        """The frames in it."""
        return self.placed.frames

    def settle(
        self, one: PlainFrames | OneFrame, result: FrameResult, retry_after_s: int = 0
    ) -> None:
        """Tell the parcels of some frames what became of these."""
        if isinstance(one, OneFrame):
            one.parcel.settle(one.rows, result, retry_after_s)
            return
        for parcel, rows, _ in one.shares:
            parcel.settle(rows, result, retry_after_s)

    def stored(self, first_id: int) -> None:
        """Tell the parcels that all of it is durable from ``first_id`` on."""
        for one, position in zip(self.placed.frames, self.placed.positions, strict=True):
            at = first_id + position
            if isinstance(one, PlainFrames):
                for parcel, rows, start in one.shares:
                    parcel.stored(rows, range(at + start, at + start + len(rows)))
            else:
                one.parcel.stored(one.rows, (at,), (one.result,))


def event_of(sensor_id: str, timestamp_us: int, quality: int, payload: bytes) -> Events:
    """Return an event as columns of one row."""
    return Events([(sensor_id, EVENT_METRIC)], [0], [timestamp_us], [quality], [payload])


def notes_of(frames: Iterable[PlainFrames | OneFrame]) -> bytes:
    """Return what the journal keeps of frames: header time and identity of each."""
    several = list(frames)
    ids = np.concatenate([one.ids for one in several])
    notes = np.empty(len(ids), dtype=[("time", ">u4"), ("id", "<u8", (2,))])
    notes["time"] = np.concatenate([one.times_s for one in several])
    notes["id"] = ids
    return notes.tobytes()


def frames_of(notes: bytes) -> tuple[IdColumn, TimeColumn]:
    """Return identities and header times of what ``notes_of`` made."""
    rows = np.frombuffer(notes, dtype=[("time", ">u4"), ("id", "<u8", (2,))])
    return np.ascontiguousarray(rows["id"]), rows["time"].astype(np.int64)


def single_id(frame_id: bytes, time_s: int) -> tuple[IdColumn, TimeColumn]:
    """Return the columns of one frame."""
    return id_column(frame_id), np.array([time_s], dtype=np.int64)
