"""How the box is: one snapshot for /health, /api/ocean/status, /metrics and the console."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psutil

from ocean_core import __version__
from ocean_core.buffer.port import BufferState, IdRange
from ocean_core.config.settings import Settings
from ocean_core.model import limits
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import Histogram, MetricsRegistry
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink
from ocean_core.service.flash import DeviceCounter, FlashUse
from ocean_core.service.frames.terms import DUPLICATE, STORED
from ocean_core.service.status import (
    AccountsStatus,
    AnalyticsStatus,
    ArchiveStatus,
    BufferStatus,
    FramesStatus,
    IngestStatus,
    ProcessState,
    SystemStatus,
)

ENGINE: Final = "SQLite (WAL): journal, accounts + DuckDB"
ARCHITECTURE: Final = "one executable: ingest process + analytics process"
DISK_LOW_BYTES: Final = 256 * limits.MIB
SAMPLE_AGE_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 1.0
STORE_FILES: Final = ("journal.db", "analytics.duckdb", "clisonix_operational.db")


class _Sample(NamedTuple):
    """What the operating system says: per process CPU percent, memory, written bytes, and its id."""

    processes: dict[str, tuple[float, int, int, int]]
    device_bytes: int | None
    file_bytes: dict[str, int]
    disk_free_bytes: int
    damaged_journals: list[str]


class BufferView(msgspec.Struct, frozen=True):
    """What the state needs to know of the buffer."""

    state: BufferState
    reason: str
    head_id: int
    missing: list[IdRange]


class StateService:
    """Samples the machine at most once a second, and only when someone looks."""

    def __init__(
        self,
        *,
        settings: Settings,
        data_dir: Path,
        clock: Clock,
        metrics: MetricsRegistry,
        alarms: AlarmBook,
        link: AnalyticsLink,
        log: EventLog,
        buffer_view: Callable[[], BufferView],
        count_accounts: Callable[[], Awaitable[None]],
        previous_stop: str,
        device_bytes: Callable[[], int | None] | None = None,
    ) -> None:
        """``device_bytes`` tells what was written to the disk; None asks the system."""
        self._settings = settings
        self._data_dir = data_dir
        self._clock = clock
        self._metrics = metrics
        self._alarms = alarms
        self._link = link
        self._log = log
        self._buffer_view = buffer_view
        self._count_accounts = count_accounts
        self._previous_stop = previous_stop
        # Where frames are taken over TCP and UDP, once that is known.
        self.frames_at = ("", "")
        self._started = clock.monotonic()
        self._sampled_at = float("-inf")
        self._rate = (clock.monotonic(), 0.0, 0.0)
        self._processes: dict[str, psutil.Process] = {}
        self._probing: asyncio.Future[_Sample] | None = None
        self._flash = FlashUse()
        self._device_bytes = device_bytes or DeviceCounter(data_dir).written_bytes
        reduced = settings.journal.durability == "os"
        metrics.set("ocean_runtime_durability_reduced", int(reduced))
        alarms.set_alarm("durability.reduced", active=reduced, detail="set in the configuration")

    async def refresh(self) -> None:
        """Bring the gauges up to date; cheap when called often.

        The probe runs on a thread of its own, because a dying disk may not answer; then the last
        figures stay.
        """
        now = self._clock.monotonic()
        if now - self._sampled_at < SAMPLE_AGE_S or self._probing is not None:
            return
        self._sampled_at = now
        loop = asyncio.get_running_loop()
        self._probing = loop.run_in_executor(None, self._probe)
        self._probing.add_done_callback(self._take_over)
        waited: set[asyncio.Future[Any]] = {
            self._probing,
            asyncio.ensure_future(self._count_accounts()),
        }
        # Waits without raising: a probe that fails is told by ``_take_over``.
        await asyncio.wait(waited, timeout=PROBE_TIMEOUT_S)

    def _probe(self) -> _Sample:
        """Ask the operating system. Runs on a thread."""
        processes: dict[str, tuple[float, int, int, int]] = {}
        for name, process in self._watched():
            try:
                with process.oneshot():
                    processes[name] = (
                        process.cpu_percent(),
                        process.memory_info().rss,
                        process.io_counters().write_bytes,
                        process.pid,
                    )
            except psutil.Error:
                self._processes.pop(name, None)
        return _Sample(
            processes,
            self._device_bytes(),
            {file: self._file_bytes(file) for file in STORE_FILES},
            shutil.disk_usage(self._data_dir).free,
            sorted(path.name for path in self._data_dir.glob("journal.db.damaged-*")),
        )

    def _take_over(self, probing: asyncio.Future[_Sample]) -> None:
        self._probing = None
        if probing.cancelled() or probing.exception() is not None:
            reason = "cancelled" if probing.cancelled() else repr(probing.exception())
            self._log.warning("runtime.background_failed", task="sample", error=reason)
            return
        sample = probing.result()
        metrics = self._metrics
        for name, (cpu, memory, written, _) in sample.processes.items():
            metrics.set("ocean_cpu_usage_percent", cpu, name)
            metrics.set("ocean_memory_usage_bytes", memory, name)
            metrics.set("ocean_process_written_bytes", written, name)
        self._note_written(sample)
        for file, size in sample.file_bytes.items():
            metrics.set("ocean_storage_file_bytes", size, file)
        free = sample.disk_free_bytes
        metrics.set("ocean_storage_disk_free_bytes", free)
        self._alarms.set_alarm(
            "disk.low", active=free < DISK_LOW_BYTES, detail=f"{free // limits.MIB} MiB free"
        )
        damaged = sample.damaged_journals
        self._alarms.set_alarm(
            "buffer.salvaged", active=bool(damaged), detail="kept: " + ", ".join(damaged)
        )
        now = self._clock.monotonic()
        metrics.set("ocean_buffer_depth_readings", self._depth(self._buffer_view()))
        metrics.set("ocean_runtime_uptime_seconds", round(now - self._started, 3))
        then, count, _ = self._rate
        stored = metrics.value("ocean_telemetry_ingested_total")
        self._rate = (now, stored, (stored - count) / max(now - then, 1e-9))

    def _note_written(self, sample: _Sample) -> None:
        flash, metrics = self._flash, self._metrics
        flash.note(
            {name: (pid, written) for name, (_, _, written, pid) in sample.processes.items()},
            sample.device_bytes,
        )
        if flash.device_bytes is not None:
            metrics.set("ocean_storage_device_written_bytes_total", flash.device_bytes)
        per_reading = flash.per_reading(metrics.value("ocean_telemetry_ingested_total"))
        if per_reading is not None:
            metrics.set("ocean_storage_written_bytes_per_reading", round(per_reading, 1))

    def health(self, *, ready: bool) -> tuple[bool, dict[str, Any]]:
        """Return whether the box is well, and the body of /health.

        Alive is enough unless ``ready``: then the journal must be writable.
        """
        view = self._buffer_view()
        well = not ready or view.state == BufferState.READY
        return well, {
            "status": "✓ healthy" if well else "✗ not ready",
            "engine": "ultra-light",
            "architecture": ARCHITECTURE,
            "cpu_mode": "efficient",
            "telemetry_buffer": self._depth(view),
            "db_size_mb": round(sum(self._files_mb().values()), 3),
            "timestamp": iso_utc(self._clock.now_us()),
            "ready": view.state == BufferState.READY,
            "reason": view.reason,
        }

    def status(self) -> SystemStatus:
        """Return everything the box knows of itself."""
        metrics = self._metrics
        view = self._buffer_view()
        memory = metrics.total("ocean_memory_usage_bytes")
        commits = metrics.histogram("ocean_buffer_commit_duration_seconds")
        alarms = self._alarms.open_alarms()
        ready = view.state == BufferState.READY
        return SystemStatus(
            status="operational" if ready and not alarms else ("degraded" if ready else "refusing"),
            cpu_efficient=metrics.total("ocean_cpu_usage_percent") < 100,
            engine=ENGINE,
            telemetry_buffer_size=self._depth(view),
            memory_usage_mb=round(memory / limits.MIB, 1),
            version=__version__,
            timestamp=iso_utc(self._clock.now_us()),
            uptime_seconds=round(self._clock.monotonic() - self._started, 1),
            data_dir=str(self._data_dir),
            previous_stop=self._previous_stop,
            buffer=self._buffer_status(view),
            analytics=self._analytics_status(),
            archive=self._archive_status(),
            accounts=self._accounts_status(),
            ingest=IngestStatus(
                acknowledged=int(metrics.value("ocean_telemetry_ingested_total")),
                duplicates=int(metrics.value("ocean_telemetry_duplicate_total")),
                refused=int(metrics.total("ocean_telemetry_refused_total")),
                readings_per_second=round(self._rate[2], 1),
                commit_ms_p50=_milliseconds(commits, 0.5),
                commit_ms_p99=_milliseconds(commits, 0.99),
                commits_within_ms=_counted_within(commits),
            ),
            frames=self._frames_status(),
            processes={
                name: ProcessState(
                    process.pid,
                    metrics.value("ocean_cpu_usage_percent", name),
                    round(metrics.value("ocean_memory_usage_bytes", name) / limits.MIB, 1),
                )
                for name, process in list(self._processes.items())
            },
            flash=self._flash.status(
                metrics.value("ocean_telemetry_ingested_total"),
                self._clock.monotonic() - self._started,
            ),
            files_mb=self._files_mb(),
            disk_free_mb=round(metrics.value("ocean_storage_disk_free_bytes") / limits.MIB, 1),
            clock_synchronised=self._clock.synchronised(),
            alarms=alarms,
        )

    def prometheus(self) -> str:
        """Return the text for /metrics."""
        return self._metrics.render()

    def measured(self) -> dict[str, Any]:
        """Return the figures of /api/ocean/docs: measured on this box since the start."""
        metrics = self._metrics
        route = "/api/ocean/analytics/sensor/{sensor_id}"
        return {
            "cpu_usage": f"{metrics.total('ocean_cpu_usage_percent'):.1f} % of one core",
            "query_latency": {
                name: self._told(f"GET {route}/{name}")
                for name in ("stats", "timeseries", "anomalies")
            },
            "throughput": f"{self._rate[2]:.0f} readings/s in the last sample",
            "memory_efficiency": f"{metrics.total('ocean_memory_usage_bytes') / limits.MIB:.0f} MB",
            "ingest_latency": self._told("POST /api/ocean/telemetry/ingest"),
            "batch_latency": self._told("POST /api/ocean/telemetry/batch"),
            "commit_latency": _told(metrics.histogram("ocean_buffer_commit_duration_seconds")),
        }

    def _told(self, route: str) -> str:
        return _told(self._metrics.histogram("ocean_request_duration_seconds", route))

    def _buffer_status(self, view: BufferView) -> BufferStatus:
        return BufferStatus(
            engine="journal",
            state=view.state,
            reason=view.reason,
            durability=self._settings.journal.durability,
            head_id=view.head_id,
            depth=self._depth(view),
            missing_readings=sum(found.count for found in view.missing),
            missing_ranges=[
                (found.first, found.last)
                for found in view.missing[: limits.MISSING_RANGES_LISTED_MAX]
            ],
        )

    def _analytics_status(self) -> AnalyticsStatus:
        report = self._link.report
        state, percent = "down", None
        if self._link.is_up:
            state = "up"
            if report is not None and report.rebuilding:
                state = "rebuilding"
                percent = round(100 * report.watermark / max(1, report.rebuild_target), 1)
        return AnalyticsStatus(
            state=state,
            watermark=self._link.watermark,
            series=report.series if report is not None else 0,
            starts=int(self._metrics.value("ocean_runtime_analytics_starts_total")),
            rebuild_percent=percent,
        )

    def _archive_status(self) -> ArchiveStatus | None:
        found = None if self._link.report is None else self._link.report.archive
        if found is None:
            return None
        size = round(found.bytes / limits.MIB, 3)
        return ArchiveStatus(
            found.sealed_up_to, found.parts, found.rows, size, found.oldest, found.newest,
            found.trouble,
        )  # fmt: skip

    def _frames_status(self) -> FramesStatus:
        metrics = self._metrics
        by_outcome = metrics.totals("ocean_nanogridata_frames_total", 2)
        stored = int(by_outcome.pop(STORED, 0))
        duplicates = int(by_outcome.pop(DUPLICATE, 0))
        tcp, udp = self.frames_at
        return FramesStatus(
            tcp=tcp,
            udp=udp,
            connections=int(metrics.value("ocean_nanogridata_connections")),
            stored=stored,
            duplicates=duplicates,
            refused=int(sum(by_outcome.values())),
            skipped_bytes=int(metrics.total("ocean_nanogridata_skipped_bytes_total")),
            quarantined=int(metrics.value("ocean_quarantine_frames")),
        )

    def _accounts_status(self) -> AccountsStatus:
        value = self._metrics.value
        return AccountsStatus(
            state="ready" if value("ocean_accounts_ready") else "failed",
            users=int(value("ocean_accounts_users")),
            sessions=int(value("ocean_accounts_sessions")),
            keys=int(value("ocean_accounts_keys")),
        )

    def _depth(self, view: BufferView) -> int:
        return max(0, view.head_id - self._link.watermark)

    def _watched(self) -> list[tuple[str, psutil.Process]]:
        if "ingest" not in self._processes:
            self._processes["ingest"] = psutil.Process()
        hello = self._link.hello
        known = self._processes.get("analytics")
        if hello is None:
            self._processes.pop("analytics", None)
        elif known is None or known.pid != hello.pid:
            try:
                self._processes["analytics"] = psutil.Process(hello.pid)
            except psutil.Error:
                self._processes.pop("analytics", None)
        return list(self._processes.items())

    def _file_bytes(self, name: str) -> int:
        total = 0
        for suffix in ("", "-wal", ".wal"):
            path = self._data_dir / (name + suffix)
            try:
                total += path.stat().st_size
            except OSError:
                continue
        return total

    def _files_mb(self) -> dict[str, float]:
        value = self._metrics.value
        return {
            file: round(value("ocean_storage_file_bytes", file) / limits.MIB, 3)
            for file in STORE_FILES
        }


def _milliseconds(histogram: Histogram, share: float) -> float | None:
    quantile = histogram.quantile(share)
    return None if quantile is None else quantile * 1000


def _counted_within(histogram: Histogram) -> dict[str, int]:
    """Return counts by upper bound in milliseconds, as text; what took longer counts as "more"."""
    bounds = (*(f"{1000 * bound:g}" for bound in histogram.bounds), "more")
    return dict(zip(bounds, accumulate(histogram.counts), strict=True))


def _told(histogram: Histogram) -> str:
    half, most = _milliseconds(histogram, 0.5), _milliseconds(histogram, 0.99)
    if half is None or most is None:
        return "not measured yet"
    return f"p50 ≤ {half:g} ms, p99 ≤ {most:g} ms over {histogram.count}"
