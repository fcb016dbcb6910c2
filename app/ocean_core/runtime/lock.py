"""One appliance per data directory, and the marker that tells of an unclean stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from ocean_core.model.errors import AlreadyRunningError, DataDirError

LOCK_FILE: Final = "lock"
RUN_FILE: Final = "run.json"
_TRIES: Final = 5
_TRY_EVERY_S: Final = 0.05


class RunInfo(msgspec.Struct):
    """What run.json tells: who serves this data directory, and where.

    ``cert`` is the certificate that ``url`` shows, if that is https. ``frames_tcp`` and ``frames_udp``
    are addresses for Nanogridata, empty where none is taken.
    """

    pid: int
    url: str
    version: str
    started: str
    data_dir: str
    network_url: str = ""
    cert: str = ""
    frames_tcp: str = ""
    frames_udp: str = ""


def prepare_data_dir(path: Path) -> Path:
    """Make the data directory if need be and return its absolute path.

    Raises DataDirError if it cannot be made, read or written.
    """
    path = path.expanduser().absolute()
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirError(f"{path}: cannot be made: {error.strerror}") from error
    if not path.is_dir():
        raise DataDirError(f"{path}: is not a directory")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise DataDirError(f"{path}: this user may not write there")
    return path


class InstanceLock:
    """Holds the data directory for this process until it ends, however it ends."""

    def __init__(self, data_dir: Path, pause: Callable[[float], object] = time.sleep) -> None:
        self._data_dir = data_dir
        self._pause = pause
        self._file = data_dir / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; return whether the previous run stopped cleanly.

        A command that looks whether somebody is here holds it for a moment, so it is tried a few
        times. Raises AlreadyRunningError naming the running process.
        """
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise DataDirError(f"{self._file}: cannot be opened: {error.strerror}") from error
        try:
            self._lock(descriptor)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            info = read_run_info(self._data_dir)
            where = f" and listens on {info.url}" if info is not None else ""
            raise AlreadyRunningError(
                f"process {holder or '(unknown)'} uses {self._data_dir}{where}"
            ) from error
        # The lock counts, the number in it is a courtesy: a full disk must not prevent a start.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return not (self._data_dir / RUN_FILE).exists()

    def _lock(self, descriptor: int) -> None:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            self._pause(_TRY_EVERY_S)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def publish(self, info: RunInfo) -> None:
        """Write run.json durably; until ``release`` its presence means that a run is not over.

        Raises OSError, for example when the disk is full.
        """
        temporary = self._data_dir / (RUN_FILE + ".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(info)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._data_dir / RUN_FILE)
        self._sync_directory()

    def release(self, *, clean: bool) -> None:
        """Let go; a clean stop removes run.json."""
        if clean:
            (self._data_dir / RUN_FILE).unlink(missing_ok=True)
            self._sync_directory()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _sync_directory(self) -> None:
        directory = os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read_run_info(data_dir: Path) -> RunInfo | None:
    """Return what run.json says, None if there is none or it cannot be read."""
    try:
        return msgspec.json.decode((data_dir / RUN_FILE).read_bytes(), type=RunInfo)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
