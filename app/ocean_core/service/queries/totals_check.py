"""Whether the rollups, from which totals are answered, say what the readings themselves say."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ocean_core.model import limits
from ocean_core.service.queries.expected import SeriesNumbers
from ocean_core.service.queries.session import Columns, Session
from ocean_core.service.queries.verified import TotalsCheck, TotalsDifference

_SIZE: Final = "SELECT coalesce(sum(n), 0)::BIGINT FROM rollup_1h"
_RAW: Final = """
SELECT series_id, count(*) AS n, sum(value) AS total, sum(abs(value)) AS size,
    min(value) AS low, max(value) AS high, epoch_us(min(ts)) AS first, epoch_us(max(ts)) AS last
FROM readings WHERE series_id IS NOT NULL GROUP BY series_id ORDER BY series_id
"""
_ROLLUP: Final = """
SELECT series_id, sum(n)::BIGINT AS n, sum(mean * n) AS total,
    min(min) AS low, max(max) AS high, epoch_us(min(first_ts)) AS first,
    epoch_us(max(last_ts)) AS last
FROM {table} WHERE series_id IS NOT NULL GROUP BY series_id ORDER BY series_id
"""
_EXACT: Final = {
    "n": "count", "low": "least value", "high": "greatest value", "first": "first time",
    "last": "last time",
}  # fmt: skip
_TOLERANCE: Final = 1e-7
"""Of the sum of absolute values: what adding up in another order may cost, with room to spare."""


def check_totals(session: Session, numbers: SeriesNumbers) -> TotalsCheck:
    """Compare both rollups with the readings of all series. Raises DuckError."""
    readings = int(session.rows(_SIZE, ())[0][0])
    if readings > limits.VERIFY_TOTALS_ROWS_MAX:
        why = f"more than {limits.VERIFY_TOTALS_ROWS_MAX:,} readings would take too long"
        return TotalsCheck(False, why, 0, readings, 0, [])
    raw = session.columns(_RAW, ())
    differing: set[int] = set()
    differences: list[TotalsDifference] = []
    for table in ("rollup_1h", "rollup_1m"):
        rollup = session.columns(_ROLLUP.replace("{table}", table), ())
        for number, detail in _differences(raw, rollup):
            differing.add(number)
            if len(differences) < limits.VERIFY_ROWS_LISTED_MAX:
                differences.append(TotalsDifference(*numbers.name(number), table, detail))
    counted = int(raw["n"].sum())
    return TotalsCheck(True, "", len(raw["n"]), counted, len(differing), differences)


def _differences(raw: Columns, rollup: Columns) -> list[tuple[int, str]]:
    """Return the numbers of series that differ, and in what."""
    series = np.union1d(_plain(raw["series_id"]), _plain(rollup["series_id"]))
    left, has_left = _aligned(raw, series)
    right, has_right = _aligned(rollup, series)
    both = has_left & has_right
    details = {
        number: "no rollup" if has_left[at] else "rollup without readings"
        for at, number in enumerate(series.tolist())
        if not both[at]
    }
    for name, told in _EXACT.items():
        wrong = both & (left[name] != right[name])
        _note(details, series, wrong, told, left[name], right[name])
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = both & (np.abs(left["total"] - right["total"]) > _TOLERANCE * left["size"])
    # A sum beyond the range of numbers says nothing.
    wrong &= np.isfinite(left["size"]) & np.isfinite(right["total"])
    _note(details, series, wrong, "sum", left["total"], right["total"])
    return sorted(details.items())


def _aligned(found: Columns, series: npt.NDArray[Any]) -> tuple[Columns, npt.NDArray[np.bool_]]:
    """Return the columns with a row for each of ``series``, and which of them are there."""
    places = np.searchsorted(series, _plain(found["series_id"]))
    there = np.zeros(len(series), dtype=np.bool_)
    there[places] = True
    columns: Columns = {}
    for name, column in found.items():
        # What is not there at all is told in other words.
        whole = np.zeros(len(series), dtype=column.dtype)
        whole[places] = _plain(column)
        columns[name] = whole
    return columns, there


def _plain(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column in which NULL, which nobody writes, is 0."""
    return np.asarray(np.ma.filled(column, 0))


def _note(
    details: dict[int, str],
    series: npt.NDArray[Any],
    wrong: npt.NDArray[np.bool_],
    told: str,
    readings: npt.NDArray[Any],
    rollup: npt.NDArray[Any],
) -> None:
    for at in np.flatnonzero(wrong).tolist():
        detail = f"{told} {readings[at].item()!r} of readings, {rollup[at].item()!r} of rollups"
        details.setdefault(int(series[at]), detail)
