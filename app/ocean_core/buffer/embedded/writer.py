"""The writer thread: the only one that touches the journal's file. Theory of operation.

The event loop puts requests into a queue; the thread takes everything that waits, stores it in
one transaction with one fsync, and hands one callback with all outcomes to the loop (group
commit: under load a group is what arrived during the fsync before). What is rare, trimming or
noting damage, comes through the same thread as a task between two groups.

========== ==================================== =========== =====================================
state      event                                next        what happens
========== ==================================== =========== =====================================
OPENING    the file opened                      READY       ``open`` returns
OPENING    disk full, I/O error                 FAILED      ``open`` returns; retried as below
OPENING    written by a newer version           CLOSED      ``open`` raises StoreVersionError
READY      group committed                      READY       acknowledged, then perhaps checkpoint
READY      commit, fsync or checkpoint failed   FAILED      group and queue fail; file let go
READY      the file is damaged                  SALVAGING   the same; salvage without delay
FAILED     retry delay over                     READY       reopened, WAL written again and
                                                            checkpointed, probe committed
FAILED     retry failed                         FAILED      longer delay
SALVAGING  salvage finished                     READY       what is missing is noted
SALVAGING  salvage failed (no space)            FAILED      longer delay, then salvage again
any        ``close``                            CLOSED      queue drained, checkpoint, file closed
========== ==================================== =========== =====================================

Requests are taken only in READY. After a failure the same handle is never used again: SQLite's
picture of the file, and the kernel's of what is on the disk, may both be wrong (see
``files.write_again``). The thread waits on one condition: without a time when there is nothing to
do, so that an idle journal costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import apsw

from ocean_core.buffer.embedded.duplicates import Repeats, add_repeats
from ocean_core.buffer.embedded.failures import RETRY_AFTER_S, translate
from ocean_core.buffer.embedded.opening import Known, open_store
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.buffer.embedded.store import JournalStore
from ocean_core.buffer.port import BufferState, DuplicateCount, IdRange, UsageCounts
from ocean_core.buffer.ranges import GroupMarks
from ocean_core.model.errors import (
    BufferUnavailableError,
    DiskFullError,
    InternalError,
    OceanError,
    StoreCorruptError,
    StoreIOError,
    StoreVersionError,
)
from ocean_core.model.limits import MIB
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt

GROUP_BYTES_MAX: Final = 16 * MIB
GROUP_REQUESTS_MAX: Final = 8192
_WAL_URGENT_FACTOR: Final = 4
_TASKS_PER_STEP: Final = 64


@dataclass(slots=True)
class Waiting:
    """A request in the queue; ``cost`` is what it counts against the queue's bound, in bytes."""

    intake: Intake
    key: IdempotencyKey | None
    owner: Owner | None
    cost: int
    future: asyncio.Future[Receipt]
    since: float


Task = Callable[[JournalStore | None], None]
"""Work for the thread between two groups; gets None while the file is not open."""

Answer = tuple[asyncio.Future[Receipt], Receipt | OceanError]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """How the thread reaches the event loop. ``on_state`` and ``on_commit`` are called there."""

    loop: asyncio.AbstractEventLoop
    on_state: Callable[[BufferState, str], None]
    on_commit: Callable[[int], None]


