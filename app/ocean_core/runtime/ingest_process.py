"""The ingest process: takes readings, keeps the journal, supervises analytics.

Ordered start: data directory, lock, port, journal, analytics, HTTP, run.json. Stop is the reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shlex
import signal
import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from ocean_core import __version__
from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.buffer.mark import Mark
from ocean_core.buffer.port import BufferState, IdRange
from ocean_core.config.settings import Settings
from ocean_core.model.errors import (
    OceanError,
    StopTimeoutError,
)
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import Clock, SystemClock, iso_utc
from ocean_core.obs.faults import Faults
from ocean_core.obs.log import EventLog, LogBridge
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.accounts import Accounts
from ocean_core.runtime.frames import (
    FrameRules,
    Frames,
    FrameSockets,
    bind_frames,
    read_rules,
)
from ocean_core.runtime.http_server import HttpServer
from ocean_core.runtime.listeners import (
    Listener,
    bind_listeners,
    look_after,
    prepare_tls,
    run_info,
    startup_lines,
)
from ocean_core.runtime.lock import InstanceLock, prepare_data_dir
from ocean_core.runtime.process import (
    die_with_parent,
    is_frozen,
    keep_freed_memory,
    look_for_garbage_rarely,
)
from ocean_core.runtime.supervisor import Supervisor
from ocean_core.runtime.trimming import JournalTrimmer
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink, LinkHandlers
from ocean_core.service.jobs import JobBook
from ocean_core.service.messages import Hello, Report
from ocean_core.service.series_quota import SeriesQuota
from ocean_core.service.state import BufferView, StateService
from ocean_core.storage.archive.manifest import ARCHIVE_DIR, load_manifest

JOURNAL_FILE: Final = "journal.db"
MARK_FILE: Final = "analytics.mark"
TICK_S: Final = 10.0
HEAD_INTERVAL_S: Final = 0.05
OPEN_JOURNAL_FIRST_S: Final = 0.25


def serve(settings: Settings, *, clock: Clock | None = None) -> int:
    """Run the appliance until SIGTERM or SIGINT; return the exit code.

    Raises ConfigError, DataDirError, AlreadyRunningError or PortError before anything is started.
    """
    # Readings and accounts are nobody's business but the owner's.
    os.umask(0o077)
    keep_freed_memory()
    clock = clock if clock is not None else SystemClock()
    log = EventLog(clock, level=settings.log.level, as_json=settings.log.format == "json")
    tls = prepare_tls(settings, clock, log)
    data_dir = prepare_data_dir(Path(settings.data.dir))
    lock = InstanceLock(data_dir)
    was_clean = lock.acquire()
    try:
        rules = read_rules(settings, data_dir, clock, log)
        listeners = bind_listeners(settings, tls)
        try:
            sockets = bind_frames(settings.nanogridata)
        except BaseException:
            for listener in listeners:
                listener.socket.close()
            raise
    except BaseException:
        # Nothing was touched: leave the marker of the run before as it is.
        lock.release(clean=False)
        raise
    process = IngestProcess(settings, data_dir, clock, log, lock, rules, was_clean=was_clean)
    # A child of the single file's launcher goes when the launcher is killed.
    if is_frozen() and not die_with_parent(os.getppid(), signal.SIGTERM):
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(process.run(listeners, sockets))


@dataclass
class _BufferCondition:
    """The last thing the journal said about its state."""

    state: BufferState = BufferState.OPENING
    reason: str = ""


class IngestProcess:
    """Wires the parts of the ingest process together and runs them."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        clock: Clock,
        log: EventLog,
        lock: InstanceLock,
        rules: FrameRules,
        *,
        was_clean: bool,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._clock = clock
        self._log = log
        self._lock = lock
        self._was_clean = was_clean
        self._rules = rules
        self._metrics = MetricsRegistry(METRICS)
        self._alarms = AlarmBook(clock, log, self._metrics)
        self._condition = _BufferCondition()
        self._stop = asyncio.Event()
        self._head_timer: asyncio.TimerHandle | None = None
        self._quota = SeriesQuota(settings.ingest, self._shown_name)
        self._analytics_stopped = True
        self._is_published = False
        self._listeners: Sequence[Listener] = ()
        self._sockets = FrameSockets(None, None)
        self._noting: asyncio.Task[None] | None = None
        self._journal = self._make_journal()
        self._trimmer = JournalTrimmer(self._journal, log)
        self._jobs = JobBook(clock, log, new_id=lambda: str(uuid.uuid4()))
        self._link = self._make_link()
        self._supervisor = self._make_supervisor()
        self._accounts = Accounts(
            settings,
            data_dir,
            clock=clock,
            log=log,
            metrics=self._metrics,
            alarms=self._alarms,
            journal=self._journal,
            link=self._link,
            was_clean=was_clean,
        )
        self._accounts.quarantine.counted_as = self._quota.counted_as
        self._frames = self._make_frames()
        self._state = StateService(
            settings=settings,
            data_dir=data_dir,
            clock=clock,
            metrics=self._metrics,
            alarms=self._alarms,
            link=self._link,
            log=log,
            buffer_view=self._buffer_view,
            count_accounts=self._accounts.count,
            previous_stop="clean" if was_clean else "unclean",
        )

    def _make_journal(self) -> EmbeddedJournal:
        settings = self._settings
        return EmbeddedJournal(
            JournalSettings(
                path=self._data_dir / JOURNAL_FILE,
                clock=self._clock,
                random_bytes=os.urandom,
                log=self._log,
                metrics=self._metrics,
                faults=Faults.from_environment(),
                durability=settings.journal.durability,
                commit_delay_ms=settings.journal.commit_delay_ms,
                idempotency_kept_s=settings.ingest.idempotency_hours * 3600,
                idempotency_keys_max=settings.ingest.idempotency_keys_max,
                mark_path=self._data_dir / MARK_FILE,
                archived=self._archived(),
                frames_kept_s=self._rules.models.window_s,
            ),
            on_commit=self._committed,
            on_state=self._buffer_changed,
        )

    def _archived(self) -> Mark | None:
        """Return up to which id the archive holds everything, if it can be read."""
        try:
            manifest = load_manifest(self._data_dir / ARCHIVE_DIR).manifest
        except (OceanError, OSError) as error:
            # Analytics, who own it, tell why and what to do.
            self._log.warning("archive.failed", work="read", reason=str(error), retry_s="no")
            return None
        return None if manifest is None else Mark(manifest.epoch, manifest.sealed_up_to)

    def _make_frames(self) -> Frames:
        return Frames(
            self._settings,
            self._rules,
            clock=self._clock,
            log=self._log,
            metrics=self._metrics,
            alarms=self._alarms,
            journal=self._journal,
            accounts=self._accounts,
            quota=self._quota,
        )

    def _make_link(self) -> AnalyticsLink:
        return AnalyticsLink(
            lambda: self._journal.head_id,
            self._settings.analytics.query_timeout_s,
            LinkHandlers(
                hello=self._hello,
                series=self._quota.learn,
                report=self._reported,
                damage=self._damage_found,
                journal_damaged=self._journal.report_corruption,
                watermark_ahead=self._watermark_ahead,
                closed=self._hung_up,
                sealed=self._trimmer.sealed,
                rules_lost=lambda told: self._alarms.raise_alarm("sensors.unforgotten", told),
            ),
            # They are known once the operational store is open.
            rules=None,
        )

    def _make_supervisor(self) -> Supervisor:
        return Supervisor(
            arguments=[
                "--data-dir", str(self._data_dir),
                "--settings", msgspec.json.encode(self._settings).decode(),
                *([] if self._was_clean else ["--scrub"]),
            ],
            link=self._link,
            clock=self._clock,
            log=self._log,
            metrics=self._metrics,
            alarms=self._alarms,
        )  # fmt: skip

    async def run(self, listeners: Sequence[Listener], sockets: FrameSockets) -> int:
        """Start, serve until asked to stop, stop; return the exit code.

        Raises StoreVersionError if the journal was written by a newer version.
        """
        self._watch_signals()
        logging.getLogger("uvicorn").addHandler(LogBridge(self._log, "api.server_message"))
        if not self._was_clean:
            self._log.warning("runtime.unclean_stop", data_dir=str(self._data_dir))
        self._listeners, self._sockets = listeners, sockets
        self._state.frames_at = sockets.tcp_address, sockets.udp_address
        self._publish()
        # What a start that fails leaves behind is what it found.
        clean = self._was_clean
        try:
            async with AsyncExitStack() as stop_in_reverse:
                await self._start(stop_in_reverse)
                self._announce()
                await self._stop.wait()
                self._log.info("runtime.stopping")
            clean = self._analytics_stopped
        finally:
            # Refusals that could not be written make the ledger too low, as an unclean stop does.
            self._lock.release(clean=clean and self._accounts.ledger.is_written)
        if not clean:
            raise StopTimeoutError("the analytics process did not end in time")
        self._log.info("runtime.stopped")
        return 0

    async def _start(self, stop_in_reverse: AsyncExitStack) -> None:
        """Journal, analytics, HTTP; each with its end pushed for the stop.

        A journal that takes long, because it is being salvaged, does not keep the port shut:
        state can be asked for, readings are refused with a reason.
        """
        loop = asyncio.get_running_loop()
        stop_in_reverse.callback(self._link.close)
        opening = loop.create_task(self._journal.open())
        stop_in_reverse.push_async_callback(self._journal.close)
        await asyncio.wait({opening}, timeout=OPEN_JOURNAL_FIRST_S)
        stop_in_reverse.push_async_callback(self._accounts.close)
        stop_in_reverse.push_async_callback(self._trimmer.close)
        stop_in_reverse.push_async_callback(self._stop_analytics)
        stop_in_reverse.push_async_callback(self._jobs.close)
        if opening.done():
            await opening
            await self._accounts.open()
            await self._supervisor.start()
        decoders = ThreadPoolExecutor(1, thread_name_prefix="decode")
        stop_in_reverse.callback(decoders.shutdown, wait=False, cancel_futures=True)
        server = self._make_server(decoders)
        await server.open(self._listeners)
        # All that lives as long as the process need not be looked through for garbage again.
        gc.collect()
        gc.freeze()
        look_for_garbage_rarely()
        stop_in_reverse.push_async_callback(server.close)
        await self._frames.listen(self._sockets)
        stop_in_reverse.push_async_callback(self._frames.close)
        await look_after(self._listeners, self._alarms)
        if not opening.done():
            await self._finish_opening(opening)
        # Until it is known which frames came before, none is taken.
        await self._frames.service.tick()
        self._show_missing()
        ticking = loop.create_task(self._tick())
        stop_in_reverse.callback(ticking.cancel)

    async def _finish_opening(self, opening: asyncio.Task[None]) -> None:
        stopping = asyncio.get_running_loop().create_task(self._stop.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if opening.done():
            await opening
            await self._accounts.open()
            await self._supervisor.start()

    async def _stop_analytics(self) -> None:
        self._analytics_stopped = await self._supervisor.stop()

    def _make_server(self, decoders: ThreadPoolExecutor) -> HttpServer:
        # Litestar takes a fifth of a second to import: analytics start in the meantime.
        from ocean_core.runtime.serving import Parts, make_ingest, make_server

        parts = Parts(
            settings=self._settings,
            clock=self._clock,
            log=self._log,
            metrics=self._metrics,
            alarms=self._alarms,
            journal=self._journal,
            link=self._link,
            accounts=self._accounts,
            state=self._state,
            quota=self._quota,
            frames=self._frames.service,
            jobs=self._jobs,
        )
        self._ingest = make_ingest(parts, decoders)
        return make_server(parts, self._ingest)

    def _publish(self) -> None:
        started = iso_utc(self._clock.now_us())
        sockets = self._sockets
        info = run_info(
            self._listeners,
            str(self._data_dir),
            started,
            sockets.tcp_address,
            sockets.udp_address,
        )
        try:
            self._lock.publish(info)
            self._is_published = True
        except OSError as error:
            # On a full disk the box still starts, to answer queries and to say what is wrong.
            self._log.warning("runtime.background_failed", task="run.json", error=str(error))

    def _announce(self) -> None:
        durability = self._settings.journal.durability
        url, *more = [listener.url for listener in self._listeners]
        self._log.info(
            "runtime.started",
            url=url,
            network_url=", ".join(more) or "none",
            data_dir=str(self._data_dir),
            durability=durability,
            previous_stop="clean" if self._was_clean else "unclean",
        )
        if self._settings.log.format == "text":
            meaning = (
                "acknowledged readings survive a power cut"
                if durability == "fsync"
                else "WARNING: a power cut may lose acknowledged readings"
            )
            trusts = self._settings.access.trust_loopback
            lines = (
                f"Ocean Core {__version__} listens on {url}",
                f"  data in {self._data_dir}",
                f"  durability {durability}: {meaning}",
                *(
                    f"  {line}"
                    for line in startup_lines(
                        self._listeners, trust_loopback=trusts, frames_exposed=self._sockets.exposed
                    )
                ),
                *(f"  {line}" for line in self._sockets.startup_lines(self._settings.nanogridata)),
                *self._no_key_yet(),
                f"  stop with Ctrl-C; how it is: ocean status --data-dir {shlex.quote(str(self._data_dir))}",
            )
            # Where nobody can read it, it need not be written.
            with contextlib.suppress(OSError):
                sys.stderr.write("\n".join(lines) + "\n")
                sys.stderr.flush()

    def _no_key_yet(self) -> list[str]:
        """Tell when other machines are served and nobody could get in."""
        is_open = any(not listener.info.trusted for listener in self._listeners)
        if not is_open or not self._accounts.keys.is_loaded or self._accounts.keys.any_active():
            return []
        return ["  there is no key yet: `ocean keys create --name NAME --scope ingest` makes one"]

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop.set)
        # A closed terminal is no reason to stop taking readings in an orderly way.
        loop.add_signal_handler(signal.SIGHUP, self._stop.set)

    async def _tick(self) -> None:
        parent = os.getppid()
        while True:
            await asyncio.sleep(TICK_S)
            if is_frozen() and os.getppid() != parent:
                self._log.warning("runtime.parent_gone")
                self._stop.set()
            if not self._is_published:
                self._publish()
            self._supervisor.check()
            await self._state.refresh()
            self._ingest.clear_quiet_alarms()
            await look_after(self._listeners, self._alarms)
            await self._accounts.tick()
            await self._frames.tick()
            self._trimmer.tick()
            self._show_missing()

    # What the journal says (always on the event loop).

    def _committed(self, _head_id: int) -> None:
        # One message per burst is enough: the mover reads everything there is.
        if self._head_timer is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(HEAD_INTERVAL_S, self._tell_head)

    def _tell_head(self) -> None:
        self._head_timer = None
        self._link.tell_head(self._journal.head_id)

    def _buffer_changed(self, state: BufferState, reason: str) -> None:
        self._condition = _BufferCondition(state, reason)
        failed = state in (BufferState.FAILED, BufferState.SALVAGING)
        self._alarms.set_alarm("buffer.failed", active=failed, detail=reason)

    def _buffer_view(self) -> BufferView:
        return BufferView(
            self._journal.state,
            self._condition.reason,
            self._journal.head_id,
            list(self._journal.missing_ranges()),
        )

    def _show_missing(self) -> None:
        missing = list(self._journal.missing_ranges())
        if missing:
            self._alarms.raise_alarm("readings.missing", _told(missing))
        evicted = self._metrics.value("ocean_buffer_idempotency_evicted_total")
        if evicted:
            self._alarms.raise_alarm("idempotency.shortened", f"{int(evicted)} keys so far")

    # What analytics say.

    def _shown_name(self, sensor_id: str) -> str:
        return self._link.names.shown(sensor_id)

    def _hello(self, hello: Hello) -> None:
        self._supervisor.heard(hello=True)
        self._link.tell_head(self._journal.head_id)
        if hello.rebuild_reason:
            self._alarms.raise_alarm("analytics.rebuilding", hello.rebuild_reason)

    def _reported(self, report: Report) -> None:
        self._supervisor.heard()
        self._metrics.adopt(report.samples, report.histograms)
        self._alarms.set_alarm(
            "analytics.stuck", active=bool(report.trouble), detail=report.trouble
        )
        archive_trouble = "" if report.archive is None else report.archive.trouble
        self._alarms.set_alarm(
            "archive.stuck", active=bool(archive_trouble), detail=archive_trouble
        )
        if not report.rebuilding:
            self._alarms.clear_alarm("analytics.rebuilding")

    def _hung_up(self) -> None:
        self._supervisor.closed()

    def _damage_found(self, ranges: list[tuple[int, int]]) -> None:
        self._journal.report_damage([IdRange(first, last) for first, last in ranges])
        self._noting = asyncio.get_running_loop().create_task(self._note_damage())

    async def _note_damage(self) -> None:
        """Raise the alarm as soon as the journal knows what is lost, not at the next tick."""
        with contextlib.suppress(OceanError):
            await self._journal.settled()
        self._show_missing()

    def _watermark_ahead(self, first: int, last: int) -> None:
        self._log.error("buffer.readings_missing", first=first, last=last, seen_by="analytics")
        self._alarms.raise_alarm("readings.missing", f"{first}-{last}, seen by analytics")


def _told(missing: list[IdRange]) -> str:
    count = sum(found.count for found in missing)
    shown = ", ".join(f"{found.first}-{found.last}" for found in missing[:10])
    more = f" and {len(missing) - 10} more ranges" if len(missing) > 10 else ""
    return f"{count} acknowledged readings missing: ids {shown}{more}"
