"""What the two processes ask of Linux: die with the parent, give way, run ourselves again."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_OOM_SCORE_ADJ: Final = 500
_NICE: Final = 5
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_GC_AFTER_OBJECTS: Final = 20_000
_KEPT_BYTES: Final = 32 * 1024 * 1024


def die_with_parent(parent_pid: int, sign: signal.Signals) -> bool:
    """Get ``sign`` when the parent ends; return False if it has ended already.

    The kernel ties this to the parent's thread that made us, so parents must fork from their main
    thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
    return os.getppid() == parent_pid


def give_way() -> None:
    """Let the ingest process go first, for the CPU and when memory runs out."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ), encoding="ascii")


def keep_freed_memory() -> None:
    """Have freed memory used again instead of given back at once, where the C library can.

    Columns of a few MiB come and go with each batch. Given back each time, their pages are zeroed
    and mapped anew: that took a seventh of the mover's time, and most of that of sorting. What is
    kept is what was in use at the same time; ``return_freed_memory`` ends that.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def look_for_garbage_rarely() -> None:
    """Look for garbage in cycles after many more new objects than the interpreter would.

    A batch makes thousands of objects and no cycles; looking after each 700 of them took a
    twentieth of the live window's time.
    """
    gc.set_threshold(_GC_AFTER_OBJECTS, 10, 10)


def return_freed_memory() -> None:
    """Give what is free back to the system, where the C library can. Takes milliseconds."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def is_frozen() -> bool:
    """Return whether this is the packaged executable."""
    return bool(getattr(sys, "frozen", False))


def own_command(*arguments: str) -> list[str]:
    """Return the command line that runs this program with other arguments."""
    if is_frozen():
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "ocean_core", *arguments]
