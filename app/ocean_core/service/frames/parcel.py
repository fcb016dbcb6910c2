"""Frames that came together, each on its way to an outcome; and what their sender is told.

One parcel is one read from a connection, or one request. Its rows are its frames in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.protocol.nanogridata.frame import Outcome
from ocean_core.service.frames.terms import DUPLICATE, STORED, FrameResult

Rows = npt.NDArray[np.int64]

ACK_BYTES: Final = 12
ACK_MAGIC: Final = (0xC1, 0x41)
STATUS_STORED: Final = 0
STATUS_DUPLICATE: Final = 1
STATUS_REFUSED: Final = 2
STATUS_LATER: Final = 3
ERROR_OTHER: Final = 255

_NUMBERS: Final = {str(outcome): outcome.number for outcome in Outcome}
_ECHO_BYTES: Final = 6


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

    def add(self, frames: int, echoes: npt.NDArray[np.uint8] | None = None) -> Rows:
        """Take frames in; return their rows. ``echoes``: six bytes of each, see ``echo_of``."""
        del echoes
        first = self.frames
        self.frames += frames
        self._left += frames
        return np.arange(first, self.frames)

    def close(self) -> None:
        """Say that all frames are in."""
        self._settled(1)

    def stored(
        self, rows: Rows, first_ids: npt.NDArray[np.int64], results: list[FrameResult]
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
        self._echoes: list[npt.NDArray[np.uint8]] = []
        self._told: list[tuple[Rows, int, int, int]] = []

    def add(self, frames: int, echoes: npt.NDArray[np.uint8] | None = None) -> Rows:
        """Take frames in; return their rows."""
        assert echoes is not None
        self._echoes.append(echoes)
        return super().add(frames)

    def stored(
        self, rows: Rows, first_ids: npt.NDArray[np.int64], results: list[FrameResult]
    ) -> None:
        """Note that frames are durable."""
        self._told.append((rows, STATUS_STORED, 0, 0))
        super().stored(rows, first_ids, results)

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
        if not self.frames:
            return b""
        records = np.zeros((self.frames, ACK_BYTES), dtype=np.uint8)
        records[:, :2] = ACK_MAGIC
        records[:, 4:10] = np.concatenate(self._echoes)
        for rows, status, error, retry_after_s in self._told:
            records[rows, 2] = status
            records[rows, 3] = error
            if retry_after_s:
                records[rows, 10] = retry_after_s >> 8
                records[rows, 11] = retry_after_s & 0xFF
        return records.tobytes()


class ResultParcel(Parcel):
    """One whose sender gets all there is to tell."""

    can_tell = True

    def __init__(self, done: Callable[[], None] | None = None) -> None:
        super().__init__(done)
        self._results: dict[int, FrameResult] = {}

    def stored(
        self, rows: Rows, first_ids: npt.NDArray[np.int64], results: list[FrameResult]
    ) -> None:
        """Note that frames are durable."""
        told = results or [FrameResult(STORED, rows=1)] * len(rows)
        for row, first_id, result in zip(rows.tolist(), first_ids.tolist(), told, strict=True):
            self._results[row] = result._replace(first_id=first_id)
        super().stored(rows, first_ids, results)

    def settle(self, rows: Rows, result: FrameResult, retry_after_s: int = 0) -> None:
        """Note an outcome."""
        for row in rows.tolist():
            self._results[row] = result
        super().settle(rows, result, retry_after_s)

    def skipped(self, count: int, reason: str) -> None:
        """Note them as one refused frame, in their place."""
        told = f"{count} bytes belong to no frame; {reason}"
        self.settle(self.add(1), FrameResult(str(Outcome.MAGIC), told, 0))

    def results(self) -> list[FrameResult]:
        """Return the outcome of each frame, in order."""
        return [self._results[row] for row in range(self.frames)]


def echo_of(frame: bytes, check_at: int) -> npt.NDArray[np.uint8]:
    """Return the six bytes by which a sender knows its frame again: time, begin of check value."""
    echo = frame[8:12] + frame[check_at : check_at + 2]
    return np.frombuffer(echo.ljust(_ECHO_BYTES, b"\0"), dtype=np.uint8).reshape(1, _ECHO_BYTES)
