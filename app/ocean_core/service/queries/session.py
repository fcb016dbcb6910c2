"""One query's access to analytics.duckdb: a cursor, and the time limit that holds for all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy.typing as npt

from ocean_core.model.errors import QueryTimeoutError
from ocean_core.storage.analytics.cursor import Cursor
from ocean_core.storage.analytics.errors import DuckError
from ocean_core.storage.analytics.store import AnalyticsStore

Columns = dict[str, npt.NDArray[Any]]

INTERRUPT_AGAIN_S: Final = 0.05


class Session:
    """Runs the statements of one query. Nothing is opened before the first statement."""

    def __init__(self, cursors: Cursors, timeout_s: float) -> None:
        self._cursors = cursors
        self._timeout_s = timeout_s
        self._cursor: Cursor | None = None
        self._done = threading.Event()
        self._expired = threading.Event()
        self._watchdog: threading.Thread | None = None

    def rows(self, sql: str, params: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return all rows. Raises DuckError, QueryTimeoutError."""
        return self._begin().execute(sql, list(params)).fetchall()

    def columns(self, sql: str, params: Sequence[object]) -> Columns:
        """Return all rows as columns. Raises DuckError, QueryTimeoutError."""
        return self._begin().execute(sql, list(params)).fetchnumpy()

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

    @property
    def has_expired(self) -> bool:
        """Whether the time limit was reached."""
        return self._expired.is_set()

    def close(self) -> None:
        """End the time limit; no interrupt comes after this."""
        self._done.set()
        if self._watchdog is not None and self._expired.is_set():
            self._watchdog.join()

    def timeout_error(self) -> QueryTimeoutError:
        """Return the error for a query that reached its limit."""
        return QueryTimeoutError(f"no answer within {self._timeout_s:g} s")

    def _begin(self) -> Cursor:
        if self._expired.is_set():
            raise self.timeout_error()
        if self._cursor is None:
            self._cursor = self._cursors.mine()
            self._watchdog = threading.Thread(target=self._watch, name="query-limit", daemon=True)
            self._watchdog.start()
        return self._cursor

    def _watch(self) -> None:
        if self._done.wait(self._timeout_s):
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
            cursor.close()
