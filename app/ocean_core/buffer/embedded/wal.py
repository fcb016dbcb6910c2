"""SQLite's write-ahead log read byte by byte: which frames SQLite accepts, and which it hides.

Layout: https://www.sqlite.org/fileformat2.html#walformat. A frame's checksum continues that of
the frame before. SQLite stops at the first frame that does not fit, so one damaged frame hides
everything behind it. Here each frame is also checked by itself, with the checksum *stored* in the
frame before as the seed, which tells the damaged frame from the good ones behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
FRAME_BYTES: Final = FRAME_HEADER_BYTES + PAGE_BYTES
_FORMAT: Final = 3_007_000
_MAGIC_LITTLE: Final = 0x377F0682
_MAGIC_BIG: Final = 0x377F0683

_Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Frame:
    """One page image in the WAL. ``intact`` means that its own checksum holds."""

    page_no: int
    ends_transaction: bool
    intact: bool
    page: memoryview


@dataclass(frozen=True, slots=True)
class WalImage:
    """The frames of the WAL's present generation; SQLite accepts the first ``accepted``."""

    frames: list[Frame]
    accepted: int

    @property
    def last_transaction(self) -> int:
        """Index of the first frame of the last transaction.

        The next one begins only after a sync, so all before it were synced and acknowledged; this
        one perhaps was not.
        """
        for i in range(len(self.frames) - 2, -1, -1):
            if self.frames[i].ends_transaction:
                return i + 1
        return 0

    @property
    def hides_something(self) -> bool:
        """Whether there are frames that SQLite will not see but that may have been acknowledged.

        Whole frames without a commit behind the accepted ones are a transaction that a crash cut
        off: nobody was told of it.
        """
        rest = self.frames[self.accepted :]
        return any(frame.ends_transaction or not frame.intact for frame in rest)


def parse_wal(data: bytes) -> WalImage:
    """Take apart a WAL file of any condition."""
    count = max(0, (len(data) - HEADER_BYTES) // FRAME_BYTES)
    if not count:
        return WalImage([], 0)
    header = [int(word) for word in np.frombuffer(data, ">u4", 8)]
    orders: Sequence[str] = ("<u4", ">u4")
    if header[0] in {_MAGIC_LITTLE, _MAGIC_BIG}:
        orders = ("<u4",) if header[0] == _MAGIC_LITTLE else (">u4",)
    for order in orders:
        image = _parse(data, count, header, order)
        if any(frame.intact for frame in image.frames):
            return image
    return WalImage([], 0)


def _parse(data: bytes, count: int, header: list[int], order: str) -> WalImage:
    rows = np.frombuffer(data, "u1", count * FRAME_BYTES, HEADER_BYTES).reshape(count, FRAME_BYTES)
    fields = np.frombuffer(rows[:, :FRAME_HEADER_BYTES].tobytes(), ">u4").reshape(count, 6)
    covered = np.concatenate((rows[:, :8], rows[:, FRAME_HEADER_BYTES:]), axis=1)
    words = np.frombuffer(covered.tobytes(), order).astype(np.uint32).reshape(count, -1)
    stored = fields[:, 4:6].astype(np.uint32)
    seeds = np.concatenate((np.array([header[6:8]], np.uint32), stored[:-1]))
    sums_hold = (_checksums(words, seeds) == stored).all(axis=1)
    header_words = np.frombuffer(data, order, 6).astype(np.uint32).reshape(1, 6)
    header_sum = _checksums(header_words, np.zeros((1, 2), np.uint32))[0]
    header_holds = (
        header[0] in {_MAGIC_LITTLE, _MAGIC_BIG}
        and header[1] == _FORMAT
        and header[2] == PAGE_BYTES
        and [int(header_sum[0]), int(header_sum[1])] == header[6:8]
    )
    salts = [(int(row[2]), int(row[3])) for row in fields]
    present = (header[4], header[5]) if header_holds else _present_salts(salts, sums_hold)
    ours = _of_generation(salts, sums_hold, present)
    end = max((i + 1 for i, is_ours in enumerate(ours) if is_ours), default=0)
    view = memoryview(data)
    frames: list[Frame] = []
    accepted = 0
    unbroken = header_holds
    for i in range(end):
        start = HEADER_BYTES + i * FRAME_BYTES + FRAME_HEADER_BYTES
        intact = bool(sums_hold[i]) and salts[i] == present
        # Where a frame never reached the disk, an older one stands, whose end is none of ours.
        ends = ours[i] and bool(fields[i][1])
        frames.append(Frame(int(fields[i][0]), ends, intact, view[start : start + PAGE_BYTES]))
        unbroken = unbroken and intact and bool(fields[i][0])
        if unbroken and ends:
            accepted = i + 1
    return WalImage(frames, accepted)


def _of_generation(
    salts: list[tuple[int, int]], sums_hold: npt.NDArray[np.bool_], present: tuple[int, int]
) -> list[bool]:
    """Return for each frame whether it belongs to the present generation; older ones follow it."""
    found: list[bool] = []
    ours = False
    for i, salt in enumerate(salts):
        # The sum does not cover the salt: if it continues one of our frames, the salt is damaged.
        ours = salt == present or (ours and bool(sums_hold[i]))
        found.append(ours)
    return found


def _present_salts(
    salts: list[tuple[int, int]], sums_hold: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    for i in range(1, len(salts)):
        if sums_hold[i]:
            return salts[i]
    return salts[0]


def _checksums(words: _Words, seeds: _Words) -> _Words:
    """Return SQLite's checksum of each row, begun with the row's seed.

    Over pairs (x, y) it is s += x + t; t += y + s, modulo 2^32: linear, so a row is a product of
    matrices instead of a loop.
    """
    weights, power = _weights(words.shape[1] // 2)
    return words @ weights + seeds @ power


@cache
def _weights(steps: int) -> tuple[_Words, _Words]:
    # One step is v -> A v + B x with A = [[1, 1], [1, 2]] and B = [[1, 0], [1, 1]].
    modulus = 2**32
    power = [[1, 0], [0, 1]]
    rows: list[list[int]] = []
    for _ in range(steps):
        (a, b), (c, d) = power
        rows.append([b, d])
        rows.append([(a + b) % modulus, (c + d) % modulus])
        power = [
            [(a + b) % modulus, (a + 2 * b) % modulus],
            [(c + d) % modulus, (c + 2 * d) % modulus],
        ]
    rows.reverse()
    return np.array(rows, np.uint32), np.array(power, np.uint32).T.copy()
