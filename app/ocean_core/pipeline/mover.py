"""The mover: journal -> analytics.duckdb and live window, each reading once (invariant I2).

The watermark is committed with the rows it speaks of, so a restart goes on behind exactly what is
there. Before each transaction a mark outside of DuckDB says how far it is about to go: a lost
journal then never hands out an id that analytics already holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ocean_core.buffer.port import BlockSource, IdRange
from ocean_core.model.block import SeriesName
from ocean_core.model.errors import OceanError
from ocean_core.model.naming import NameRule, Names
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.compaction import Compactor
from ocean_core.pipeline.gather import Gathered, SeriesBook, gather
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.rules import RuleKeeper, RulesHalfShownError, RulesMismatchError
from ocean_core.pipeline.schedule import DrainSchedule, MoverSettings
from ocean_core.storage.analytics.batch import NewSeries
from ocean_core.storage.analytics.errors import DuckError, OutOfMemoryError, is_damage
from ocean_core.storage.analytics.store import AnalyticsStore

RETRY_FIRST_S: Final = 0.25
RETRY_MAX_S: Final = 30.0
ROWS_MIN: Final = 1_000
BACKLOG_WITHOUT_RINGS: Final = 2_000_000
"""Readings still waiting above which the live window keeps totals only, as in a rebuild."""
TOUCH_EVERY_S: Final = 0.5

MarkWriter = Callable[[str, int], None]
"""Makes (epoch, id) durable before it returns. Raises OSError."""


class Progress(NamedTuple):
    """How far the mover is; ids of readings.

    Ids that the journal turned out not to hold count as reached. ``rebuild_target`` is 0 while the
    length of a rebuild is not known yet. ``trouble`` tells why nothing can be moved, empty if it can.
    """

    watermark: int
    head: int
    rebuilding: bool
    rebuild_target: int
    trouble: str = ""


def _ignore(*_: object) -> None:
    return


@dataclass(frozen=True, slots=True)
class MoverCallbacks:
    """Whom to tell; called in the mover's thread, must not block.

    After ``on_store_damaged`` (noted for the next start) and ``on_crash`` (anything unforeseen) the
    mover has ended, and its process should, too. ``on_series`` names what a transaction brought
    that was not in the store before. ``on_commit`` tells the watermark, first when it is prepared.
    ``on_names`` comes with the rules about names that hold from now on; ``on_rules`` when all they
    make vanish is gone, with the last rule's id and the count of rows for each rule that forgets.
    ``on_rules_lost`` tells which rules were followed and are no longer among those given.
    """

    on_commit: Callable[[int], None] = _ignore
    on_series: Callable[[list[SeriesName]], None] = _ignore
    on_damage: Callable[[list[IdRange]], None] = _ignore
    on_watermark_ahead: Callable[[int, int], None] = _ignore
    on_names: Callable[[Names], None] = _ignore
    on_rules: Callable[[int, dict[int, int]], None] = _ignore
    on_rules_lost: Callable[[str], None] = _ignore
    on_source_error: Callable[[Exception], None] = _ignore
    on_store_damaged: Callable[[str], None] = _ignore
    on_crash: Callable[[str], None] = _ignore


class _StoreLostError(Exception):
    """The store cannot be used any longer; ``damage`` is the error that tells that it is damaged."""

    def __init__(self, reason: str, damage: Exception | None = None) -> None:
        super().__init__(reason)
        self.damage = damage


class Mover:
    """One thread. The store must be open and the window warm."""

    def __init__(
        self,
        source: BlockSource,
        store: AnalyticsStore,
        window: LiveWindow,
        mark_writer: MarkWriter,
        *,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        faults: Faults = NO_FAULTS,
        callbacks: MoverCallbacks | None = None,
        settings: MoverSettings | None = None,
        rebuild_reason: str | None = None,
        series: Iterable[NewSeries] | None = None,
        rules_wait_s: float | None = None,
    ) -> None:
        """Take ``series``, all of the store's, if they were read already.

        With ``rules_wait_s`` nothing is moved before ``set_rules`` was called, or that long.
        """
        self._source = source
        self._store = store
        self._window = window
        self._mark_writer = mark_writer
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._faults = faults
        self._callbacks = callbacks or MoverCallbacks()
        self._settings = settings or MoverSettings()
        self._rules = RuleKeeper(store, window, clock=clock, log=log, wait_s=rules_wait_s)
        self._rules_told_at: int | None = None
        known = store.series() if series is None else series
        self._book = SeriesBook(known, self._rules.names)
        self._compactor = Compactor(store, clock)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._schedule = DrainSchedule(self._settings)
        self._schedule.drained(store.watermark(), float("-inf"))
        self._wake_at = float("-inf")
        self._stopping = False
        self._prepared = False
        self._rows_max = self._settings.rows_per_drain_behind
        self._retry_s = 0.0
        self._retry_at = float("-inf")
        self._trouble = ""
        self._touched_at = float("-inf")
        self._rebuild_reason = None if rebuild_reason == "new" else rebuild_reason
        self._rebuild_target = 0
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)

    # --- for other threads

    def start(self) -> None:
        """Begin moving."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End after the transaction that runs; return whether that happened in time."""
        with self._lock:
            self._stopping = True
            self._work.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def notify(self, head_id: int) -> None:
        """Tell that the journal has grown up to ``head_id``."""
        with self._lock:
            now = self._clock.monotonic()
            self._schedule.grown(head_id, now)
            self._wake_if_earlier(now)

    def touch(self) -> None:
        """Tell that a query came: for a while readings are moved four times a second."""
        now = self._clock.monotonic()
        if now - self._touched_at < TOUCH_EVERY_S:
            return
        self._touched_at = now
        with self._lock:
            self._schedule.touched(now)
            self._wake_if_earlier(now)

    def want(self, reading_id: int, *, urgent: bool) -> float | None:
        """Ask for an id to become visible, without waiting for it.

        Return in how many seconds the drain that may bring it begins; None if it is visible.
        Without ``urgent`` readings wait for each other, up to 250 ms, to share a transaction. The
        id must be one that the journal gave out, as for ``notify``.
        """
        with self._lock:
            if self._schedule.watermark >= reading_id:
                return None
            now = self._clock.monotonic()
            self._schedule.grown(reading_id, now)
            self._schedule.wanted(reading_id, urgent=urgent)
            self._wake_if_earlier(now)
            return self._schedule.due_in(now)

    def set_rules(self, rules: Sequence[NameRule]) -> None:
        """Have all rules about names followed, in their order; they replace those given before."""
        with self._lock:
            self._rules.offer(rules)
            self._work.notify_all()

    @property
    def names(self) -> Names:
        """The rules about names that hold."""
        return self._rules.names

    def progress(self) -> Progress:
        """Return how far the mover is."""
        with self._lock:
            watermark, head = self._schedule.watermark, self._schedule.head
            target = self._rebuild_target
            to_prepare = not self._prepared and self._rebuild_reason is not None
        rebuilding = to_prepare or watermark < target
        trouble = self._trouble or self._rules.trouble
        return Progress(watermark, head, rebuilding, target, trouble)

    def _wake_if_earlier(self, now: float) -> None:
        due = self._schedule.due_in(now)
        if due is not None and now + due < self._wake_at:
            self._work.notify()

    # --- the thread

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self.work_once()
        except _StoreLostError as error:
            self._give_up(str(error), error.damage)
        except Exception as error:  # noqa: BLE001 - top of the thread: nothing may end it unseen
            reason = f"{type(error).__name__}: {error}"
            self._give_up(reason, error if is_damage(error) else None)

    def _give_up(self, reason: str, damage: Exception | None) -> None:
        damaged = damage is not None
        self._log.error("analytics.mover_failed", reason=reason, damaged=damaged, retry="no")
        with self._lock:
            self._stopping = True
        if damage is not None:
            self._store.condemn(damage)
            self._callbacks.on_store_damaged(reason)
        else:
            self._callbacks.on_crash(reason)

    def prepare(self) -> None:
        """Compare store and journal; the first piece of work. Raises OceanError."""
        watermark = self._store.watermark()
        head = self._source.last_id()
        if head < watermark:
            self._callbacks.on_watermark_ahead(head + 1, watermark)
        rebuilds = self._rebuild_reason is not None and head > watermark
        if rebuilds:
            self._log.info("analytics.rebuild_started", reason=self._rebuild_reason, readings=head)
        with self._lock:
            now = self._clock.monotonic()
            self._schedule.drained(watermark, now)
            self._schedule.grown(head, now)
            self._schedule.wanted(head, urgent=True)
            self._rebuild_target = head if rebuilds else 0
            self._prepared = True
        self._callbacks.on_commit(watermark)
        self._show(watermark)

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False means stop."""
        with self._lock:
            while not self._stopping:
                now = self._clock.monotonic()
                due = self._next_due(now)
                if due is not None and due <= 0:
                    self._wake_at = float("-inf")
                    return True
                self._wake_at = float("inf") if due is None else now + due
                self._work.wait(due)
        return False

    def _next_due(self, now: float) -> float | None:
        if not self._prepared:
            return self._retry_at - now
        rules = self._rules.due_in(now)
        if rules is not None:
            return max(rules, self._retry_at - now)
        drain, compact = self._schedule.due_in(now), self._compactor.due_in()
        dues = [due for due in (drain, compact) if due is not None]
        return max(min(dues), self._retry_at - now) if dues else None

    def work_once(self) -> None:
        """Drain if that is due, else do one step of compaction. The thread's step; tests call it.

        Before that come the rules about names: what is moved is moved as they say.
        """
        with self._lock:
            now = self._clock.monotonic()
            drain = self._schedule.due_in(now) == 0
            rules = self._rules.due_in(now) is not None
        try:
            if not self._prepared:
                self.prepare()
            elif rules:
                self._follow_rules()
            elif drain:
                self.drain_once()
            elif self._compactor.due_in() == 0:
                self._compactor.step()
        except DuckError as error:
            self._judge(error)
            self._try_later(error)
        except (OceanError, OSError) as error:
            self._try_later(error)
            self._callbacks.on_source_error(error)
        else:
            self._retry_s = 0.0
            self._trouble = ""

    def _follow_rules(self) -> None:
        """Follow the rules that were given. Raises DuckError or OceanError, nothing changed."""
        with self._lock:
            rules = self._rules.take(self._clock.monotonic())
        if rules is None:
            return
        head = self._source.last_id()
        try:
            new = self._rules.follow(rules, self._book)
        except RulesMismatchError as error:
            if error.lost:
                self._callbacks.on_rules_lost(error.lost)
            raise _StoreLostError(str(error)) from error
        except RulesHalfShownError as error:
            raise _StoreLostError(str(error)) from error
        if new:
            self._callbacks.on_series(new)
        self._callbacks.on_names(self._rules.names)
        with self._lock:
            self._rules.followed(rules)
            # What is to vanish but was not moved yet is counted as it passes.
            reach = min(self._rules.names.forgets_up_to, head)
            self._rules_told_at = reach
            self._schedule.grown(reach, self._clock.monotonic())
            self._schedule.wanted(reach, urgent=True)
        self._show(self._store.watermark())
        self._tell_rules()

    def _tell_rules(self) -> None:
        if self._rules_told_at is not None and self._schedule.watermark >= self._rules_told_at:
            self._rules_told_at = None
            self._callbacks.on_rules(self._rules.names.last_rule, self._rules.counts)

    def drain_once(self) -> None:
        """Move one transaction's worth. Raises DuckError, OceanError or OSError, nothing moved."""
        started = self._clock.monotonic()
        before = self._store.watermark()
        with self._lock:
            told = self._schedule.head
        found = self._source.read_after(before, rows_max=self._rows_max)
        if found.damaged:
            self._callbacks.on_damage(found.damaged)
        if found.next_after_id <= before:
            self._nothing_there(told)
            return
        gathered = gather(
            found.blocks, self._book, epoch=self._source.epoch, watermark=found.next_after_id,
            forgotten=self._rules.counts if before < self._rules.names.forgets_up_to else None,
        )  # fmt: skip
        self._commit(gathered)
        self._compactor.appended(_partials_in(gathered))
        with self._lock:
            backlog = self._schedule.head - found.next_after_id
        self._window.apply(
            gathered.batch, gathered.runs, with_rings=backlog < BACKLOG_WITHOUT_RINGS
        )
        self._published(before, found.next_after_id, started, sum(b.count for b in found.blocks))

    def _commit(self, gathered: Gathered) -> None:
        batch = gathered.batch
        new = [entry.name for entry in batch.new_series]
        try:
            self._mark_writer(batch.epoch, batch.watermark)
            self._store.write(batch)
        except BaseException:
            self._book.rollback()
            raise
        self._book.commit()
        if batch.forgotten is not None:
            self._rules.count(dict(batch.forgotten))
        if new:
            self._callbacks.on_series(new)
        self._rows_max = self._settings.rows_per_drain_behind

    def _published(self, before: int, watermark: int, started: float, rows: int) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._schedule.drained(watermark, now)
        self._callbacks.on_commit(watermark)
        self._metrics.add("ocean_pipeline_drains_total")
        self._metrics.add("ocean_pipeline_moved_readings_total", rows)
        self._metrics.histogram("ocean_pipeline_drain_duration_seconds").observe(now - started)
        self._show(watermark)
        self._tell_rules()
        if before < self._rebuild_target:
            if watermark < self._rebuild_target:
                self._faults.hit("rebuild.half")
            else:
                self._log.info("analytics.rebuild_finished", readings=watermark)

    def _show(self, watermark: int) -> None:
        self._metrics.set("ocean_pipeline_watermark_id", watermark)
        self._metrics.set("ocean_pipeline_live_window_bytes", self._window.bytes)
        self._metrics.set("ocean_storage_series", len(self._book))

    def _nothing_there(self, told: int) -> None:
        """Count ids up to ``told`` as reached: the journal gave them out but holds none of them.

        They were lost, or skipped when it continued behind the mark. The watermark of the store
        stays: if they should be there after all, they are read together with what comes next.
        """
        with self._lock:
            self._schedule.drained(told, self._clock.monotonic())
            reached = self._schedule.watermark
        self._callbacks.on_commit(reached)
        self._metrics.set("ocean_pipeline_watermark_id", reached)
        self._tell_rules()

    # --- when something fails

    def _judge(self, error: DuckError) -> None:
        """Return if the same work can be tried again with this store; else raise _StoreLostError."""
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        if is_damage(error):
            raise _StoreLostError(reason, error) from error
        known = self._store.watermark()
        try:
            told = self._store.reread_watermark()
            is_lost = told != known or self._rules.is_lost()
        except DuckError as second:
            damage = second if is_damage(second) else None
            raise _StoreLostError(reason, damage) from error
        if is_lost:
            # The commit went through after all, but window and book do not know it.
            raise _StoreLostError(f"a commit ended without an answer: {reason}")
        if isinstance(error, OutOfMemoryError):
            self._rows_max = max(ROWS_MIN, self._rows_max // 2)

    def _try_later(self, error: Exception) -> None:
        self._retry_s = min(RETRY_MAX_S, max(RETRY_FIRST_S, self._retry_s * 2))
        self._retry_at = self._clock.monotonic() + self._retry_s
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        self._trouble = reason
        self._log.warning("analytics.mover_failed", reason=reason, retry_s=self._retry_s)


def _partials_in(gathered: Gathered) -> int:
    batch = gathered.batch
    return sum(len(part) for part in (batch.minutes, batch.hours) if part is not None)
