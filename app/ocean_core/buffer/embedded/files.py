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

# SQLite's file layer takes less than 128 KiB at a time; more is cut off.
_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class JournalFiles:
    """The names that belong to one journal."""

    main: Path

    def _named(self, suffix: str) -> Path:
        return self.main.with_name(self.main.name + suffix)

    @property
    def wal(self) -> Path:
        """SQLite's write-ahead log."""
        return self._named("-wal")

    @property
    def shm(self) -> Path:
        """SQLite's index of the WAL, shared with readers."""
        return self._named("-shm")

    @property
    def hidden(self) -> Path:
        """Blocks found behind a damaged WAL frame, until they are back in the journal."""
        return self._named("-hidden")

    @property
    def copying(self) -> Path:
        """A salvage under way. Worthless after a crash."""
        return self._named(".salvage")

    @property
    def salvaged(self) -> Path:
        """A complete salvage that only has to take the place of the damaged file."""
        return self._named(".salvaged")

    def damaged(self, stamp: str) -> Path:
        """Where a damaged journal is kept."""
        return self._named(f".damaged-{stamp}")

    def kept_damaged(self) -> list[Path]:
        """Damaged journals (and their WALs) kept so far."""
        return sorted(self.main.parent.glob(f"{self.main.name}.damaged-*"))


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private(path: Path) -> None:
    """Create a file that only its owner may read, if it is not there. Raises OSError.

    SQLite gives its WAL the same mode.
    """
    if not path.exists():
        path.touch(mode=0o600)


def size_of(path: Path) -> int:
    """Return the size in bytes, 0 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def identity_of(path: Path | str) -> tuple[int, int] | None:
    """Return device and inode, None if there is no such file."""
    try:
        # Not the path's own: this is asked with every commit.
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def raw_file(path: Path, vfs: str | None, *, write: bool = False) -> Iterator[apsw.VFSFile]:
    """Open a journal file below SQLite. Raises apsw.Error.

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
    ends = range(start, start + size, _PIECE_BYTES)
    return b"".join(file.xRead(min(_PIECE_BYTES, start + size - at), at) for at in ends)


def write_again(path: Path, vfs: str | None) -> None:
    """Write a file over itself and sync it. Raises apsw.Error.

    After a failed fsync the kernel may hold pages that it calls clean and that never reached the
    disk; a second fsync would say yes without writing them. Only writing makes them dirty again.
    """
    if not path.exists():
        return
    with raw_file(path, vfs, write=True) as file:
        size = file.xFileSize()
        for start in range(0, size, _PIECE_BYTES):
            file.xWrite(file.xRead(min(_PIECE_BYTES, size - start), start), start)
        file.xSync(apsw.SQLITE_SYNC_FULL)


def write_durably(path: Path, data: bytes) -> None:
    """Put a small file in place so that it is there whole or not at all. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def require_room(files: JournalFiles) -> None:
    """Raise OSError (ENOSPC) unless a copy of the journal fits on its disk.

    Copying until the disk is full, again and again, would wear the card out for nothing.
    """
    needed = sum(path.stat().st_size for path in (files.main, files.wal) if path.exists())
    if shutil.disk_usage(files.main.parent).free < needed:
        raise OSError(errno.ENOSPC, "no room for a salvaged copy of the journal")
