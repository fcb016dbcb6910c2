"""Many plain frames at a time: what nearly all devices send, read without an object per frame.

A frame is plain if one like it was decoded with care before (``content``, ``stream``), and only
its time, value and check value differ: same model, level, flags and length (its first eight bytes),
signed with the same secret, from a device whose name block is known. Whatever is not plain, good or
bad, ends the run; the careful way decides about it. A test compares both.

A name block is what a binary pressure or gas payload begins with: two texts with their lengths.
Behind it stand eight bytes: the time, and the value.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.protocol.nanogridata.frame import FRAME_ID_BYTES, HEADER_BYTES

PREFIX_BYTES: Final = 8
"""How much of a header is the same in all frames of a kind: all but time and reserved bytes."""

TAIL_BYTES: Final = 10
_MEASURED_BYTES: Final = 8
_RESERVED_AT: Final = 12
_CRC_BYTES: Final = 2
_MAC_BYTES: Final = 16

NameBlocks = Mapping[bytes, int]
"""By the name block of a payload: the place of its series, a number of the owner's choice."""


class Signed(NamedTuple):
    """A secret that frames of a kind were signed with, and whose devices are known under it.

    ``inner`` and ``outer`` are the two halves of HMAC-SHA256 with the key worked in, to be copied.
    """

    inner: Any
    outer: Any
    names: NameBlocks


class Kind(NamedTuple):
    """What frames with the same first eight bytes have in common.

    ``total`` is their length. At level 0 ``names`` are the known devices, at level 1 each of
    ``signed`` has its own.
    """

    total: int
    level: int
    names: NameBlocks
    signed: tuple[Signed, ...] = ()


class Run(NamedTuple):
    """Plain frames that follow each other in ``data``; lists have one entry per frame.

    ``starts``: where a frame begins; ``times``: the four bytes of its header time; ``tails``: ten
    bytes, its payload's time and value and the first two of its check value; ``places``: whose it
    is; ``ids``: its identity, as ``check.frame_id`` returns it. ``stop`` is where the first other
    byte stands; ``is_partial``: the data ends there within a frame that may be plain.
    """

    data: bytes
    starts: list[int]
    times: list[bytes]
    tails: list[bytes]
    places: list[int]
    ids: list[bytes]
    stop: int
    is_partial: bool

    def frame(self, number: int) -> bytes:
        """Return one of the frames."""
        following = number + 1
        end = self.starts[following] if following < len(self.starts) else self.stop
        return self.data[self.starts[number] : end]

    def __len__(self) -> int:
        return len(self.starts)


class Columns(NamedTuple):
    """Frames as columns. Times are those of header and payload, in seconds.

    The last four payload bytes as a number: read as ``pressure`` they are Pa, as ``concentration``
    ppm.
    """

    header_s: npt.NDArray[np.int64]
    payload_s: npt.NDArray[np.int64]
    pressure: npt.NDArray[np.float64]
    concentration: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]
    ids: bytes


def read_run(data: bytes, at: int, kinds: Mapping[bytes, Kind], frames_max: int) -> Run:
    """Return the plain frames from ``at`` on.

    Their times and values, which ``columns_of`` shows, are not judged.
    """
    starts: list[int] = []
    times: list[bytes] = []
    tails: list[bytes] = []
    places: list[int] = []
    ids: list[bytes] = []
    is_partial = False
    end = len(data)
    while len(starts) < frames_max:
        kind = kinds.get(data[at : at + PREFIX_BYTES])
        if kind is None:
            is_partial = end - at < PREFIX_BYTES
            break
        stop = at + kind.total
        if stop > end:
            is_partial = True
            break
        if data[at + _RESERVED_AT] or data[at + _RESERVED_AT + 1]:
            break
        if kind.level:
            check_at = stop - _MAC_BYTES
            covered = data[at:check_at]
            frame_id = data[check_at:stop]
            names = _proven_names(kind.signed, covered, frame_id)
            if names is None:
                break
        else:
            check_at = stop - _CRC_BYTES
            covered = data[at:check_at]
            if crc_hqx(covered, 0xFFFF) != data[check_at] << 8 | data[check_at + 1]:
                break
            frame_id = sha256(covered).digest()[:FRAME_ID_BYTES]
            names = kind.names
        # Lengths that point beyond the payload make a block of another length, which is no plain
        # one; the payload of a known kind is long enough for both.
        second = at + HEADER_BYTES + 1 + data[at + HEADER_BYTES]
        tail = check_at - _MEASURED_BYTES
        if second >= tail or second + 1 + data[second] != tail:
            break
        place = names.get(data[at + HEADER_BYTES : tail])
        if place is None:
            break
        starts.append(at)
        times.append(data[at + PREFIX_BYTES : at + _RESERVED_AT])
        tails.append(data[tail : tail + TAIL_BYTES])
        places.append(place)
        ids.append(frame_id)
        at = stop
    return Run(data, starts, times, tails, places, ids, at, is_partial)


def _proven_names(signed: tuple[Signed, ...], covered: bytes, mac: bytes) -> NameBlocks | None:
    for inner, outer, names in signed:
        # HMAC by its two halves: half the time of ``hmac.digest``, which works the key in again.
        first = inner.copy()
        first.update(covered)
        last = outer.copy()
        last.update(first.digest())
        if compare_digest(last.digest()[:_MAC_BYTES], mac):
            return names
    return None


def columns_of(runs: Sequence[Run]) -> Columns:
    """Return the columns of runs, one after the other; at least one frame in all."""
    times = b"".join([time for run in runs for time in run.times])
    joined = b"".join([tail for run in runs for tail in run.tails])
    tails = np.frombuffer(joined, dtype=np.uint8).reshape(-1, TAIL_BYTES)
    values = np.ascontiguousarray(tails[:, 4:8])
    return Columns(
        header_s=np.frombuffer(times, dtype=">u4").astype(np.int64),
        payload_s=np.ascontiguousarray(tails[:, :4]).view(">u4")[:, 0].astype(np.int64),
        pressure=values.view(">u4")[:, 0].astype(np.float64),
        concentration=values.view(">f4")[:, 0].astype(np.float64),
        places=np.array([place for run in runs for place in run.places], dtype=np.int64),
        ids=b"".join([frame_id for run in runs for frame_id in run.ids]),
    )