class JournalWriter:
    """The thread and its queue. Methods without a leading underscore may be called from the loop."""

    def __init__(self, settings: JournalSettings, callbacks: Callbacks) -> None:
        self.state = BufferState.OPENING
        self.failure: OceanError | None = None
        self.head_id = 0
        self.epoch = ""
        self.missing: tuple[IdRange, ...] = ()
        # Those of the store: each changes after a commit, an entry at a time.
        self.usage: Mapping[str, UsageCounts] = {}
        self.groups: Mapping[str, GroupMarks] = {}
        self.duplicates: Mapping[str, DuplicateCount] = {}
        self.queue_bytes = 0
        self.newest_arrival_us = 0
        self._settings = settings
        self._callbacks = callbacks
        self._condition = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._tasks: deque[Task] = deque()
        self._closing = False
        self._retry_now = False
        self._sleeping = False
        self._gathering = False
        self._store: JournalStore | None = None
        self._known: Known | None = None
        self._damage: str | None = None
        self._failures = 0
        self._failed_group: list[Waiting] = []
        # Duplicates that no commit has counted yet, and what to call when one has.
        self._uncounted: Repeats = {}
        self._repeats: list[Callable[[], None]] = []
        self._checkpoint_busy = False
        self._commit_times = settings.metrics.histogram("ocean_buffer_commit_duration_seconds")
        self._opened: asyncio.Future[None] = callbacks.loop.create_future()
        self._closed: asyncio.Future[None] = callbacks.loop.create_future()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    # --- for the event loop ---

    async def start(self) -> None:
        """Start the thread; return when the journal is open or known to be failing."""
        self._thread.start()
        await asyncio.shield(self._opened)

    def has_room(self, cost: int) -> bool:
        """Whether the queue takes another request."""
        tuning = self._settings.tuning
        return (self.queue_bytes + cost <= tuning.queue_bytes_max or not self._queue) and len(
            self._queue
        ) < tuning.queue_requests_max

    def put(self, waiting: Waiting) -> None:
        """Queue a request. Raises the present failure if requests are not taken now."""
        with self._condition:
            if self.state is not BufferState.READY or self._closing:
                raise self.refusal()
            self._queue.append(waiting)
            self.queue_bytes += waiting.cost
            # While a group is gathered, only the request that fills it needs to wake the thread.
            if self._sleeping and (not self._gathering or self._has_full_group()):
                self._condition.notify()

    def put_task(self, task: Task) -> None:
        """Queue work for the thread. Raises BufferUnavailableError when it has ended."""
        with self._condition:
            if self._closing:
                raise self.refusal()
            self._tasks.append(task)
            self._condition.notify()

    def refusal(self) -> OceanError:
        """Return the error for a request that cannot be taken now."""
        failure = self.failure
        if self._closing or self.state is BufferState.CLOSED:
            return BufferUnavailableError("the journal is closed")
        if isinstance(failure, DiskFullError):
            return DiskFullError(failure.detail, retry_after_s=RETRY_AFTER_S)
        detail = failure.detail if failure is not None else f"the journal is {self.state}"
        return BufferUnavailableError(detail, retry_after_s=RETRY_AFTER_S)

    def retry_now(self) -> None:
        """Do not wait for the next try after a failure."""
        with self._condition:
            self._retry_now = True
            self._condition.notify()

    async def close(self) -> None:
        """Store what is queued, copy the WAL into the file, close, end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive():
            await asyncio.shield(self._closed)
            self._thread.join()

    # --- the thread ---

    def _run(self) -> None:
        while True:
            try:
                if not self._step():
                    break
            except OceanError as error:
                self._fail(error)
            except (apsw.Error, OSError) as error:
                self._fail(translate(error, self._store.db if self._store else None))
            except Exception as error:  # noqa: BLE001 - top of the thread: it must not just end
                self._fail(InternalError(f"journal: {type(error).__name__}: {error}"))
        self._finish()

    def _step(self) -> bool:
        """Do the next thing; False when all is done."""
        store = self._store
        if store is None:
            return self._reopen()
        group, timed_out = self._take()
        if group:
            self._commit(group)
        ran = 0
        while self._tasks and ran < _TASKS_PER_STEP:
            # Taken one by one: one that fails ends the step, and the others must not be lost.
            self._tasks.popleft()(store)
            ran += 1
        if self._repeats:
            # All that the tasks have found, with one sync.
            self._count_repeats(store)
        if ran and store.wal_pages >= self._settings.tuning.wal_pages_max:
            self._checkpoint(idle=False)
        if timed_out:
            self._checkpoint(idle=True)
        return bool(group or ran or timed_out)

    def _take(self) -> tuple[list[Waiting], bool]:
        """Wait for work. The last part of the answer tells that the time for upkeep has come."""
        settings = self._settings
        with self._condition:
            while not (self._queue or self._tasks or self._closing):
                if not self._sleep(self._upkeep_in()):
                    return [], True
            self._wait_for_more()
            queue = self._queue
            group: list[Waiting] = []
            taken = 0
            while queue and len(group) < GROUP_REQUESTS_MAX and taken < GROUP_BYTES_MAX:
                taken += queue[0].cost
                group.append(queue.popleft())
            self.queue_bytes -= taken
            settings.metrics.set("ocean_buffer_queue_bytes", self.queue_bytes)
        return group, False

    def _wait_for_more(self) -> None:
        """Let a group grow for ``commit_delay_ms`` after its first request came, or until full."""
        delay = self._settings.commit_delay_ms / 1000
        if not delay or not self._queue:
            return
        until = self._queue[0].since + delay
        self._gathering = True
        while not (self._has_full_group() or self._closing):
            left = until - self._settings.clock.monotonic()
            if left <= 0 or not self._sleep(left):
                break
        self._gathering = False

    def _has_full_group(self) -> bool:
        return self.queue_bytes >= GROUP_BYTES_MAX or len(self._queue) >= GROUP_REQUESTS_MAX

    def _sleep(self, seconds: float | None) -> bool:
        self._sleeping = True
        try:
            return self._condition.wait(seconds)
        finally:
            self._sleeping = False

    def _upkeep_in(self) -> float | None:
        """Seconds until the WAL should be copied although nobody writes; None without a WAL."""
        store = self._store
        if store is None or not store.wal_pages:
            return None
        tuning = self._settings.tuning
        return tuning.checkpoint_retry_s if self._checkpoint_busy else tuning.checkpoint_idle_s

    def _commit(self, group: list[Waiting]) -> None:
        store = self._store
        assert store is not None
        clock = self._settings.clock
        started = clock.monotonic()
        try:
            committed = store.commit(group, self._uncounted)
        except BaseException:
            self._failed_group = group
            raise
        self._uncounted = {}
        self._remember(store)
        self.head_id = store.head_id
        self.newest_arrival_us = store.newest_arrival_us
        self._answer(
            [(waiting.future, out) for waiting, out in zip(group, committed.outcomes, strict=True)],
            store.head_id if committed.rows else None,
        )
        metrics = self._settings.metrics
        metrics.add("ocean_buffer_commits_total")
        metrics.add("ocean_buffer_written_bytes", committed.block_bytes)
        metrics.set("ocean_buffer_head_id", store.head_id)
        if committed.keys_evicted:
            metrics.add("ocean_buffer_idempotency_evicted_total", committed.keys_evicted)
        self._commit_times.observe(clock.monotonic() - started)
        if store.wal_pages >= self._settings.tuning.wal_pages_max:
            self._checkpoint(idle=False)

    def _remember(self, store: JournalStore) -> None:
        self._known = Known(
            store.epoch,
            store.head_id,
            store.usage.counts,
            store.groups.marks,
            store.duplicates.counts,
        )

    # --- duplicates ---

    def count_repeat(self, repeated: Mapping[str, int], answer: Callable[[], None]) -> None:
        """Count rows that came again, durably, then call ``answer``. On the thread only, by tasks.

        What they repeat is stored, so the answer does not wait for a disk that fails: they are
        counted in memory then, and with the next commit.
        """
        add_repeats(self._uncounted, repeated)
        self._repeats.append(answer)

    def _count_repeats(self, store: JournalStore) -> None:
        # If it fails they are answered by ``_fail``, once everybody can see that it did.
        store.commit([], self._uncounted)
        self._uncounted = {}
        self._remember(store)
        self._answer_repeats()

    def _answer_repeats(self) -> None:
        answers, self._repeats = self._repeats, []
        for answer in answers:
            answer()

    def _checkpoint(self, *, idle: bool) -> None:
        store = self._store
        assert store is not None
        limit = self._settings.tuning.wal_pages_max
        mode = apsw.SQLITE_CHECKPOINT_PASSIVE
        if idle or store.wal_pages >= _WAL_URGENT_FACTOR * limit:
            # Waits for readers for a moment. An empty WAL cannot hide anything when damaged.
            mode = apsw.SQLITE_CHECKPOINT_TRUNCATE
        self._checkpoint_busy = not store.checkpoint(mode)

    # --- failure and recovery ---

    def _fail(self, error: OceanError) -> None:
        """Let go of the file and refuse everything until it is open again."""
        if self._store is not None:
            self._let_go()
            self._failures = 0
        damaged = isinstance(error, StoreCorruptError)
        if damaged:
            self._damage = self._damage or error.detail
        if isinstance(error, StoreVersionError):
            self._closing = True
        salvage_next = damaged and not self._failures
        self._failures += 1
        self._settings.metrics.add("ocean_database_errors_total", 1, "journal")
        self._settings.log.error("buffer.failed", code=error.code, reason=error.detail)
        self.failure = error
        self._set_state(BufferState.SALVAGING if salvage_next else BufferState.FAILED, error.detail)
        with self._condition:
            refused = list(self._queue)
            self._queue.clear()
            self.queue_bytes = 0
        group, self._failed_group = self._failed_group, []
        self._answer([(waiting.future, _told(error)) for waiting in group])
        self._answer([(waiting.future, self.refusal()) for waiting in refused])
        self._answer_repeats()
        self._tell_opened(error)

    def _let_go(self) -> None:
        store, self._store = self._store, None
        assert store is not None
        try:
            store.close()
        except apsw.Error as error:
            self._settings.log.debug("buffer.failed", reason=f"closing: {error}")

    def _reopen(self) -> bool:
        """Open the journal, after a failure not before its time; False when closing."""
        if self._failures and not self._wait_for_retry():
            return False
        again = self._failures > 0
        # A salvage that works is not repeated; one that does not is tried again.
        store = open_store(self._settings, known=self._known, damaged=self._damage)
        self._damage = None
        self._store = store
        self._failures = 0
        if self._uncounted:
            store.commit([], self._uncounted)
            self._uncounted = {}
        self._remember(store)
        self.usage = store.usage.counts
        self.duplicates = store.duplicates.counts
        self.groups = store.groups.marks
        self.epoch = store.epoch
        self.head_id = store.head_id
        self.newest_arrival_us = store.newest_arrival_us
        self.failure = None
        self.note_missing(store)
        self._settings.metrics.set("ocean_buffer_head_id", store.head_id)
        self._settings.log.info(
            "buffer.recovered" if again else "buffer.opened",
            head_id=store.head_id, epoch=store.epoch, durability=self._settings.durability,
        )  # fmt: skip
        self._settings.faults.hit("journal.opened")
        self._set_state(BufferState.READY, "")
        self._tell_opened(None)
        return True

    def _wait_for_retry(self) -> bool:
        delays = self._settings.tuning.retry_delays_s
        delay = delays[min(self._failures, len(delays)) - 1]
        if self.state is BufferState.SALVAGING:
            delay = 0.0
        until = self._settings.clock.monotonic() + delay
        while True:
            with self._condition:
                tasks = list(self._tasks)
                self._tasks.clear()
                left = until - self._settings.clock.monotonic()
                if not tasks:
                    if self._closing:
                        return False
                    if self._retry_now or left <= 0 or not self._sleep(left):
                        self._retry_now = False
                        return True
            for task in tasks:
                task(None)
            self._answer_repeats()

    def note_missing(self, store: JournalStore) -> None:
        """Show which ids are missing. On the thread only."""
        missing = tuple(store.missing)
        lost = sum(item.count for item in missing)
        self._settings.metrics.set("ocean_buffer_missing_readings", lost)
        if missing != self.missing:
            new = [item for item in missing if item not in self.missing]
            self._settings.log.error(
                "buffer.readings_missing", readings=lost,
                ranges=", ".join(f"{item.first}-{item.last}" for item in new[:10]),
            )  # fmt: skip
        self.missing = missing

    def note_damage(self, reason: str) -> None:
        """Ask for a salvage at the next reopening. On the thread only."""
        self._damage = reason

    def _finish(self) -> None:
        store = self._store
        if store is not None:
            try:
                if not store.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
                    store.checkpoint()
            except (apsw.Error, OSError) as error:
                self._settings.log.error("buffer.failed", reason=f"closing: {error}")
            self._let_go()
        with self._condition:
            self._closing = True
            left, tasks = list(self._queue), list(self._tasks)
            self._queue.clear()
            self._tasks.clear()
        self._set_state(BufferState.CLOSED, "closed")
        self._answer([(waiting.future, self.refusal()) for waiting in left])
        for task in tasks:
            task(None)
        self._answer_repeats()
        if self._uncounted:
            lost = f"{sum(self._uncounted.values())} duplicates were answered and are not counted"
            self._settings.log.error("buffer.failed", reason=lost)
        self._tell_opened(self.failure)
        self.call_on_loop(_settle, self._closed, None)

    # --- to the event loop ---

    def call_on_loop(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the event loop, soon. From any thread."""
        try:
            self._callbacks.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed; nobody is there to be told.
            return

    def _answer(self, answers: list[Answer], head_id: int | None = None) -> None:
        if answers:
            self.call_on_loop(self._deliver, answers, head_id)

    def _deliver(self, answers: list[Answer], head_id: int | None) -> None:
        for future, outcome in answers:
            # A client that left has cancelled its future.
            if future.done():
                continue
            if isinstance(outcome, Receipt):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        if head_id is not None:
            self._callbacks.on_commit(head_id)

    def _set_state(self, state: BufferState, reason: str) -> None:
        with self._condition:
            changed = state is not self.state
            self.state = state
        self._settings.metrics.set("ocean_buffer_ready", int(state is BufferState.READY))
        if changed:
            self.call_on_loop(self._callbacks.on_state, state, reason)

    def _tell_opened(self, error: OceanError | None) -> None:
        fatal = error if isinstance(error, StoreVersionError) else None
        self.call_on_loop(_settle, self._opened, fatal)


def _settle(future: asyncio.Future[None], error: OceanError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _told(error: OceanError) -> OceanError:
    """Return what a client is told when the commit of its request failed."""
    if isinstance(error, DiskFullError | StoreIOError):
        return type(error)(error.detail, retry_after_s=RETRY_AFTER_S)
    return BufferUnavailableError(error.detail, retry_after_s=RETRY_AFTER_S)
