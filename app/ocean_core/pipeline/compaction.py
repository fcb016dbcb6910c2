"""Compaction: many partials of one (series, bucket) become one, in small steps.

Each drain appends partials, four times a second while somebody asks; without compaction an hour
would leave hundreds of rows per series and minute. Every step is one bounded transaction in the
mover's thread, the only writer, so nothing can come between its reading and its writing.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ocean_core.obs.clock import Clock
from ocean_core.pipeline.rollup import HOUR_US, merge_partials
from ocean_core.storage.analytics.cursor import PARTIAL_COLUMNS, Cursor, fetch_partials
from ocean_core.storage.analytics.store import AnalyticsStore

STEP_ROWS_MAX: Final = 200_000
"""Partials per step; about 0.1 s on the reference machine."""
APPENDED_ROWS_MAX: Final = 1_000_000
"""Partials appended after which even the open hour is compacted."""
HOURS_PER_PLAN: Final = 48
SETTLE_US: Final = 60_000_000
"""How long after its end an hour counts as closed, so that what is on its way is included."""


class _Step(NamedTuple):
    table: str
    condition: str


# Hours with more than one partial per series. Every partial in rollup_1m was written with one in
# rollup_1h, so this small table tells about both. It is compacted last: a crash before leaves it
# as it is, and the hour is found again.
_CROWDED: Final = f"""
SELECT epoch_us(bucket) FROM rollup_1h WHERE bucket < make_timestamp(?) GROUP BY bucket
HAVING count(*) > count(DISTINCT series_id) ORDER BY bucket LIMIT {HOURS_PER_PLAN}
"""  # noqa: S608 - a constant


class Compactor:
    """Knows when compaction is due and carries it out step by step. Owned by the mover thread."""

    def __init__(self, store: AnalyticsStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cursor: Cursor | None = None
        self._steps: deque[_Step] = deque()
        # What an earlier process left behind is not known, so the first closed hour is looked at.
        self._appended = 1
        self._closed_until = self._closed_now()

    def appended(self, partials: int) -> None:
        """Note partials written."""
        self._appended += partials

    def due_in(self) -> float | None:
        """Seconds until there is something to do, 0 if now, None if nothing is foreseeable."""
        if self._steps or self._appended >= APPENDED_ROWS_MAX:
            return 0.0
        if not self._appended:
            return None
        return max(0.0, (self._closed_until + HOUR_US + SETTLE_US - self._clock.now_us()) / 1e6)

    def step(self) -> None:
        """Do one bounded piece of work. Raises DuckError."""
        if not self._steps:
            self._plan()
            return
        table, condition = self._steps[0]
        query = f"SELECT {PARTIAL_COLUMNS} FROM {table} WHERE {condition}"  # noqa: S608 - ours
        partials = fetch_partials(self._reader().execute(query))
        merged = merge_partials(partials)
        if len(merged) < len(partials):
            self._store.replace_partials(table, condition, merged)
        self._steps.popleft()

    def _plan(self) -> None:
        closed = self._closed_now()
        # With too many partials the open hour takes part too; its later ones simply follow.
        before = closed + 2 * HOUR_US if self._appended >= APPENDED_ROWS_MAX else closed
        cursor = self._reader()
        hours = [row[0] for row in cursor.execute(_CROWDED, [before]).fetchall()]
        steps = [step for hour in hours for step in self._steps_of(cursor, hour)]
        self._appended = 1 if len(hours) == HOURS_PER_PLAN else 0
        self._closed_until = closed - HOUR_US if self._appended else closed
        self._steps.extend(steps)

    def _steps_of(self, cursor: Cursor, hour_us: int) -> list[_Step]:
        within = (
            f"bucket >= make_timestamp({hour_us}) AND bucket < make_timestamp({hour_us + HOUR_US})"
        )
        steps: list[_Step] = []
        for table in ("rollup_1m", "rollup_1h"):
            found = cursor.execute(f"SELECT count(*) FROM {table} WHERE {within}").fetchall()  # noqa: S608 - ours
            parts = max(1, -(-found[0][0] // STEP_ROWS_MAX))
            steps += [
                _Step(table, f"{within} AND series_id % {parts} = {part}") for part in range(parts)
            ]
        return steps

    def _closed_now(self) -> int:
        """End of the newest closed hour, microseconds."""
        return (self._clock.now_us() - SETTLE_US) // HOUR_US * HOUR_US

    def _reader(self) -> Cursor:
        if self._cursor is None:
            self._cursor = self._store.cursor()
        return self._cursor
