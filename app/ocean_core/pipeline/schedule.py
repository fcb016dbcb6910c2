"""When the mover drains: pure decisions, no thread and no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ocean_core.model import limits

TOUCH_HOLDS_S: Final = 2.0
"""How long one query keeps the mover in its quicker pace."""


@dataclass(frozen=True, slots=True)
class MoverSettings:
    """How much and how often. A drain costs some 4-9 KB of flash, so idle boxes drain rarely."""

    rows_per_drain: int = limits.MOVER_ROWS_PER_DRAIN
    rows_per_drain_behind: int = limits.MOVER_ROWS_PER_DRAIN_BEHIND
    interval_active_ms: int = 250
    interval_idle_s: float = 30.0


class DrainSchedule:
    """What is waiting, who asks, and from that the moment of the next drain.

    All times are seconds of one monotonic clock. Not thread-safe: the owner brings the lock.
    """

    def __init__(self, settings: MoverSettings) -> None:
        self._settings = settings
        self._active_s = settings.interval_active_ms / 1000
        self.head = 0
        self.watermark = 0
        self._wanted_id = 0
        self._urgent_id = 0
        self._waiting_since = float("-inf")
        self._drained_at = float("-inf")
        self._touched_at = float("-inf")

    def grown(self, head_id: int, now: float) -> None:
        """Note that the journal reaches up to ``head_id``."""
        if head_id > self.head:
            if self.head <= self.watermark:
                self._waiting_since = now
            self.head = head_id

    def touched(self, now: float) -> None:
        """Note a query."""
        self._touched_at = now

    def wanted(self, reading_id: int, *, urgent: bool) -> None:
        """Note that somebody waits for an id."""
        self._wanted_id = max(self._wanted_id, reading_id)
        if urgent:
            self._urgent_id = max(self._urgent_id, reading_id)

    def drained(self, watermark: int, now: float) -> None:
        """Note a finished drain; what still waits, waits since now."""
        self.watermark = max(self.watermark, watermark)
        self.head = max(self.head, self.watermark)
        self._drained_at = now
        self._waiting_since = now

    def due_in(self, now: float) -> float | None:
        """Seconds until the next drain, 0 if it is due, None if nothing waits."""
        waiting = self.head - self.watermark
        if waiting <= 0:
            return None
        if waiting >= self._settings.rows_per_drain or self._urgent_id > self.watermark:
            return 0.0
        if self._wanted_id > self.watermark or now - self._touched_at < TOUCH_HOLDS_S:
            return max(0.0, self._drained_at + self._active_s - now)
        return max(0.0, self._waiting_since + self._settings.interval_idle_s - now)
