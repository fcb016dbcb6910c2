"""How many rows a large table has, kept in ``meta``, because SQLite would count them one by one."""

from __future__ import annotations

import apsw

_KEY = "rows:{}"


def row_count(db: apsw.Connection, table: str) -> int:
    """Return the number of rows of one of our tables."""
    noted = _noted(db, table)
    return _counted(db, table) if noted is None else noted


def rows_changed(db: apsw.Connection, table: str, by: int) -> None:
    """Note that rows have come or gone just now, in the same transaction."""
    noted = _noted(db, table)
    count = _counted(db, table) if noted is None else noted + by
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY.format(table), count))


def _noted(db: apsw.Connection, table: str) -> int | None:
    count: int | None = db.execute(
        "SELECT value FROM meta WHERE key = ?", (_KEY.format(table),)
    ).get
    return count


def _counted(db: apsw.Connection, table: str) -> int:
    count: int = db.execute(f"SELECT count(*) FROM {table}").get  # noqa: S608 - a name of ours
    return count
