"""Reading the journal from the mover's process, beside the writer and never in its way.

Read-only, never checkpoints, and no transaction stays open between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from ocean_core.buffer.embedded import schema
from ocean_core.buffer.embedded.files import identity_of
from ocean_core.buffer.embedded.rows import (
    SELECT_MISSING,
    count_of,
    frames_of,
    missing_ranges,
    subtract,
    whole_block,
)
from ocean_core.buffer.port import BlockBatch, IdRange, Losses
from ocean_core.model.block import Block
from ocean_core.model.errors import BufferUnavailableError, OceanError, StoreCorruptError
from ocean_core.model.limits import TIMESTAMP_PLAUSIBLE_US_MIN

_SCRUB_ROWS: Final = 100_000
_BUSY_MS: Final = 250

_BLOCKS_AFTER: Final = "SELECT id, count, data FROM telemetry_buffer WHERE id > ? ORDER BY id"
_BLOCK_OVER: Final = "SELECT max(id) FROM telemetry_buffer WHERE id <= ?"
_LAST: Final = "SELECT id, count FROM telemetry_buffer ORDER BY id DESC LIMIT 1"
_NOTES_BEFORE: Final = (
    "SELECT id, timestamp, uuid, CASE WHEN timestamp >= ? THEN keys END FROM telemetry_buffer "
    "WHERE id < ? ORDER BY id DESC LIMIT ?"
)
_NOTES_STEP: Final = 500
_CLOCK_SLACK_US: Final = 86_400_000_000
_FIRST: Final = "SELECT id FROM telemetry_buffer ORDER BY id LIMIT 1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScrubStep:
    """All blocks up to ``up_to_id`` were read; ``damaged`` names the ids that were not whole."""

    up_to_id: int
    damaged: list[IdRange]


@dataclass(frozen=True, slots=True)
class NotesStep:
    """Notes of frames, those of each block together; ``before_id`` None: there are no more."""

    frames: list[bytes]
    before_id: int | None


class JournalReader:
    """A BlockSource over ``journal.db``. Belongs to one thread."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """Open the journal. Raises BufferUnavailableError or StoreCorruptError."""
        self._path = path
        self._vfs = vfs
        self._db: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._epoch = ""
        self._guarded(lambda _db: None)

    @property
    def epoch(self) -> str:
        """Identity of this buffer's id sequence (a UUID). May change when the file is replaced."""
        return self._epoch

    def last_id(self) -> int:
        """Id of the last durable reading, 0 if there is none."""
        row: tuple[Any, ...] | None = self._guarded(lambda db: db.execute(_LAST).fetchone())
        return 0 if row is None else int(row[0]) + count_of(row[1]) - 1

    def first_id(self) -> int:
        """Id of the first reading still kept, 0 if there is none."""
        return int(self._guarded(lambda db: db.execute(_FIRST).get) or 0)

    def read_after(self, after_id: int, *, rows_max: int) -> BlockBatch:
        """Return whole blocks after ``after_id``; see ``BlockSource.read_after``.

        Ids that should be there and are not count as damaged too, unless the journal already
        notes them as missing or trimmed.
        """
        return self._guarded(lambda db: _read_after(db, after_id, rows_max))

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        """Give whole blocks to ``take``, from that with ``first_id`` on, which may lie inside.

        ``take`` returns which id it wants next: blocks before are left out, unread if they are
        many; None ends it. Returns what was damaged. Raises as ``read_after`` does.
        """
        return self._guarded(lambda db: _scan(db, first_id, take))

    def losses(self) -> Losses:
        """Return which ids the journal knows not to hold. Raises as ``read_after`` does."""
        return self._guarded(_losses)

    def frames_before(self, before_id: int, since_us: int) -> NotesStep:
        """Return some notes of frames beside blocks before an id, newest first.

        Of blocks that arrived at or after ``since_us``. Raises as ``read_after`` does.
        """
        return self._guarded(lambda db: _frames_before(db, before_id, since_us))

    def verify_blocks(self, after_id: int = 0) -> Iterator[ScrubStep]:
        """Check every block's CRC in small steps; whoever asks decides on the pace.

        What it names as damaged belongs into ``EmbeddedJournal.report_damage``. Raises as
        ``read_after`` does.
        """
        while True:
            batch = self.read_after(after_id, rows_max=_SCRUB_ROWS)
            if batch.next_after_id == after_id:
                return
            after_id = batch.next_after_id
            yield ScrubStep(after_id, batch.damaged)

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close(force=True)
            self._db = None

    def _guarded(self, work: Callable[[apsw.Connection], T]) -> T:
        try:
            return work(self._current())
        except (OceanError, apsw.Error, OSError) as error:
            self.close()
            raise _translated(error) from error

    def _current(self) -> apsw.Connection:
        """Return the connection, made anew if a salvage has replaced the file."""
        identity = identity_of(self._path)
        if self._db is not None and identity == self._identity:
            return self._db
        self.close()
        if identity is None:
            raise BufferUnavailableError("journal.db is not there")
        db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY, vfs=self._vfs)
        self._db = db
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.set_busy_timeout(_BUSY_MS)
        db.pragma("query_only", 1)
        self._epoch = schema.epoch_of(db)
        self._identity = identity
        return db


