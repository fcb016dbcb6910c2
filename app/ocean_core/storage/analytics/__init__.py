"""analytics.duckdb: everything that speaks DuckDB, and what others need of it."""

from ocean_core.storage.analytics.batch import (
    EventColumns,
    MoveBatch,
    NewSeries,
    Partials,
    ReadingColumns,
)
from ocean_core.storage.analytics.changes import AppliedRules, Changes
from ocean_core.storage.analytics.cursor import PARTIAL_COLUMNS, Cursor, as_us, fetch_partials
from ocean_core.storage.analytics.errors import (
    DuckError,
    InterruptError,
    OutOfMemoryError,
    is_certain_damage,
    is_damage,
)
from ocean_core.storage.analytics.store import AnalyticsStore, Opened

__all__ = [
    "AnalyticsStore",
    "Opened",
    "AppliedRules",
    "Changes",
    "Cursor",
    "MoveBatch",
    "ReadingColumns",
    "EventColumns",
    "NewSeries",
    "Partials",
    "PARTIAL_COLUMNS",
    "as_us",
    "fetch_partials",
    "DuckError",
    "InterruptError",
    "OutOfMemoryError",
    "is_damage",
    "is_certain_damage",
]
