"""The snapshot: true figures, verdict by alarms and journal, and no fall with a failing disk."""

import asyncio
import io
import shutil
from pathlib import Path

import pytest

from ocean_core.buffer.port import BufferState, IdRange
from ocean_core.config.settings import JournalSettings, Settings
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink, LinkHandlers
from ocean_core.service.messages import Hello, Report
from ocean_core.service.state import BufferView, StateService


class Rig:
    def __init__(self, data_dir: Path, settings: Settings | None = None) -> None:
        self.clock = ManualClock()
        self.stream = io.StringIO()
        log = EventLog(self.clock, stream=self.stream)
        self.metrics = MetricsRegistry(METRICS)
        self.alarms = AlarmBook(self.clock, log, self.metrics)
        self.view = BufferView(BufferState.READY, "", 100, [])
        self.device_bytes: int | None = 4_000_000
        nothing = LinkHandlers(
            hello=lambda _: None,
            series=lambda _: None,
            report=lambda _: None,
            damage=lambda _: None,
            journal_damaged=lambda _: None,
            watermark_ahead=lambda _first, _last: None,
            closed=lambda: None,
        )
        self.link = AnalyticsLink(lambda: 100, 5, nothing)
        self.state = StateService(
            settings=settings or Settings(),
            data_dir=data_dir,
            clock=self.clock,
            metrics=self.metrics,
            alarms=self.alarms,
            link=self.link,
            log=log,
            buffer_view=lambda: self.view,
            count_accounts=self.count_accounts,
            previous_stop="unclean",
            device_bytes=lambda: self.device_bytes,
        )

    async def count_accounts(self) -> None:
        self.metrics.set("ocean_accounts_ready", 1)
        self.metrics.set("ocean_accounts_users", 7)


def test_figures_are_those_of_the_machine_and_the_registry(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"x" * 2_097_152)
    rig = Rig(tmp_path)
    rig.metrics.add("ocean_telemetry_ingested_total", 100)
    rig.link.report = Report(60, False, 0, 3, [], [])
    asyncio.run(rig.state.refresh())
    status = rig.state.status()
    assert (status.status, status.previous_stop) == ("operational", "unclean")
    assert (status.accounts.state, status.accounts.users) == ("ready", 7)
    assert (status.telemetry_buffer_size, status.buffer.depth, status.analytics.series) == (
        40,
        40,
        3,
    )
    assert status.files_mb["journal.db"] == 2.0
    assert status.processes["ingest"].memory_mb > 1
    assert status.memory_usage_mb == status.processes["ingest"].memory_mb
    assert status.disk_free_mb == pytest.approx(shutil.disk_usage(tmp_path).free / 2**20, rel=0.2)
    assert "ocean_buffer_depth_readings 40\n" in rig.state.prometheus()
    assert "not measured yet" in rig.state.measured()["ingest_latency"]


def test_an_alarm_degrades_and_an_unwritable_journal_refuses(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.state.health(ready=True)[0]
    rig.alarms.raise_alarm("disk.low", "1 MiB free")
    assert rig.state.status().status == "degraded"
    rig.view = BufferView(BufferState.FAILED, "disk full", 100, [IdRange(5, 9)])
    status = rig.state.status()
    assert (status.status, status.buffer.missing_readings) == ("refusing", 5)
    assert status.buffer.missing_ranges == [(5, 9)]
    assert rig.state.health(ready=False)[0], "alive all the same"
    well, body = rig.state.health(ready=True)
    assert not well
    assert body["reason"] == "disk full"


def test_a_rebuild_tells_its_progress(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    class Open:
        is_open = True

    rig.link._channel = Open()  # type: ignore[assignment]
    rig.link.hello = Hello(1, "e", 0, "missing")
    rig.link.report = Report(50, True, 200, 0, [], [])
    analytics = rig.state.status().analytics
    assert (analytics.state, analytics.rebuild_percent) == ("rebuilding", 25.0)


def test_a_disk_that_does_not_answer_costs_no_answer(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "gone")
    asyncio.run(rig.state.refresh())
    assert rig.state.health(ready=True)[0]
    assert "runtime.background_failed task=sample" in rig.stream.getvalue()


def test_a_salvaged_journal_is_an_alarm_until_the_damaged_one_is_removed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    damaged = tmp_path / "journal.db.damaged-20260101T000000Z"
    damaged.touch()
    asyncio.run(rig.state.refresh())
    assert [alarm.name for alarm in rig.alarms.open_alarms()] == ["buffer.salvaged"]
    damaged.unlink()
    rig.clock.advance(2)
    asyncio.run(rig.state.refresh())
    assert rig.alarms.open_alarms() == []


def test_reduced_durability_is_shown_everywhere(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Settings(journal=JournalSettings(durability="os")))
    status = rig.state.status()
    assert (status.status, status.buffer.durability) == ("degraded", "os")
    assert [alarm.name for alarm in status.alarms] == ["durability.reduced"]
    assert "ocean_runtime_durability_reduced 1\n" in rig.state.prometheus()


def test_written_bytes_are_told_per_reading_and_for_the_device(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    asyncio.run(rig.state.refresh())
    text = rig.state.prometheus()
    assert "ocean_storage_device_written_bytes_total 4000000\n" in text
    assert "\nocean_storage_written_bytes_per_reading" not in text, "no readings yet"
    rig.metrics.add("ocean_telemetry_ingested_total", 50)
    rig.clock.advance(2)
    asyncio.run(rig.state.refresh())
    flash = rig.state.status().flash
    written = rig.metrics.value("ocean_process_written_bytes", "ingest")
    assert flash.bytes_per_reading == pytest.approx(written / 50, abs=0.1)
    assert flash.device_written_mb == 0
    assert rig.metrics.value("ocean_storage_written_bytes_per_reading") == flash.bytes_per_reading


def test_a_device_that_is_not_counted_is_absent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.device_bytes = None
    asyncio.run(rig.state.refresh())
    assert "\nocean_storage_device_written_bytes_total" not in rig.state.prometheus()
    assert rig.state.status().flash.device_written_mb is None


def test_commits_are_counted_by_their_length(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    commits = rig.metrics.histogram("ocean_buffer_commit_duration_seconds")
    for took_s in (0.0002, 0.0002, 0.004, 99.0):
        commits.observe(took_s)
    found = rig.state.status().ingest.commits_within_ms
    assert (found["0.1"], found["0.25"], found["2.5"], found["5"]) == (0, 2, 2, 3)
    assert (found["10000"], found["more"]) == (3, 4)
