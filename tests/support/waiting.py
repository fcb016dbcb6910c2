"""Waits with a deadline: what does not come in time fails the test with what was missing."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def until(
    probe: Callable[[], T | None], *, within_s: float, what: str, every_s: float = POLL_S
) -> T:
    """Return the first answer of ``probe`` that is true; fail when none came in time."""
    # An event that nobody sets: a pause that ends early when the test run is interrupted.
    never = threading.Event()
    deadline = time.monotonic() + within_s
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within_s:g} s: {what} (last answer: {found!r})")
        never.wait(every_s)


def pause(seconds: float) -> None:
    """Let a random moment pass before a kill; never for something to have happened."""
    threading.Event().wait(seconds)
