"""Statistics of all readings of every series: one row per series, merged with whole batches."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Quality
from ocean_core.pipeline.rollup import SeriesRuns, concat, merge_per_series
from ocean_core.storage.analytics.batch import Partials


class Totals(NamedTuple):
    """All readings of a series so far.

    ``last_…`` belong to the newest timestamp (at equal timestamps the highest id). Variance is
    ``m2 / n`` (population) or ``m2 / (n - 1)`` (sample); ``m2`` may be infinite for values near
    the end of the double range. ``untrusted_n`` counts readings of quality 2.
    """

    n: int
    mean: float
    m2: float
    min: float
    max: float
    first_ts_us: int
    first_value: float
    last_ts_us: int
    last_value: float
    last_quality: int
    last_id: int
    untrusted_n: int


_ROW: Final = np.dtype(
    [
        ("n", "<i8"), ("mean", "<f8"), ("m2", "<f8"), ("min", "<f8"), ("max", "<f8"),
        ("first_ts_us", "<i8"), ("first_value", "<f8"), ("last_ts_us", "<i8"),
        ("last_value", "<f8"), ("last_quality", "<i8"), ("last_id", "<i8"), ("untrusted_n", "<i8"),
    ]
)  # fmt: skip
assert _ROW.names == Totals._fields

_PARTIAL_FIELDS: Final = {
    "n": "n", "mean": "mean", "m2": "m2", "min": "min", "max": "max",
    "first_ts_us": "first_ts_us", "first_value": "first_value",
    "last_ts_us": "last_ts_us", "last_value": "last_value",
}  # fmt: skip

Numbers = npt.NDArray[np.int32]


class TotalsTable:
    """Rows indexed by series number. Not thread-safe: the owner brings the lock."""

    def __init__(self) -> None:
        self._rows: npt.NDArray[Any] = np.zeros(64, dtype=_ROW)

    def get(self, series_id: int) -> Totals:
        """Return a series' totals; ``n`` is 0 as long as it has no readings."""
        return Totals(*self._rows[series_id].item())

    def last_ts_us(self, series_ids: Numbers) -> list[int]:
        """Newest timestamp of each series, -1 where there are no readings."""
        self._reserve(int(series_ids.max()))
        rows = self._rows[series_ids]
        found: list[int] = np.where(rows["n"] > 0, rows["last_ts_us"], -1).tolist()
        return found

    @property
    def bytes(self) -> int:
        """Memory of the table."""
        return self._rows.nbytes

    def clear(self, series_id: int) -> None:
        """Have a series without readings."""
        if series_id < len(self._rows):
            self._rows[series_id] = np.zeros((), dtype=_ROW)

    def put(self, series_id: int, totals: Totals) -> None:
        """Set a series' totals."""
        self._reserve(series_id)
        self._rows[series_id] = tuple(totals)

    def apply(self, runs: SeriesRuns, hours: Partials) -> None:
        """Merge a batch: its runs per series and its hour partials, which cover the same rows."""
        ids = runs.series_id
        self._reserve(int(ids.max()))
        rows = self._rows[ids]
        known = rows["n"] > 0
        old = Partials(
            ids[known], np.zeros(int(known.sum()), dtype=np.int64),
            *(rows[name][known] for name in _PARTIAL_FIELDS),
        )  # fmt: skip
        new = merge_per_series(hours)
        merged = merge_per_series(concat([old, new]))
        is_newer = ~known | (new.last_ts_us >= rows["last_ts_us"])
        for column, name in _PARTIAL_FIELDS.items():
            rows[column] = getattr(merged, name)
        newest = runs.order[runs.lasts]
        rows["last_quality"] = np.where(
            is_newer, runs.readings.quality[newest], rows["last_quality"]
        )
        rows["last_id"] = np.where(is_newer, runs.readings.id[newest], rows["last_id"])
        untrusted = runs.readings.quality == Quality.UNTRUSTED_CLOCK
        if bool(untrusted.any()):
            counted = untrusted[runs.order].astype(np.int64)
            rows["untrusted_n"] += np.add.reduceat(counted, runs.starts)
        self._rows[ids] = rows

    def _reserve(self, series_id: int) -> None:
        size = len(self._rows)
        if series_id < size:
            return
        while size <= series_id:
            size *= 2
        bigger = np.zeros(size, dtype=_ROW)
        bigger[: len(self._rows)] = self._rows
        self._rows = bigger
