"""The reading connection: committed state, its own thread, never a write, never a checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import apsw

from ocean_core.model.errors import OceanError, StoreCorruptError, StoreUnavailableError
from ocean_core.storage.operational.failures import (
    RETRY_AFTER_S,
    is_of_the_file,
    own_fault,
    translate,
)
from ocean_core.storage.operational.files import identity_of
from ocean_core.storage.operational.settings import OperationalSettings

CACHE_PAGES: Final = 2_000

T = TypeVar("T")


class Reader:
    """Runs queries, one at a time; ``held`` keeps it off the file."""

    def __init__(self, settings: OperationalSettings, on_damage: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_damage = on_damage
        self._lock = threading.Lock()
        self._db: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def run(self, query: Callable[[apsw.Connection], T]) -> T:
        """Answer a query from one consistent state. Raises OceanError, and what the query raises."""
        with self._lock:
            try:
                return self._in_transaction(self._current(), query)
            except OceanError as error:
                if is_of_the_file(error):
                    self._give_up(error)
                raise
            except (apsw.Error, OSError) as error:
                # A query that tries to write is at fault itself.
                if isinstance(error, apsw.ReadOnlyError) or not is_of_the_file(error):
                    raise own_fault(error) from error
                raise self._give_up(error) from error

    def _give_up(self, error: Exception) -> OceanError:
        found = translate(error, self._db)
        self._close()
        if isinstance(found, StoreCorruptError):
            self._on_damage(found.detail)
            return StoreUnavailableError(found.detail, retry_after_s=RETRY_AFTER_S)
        return found

    @staticmethod
    def _in_transaction(db: apsw.Connection, query: Callable[[apsw.Connection], T]) -> T:
        db.execute("BEGIN")
        try:
            return query(db)
        finally:
            # Also ends what an unfinished statement still holds, so that the WAL can be reused.
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _current(self) -> apsw.Connection:
        """Return the connection, made anew if a salvage has replaced the file."""
        path = self._settings.path
        identity = identity_of(path)
        if self._db is not None and identity == self._identity:
            return self._db
        self._close()
        if identity is None:
            raise StoreUnavailableError(f"{path.name} is not there", retry_after_s=RETRY_AFTER_S)
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=self._settings.vfs)
        self._db = db
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        db.set_busy_timeout(self._settings.tuning.busy_timeout_ms)
        db.pragma("query_only", 1)
        db.pragma("cache_size", CACHE_PAGES)
        db.pragma("temp_store", "MEMORY")
        self._identity = identity
        return db

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the file to oneself: the connection is closed, and no query runs meanwhile."""
        with self._lock:
            self._close()
            yield

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close(force=True)
            self._db = None
