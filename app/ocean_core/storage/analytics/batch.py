"""What one mover transaction writes: columns, ready for DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column, SeriesName, UInt8Column

Int32Column = npt.NDArray[np.int32]


class NewSeries(NamedTuple):
    """A series at its first row."""

    series_id: int
    name: SeriesName
    first_id: int


@dataclass(frozen=True, slots=True)
class Partials:
    """Statistics of groups of readings, one row per (``series_id``, ``bucket_us``) or repeated.

    ``m2`` is the sum of squared deviations from ``mean``. ``first`` and ``last`` go by timestamp;
    at equal timestamps by reading id. Rows that stand for the same group are in the order in which
    they were written, which is the order of their ids. Times in microseconds since 1970 UTC.
    """

    series_id: Int32Column
    bucket_us: Int64Column
    n: Int64Column
    mean: Float64Column
    m2: Float64Column
    min: Float64Column
    max: Float64Column
    first_ts_us: Int64Column
    first_value: Float64Column
    last_ts_us: Int64Column
    last_value: Float64Column

    def __len__(self) -> int:
        return len(self.n)


@dataclass(frozen=True, slots=True)
class ReadingColumns:
    """Readings in id order, with series numbers instead of names."""

    id: Int64Column
    series_id: Int32Column
    ts_us: Int64Column
    value: Float64Column
    quality: UInt8Column

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Events in id order; ``payload`` is JSON text."""

    id: Int64Column
    series_id: Int32Column
    ts_us: Int64Column
    quality: UInt8Column
    payload: Sequence[str]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True)
class MoveBatch:
    """One transaction: rows, rollup partials, new series, and the watermark they lead to.

    ``forgotten`` counts, by rule, all rows that rules made vanish up to here; None: as before.
    """

    epoch: str
    watermark: int
    readings: ReadingColumns | None
    events: EventColumns | None
    new_series: Sequence[NewSeries]
    minutes: Partials | None
    hours: Partials | None
    forgotten: Mapping[int, int] | None = None
