"""Statistics of whole ranges: the totals of memory, the rings of memory, or one statement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.rollup import merge_per_series
from ocean_core.service.queries.catalog import Series
from ocean_core.service.queries.live import live_partials
from ocean_core.service.queries.plan import HIGH_US, LOW_US, parts_sql, plan, source_of
from ocean_core.service.queries.session import Session
from ocean_core.storage.analytics.batch import Partials

LIVE: Final = "live"

# Two passes: a sum of squares would lose everything at mean 1e9 and deviation 1.
_MERGE: Final = """
WITH parts AS ({parts}),
centres AS (
    SELECT series_id, sum(n)::BIGINT AS n, sum(mean * n) / sum(n) AS mean,
        min(min) AS min, max(max) AS max, min(first_us) AS first_us, max(last_us) AS last_us
    FROM parts GROUP BY series_id
)
SELECT c.series_id, any_value(c.n), any_value(c.mean),
    sum(p.m2 + p.n * (p.mean - c.mean) * (p.mean - c.mean)), any_value(c.min), any_value(c.max),
    any_value(c.first_us), any_value(c.last_us)
FROM parts p JOIN centres c ON p.series_id = c.series_id GROUP BY c.series_id
"""


class Aggregate(NamedTuple):
    """Statistics of some readings of a series; ``n`` is at least 1."""

    n: int
    mean: float
    m2: float
    min: float
    max: float
    first_us: int
    last_us: int

    @property
    def stddev(self) -> float | None:
        """Standard deviation of a sample; None for one reading, or where it overflows."""
        if self.n < 2:
            return None
        if self.min == self.max:
            # Rounding of the mean must not look like a deviation.
            return 0.0
        deviation = math.sqrt(max(self.m2, 0.0) / (self.n - 1)) if self.m2 >= 0 else math.nan
        return deviation if math.isfinite(deviation) else None


class Aggregated(NamedTuple):
    """Statistics per series number (none for a series without readings in the range), and source."""

    found: dict[int, Aggregate]
    source: str


def aggregate(
    window: LiveWindow | None,
    session: Session,
    chosen: Sequence[Series],
    start_us: int | None,
    end_us: int | None,
) -> Aggregated:
    """Return the statistics of readings with ``start_us <= t <= end_us`` (None: open)."""
    low_us = LOW_US if start_us is None else start_us
    high_us = HIGH_US if end_us is None else end_us + 1
    found: dict[int, Aggregate] = {}
    left: list[int] = []
    for series in chosen:
        known, live = _from_memory(window, series, low_us, high_us)
        if not known:
            left.append(series.series_id)
        elif live is not None:
            found[series.series_id] = live
    if not left:
        return Aggregated(found, LIVE)
    parts = plan(low_us, high_us)
    union, params = parts_sql(parts, left)
    for series_id, *figures in session.rows(_MERGE.replace("{parts}", union), params):
        found[series_id] = Aggregate(*figures)
    source = source_of(parts)
    return Aggregated(found, source if len(left) == len(chosen) else f"{LIVE}+{source}")


def _from_memory(
    window: LiveWindow | None, series: Series, low_us: int, high_us: int
) -> tuple[bool, Aggregate | None]:
    """Return whether memory can tell, and what it tells (None: no readings)."""
    totals = series.totals
    if window is None or series.state is None or totals is None or not totals.n:
        return False, None
    if high_us <= totals.first_ts_us or low_us > totals.last_ts_us:
        return True, None
    if low_us <= totals.first_ts_us and high_us > totals.last_ts_us:
        return True, Aggregate(*totals[:6], totals.last_ts_us)
    partials = live_partials(window, series.state, totals, low_us, high_us)
    if partials is None:
        return False, None
    return True, _merged(partials)


def _merged(partials: Partials) -> Aggregate | None:
    if not len(partials):
        return None
    one = merge_per_series(partials)
    return Aggregate(
        int(one.n[0]), float(one.mean[0]), float(one.m2[0]), float(one.min[0]), float(one.max[0]),
        int(one.first_ts_us[0]), int(one.last_ts_us[0]),
    )  # fmt: skip
