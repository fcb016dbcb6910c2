"""One query's access to analytics.duckdb: a cursor, and the time limit that holds for all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy.typing as npt

from ocean_core.model.errors import AnalyticsUnavailableError, OceanError, QueryTimeoutError
from ocean_core.storage.analytics.cursor import Cursor
from ocean_core.storage.analytics.errors import DuckError
from ocean_core.storage.analytics.store import AnalyticsStore

Columns = dict[str, npt.NDArray[Any]]

INTERRUPT_AGAIN_S: Final = 0.05


class Session:
    """Runs the statements of one query. Nothing is opened before the first statement."""

    def __init__(self, cursors: Cursors, timeout_s: float, *, limit_s: float | None = None) -> None:
        """Give the statements ``timeout_s``, what is left of the ``limit_s`` told to the user."""
        self._cursors = cursors
        self._timeout_s = timeout_s
        self._limit_s = timeout_s if limit_s is None else limit_s
        self._cursor: Cursor | None = None
        self._done = threading.Event()
        self._expired = threading.Event()
        self._interrupted = False
        self._failed = False
        # Ends the watchdog's wait: the query is done, or was interrupted.
        self._wake = threading.Event()
        self._watchdog: threading.Thread | None = None

    def rows(self, sql: str, params: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return all rows. Raises DuckError, or ``end_error`` beyond the limit."""
        return self._begin().execute(sql, list(params)).fetchall()

    def columns(self, sql: str, params: Sequence[object]) -> Columns:
        """Return all rows as columns. Raises DuckError, or ``end_error`` beyond the limit."""
        return self._begin().execute(sql, list(params)).fetchnumpy()

    def check(self) -> None:
        """Raise ``end_error`` beyond the limit: for work between two statements."""
        if self._expired.is_set():
            raise self.end_error()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several statements see the same moment."""
        self.rows("BEGIN", ())
        try:
            yield
        finally:
            # Also after an interrupt; there is nothing to keep.
            if self._cursor is not None:
                with suppress(DuckError):
                    self._cursor.execute("ROLLBACK")

    def fail(self) -> None:
        """Note that a statement failed."""
        self._failed = True

    @property
    def has_failed(self) -> bool:
        """Whether a statement failed or was ended, so that the cursor should not be used again."""
        return self._failed or self._expired.is_set()

    def close(self) -> None:
        """End the time limit; no interrupt comes after this."""
        self._done.set()
        self._wake.set()
        if self._watchdog is not None and self._expired.is_set():
            self._watchdog.join()

    def interrupt(self) -> None:
        """End the statement that runs, and let none follow. Called by another thread."""
        self._interrupted = True
        self._expired.set()
        self._wake.set()

    def end_error(self) -> OceanError:
        """Return the error for a query that reached its limit or was interrupted."""
        if self._interrupted:
            return AnalyticsUnavailableError("analytics are stopping", retry_after_s=1)
        return QueryTimeoutError(f"no answer within {self._limit_s:g} s")

    def _begin(self) -> Cursor:
        if self._expired.is_set():
            raise self.end_error()
        if self._cursor is None:
            self._cursor = self._cursors.mine()
            self._watchdog = threading.Thread(target=self._watch, name="query-limit", daemon=True)
            self._watchdog.start()
        return self._cursor

    def _watch(self) -> None:
        self._wake.wait(self._timeout_s)
        if self._done.is_set():
            return
        self._expired.set()
        assert self._cursor is not None
        # Between two statements an interrupt has nothing to end and is forgotten.
        while not self._done.is_set():
            self._cursor.interrupt()
            self._done.wait(INTERRUPT_AGAIN_S)


class Cursors:
    """A cursor for each thread that asks."""

    def __init__(self, store: AnalyticsStore) -> None:
        self._store = store
        self._local = threading.local()

    def mine(self) -> Cursor:
        """Return the calling thread's cursor. Raises AnalyticsUnavailableError if none is to be had."""
        cursor: Cursor | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._store.cursor()
        return cursor

    def drop_mine(self) -> None:
        """Close the calling thread's cursor; the next query gets a new one."""
        cursor: Cursor | None = getattr(self._local, "cursor", None)
        self._local.cursor = None
        if cursor is not None:
            self._store.release(cursor)
