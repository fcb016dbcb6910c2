"""What a part is written from: columns with names in a dictionary, in no particular order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column, SeriesName, UInt8Column
from ocean_core.storage.analytics.batch import Int32Column


@dataclass(frozen=True, slots=True)
class ArchiveReadings:
    """Readings; ``series_index`` points into ``series``, which has the names as they came.

    Times are microseconds since 1970 UTC.
    """

    series: Sequence[SeriesName]
    id: Int64Column
    series_index: Int32Column
    ts_us: Int64Column
    value: Float64Column
    quality: UInt8Column

    def __len__(self) -> int:
        return len(self.id)

    def take(self, which: npt.NDArray[np.intp]) -> ArchiveReadings:
        """Return chosen rows."""
        return ArchiveReadings(
            self.series, self.id[which], self.series_index[which], self.ts_us[which],
            self.value[which], self.quality[which],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchiveEvents:
    """Events; ``payload`` is JSON text, an array of objects."""

    series: Sequence[SeriesName]
    id: Int64Column
    series_index: Int32Column
    ts_us: Int64Column
    quality: UInt8Column
    payload: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, which: npt.NDArray[np.intp]) -> ArchiveEvents:
        """Return chosen rows."""
        return ArchiveEvents(
            self.series, self.id[which], self.series_index[which], self.ts_us[which],
            self.quality[which], self.payload[which],
        )  # fmt: skip


def series_order(series: Sequence[SeriesName]) -> Int32Column:
    """Return the place of each name when they are sorted by sensor and metric, as UTF-8."""
    ranks = np.empty(len(series), dtype=np.int32)
    ordered = sorted(range(len(series)), key=lambda at: series[at])
    ranks[ordered] = np.arange(len(series), dtype=np.int32)
    return ranks


def sorted_rows(
    series: Sequence[SeriesName], series_index: Int32Column, ts_us: Int64Column, ids: Int64Column
) -> npt.NDArray[np.intp]:
    """Return the order by (sensor, metric, time, id)."""
    ranks = series_order(series)[series_index]
    return np.lexsort((ids, ts_us, ranks))
