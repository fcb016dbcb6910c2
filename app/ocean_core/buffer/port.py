"""The seam between whoever brings readings in, the buffer that keeps them, and the mover.

The semantics are those of Redis Streams: append, read after a cursor, trim. One implementation is
the embedded journal; a Redis server will be another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ocean_core.model.block import Block
from ocean_core.model.receipt import IdempotencyKey, Intake, Receipt


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
class BlockBatch:
    """A run of whole blocks in id order.

    ``next_after_id`` is the cursor for the next read: beyond the last block returned, and beyond
    damaged ones, which are named in ``damaged`` instead of being returned.
    """

    blocks: list[Block]
    next_after_id: int
    damaged: list[IdRange] = field(default_factory=list)


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

    async def append(self, intake: Intake, idempotency: IdempotencyKey | None = None) -> Receipt:
        """Make a request durable and return its receipt.

        A repeat of an idempotency key returns the first receipt with ``duplicate`` set. Raises
        BufferFullError, BufferUnavailableError, DiskFullError, StoreIOError or
        IdempotencyMismatchError; after any of them nothing of the request is acknowledged.
        """
        ...

    async def lookup(self, idempotency: IdempotencyKey) -> Receipt | None:
        """Return the receipt kept for a key (with ``duplicate`` set), or None.

        Raises IdempotencyMismatchError if the key was used with another digest.
        """
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
