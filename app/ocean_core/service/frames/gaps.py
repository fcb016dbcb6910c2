"""Which frames of a device are missing: an estimate, for frames carry no numbers.

Most devices measure at a steady pace, so the usual spacing of their header times is learned. Where
two neighbours are further apart, frames between them are missing, unless they come late: a device
that stores and forwards. A gap is entered in the loss ledger when its frames would be too old to be
accepted. A device that was switched off looks the same; one that sends when something happens has
no usual spacing and no gaps; a single frame that is missing is not noticed.

Per device: the newest time, the last differences between neighbours, and the open gaps. All frames
of one call are judged by the spacing that was known before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ocean_core.model import limits
from ocean_core.obs.metrics import MetricsRegistry

GAP: Final = "gap"
"""The class in the loss ledger."""

METRIC: Final = "ocean_nanogridata_gap_frames_total"
DIFFERENCES: Final = 16
DIFFERENCES_MIN: Final = 8
SHARE_ALIKE_MIN: Final = 0.625
"""What share of the differences has to lie within half of their median for a steady pace."""

GAP_SPACINGS_MIN: Final = 2.5
"""So many times the usual spacing are a gap."""

_SINGLES_MAX: Final = 512
_SLOTS_FIRST: Final = 256
_EVICTED_SHARE: Final = 8
_NONE: Final = -1
_NOTHING: Final = np.iinfo(np.int64).max
_RUN_SHIFT: Final = 34

Whole = npt.NDArray[np.int64]


class LossSink(Protocol):
    """Where what is lost for good is counted; the book of the loss ledger."""

    def lost(self, loss_class: str, sensors: Mapping[str, int]) -> None:
        """Count for sensors what went one way."""
        ...


@dataclass(slots=True)
class _Gap:
    """``missing`` frames between two times, neither included; ``late_s`` is that of the last one."""

    after_s: int
    before_s: int
    missing: int
    late_s: int = _NONE


class GapBook:
    """The gaps of all devices. Bounded; for the event loop alone."""

    def __init__(self, sink: LossSink, metrics: MetricsRegistry, max_age_s: int) -> None:
        """``max_age_s``: when a frame is too old to be accepted."""
        self._sink = sink
        self._metrics = metrics
        self._max_age_s = max_age_s
        self._slots: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._gaps: dict[int, list[_Gap]] = {}
        self._open = 0
        self._round = 0
        self._final: dict[str, int] = {}
        self._singles: tuple[list[str], list[int]] = ([], [])
        self._newest: Whole = np.full(_SLOTS_FIRST, _NONE, dtype=np.int64)
        self._used: Whole = np.zeros(_SLOTS_FIRST, dtype=np.int64)
        self._counts: Whole = np.zeros(_SLOTS_FIRST, dtype=np.int64)
        self._ring: Whole = np.full((_SLOTS_FIRST, DIFFERENCES), _NOTHING, dtype=np.int64)
        self._spacing: npt.NDArray[np.float64] = np.full(_SLOTS_FIRST, inf)

    @property
    def devices(self) -> int:
        """How many devices are known."""
        return len(self._slots)

    @property
    def open_frames(self) -> int:
        """How many frames are missing that may still come."""
        return sum(gap.missing for gaps in self._gaps.values() for gap in gaps)

    def note_one(self, sensor_id: str, time_s: int) -> None:
        """Take the header time of one frame; looked at together with others a little later."""
        sensors, times = self._singles
        sensors.append(sensor_id)
        times.append(time_s)
        if len(times) >= _SINGLES_MAX:
            self._take_singles()

    def note(
        self,
        sensor_ids: Sequence[str],
        places: npt.NDArray[np.integer],
        times_s: npt.NDArray[np.integer],
    ) -> None:
        """Take the header times of frames in the order they came; places are those of sensors."""
        if not len(places):
            return
        self._round += 1
        present, inverse = np.unique(places, return_inverse=True)
        slots = np.array([self._slot_of(sensor_ids[i]) for i in present.tolist()], dtype=np.int64)
        slots = slots[inverse]
        order = np.argsort(slots, kind="stable")
        slots, times = slots[order], times_s[order].astype(np.int64)
        if slots[0] == _NONE:
            known = slots != _NONE
            slots, times = slots[known], times[known]
        if len(slots):
            self._take(slots, times)

    def tick(self, now_s: int) -> None:
        """Enter gaps whose frames can no longer come."""
        self._take_singles()
        oldest_s = now_s - self._max_age_s
        for slot in list(self._gaps):
            gaps = self._gaps[slot]
            while gaps and gaps[0].before_s < oldest_s:
                self._finish(slot, gaps.pop(0))
            self._drop_if_empty(slot)
        self._enter()

    def close(self) -> None:
        """Enter all gaps as they are; late frames are not known as such after a restart."""
        self.tick(_NOTHING)

    # --- what came ---

    def _take_singles(self) -> None:
        sensors, times = self._singles
        if times:
            self._singles = ([], [])
            self.note(sensors, np.arange(len(times)), np.array(times, dtype=np.int64))

    def _take(self, slots: Whole, times: Whole) -> None:
        """Take frames sorted by slot, those of each in the order they came."""
        starts = np.flatnonzero(np.diff(slots, prepend=_NONE))
        lengths = np.diff(starts, append=len(slots))
        devices = slots[starts]
        before = self._newest[devices]
        # The newest time up to each frame, all devices at once: each run is above the one before.
        lift = np.repeat(np.arange(len(starts)) << _RUN_SHIFT, lengths)
        newest = np.maximum.accumulate(times + lift)
        newest = np.maximum(newest - lift, np.repeat(before, lengths))
        previous = np.empty_like(newest)
        previous[1:] = newest[:-1]
        previous[starts] = np.where(before == _NONE, times[starts], before)
        differences = times - previous
        self._newest[devices] = newest[starts + lengths - 1]
        self._find_gaps(slots, starts, lengths, times, differences)
        self._learn(slots, differences)
        self._enter()

    def _find_gaps(
        self, slots: Whole, starts: Whole, lengths: Whole, times: Whole, differences: Whole
    ) -> None:
        opens = differences >= GAP_SPACINGS_MIN * self._spacing[slots]
        late = differences < 0
        if late.any():
            gapped = np.logical_or.reduceat(opens, starts)
            if self._gaps:
                gapped |= np.isin(slots[starts], np.fromiter(self._gaps, dtype=np.int64))
            opens |= late & np.repeat(gapped, lengths)
        # Few, so one by one.
        for place in np.flatnonzero(opens).tolist():
            slot, time_s = int(slots[place]), int(times[place])
            difference = int(differences[place])
            if difference < 0:
                self._came_late(slot, time_s)
            else:
                missing = round(difference / float(self._spacing[slot])) - 1
                self._open_gap(slot, _Gap(time_s - difference, time_s, missing))

    def _learn(self, slots: Whole, differences: Whole) -> None:
        """Remember positive differences, and what spacing is usual now."""
        grown = differences > 0
        slots, differences = slots[grown], differences[grown]
        if not len(slots):
            return
        starts = np.flatnonzero(np.diff(slots, prepend=_NONE))
        lengths = np.diff(starts, append=len(slots))
        devices = slots[starts]
        rank = np.arange(len(slots)) - np.repeat(starts, lengths)
        last = rank >= np.repeat(lengths, lengths) - DIFFERENCES
        at = (self._counts[slots] + rank) % DIFFERENCES
        self._ring[slots[last], at[last]] = differences[last]
        self._counts[devices] += lengths
        spacing = usual_spacing(self._ring[devices], self._counts[devices])
        self._spacing[devices] = spacing
        for slot in self._gaps.keys() & set(devices.tolist()) if self._gaps else ():
            self._reconsider(slot)

    # --- gaps ---

    def _open_gap(self, slot: int, gap: _Gap) -> None:
        gaps = self._gaps.setdefault(slot, [])
        gaps.append(gap)
        self._open += 1
        if len(gaps) > limits.GAPS_PER_DEVICE_MAX or self._open > limits.GAPS_MAX:
            self._finish(slot, gaps.pop(0))
            self._drop_if_empty(slot)

    def _came_late(self, slot: int, time_s: int) -> None:
        for gap in self._gaps.get(slot, ()):
            if gap.after_s < time_s < gap.before_s:
                # Several frames of one moment are several metrics.
                gap.missing -= time_s != gap.late_s
                gap.late_s = time_s
                break
        else:
            return
        if not gap.missing:
            self._gaps[slot].remove(gap)
            self._open -= 1
            self._drop_if_empty(slot)

    def _reconsider(self, slot: int) -> None:
        """Drop gaps that are none at the pace that the device has taken up since."""
        spacing = float(self._spacing[slot])
        if spacing == inf:
            return
        least = GAP_SPACINGS_MIN * spacing
        gaps = self._gaps[slot]
        kept = [gap for gap in gaps if gap.before_s - gap.after_s >= least]
        self._open -= len(gaps) - len(kept)
        self._gaps[slot] = kept
        self._drop_if_empty(slot)

    def _drop_if_empty(self, slot: int) -> None:
        if not self._gaps[slot]:
            del self._gaps[slot]

    def _finish(self, slot: int, gap: _Gap) -> None:
        self._open -= 1
        name = self._names[slot]
        self._final[name] = self._final.get(name, 0) + gap.missing

    def _enter(self) -> None:
        if self._final:
            final, self._final = self._final, {}
            self._sink.lost(GAP, final)
            self._metrics.add(METRIC, sum(final.values()))

    # --- devices ---

    def _slot_of(self, sensor_id: str) -> int:
        """Return the place of a device in the columns, _NONE if there is no room for it."""
        slot = self._slots.get(sensor_id)
        if slot is None:
            slot = self._new_slot(sensor_id)
        if slot != _NONE:
            self._used[slot] = self._round
        return slot

    def _new_slot(self, sensor_id: str) -> int:
        if not self._free and len(self._slots) >= limits.GAP_DEVICES_MAX:
            self._free.extend(self._evict())
            if not self._free:
                return _NONE
        if self._free:
            slot = self._free.pop()
            self._names[slot] = sensor_id
        else:
            slot = len(self._names)
            self._names.append(sensor_id)
            if slot >= len(self._newest):
                self._grow()
        self._slots[sensor_id] = slot
        self._newest[slot] = _NONE
        self._counts[slot] = 0
        self._ring[slot] = _NOTHING
        self._spacing[slot] = inf
        return slot

    def _grow(self) -> None:
        size = 2 * len(self._newest)
        self._newest = np.resize(self._newest, size)
        self._used = np.resize(self._used, size)
        self._counts = np.resize(self._counts, size)
        self._ring = np.resize(self._ring, (size, DIFFERENCES))
        self._spacing = np.resize(self._spacing, size)

    def _evict(self) -> Iterator[int]:
        """Forget the devices that were silent for longest; none of those of this call."""
        slots = np.fromiter(self._slots.values(), dtype=np.int64)
        used = self._used[slots]
        by_use = np.argsort(used, kind="stable")[: max(1, len(slots) // _EVICTED_SHARE)]
        for slot in slots[by_use[used[by_use] < self._round]].tolist():
            for gap in self._gaps.pop(slot, ()):
                self._finish(slot, gap)
            del self._slots[self._names[slot]]
            yield slot


def usual_spacing(ring: Whole, counts: Whole) -> npt.NDArray[np.float64]:
    """Return the usual one of the last differences of each device, infinite if there is none.

    ``ring`` has a row for each device, filled up to ``counts``; the rest is the largest number.
    """
    filled = np.minimum(counts, DIFFERENCES)
    ordered = np.sort(ring, axis=1)
    rows = np.arange(len(ring))
    least = np.maximum(filled - 1, 0) // 2
    median = (ordered[rows, least] + ordered[rows, np.minimum(filled // 2, DIFFERENCES - 1)]) / 2
    alike = (np.abs(ring - median[:, None]) <= median[:, None] / 2).sum(axis=1)
    steady = (filled >= DIFFERENCES_MIN) & (alike >= SHARE_ALIKE_MIN * filled)
    return np.where(steady, median, inf)
