"""A ring of the newest rows of one series, which knows from where on it is complete."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Int64Column

RECENT_ROW: Final = np.dtype([("ts", "<i8"), ("value", "<f8"), ("id", "<i8"), ("quality", "u1")])
"""A reading; ``ts`` in microseconds."""

MINUTE_ROW: Final = np.dtype(
    [
        ("ts", "<i8"), ("n", "<i8"), ("mean", "<f8"), ("m2", "<f8"), ("min", "<f8"),
        ("max", "<f8"), ("first_ts", "<i8"), ("first_value", "<f8"), ("last_ts", "<i8"),
        ("last_value", "<f8"),
    ]
)  # fmt: skip
"""A one-minute partial; ``ts`` is its bucket."""

Rows = npt.NDArray[Any]
"""A structured array of RECENT_ROW or MINUTE_ROW."""

ROWS_AT_FIRST: Final = 8
OVERHEAD_BYTES: Final = 320
"""What a ring costs beside its rows: the object, two array headers, its place in dictionaries."""


class Ring:
    """Rows in the order in which they came.

    Every row of the series with ``ts > complete_after`` is in the ring: it is the highest ``ts``
    of anything left out. So a range that starts later can be answered from here, in whatever
    order the rows came. Rows at or before it can never be part of such a range and are not taken.
    """

    __slots__ = ("_count", "_rows", "_start", "_ts", "bytes", "complete_after")

    def __init__(self, dtype: np.dtype[Any], complete_after: int) -> None:
        self._rows: Rows = np.empty(ROWS_AT_FIRST, dtype=dtype)
        self._ts: Int64Column = self._rows["ts"]
        self.bytes = self._rows.nbytes + OVERHEAD_BYTES
        """Estimated memory."""
        self._start = 0
        self._count = 0
        self.complete_after = complete_after

    def __len__(self) -> int:
        return self._count

    @property
    def capacity(self) -> int:
        """Rows that fit without more memory."""
        return len(self._rows)

    def append(self, rows: Rows, rows_max: int, left_out_us: int | None = None) -> None:
        """Take rows ordered by ``ts``; the oldest arrivals beyond ``rows_max`` make way.

        With ``left_out_us`` these are the newest ``rows_max`` or more of a longer list, and that is
        the newest time of those before them.
        """
        first_us = int(rows["ts"][0])
        if left_out_us is not None and first_us > self.complete_after:
            if self._count:
                self._forget(self._count)
            self.complete_after = max(self.complete_after, left_out_us)
        if first_us <= self.complete_after:
            rows = rows[int(np.searchsorted(rows["ts"], self.complete_after, "right")) :]
        more = len(rows)
        surplus = self._count + more - rows_max
        if surplus > 0:
            rows = self._make_way(rows, surplus)
            more = len(rows)
        if not more:
            return
        if self._count + more > len(self._rows):
            self._grow(self._count + more, rows_max)
        size = len(self._rows)
        at = (self._start + self._count) % size
        if at + more <= size:
            self._rows[at : at + more] = rows
        else:
            self._rows[at:] = rows[: size - at]
            self._rows[: at + more - size] = rows[size - at :]
        self._count += more

    def _make_way(self, rows: Rows, surplus: int) -> Rows:
        """Leave out ``surplus`` rows, the oldest arrivals first; return what is left of ``rows``."""
        old = min(surplus, self._count)
        if old:
            self._forget(old)
        if surplus > old:
            self.complete_after = max(self.complete_after, int(rows["ts"][surplus - old - 1]))
            rows = rows[surplus - old :]
        if len(rows) and int(rows["ts"][0]) <= self.complete_after:
            rows = rows[int(np.searchsorted(rows["ts"], self.complete_after, "right")) :]
        return rows

    def _forget(self, old: int) -> None:
        ts = self._ts
        end = self._start + old
        highest = int(np.maximum.reduce(ts[self._start : end]))
        if end > len(ts):
            highest = max(highest, int(np.maximum.reduce(ts[: end - len(ts)])))
        self.complete_after = max(self.complete_after, highest)
        self._start = end % len(ts)
        self._count -= old

    def _grow(self, needed: int, rows_max: int) -> None:
        bigger = np.empty(self._next_capacity(needed, rows_max), dtype=self._rows.dtype)
        bigger[: self._count] = self.ordered()
        self._rows, self._start = bigger, 0
        self._ts = bigger["ts"]
        self.bytes = bigger.nbytes + OVERHEAD_BYTES

    def _next_capacity(self, needed: int, rows_max: int) -> int:
        capacity = len(self._rows)
        while capacity < needed:
            capacity *= 2
        return max(min(capacity, rows_max), len(self._rows))

    def growth_bytes(self, more: int, rows_max: int) -> int:
        """How many bytes ``append`` of ``more`` rows might add."""
        needed = min(self._count + more, rows_max)
        more_rows = self._next_capacity(needed, rows_max) - len(self._rows)
        return more_rows * self._rows.itemsize

    def ordered(self) -> Rows:
        """Rows in the order of arrival; a view where possible, so copy before letting go of it."""
        end = self._start + self._count
        if end <= len(self._rows):
            return self._rows[self._start : end]
        return np.concatenate((self._rows[self._start :], self._rows[: end - len(self._rows)]))

    def between(self, start: int, end: int) -> Rows | None:
        """Return a copy of the rows with ``start <= ts < end``, None if some might be missing."""
        if start <= self.complete_after:
            return None
        rows = self.ordered()
        ts = rows["ts"]
        return rows[(ts >= start) & (ts < end)]

    def last(self) -> tuple[Any, ...] | None:
        """Return the row that came last, None if there is none."""
        if not self._count:
            return None
        row: tuple[Any, ...] = self._rows[self._last_at()].item()
        return row

    def replace_last(self, row: tuple[Any, ...]) -> None:
        """Put another row of the same ``ts`` in the place of the one that came last."""
        self._rows[self._last_at()] = row

    def _last_at(self) -> int:
        return (self._start + self._count - 1) % len(self._rows)
