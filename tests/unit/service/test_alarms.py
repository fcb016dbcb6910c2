"""Alarms: raised once, renewed in place, cleared and kept."""

import io

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.alarms import ALARM_KINDS, AlarmBook


def test_an_alarm_is_raised_once_renewed_and_cleared() -> None:
    clock, stream = ManualClock(), io.StringIO()
    metrics = MetricsRegistry(METRICS)
    book = AlarmBook(clock, EventLog(clock, stream=stream), metrics)
    book.raise_alarm("disk.low", "100 MiB")
    raised_at = book.open_alarms()[0].raised_at
    clock.advance(60)
    book.raise_alarm("disk.low", "50 MiB")
    (alarm,) = book.open_alarms()
    assert (alarm.detail, alarm.raised_at) == ("50 MiB", raised_at)
    assert stream.getvalue().count("alarm.raised") == 1
    assert metrics.value("ocean_runtime_alarms_open") == 1
    book.set_alarm("disk.low", active=False)
    book.clear_alarm("disk.low")
    assert book.open_alarms() == []
    assert [cleared.name for cleared in book.cleared_alarms()] == ["disk.low"]
    assert book.cleared_alarms()[0].cleared_at != raised_at
    assert metrics.value("ocean_runtime_alarms_open") == 0


def test_critical_alarms_come_first() -> None:
    clock = ManualClock()
    book = AlarmBook(clock, EventLog(clock, stream=io.StringIO()), MetricsRegistry(METRICS))
    book.raise_alarm("disk.low", "")
    book.raise_alarm("buffer.failed", "")
    assert [alarm.name for alarm in book.open_alarms()] == ["buffer.failed", "disk.low"]


def test_every_alarm_says_what_to_do() -> None:
    for kind in ALARM_KINDS.values():
        assert kind.meaning
        assert kind.next_step
