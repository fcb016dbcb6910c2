"""The figures of a run: counts, latencies in bounded memory, and the lines that show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np

REASONS_MAX: Final = 20
_OTHER: Final = "other reasons"

# Latencies fall into steps of 2 %, from 1 us to 1000 s.
_STEP: Final = 1.02
_LOWEST_S: Final = 1e-6
_STEPS: Final = 1048


class Latencies:
    """Seconds from a request to its answer: percentiles within 2 %, the longest exactly."""

    def __init__(self) -> None:
        self._fresh: list[float] = []
        # Called for every request, so without a function of ours in between.
        self.add = self._fresh.append
        self._steps = np.zeros(_STEPS, dtype=np.int64)
        self.longest_s = 0.0

    def fold(self) -> None:
        """Sort in what came since; now and then, to keep memory bounded."""
        if not self._fresh:
            return
        fresh = np.maximum(np.array(self._fresh), _LOWEST_S)
        self._fresh.clear()
        self.longest_s = max(self.longest_s, float(fresh.max()))
        steps = (np.log(fresh / _LOWEST_S) / np.log(_STEP)).astype(np.int64)
        self._steps += np.bincount(np.minimum(steps, _STEPS - 1), minlength=_STEPS)

    def percentile_s(self, percent: float) -> float:
        """Return what this share of the answers did not exceed; 0 if there was none."""
        self.fold()
        total = int(self._steps.sum())
        if not total:
            return 0.0
        step = int(np.searchsorted(np.cumsum(self._steps), total * percent / 100))
        return min(self.longest_s, _LOWEST_S * _STEP ** (step + 1))


class Figures:
    """What happened so far. Requests and readings are counted once, however often they are sent."""

    def __init__(self) -> None:
        self.sent_requests = 0
        self.sent_readings = 0
        self.acknowledged_requests = 0
        self.acknowledged_readings = 0
        self.refused_requests = 0
        self.refused_readings = 0
        self.resent = 0
        self.busy_answers = 0
        self.lost_answers = 0
        self.repeats = 0
        self.repeats_stored_again = 0
        self.latencies = Latencies()
        self.reasons: Counter[str] = Counter()
        self.began_s = 0.0
        self.last_answer_s = 0.0
        self.failed_connections = 0
        self.connection_error = ""

    @property
    def seconds(self) -> float:
        """From the begin to the last acknowledgement."""
        return self.last_answer_s - self.began_s

    @property
    def per_second(self) -> float:
        """Acknowledged readings a second."""
        return self.acknowledged_readings / self.seconds if self.seconds > 0 else 0.0

    def refuse(self, readings: int, reason: str) -> None:
        """Count a request that was refused for good."""
        self.refused_requests += 1
        self.refused_readings += readings
        self._give(reason, 1)

    def refuse_together(self, readings: int, reasons: Mapping[str, int]) -> None:
        """Count a request refused for good, with how many of its frames had which reason."""
        self.refused_requests += 1
        self.refused_readings += readings
        for reason, number in reasons.items():
            self._give(reason, number)

    def unreachable(self, why: str) -> None:
        """Count a connection that could not be made."""
        self.failed_connections += 1
        self.connection_error = why

    def progress(self, elapsed_s: float, per_second: float) -> str:
        """Return the line that is shown while it runs."""
        latencies = self.latencies
        parts = [
            f"{elapsed_s:4.0f} s",
            f"sent {self.sent_readings:,}",
            f"acknowledged {self.acknowledged_readings:,} ({per_second:,.0f}/s)",
            f"refused {self.refused_readings:,}",
            f"resent {self.resent:,}",
            f"p50 {milliseconds(latencies.percentile_s(50))}",
            f"p99 {milliseconds(latencies.percentile_s(99))}",
        ]
        if self.connection_error and not self.acknowledged_requests:
            parts.append(self.connection_error)
        return "  ".join(parts)

    def _give(self, reason: str, times: int) -> None:
        known = reason in self.reasons or len(self.reasons) < REASONS_MAX
        self.reasons[reason if known else _OTHER] += times


def milliseconds(seconds: float) -> str:
    """Return a duration with three digits.

    >>> milliseconds(0.00123), milliseconds(0.5)
    ('1.23 ms', '500 ms')
    """
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{1000 * seconds:,.0f} ms"
