"""The analytics process: moves readings from the journal into DuckDB and answers queries.

Started by the ingest process, which it outlives by no moment. It may crash or be killed at any
time: the watermark in DuckDB says where to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from ocean_core.buffer.embedded import JournalReader
from ocean_core.buffer.mark import MarkFile, read_mark
from ocean_core.buffer.port import IdRange
from ocean_core.config.settings import Settings
from ocean_core.model import limits
from ocean_core.model.block import SeriesName
from ocean_core.model.errors import OceanError, StoreCorruptError
from ocean_core.model.naming import NameRule, Names
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import SystemClock
from ocean_core.obs.faults import Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.archiving.source import WholeSource
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover, MoverCallbacks
from ocean_core.pipeline.schedule import MoverSettings
from ocean_core.pipeline.scrub import Scrubber
from ocean_core.runtime.archive_setup import ArchiveSide
from ocean_core.runtime.process import (
    die_with_parent,
    give_way,
    keep_freed_memory,
    look_for_garbage_rarely,
    return_freed_memory,
)
from ocean_core.service.answering import Answering, WatermarkWaiters
from ocean_core.service.channel import Channel
from ocean_core.service.messages import (
    SERIES_NAMES_MAX,
    CancelWork,
    Damage,
    Head,
    Hello,
    JournalDamaged,
    Message,
    Query,
    Report,
    Rules,
    RulesApplied,
    RulesLost,
    SeriesKnown,
    Stop,
    WatermarkAhead,
    Work,
)
from ocean_core.service.queries.engine import QueryEngine
from ocean_core.service.queries.verify import Verifier, VerifyCallbacks
from ocean_core.service.work import WorkRunner
from ocean_core.storage.analytics import (
    AnalyticsStore,
    DuckError,
    NewSeries,
    Opened,
    is_damage,
)
from ocean_core.storage.archive.manifest import ARCHIVE_DIR, Part
from ocean_core.storage.archive.store import ArchiveStore

ANALYTICS_FILE: Final = "analytics.duckdb"
JOURNAL_FILE: Final = "journal.db"
MARK_FILE: Final = "analytics.mark"
REBUILDING_FILE: Final = "analytics.rebuilding"
QUERY_THREADS: Final = 2
REPORT_MIN_S: Final = 0.5
REPORT_MAX_S: Final = 10.0
RULES_WAIT_S: Final = 10.0
"""How long nothing is moved for want of the rules about names; then the last known ones hold."""
EXIT_ORPHAN: Final = 1
EXIT_DAMAGED: Final = 3
EXIT_CRASHED: Final = 4
EXIT_UNOPENED: Final = 5
STOP_MOVER_S: Final = 10.0
STOP_SCRUB_S: Final = 1.0
STOP_QUERIES_S: Final = 1.0
REBUILD_DELAY_S: Final = 5.0
"""How long after a step of a verification that found rows which differ the rebuild begins."""
REBUILD_DELAY_MAX_S: Final = 600.0
"""The same, counted from the first of such steps."""


def run_analytics(
    descriptor: int, parent_pid: int, data_dir: Path, settings_json: str, *, scrub: bool
) -> int:
    """Serve the ingest process at the other end of the socket until it hangs up; return exit code."""
    if not die_with_parent(parent_pid, signal.SIGKILL):
        return EXIT_ORPHAN
    # Ctrl-C and a service manager's SIGTERM reach both processes; the ingest process stops this
    # one when the last query is answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    give_way()
    keep_freed_memory()
    look_for_garbage_rarely()
    settings = msgspec.json.decode(settings_json, type=Settings)
    sock = socket.socket(fileno=descriptor)
    process = AnalyticsProcess(settings, data_dir, scrub=scrub)
    code = asyncio.run(process.run(sock))
    if process.is_stuck:
        # The interpreter would wait for a query that does not heed its interrupt.
        sys.stderr.flush()
        os._exit(code)
    return code


class AnalyticsProcess:
    """Wires the parts of the analytics process together and runs them."""

    def __init__(self, settings: Settings, data_dir: Path, *, scrub: bool) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._clock = SystemClock()
        self._log = EventLog(
            self._clock, level=settings.log.level, as_json=settings.log.format == "json"
        )
        self._faults = Faults.from_environment()
        self._metrics = MetricsRegistry(METRICS)
        self._waiters = WatermarkWaiters()
        self._threads = ThreadPoolExecutor(QUERY_THREADS, thread_name_prefix="query")
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._answers: set[asyncio.Task[None]] = set()
        self._exit_code = 0
        self.is_stuck = False
        """Whether a query still runs after ``run`` has returned."""
        self._answering: Answering | None = None
        self._rules: list[NameRule] | None = None
        # Damage found by the scrub is told like that of the mover.
        self._scrubber = Scrubber(
            lambda: JournalReader(data_dir / JOURNAL_FILE),
            lambda ranges: self._on_loop(self._journal_blocks_damaged, ranges),
            clock=self._clock,
            log=self._log,
        )
        self._scrub = scrub
        self._rebuilding = data_dir / REBUILDING_FILE
        self._is_rebuild = False
        self._rebuild_timer: asyncio.TimerHandle | None = None
        self._rebuild_by = 0.0

    async def run(self, sock: socket.socket) -> int:
        """Open, serve, close; return the exit code."""
        self._loop = asyncio.get_running_loop()
        self._channel = await Channel.over(sock, self._receive, self._ended.set)
        try:
            return await self._serve(*self._open())
        except (OceanError, OSError) as error:
            # For want of space, for example. The supervisor tries again.
            self._log.error("runtime.background_failed", task="analytics", error=str(error))
            self._journal_unreadable(error)
            self._exit_code = EXIT_UNOPENED
        except (DuckError, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise
            self._store_damaged(self._store.condemn(error))
        self._channel.close()
        return self._exit_code

    def _open(self) -> tuple[WholeSource, Opened, LiveWindow, list[NewSeries]]:
        """Open everything and read what the live window starts with."""
        journal = JournalReader(self._data_dir / JOURNAL_FILE)
        self._archive_store = ArchiveStore(
            self._data_dir / ARCHIVE_DIR, log=self._log, faults=self._faults
        )
        # If that is not possible, the keeper tries again and says why.
        with contextlib.suppress(OceanError):
            self._archive_store.open(journal.epoch, journal.losses().trimmed_up_to)
        source = self._whole(journal)
        self._store = AnalyticsStore(
            self._data_dir / ANALYTICS_FILE,
            memory_limit_mb=self._settings.analytics.memory_limit_mb,
            threads=self._settings.analytics.threads,
            clock=self._clock,
            log=self._log,
            faults=self._faults,
        )
        # On a new box readings may come before this: that is a start, not a rebuild.
        mark = read_mark(self._data_dir / MARK_FILE)
        is_start = mark is None and source.last_id() <= limits.MOVER_ROWS_PER_DRAIN
        opened = self._store.open(source.epoch, journal_empty=is_start)
        window = LiveWindow(
            bytes_max=self._settings.analytics.live_window_mb * limits.MIB,
            ring_rows=limits.LIVE_RING_ROWS,
        )
        series = self._store.series()
        window.warm(self._store, series)
        opened = self._continued(opened, is_start=is_start)
        return source, opened, window, series

    def _continued(self, opened: Opened, *, is_start: bool) -> Opened:
        """Take up a rebuild that the process before this one did not finish.

        Without the note an index of which half is there would pass for a whole one.
        """
        try:
            if opened.rebuild_reason not in (None, "new"):
                self._rebuilding.write_text(opened.rebuild_reason, encoding="utf-8")
            elif self._rebuilding.exists() or (opened.watermark == 0 and not is_start):
                opened = Opened("continued", opened.watermark)
        except OSError as error:
            self._log.warning("runtime.background_failed", task="rebuild note", error=str(error))
        self._is_rebuild = opened.rebuild_reason not in (None, "new")
        return opened

    def _whole(self, journal: JournalReader) -> WholeSource:
        return WholeSource(journal, self._archive_store, self._part_damaged)

    def _part_damaged(self, part: Part) -> None:
        self._log.error("archive.part_damaged", part=part.name, rows=part.rows)
        self._metrics.add("ocean_archive_damaged_parts_total", 1)

    async def _serve(
        self,
        source: WholeSource,
        opened: Opened,
        window: LiveWindow,
        series: list[NewSeries],
    ) -> int:
        store = self._store
        self._mover = self._make_mover(source, store, window, opened.rebuild_reason, series)
        self._archive = self._make_archive(store, self._mover)
        self._work = WorkRunner(
            self._archive.work(),
            lambda message: self._on_loop(self._channel.send, message),
            clock=self._clock,
            log=self._log,
        )
        if self._rules is not None:
            self._mover.set_rules(self._rules)
        self._engine = engine = QueryEngine(
            store,
            window,
            self._clock,
            self._settings.analytics.query_timeout_s,
            on_damage=lambda reason: self._on_loop(self._store_damaged, reason),
            verifier=self._make_verifier(store),
        )
        engine.use_names(self._mover.names)
        self._answering = Answering(
            engine=engine,
            mover=self._mover,
            waiters=self._waiters,
            threads=self._threads,
            clock=self._clock,
            log=self._log,
            metrics=self._metrics,
            query_timeout_s=self._settings.analytics.query_timeout_s,
        )
        if self._rules is not None and list(self._mover.names.rules) != self._rules:
            self._answering.names_changing()
        reason = opened.rebuild_reason if opened.rebuild_reason not in (None, "new") else ""
        if reason:
            why = reason if reason in ("missing", "continued") else "unusable"
            self._metrics.add("ocean_pipeline_rebuilds_total", 1, why)
        self._channel.send(Hello(os.getpid(), source.epoch, opened.watermark, reason or ""))
        self._tell_series([entry.name for entry in series])
        self._mover.start()
        self._archive.keeper.start()
        if self._scrub:
            self._scrubber.start()
        reporting = self._loop.create_task(self._report())
        await self._ended.wait()
        reporting.cancel()
        queries_ended = await self._end_queries(self._answering)
        self._work.stop()
        self._scrubber.stop(STOP_SCRUB_S)
        keeper_ended = await self._loop.run_in_executor(
            None, self._archive.keeper.stop, STOP_MOVER_S
        )
        if not keeper_ended:
            self._log.warning("runtime.background_failed", task="keeper", error="does not end")
        mover_ended = await self._loop.run_in_executor(None, self._mover.stop, STOP_MOVER_S)
        if queries_ended and mover_ended and self._exit_code != EXIT_DAMAGED:
            store.close()
        if mover_ended:
            source.close()
        self._channel.close()
        return self._exit_code

    async def _end_queries(self, answering: Answering) -> bool:
        """Interrupt what runs; return whether it heeded that."""
        answering.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._answers:
            _, running = await asyncio.wait(self._answers, timeout=STOP_QUERIES_S)
            self.is_stuck = bool(running)
        return not self.is_stuck

    def _make_archive(self, store: AnalyticsStore, mover: Mover) -> ArchiveSide:
        on_loop = self._on_loop
        return ArchiveSide(
            self._data_dir,
            self._archive_store,
            watermark=store.watermark,
            names=lambda: mover.names,
            send=lambda message: on_loop(self._channel.send, message),
            on_damage=lambda ranges: on_loop(self._journal_blocks_damaged, ranges),
            on_change=lambda: on_loop(self._changed.set),
            clock=self._clock,
            log=self._log,
            metrics=self._metrics,
            faults=self._faults,
        )

    def _make_verifier(self, store: AnalyticsStore) -> Verifier:
        on_loop = self._on_loop
        return Verifier(
            store,
            lambda: self._whole(JournalReader(self._data_dir / JOURNAL_FILE)),
            self._clock,
            VerifyCallbacks(
                on_difference=lambda reason: on_loop(self._rows_differ, reason),
                on_damage=lambda ranges: on_loop(self._journal_blocks_damaged, ranges),
                on_journal_error=lambda error: on_loop(self._journal_unreadable, error),
            ),
        )

    def _tell_series(self, names: Sequence[SeriesName]) -> None:
        for start in range(0, len(names), SERIES_NAMES_MAX):
            self._channel.send(SeriesKnown(list(names[start : start + SERIES_NAMES_MAX])))

    def _make_mover(
        self,
        source: WholeSource,
        store: AnalyticsStore,
        window: LiveWindow,
        rebuild_reason: str | None,
        series: Sequence[NewSeries],
    ) -> Mover:
        settings = self._settings.analytics
        on_loop = self._on_loop
        mark = MarkFile(self._data_dir / MARK_FILE, faults=self._faults)
        return Mover(
            source,
            store,
            window,
            mark_writer=mark.write,
            clock=self._clock,
            log=self._log,
            metrics=self._metrics,
            faults=self._faults,
            callbacks=MoverCallbacks(
                on_commit=lambda watermark: on_loop(self._moved, watermark),
                on_series=lambda names: on_loop(self._tell_series, names),
                on_damage=lambda ranges: on_loop(self._journal_blocks_damaged, ranges),
                on_names=self._names_changed,
                on_rules=lambda last, counts: on_loop(self._rules_applied, last, counts),
                on_rules_lost=lambda told: on_loop(self._channel.send, RulesLost(told)),
                on_source_error=lambda error: on_loop(self._journal_unreadable, error),
                on_store_damaged=lambda reason: on_loop(self._store_damaged, reason),
                on_watermark_ahead=lambda first, last: on_loop(self._ahead, first, last),
                on_crash=lambda reason: on_loop(self._mover_crashed, reason),
            ),
            settings=MoverSettings(
                interval_active_ms=settings.drain_interval_active_ms,
                interval_idle_s=settings.drain_interval_idle_s,
            ),
            rebuild_reason=rebuild_reason,
            series=series,
            rules_wait_s=RULES_WAIT_S,
        )

    def _on_loop(self, function: object, *arguments: object) -> None:
        """Run a callback of the mover's thread on the loop."""
        self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _receive(self, message: Message) -> None:
        match message:
            case Query():
                task = self._loop.create_task(self._answer(message))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
            case Head():
                if self._answering is not None:
                    self._mover.notify(message.head_id)
            case Rules():
                self._rules = message.rules
                if self._answering is not None:
                    self._answering.names_changing()
                    self._mover.set_rules(message.rules)
            case Work():
                self._work.begin(message)
            case CancelWork():
                self._work.cancel(message)
            case Stop():
                self._ended.set()
            case _:
                raise AssertionError(f"not for this end: {type(message).__name__}")

    async def _answer(self, query: Query) -> None:
        assert self._answering is not None, "queries come after our hello"
        self._channel.send(await self._answering.answer(query))

    def _moved(self, watermark: int) -> None:
        self._waiters.reached(watermark)
        self._archive.keeper.wake()
        self._changed.set()

    def _rules_applied(self, up_to_rule: int, forgotten: dict[int, int]) -> None:
        self._channel.send(RulesApplied(up_to_rule, forgotten))
        self._changed.set()

    def _names_changed(self, names: Names) -> None:
        # In the mover's thread: answers must know before anybody is told that it is done.
        self._engine.use_names(names)
        self._on_loop(self._names_followed, names)

    def _names_followed(self, names: Names) -> None:
        if self._answering is not None and list(names.rules) == self._rules:
            self._answering.names_settled()

    def _journal_blocks_damaged(self, ranges: list[IdRange]) -> None:
        self._channel.send(Damage([(found.first, found.last) for found in ranges]))

    def _journal_unreadable(self, error: Exception) -> None:
        if isinstance(error, StoreCorruptError):
            self._channel.send(JournalDamaged(error.detail))

    def _mover_crashed(self, reason: str) -> None:
        """End: the supervisor starts a process that begins where the watermark stands."""
        self._log.error("analytics.mover_failed", reason=reason)
        self._exit_code = EXIT_CRASHED
        self._ended.set()

    def _ahead(self, first: int, last: int) -> None:
        self._channel.send(WatermarkAhead(first, last))

    def _store_damaged(self, reason: str) -> None:
        """End, with the store's note for the next start: DuckDB cannot be reopened in place."""
        self._log.error("analytics.damaged", reason=reason, rebuild=self._store.is_suspect)
        self._metrics.add("ocean_database_errors_total", 1, "analytics")
        self._exit_code = EXIT_DAMAGED
        self._ended.set()

    def _rows_differ(self, reason: str) -> None:
        """Begin to rebuild, but let whoever verifies step by step hear all of it before."""
        now = self._loop.time()
        if self._rebuild_timer is None:
            self._rebuild_by = now + REBUILD_DELAY_MAX_S
        else:
            self._rebuild_timer.cancel()
        due = min(now + REBUILD_DELAY_S, self._rebuild_by)
        self._rebuild_timer = self._loop.call_at(due, self._store_damaged, reason)

    async def _report(self) -> None:
        """Tell the ingest process how things are: soon after a change, and as a sign of life."""
        freed_at = 0
        while True:
            progress = self._mover.progress()
            samples, histograms = self._metrics.samples()
            self._channel.send(
                Report(
                    progress.watermark,
                    progress.rebuilding,
                    progress.rebuild_target,
                    int(self._metrics.value("ocean_storage_series")),
                    samples,
                    histograms,
                    progress.trouble,
                    self._archive.state(),
                )
            )
            if self._is_rebuild and not progress.rebuilding and progress.watermark:
                self._is_rebuild = False
                self._rebuilding.unlink(missing_ok=True)
            self._changed.clear()
            await asyncio.sleep(REPORT_MIN_S)
            try:
                async with asyncio.timeout(REPORT_MAX_S):
                    await self._changed.wait()
            except TimeoutError:
                # Nothing came for a while: what a flood before has left behind is not needed.
                if progress.watermark - freed_at >= limits.MOVER_ROWS_PER_DRAIN:
                    freed_at = progress.watermark
                    await self._loop.run_in_executor(self._threads, return_freed_memory)
