"""Parquet by DuckDB: columns to a file and back, in an instance of its own.

The instance lives in memory, apart from analytics.duckdb: no query of a user can reach it or the
archive's files through it. It knows no extension but those built in, and never fetches one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import duckdb
import numpy as np
import numpy.typing as npt

from ocean_core.model.block import SeriesName
from ocean_core.model.errors import StoreCorruptError, StoreIOError
from ocean_core.storage.analytics.errors import DuckError, is_system_error

ROW_GROUP_ROWS: Final = 122_880
_MEMORY_MB: Final = 96
_OPTIONS: Final = (
    f"FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
)

Columns = Mapping[str, npt.NDArray[Any]]


class ParquetEngine:
    """A DuckDB instance in memory, for one thread. Close it to give its memory back."""

    def __init__(self, temporary: Path | None = None, memory_limit_mb: int = _MEMORY_MB) -> None:
        """``temporary`` is where large sorts may spill; None: nowhere."""
        self.connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{memory_limit_mb}MB",
                "threads": 1,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        for setting in (
            f"temp_directory = {quoted(str(temporary or ''))}",
            "python_enable_replacements = false",
            "allow_community_extensions = false",
            "preserve_insertion_order = true",
        ):
            self.connection.execute(f"SET {setting}")

    def close(self) -> None:
        """Give everything back."""
        self.connection.close()

    def write(self, path: Path, query: str, notes: Mapping[str, str]) -> None:
        """Write a query's rows, in their order, to a Parquet file with notes in its footer.

        The file is not synced. Raises StoreIOError; StoreCorruptError if the query reads a damaged one.
        """
        kept = ", ".join(f"{name}: {quoted(text)}" for name, text in notes.items())
        command = f"COPY ({query}) TO {quoted(str(path))} ({_OPTIONS}, KV_METADATA {{{kept}}})"
        try:
            self.connection.execute(command)
        except DuckError as error:
            if is_system_error(error) or isinstance(error, duckdb.IOException):
                raise StoreIOError(f"{path.name}: {_one_line(error)}") from error
            raise _unreadable(error) from error

    def read(self, query: str, parameters: Sequence[object] = ()) -> dict[str, npt.NDArray[Any]]:
        """Return a query's rows as columns. Raises StoreCorruptError if a file is damaged."""
        try:
            found = self.connection.execute(query, list(parameters)).fetchnumpy()
        except (DuckError, UnicodeDecodeError) as error:
            raise _unreadable(error) from error
        return {name: np.asarray(column) for name, column in found.items()}

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return a query's rows. Raises StoreCorruptError if a file is damaged."""
        try:
            return self.connection.execute(query, list(parameters)).fetchall()
        except (DuckError, UnicodeDecodeError) as error:
            raise _unreadable(error) from error

    @contextmanager
    def table(self, name: str, columns: Columns) -> Iterator[None]:
        """Have columns be the table ``name`` for a while."""
        self.connection.register(name, cast("Any", dict(columns)))
        try:
            yield
        finally:
            self.connection.unregister(name)

    def name_series(self, series: Sequence[SeriesName]) -> None:
        """Have the table ``names`` (number, sensor_id, metric) hold these, numbered from 0."""
        self.connection.execute(
            "CREATE OR REPLACE TABLE names AS SELECT (unnest(range(?)))::INTEGER AS number, "
            "unnest(?::VARCHAR[]) AS sensor_id, unnest(?::VARCHAR[]) AS metric",
            [len(series), [name[0] for name in series], [name[1] for name in series]],
        )


@contextmanager
def parquet_engine(
    temporary: Path | None = None, memory_limit_mb: int = _MEMORY_MB
) -> Iterator[ParquetEngine]:
    """Open an engine for a while."""
    engine = ParquetEngine(temporary, memory_limit_mb)
    try:
        yield engine
    finally:
        engine.close()


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def files(paths: Sequence[Path]) -> str:
    """Return ``read_parquet`` of these files, in their order, as a table expression."""
    listed = ", ".join(quoted(str(path)) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _unreadable(error: Exception) -> Exception:
    if is_system_error(error):
        return StoreIOError(_one_line(error))
    return StoreCorruptError(f"the archive cannot be read: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0]}"[:300]
