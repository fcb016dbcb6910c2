"""The mover's mark: an upper bound of the ids that analytics holds, readable without DuckDB.

Before each analytics transaction the mover writes here, durably, up to which id it is about to
go. At its start the journal continues behind the mark, so that it never hands out an id which
analytics already holds, even if ``journal.db`` was lost.

The file has two slots of 4096 bytes (so that no torn page can hit both), written in turn::

    offset  bytes  meaning (little-endian)
         0      4  "OCM1"
         4      8  sequence number; the higher one of the valid slots counts
        12     16  epoch of the journal (UUID)
        28      8  id
        36      4  CRC-32 of the 36 bytes before
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocean_core.model.limits import READING_ID_MAX
from ocean_core.obs.faults import NO_FAULTS, Faults

_SLOT: Final = struct.Struct("<4sQ16sQ")
_CRC: Final = struct.Struct("<I")
_SLOT_BYTES: Final = 4096
_MAGIC: Final = b"OCM1"
FILE_NAME: Final = "analytics.mark"


@dataclass(frozen=True, slots=True)
class Mark:
    """Analytics holds nothing of ``epoch`` beyond ``id``."""

    epoch: str
    id: int


def read_mark(path: Path) -> Mark | None:
    """Return the newest whole mark; None if the file is missing, damaged or cannot be read."""
    newest = _newest(path)
    return None if newest is None else newest[1]


def _newest(path: Path) -> tuple[int, Mark] | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    slots = [_parse(data[start : start + _SLOT_BYTES]) for start in (0, _SLOT_BYTES)]
    whole = [slot for slot in slots if slot is not None]
    return max(whole, key=lambda slot: slot[0]) if whole else None


def _parse(slot: bytes) -> tuple[int, Mark] | None:
    if len(slot) < _SLOT.size + _CRC.size:
        return None
    magic, sequence, epoch, last_id = _SLOT.unpack_from(slot)
    (crc,) = _CRC.unpack_from(slot, _SLOT.size)
    if magic != _MAGIC or crc != zlib.crc32(slot[: _SLOT.size]) or last_id > READING_ID_MAX:
        return None
    return sequence, Mark(str(uuid.UUID(bytes=epoch)), last_id)


class MarkFile:
    """The writing side, owned by the mover."""

    def __init__(self, path: Path, faults: Faults = NO_FAULTS) -> None:
        """Open or create the file. Raises OSError."""
        self._faults = faults
        newest = _newest(path)
        self._sequence = 0 if newest is None else newest[0]
        self._mark = None if newest is None else newest[1]
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._file).st_size < 2 * _SLOT_BYTES:
                self._create(path)
        except OSError:
            os.close(self._file)
            raise

    def _create(self, path: Path) -> None:
        # Real zeros instead of a hole: later writes in place need no new space on a full disk.
        size = os.fstat(self._file).st_size
        os.pwrite(self._file, bytes(2 * _SLOT_BYTES - size), size)
        os.fsync(self._file)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @property
    def mark(self) -> Mark | None:
        """What was written last."""
        return self._mark

    def write(self, epoch: str, last_id: int) -> None:
        """Make a mark durable; returns when it is. Raises OSError, then nothing counts as written.

        A mark that stands already is not written again.
        """
        mark = Mark(epoch, last_id)
        if mark == self._mark:
            return
        self._faults.hit("mark.before_write")
        # After a failure the same slot is written again, so the good one is never touched.
        sequence = self._sequence + 1
        body = _SLOT.pack(_MAGIC, sequence, uuid.UUID(epoch).bytes, last_id)
        os.pwrite(self._file, body + _CRC.pack(zlib.crc32(body)), sequence % 2 * _SLOT_BYTES)
        os.fdatasync(self._file)
        self._sequence = sequence
        self._mark = mark
        self._faults.hit("mark.after_write")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
