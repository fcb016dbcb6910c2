"""Frames that are to become durable together: what goes to the journal, and back to whom.

No I/O and no waiting here: ``Cargo`` turns gathered frames into at most two intakes, one of readings
and one of events, and their receipts into what each parcel is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

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
from ocean_core.protocol.nanogridata.replay import IdColumn, TimeColumn, id_column
from ocean_core.service.frames.parcel import Parcel, Rows
from ocean_core.service.frames.terms import FrameResult

_ROW_BYTES: Final = 48


@dataclass(slots=True)
class PlainFrames:
    """Frames that were read many at a time: one reading each, of series known by their place."""

    parcel: Parcel
    rows: Rows
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

    @property
    def series(self) -> Sequence[SeriesName]:
        """The series of its rows."""
        rows = self.readings if self.readings is not None else self.event
        assert rows is not None
        return rows.series

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
        self.plain: list[PlainFrames] = []
        self.single: list[OneFrame] = []
        self.size = 0

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

    def stored(self, first_id: int) -> None:
        """Tell the parcels that all of it is durable from ``first_id`` on."""
        for one, position in zip(self.placed.frames, self.placed.positions, strict=True):
            at = first_id + position
            if isinstance(one, PlainFrames):
                one.parcel.stored(one.rows, np.arange(at, at + one.size), [])
            else:
                one.parcel.stored(one.rows, np.array([at]), [one.result])


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
