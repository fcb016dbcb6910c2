"""What the live window can say about a range, as partials: exact, or nothing at all."""

from __future__ import annotations

import numpy as np

from ocean_core.pipeline.live_window import LiveWindow, RecentRows, SeriesState
from ocean_core.pipeline.rollup import concat
from ocean_core.pipeline.totals import Totals
from ocean_core.service.queries.values import MINUTE_US
from ocean_core.storage.analytics.batch import Partials


def live_partials(
    window: LiveWindow,
    state: SeriesState,
    totals: Totals,
    low_us: int,
    high_us: int,
    *,
    whole_minutes: bool = True,
) -> Partials | None:
    """Return partials for ``low_us <= t < high_us``, None if not covered.

    They are single readings, or minutes if ``whole_minutes`` allows. Their ``bucket_us`` is the minute, or the time of a single reading: either lies in the same
    bucket of a grid of whole minutes.
    """
    rows = window.recent(state, max(low_us, totals.first_ts_us), high_us)
    if rows is not None:
        return partials_of(rows, state.series_id)
    if not whole_minutes:
        return None
    # Before the first and behind the last reading there is nothing, so whole minutes do.
    inner_low = -(-low_us // MINUTE_US) * MINUTE_US
    inner_high = high_us // MINUTE_US * MINUTE_US
    if low_us <= totals.first_ts_us:
        low_us = inner_low = totals.first_ts_us // MINUTE_US * MINUTE_US
    end_us = high_us
    if high_us > totals.last_ts_us:
        end_us = inner_high = (totals.last_ts_us // MINUTE_US + 1) * MINUTE_US
    if inner_low >= inner_high:
        return None
    parts = [window.minutes(state, inner_low, inner_high)]
    for edge_low, edge_high in ((low_us, inner_low), (inner_high, end_us)):
        if edge_low < edge_high:
            edge = window.recent(state, edge_low, edge_high)
            parts.append(None if edge is None else partials_of(edge, state.series_id))
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    whole = concat(found)
    # A reading beyond the end may have come since the totals were read.
    return whole if not len(whole) or int(whole.last_ts_us.max()) < high_us else None


def partials_of(rows: RecentRows, series_id: int) -> Partials:
    """Return each reading as a partial of its own."""
    size = len(rows.ts_us)
    return Partials(
        series_id=np.full(size, series_id, dtype=np.int32),
        bucket_us=rows.ts_us,
        n=np.ones(size, dtype=np.int64),
        mean=rows.value,
        m2=np.zeros(size),
        min=rows.value,
        max=rows.value,
        first_ts_us=rows.ts_us,
        first_value=rows.value,
        last_ts_us=rows.ts_us,
        last_value=rows.value,
    )
