"""The only place that reads the time. Everything else is handed a Clock."""

from __future__ import annotations

import ctypes
import datetime as dt
import time
from functools import lru_cache
from pathlib import Path
from typing import Protocol

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Time as the appliance sees it."""

    def now_us(self) -> int:
        """Wall clock, microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...

    def synchronised(self) -> bool:
        """Whether the system says that its wall clock is disciplined by a time source."""
        ...

    def since_boot(self) -> float:
        """Seconds since the machine started, sleep included; the same for all its processes.

        Together with ``boot_id`` it tells later when something happened, although the wall clock
        was wrong then.
        """
        ...

    def boot_id(self) -> str:
        """Which run of the machine this is; empty where the system does not tell."""
        ...


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._libc: ctypes.CDLL | None = None
        self._synchronised = False
        self._asked_at = float("-inf")
        self._boot_id: str | None = None

    def now_us(self) -> int:
        """Return the wall clock, microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def synchronised(self) -> bool:
        """Return what adjtimex(2) says, asked at most once a minute."""
        now = time.monotonic()
        if now - self._asked_at >= 60:
            self._asked_at = now
            self._synchronised = self._ask_kernel()
        return self._synchronised

    def since_boot(self) -> float:
        """Return seconds since the machine started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """Return what the kernel has drawn at its start."""
        if self._boot_id is None:
            try:
                self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError):
                self._boot_id = ""
        return self._boot_id

    def _ask_kernel(self) -> bool:
        if self._libc is None:
            self._libc = ctypes.CDLL(None, use_errno=True)
        # struct timex has 208 bytes on 64-bit Linux; modes = 0 only reads.
        buffer = ctypes.create_string_buffer(512)
        try:
            return bool(0 <= self._libc.adjtimex(buffer) < _TIME_ERROR)
        except AttributeError:
            return False


class ManualClock:
    """A clock that moves only when told to, for tests and simulations."""

    def __init__(self, now_us: int = 1_780_000_000_000_000, *, synchronised: bool = True) -> None:
        self._now_us = now_us
        self._monotonic = 1000.0
        self._booted = 0.0
        self._boots = 1
        self.is_synchronised = synchronised

    def now_us(self) -> int:
        """Return the time last set."""
        return self._now_us

    def monotonic(self) -> float:
        """Return seconds, moved by ``advance`` alone."""
        return self._monotonic

    def synchronised(self) -> bool:
        """Return what the test wants."""
        return self.is_synchronised

    def since_boot(self) -> float:
        """Return seconds, moved by ``advance`` alone."""
        return self._monotonic - self._booted

    def boot_id(self) -> str:
        """Return a number that ``reboot`` raises."""
        return f"boot-{self._boots}"

    def reboot(self) -> None:
        """Let the machine have started just now."""
        self._booted = self._monotonic
        self._boots += 1

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now_us += round(seconds * 1e6)
        self._monotonic += seconds

    def set_wall(self, now_us: int) -> None:
        """Set the wall clock alone, as a time server or an operator would."""
        self._now_us = now_us


def iso_utc(timestamp_us: int) -> str:
    """Return ISO 8601 in UTC with ``Z``; the fraction only as long as it needs to be.

    >>> iso_utc(1_700_000_000_000_000)
    '2023-11-14T22:13:20Z'
    """
    second, fraction = divmod(timestamp_us, 1_000_000)
    whole = _whole_second(second)
    if not fraction:
        return f"{whole}Z"
    if fraction % 1000:
        return f"{whole}.{fraction:06d}Z"
    return f"{whole}.{fraction // 1000:03d}Z"


@lru_cache(maxsize=4096)
def _whole_second(second: int) -> str:
    # Remembered, because most moments that are shown lie within the same few seconds.
    moment = _EPOCH + dt.timedelta(seconds=second)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")
