"""The seam between whoever brings readings in, the buffer that keeps them, and the mover.

The semantics are those of Redis Streams: append, read after a cursor, trim. One implementation is
the embedded journal; a Redis server will be another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from ocean_core.model.block import Block
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt

DEFAULT_GROUP: Final = "api"
"""The consumer group of requests that name none, as all of the original's do."""


class BufferState(StrEnum):
    """Whether readings can be taken."""

    OPENING = "opening"
    READY = "ready"
    FAILED = "failed"
    SALVAGING = "salvaging"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class IdRange:
    """Reading ids ``first .. last``, both included."""

    first: int
    last: int

    @property
    def count(self) -> int:
        """How many ids."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Losses:
    """Ids that a journal is known not to hold: all up to ``trimmed_up_to``, and lost ones."""

    trimmed_up_to: int
    missing: list[IdRange]


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """A run of whole blocks in id order.

    ``next_after_id`` is the cursor for the next read: beyond the last block returned, and beyond
    damaged ones, which are named in ``damaged`` instead of being returned.
    """

    blocks: list[Block]
    next_after_id: int
    damaged: list[IdRange] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class UsageCounts:
    """Readings and events stored for a user since ever, and how many of them cost credits."""

    stored: int = 0
    charged: int = 0


@dataclass(frozen=True, slots=True)
class DuplicateCount:
    """How many rows of a sensor came again and were not stored, and when the last of them did."""

    count: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How many different ids of a request were marked now, and how many had been before."""

    newly: int
    already: int


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far a consumer group is. It has acknowledged every kept id up to ``cursor``.

    ``ahead`` counts acknowledged ids beyond the cursor, ``pending`` those not acknowledged,
    ``evicted`` those that were deleted before the group acknowledged them.
    """

    name: str
    cursor: int
    ahead: int
    pending: int
    evicted: int


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One stored row: a reading with its ``value``, or an event with its ``payload``."""

    id: int
    sensor_id: str
    metric: str
    timestamp_us: int
    quality: int
    value: float | None = None
    payload: bytes | None = None


class IngestBuffer(Protocol):
    """The writing side, used from the event loop."""

    @property
    def state(self) -> BufferState:
        """Whether readings can be taken now."""
        ...

    @property
    def head_id(self) -> int:
        """Id of the last durable reading, 0 if there is none."""
        ...

    @property
    def newest_arrival_us(self) -> int:
        """Wall-clock time of the newest stored arrival, 0 if nothing is stored."""
        ...

    async def append(
        self,
        intake: Intake,
        idempotency: IdempotencyKey | None = None,
        owner: Owner | None = None,
    ) -> Receipt:
        """Make a request durable and return its receipt.

        With an ``owner`` the rows count for that user, durably together with the rows. A repeat of
        an idempotency key returns the first receipt with ``duplicate`` set, and its rows count as
        duplicates only (see ``lookup``). Raises
        BufferFullError, BufferUnavailableError, DiskFullError, StoreIOError or
        IdempotencyMismatchError; after any of them nothing of the request is acknowledged.
        """
        ...

    async def lookup(
        self, idempotency: IdempotencyKey, repeated: Mapping[str, int] | None = None
    ) -> Receipt | None:
        """Return the receipt kept for a key (with ``duplicate`` set), or None.

        What is found counts as duplicates, durably before it is returned: the rows of ``repeated``
        (by sensor), or those of the receipt for a sensor that is not known. While the disk fails
        they are counted in memory until it works again. Raises IdempotencyMismatchError if the key
        was used with another digest.
        """
        ...


class UsageCounters(Protocol):
    """What the buffer counts for users; from memory, for the event loop."""

    def usage_of(self, user_id: str) -> UsageCounts:
        """Return the durable counts of a user, zeros for one without any.

        They only grow, except after damage: then they may be lower, at worst begin at 0 again.
        """
        ...

    def counted_users(self) -> tuple[str, ...]:
        """Return the users with counts, in no order."""
        ...


class DuplicateCounters(Protocol):
    """How much came again; from memory, for the event loop."""

    def duplicates(self) -> dict[str, DuplicateCount]:
        """Return the durable counts by sensor, under the name it came with.

        Rows of sensors that are not known, or beyond DUPLICATE_SENSORS_MAX, stand under an empty
        name. Counts only grow, except after damage.
        """
        ...


class FrameNotes(Protocol):
    """What is kept of frames that were stored, so that a repeat is known. For the event loop."""

    async def kept_frames(self, since_us: int, frames_max: int) -> list[bytes]:
        """Return the notes (``Intake.frames``) of blocks that arrived at or after a time.

        Those of each block together, newest block first, whole blocks until there are
        ``frames_max`` notes or more. All that was acknowledged when this was called is among them.
        Raises BufferUnavailableError, StoreCorruptError; what is not READY is not read.
        """
        ...

    async def count_repeats(self, repeated: Mapping[str, int]) -> None:
        """Count rows by sensor that came again and are not stored; durable when it returns.

        While the disk fails they are counted in memory until it works again. Raises
        BufferUnavailableError once the buffer is closed; then they are not counted.
        """
        ...


class ConsumerGroups(Protocol):
    """Who has read what: each group has a mark of its own. Used from the event loop."""

    async def acknowledge(self, group: str, ids: Sequence[int]) -> Acknowledged:
        """Mark ids as read by a group; durable when it returns. Makes the group if it is new.

        Ids in any order. Raises InvalidInputError for a bad name or an id that was not given out,
        RecordsFullError for one group, or one gap in what a group has acknowledged, too many;
        BufferFullError, BufferUnavailableError, DiskFullError, StoreIOError. Nothing is marked
        then, except that after one of the last three it may be: repeat it.
        """
        ...

    async def read_unacknowledged(self, group: str, limit: int) -> list[StoredRow]:
        """Return the oldest rows that a group has not acknowledged; changes nothing.

        At most ``limit`` rows, fewer when they are large. Empty only if there are none. A group
        that does not exist starts at the first kept row. Raises InvalidInputError, BufferFullError,
        BufferUnavailableError or StoreCorruptError.
        """
        ...

    def groups(self) -> list[GroupState]:
        """Return the groups by name; from memory."""
        ...

    async def forget_group(self, group: str) -> None:
        """Delete a group and its marks; durable when it returns. Raises UnknownRecordError."""
        ...


class BlockSource(Protocol):
    """The reading side, used by the mover and the rebuild."""

    @property
    def epoch(self) -> str:
        """Identity of this buffer's id sequence (a UUID)."""
        ...

    def last_id(self) -> int:
        """Id of the last durable reading, 0 if there is none."""
        ...

    def first_id(self) -> int:
        """Id of the first reading still kept, 0 if there is none."""
        ...

    def read_after(self, after_id: int, *, rows_max: int) -> BlockBatch:
        """Return whole blocks after ``after_id``, at least one if there is one, up to ``rows_max``.

        Holds no transaction open when it returns. Raises StoreCorruptError if the file itself
        cannot be read, BufferUnavailableError if it is just being replaced.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
