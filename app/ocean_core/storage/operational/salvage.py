"""Getting rows back out of a damaged operational store.

Every page that belongs to a table is read by itself, so that a bad one hides nothing but its own
rows. A row goes into a new file if it has the shape its table demands and breaks no constraint;
others are left out and counted.

The copy is restartable: ``.salvage`` is worthless until it is whole and synced; renamed to
``.salvaged`` it only has to take its place, which each start completes first of all. The old WAL
must be gone before that, for SQLite would replay it over the new file.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
import msgspec

from ocean_core.storage.operational import billing, loss_ledger, quarantine, schema
from ocean_core.storage.operational.cells import (
    TABLE_LEAF,
    Cell,
    SqlValue,
    cells_of,
    kind_of,
    payload_of,
    record_of,
)
from ocean_core.storage.operational.files import (
    StoreFiles,
    make_private,
    raw_file,
    require_room,
    size_of,
    sync_directory,
)
from ocean_core.storage.operational.image import Image, open_image
from ocean_core.storage.operational.owners import pages_of_tables, roots_of
from ocean_core.storage.operational.schema import Table
from ocean_core.storage.operational.settings import OperationalSettings
from ocean_core.storage.operational.witness import witnessed_id

_REPORT_KEY: Final = "salvaged"
_KEPT_META: Final = {"store_id": str, "created_us": int}


class SalvageReport(msgspec.Struct, frozen=True):
    """What a salvage saved and what it could not.

    ``rows`` and ``left_out`` count by table; a page that could not be read held an unknown number
    of rows. ``renewed`` accounts were lost and made anew from the ledger.
    """

    at_us: int
    rows: dict[str, int]
    left_out: dict[str, int]
    pages_unreadable: int
    renewed: int = 0

    @property
    def detail(self) -> str:
        """Return it in words, for the alarm."""
        kept = ", ".join(f"{count} {name}" for name, count in self.rows.items()) or "nothing"
        lost = ", ".join(f"{count} {name}" for name, count in self.left_out.items()) or "none"
        told = (
            f"saved: {kept}; left out as damaged: {lost}; unreadable pages: {self.pages_unreadable}"
        )
        return f"{told}; accounts made anew: {self.renewed}" if self.renewed else told


def report_of(db: apsw.Connection) -> SalvageReport | None:
    """Return what is noted of the salvage that made this file, if one did. Raises apsw.Error."""
    noted = schema.get_meta(db, _REPORT_KEY)
    if not isinstance(noted, str):
        return None
    try:
        return msgspec.json.decode(noted, type=SalvageReport)
    except msgspec.MsgspecError:
        return None


def salvage(settings: OperationalSettings, files: StoreFiles, store_id: str = "") -> SalvageReport:
    """Copy what is readable into a new file and put it in place.

    It is still the same store: it keeps ``store_id``, else its own id or what the witness says.
    The damaged file is kept as ``*.damaged-<utc>``. No connection may be open in this process.
    Raises apsw.Error or OSError (ENOSPC before anything is copied, if there is no room for a second
    file); the damaged file is then untouched.
    """
    now_us = settings.clock.now_us()
    discard_copy(files)
    require_room(files)
    make_private(files.copying)
    db = apsw.Connection(str(files.copying), vfs=settings.vfs)
    try:
        db.pragma("journal_mode", "OFF")
        # Synced once as a whole, before it gets its name.
        db.pragma("synchronous", "OFF")
        schema.create(db, now_us, settings.random_bytes)
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
        db.execute("BEGIN IMMEDIATE")
        schema.set_meta(db, "store_id", witnessed_id(files) or str(schema.get_meta(db, "store_id")))
        with open_image(files, settings.vfs, each_synced=settings.each_synced) as image:
            report = _Copy(db, image).run(now_us, settings.random_bytes)
        if store_id:
            schema.set_meta(db, "store_id", store_id)
        schema.set_meta(db, _REPORT_KEY, msgspec.json.encode(report).decode())
        db.execute("COMMIT")
    finally:
        db.close()
    with raw_file(files.copying, settings.vfs, write=True) as file:
        file.xSync(apsw.SQLITE_SYNC_FULL)
    files.copying.rename(files.salvaged)
    sync_directory(files.main.parent)
    settings.faults.hit("operational.salvage_before_swap")
    finish_swap(files, now_us)
    settings.faults.hit("operational.salvage_after_swap")
    return report


class _Copy:
    """The new file, filled from page images."""

    def __init__(self, db: apsw.Connection, image: Image) -> None:
        self._db = db
        self._image = image
        self._rows: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def run(self, now_us: int, random_bytes: Callable[[int], bytes]) -> SalvageReport:
        fetch = self._image.page
        tables = schema.tables()
        owned = pages_of_tables(fetch, self._image.pages, roots_of(fetch, tables))
        unreadable = 0
        for table in tables:
            for page_no in owned.get(table.name, ()):
                page = fetch(page_no)
                if page is None or not kind_of(page, page_no):
                    unreadable += 1
                else:
                    self._take_page(table, page, page_no)
        loss_ledger.drop_unknown(self._db)
        renewed = billing.renew_missing(self._db, random_bytes)
        return SalvageReport(now_us, dict(self._rows), dict(self._left_out), unreadable, renewed)

    def _take_page(self, table: Table, page: bytes, page_no: int) -> None:
        is_table = kind_of(page, page_no) == TABLE_LEAF
        if is_table != (table.rowid is not None):
            # Inner pages of a table with rowids hold no rows; any other mismatch is no page of it.
            return
        for cell in cells_of(page, page_no):
            row = self._row(table, cell)
            if table.name == "meta":
                self._take_meta(row)
            elif row is not None and self._put(table, row):
                self._rows[table.name] += 1
            else:
                self._left_out[table.name] += 1

    def _row(self, table: Table, cell: Cell) -> list[SqlValue] | None:
        payload = payload_of(cell, self._image.page, of_table=table.rowid is not None)
        row = record_of(payload) if payload else None
        if not row:
            return None
        if table.rowid is not None and row[table.rowid] is None:
            row[table.rowid] = cell.rowid
        if not table.takes(row) or (table.name == "quarantine" and not quarantine.is_sound(row)):
            return None
        return row

    def _put(self, table: Table, row: list[SqlValue]) -> bool:
        names = ", ".join(column.name for column in table.columns[: len(row)])
        places = ", ".join("?" * len(row))
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({places})"  # noqa: S608 - our own names
        try:
            self._db.execute(statement, row)
        except apsw.ConstraintError:
            return False
        return True

    def _take_meta(self, row: list[SqlValue] | None) -> None:
        match row:
            case [str(key), int() | str() as value] if isinstance(value, _KEPT_META.get(key, ())):
                schema.set_meta(self._db, key, value)
            case [str(key), str(value)] if loss_ledger.is_note(key):
                schema.set_meta(self._db, key, value)
            case _:
                return


def discard_copy(files: StoreFiles) -> None:
    """Remove a copy that a crash left half done. Raises OSError."""
    for path in (files.copying, files.copying.with_name(files.copying.name + "-journal")):
        path.unlink(missing_ok=True)


def _kept_as(files: StoreFiles, now_us: int) -> Path:
    """Return under which name the damaged file is kept."""
    # The WAL goes first: while it is there no crash has come in between.
    begun = [] if size_of(files.wal) else files.kept_damaged()
    if files.main.exists():
        begun = [p for p in begun if p.suffix == ".wal" and not p.with_suffix("").exists()]
    if begun:
        # What was renamed before the crash and what is left belong together.
        return files.damaged(begun[-1].name.rsplit("-")[-1].split(".")[0])
    moment = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC)
    return files.damaged(moment.strftime("%Y%m%dT%H%M%SZ"))


def finish_swap(files: StoreFiles, now_us: int) -> None:
    """If a complete salvage is waiting, put it in place. Raises OSError."""
    if not files.salvaged.exists():
        return
    kept = _kept_as(files, now_us)
    kept_wal = kept.with_name(kept.name + ".wal")
    if size_of(files.wal):
        files.wal.rename(kept_wal)
    files.wal.unlink(missing_ok=True)
    # The new file must not be read through the old index.
    files.shm.unlink(missing_ok=True)
    if files.main.exists():
        files.main.rename(kept)
    sync_directory(files.main.parent)
    files.salvaged.rename(files.main)
    sync_directory(files.main.parent)
    for path in files.kept_damaged():
        if path not in {kept, kept_wal}:
            path.unlink(missing_ok=True)
