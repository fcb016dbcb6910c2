"""Frames that came together, each on its way to an outcome; and what their sender is told.

One parcel is one read from a connection, or one request. Its rows are its frames in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ocean_core.protocol.nanogridata.bulk import TAIL_BYTES, Run
from ocean_core.protocol.nanogridata.frame import Outcome
from ocean_core.service.frames.terms import DUPLICATE, STORED, FrameResult

Rows = range | list[int]

ACK_BYTES: Final = 12
ACK_MAGIC: Final = b"\xc1\x41"
STATUS_STORED: Final = 0
STATUS_DUPLICATE: Final = 1
STATUS_REFUSED: Final = 2
STATUS_LATER: Final = 3
ERROR_OTHER: Final = 255

_NUMBERS: Final = {str(outcome): outcome.number for outcome in Outcome}
_TIME_BYTES: Final = 4
_CHECK_BYTES: Final = 2
_BEFORE_CHECK: Final = bytes(TAIL_BYTES - _CHECK_BYTES)
_ARRAY_FROM: Final = 64


class Parcel:
    """Counts its frames until all have their outcome; then ``done`` is called, once.

    This one tells nobody of them: its sender did not ask. ``can_tell`` is false then, so a frame
    that cannot be stored now is kept and tried again instead.
    """

    can_tell = False

    def __init__(self, done: Callable[[], None] | None = None) -> None:
        self._done = done
        self._left = 1
        self.frames = 0

    def add_run(self, run: Run) -> int:
        """Take plain frames in; return the row of the first."""
        return self._add(len(run))

    def add(self, frame: bytes, check_at: int) -> range:
        """Take a frame in, whose check value begins at ``check_at``; return its row."""
        del frame, check_at
        row = self._add(1)
        return range(row, row + 1)

    def _add(self, frames: int) -> int:
        first = self.frames
        self.frames += frames
        self._left += frames
        return first

    def close(self) -> None:
        """Say that all frames are in."""
        self._settled(1)

    def stored(
        self, rows: Rows, first_ids: Sequence[int], results: Sequence[FrameResult] = ()
    ) -> None:
        """Frames are durable; ``results`` are of as many frames, or empty if they are plain ones."""
        del first_ids, results
        self._settled(len(rows))

    def settle(self, rows: Rows, result: FrameResult, retry_after_s: int = 0) -> None:
        """Frames have an outcome, all the same one."""
        del result, retry_after_s
        self._settled(len(rows))

    def skipped(self, count: int, reason: str) -> None:
        """Bytes between frames belonged to none."""
        del count, reason

    def _settled(self, count: int) -> None:
        self._left -= count
        if not self._left and self._done is not None:
            done, self._done = self._done, None
            done()

    @property
    def is_settled(self) -> bool:
        """Whether every frame has its outcome."""
        return not self._left


class AckParcel(Parcel):
    """One whose sender wants an acknowledgement record for each frame."""

    can_tell = True

    def __init__(self, done: Callable[[], None] | None = None) -> None:
        super().__init__(done)
        # What a sender knows its frames by: header times, and behind eight bytes the check values.
        self._times: list[bytes] = []
        self._tails: list[bytes] = []
        self._told: list[tuple[Rows, int, int, int]] = []

    def add_run(self, run: Run) -> int:
        """Take plain frames in; return the row of the first."""
        self._times += run.times
        self._tails += run.tails
        return super().add_run(run)

    def add(self, frame: bytes, check_at: int) -> range:
        """Take a frame in; return its row."""
        self._times.append(frame[8:12].ljust(_TIME_BYTES, b"\0"))
        check = frame[check_at : check_at + _CHECK_BYTES].ljust(_CHECK_BYTES, b"\0")
        self._tails.append(_BEFORE_CHECK + check)
        return super().add(frame, check_at)

    def settle(self, rows: Rows, result: FrameResult, retry_after_s: int = 0) -> None:
        """Note an outcome."""
        if result.outcome == DUPLICATE:
            told = STATUS_DUPLICATE, 0, 0
        elif result.may_retry:
            told = STATUS_LATER, ERROR_OTHER, min(retry_after_s, 0xFFFF)
        else:
            told = STATUS_REFUSED, _NUMBERS.get(result.outcome, ERROR_OTHER), 0
        self._told.append((rows, *told))
        super().settle(rows, result)

    def records(self) -> bytes:
        """Return the acknowledgement records, in the order of the frames."""
        if self._told or self.frames >= _ARRAY_FROM:
            return self._records()
        # All stored, and few: no array is worth its making.
        echoes = zip(self._times, self._tails, strict=True)
        return b"".join([b"\xc1\x41\0\0%b%b\0\0" % (time, tail[8:]) for time, tail in echoes])

    def _records(self) -> bytes:
        records = np.zeros((self.frames, ACK_BYTES), dtype=np.uint8)
        records[:, :2] = np.frombuffer(ACK_MAGIC, dtype=np.uint8)
        times = np.frombuffer(b"".join(self._times), dtype=np.uint8)
        tails = np.frombuffer(b"".join(self._tails), dtype=np.uint8)
        records[:, 4:8] = times.reshape(-1, _TIME_BYTES)
        records[:, 8:10] = tails.reshape(-1, TAIL_BYTES)[:, -_CHECK_BYTES:]
        for rows, status, error, retry_after_s in self._told:
            records[rows, 2:4] = status, error
            records[rows, 10:12] = divmod(retry_after_s, 256)
        return records.tobytes()


class ResultParcel(Parcel):
    """One whose sender gets all there is to tell."""

    can_tell = True

    def __init__(self, done: Callable[[], None] | None = None) -> None:
        super().__init__(done)
        self._results: dict[int, FrameResult] = {}

    def stored(
        self, rows: Rows, first_ids: Sequence[int], results: Sequence[FrameResult] = ()
    ) -> None:
        """Note that frames are durable."""
        told = results or [_PLAIN] * len(rows)
        for row, first_id, result in zip(rows, first_ids, told, strict=True):
            self._results[row] = result._replace(first_id=first_id)
        super().stored(rows, first_ids, results)

    def settle(self, rows: Rows, result: FrameResult, retry_after_s: int = 0) -> None:
        """Note an outcome."""
        for row in rows:
            self._results[row] = result
        super().settle(rows, result, retry_after_s)

    def skipped(self, count: int, reason: str) -> None:
        """Note them as one refused frame, in their place."""
        told = f"{count} bytes belong to no frame; {reason}"
        self.settle(self.add(b"", 0), FrameResult(str(Outcome.MAGIC), told, 0))

    def results(self) -> list[FrameResult]:
        """Return the outcome of each frame, in order."""
        return [self._results[row] for row in range(self.frames)]


_PLAIN: Final = FrameResult(STORED, rows=1)
