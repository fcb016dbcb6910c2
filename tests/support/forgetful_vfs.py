"""A file layer that forgets what was not synced, as a disk does when the power goes.

Reads and writes go through to real files. Beside each file lies the picture of what the disk is
sure to hold: it changes only with a sync. At a power cut each unsynced write is independently
kept, dropped or torn at sectors of 512 bytes, which also models any reordering.

A failed sync follows Linux: the pages count as clean afterwards although they never reached the
disk, so a second sync does not bring them there; only writing them again does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

SECTOR = 512


@dataclass
class Shadow:
    """What the disk holds of one file for sure, and what it may hold."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    entry_durable: bool = False

    def settle(self) -> None:
        for offset, data in self.pending:
            apply(self.durable, offset, data)
        self.pending.clear()

    def survivor(self, rng: random.Random) -> bytes:
        image = bytearray(self.durable)
        style = rng.choice(("none", "all", "mixed", "mixed", "prefix"))
        kept = rng.randrange(len(self.pending) + 1) if style == "prefix" else len(self.pending)
        for offset, data in self.pending[:kept] if style != "none" else ():
            if data is None or style in {"all", "prefix"}:
                if style != "mixed" or rng.random() < 0.5:
                    apply(image, offset, data)
                continue
            match rng.choice(("keep", "drop", "tear")):
                case "keep":
                    apply(image, offset, data)
                case "tear":
                    tear(image, offset, data, rng)
        return bytes(image)


def apply(image: bytearray, offset: int, data: bytes | None) -> None:
    """Carry out a write, or with None a truncation."""
    if data is None:
        del image[offset:]
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


def tear(image: bytearray, offset: int, data: bytes, rng: random.Random) -> None:
    end = offset + len(data)
    start = offset
    while start < end:
        stop = min(end, start - start % SECTOR + SECTOR)
        if rng.random() < 0.5:
            apply(image, start, data[start - offset : stop - offset])
        start = stop


class Disk(apsw.VFS):
    """The file layer. Use as a context manager; ``name`` is what SQLite knows it by."""

    count = 0

    def __init__(self, rng: random.Random | None = None, cut_at: int | None = None) -> None:
        Disk.count += 1
        self.name = f"forgetful-{Disk.count}"
        self.rng = rng or random.Random(0)
        self.cut_at = cut_at
        self.operations = 0
        self.files: dict[str, Shadow] = {}
        self.survivors: dict[str, bytes] | None = None
        self.before_write: Callable[[str, int], None] = lambda path, size: None
        self.before_sync: Callable[[str], None] = lambda path: None
        super().__init__(self.name, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unregister()

    @property
    def is_off(self) -> bool:
        return self.survivors is not None

    def step(self) -> None:
        """Count an operation; the power may go before it."""
        if self.is_off:
            raise apsw.IOError("the power is off")
        self.operations += 1
        if self.cut_at is not None and self.operations >= self.cut_at:
            self.cut_power()
            raise apsw.IOError("the power is off")

    def cut_power(self) -> None:
        if self.survivors is None:
            self.survivors = {
                path: shadow.survivor(self.rng)
                for path, shadow in self.files.items()
                if shadow.entry_durable or self.rng.random() < 0.5
            }

    def sync_directory(self, _directory: Path) -> None:
        """Stand in for the appliance's own fsync of the directory."""
        self.step()
        for shadow in self.files.values():
            shadow.entry_durable = True

    def write_survivors(self, directory: Path) -> None:
        assert self.survivors is not None
        for path, data in self.survivors.items():
            (directory / Path(path).name).write_bytes(data)

    # SQLite calls these.

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return ForgetfulFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.step()
        self.files.pop(filename, None)
        super().xDelete(filename, syncdir)


class ForgetfulFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.is_wal = self.path.endswith("-wal")
        self.shadow = disk.files.get(self.path) or Shadow()
        disk.files[self.path] = self.shadow

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        disk = self.disk
        disk.step()
        disk.before_write(self.path, len(data))
        super().xWrite(data, offset)
        self.shadow.pending.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self.disk.step()
        super().xTruncate(newsize)
        self.shadow.pending.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.step()
        try:
            self.disk.before_sync(self.path)
        except apsw.Error:
            # Now the pages count as clean. What the disk got of them is anyone's guess: nothing.
            self.shadow.pending.clear()
            raise
        self.shadow.settle()
        # SQLite's own layer syncs the directory with the first sync of a WAL.
        self.shadow.entry_durable = self.shadow.entry_durable or self.is_wal
