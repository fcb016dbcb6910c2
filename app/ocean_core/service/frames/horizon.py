"""Up to when frames may be forgotten, although the wall clock may be set."""

from __future__ import annotations

from ocean_core.obs.clock import Clock

_STEP_US = 60_000_000


class Horizon:
    """The wall clock, but for a step ahead: that counts only once it has lasted.

    A clock that is ahead for a moment must not make frames forgotten that come again when it is
    right. What is remembered for longer than need be does no harm: memory has its own bound.
    """

    def __init__(self, clock: Clock, patience_s: int) -> None:
        """``patience_s``: for how long a clock that was set ahead is not followed."""
        self._clock = clock
        self._patience_s = patience_s
        self._offset_us = self._offset()
        self._ahead_since: float | None = None

    def begin(self, known_us: int) -> None:
        """Begin at a time that was seen before, 0 for none, if the clock says a later one."""
        if known_us:
            self._offset_us = min(self._offset(), known_us - self._steady_us())

    def now_s(self) -> int:
        """Return the time that counts, in whole seconds."""
        offset_us, steady_s = self._offset(), self._clock.monotonic()
        if offset_us <= self._offset_us + _STEP_US:
            self._offset_us, self._ahead_since = offset_us, None
        elif self._ahead_since is None:
            self._ahead_since = steady_s
        elif steady_s - self._ahead_since >= self._patience_s:
            self._offset_us, self._ahead_since = offset_us, None
        return (self._steady_us() + self._offset_us) // 1_000_000

    def _offset(self) -> int:
        return self._clock.now_us() - self._steady_us()

    def _steady_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)
