"""analytics.duckdb: the rebuildable index over journal and archive (invariant I3)."""

from __future__ import annotations

import importlib.resources
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import duckdb
import numpy as np

from ocean_core.model.errors import AlreadyRunningError, AnalyticsUnavailableError, StoreIOError
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.log import EventLog
from ocean_core.storage.analytics.batch import (
    EventColumns,
    MoveBatch,
    NewSeries,
    Partials,
    ReadingColumns,
)
from ocean_core.storage.analytics.changes import (
    AppliedRules,
    Changes,
    Columns,
    insert_columns,
    keep_forgotten,
    read_rules,
)
from ocean_core.storage.analytics.cursor import Cursor, partial_columns
from ocean_core.storage.analytics.errors import (
    is_certain_damage,
    is_lock_conflict,
    is_system_error,
)
from ocean_core.storage.analytics.files import AnalyticsFiles

SCHEMA_VERSION: Final = "1"
LOCK_WAIT_S: Final = 5.0
LOCK_RETRY_S: Final = 0.05
TEMP_MB_MAX: Final = 1024
CHECKPOINT_MB_MAX: Final = 64
TROUBLE_AGAIN_US: Final = 600_000_000
"""Two internal errors of DuckDB within this time: a restart did not help, the file is suspect."""
TROUBLE_REBUILT_US: Final = 86_400_000_000
"""For this long no second rebuild for internal errors: a new file has them, too."""


