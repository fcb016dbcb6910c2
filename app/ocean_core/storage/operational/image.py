"""What stands in the file and its WAL, page by page, trusting nothing: for salvage alone.

Layouts: https://www.sqlite.org/fileformat2.html. Page size and reserved bytes are those the store is
made with, not those that a damaged header claims.

SQLite stops reading a WAL at the first frame that does not fit, so one damaged frame hides
everything behind it. Here each frame is also checked by itself, with the checksum *stored* in the
frame before as the seed, which tells the damaged frame from the good ones behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import apsw

from ocean_core.storage.operational.files import (
    FRAME_BYTES,
    FRAME_HEADER_BYTES,
    PAGE_BYTES,
    WAL_HEADER_BYTES,
    StoreFiles,
    raw_file,
    read_raw,
    size_of,
)

_FORMAT: Final = 3_007_000
_MAGIC_LITTLE: Final = 0x377F0682
_MAGIC_BIG: Final = 0x377F0683
_MASK: Final = 0xFFFFFFFF

_Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One page image in the WAL. ``pages`` is the size of the file after it, 0 if no commit.

    ``ours``: of the present generation, as far as its header says; ``intact``: its sum holds, too.
    """

    page_no: int
    pages: int
    ours: bool
    intact: bool
    page: bytes


@dataclass(frozen=True, slots=True)
class WalImage:
    """The frames of the WAL's present generation; SQLite accepts the first ``accepted``."""

    frames: list[Frame]
    accepted: int

    def _ends(self) -> list[int]:
        """Return where transactions end behind the accepted frames."""
        rest = range(self.accepted, len(self.frames))
        return [i for i in rest if self.frames[i].ours and self.frames[i].pages]

    def _is_followed(self, end: int) -> bool:
        return any(frame.intact for frame in self.frames[end + 1 :])

    @property
    def hides_something(self) -> bool:
        """Whether a damaged frame hides a transaction that was synced, perhaps acknowledged.

        Only means something if each commit was synced: else a power cut leaves any of them. Then a
        transaction begins only after the one before was synced. So what is not whole at the very
        end was cut off by a crash, and nobody was told of it; what has another one behind it was
        damaged later.
        """
        ends = self._ends()
        return bool(ends) and self._is_followed(ends[0])

    def usable(self, *, each_synced: bool) -> list[Frame]:
        """Return what belongs to the newest state, in order: every intact frame of what was synced.

        Of a last transaction that a crash perhaps cut off all is taken, or nothing. Unless each
        commit was synced, only what SQLite accepts is sure to be whole.
        """
        until = self.accepted
        if each_synced and self.hides_something:
            ends = self._ends()
            last = self.frames[ends[-2] + 1 : ends[-1] + 1] if len(ends) > 1 else []
            sure = self._is_followed(ends[-1]) or all(frame.intact for frame in last)
            until = (ends[-1] if sure else ends[-2]) + 1
        return [frame for frame in self.frames[:until] if frame.intact]


def parse_wal(data: bytes) -> WalImage:
    """Take apart a WAL file of any condition."""
    count = max(0, (len(data) - WAL_HEADER_BYTES) // FRAME_BYTES)
    if not count:
        return WalImage([], 0)
    magic, version, page_bytes, _, *salts, first, second = struct.unpack_from(">8I", data)
    order = ">" if magic == _MAGIC_BIG else "<"
    header_holds = (
        magic in {_MAGIC_LITTLE, _MAGIC_BIG}
        and version == _FORMAT
        and page_bytes == PAGE_BYTES
        and _checksum(data[:24], (0, 0), order) == (first, second)
    )
    heads = [
        struct.unpack_from(">6I", data, WAL_HEADER_BYTES + i * FRAME_BYTES) for i in range(count)
    ]
    sums: list[_Sums] = [(first, second), *((head[4], head[5]) for head in heads)]
    holds = [_frame_holds(data, i, sums[i], sums[i + 1], order) for i in range(count)]
    present = tuple(salts)
    if not header_holds:
        # The newest generation stands first; a sum that holds continues the frame before it.
        present = next((heads[i][2:4] for i in range(1, count) if holds[i]), heads[0][2:4])
    end = 1 + max((i for i in range(count) if heads[i][2:4] == present), default=-1)
    frames: list[Frame] = []
    accepted = 0
    unbroken = header_holds
    for i in range(end):
        ours = heads[i][2:4] == present
        intact = holds[i] and ours and bool(heads[i][0])
        start = WAL_HEADER_BYTES + i * FRAME_BYTES + FRAME_HEADER_BYTES
        page = data[start : start + PAGE_BYTES]
        frames.append(Frame(heads[i][0], heads[i][1], ours, intact, page))
        unbroken = unbroken and intact
        if unbroken and heads[i][1]:
            accepted = i + 1
    return WalImage(frames, accepted)


def _frame_holds(data: bytes, index: int, seed: _Sums, stored: _Sums, order: str) -> bool:
    start = WAL_HEADER_BYTES + index * FRAME_BYTES
    sums = _checksum(data[start : start + 8], seed, order)
    page = data[start + FRAME_HEADER_BYTES : start + FRAME_BYTES]
    return _checksum(page, sums, order) == stored


def _checksum(data: bytes, seed: _Sums, order: str) -> _Sums:
    one, two = seed
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        one = (one + word + two) & _MASK
        two = (two + next(words) + one) & _MASK
    return one, two


class Image:
    """The newest image of each page that is worth anything."""

    def __init__(self, main: apsw.VFSFile | None, frames: Sequence[Frame]) -> None:
        self._main = main
        self._in_main = main.xFileSize() // PAGE_BYTES if main is not None else 0
        self._newer = {frame.page_no: frame.page for frame in frames}
        sizes = [frame.pages for frame in frames if frame.pages]
        self.pages = sizes[-1] if sizes else self._in_main
        """How many pages there should be."""

    def page(self, page_no: int) -> bytes | None:
        """Return a page; None if there is none or the disk does not give it back."""
        newer = self._newer.get(page_no)
        if newer is not None:
            return newer
        if self._main is None or not 0 < page_no <= self._in_main:
            return None
        try:
            data = self._main.xRead(PAGE_BYTES, (page_no - 1) * PAGE_BYTES)
        except apsw.Error:
            return None
        return data if len(data) == PAGE_BYTES else None


@contextmanager
def open_image(files: StoreFiles, vfs: str | None, *, each_synced: bool) -> Iterator[Image]:
    """Look at the store below SQLite; no connection may be open. Raises apsw.Error."""
    frames = read_wal(files, vfs).usable(each_synced=each_synced)
    if not size_of(files.main):
        yield Image(None, frames)
        return
    with raw_file(files.main, vfs) as main:
        yield Image(main, frames)


def read_wal(files: StoreFiles, vfs: str | None) -> WalImage:
    """Take apart the store's WAL. Raises apsw.Error."""
    if not size_of(files.wal):
        return WalImage([], 0)
    with raw_file(files.wal, vfs) as file:
        return parse_wal(read_raw(file, 0, file.xFileSize()))
