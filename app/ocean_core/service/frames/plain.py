"""The short way of plain frames: from runs to rows of the cargo, without an object per frame.

Runs of many connections are judged together, when their cargo is about to be stored: what is done
once for each call of numpy is then done once for all of them.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ocean_core.model import limits
from ocean_core.model.block import Quality
from ocean_core.protocol.nanogridata.bulk import Columns, columns_of
from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE
from ocean_core.protocol.nanogridata.replay import Seen, id_column
from ocean_core.service.frames.cargo import Cargo, Gathered, PlainFrames, Share

if TYPE_CHECKING:
    from ocean_core.service.frames.intake import FrameService

_Mask = npt.NDArray[np.bool_]
_Integers = npt.NDArray[np.int64]


class PlainJudge:
    """Judges runs. What is special about a frame of a run is left to the careful way."""

    def __init__(self, service: FrameService) -> None:
        self._service = service

    def judge(self, cargo: Cargo) -> None:
        """Turn the runs of a cargo into rows of it, or settle them."""
        runs = cargo.take_runs()
        by_transport: dict[str, list[Gathered]] = {}
        for one in runs:
            by_transport.setdefault(one.way.source.transport, []).append(one)
        for transport, several in by_transport.items():
            self._judge(cargo, several, transport)

    def _judge(self, cargo: Cargo, runs: list[Gathered], transport: str) -> None:
        columns = columns_of([one.run for one in runs])
        counts = [len(one.run) for one in runs]
        arrival_us = np.repeat([one.way.arrival.now_us for one in runs], counts)
        models = self._service.names.models(columns.places)
        values = np.where(models == GAS, columns.concentration, columns.pressure)
        timestamp_us = columns.payload_s * 1_000_000
        starts = [0, *accumulate(counts)]
        frames = PlainFrames(
            [
                Share(one.way.parcel, range(one.first, one.first + count), at)
                for one, count, at in zip(runs, counts, starts, strict=False)
            ],
            id_column(columns.ids),
            columns.header_s,
            columns.places,
            timestamp_us,
            values,
            self._quality(columns.places, timestamp_us, values, arrival_us),
            transport,
        )
        good = self._in_time(columns, models, arrival_us) & np.isfinite(values)
        states = np.zeros(len(good), dtype=np.uint8)
        memory = self._service.parts.memory
        states[good] = memory.reserve(frames.ids[good], frames.times_s[good])
        fresh = good & (states == Seen.NEW)
        cargo_frames = frames if fresh.all() else frames.only(fresh)
        if cargo_frames.size:
            cargo.add(cargo_frames)
        if cargo_frames is not frames:
            self._take_special(cargo, runs, starts, np.flatnonzero(~fresh), states)

    def _in_time(
        self, columns: Columns, models: npt.NDArray[np.uint8], arrival_us: _Integers
    ) -> _Mask:
        in_time = np.zeros(len(models), dtype=np.bool_)
        now_s = arrival_us // 1_000_000
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
        places: _Integers,
        timestamp_us: _Integers,
        values: npt.NDArray[np.float64],
        arrival_us: _Integers,
    ) -> npt.NDArray[np.uint8]:
        quality = np.zeros(len(places), dtype=np.uint8)
        quality[self._service.names.out_of_range(places, values)] = Quality.OUT_OF_RANGE
        doubtful = (timestamp_us < limits.TIMESTAMP_PLAUSIBLE_US_MIN) | (
            timestamp_us > arrival_us + limits.FUTURE_TOLERANCE_US
        )
        quality[doubtful] = Quality.UNTRUSTED_CLOCK
        return quality

    def _take_special(
        self,
        cargo: Cargo,
        runs: list[Gathered],
        starts: list[int],
        special: _Integers,
        states: npt.NDArray[np.uint8],
    ) -> None:
        """Take frames that are not simply new, one by one."""
        service = self._service
        owners = np.searchsorted(starts, special, side="right") - 1
        for number, owner in zip(special.tolist(), owners.tolist(), strict=True):
            run, way, first = runs[owner]
            at = number - starts[owner]
            row = first + at
            # What comes of it goes with this cargo, whichever it came with.
            way = way._replace(cargo=cargo)
            state = Seen(int(states[number]))
            if state is Seen.STORED:
                place = run.places[at]
                model_id = int(service.names.models(np.array([place]))[0])
                sensor_id = service.names.sensors[place]
                service.count_repeats(way, range(row, row + 1), sensor_id, model_id)
            else:
                service.take_again(run.frame(at), range(row, row + 1), state, way)
