"""Which frames came before (section 8): exact, compact, and for many frames at a time.

A frame is known by its identity (16 bytes) and its header time. Since the identity depends on the
header time, a repeat has the same one: frames lie in buckets of a few seconds of header time, and a
bucket goes as a whole once its frames would be refused for their age anyway. A bucket is a chain of
hash tables with open addressing in numpy arrays, 17 bytes per slot: a million frames take about
35 MB. Beyond the bound the table goes first that nothing was added to for longest, whatever its
header times: a device that sends what it has stored for hours needs its repeats known, too. What it
held is forgotten, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.protocol.nanogridata.frame import FRAME_ID_BYTES

BUCKET_S: Final = 4
_TABLE_FRAMES_MAX: Final = 131_072
_SLOTS_MIN: Final = 64
_TABLES_MIN: Final = 8
_ABSENT: Final = 0
_WORD: Final = 2**64 - 1

IdColumn = npt.NDArray[np.uint64]
"""Identities, one row of two words each; see ``id_column``."""
StateColumn = npt.NDArray[np.uint8]
TimeColumn = npt.NDArray[np.int64]
_Slots = npt.NDArray[np.int64]


class Seen(IntEnum):
    """What is known of a frame. ``NEW`` is told once: from then on it is reserved."""

    NEW = 0
    RESERVED = 1
    """Somebody is about to store it."""
    STORED = 2
    REFUSED = 3
    """Its check value and time were right, what it holds was not."""
    RELEASED = 4
    """As if it had never come. Never told."""


def id_column(ids: bytes) -> IdColumn:
    """Return identities, one after the other in ``ids``, as the column that the memory takes."""
    return np.frombuffer(ids, dtype="<u8").reshape(-1, FRAME_ID_BYTES // 8)


class _Table:
    """Open addressing with linear probing; never more than two thirds full."""

    def __init__(self, frames: int, factor: np.uint64, most: int) -> None:
        # ``most`` is how many it takes before it counts as full.
        bits = max(_SLOTS_MIN, frames + frames // 2).bit_length()
        self._shift = np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self._factor = factor
        self._first = np.zeros(1 << bits, dtype=np.uint64)
        self._second = np.zeros(1 << bits, dtype=np.uint64)
        self.state = np.zeros(1 << bits, dtype=np.uint8)
        self.room = min((1 << bits) * 2 // 3, most)
        self.count = 0

    def find(self, ids: IdColumn) -> _Slots:
        """Return where each identity lies, -1 for those that are not here."""
        first, second = ids[:, 0], ids[:, 1]
        slots = self._home(first)
        found = np.full(len(ids), -1, dtype=np.int64)
        open_ = np.arange(len(ids))
        while len(open_):
            at = slots[open_]
            taken = self.state[at] != _ABSENT
            same = taken & (self._first[at] == first[open_]) & (self._second[at] == second[open_])
            found[open_[same]] = at[same]
            open_ = open_[taken & ~same]
            slots[open_] = (slots[open_] + 1) & self._mask
        return found

    def add(self, ids: IdColumn, states: StateColumn) -> npt.NDArray[np.bool_]:
        """Put identities that are not here; return which of them are repeats of one before them."""
        first, second = ids[:, 0], ids[:, 1]
        slots = self._home(first)
        repeated = np.zeros(len(ids), dtype=np.bool_)
        open_ = np.arange(len(ids))
        while len(open_):
            at = slots[open_]
            free = self.state[at] == _ABSENT
            # Several may want the same free slot: the first of them gets it. They are in order, so
            # written backwards the first is what stays.
            order = open_[free][::-1]
            claimed = slots[order]
            self._first[claimed] = first[order]
            self._second[claimed] = second[order]
            self.state[claimed] = states[order]
            same = (self._first[at] == first[open_]) & (self._second[at] == second[open_])
            own = np.zeros(len(open_), dtype=np.bool_)
            wanted = at[free]
            if len(wanted):
                _, winners = np.unique(wanted, return_index=True)
                places = np.flatnonzero(free)[winners]
                own[places] = True
                self.count += len(winners)
            repeated[open_[same & ~own]] = True
            open_ = open_[~same]
            slots[open_] = (slots[open_] + 1) & self._mask
        return repeated

    def slot_of(self, first: int, second: int) -> int:
        """Return where an identity lies, or the free slot where it would: see ``state`` there.

        The same as ``find`` for one: calls of numpy cost too much for that.
        """
        slot = ((first * int(self._factor)) & _WORD) >> int(self._shift)
        while self.state[slot] != _ABSENT and not (
            self._first[slot] == first and self._second[slot] == second
        ):
            slot = (slot + 1) & self._mask
        return slot

    def put(self, slot: int, first: int, second: int) -> None:
        """Reserve an identity in a free slot."""
        self._first[slot], self._second[slot] = first, second
        self.state[slot] = Seen.RESERVED
        self.count += 1

    def entries(self) -> tuple[IdColumn, StateColumn]:
        """Return all that is here, to be put somewhere else."""
        held = np.flatnonzero(self.state)
        return np.column_stack([self._first[held], self._second[held]]), self.state[held]

    def _home(self, first: npt.NDArray[np.uint64]) -> _Slots:
        return ((first * self._factor) >> self._shift).astype(np.int64)


class FrameMemory:
    """Remembers frames; bounded. Not for several threads.

    ``forgotten`` counts the frames that went before their time because there were too many.
    """

    def __init__(self, frames_max: int, random_bytes: Callable[[int], bytes]) -> None:
        """``random_bytes`` makes the places of frames unforeseeable for those who send them."""
        self.frames_max = frames_max
        self._factor = np.uint64(int.from_bytes(random_bytes(8), "little") | 1)
        self._buckets: dict[int, list[_Table]] = {}
        # Each table with its bucket; the one that was added to last stands last.
        self._order: dict[_Table, int] = {}
        # What goes at once when there are too many is a part of all.
        self._table_max = max(_SLOTS_MIN, min(_TABLE_FRAMES_MAX, frames_max // _TABLES_MIN))
        self._expected = _SLOTS_MIN
        self._count = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return self._count

    def reserve(self, ids: IdColumn, times_s: TimeColumn) -> StateColumn:
        """Tell of each frame what is known, and reserve those that are new.

        Of several equal frames in one call the first is new, the others are reserved.
        """
        states = np.empty(len(ids), dtype=np.uint8)
        for bucket, rows in _by_bucket(times_s):
            states[rows] = self._reserve(bucket, ids[rows])
        return states

    def reserve_one(self, frame_id: bytes, time_s: int) -> Seen:
        """The same as ``reserve`` for one frame, ten times as fast."""
        first, second = (
            int.from_bytes(frame_id[:8], "little"),
            int.from_bytes(frame_id[8:], "little"),
        )
        tables = self._tables_of(time_s // BUCKET_S)
        for table in tables:
            slot = table.slot_of(first, second)
            state = Seen(int(table.state[slot]))
            if state is Seen.RELEASED:
                table.state[slot] = Seen.RESERVED
                return Seen.NEW
            if state is not Seen.NEW:
                return state
        table = self._with_room(tables, 1)
        table.put(table.slot_of(first, second), first, second)
        self._added(time_s // BUCKET_S, table, 1)
        return Seen.NEW

    def mark(self, ids: IdColumn, times_s: TimeColumn, state: Seen) -> None:
        """Note what became of frames that were reserved."""
        for bucket, rows in _by_bucket(times_s):
            some = ids[rows]
            for table in self._buckets.get(bucket, ()):
                at = table.find(some)
                table.state[at[at >= 0]] = state

    def look(self, ids: IdColumn, times_s: TimeColumn) -> StateColumn:
        """Tell what is known of each frame; NEW for those that never came, or were released."""
        states = np.zeros(len(ids), dtype=np.uint8)
        for bucket, rows in _by_bucket(times_s):
            some = ids[rows]
            found = np.zeros(len(some), dtype=np.uint8)
            for table in self._buckets.get(bucket, ()):
                at = table.find(some)
                found[at >= 0] = table.state[at[at >= 0]]
            states[rows] = found
        states[states == Seen.RELEASED] = Seen.NEW
        return states

    def load(self, ids: IdColumn, times_s: TimeColumn) -> None:
        """Remember frames as stored that were stored before this process began."""
        self.mark(ids, times_s, Seen.STORED)
        states = self.reserve(ids, times_s)
        fresh = states == Seen.NEW
        self.mark(ids[fresh], times_s[fresh], Seen.STORED)

    def expire(self, before_s: int) -> None:
        """Forget the frames whose header time lies before ``before_s``, a few seconds later."""
        for bucket in [one for one in self._buckets if (one + 1) * BUCKET_S <= before_s]:
            for table in self._buckets.pop(bucket):
                self._order.pop(table, None)
                self._count -= table.count

    def _tables_of(self, bucket: int) -> list[_Table]:
        tables = self._buckets.get(bucket)
        if tables is None:
            # The next seconds usually hold as much as those before.
            tables = self._buckets[bucket] = [self._table(self._expected)]
        return tables

    def _table(self, frames: int) -> _Table:
        return _Table(frames, self._factor, self._table_max)

    def _added(self, bucket: int, table: _Table, count: int) -> None:
        self._count += count
        self._order.pop(table, None)
        self._order[table] = bucket
        held = sum(one.count for one in self._buckets[bucket])
        self._expected = max(_SLOTS_MIN, min(held, self._table_max))
        self._bound()

    def _reserve(self, bucket: int, ids: IdColumn) -> StateColumn:
        tables = self._tables_of(bucket)
        states = np.zeros(len(ids), dtype=np.uint8)
        absent = np.ones(len(ids), dtype=np.bool_)
        for table in tables:
            at = table.find(ids)
            held = at >= 0
            if held.any():
                absent &= ~held
                states[held] = table.state[at[held]]
                again = held & (states == Seen.RELEASED)
                if again.any():
                    states[again] = self._again(table, at[again])
        fresh = np.flatnonzero(absent)
        if len(fresh):
            table = self._with_room(tables, len(fresh))
            before = table.count
            repeated = table.add(ids[fresh], np.full(len(fresh), Seen.RESERVED, dtype=np.uint8))
            states[fresh[repeated]] = Seen.RESERVED
            self._added(bucket, table, table.count - before)
        return states

    @staticmethod
    def _again(table: _Table, at: _Slots) -> StateColumn:
        """Reserve released frames anew; of equal ones the first is new."""
        states = np.full(len(at), Seen.RESERVED, dtype=np.uint8)
        _, firsts = np.unique(at, return_index=True)
        states[firsts] = Seen.NEW
        table.state[at] = Seen.RESERVED
        return states

    def _with_room(self, tables: list[_Table], frames: int) -> _Table:
        """Return the newest table of a bucket, made large enough, or a further one."""
        table = tables[-1]
        if table.count + frames <= table.room:
            return table
        wanted = table.count + frames
        if wanted > self._table_max:
            table = self._table(max(frames, self._table_max))
            tables.append(table)
            return table
        larger = self._table(min(2 * wanted, self._table_max))
        larger.add(*table.entries())
        self._order.pop(table, None)
        tables[-1] = larger
        return larger

    def _bound(self) -> None:
        # What was added to last is on its way to the disk, and stays in any case.
        while self._count > self.frames_max and len(self._order) > 1:
            oldest = next(iter(self._order))
            bucket = self._order.pop(oldest)
            tables = self._buckets[bucket]
            tables.remove(oldest)
            if not tables:
                del self._buckets[bucket]
            self._count -= oldest.count
            self.forgotten += oldest.count


def _by_bucket(times_s: TimeColumn) -> list[tuple[int, npt.NDArray[np.int64] | slice]]:
    """Return the buckets that header times fall into, each with the rows that do."""
    buckets = times_s // BUCKET_S
    if not len(buckets):
        return []
    if (buckets == buckets[0]).all():
        return [(int(buckets[0]), slice(None))]
    return [(int(one), np.flatnonzero(buckets == one)) for one in np.unique(buckets)]
