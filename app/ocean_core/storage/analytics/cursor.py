"""What queries see of DuckDB: a cursor, and partials fetched through it."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column
from ocean_core.storage.analytics.batch import Partials

PARTIAL_COLUMNS = (
    "series_id, bucket, n, mean, m2, min, max, first_ts, first_value, last_ts, last_value"
)
"""The columns of rollup_1m and rollup_1h in the order of the tables."""


class Cursor(Protocol):
    """One thread's handle of analytics.duckdb. Always fetch a result to the end.

    Methods raise DuckError; ask ``is_damage`` what an error means.
    """

    def execute(self, query: str, parameters: object = None) -> Self:
        """Run a statement; ``parameters`` is a list for ``?`` or a dict for ``$name``."""
        ...

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None at the end."""
        ...

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows left."""
        ...

    def fetchnumpy(self) -> dict[str, npt.NDArray[Any]]:
        """Return all rows left as columns; TIMESTAMP becomes datetime64[us]."""
        ...

    @property
    def description(self) -> Any:  # noqa: ANN401 - as in PEP 249
        """Column names and types of the result, as PEP 249 says."""
        ...

    def interrupt(self) -> None:
        """End the statement that runs; may be called from another thread."""
        ...

    def close(self) -> None:
        """Let go of the handle."""
        ...


def as_us(column: npt.NDArray[Any]) -> Int64Column:
    """Return a fetched TIMESTAMP column as microseconds since 1970 UTC."""
    return np.asarray(column).astype("M8[us]", copy=False).view(np.int64)


def fetch_partials(cursor: Cursor) -> Partials:
    """Return the result of ``SELECT {PARTIAL_COLUMNS} FROM rollup_…`` to the end.

    Without ORDER BY the rows come in the order of writing, which ``merge_partials`` relies on.
    """
    found = cursor.fetchnumpy()

    def floats(name: str) -> Float64Column:
        return np.asarray(found[name], dtype=np.float64)

    return Partials(
        series_id=np.asarray(found["series_id"], dtype=np.int32),
        bucket_us=as_us(found["bucket"]),
        n=np.asarray(found["n"], dtype=np.int64),
        mean=floats("mean"),
        m2=floats("m2"),
        min=floats("min"),
        max=floats("max"),
        first_ts_us=as_us(found["first_ts"]),
        first_value=floats("first_value"),
        last_ts_us=as_us(found["last_ts"]),
        last_value=floats("last_value"),
    )


def partial_columns(partials: Partials) -> dict[str, npt.NDArray[Any]]:
    """Return partials as columns that DuckDB can scan."""
    p = partials
    return {
        "series_id": p.series_id, "bucket": p.bucket_us.view("M8[us]"), "n": p.n,
        "mean": p.mean, "m2": p.m2, "min": p.min, "max": p.max,
        "first_ts": p.first_ts_us.view("M8[us]"), "first_value": p.first_value,
        "last_ts": p.last_ts_us.view("M8[us]"), "last_value": p.last_value,
    }  # fmt: skip
