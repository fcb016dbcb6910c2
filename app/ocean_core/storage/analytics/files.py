"""The files around analytics.duckdb: markers, and where a damaged one is put."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ocean_core.model import limits

OPENING_SUFFIX: Final = ".opening"
SUSPECT_SUFFIX: Final = ".suspect"
TROUBLE_SUFFIX: Final = ".trouble"
REBUILD_SPARE_BYTES: Final = 16 * limits.MIB
"""What a rebuild needs beyond the room of the file it replaces: WAL, markers, some growth."""
_END: Final = "\n"
"""Ends every marker; one without it was not written to its end."""


class AnalyticsFiles:
    """Names and moves; every change is synced before the call returns. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.database = path
        self.wal = path.with_name(path.name + ".wal")
        self.temporary = path.with_name(path.name + ".tmp")
        self.opening = path.with_name(path.stem + OPENING_SUFFIX)
        self.suspect = path.with_name(path.stem + SUSPECT_SUFFIX)
        self.trouble = path.with_name(path.stem + TROUBLE_SUFFIX)

    def mark(self, marker: Path, text: str) -> None:
        """Write a marker. If that fails, on a full disk for example, there is none."""
        try:
            with marker.open("w", encoding="utf-8") as file:
                file.write(" ".join(text.split()) + _END)
                file.flush()
                os.fsync(file.fileno())
            self._sync_folder()
        except OSError:
            with suppress(OSError):
                marker.unlink()
            raise

    def unmark(self, marker: Path) -> None:
        """Remove a marker, if it is there."""
        with suppress(FileNotFoundError):
            marker.unlink()
            self._sync_folder()

    def complaint(self) -> str | None:
        """Return why the file must not be trusted, None if nothing says so."""
        reason = self.read(self.suspect)
        if reason is not None:
            return reason.strip() or "marked as suspect"
        opening = self.read(self.opening)
        if opening is None:
            return None
        if not opening.endswith(_END):
            # The open begins only once its marker is whole: this one was ended before.
            self.unmark(self.opening)
            return None
        return "the process ended while it opened the file"

    def read(self, marker: Path) -> str | None:
        """Return what a marker says, None if there is none."""
        try:
            return marker.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def is_held(self) -> bool:
        """Whether another process has the file open, as a dying predecessor may."""
        try:
            file = self.database.open("r+b")
        except FileNotFoundError:
            return False
        with file:
            try:
                # DuckDB holds a POSIX lock of the same kind; closing the file lets go of ours.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def clear_temporary(self) -> None:
        """Remove what spilled queries of an earlier run left behind."""
        shutil.rmtree(self.temporary, ignore_errors=True)

    def move_aside(self, stamp: str) -> Path | None:
        """Move the file and its WAL away; keep only this newest one, and only if it fits.

        Returns its new place, or None if it was deleted: a file that takes so much of the disk that
        its replacement might not fit is not worth keeping, since everything in it can be rebuilt.
        While not even that would make room for a replacement, nothing is touched: OSError (ENOSPC).
        """
        kept = list(self.damaged())
        free = shutil.disk_usage(self.database.parent).free + sum(_size(file) for file in kept)
        if free < REBUILD_SPARE_BYTES:
            raise OSError(
                errno.ENOSPC, f"too little space to rebuild {self.database.name}, so it is kept"
            )
        for old in kept:
            old.unlink(missing_ok=True)
        size = self.size()
        keep = free > 2 * size + REBUILD_SPARE_BYTES
        aside = self.database.with_name(f"{self.database.name}.damaged-{stamp}")
        for file, target in ((self.database, aside), (self.wal, Path(f"{aside}.wal"))):
            if file.exists():
                if keep:
                    file.replace(target)
                else:
                    file.unlink()
        self._sync_folder()
        return aside if keep else None

    def discard_new(self) -> None:
        """Remove a file that could not be made; there was none before."""
        for file in (self.database, self.wal):
            with suppress(OSError):
                file.unlink()

    def damaged(self) -> Iterator[Path]:
        """Damaged files kept from before."""
        yield from list(self.database.parent.glob(f"{self.database.name}.damaged-*"))

    def size(self) -> int:
        """Bytes on disk, WAL included."""
        return _size(self.database) + _size(self.wal)

    def _sync_folder(self) -> None:
        descriptor = os.open(self.database.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