class _UnfitError(Exception):
    """The file opens, but is not the index of this journal. The text says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """How an open went.

    ``rebuild_reason`` is None if the file was fine, "new" if there was none and the journal is
    empty, "missing" if there was none though the journal holds something, else why it was moved
    aside. ``watermark`` is the id up to which it holds everything, 0 after a rebuild began.
    """

    rebuild_reason: str | None
    watermark: int


class AnalyticsStore:
    """Owner of the file. ``open`` first; then ``write`` from one thread, a cursor per reader.

    A connection of DuckDB serves one thread at a time, so every method that uses ours takes a lock.
    Each cursor is a connection of its own and belongs to its thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory_limit_mb: int,
        threads: int,
        clock: Clock,
        log: EventLog,
        faults: Faults = NO_FAULTS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._files = AnalyticsFiles(path)
        self._memory_limit_mb = memory_limit_mb
        self._threads = threads
        self._clock = clock
        self._log = log
        self._faults = faults
        self._wait = wait
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cursors: list[duckdb.DuckDBPyConnection] = []
        self._lock = threading.RLock()
        self._cursors_lock = threading.Lock()
        self._judging = threading.Lock()
        self._judged = False
        self._epoch = ""
        self._watermark = 0

    # --- opening and closing

    def open(self, epoch: str, *, journal_empty: bool = False) -> Opened:
        """Open the index of the journal ``epoch``; a damaged or foreign one is replaced by a new.

        Raises AlreadyRunningError if another process keeps the file, StoreIOError if the system
        refuses (full disk, missing rights).
        """
        with self._lock:
            self._epoch = epoch
            try:
                reason = self._open_or_replace("new" if journal_empty else "missing")
            except OSError as error:
                raise StoreIOError(f"{self._files.database}: {error}") from error
            return Opened(reason, self._watermark)

    def _open_or_replace(self, reason_if_absent: str) -> str | None:
        self._wait_for_predecessor()
        self._files.clear_temporary()
        reason = self._files.complaint()
        absent = not self._files.database.exists()
        if reason is None and not absent:
            reason = self._try_open()
            if reason is None:
                return None
        if absent:
            # A WAL alone would be replayed into the new file.
            self._files.wal.unlink(missing_ok=True)
            reason = reason or reason_if_absent
        else:
            self._move_aside(reason or "")
        self._make_new()
        self._files.unmark(self._files.suspect)
        return reason

    def _make_new(self) -> None:
        try:
            self._connect_guarded(self._create)
        except BaseException as error:
            self._disconnect()
            # Half of a file would be taken for a damaged one.
            self._files.discard_new()
            if is_system_error(error) or isinstance(error, duckdb.IOException):
                raise StoreIOError(f"{self._files.database}: {_one_line(error)}") from error
            raise

    def _wait_for_predecessor(self) -> None:
        waited = 0.0
        while self._files.is_held():
            if waited >= LOCK_WAIT_S:
                raise AlreadyRunningError(f"{self._files.database} is held by another process")
            self._wait(LOCK_RETRY_S)
            waited += LOCK_RETRY_S

    def _try_open(self) -> str | None:
        """Open an existing file; return why it cannot be used, None if it can."""
        try:
            self._connect_guarded(self._verify)
        except (_UnfitError, duckdb.Error, ValueError, RuntimeError, MemoryError) as error:
            # Damaged lengths reach us as any of these, depending on where DuckDB notices them.
            self._disconnect()
            if is_lock_conflict(error):
                raise AlreadyRunningError(str(error)) from error
            if is_system_error(error):
                raise StoreIOError(str(error)) from error
            return _one_line(error)
        return None

    def _connect_guarded(self, then: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Connect and run ``then`` while the marker tells that a crash would be DuckDB's."""
        files = self._files
        files.mark(files.opening, iso_utc(self._clock.now_us()))
        try:
            self._faults.hit("analytics.before_open")
            self._connection = duckdb.connect(
                str(files.database),
                config={
                    "memory_limit": f"{self._memory_limit_mb}MB",
                    "threads": self._threads,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
            self._configure(self._connection)
            then(self._connection)
        finally:
            # An exception was survived: only a crash leaves the marker behind.
            files.unmark(files.opening)
        self._faults.hit("analytics.after_open")

    def _configure(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Set what DuckDB takes only after the open, then lock it all against user SQL."""
        # Replaying the WAL takes memory in proportion to it, so a small limit wants a small WAL.
        checkpoint_mb = max(4, min(CHECKPOINT_MB_MAX, self._memory_limit_mb // 4))
        temporary = str(self._files.temporary).replace("'", "''")
        for setting in (
            f"temp_directory = '{temporary}'",
            f"max_temp_directory_size = '{TEMP_MB_MAX}MB'",
            f"checkpoint_threshold = '{checkpoint_mb}MB'",
            "python_enable_replacements = false",
            "allow_community_extensions = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")

    def _create(self, connection: duckdb.DuckDBPyConnection) -> None:
        schema = importlib.resources.files("ocean_core.storage.analytics") / "schema.sql"
        connection.execute("BEGIN")
        connection.execute(schema.read_text(encoding="utf-8"))
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [SCHEMA_VERSION])
        connection.execute("INSERT INTO watermark VALUES (?, 0)", [self._epoch])
        connection.execute("COMMIT")
        # A file without a checkpoint cannot be told from a truncated one.
        connection.execute("CHECKPOINT")
        self._watermark = 0

    def _verify(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
            marks = connection.execute("SELECT epoch, id FROM watermark").fetchall()
        except duckdb.CatalogException as error:
            raise _UnfitError(f"a table is missing: {_one_line(error)}") from error
        version = meta.get("schema_version")
        if version != SCHEMA_VERSION:
            raise _UnfitError(f"schema version {version}, this program writes {SCHEMA_VERSION}")
        if len(marks) != 1 or marks[0][1] is None:
            raise _UnfitError(f"{len(marks)} watermarks in place of one")
        if marks[0][0] != self._epoch:
            raise _UnfitError(f"built from another journal (epoch {marks[0][0]})")
        self._watermark = int(marks[0][1])
        read_rules(connection)

    def _move_aside(self, reason: str) -> None:
        stamp = iso_utc(self._clock.now_us()).translate({ord(c): None for c in "-:"})
        kept = self._files.move_aside(stamp)
        self._log.error("analytics.damaged", reason=reason, kept=kept.name if kept else "no")
        self._faults.hit("analytics.damaged_moved")

    def _disconnect(self) -> None:
        with self._cursors_lock:
            cursors, self._cursors = self._cursors, []
        for cursor in cursors:
            with suppress(duckdb.Error):
                cursor.close()
        if self._connection is not None:
            with suppress(duckdb.Error):
                self._connection.close()
        self._connection = None

    def close(self) -> None:
        """Checkpoint and close; the WAL is replayed at the next open if that is not possible."""
        with self._lock:
            if self._connection is None:
                return
            with suppress(duckdb.Error):
                self.checkpoint()
            self._disconnect()

    def checkpoint(self) -> None:
        """Copy the WAL into the file. Raises DuckError, for example while a query runs."""
        self._faults.hit("analytics.before_checkpoint")
        with self._lock:
            self._opened().execute("CHECKPOINT")
        self._faults.hit("analytics.after_checkpoint")

    def condemn(self, error: BaseException) -> str:
        """Note damage that only a query or a write found (``is_damage``); return it in one line.

        The next open replaces the file. After an internal error of DuckDB that need not be damage
        it does so only if such an error comes again soon. The process must end; only the first
        call in its life counts, since after an internal error everything else fails, too.
        """
        reason = _one_line(error)
        with self._judging:
            if not self._judged:
                self._judged = True
                if is_certain_damage(error) or self._is_trouble_again():
                    self.mark_suspect(reason)
        return reason

    @property
    def is_suspect(self) -> bool:
        """Whether the next open will replace the file."""
        return self._files.suspect.exists()

    def mark_suspect(self, reason: str) -> None:
        """Have the next open replace the file."""
        # On a full disk the damage is found again later.
        with suppress(OSError):
            self._files.mark(self._files.suspect, reason)

    def _is_trouble_again(self) -> bool:
        """Note trouble and tell whether there was some a short time ago, and no rebuild since."""
        now = self._clock.now_us()
        last, rebuilt = _moments(self._files.read(self._files.trouble) or "")
        again = 0 <= now - last < TROUBLE_AGAIN_US and not 0 <= now - rebuilt < TROUBLE_REBUILT_US
        with suppress(OSError):
            self._files.mark(self._files.trouble, f"{now} {now if again else rebuilt}")
        return again

    # --- reading

    def cursor(self) -> Cursor:
        """Return a new handle for one thread. Raises AnalyticsUnavailableError when closed."""
        with self._lock:
            cursor = self._opened().cursor()
            with self._cursors_lock:
                self._cursors.append(cursor)
        return cast("Cursor", cursor)

    def release(self, cursor: Cursor) -> None:
        """Close a cursor that is no longer needed."""
        with self._cursors_lock:
            self._cursors = [known for known in self._cursors if known is not cursor]
        with suppress(duckdb.Error):
            cursor.close()

    def watermark(self) -> int:
        """Id up to which everything is in the file."""
        return self._watermark

    def reread_watermark(self) -> int:
        """Ask the file for the watermark, after a write whose end is not known."""
        with self._lock:
            row = self._opened().execute("SELECT id FROM watermark").fetchone()
            assert row is not None
            self._watermark = int(row[0])
            return self._watermark

    def series(self) -> list[NewSeries]:
        """All series, by number."""
        with self._lock:
            found = self._opened().execute(
                "SELECT series_id, sensor_id, metric, first_id FROM series ORDER BY series_id"
            )
            rows = found.fetchall()
        return [
            NewSeries(number, (sensor, metric), first) for number, sensor, metric, first in rows
        ]

    # --- writing

    def write(self, batch: MoveBatch) -> None:
        """Commit a batch: rows, series, rollup partials and watermark, all or nothing.

        Raises DuckError after a rollback. If the commit itself failed, ``reread_watermark`` tells
        what became of it.
        """
        with self._lock:
            assert batch.epoch == self._epoch, (batch.epoch, self._epoch)
            assert batch.watermark > self._watermark, (batch.watermark, self._watermark)
            with self._transaction() as connection:
                for table, columns in _tables(batch):
                    insert_columns(connection, table, columns)
                if batch.forgotten is not None:
                    keep_forgotten(connection, batch.forgotten)
                connection.execute("UPDATE watermark SET id = ?", [batch.watermark])
                self._faults.hit("mover.before_commit")
            self._watermark = batch.watermark
        self._faults.hit("mover.after_commit")

    def replace_partials(self, table: str, condition: str, merged: Partials) -> None:
        """Put ``merged`` in the place of the partials that fulfil ``condition``.

        Both are ours, never a user's. Raises DuckError after a rollback.
        """
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM {table} WHERE {condition}")  # noqa: S608 - see above
            insert_columns(connection, table, partial_columns(merged))

    def applied_rules(self) -> AppliedRules:
        """Return the rules about names that the file follows. Raises DuckError."""
        with self._lock:
            return read_rules(self._opened())

    @contextmanager
    def change(self) -> Iterator[Changes]:
        """Change what is stored already, in one transaction, from the thread that writes.

        Raises DuckError after a rollback. If the commit itself failed, ``applied_rules`` tells what
        became of it.
        """
        with self._transaction() as connection:
            yield Changes(connection)
            self._faults.hit("rules.before_commit")
        self._faults.hit("rules.after_commit")

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._lock:
            connection = self._opened()
            connection.execute("BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):
                    connection.execute("ROLLBACK")
                raise

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise AnalyticsUnavailableError("analytics.duckdb is not open")
        return self._connection


def _tables(batch: MoveBatch) -> list[tuple[str, Columns]]:
    tables: list[tuple[str, Columns]] = []
    if batch.new_series:
        tables.append(("series", _series_columns(batch)))
    if batch.readings is not None:
        tables.append(("readings", _reading_columns(batch.readings)))
    if batch.events is not None:
        tables.append(("events", _event_columns(batch.events)))
    if batch.minutes is not None:
        tables.append(("rollup_1m", partial_columns(batch.minutes)))
    if batch.hours is not None:
        tables.append(("rollup_1h", partial_columns(batch.hours)))
    return tables


def _series_columns(batch: MoveBatch) -> Columns:
    new = batch.new_series
    return {
        "series_id": np.array([entry.series_id for entry in new], dtype=np.int32),
        "sensor_id": np.array([entry.name[0] for entry in new], dtype=object),
        "metric": np.array([entry.name[1] for entry in new], dtype=object),
        "first_id": np.array([entry.first_id for entry in new], dtype=np.int64),
    }


def _reading_columns(rows: ReadingColumns) -> Columns:
    return {
        "id": rows.id,
        "series_id": rows.series_id,
        "ts": rows.ts_us.view("M8[us]"),
        "value": rows.value,
        "quality": rows.quality,
    }


def _event_columns(rows: EventColumns) -> Columns:
    return {
        "id": rows.id,
        "series_id": rows.series_id,
        "ts": rows.ts_us.view("M8[us]"),
        "quality": rows.quality,
        "payload": np.array(rows.payload, dtype=object),
    }


def _moments(note: str) -> tuple[int, int]:
    """Return when there was trouble, and when a rebuild because of it; 0 for never or unreadable."""
    found = [int(word) if word.isdecimal() else 0 for word in note.split()]
    return (found[0], found[1]) if len(found) == 2 else (0, 0)


def _one_line(error: BaseException) -> str:
    """Name and first line of an error, short enough for a status page."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}"[:300]
