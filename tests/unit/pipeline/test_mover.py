import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ocean_core.buffer.port import IdRange
from ocean_core.model.errors import BufferUnavailableError, StoreCorruptError
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock, SystemClock
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover, MoverCallbacks
from ocean_core.pipeline.schedule import MoverSettings
from ocean_core.storage.analytics import AnalyticsStore
from support.analytics import EPOCH, FakeSource, drain_all, make_mover, make_store, plain_rows

SMALL = MoverSettings(rows_per_drain=10, rows_per_drain_behind=25)


def opened(folder: Path) -> AnalyticsStore:
    store = make_store(folder)
    store.open(EPOCH)
    return store


def ids(store: AnalyticsStore) -> list[int]:
    found = store.cursor().execute("SELECT id FROM readings ORDER BY rowid").fetchall()
    return [row[0] for row in found]


def source_of(blocks: int, rows: int = 10) -> FakeSource:
    source = FakeSource()
    for _ in range(blocks):
        source.add_rows(plain_rows(rows))
    return source


def test_moves_each_reading_once_in_order_of_ids(tmp_path: Path) -> None:
    store, source, metrics = opened(tmp_path), source_of(10), MetricsRegistry(METRICS)
    source.add_events("door", [b"1"])
    mover = make_mover(source, store, settings=SMALL, metrics=metrics)
    drain_all(mover, source)
    assert ids(store) == list(range(1, 101))
    assert mover.progress().watermark == 101
    assert metrics.value("ocean_pipeline_moved_readings_total") == 101
    assert metrics.value("ocean_pipeline_drains_total") == 5
    assert metrics.value("ocean_storage_series") == 4
    assert metrics.value("ocean_pipeline_live_window_bytes") > 0
    store.close()


@pytest.mark.parametrize("point", ["mark", "mover.before_commit", "mover.after_commit"])
def test_a_crash_at_any_point_neither_loses_nor_doubles(tmp_path: Path, point: str) -> None:
    class Crash(BaseException):
        pass

    class Crashing:
        left = 3

        def hit(self, name: str) -> None:
            if name == point:
                self.left -= 1
                if self.left == 0:
                    raise Crash

    marks: list[int] = []
    faults: Any = Crashing()

    def mark(epoch: str, last_id: int) -> None:
        marks.append(last_id)
        faults.hit("mark")

    source = source_of(10)
    store = make_store(tmp_path, faults=faults)
    store.open(EPOCH)
    with pytest.raises(Crash):
        drain_all(make_mover(source, store, settings=SMALL, mark_writer=mark), source)
    store.close()
    store = make_store(tmp_path)
    assert store.open(EPOCH).watermark <= marks[-1]
    window = LiveWindow()
    window.warm(store)
    drain_all(make_mover(source, store, window, settings=SMALL), source)
    assert ids(store) == list(range(1, 101))
    rolled = "SELECT sum(n)::BIGINT FROM rollup_1m UNION ALL SELECT sum(n)::BIGINT FROM rollup_1h"
    assert store.cursor().execute(rolled).fetchall() == [(100,), (100,)]
    assert sum(state.totals.n for m in window.catalog.values() for state in m.values()) == 100
    assert len(store.series()) == 3
    store.close()


def test_the_mark_is_durable_before_the_commit(tmp_path: Path) -> None:
    store, source = opened(tmp_path), source_of(3)
    seen: list[tuple[int, int]] = []
    mover = make_mover(
        source, store, settings=SMALL,
        mark_writer=lambda epoch, last_id: seen.append((last_id, store.watermark())),
    )  # fmt: skip
    drain_all(mover, source)
    assert seen == [(20, 0), (30, 20)]
    store.close()


def test_damaged_blocks_are_reported_and_passed(tmp_path: Path) -> None:
    store, source, told = opened(tmp_path), source_of(2), list[IdRange]()
    source.damaged = [IdRange(21, 30)]
    mover = make_mover(source, store, callbacks=MoverCallbacks(on_damage=told.extend))
    drain_all(mover, source)
    assert told == [IdRange(21, 30)]
    assert mover.progress().watermark == 30
    store.close()


def test_a_watermark_ahead_of_the_journal_is_reported(tmp_path: Path) -> None:
    store, source, told = opened(tmp_path), source_of(3), list[tuple[int, int]]()
    drain_all(make_mover(source, store), source)
    del source.blocks[1:]
    callbacks = MoverCallbacks(on_watermark_ahead=lambda a, b: told.append((a, b)))
    mover = make_mover(source, store, callbacks=callbacks)
    mover.prepare()
    assert told == [(11, 30)]
    mover.work_once()
    assert ids(store) == list(range(1, 31))
    store.close()


