"""Opening the operational store in whatever state it was left.

The order matters: first what a former salvage left to finish, then what a failed commit left in
the WAL, then what a damaged WAL hides (SQLite would overwrite it), then SQLite itself and the
checks; last, if these fail, a salvage.
"""

from __future__ import annotations

from typing import Final

import apsw

from ocean_core.model.errors import StoreCorruptError
from ocean_core.storage.operational import schema
from ocean_core.storage.operational.failures import translate
from ocean_core.storage.operational.files import (
    PAGE_BYTES,
    StoreFiles,
    make_private,
    restore_wal,
    size_of,
    sync_directory,
)
from ocean_core.storage.operational.image import read_wal
from ocean_core.storage.operational.opened import OpenedFile
from ocean_core.storage.operational.salvage import discard_copy, finish_swap, salvage
from ocean_core.storage.operational.settings import OperationalSettings

CACHE_PAGES: Final = 10_000
_WAL_KEPT_FACTOR: Final = 4


def open_file(
    settings: OperationalSettings,
    *,
    check: bool,
    wal_frames: int | None = None,
    damaged: str | None = None,
    store_id: str = "",
) -> OpenedFile:
    """Open, verify and if need be salvage the store.

    ``check`` reads the whole file first. ``wal_frames`` is how much of the WAL this process knows
    to be acknowledged, after a failure. ``damaged`` (a reason) asks for a salvage without a first
    try. ``store_id`` is the store's, if this process had it open before. Raises StoreVersionError, DiskFullError, StoreIOError, StoreUnavailableError, or
    StoreCorruptError if even the salvaged file cannot be used.
    """
    files = StoreFiles(settings.path)
    try:
        finish_swap(files, settings.clock.now_us())
        discard_copy(files)
        if wal_frames is not None:
            restore_wal(files.wal, settings.vfs, wal_frames)
        if damaged is None and not size_of(files.main) and size_of(files.wal):
            damaged = f"{files.main.name} is gone, its WAL is not"
        if (
            damaged is None
            and settings.each_synced
            and read_wal(files, settings.vfs).hides_something
        ):
            damaged = f"a damaged part of {files.wal.name} hides what stands behind it"
        if damaged is None:
            try:
                return _open_checked(settings, files, check=check, again=wal_frames is not None)
            except StoreCorruptError as error:
                damaged = error.detail
        settings.log.error("accounts.damaged", file=files.main.name, reason=damaged)
        report = salvage(settings, files, store_id)
        settings.log.warning("accounts.salvaged", detail=report.detail)
        return _open_checked(settings, files, check=False, again=True)
    except (apsw.Error, OSError) as error:
        raise translate(error) from error


def _open_checked(
    settings: OperationalSettings, files: StoreFiles, *, check: bool, again: bool
) -> OpenedFile:
    schema.check_header(files.main, settings.vfs)
    make_private(files.main)
    db = apsw.Connection(str(files.main), vfs=settings.vfs)
    opened: OpenedFile | None = None
    try:
        configure(db, settings)
        if not db.pragma("schema_version"):
            schema.create(db, settings.clock.now_us(), settings.random_bytes)
        else:
            _verify(db, check=check)
        sync_directory(files.main.parent)
        store = OpenedFile(db, files, settings)
        # Frames that were perhaps never synced must not stay in the WAL.
        if not store.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
            store.checkpoint()
        if again:
            store.probe()
        opened = store
    except (apsw.SQLError, UnicodeDecodeError) as error:
        # The statements are right, so the tables are not what they claim to be.
        raise StoreCorruptError(f"accounts: {error}") from error
    except (apsw.Error, OSError) as error:
        raise translate(error, db) from error
    finally:
        # Whatever went wrong: a connection left behind would lock the next one out.
        if opened is None:
            db.close(force=True)
    return opened


def configure(db: apsw.Connection, settings: OperationalSettings) -> None:
    """Set up the connection that writes. Raises apsw.Error or StoreCorruptError."""
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
    db.set_busy_timeout(settings.tuning.busy_timeout_ms)
    if settings.exclusive:
        db.pragma("locking_mode", "EXCLUSIVE")
    db.pragma("page_size", PAGE_BYTES)
    # Only takes effect on a file without tables, and must come before the first write.
    db.pragma("auto_vacuum", 2)
    if db.pragma("journal_mode", "WAL") != "wal":
        raise StoreCorruptError("the operational store cannot be switched to WAL")
    db.pragma("synchronous", "FULL" if settings.each_synced else "NORMAL")
    db.pragma("journal_size_limit", _WAL_KEPT_FACTOR * settings.tuning.wal_pages_max * PAGE_BYTES)
    db.pragma("cache_size", CACHE_PAGES)
    db.pragma("temp_store", "MEMORY")
    db.wal_autocheckpoint(0)


def _verify(db: apsw.Connection, *, check: bool) -> None:
    """Compare the file with what it should be; read all of it if there is reason to."""
    is_ours = db.pragma("application_id") == schema.APPLICATION_ID
    schema.check_version(db)
    schema.migrate(db)
    schema.check_tables(db)
    if check or not is_ours:
        schema.check_content(db)
    if not is_ours:
        db.pragma("application_id", schema.APPLICATION_ID)
