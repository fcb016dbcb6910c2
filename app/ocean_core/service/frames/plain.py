"""The short way of plain frames: from runs to rows of the cargo, without an object per frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ocean_core.model import limits
from ocean_core.model.block import Quality
from ocean_core.protocol.nanogridata.bulk import Columns, Run, columns_of
from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE
from ocean_core.protocol.nanogridata.replay import Seen, id_column
from ocean_core.service.frames.cargo import PlainFrames
from ocean_core.service.frames.delivery import Delivery

if TYPE_CHECKING:
    from ocean_core.service.frames.intake import FrameService

_Mask = npt.NDArray[np.bool_]


class PlainTaker:
    """Takes runs. What is special about a frame of a run is left to the careful way."""

    def __init__(self, service: FrameService) -> None:
        self._service = service

    def take(self, run: Run, way: Delivery) -> bool:
        """Take a run that is not empty; False, and nothing done, if it needs care frame by frame."""
        columns = columns_of(run)
        models = self._service.names.models(columns.places)
        values = np.where(models == GAS, columns.concentration, columns.pressure)
        in_time = self._in_time(columns, models, way)
        if not (columns.reserved_is_zero and in_time.all() and np.isfinite(values).all()):
            return False
        ids = id_column(columns.ids)
        states = self._service.parts.memory.reserve(ids, columns.header_s)
        rows = way.parcel.add(len(run), columns.echoes)
        timestamp_us = columns.payload_s * 1_000_000
        frames = PlainFrames(
            way.parcel,
            rows,
            ids,
            columns.header_s,
            columns.places,
            timestamp_us,
            values,
            self._quality(columns.places, timestamp_us, values, way.arrival.now_us),
            way.source.transport,
        )
        fresh = states == Seen.NEW
        if not fresh.all():
            self._take_seen(run, frames, states, way)
            frames = _only(frames, fresh)
        if frames.size:
            way.cargo.add(frames)
        return True

    def _in_time(self, columns: Columns, models: npt.NDArray[np.uint8], way: Delivery) -> _Mask:
        in_time = np.zeros(len(models), dtype=np.bool_)
        now_s = way.arrival.now_s
        for model_id in (PRESSURE, GAS):
            options = self._service.parts.models.options(model_id)
            in_time |= (
                (models == model_id)
                & (columns.header_s <= now_s + options.future_tolerance_s)
                & (columns.header_s >= now_s - options.max_age_s)
            )
        return in_time

    def _quality(
        self,
        places: npt.NDArray[np.int64],
        timestamp_us: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        now_us: int,
    ) -> npt.NDArray[np.uint8]:
        quality = np.zeros(len(places), dtype=np.uint8)
        quality[self._service.names.out_of_range(places, values)] = Quality.OUT_OF_RANGE
        doubtful = (timestamp_us < limits.TIMESTAMP_PLAUSIBLE_US_MIN) | (
            timestamp_us > now_us + limits.FUTURE_TOLERANCE_US
        )
        quality[doubtful] = Quality.UNTRUSTED_CLOCK
        return quality

    def _take_seen(
        self, run: Run, frames: PlainFrames, states: npt.NDArray[np.uint8], way: Delivery
    ) -> None:
        """Settle the frames of a run that came before."""
        service = self._service
        names = service.names
        stored = np.flatnonzero(states == Seen.STORED)
        for place in np.unique(frames.places[stored]).tolist():
            rows = frames.rows[stored[frames.places[stored] == place]]
            model_id = int(names.models(np.array([place]))[0])
            service.count_repeats(way, rows, names.sensors[place], model_id)
        for at in np.flatnonzero((states == Seen.RESERVED) | (states == Seen.REFUSED)).tolist():
            stop = run.starts[at + 1] if at + 1 < len(run) else run.stop
            service.take_seen(
                run.data[run.starts[at] : stop],
                frames.rows[at : at + 1],
                Seen(int(states[at])),
                way,
            )


def _only(frames: PlainFrames, mask: _Mask) -> PlainFrames:
    return PlainFrames(
        frames.parcel,
        frames.rows[mask],
        frames.ids[mask],
        frames.times_s[mask],
        frames.places[mask],
        frames.timestamp_us[mask],
        frames.value[mask],
        frames.quality[mask],
        frames.transport,
    )
