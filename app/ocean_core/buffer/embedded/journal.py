"""The embedded journal as the rest of the ingest process sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import apsw

from ocean_core.buffer.embedded.consumers import Consumers
from ocean_core.buffer.embedded.failures import translate
from ocean_core.buffer.embedded.frames import read_frames
from ocean_core.buffer.embedded.settings import JournalSettings, JournalTuning
from ocean_core.buffer.embedded.store import JournalStore, find_receipt
from ocean_core.buffer.embedded.writer import Callbacks, JournalWriter, Task, Waiting
from ocean_core.buffer.port import (
    Acknowledged,
    BufferState,
    DuplicateCount,
    GroupState,
    IdRange,
    StoredRow,
    UsageCounts,
)
from ocean_core.model.errors import (
    BufferFullError,
    BufferUnavailableError,
    IdempotencyMismatchError,
    OceanError,
    StoreCorruptError,
    UnknownRecordError,
)
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt

__all__ = ["EmbeddedJournal", "JournalSettings", "JournalTuning"]

T = TypeVar("T")

_QUEUE_RETRY_AFTER_S = 1
_ROW_BYTES = 24
_REQUEST_BYTES = 512
_SERIES_BYTES = 160
_LOOKUPS_WAITING_MAX = 1024
# What is no fault of the file, so that the writer need not know.
_HARMLESS = (IdempotencyMismatchError, UnknownRecordError)
_NO_USAGE = UsageCounts()
_NO_LOOKUPS = frozenset({BufferState.OPENING, BufferState.SALVAGING, BufferState.CLOSED})


def _ignore_state(state: BufferState, reason: str) -> None:
    del state, reason


def _ignore_commit(head_id: int) -> None:
    del head_id


class EmbeddedJournal:
    """Durable buffer of readings in ``journal.db``. Use it on one event loop.

    It is an IngestBuffer with UsageCounters, DuplicateCounters, ConsumerGroups and FrameNotes.
    """

    def __init__(
        self,
        settings: JournalSettings,
        *,
        on_commit: Callable[[int], None] = _ignore_commit,
        on_state: Callable[[BufferState, str], None] = _ignore_state,
    ) -> None:
        self._settings = settings
        self._on_commit = on_commit
        self._on_state = on_state
        self._writer: JournalWriter | None = None
        self._consumers: Consumers | None = None
        self._lookups = 0

    async def open(self) -> None:
        """Start the writer thread; return when the journal is usable.

        A damaged journal is salvaged first. With a full or failing disk it returns too: the state
        is FAILED then, requests are refused, and the journal goes on by itself once it can.
        Raises StoreVersionError if the file is that of a newer version.
        """
        assert self._writer is None, "open once"
        loop = asyncio.get_running_loop()
        self._writer = JournalWriter(
            self._settings, Callbacks(loop, self._on_state, self._on_commit)
        )
        self._consumers = Consumers(self._writer, self._settings, self.report_damage)
        await self._writer.start()

    async def close(self) -> None:
        """Store what is queued, checkpoint, close the file. Afterwards appends are refused."""
        if self._consumers is not None:
            consumers, self._consumers = self._consumers, None
            await consumers.close()
        if self._writer is not None:
            await self._writer.close()

    @property
    def _open_consumers(self) -> Consumers:
        if self._consumers is None:
            raise BufferUnavailableError("the journal is not open")
        return self._consumers

    @property
    def _open_writer(self) -> JournalWriter:
        assert self._writer is not None, "the journal is not open"
        return self._writer

    @property
    def state(self) -> BufferState:
        """Whether readings can be taken now."""
        return BufferState.OPENING if self._writer is None else self._writer.state

    @property
    def failure(self) -> OceanError | None:
        """Why the journal is not READY; None while it is."""
        return None if self._writer is None else self._writer.failure

    @property
    def head_id(self) -> int:
        """Id of the last durable reading, 0 if there is none."""
        return 0 if self._writer is None else self._writer.head_id

    @property
    def newest_arrival_us(self) -> int:
        """Wall-clock time of the newest stored arrival, 0 if nothing is stored."""
        return 0 if self._writer is None else self._writer.newest_arrival_us

    @property
    def epoch(self) -> str:
        """Identity of the id sequence (a UUID), empty before the journal was open."""
        return "" if self._writer is None else self._writer.epoch

    def missing_ranges(self) -> tuple[IdRange, ...]:
        """Return the acknowledged ids that are known to be lost, in order."""
        return () if self._writer is None else self._writer.missing

    def usage_of(self, user_id: str) -> UsageCounts:
        """Return what was stored for a user; see ``UsageCounters.usage_of``."""
        return _NO_USAGE if self._writer is None else self._writer.usage.get(user_id, _NO_USAGE)

    def counted_users(self) -> tuple[str, ...]:
        """Return the users with counts."""
        return () if self._writer is None else tuple(self._writer.usage)

    def duplicates(self) -> dict[str, DuplicateCount]:
        """Return how much came again by sensor; see ``DuplicateCounters.duplicates``."""
        return {} if self._writer is None else dict(self._writer.duplicates)

    async def append(
        self,
        intake: Intake,
        idempotency: IdempotencyKey | None = None,
        owner: Owner | None = None,
    ) -> Receipt:
        """Make a request durable and return its receipt; see ``IngestBuffer.append``."""
        writer = self._open_writer
        cost = _cost(intake)
        problem: OceanError
        if writer.has_room(cost):
            future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            since = self._settings.clock.monotonic()
            try:
                writer.put(Waiting(intake, idempotency, owner, cost, future, since))
            except OceanError as error:
                problem = error
            else:
                return await future
        else:
            problem = BufferFullError(
                "more requests wait for the disk than may", retry_after_s=_QUEUE_RETRY_AFTER_S
            )
        # A repeat needs no room: what it repeats is stored already.
        found = None
        if idempotency is not None:
            found = await self._lookup_if_possible(idempotency, intake)
        if found is None:
            raise problem
        return found

    async def _lookup_if_possible(self, key: IdempotencyKey, intake: Intake) -> Receipt | None:
        if self.state in _NO_LOOKUPS or self._lookups >= _LOOKUPS_WAITING_MAX:
            return None
        return await self.lookup(key, intake.rows_by_sensor())

    async def lookup(
        self, idempotency: IdempotencyKey, repeated: Mapping[str, int] | None = None
    ) -> Receipt | None:
        """Return the receipt kept for a key, or None; see ``IngestBuffer.lookup``.

        While the journal is FAILED, None may also mean that it could not be read. Raises
        BufferUnavailableError while it is being opened or salvaged, which may take minutes.
        """
        if self.state in _NO_LOOKUPS:
            raise self._open_writer.refusal()
        self._lookups += 1
        try:
            counted: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            work = partial(self._look_up, idempotency, repeated, counted)
            return await counted if await self._on_thread(work) else None
        finally:
            self._lookups -= 1

    def _look_up(
        self,
        key: IdempotencyKey,
        repeated: Mapping[str, int] | None,
        counted: asyncio.Future[Receipt],
        store: JournalStore | None,
    ) -> bool:
        """Return whether there is a receipt; ``counted`` gets it once the repeat is counted."""
        found = store.lookup(key) if store is not None else _peek(self._settings, key, self.head_id)
        if found is None:
            return False
        self._open_writer.count_repeat(
            {"": found.rows} if repeated is None else repeated,
            partial(self._open_writer.call_on_loop, _settle, counted, found),
        )
        return True

    # --- frames ---

    async def kept_frames(self, since_us: int, frames_max: int) -> list[bytes]:
        """Return the notes of stored frames, newest first; see ``FrameNotes.kept_frames``."""
        if self.state is not BufferState.READY:
            raise self._open_writer.refusal()
        settings = self._settings
        return await asyncio.to_thread(
            read_frames, settings.path, settings.vfs, self.head_id, since_us, frames_max
        )

    async def count_repeats(self, repeated: Mapping[str, int]) -> None:
        """Count rows that came again, durably; see ``FrameNotes.count_repeats``."""
        if not repeated:
            return
        counted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writer = self._open_writer
        answer = partial(writer.call_on_loop, _settle, counted, None)
        writer.put_task(lambda _store: writer.count_repeat(repeated, answer))
        await counted

    # --- consumer groups ---

    async def acknowledge(self, group: str, ids: Sequence[int]) -> Acknowledged:
        """Mark ids as read by a group; see ``ConsumerGroups.acknowledge``."""
        return await self._open_consumers.acknowledge(group, ids)

    async def read_unacknowledged(self, group: str, limit: int) -> list[StoredRow]:
        """Return the oldest rows a group has not read; ``ConsumerGroups.read_unacknowledged``."""
        return await self._open_consumers.read_unacknowledged(group, limit)

    def groups(self) -> list[GroupState]:
        """Return the consumer groups by name; see ``ConsumerGroups.groups``."""
        return [] if self._consumers is None else self._consumers.groups()

    async def forget_group(self, group: str) -> None:
        """Delete a group and its marks; see ``ConsumerGroups.forget_group``."""
        if self.state is not BufferState.READY:
            raise self._open_writer.refusal()
        await self._on_thread(partial(self._forget, group))

    def _forget(self, group: str, store: JournalStore | None) -> None:
        if store is None:
            raise self._open_writer.refusal()
        store.forget_group(group)

    # --- upkeep ---

    async def trim(self, up_to_id: int) -> int:
        """Delete whole blocks up to an id, in small transactions between those of requests.

        What a consumer group has not acknowledged stays, and all behind it, unless it is older
        than GROUP_HOLDS_S_MAX or the journal is larger than GROUP_HOLDS_DISK_SHARE_MAX of the disk:
        then it goes and counts as evicted for the group. So do notes of frames that are not older
        than ``frames_kept_s``, unless the journal is that large. Returns the id up to which everything is
        deleted now. Raises BufferUnavailableError, DiskFullError or StoreIOError.
        """
        done, trimmed = False, 0
        while not done:
            done, trimmed = await self._on_thread(partial(self._trim_some, up_to_id))
        return trimmed

    def _trim_some(self, up_to_id: int, store: JournalStore | None) -> tuple[bool, int]:
        if store is None:
            raise self._open_writer.refusal()
        return store.trim(up_to_id), store.trimmed

    def report_damage(self, ranges: Sequence[IdRange]) -> None:
        """Tell that readers found these ids unreadable or absent. From any thread; returns at once.

        Each is read again; what is damaged for the writer too is noted as missing and taken out
        of the way.
        """
        self._quietly(partial(self._note_damage, tuple(ranges)))

    def _note_damage(self, ranges: tuple[IdRange, ...], store: JournalStore | None) -> None:
        if store is not None and store.record_damage(ranges, "damaged block"):
            self._open_writer.note_missing(store)

    def report_corruption(self, reason: str) -> None:
        """Tell that a reader could not read the file (StoreCorruptError). From any thread.

        The writer reads the whole file; if it is damaged, it is salvaged.
        """
        self._quietly(partial(self._require_sound, reason))

    def _require_sound(self, reason: str, store: JournalStore | None) -> None:
        if store is not None:
            try:
                store.require_sound()
            except (apsw.Error, StoreCorruptError) as error:
                self._open_writer.note_damage(f"{reason}; {error}")
                raise StoreCorruptError(f"{reason}; {error}") from error

    def retry_now(self) -> None:
        """After a failure: try again at once, for example because space was freed."""
        self._open_writer.retry_now()

    async def settled(self) -> None:
        """Return when the writer has done what was reported to it before; for tests and commands."""
        await self._on_thread(lambda _store: None)

    def _quietly(self, task: Task) -> None:
        try:
            self._open_writer.put_task(task)
        except OceanError as error:
            self._settings.log.debug("buffer.failed", reason=error.detail)

    async def _on_thread(self, work: Callable[[JournalStore | None], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def task(store: JournalStore | None) -> None:
            try:
                result = work(store)
            except (OceanError, apsw.Error, OSError) as error:
                problem = translate(error, None if store is None else store.db)
                loop.call_soon_threadsafe(_fail, future, problem)
                if store is not None and not isinstance(error, _HARMLESS):
                    raise
            else:
                loop.call_soon_threadsafe(_settle, future, result)

        self._open_writer.put_task(task)
        return await future


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], problem: OceanError) -> None:
    if not future.done():
        future.set_exception(problem)


def _peek(settings: JournalSettings, key: IdempotencyKey, acked_id: int) -> Receipt | None:
    """Look a key up while the journal is not open for writing.

    Only receipts up to the last acknowledged id count: what a failed fsync left behind it may not
    be on the disk.
    """
    # A file layer without shared memory has to lock the file, which takes more than reading.
    flags = apsw.SQLITE_OPEN_READWRITE if settings.exclusive else apsw.SQLITE_OPEN_READONLY
    try:
        db = apsw.Connection(str(settings.path), flags=flags, vfs=settings.vfs)
        try:
            if settings.exclusive:
                db.pragma("locking_mode", "EXCLUSIVE")
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.pragma("query_only", 1)
            kept_us = settings.idempotency_kept_s * 1_000_000
            found = find_receipt(db, key, settings.clock.now_us() - kept_us)
        finally:
            db.close()
    except (apsw.Error, StoreCorruptError):
        return None
    if found is None or max(found.first_reading_id, found.first_event_id) > acked_id:
        return None
    return found


def _cost(intake: Intake) -> int:
    cost = _REQUEST_BYTES + len(intake.frames)
    if intake.readings is not None:
        cost += _ROW_BYTES * len(intake.readings) + _SERIES_BYTES * len(intake.readings.series)
    if intake.events is not None:
        cost += _ROW_BYTES * len(intake.events) + _SERIES_BYTES * len(intake.events.series)
        cost += sum(map(len, intake.events.payload))
    return cost
