"""Making the journal's tables, and telling whether those of a file are what was made."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw

from ocean_core.buffer.embedded.files import raw_file, size_of
from ocean_core.buffer.embedded.rows import (
    GET_META,
    SET_CURSOR,
    SET_META,
    meta_is_whole,
    meta_row,
)
from ocean_core.buffer.embedded.wal import PAGE_BYTES
from ocean_core.model.errors import StoreCorruptError, StoreVersionError

FORMAT_VERSION: Final = 3
META_INTEGERS: Final = ("format_version", "high_water", "trimmed")

# What the file's header says at these places: page size, no reserved bytes, and three constants.
# SQLite would believe a damaged value.
_FIXED_HEADER: Final = {16: PAGE_BYTES >> 8, 17: 0, 20: 0, 21: 64, 22: 32, 23: 32}

_SCRIPTS: Final = {1: "schema.sql", 2: "schema_2.sql", 3: "schema_3.sql"}
"""What each version added, by its number."""

_SCHEMA_ROWS: Final = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid"


def create(db: apsw.Connection, epoch: str) -> None:
    """Make the tables in an empty file, in one transaction."""
    db.pragma("page_size", PAGE_BYTES)
    db.pragma("auto_vacuum", 2)
    db.execute("BEGIN IMMEDIATE")
    for version in _SCRIPTS:
        _run_script(db, version)
    put_epoch(db, epoch)
    numbers = {"high_water": 0, "trimmed": 0}
    db.executemany(SET_META, [meta_row(key, value) for key, value in numbers.items()])
    db.execute("COMMIT")


def migrate(db: apsw.Connection) -> None:
    """Bring a file of an older version, found good, to the present one, in one transaction."""
    version = db.pragma("user_version")
    if version == FORMAT_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    for following in range(version + 1, FORMAT_VERSION + 1):
        _run_script(db, following)
    db.execute("COMMIT")


def _run_script(db: apsw.Connection, version: int) -> None:
    db.execute(files(__package__).joinpath(_SCRIPTS[version]).read_text(encoding="utf-8"))
    db.pragma("user_version", version)
    db.execute(SET_META, meta_row("format_version", version))


def put_epoch(db: apsw.Connection, epoch: str) -> None:
    """Write the epoch to both of its places."""
    db.execute(SET_META, meta_row("epoch", epoch))
    db.execute(SET_CURSOR, ("", epoch, 0))


def epoch_of(db: apsw.Connection) -> str:
    """Return the epoch. Raises StoreCorruptError unless both copies say the same."""
    epoch = _meta(db, "epoch")
    copy = db.execute("SELECT epoch FROM cursors WHERE group_name = ''").get
    if not isinstance(epoch, str) or epoch != copy:
        raise StoreCorruptError("the journal has no epoch")
    return epoch


def meta_integer(db: apsw.Connection, key: str) -> int:
    """Return a number from ``meta``. Raises StoreCorruptError if it is not there whole."""
    value = _meta(db, key)
    if not isinstance(value, int):
        raise StoreCorruptError(f"the journal has no {key}")
    return value


def _meta(db: apsw.Connection, key: str) -> object:
    row = db.execute(GET_META, (key,)).fetchone()
    return row[0] if row is not None and meta_is_whole(key, *row) else None


@cache
def _expected(version: int) -> list[tuple[Any, ...]]:
    with_tables = apsw.Connection(":memory:")
    with_tables.pragma("page_size", PAGE_BYTES)
    with_tables.pragma("auto_vacuum", 2)
    for number in range(1, version + 1):
        _run_script(with_tables, number)
    rows = list(with_tables.execute(_SCHEMA_ROWS))
    with_tables.close()
    return rows


def check_header(path: Path, vfs: str | None) -> None:
    """Look at the constant bytes of the file's header. Raises StoreCorruptError."""
    if not size_of(path):
        return
    with raw_file(path, vfs) as file:
        head = file.xRead(100, 0)
    if len(head) < 100 or head[:16] != b"SQLite format 3\0":
        raise StoreCorruptError(f"{path.name}: this is no SQLite file")
    if head[18] not in {1, 2} or head[19] not in {1, 2}:
        raise StoreCorruptError(f"{path.name}: the header names no known journal mode")
    if any(head[at] != value for at, value in _FIXED_HEADER.items()):
        raise StoreCorruptError(f"{path.name}: the header of the file is damaged")


def check_tables(db: apsw.Connection) -> None:
    """Compare version and tables. Raises StoreVersionError or StoreCorruptError."""
    version = db.pragma("user_version")
    if version not in _SCRIPTS:
        noted = _meta(db, "format_version")
        # Two witnesses, because a damaged byte must not look like a newer version.
        if noted == version and isinstance(version, int) and version > FORMAT_VERSION:
            raise StoreVersionError(
                f"the journal has format {version}; this executable knows {FORMAT_VERSION}"
            )
        raise StoreCorruptError(f"the journal claims format {version}, its meta table {noted}")
    if list(db.execute(_SCHEMA_ROWS)) != _expected(version):
        raise StoreCorruptError("the tables of the journal are not those it was made with")
    if db.pragma("auto_vacuum") != 2 or db.pragma("encoding") != "UTF-8":
        raise StoreCorruptError("the header of the journal is damaged")
