"""The recorded series of the Numenta Anomaly Benchmark, read without any code of ours."""

import csv
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support.paths import REPO

FOLDER = REPO / "tests" / "data" / "nab"
FILES = sorted(FOLDER.glob("*.csv"))


@dataclass(frozen=True)
class Recorded:
    """A series: microseconds since 1970 UTC, and numbers."""

    moments_us: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)


def read_series(path: Path) -> Recorded:
    with path.open(newline="") as lines:
        rows = [(row["timestamp"], float(row["value"])) for row in csv.DictReader(lines)]
    moments = [
        int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * 1_000_000
        for text, _ in rows
    ]
    return Recorded(np.array(moments), np.array([value for _, value in rows]))


def moment_us(text: str) -> int:
    """Return the microseconds of a moment in an answer."""
    moment = dt.datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
