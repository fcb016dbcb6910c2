"""The writer thread: the only one that changes the file. Theory of operation.

The event loop puts commands into a queue; the thread takes everything that waits, carries it out in
one transaction, each command in a savepoint of its own, and hands one callback with all outcomes
to the loop after the fsync (group commit: under load a group is what arrived during the fsync
before).

========== ================================== =========== =======================================
state      event                              next        what happens
========== ================================== =========== =======================================
OPENING    the file opened                    READY       ``open`` returns
OPENING    disk full, I/O error               FAILED      ``open`` returns; retried as below
OPENING    written by a newer version         CLOSED      ``open`` raises StoreVersionError
READY      group committed                    READY       acknowledged, then perhaps checkpoint
READY      commit, fsync, checkpoint failed   FAILED      group and queue fail; file let go
READY      damage met, by a read too          SALVAGING   the same; salvage without delay
FAILED     retry delay over                   READY       WAL cut back to what was acknowledged,
                                                          file reopened, probe committed
FAILED     retry failed, file not there       FAILED      longer delay
SALVAGING  salvage finished                   READY       counts are in ``salvage_report``
SALVAGING  salvage failed (no space)          FAILED      longer delay, then salvage again
any        ``close``                          CLOSED      queue drained, checkpoint, file closed
========== ================================== =========== =======================================

Commands are taken only in READY. After a failure the same connection is never used again: SQLite's
picture of the file, and the kernel's of what is on the disk, may both be wrong. The thread waits
on one condition, without a time when there is nothing to do: an idle store costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from enum import StrEnum
from typing import Any, Final

import apsw

from ocean_core.model.errors import (
    OceanError,
    StoreBusyError,
    StoreCorruptError,
    StoreUnavailableError,
    StoreVersionError,
)
from ocean_core.storage.operational.delivery import Delivery, Waiting
from ocean_core.storage.operational.failures import own_fault, told, translate
from ocean_core.storage.operational.files import StoreFiles, restore_wal
from ocean_core.storage.operational.opened import Command, OpenedFile
from ocean_core.storage.operational.opening import open_file
from ocean_core.storage.operational.reader import Reader
from ocean_core.storage.operational.salvage import SalvageReport, report_of
from ocean_core.storage.operational.settings import OperationalSettings
from ocean_core.storage.operational.witness import Witness

_WAL_URGENT_FACTOR: Final = 4
_BUSY_RETRY_AFTER_S: Final = 1


class State(StrEnum):
    """See the table above."""

    OPENING = "opening"
    READY = "ready"
    FAILED = "failed"
    SALVAGING = "salvaging"
    CLOSED = "closed"


class Writer:
    """The thread and its queue. Methods without a leading underscore may be called from the loop."""

    def __init__(self, settings: OperationalSettings, delivery: Delivery) -> None:
        self.state = State.OPENING
        self.failure: OceanError | None = None
        self.was_open = False
        self.salvage_report: SalvageReport | None = None
        self.reader = Reader(settings, self.note_damage)
        self.witness = Witness(StoreFiles(settings.path), settings.log)
        self._settings = settings
        self._delivery = delivery
        self._condition = threading.Condition(threading.Lock())
        self._queue: deque[Waiting] = deque()
        self._closing = False
        self._retry_now = False
        self._sleeping = False
        self._file: OpenedFile | None = None
        self._wal_frames: int | None = None
        self._damage: str | None = None
        self._failures = 0
        self._failed_group: list[Waiting] = []
        self._checkpoint_busy = False
        self._commit_times = settings.metrics.histogram("ocean_accounts_commit_duration_seconds")
        self._opened = delivery.future()
        self._closed = delivery.future()
        self._thread = threading.Thread(target=self._run, name="accounts-writer", daemon=True)

    # --- for the event loop ---

    async def start(self) -> None:
        """Start the thread; return when the store is open or known to be failing."""
        self._thread.start()
        await asyncio.shield(self._opened)

    def put(self, command: Command) -> asyncio.Future[Any]:
        """Queue a command. Raises StoreBusyError, or the present failure."""
        future = self._delivery.future()
        with self._condition:
            if self.state is not State.READY or self._closing:
                raise self.refusal()
            if len(self._queue) >= self._settings.tuning.queue_max:
                raise StoreBusyError(
                    f"{len(self._queue)} changes are waiting", retry_after_s=_BUSY_RETRY_AFTER_S
                )
            self._queue.append((command, future))
            if self._sleeping:
                self._condition.notify()
        return future

    def refusal(self) -> OceanError:
        """Return the error for a command or query that cannot be taken now."""
        if self._closing or self.state is State.CLOSED:
            return StoreUnavailableError("the operational store is closed")
        return told(self.failure)

    def can_read(self) -> bool:
        """Whether a query makes sense now: also while nothing can be written."""
        readable = self.state in {State.READY, State.FAILED} and self._damage is None
        return readable and self.was_open and not self._closing

    def note_damage(self, reason: str) -> None:
        """Have the file salvaged. From any thread."""
        with self._condition:
            self._damage = self._damage or reason
            self._condition.notify()

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
                self._fail(translate(error, self._file.db if self._file else None))
            except Exception as error:  # noqa: BLE001 - top of the thread: it must not just end
                self._fail(own_fault(error))
        self._finish()

    def _step(self) -> bool:
        """Do the next thing; False when all is done."""
        if self._file is None:
            return self._reopen()
        group, timed_out = self._take()
        if self._damage is not None:
            self._failed_group = group
            raise StoreCorruptError(self._damage)
        if group:
            self._commit(group)
        if timed_out:
            self._file.tidy()
            self._checkpoint(idle=True)
        return bool(group or timed_out)

    def _take(self) -> tuple[list[Waiting], bool]:
        """Wait for work. The last part of the answer tells that the time for upkeep has come."""
        tuning = self._settings.tuning
        queue = self._queue
        with self._condition:
            while not (queue or self._closing or self._damage):
                if not self._sleep(self._upkeep_in()):
                    return [], True
            group = [queue.popleft() for _ in range(min(len(queue), tuning.group_max))]
            left = len(queue)
        self._settings.metrics.set("ocean_accounts_queue_commands", left)
        return group, False

    def _sleep(self, seconds: float | None) -> bool:
        self._sleeping = True
        try:
            return self._condition.wait(seconds)
        finally:
            self._sleeping = False

    def _upkeep_in(self) -> float | None:
        """Seconds until the WAL should be emptied although nobody writes; None if it is empty."""
        if self._file is None or self._file.wal_is_empty:
            return None
        tuning = self._settings.tuning
        return tuning.checkpoint_retry_s if self._checkpoint_busy else tuning.checkpoint_idle_s

    def _commit(self, group: list[Waiting]) -> None:
        file = self._file
        assert file is not None
        clock = self._settings.clock
        started = clock.monotonic()
        known = file.wal_pages
        try:
            outcomes = file.run([command for command, _ in group])
        except BaseException:
            # The hook may have counted frames of a commit whose fsync failed.
            file.wal_pages = known
            self._failed_group = group
            raise
        self._settings.metrics.add("ocean_accounts_commits_total")
        self._commit_times.observe(clock.monotonic() - started)
        self._delivery.answer(group, outcomes)
        if file.wal_pages >= self._settings.tuning.wal_pages_max:
            self._checkpoint(idle=False)

    def _checkpoint(self, *, idle: bool) -> None:
        file = self._file
        assert file is not None
        mode = apsw.SQLITE_CHECKPOINT_PASSIVE
        if idle or file.wal_pages >= _WAL_URGENT_FACTOR * self._settings.tuning.wal_pages_max:
            # Waits for readers for a moment. An empty WAL cannot hide anything when damaged.
            mode = apsw.SQLITE_CHECKPOINT_TRUNCATE
        self._checkpoint_busy = not file.checkpoint(mode)

    # --- failure and recovery ---

    def _fail(self, error: OceanError) -> None:
        """Let go of the file and refuse every change until it is open again."""
        undone = True
        if self._file is not None:
            undone = self._let_go()
            self._failures = 0
        damaged = isinstance(error, StoreCorruptError)
        if damaged:
            self._damage = self._damage or error.detail
        if isinstance(error, StoreVersionError):
            self._closing = True
        salvage_next = damaged and not self._failures
        self._failures += 1
        self._settings.metrics.add("ocean_database_errors_total", 1, "operational")
        self._settings.log.error("accounts.failed", code=error.code, reason=error.detail)
        self.failure = error
        self._set_state(State.SALVAGING if salvage_next else State.FAILED, error.detail)
        with self._condition:
            refused = list(self._queue)
            self._queue.clear()
        group, self._failed_group = self._failed_group, []
        self._delivery.refuse(group, error, undone=undone)
        self._delivery.refuse(refused, error)
        self._tell_opened(error)

    def _let_go(self) -> bool:
        """Close both connections, take back what nobody was told of; return whether that worked."""
        file, self._file = self._file, None
        assert file is not None
        self._wal_frames = file.wal_pages
        settings = self._settings
        try:
            with self.reader.held():
                file.close()
                # Done again, and then without mercy, before the file is opened to be written.
                restore_wal(StoreFiles(settings.path).wal, settings.vfs, self._wal_frames)
        except (apsw.Error, OSError) as error:
            settings.log.debug("accounts.failed", reason=f"closing: {error}")
            return False
        return True

    def _reopen(self) -> bool:
        """Open the file, after a failure not before its time; False when closing."""
        if self._failures and not self._wait_for_retry():
            return False
        settings = self._settings
        again = self._failures > 0
        self.witness.require_in_place()
        with self.reader.held():
            file = open_file(
                settings,
                check=not settings.was_clean and not self.was_open,
                wal_frames=self._wal_frames,
                damaged=self._damage,
                store_id=self.witness.store_id,
            )
        try:
            self.witness.recognise(file.db)
            self.salvage_report = report_of(file.db)
        except BaseException:
            file.close()
            raise
        self._file = file
        # A salvage that works is not repeated; one that does not is tried again.
        self._damage = None
        self._wal_frames = None
        self._failures = 0
        self.failure = None
        self.was_open = True
        settings.log.info(
            "accounts.recovered" if again else "accounts.opened", durability=settings.durability
        )
        self._set_state(State.READY, "")
        self._tell_opened(None)
        return True

    def _wait_for_retry(self) -> bool:
        delays = self._settings.tuning.retry_delays_s
        delay = delays[min(self._failures, len(delays)) - 1]
        if self.state is State.SALVAGING:
            delay = 0.0
        clock = self._settings.clock
        until = clock.monotonic() + delay
        with self._condition:
            while not self._closing:
                left = until - clock.monotonic()
                if self._retry_now or left <= 0 or not self._sleep(left):
                    self._retry_now = False
                    return True
        return False

    def _finish(self) -> None:
        if self._file is not None:
            try:
                self.reader.close()
                if not self._file.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
                    self._file.checkpoint()
                self._file.close()
            except (apsw.Error, OSError) as error:
                self._settings.log.error("accounts.failed", reason=f"closing: {error}")
        with self._condition:
            self._closing = True
            left = list(self._queue)
            self._queue.clear()
        self.reader.close()
        self.state = State.CLOSED
        self._delivery.refuse(left, StoreUnavailableError("the operational store is closed"))
        self._tell_opened(self.failure)
        self._delivery.settle(self._closed)

    # --- to the event loop ---

    def _set_state(self, state: State, reason: str) -> None:
        with self._condition:
            self.state = state
        self._delivery.state(is_ready=state is State.READY, reason=reason)

    def _tell_opened(self, error: OceanError | None) -> None:
        fatal = error if isinstance(error, StoreVersionError) else None
        self._delivery.settle(self._opened, fatal)
