"""The files around analytics.duckdb: markers, and where a damaged one is put."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OPENING_SUFFIX = ".opening"
SUSPECT_SUFFIX = ".suspect"


class AnalyticsFiles:
    """Names and moves; every change is synced before the call returns. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.database = path
        self.wal = path.with_name(path.name + ".wal")
        self.temporary = path.with_name(path.name + ".tmp")
        self.opening = path.with_name(path.stem + OPENING_SUFFIX)
        self.suspect = path.with_name(path.stem + SUSPECT_SUFFIX)

    def mark(self, marker: Path, text: str) -> None:
        """Write a marker."""
        with marker.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._sync_folder()

    def unmark(self, marker: Path) -> None:
        """Remove a marker, if it is there."""
        with suppress(FileNotFoundError):
            marker.unlink()
            self._sync_folder()

    def complaint(self) -> str | None:
        """Return why the file must not be trusted, None if nothing says so."""
        if self.suspect.exists():
            reason = self.suspect.read_text(encoding="utf-8", errors="replace").strip()
            return reason or "marked as suspect"
        if self.opening.exists():
            return "the process ended while it opened the file"
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
        """
        for old in self.damaged():
            old.unlink(missing_ok=True)
        size = sum(file.stat().st_size for file in (self.database, self.wal) if file.exists())
        keep = shutil.disk_usage(self.database.parent).free > 2 * size
        aside = self.database.with_name(f"{self.database.name}.damaged-{stamp}")
        for file, target in ((self.database, aside), (self.wal, Path(f"{aside}.wal"))):
            if file.exists():
                if keep:
                    file.replace(target)
                else:
                    file.unlink()
        self._sync_folder()
        return aside if keep else None

    def damaged(self) -> Iterator[Path]:
        """Damaged files kept from before."""
        yield from list(self.database.parent.glob(f"{self.database.name}.damaged-*"))

    def size(self) -> int:
        """Bytes on disk, WAL included."""
        total = 0
        for file in (self.database, self.wal):
            with suppress(FileNotFoundError):
                total += file.stat().st_size
        return total

    def _sync_folder(self) -> None:
        descriptor = os.open(self.database.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
