"""The query ``verify``: what analytics hold against what the journal holds, a step at a time.

Both are read in a state that belongs together: the snapshot of DuckDB comes first, with watermark
and rules about names as they hold in it, and the journal never changes what it holds up to there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ocean_core.buffer.port import IdRange
from ocean_core.buffer.ranges import IdRanges
from ocean_core.model import limits
from ocean_core.model.digest import digest_of
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    QueriesFullError,
    StoreCorruptError,
)
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock
from ocean_core.service.queries.expected import Chunk, ChunkReader, JournalView, SeriesNumbers
from ocean_core.service.queries.matching import Match, Rows, match
from ocean_core.service.queries.requests import VerifyRequest
from ocean_core.service.queries.session import Session
from ocean_core.service.queries.tally import Tally
from ocean_core.service.queries.totals_check import check_totals
from ocean_core.service.queries.verified import VerifyStep
from ocean_core.storage.analytics.changes import RULES_QUERY, decode_rules
from ocean_core.storage.analytics.cursor import as_us
from ocean_core.storage.analytics.store import AnalyticsStore

_WATERMARK: Final = "SELECT epoch, id FROM watermark"
_SERIES: Final = "SELECT series_id, sensor_id, metric FROM series"
_READINGS: Final = """
SELECT id, series_id, ts, value AS content, quality FROM readings WHERE id > ? AND id <= ?
"""
_EVENTS: Final = """
SELECT id, series_id, ts, payload AS content, quality FROM events WHERE id > ? AND id <= ?
"""
_COUNT: Final = """
SELECT (SELECT count(*) FROM readings WHERE id BETWEEN $1 AND $2)
    + (SELECT count(*) FROM events WHERE id BETWEEN $1 AND $2)
