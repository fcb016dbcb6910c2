"""What the box writes to its card: per reading and per day, by the system's own counters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ocean_core.model import limits

SECTOR_BYTES: Final = 512
PER_DAY_AFTER_S: Final = 600.0
_SECTORS_WRITTEN: Final = 6
_DAY_S: Final = 86_400


class FlashStatus(msgspec.Struct):
    """Bytes sent to block devices since the start, both processes; MB are MiB.

    ``device_written_mb`` is what everybody wrote to the data directory's device in that time, None
    where the system does not count it; ``written_mb_per_day`` is None in the first ten minutes.
    """

    written_mb: float
    written_mb_per_day: float | None
    bytes_per_reading: float | None
    device_written_mb: float | None


class DeviceCounter:
    """The block device under a directory."""

    def __init__(self, directory: Path, devices: Path = Path("/sys/dev/block")) -> None:
        """``devices`` has a folder per device, named by its numbers."""
        self._directory = directory
        self._devices = devices

    def written_bytes(self) -> int | None:
        """Return the bytes written since the machine started, by anybody.

        None where there is no device that counts: a file system in memory, or one in layers.
        Reads files: not for the event loop.
        """
        try:
            number = self._directory.stat().st_dev
            name = f"{os.major(number)}:{os.minor(number)}"
            fields = (self._devices / name / "stat").read_text(encoding="ascii").split()
            return SECTOR_BYTES * int(fields[_SECTORS_WRITTEN])
        except (OSError, ValueError, IndexError):
            return None


class FlashUse:
    """Adds up counters that begin anew with each process."""

    def __init__(self) -> None:
        self._of_ended = 0
        self._running: dict[str, tuple[int, int]] = {}
        self._device_first: int | None = None
        self.device_bytes: int | None = None

    def note(self, processes: Mapping[str, tuple[int, int]], device_bytes: int | None) -> None:
        """Take over what each process (process id, bytes written) and the device stand at."""
        for name, (pid, written) in processes.items():
            before = self._running.get(name)
            if before is not None and before[0] != pid:
                self._of_ended += before[1]
            self._running[name] = (pid, written)
        self.device_bytes = device_bytes
        if self._device_first is None:
            self._device_first = device_bytes

    @property
    def written_bytes(self) -> int:
        """What the processes wrote since the start, those that have ended included."""
        return self._of_ended + sum(written for _, written in self._running.values())

    def per_reading(self, readings: float) -> float | None:
        """Return the bytes written per reading stored, None without readings."""
        return self.written_bytes / readings if readings else None

    def status(self, readings: float, uptime_s: float) -> FlashStatus:
        """Return the figures for the status."""
        per_reading = self.per_reading(readings)
        device_mb = None
        if self.device_bytes is not None and self._device_first is not None:
            device_mb = round((self.device_bytes - self._device_first) / limits.MIB, 1)
        per_day = None
        if uptime_s >= PER_DAY_AFTER_S:
            per_day = round(self.written_bytes / limits.MIB * _DAY_S / uptime_s, 1)
        return FlashStatus(
            written_mb=round(self.written_bytes / limits.MIB, 1),
            written_mb_per_day=per_day,
            bytes_per_reading=None if per_reading is None else round(per_reading, 1),
            device_written_mb=device_mb,
        )
