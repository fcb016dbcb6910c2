"""Making and migrating the tables, and telling whether those of a file are what was made."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw

from ocean_core.model.errors import StoreCorruptError, StoreVersionError
from ocean_core.storage.operational.files import PAGE_BYTES, raw_file, size_of

APPLICATION_ID: Final = 0x4F434F50
VERSION: Final = 2
"""The schema this executable writes: schema.sql is 1, ``migrations/<number>.sql`` what follows."""

# What the file's header says at these places: page size, no reserved bytes, and three constants.
# SQLite would believe a damaged value.
_FIXED_HEADER: Final = {16: PAGE_BYTES >> 8, 17: 0, 20: 0, 21: 64, 22: 32, 23: 32}
_INCREMENTAL: Final = 2

_TYPES: Final[dict[str, type]] = {"TEXT": str, "INTEGER": int, "BLOB": bytes}
_JSON: Final = {
    ("metadata", "value"),
    ("profiles", "metadata"),
    ("sensors", "tags"),
    ("audit", "detail"),
}

_SCHEMA_ROWS: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
_SET_META: Final = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
_GET_META: Final = "SELECT value FROM meta WHERE key = ?"


def set_meta(db: apsw.Connection, key: str, value: str | int) -> None:
    """Keep something about the whole file."""
    db.execute(_SET_META, (key, value))


def get_meta(db: apsw.Connection, key: str) -> object:
    """Return what is kept about the whole file, None if nothing is. Raises StoreCorruptError."""
    try:
        return db.execute(_GET_META, (key,)).get
    except UnicodeDecodeError as error:
        raise StoreCorruptError(f"accounts: a text in meta is damaged: {key}") from error


def create(db: apsw.Connection, now_us: int, random_bytes: Callable[[int], bytes]) -> None:
    """Make the tables in an empty file, in one transaction."""
    db.pragma("page_size", PAGE_BYTES)
    db.pragma("auto_vacuum", _INCREMENTAL)
    db.execute("BEGIN IMMEDIATE")
    db.execute(_text("schema.sql"))
    db.pragma("application_id", APPLICATION_ID)
    set_meta(db, "store_id", str(uuid.UUID(bytes=random_bytes(16), version=4)))
    set_meta(db, "created_us", now_us)
    _set_version(db, 1)
    db.execute("COMMIT")
    migrate(db)


def migrate(db: apsw.Connection) -> None:
    """Bring an older file up to ``VERSION``, each step a transaction. Raises apsw.Error."""
    for version in range(int(db.pragma("user_version")) + 1, VERSION + 1):
        db.execute("BEGIN IMMEDIATE")
        db.execute(_text(f"migrations/{version:04}.sql"))
        _set_version(db, version)
        db.execute("COMMIT")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _set_version(db: apsw.Connection, version: int) -> None:
    # Two witnesses, because a damaged byte must not look like a newer version.
    db.pragma("user_version", version)
    set_meta(db, "schema_version", version)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. ``type_name`` is empty if it takes anything."""

    name: str
    type_name: str
    not_null: bool
    is_json: bool

    def takes(self, value: object) -> bool:
        """Whether a value can have been stored here by us."""
        if value is None:
            return not self.not_null
        if not isinstance(value, _TYPES.get(self.type_name, object)):
            return False
        # JSON escapes it, so there it stands for a page that was wiped out. More is not asked: what
        # one JSON reader takes another may refuse, and then a good row would be dropped.
        return not (self.is_json and isinstance(value, str) and "\0" in value)


@dataclass(frozen=True, slots=True)
class Table:
    """A table as salvage must know it.

    ``columns`` are in the order of a stored record; ``rowid`` is the place of the column that
    stands for the rowid, None for a table without one. ``root`` is its first page in a new file.
    """

    name: str
    columns: tuple[Column, ...]
    rowid: int | None
    root: int

    def takes(self, row: Sequence[object]) -> bool:
        """Whether a row can have been stored by us; columns added later may be absent."""
        return len(row) <= len(self.columns) and all(
            column.takes(value) for column, value in zip(self.columns, row, strict=False)
        )


@cache
def tables() -> tuple[Table, ...]:
    """Return the tables in the order of their making: whom others refer to comes first."""
    db = _in_memory()
    found = "SELECT name, rootpage, sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid"
    rows: list[tuple[Any, ...]] = db.execute(found).fetchall()
    made = tuple(
        _table(db, name, root, has_rowid="WITHOUT ROWID" not in sql) for name, root, sql in rows
    )
    db.close()
    return made


def _table(db: apsw.Connection, name: str, root: int, *, has_rowid: bool) -> Table:
    told: list[tuple[Any, ...]] = db.execute(f"PRAGMA table_info({name})").fetchall()
    if not has_rowid:
        # The primary key comes first in what is stored.
        told.sort(key=lambda column: (not column[5], column[5], column[0]))
    columns = tuple(
        Column(column, type_name, bool(not_null or key), (name, column) in _JSON)
        for _, column, type_name, not_null, _, key in told
    )
    keys = [place for place, column in enumerate(told) if column[5]]
    return Table(name, columns, keys[0] if has_rowid else None, root)


@cache
def _expected_schema() -> list[tuple[Any, ...]]:
    with_tables = _in_memory()
    rows = with_tables.execute(_SCHEMA_ROWS).fetchall()
    with_tables.close()
    return rows


def _in_memory() -> apsw.Connection:
    db = apsw.Connection(":memory:")
    create(db, 0, bytes)
    return db


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


def check_content(db: apsw.Connection) -> None:
    """Read everything. Raises StoreCorruptError if structure or rows are damaged.

    SQLite checks its structure only; what a row says it takes as it is, even text that is none.
    """
    answer = db.execute("PRAGMA quick_check(1)").get
    if answer != "ok":
        raise StoreCorruptError(f"accounts: {answer}")
    for table in tables():
        names = ", ".join(column.name for column in table.columns)
        rows = db.execute(f"SELECT {names} FROM {table.name}")  # noqa: S608 - our own names
        try:
            if not all(map(table.takes, rows)):
                raise StoreCorruptError(f"accounts: a row of {table.name} is damaged")
        except UnicodeDecodeError as error:
            raise StoreCorruptError(f"accounts: a text in {table.name} is damaged") from error


def check_version(db: apsw.Connection) -> None:
    """Compare the version's two witnesses. Raises StoreVersionError or StoreCorruptError."""
    version, noted = db.pragma("user_version"), get_meta(db, "schema_version")
    if version != noted or not isinstance(version, int) or version < 1:
        raise StoreCorruptError(f"the file claims version {version}, its meta table {noted}")
    if version > VERSION:
        raise StoreVersionError(
            f"the operational store has version {version}; this executable knows {VERSION}"
        )


def check_tables(db: apsw.Connection) -> None:
    """Compare the tables with those the file was made with. Raises StoreCorruptError."""
    if db.execute(_SCHEMA_ROWS).fetchall() != _expected_schema():
        raise StoreCorruptError("the tables are not those the operational store was made with")
    if db.pragma("auto_vacuum") != _INCREMENTAL or db.pragma("encoding") != "UTF-8":
        raise StoreCorruptError("the header of the operational store is damaged")
