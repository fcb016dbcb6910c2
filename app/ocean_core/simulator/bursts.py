"""Frames that are written together, and the queues of connections that they wait in.

Devices belong to a connection for good. When one connection has nothing left, the next frames of all
are made, but for those whose queue is full: a device measures no faster than it can send.

A device whose clock is wrong sends a few frames that are to be refused; then its clock is set right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.obs.clock import Clock
from ocean_core.protocol.nanogridata.frame import Options
from ocean_core.protocol.nanogridata.header import check_bytes
from ocean_core.simulator.devices import ENTRIES_MAX, SECOND_US, Devices
from ocean_core.simulator.fleet import Columns, Fleet
from ocean_core.simulator.frames import FrameMaker
from ocean_core.simulator.parcels import Lot
from ocean_core.simulator.plan import Order, Timing

FRAMES_MAX: Final = 128
"""How many frames are written at a time, if the order does not say."""
ASTRAY_FRAMES_MAX: Final = 6
"""How many frames of a run are of 1970, and how many are hours ahead: the box keeps what it refuses."""
_ROWS_AT_A_TIME: Final = 16_384
_QUEUED_BURSTS: Final = 2
_PARTS_MIN: Final = 8
_PACED_QUEUED_FRAMES: Final = 4_096

# One record of the acknowledgement protocol, of a frame that was stored.
RECORD_BYTES: Final = 12
RECORD_BEGIN: Final = b"\xc1\x41"
ECHO: Final = slice(4, 10)


class Letter:
    """One frame under way, and the readings of its burst that it carries."""

    __slots__ = (
        "echo", "frame", "is_astray", "is_repeat", "lot", "sent_at", "start", "stop", "was_lost",
    )  # fmt: skip

    def __init__(self, burst: Burst, number: int) -> None:
        self.lot = burst.lot
        self.start, self.stop = burst.bounds[number], burst.bounds[number + 1]
        self.frame = burst.frames[number]
        self.echo = burst.wanted[RECORD_BYTES * number :][ECHO]
        self.is_astray = burst.is_astray
        self.was_lost = burst.was_lost
        self.is_repeat = False
        self.sent_at = burst.sent_at

    @property
    def rows(self) -> int:
        """How many readings it has."""
        return self.stop - self.start


class Burst:
    """Frames of one connection that are written together.

    ``wanted`` is what acknowledges all of them, in order; ``sent_at`` by the steady clock. ``is_astray``: their device's clock is
    wrong, so that they are to be refused. ``due_us``: when the last of them is measured.
    """

    __slots__ = ("bounds", "due_us", "frames", "is_astray", "lot", "sent_at", "wanted", "was_lost")

    def __init__(
        self, lot: Lot, frames: list[bytes], bounds: list[int], wanted: bytes, due_us: int,
        *, is_astray: bool,
    ) -> None:  # fmt: skip
        """Frame ``n`` has the readings ``bounds[n]`` to ``bounds[n + 1]`` of ``lot``."""
        self.lot = lot
        self.frames = frames
        self.bounds = bounds
        self.wanted = wanted
        self.due_us = due_us
        self.is_astray = is_astray
        self.was_lost = False
        self.sent_at = 0.0

    @property
    def start(self) -> int:
        """The first of its readings in the lot, which is its own."""
        return 0

    @property
    def stop(self) -> int:
        """The end of its readings."""
        return self.bounds[-1]

    @property
    def rows(self) -> int:
        """How many readings it has."""
        return self.bounds[-1]

    def letters(self) -> Iterator[Letter]:
        """Yield its frames one by one."""
        return (Letter(self, number) for number in range(len(self.frames)))


class Bursts:
    """Makes frames when they are asked for, and keeps them until their connection takes them."""

    def __init__(
        self,
        order: Order,
        fleet: Fleet,
        devices: Devices,
        maker: FrameMaker,
        timing: Timing,
        clock: Clock,
        *,
        connections: int,
        frames_max: int = FRAMES_MAX,
    ) -> None:
        assert order.frames is not None
        self._fleet = fleet
        self._devices = devices
        self._maker = maker
        self._timing = timing
        self._clock = clock
        self._left = order.count
        self._check_bytes = check_bytes(order.frames.level, Options())
        self._frames_max = frames_max
        sensors = len(devices.names)
        # By place, so that rows in the order of devices are in that of connections.
        self._connection = np.arange(sensors, dtype=np.int64) * connections // sensors
        self._queues: list[deque[Burst]] = [deque() for _ in range(connections)]
        self._queued = np.zeros(connections, dtype=np.int64)
        self._full = _PACED_QUEUED_FRAMES if timing.paced else _QUEUED_BURSTS * frames_max
        self._moments = ENTRIES_MAX if timing.paced else _moments(order, connections, frames_max)
        self._first = 0
        # By whether a clock is ahead.
        self._astray_left = {False: ASTRAY_FRAMES_MAX, True: ASTRAY_FRAMES_MAX}
        self.skipped = 0

    @property
    def is_over(self) -> bool:
        """Whether as many readings were made as were asked for."""
        return self._left is not None and self._left <= 0

    @property
    def reaches_us(self) -> int:
        """Up to when readings are made, by a clock that is right."""
        return self._timing.start_us + self._first * self._timing.interval_us

    def next_of(self, connection: int) -> Burst | None:
        """Return what a connection sends next, without taking it."""
        queue = self._queues[connection]
        return queue[0] if queue else None

    def take(self, connection: int) -> Burst:
        """Take what a connection sends next."""
        burst = self._queues[connection].popleft()
        self._queued[connection] -= len(burst.frames)
        return burst

    def make(self) -> None:
        """Make the next frames of all connections whose queue is not full."""
        if self.is_over:
            return
        has_room = (self._queued < self._full)[self._connection]
        for columns in self._fleet.readings(self._first, self._moments):
            wanted = has_room[columns.index]
            self.skipped += len(wanted) - int(wanted.sum())
            ordered = np.flatnonzero(wanted)
            ordered = ordered[np.argsort(columns.index[ordered], kind="stable")]
            if self._left is not None:
                ordered = ordered[: max(0, self._left)]
                self._left -= len(ordered)
            if len(ordered):
                made = Columns(
                    columns.index[ordered], columns.timestamp_us[ordered], columns.value[ordered]
                )
                self._queue_by_clock(made)
        self._first += self._moments

    def _queue_by_clock(self, made: Columns) -> None:
        """Queue readings; of those with a wrong clock only a few, the others with the right time."""
        shift_us = self._fleet.shift_us[made.index]
        if not shift_us[0]:
            self._queue(made, is_astray=False)
            return
        is_ahead = bool(shift_us[0] > 0)
        starts = np.flatnonzero(self._devices.begins_frame(made))
        frames = min(self._astray_left[is_ahead], len(starts))
        self._astray_left[is_ahead] -= frames
        row = int(starts[frames]) if frames < len(starts) else len(made.index)
        if row:
            self._queue(
                Columns(made.index[:row], made.timestamp_us[:row], made.value[:row]),
                is_astray=True,
            )
        if row < len(made.index):
            right_us = made.timestamp_us[row:] - shift_us[row:]
            self._queue(Columns(made.index[row:], right_us, made.value[row:]), is_astray=False)

    def _queue(self, measured: Columns, *, is_astray: bool) -> None:
        columns = self._devices.fitted(measured)
        begins = self._devices.begins_frame(columns)
        starts = np.flatnonzero(begins)
        bounds = np.append(starts, len(columns.index))
        shift_us = self._fleet.shift_us[columns.index] * is_astray
        # A frame is measured, and may leave, with the last of its readings.
        last = bounds[1:] - 1
        due_us = measured.timestamp_us[last] - shift_us[last]
        if self._timing.paced:
            header_s = columns.timestamp_us[last] // SECOND_US
        else:
            header_s = (self._clock.now_us() + shift_us[last]) // SECOND_US
        frames = self._maker.frames(columns, starts, header_s)
        records = self._records(frames, header_s)
        connection = self._connection[columns.index[starts]]
        edges = np.flatnonzero(np.diff(connection)) + 1
        for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(frames)], strict=True):
            queue = self._queues[int(connection[begin])]
            self._queued[int(connection[begin])] += end - begin
            for at in range(begin, end, self._frames_max):
                upto = min(end, at + self._frames_max)
                row, stop = int(bounds[at]), int(bounds[upto])
                part = Columns(
                    columns.index[row:stop], columns.timestamp_us[row:stop],
                    columns.value[row:stop],
                )  # fmt: skip
                queue.append(
                    Burst(
                        Lot(part), frames[at:upto], (bounds[at : upto + 1] - row).tolist(),
                        records[RECORD_BYTES * at : RECORD_BYTES * upto],
                        int(due_us[at:upto].max()),
                        is_astray=is_astray,
                    )
                )  # fmt: skip

    def _records(self, frames: list[bytes], header_s: npt.NDArray[np.int64]) -> bytes:
        """Return the records that say of each frame that it is stored."""
        table = np.zeros((len(frames), RECORD_BYTES), dtype=np.uint8)
        table[:, :2] = np.frombuffer(RECORD_BEGIN, dtype=np.uint8)
        table[:, 4:8] = header_s.astype(">u4").view(np.uint8).reshape(-1, 4)
        size = self._check_bytes
        checks = b"".join([frame[-size:][:2] for frame in frames])
        table[:, 8:10] = np.frombuffer(checks, dtype=np.uint8).reshape(-1, 2)
        return table.tobytes()


def _moments(order: Order, connections: int, frames_max: int) -> int:
    rows = min(_ROWS_AT_A_TIME, _QUEUED_BURSTS * connections * frames_max)
    if order.count is not None:
        # All devices should have their turn, also those whose clocks are wrong.
        rows = min(rows, order.count // _PARTS_MIN)
    return max(1, rows // order.sensors // ENTRIES_MAX) * ENTRIES_MAX
