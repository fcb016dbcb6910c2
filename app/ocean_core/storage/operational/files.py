"""Files below SQLite: their names, reading them raw, making directory entries durable."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from ocean_core.model import limits

PAGE_BYTES: Final = 4096
WAL_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
FRAME_BYTES: Final = FRAME_HEADER_BYTES + PAGE_BYTES

# SQLite's file layer takes less than 128 KiB at a time; more is cut off.
_PIECE_BYTES: Final = 64 * 1024
_SPARE_BYTES: Final = limits.MIB


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """The names that belong to one operational store."""

    main: Path

    def _named(self, suffix: str) -> Path:
        return self.main.with_name(self.main.name + suffix)

    @property
    def wal(self) -> Path:
        """SQLite's write-ahead log."""
        return self._named("-wal")

    @property
    def shm(self) -> Path:
        """SQLite's index of the WAL, shared with the reading connection."""
        return self._named("-shm")

    @property
    def copying(self) -> Path:
        """A salvage under way. Worthless after a crash."""
        return self._named(".salvage")

    @property
    def salvaged(self) -> Path:
        """A complete salvage that only has to take the place of the damaged file."""
        return self._named(".salvaged")

    @property
    def witness(self) -> Path:
        """The id of the store, kept outside of it (``witness``)."""
        return self.main.with_name("accounts.id")

    def damaged(self, stamp: str) -> Path:
        """Where a damaged store is kept."""
        return self._named(f".damaged-{stamp}")

    def kept_damaged(self) -> list[Path]:
        """Damaged stores (and their WALs) kept so far."""
        return sorted(self.main.parent.glob(f"{self.main.name}.damaged-*"))


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private(path: Path) -> None:
    """Let only the owner read a file, which is made if it is not there. Raises OSError.

    SQLite gives its WAL the same mode.
    """
    if not path.exists():
        path.touch(mode=0o600)
    elif path.stat().st_mode & 0o077:
        path.chmod(0o600)


def size_of(path: Path) -> int:
    """Return the size in bytes, 0 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return device and inode, None if there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def raw_file(path: Path, vfs: str | None, *, write: bool = False) -> Iterator[apsw.VFSFile]:
    """Open a file of the store below SQLite. Raises apsw.Error.

    It goes through SQLite's file layer because closing a descriptor of our own would drop the
    POSIX locks that a connection of this process holds on the same file.
    """
    mode = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    # Also for a WAL: as such it could only be opened while the main file exists.
    file = apsw.VFSFile(vfs or "", str(path), [apsw.SQLITE_OPEN_MAIN_DB | mode, 0])
    try:
        yield file
    finally:
        file.xClose()


def read_raw(file: apsw.VFSFile, start: int, size: int) -> bytes:
    """Read a piece of any size; shorter at the end of the file. Raises apsw.Error."""
    places = range(start, start + size, _PIECE_BYTES)
    return b"".join(file.xRead(min(_PIECE_BYTES, start + size - at), at) for at in places)


def restore_wal(path: Path, vfs: str | None, frames: int) -> None:
    """Cut the WAL to the frames that were acknowledged, write these again, sync. Raises apsw.Error.

    What a failed commit left behind must not come to life: its caller was told that it failed. And
    after a failed fsync the kernel may hold pages that it calls clean and that never reached the
    disk; a second fsync would say yes without writing them, only writing makes them dirty again.
    """
    if not path.exists():
        return
    with raw_file(path, vfs, write=True) as file:
        wanted = WAL_HEADER_BYTES + frames * FRAME_BYTES if frames else 0
        size = min(wanted, file.xFileSize())
        file.xTruncate(size)
        for start in range(0, size, _PIECE_BYTES):
            file.xWrite(file.xRead(min(_PIECE_BYTES, size - start), start), start)
        file.xSync(apsw.SQLITE_SYNC_FULL)


def require_room(files: StoreFiles) -> None:
    """Raise OSError (ENOSPC) unless a copy of the store fits on its disk.

    Copying until the disk is full, again and again, would wear the card out for nothing.
    """
    needed = size_of(files.main) + size_of(files.wal) + _SPARE_BYTES
    if shutil.disk_usage(files.main.parent).free < needed:
        raise OSError(errno.ENOSPC, f"no room for a salvaged copy of {files.main.name}")
