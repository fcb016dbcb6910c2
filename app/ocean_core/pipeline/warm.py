"""What the live window learns from analytics.duckdb when the process starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan
from typing import Any, Final

from ocean_core.pipeline.totals import Totals
from ocean_core.storage.analytics.store import AnalyticsStore

# Chan's rule over all hour partials of a series, in two steps like merge_partials: the mean, then
# what deviates from it. Times as microseconds.
_TOTALS: Final = """
WITH size AS (SELECT series_id, sum(n) AS n FROM rollup_1h WHERE {which} GROUP BY series_id),
middle AS (
    SELECT r.series_id, any_value(s.n) AS n, sum(r.mean * (r.n / s.n)) AS mean
    FROM rollup_1h r JOIN size s USING (series_id) GROUP BY r.series_id
)
SELECT r.series_id, any_value(m.n)::BIGINT, any_value(m.mean),
    sum(r.n * (r.mean - m.mean)), sum(r.m2 + r.n * (r.mean - m.mean) * (r.mean - m.mean)),
    min(r.min), max(r.max),
    epoch_us(min(r.first_ts)), arg_min(r.first_value, r.first_ts),
    epoch_us(max(r.last_ts)), arg_max(r.last_value, r.last_ts)
FROM rollup_1h r JOIN middle m USING (series_id) GROUP BY r.series_id
"""

# The rollups know neither id nor quality of the newest reading.
_NEWEST: Final = """
WITH newest AS (
    SELECT series_id, max(last_ts) AS ts FROM rollup_1h WHERE {which} GROUP BY series_id
)
SELECT r.series_id, max(r.id), arg_max(r.value, r.id), arg_max(r.quality, r.id)
FROM readings r JOIN newest USING (series_id, ts) GROUP BY r.series_id
"""

_UNTRUSTED: Final = """
SELECT series_id, count(*) FROM readings WHERE quality = 2 AND {which} GROUP BY series_id
"""

_EVENTS: Final = """
SELECT series_id, count(*), epoch_us(min(ts)), epoch_us(max(ts)) FROM events
WHERE {which} GROUP BY series_id
"""


@dataclass(frozen=True, slots=True)
class Warmth:
    """Totals per series, and (count, first, last timestamp) of those that are events."""

    totals: dict[int, Totals]
    events: dict[int, tuple[int, int, int]]


def load_warmth(store: AnalyticsStore, only: Sequence[int] | None = None) -> Warmth:
    """Read it all, or ``only`` what concerns some series. Raises DuckError."""
    cursor = store.cursor()
    which = "true" if only is None else "series_id IN (SELECT unnest(?::INTEGER[]))"
    params = [] if only is None else [list(only)]

    def rows(query: str) -> list[tuple[Any, ...]]:
        return cursor.execute(query.replace("{which}", which), params).fetchall()

    try:
        events = rows(_EVENTS)
        return Warmth(
            _totals(rows),
            {series_id: (n, first, last) for series_id, n, first, last in events},
        )
    finally:
        store.release(cursor)


def _totals(rows: Callable[[str], list[tuple[Any, ...]]]) -> dict[int, Totals]:
    newest = {row[0]: row[1:] for row in rows(_NEWEST)}
    untrusted = dict(rows(_UNTRUSTED))
    totals: dict[int, Totals] = {}
    for row in rows(_TOTALS):
        series_id, n, mean, rest, m2, low, high, first_ts, first_value, last_ts, last_value = row
        last_id, value, quality = newest.get(series_id, (0, last_value, 0))
        mean, m2 = _corrected(n, mean, rest, m2)
        totals[series_id] = Totals(
            n, mean, m2, low, high,
            first_ts, first_value, last_ts, value, quality, last_id, untrusted.get(series_id, 0),
        )  # fmt: skip
    return totals


def _corrected(n: int, mean: float, rest: float, m2: float) -> tuple[float, float]:
    """Return mean and M2 less what rounding left, as the rollups do for what overflowed.

    Then the mean stays as it is, and M2 is infinite.
    """
    square = rest * rest
    m2 -= square / n
    if isfinite(rest):
        mean += rest / n
    return mean, inf if isnan(m2) else max(m2, 0.0)
