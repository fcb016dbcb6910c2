"""The query ``digests``: count and digest of each series, to be compared with somebody's own."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.digest import digest_text, reading_digests
from ocean_core.service.queries.requests import DigestsRequest
from ocean_core.service.queries.session import Columns, Session
from ocean_core.service.queries.verified import Digests, SeriesDigest
from ocean_core.storage.analytics.cursor import as_us

_FETCH_ROWS: Final = 500_000
"""Readings, or ids in which they stand, that are fetched at once."""
_ALL: Final = 2**62

_WATERMARK: Final = "SELECT id FROM watermark"
_SERIES: Final = """
SELECT series_id, sensor_id, metric FROM series
WHERE (sensor_id, metric) > (?, ?) AND starts_with(sensor_id, ?) AND metric != ''
ORDER BY sensor_id, metric LIMIT ?
"""
_SIZES: Final = """
SELECT series_id, sum(n)::BIGINT FROM rollup_1h
WHERE series_id IN (SELECT unnest(?::INTEGER[])) GROUP BY series_id
"""
_ROWS: Final = """
SELECT series_id, ts, value FROM readings WHERE series_id IN (SELECT unnest(?::INTEGER[]))
"""
_ENDS: Final = """
SELECT min(id), max(id) FROM readings WHERE series_id IN (SELECT unnest(?::INTEGER[]))
"""


class _Series(NamedTuple):
    number: int
    sensor_id: str
    metric: str


def answer_digests(session: Session, request: DigestsRequest) -> Digests:
    """Return a page of series by name, as many as can be read in a few seconds, at least one."""
    with session.snapshot():
        watermark = session.rows(_WATERMARK, ())[0][0]
        page, more, rows = _page(session, request)
        counts, digests = _digests(session, [series.number for series in page], rows)
    entries = [
        SeriesDigest(series.sensor_id, series.metric, count, digest_text(digest))
        for series, count, digest in zip(page, counts, digests, strict=True)
    ]
    following = page[-1] if more else None
    return Digests(
        entries,
        None if following is None else cursor_after(following.sensor_id, following.metric),
        watermark,
    )


def cursor_after(sensor_id: str, metric: str) -> str:
    """Return the text for ``after`` that means: behind this series."""
    return msgspec.json.encode((sensor_id, metric)).decode()


def _page(session: Session, request: DigestsRequest) -> tuple[list[_Series], bool, int]:
    """Return the series of a page, whether others follow, and about how many readings they have."""
    pattern = request.pattern
    may_touch = None if pattern is None else Principal("key", sensors=pattern).may_touch
    most = request.limit + 1 if may_touch is None else _ALL
    behind = request.after or ("", "")
    known = session.rows(_SERIES, [*behind, request.prefix or "", most])
    found = [_Series(*row) for row in known if may_touch is None or may_touch(row[1])]
    more = len(found) > request.limit
    found = found[: request.limit]
    sizes = dict(session.rows(_SIZES, [[series.number for series in found]]))
    rows = 0
    for place, series in enumerate(found):
        size = sizes.get(series.number, 0)
        if place and rows + size > limits.DIGESTS_PAGE_ROWS:
            return found[:place], True, rows
        rows += size
    return found, more, rows


def _digests(session: Session, numbers: list[int], rows: int) -> tuple[list[int], list[int]]:
    """Return count and digest of each series."""
    order = np.array(sorted(numbers), dtype=np.int64)
    counts = np.zeros(len(order), dtype=np.int64)
    sums = np.zeros(len(order), dtype=np.uint64)
    if rows <= _FETCH_ROWS:
        _add(session.columns(_ROWS, [numbers]), order, counts, sums)
    else:
        first, last = session.rows(_ENDS, [numbers])[0]
        while first is not None and first <= last:
            end = first + _FETCH_ROWS
            part = session.columns(f"{_ROWS} AND id >= ? AND id < ?", [numbers, first, end])
            _add(part, order, counts, sums)
            first = end
    places = np.searchsorted(order, numbers)
    return counts[places].tolist(), sums[places].tolist()


def _add(
    found: Columns,
    order: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    sums: npt.NDArray[np.uint64],
) -> None:
    value: npt.NDArray[Any] = np.asarray(found["value"], dtype=np.float64)
    if not len(value):
        return
    places = np.searchsorted(order, np.asarray(found["series_id"], dtype=np.int64))
    counts += np.bincount(places, minlength=len(order))
    np.add.at(sums, places, reading_digests(as_us(found["ts"]), value))
