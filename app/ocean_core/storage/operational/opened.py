"""The file in use: the one connection that writes and checkpoints.

Belongs to the writer thread alone. After any error of the file the object is worthless: close it
and open another one (``opening.open_file``), because SQLite's picture of the file may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw

from ocean_core.model.errors import OceanError, StoreIOError
from ocean_core.storage.operational import schema
from ocean_core.storage.operational.failures import is_of_the_file, own_fault
from ocean_core.storage.operational.files import StoreFiles, identity_of
from ocean_core.storage.operational.settings import OperationalSettings

Command = Callable[[apsw.Connection], Any]
Outcome = tuple[Any, OceanError | None]
"""What a command returned, or what its caller is told instead."""

_VACUUM_FROM_PAGES: Final = 1_000
_VACUUM_STEP_PAGES: Final = 1_000


class OpenedFile:
    """The open operational store."""

    def __init__(
        self, db: apsw.Connection, files: StoreFiles, settings: OperationalSettings
    ) -> None:
        self.db = db
        self.wal_pages = 0
        """Pages in the WAL that are not in the file yet, as far as they are acknowledged."""
        self.wal_is_empty = False
        self._execute = db.cursor().execute
        self._files = files
        self._settings = settings
        self._identity = (identity_of(files.main), identity_of(files.wal))
        db.set_wal_hook(self._on_wal)

    def _on_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self.wal_pages = pages
        self.wal_is_empty = False
        return apsw.SQLITE_OK

    def run(self, commands: Sequence[Command]) -> list[Outcome]:
        """Carry out commands in one transaction and make it durable; one outcome for each.

        Raises apsw.Error, OSError or StoreIOError: then none of them is to be acknowledged.
        """
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        outcomes = [self._run_one(command) for command in commands]
        faults = self._settings.faults
        faults.hit("operational.before_commit")
        execute("COMMIT")
        self._require_in_place()
        faults.hit("operational.after_commit")
        return outcomes

    def _run_one(self, command: Command) -> Outcome:
        execute = self._execute
        execute("SAVEPOINT command")
        try:
            result = command(self.db)
        except Exception as error:
            # Some errors end the transaction, and with it the work of the others.
            if is_of_the_file(error) or not self.db.in_transaction:
                raise
            execute("ROLLBACK TO command")
            execute("RELEASE command")
            return None, error if isinstance(error, OceanError) else own_fault(error)
        execute("RELEASE command")
        return result, None

    def _require_in_place(self) -> None:
        """Make sure that what was just synced is what the next start will find."""
        found = identity_of(self._files.main), identity_of(self._files.wal)
        if self._identity[1] is None:
            self._identity = self._identity[0], found[1]
        if found != self._identity:
            raise StoreIOError("the operational store was removed or replaced while in use")

    def checkpoint(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> bool:
        """Copy the WAL into the file; False if a reader was in the way. Raises apsw.Error."""
        try:
            total, copied = self.db.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.LockedError):
            # Locked: an error that somebody still holds keeps its half-read query alive.
            return False
        self.wal_pages = 0 if total == copied else total
        self.wal_is_empty = mode == apsw.SQLITE_CHECKPOINT_TRUNCATE
        return total == copied

    def tidy(self) -> None:
        """Give pages that nothing uses any more back to the disk. Raises apsw.Error."""
        if int(self.db.pragma("freelist_count")) >= _VACUUM_FROM_PAGES:
            self.db.execute(f"PRAGMA incremental_vacuum({_VACUUM_STEP_PAGES})").fetchall()

    def probe(self) -> None:
        """Commit something small, to know that commits work. Raises apsw.Error."""
        self.db.execute("BEGIN IMMEDIATE")
        schema.set_meta(self.db, "schema_version", schema.VERSION)
        self.db.execute("COMMIT")
        self._require_in_place()

    def close(self) -> None:
        """Let go of the file without any further write."""
        self.db.set_wal_hook(None)
        self.db.close(force=True)