@pytest.mark.parametrize("error", [StoreCorruptError("torn"), BufferUnavailableError("away")])
def test_a_journal_that_cannot_be_read_is_tried_again_later(
    tmp_path: Path, error: Exception
) -> None:
    clock, told = ManualClock(), list[Exception]()
    store, source = opened(tmp_path), source_of(2)
    mover = make_mover(
        source, store, clock=clock, callbacks=MoverCallbacks(on_source_error=told.append)
    )
    source.error = error
    waits = []
    for _ in range(9):
        mover.work_once()
        wait = mover._next_due(clock.monotonic())
        assert wait is not None
        waits.append(wait)
        clock.advance(wait)
    assert told == [error] * 9
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    source.error = None
    mover.work_once()
    mover.work_once()
    assert ids(store) == list(range(1, 21))
    store.close()


def test_out_of_memory_is_tried_again_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, source = opened(tmp_path), source_of(2)
    mover = make_mover(source, store)
    mover.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", raiser(duckdb.OutOfMemoryException("too much")))
        mover.work_once()
    assert mover._rows_max == 100_000
    assert mover.progress().watermark == 0
    mover.work_once()
    assert ids(store) == list(range(1, 21))
    assert [entry.series_id for entry in store.series()] == [1, 2, 3]
    store.close()


def raiser(error: Exception) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("damaged", [True, False])
def test_the_thread_ends_with_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    store, source = opened(tmp_path), source_of(2)
    error = duckdb.IOException("checksum") if damaged else ZeroDivisionError("a fault of ours")
    monkeypatch.setattr(store, "write", raiser(error))
    told: list[str] = []
    reported = threading.Event()

    def report(reason: str) -> None:
        told.append(reason)
        reported.set()

    callbacks = (
        MoverCallbacks(on_store_damaged=report) if damaged else MoverCallbacks(on_crash=report)
    )
    mover = make_mover(source, store, callbacks=callbacks, clock=SystemClock())
    mover.start()
    assert reported.wait(30)
    assert mover.stop(30)
    assert str(error) in told[0]
    assert (tmp_path / "analytics.suspect").exists() is damaged
    assert not mover.wait_for(20, 0.0, urgent=True)
    store.close()


def test_rebuild_progress(tmp_path: Path) -> None:
    store, source = opened(tmp_path), source_of(10)
    mover = make_mover(source, store, settings=SMALL, rebuild_reason="missing")
    mover.prepare()
    assert mover.progress() == (0, 100, True, 100)
    mover.drain_once()
    assert mover.progress() == (20, 100, True, 100)
    drain_all(mover, source)
    assert mover.progress() == (100, 100, False, 100)
    store.close()


@pytest.fixture
def running(tmp_path: Path) -> Any:
    store, source = opened(tmp_path), source_of(1)
    mover = make_mover(source, store, clock=SystemClock())
    mover.start()
    yield mover, source, store
    assert mover.stop(30)
    store.close()


def test_waiting_for_an_id_moves_it(running: tuple[Mover, FakeSource, AnalyticsStore]) -> None:
    mover, source, store = running
    assert mover.wait_for(10, 30, urgent=False)
    for urgent in (True, False):
        source.add_rows(plain_rows(5))
        mover.notify(source.last_id())
        mover.touch()
        assert mover.wait_for(source.last_id(), 30, urgent=urgent)
    assert ids(store) == list(range(1, 21))


def test_many_rows_are_moved_without_a_query(
    running: tuple[Mover, FakeSource, AnalyticsStore],
) -> None:
    mover, source, _ = running
    source.add_rows(plain_rows(50_000))
    mover.notify(source.last_id())
    with mover._lock:
        assert mover._done.wait_for(lambda: mover._schedule.watermark >= 50_010, 30)


def test_an_id_that_never_comes_is_not_waited_for_longer(
    running: tuple[Mover, FakeSource, AnalyticsStore],
) -> None:
    mover, source, _ = running
    assert mover.wait_for(10, 30, urgent=True)
    assert not mover.wait_for(1_000_000, 0.05, urgent=True)
    reads = source.reads
    assert not mover.wait_for(1_000_000, 0.05, urgent=True)
    assert source.reads <= reads + 2