def _translated(error: Exception) -> OceanError:
    if isinstance(error, OceanError):
        return error
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.IOError):
        return StoreCorruptError(f"journal: {error}")
    # Not yet created, just being replaced, or locked for a moment.
    return BufferUnavailableError(f"journal: {error}")


def _read_after(db: apsw.Connection, after_id: int, rows_max: int) -> BlockBatch:
    blocks: list[Block] = []
    damaged: list[IdRange] = []
    rows = 0
    position = after_id
    found = db.execute(_BLOCKS_AFTER, (after_id,))
    try:
        for first, count, data in found:
            if blocks and rows + count_of(count) > rows_max:
                break
            if not isinstance(first, int) or first <= position:
                raise StoreCorruptError("journal: blocks overlap or are out of order")
            block = whole_block(data)
            if first > position + 1:
                damaged += _unexplained(db, IdRange(position + 1, first - 1))
            # The block knows its count best, but an id that differs must be put right first.
            if block is not None and block.first_id == first:
                blocks.append(block)
                rows += block.count
                position = block.last_id
            else:
                last = _plausible_last(db, first, count_of(count))
                damaged.append(IdRange(first, last))
                position = last
            if rows >= rows_max:
                break
    finally:
        # Ends the read transaction, so that the writer can reuse its WAL.
        found.close()
    return BlockBatch(blocks, position, damaged)


def _scan(
    db: apsw.Connection, wanted: int | None, take: Callable[[Block], int | None]
) -> list[IdRange]:
    damaged: list[IdRange] = []
    while wanted is not None:
        start = db.execute(_BLOCK_OVER, (wanted,)).get or wanted
        found = db.execute(_BLOCKS_AFTER, (start - 1,))
        try:
            wanted = _scan_on(db, found, wanted, take, damaged)
        finally:
            found.close()
    return damaged


def _scan_on(
    db: apsw.Connection,
    found: apsw.Cursor,
    wanted: int,
    take: Callable[[Block], int | None],
    damaged: list[IdRange],
) -> int | None:
    """Go through blocks one after the other; return where to go on after a leap."""
    for first, count, data in found:
        block = whole_block(data)
        if block is None or block.first_id != first:
            damaged.append(IdRange(first, _plausible_last(db, first, count_of(count))))
            continue
        if block.last_id < wanted:
            continue
        following = take(block)
        if following is None or following > block.last_id + 1:
            return following
        wanted = following
    return None


def _frames_before(db: apsw.Connection, before_id: int, since_us: int) -> NotesStep:
    # ``keys`` is the last column, but that it is NULL stands in front, where the row begins.
    found = db.execute(_NOTES_BEFORE, (since_us, before_id, _NOTES_STEP)).fetchall()
    rows: list[tuple[Any, ...]] = found
    frames = [frames_of(uuid, keys) for _, _, uuid, keys in rows if keys]
    # Ids follow the order of arrival, times do not quite: the clock may have been set meanwhile.
    ends = len(rows) < _NOTES_STEP or any(
        TIMESTAMP_PLAUSIBLE_US_MIN <= arrival < since_us - _CLOCK_SLACK_US
        for _, arrival, _, _ in rows
        if isinstance(arrival, int)
    )
    return NotesStep([item for item in frames if item], None if ends else rows[-1][0])


def _losses(db: apsw.Connection) -> Losses:
    # In one transaction: a trim moves an id from the one to the other.
    with db:
        trimmed = schema.meta_integer(db, "trimmed")
        missing = missing_ranges(db.execute(SELECT_MISSING))
    return Losses(trimmed, missing)


def _unexplained(db: apsw.Connection, gap: IdRange) -> list[IdRange]:
    known = missing_ranges(db.execute(SELECT_MISSING))
    return subtract([gap], [*known, IdRange(0, schema.meta_integer(db, "trimmed"))])


def _plausible_last(db: apsw.Connection, first: int, count: int) -> int:
    """Return the last id of a damaged block: up to the next one, whatever its row says."""
    following = db.execute("SELECT id FROM telemetry_buffer WHERE id > ? LIMIT 1", (first,)).get
    if isinstance(following, int):
        return following - 1
    return first + count - 1