"""
# No id that the journal gave out, or not yet.
_BEYOND: Final = """
SELECT coalesce(id, 0) AS id, coalesce(series_id, -1) AS series_id, count(*) OVER () AS n FROM (
    SELECT id, series_id FROM readings UNION ALL SELECT id, series_id FROM events
) WHERE id IS NULL OR id < 1 OR id > ? LIMIT ?
"""


def _ignore(*_: object) -> None:
    return


@dataclass(frozen=True, slots=True)
class VerifyCallbacks:
    """Whom to tell; called from the asking thread.

    ``on_difference``: the file is noted to be replaced at its next open; told again by each step
    that follows, so that whoever ends the process can let a series of steps come to its end.
    """

    on_difference: Callable[[str], None] = _ignore
    on_damage: Callable[[list[IdRange]], None] = _ignore
    on_journal_error: Callable[[StoreCorruptError], None] = _ignore


class OneAtATime:
    """Leaves the other thread of the queries to everybody else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Do long work. Raises QueriesFullError while another does."""
        if not self._lock.acquire(blocking=False):
            raise QueriesFullError("another verify or digests is running", retry_after_s=1)
        try:
            yield
        finally:
            self._lock.release()


class Verifier:
    """Answers ``verify``. Opens the journal for each step."""

    def __init__(
        self,
        store: AnalyticsStore,
        open_journal: Callable[[], JournalView],
        clock: Clock,
        callbacks: VerifyCallbacks | None = None,
    ) -> None:
        self._store = store
        self._open_journal = open_journal
        self._clock = clock
        self._callbacks = callbacks or VerifyCallbacks()
        self._difference = ""

    def step(self, session: Session, request: VerifyRequest) -> VerifyStep:
        """Compare some ids behind ``after_id``.

        Raises AnalyticsUnavailableError while journal and analytics do not belong together,
        StoreCorruptError or BufferUnavailableError if the journal cannot be read, DuckError.
        """
        try:
            with closing(self._open_journal()) as journal, session.snapshot():
                step, damaged = self._step(session, journal, request.after_id)
        except StoreCorruptError as error:
            self._callbacks.on_journal_error(error)
            raise
        if damaged:
            self._callbacks.on_damage(damaged)
        self._judge(step)
        return step

    def _step(
        self, session: Session, journal: JournalView, after_id: int
    ) -> tuple[VerifyStep, list[IdRange]]:
        deadline = self._clock.monotonic() + limits.VERIFY_STEP_S

        def is_late() -> bool:
            return self._clock.monotonic() >= deadline

        epoch, watermark = session.rows(_WATERMARK, ())[0]
        if journal.epoch != epoch:
            raise AnalyticsUnavailableError("analytics belong to another journal", retry_after_s=5)
        rules = session.rows(RULES_QUERY, ())
        names = Names(decode_rules(rules[0][0]) if rules else ())
        numbers = SeriesNumbers(session.rows(_SERIES, ()), names)
        reader = ChunkReader(journal, names, numbers, is_late=is_late, check=session.check)
        tally = Tally(numbers, names)
        position = after_id
        while position < watermark:
            position = _compare(session, reader, tally, position, watermark)
            if tally.rows >= limits.VERIFY_STEP_ROWS or is_late():
                break
        is_done = position >= watermark
        waiting = 0
        head = max(journal.last_id(), position)
        if is_done:
            head, waiting = _beyond(session, journal, tally, watermark)
        step = tally.answer(
            after_id=after_id,
            up_to_id=position,
            next_after_id=None if is_done else position,
            watermark=watermark,
            head_id=head,
            waiting=waiting,
            totals=check_totals(session, numbers) if is_done else None,
        )
        return step, tally.damaged

    def _judge(self, step: VerifyStep) -> None:
        """Have the file replaced if it does not hold what it must."""
        rows = {name: getattr(step, name) for name in ("absent", "changed", "doubled", "surplus")}
        found = [f"{count} {name}" for name, count in rows.items() if count]
        if step.totals is not None and step.totals.differing:
            found.append(f"{step.totals.differing} series with wrong rollups")
        if found and not self._difference:
            where = f"{step.after_id + 1}-{step.up_to_id}"
            self._difference = f"verify found rows that differ, ids {where}: {', '.join(found)}"
            self._store.mark_suspect(self._difference)
        if self._difference:
            self._callbacks.on_difference(self._difference)


def _compare(
    session: Session, reader: ChunkReader, tally: Tally, after_id: int, watermark: int
) -> int:
    """Compare the next chunk and return up to which id it reaches."""
    chunk = reader.read(after_id, watermark)
    if chunk.is_hole:
        _count_hole(session, chunk, tally)
        return chunk.up_to_id
    found = _match(session, chunk)
    if found.differs:
        # What is about to cost a rebuild is looked at twice: memory errs, too.
        chunk = reader.read(after_id, chunk.up_to_id)
        found = _match(session, chunk)
    tally.add(chunk, found.readings, found.events, found.kept, found.digests)
    return chunk.up_to_id


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """How a chunk compares; ``kept`` are ids in analytics that the journal does not hold."""

    readings: Match
    events: Match
    kept: npt.NDArray[np.int64]
    digests: tuple[int, int]

    @property
    def differs(self) -> bool:
        return any(
            len(rows)
            for found in (self.readings, self.events)
            for rows in (found.absent, found.changed, found.doubled, found.surplus)
        )


def _match(session: Session, chunk: Chunk) -> _Found:
    bounds = [chunk.after_id, chunk.up_to_id]
    stored = _stored(session.columns(_READINGS, bounds))
    found = match(chunk.readings, stored)
    must = _digest(chunk.readings)
    is_equal = found.equal == len(chunk.readings) == len(stored)
    digests = (must, must if is_equal else _digest(stored))
    events = match(chunk.events, _stored(session.columns(_EVENTS, bounds)))
    gone = chunk.damaged.union(chunk.missing, chunk.trimmed)
    readings, kept = _without_kept(found, gone)
    events, kept_events = _without_kept(events, gone)
    return _Found(readings, events, np.sort(np.concatenate([kept, kept_events])), digests)


def _without_kept(found: Match, gone: IdRanges) -> tuple[Match, npt.NDArray[np.int64]]:
    """Tell rows that the journal has lost from those that it never gave out."""
    ids = found.surplus.id
    if not len(ids) or not len(gone):
        return found, ids[:0]
    place = np.searchsorted(gone.firsts, ids, side="right") - 1
    kept = (place >= 0) & (ids <= gone.lasts[place])
    rest = found.surplus.take(~kept)
    return Match(found.equal, found.absent, found.changed, found.doubled, rest), ids[kept]


def _count_hole(session: Session, chunk: Chunk, tally: Tally) -> None:
    """Count what analytics hold of ids that the journal does not; they may be any number."""

    def count(first: int, last: int) -> int:
        return int(session.rows(_COUNT, [first, last])[0][0])

    kept = count(chunk.after_id + 1, chunk.up_to_id)
    tally.add_hole(chunk, kept, count if kept else lambda _first, _last: 0)


def _beyond(
    session: Session, journal: JournalView, tally: Tally, watermark: int
) -> tuple[int, int]:
    """Look behind the watermark: return the last id ever given out, and how many wait there."""
    missing = IdRanges.of_ranges(journal.losses().missing).within(
        watermark + 1, limits.READING_ID_MAX
    )
    tally.add_missing(missing)
    lost_up_to = int(missing.lasts[-1]) if len(missing) else 0
    last = journal.last_id()
    head = max(last, lost_up_to, watermark)
    waiting = head - watermark - missing.count
    strays = session.rows(_BEYOND, [watermark, limits.VERIFY_ROWS_LISTED_MAX])
    if strays:
        tally.add_strays([(number, series_id) for number, series_id, _ in strays], strays[0][2])
    return head, waiting


def _stored(found: dict[str, npt.NDArray[Any]]) -> Rows:
    content = found["content"]
    content = _filled(content, np.nan if content.dtype == np.float64 else "\0")
    return Rows(
        np.asarray(_filled(found["id"], 0), dtype=np.int64),
        np.asarray(_filled(found["series_id"], -(2**31)), dtype=np.int32),
        as_us(_filled(found["ts"], np.datetime64("NaT"))),
        content.view(np.int64) if content.dtype == np.float64 else content,
        np.asarray(_filled(found["quality"], 255), dtype=np.uint8),
    )


def _filled(column: npt.NDArray[Any], null: float | str | np.datetime64) -> npt.NDArray[Any]:
    """Return a column in which NULL, which nobody writes, is something that nobody writes."""
    return np.asarray(np.ma.filled(column, null))


def _digest(rows: Rows) -> int:
    return digest_of(rows.ts_us, rows.content.view(np.float64)) if len(rows) else 0
