import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ocean_core.buffer.port import IdRange
from ocean_core.model.block import SeriesName
from ocean_core.model.errors import BufferUnavailableError, StoreCorruptError
from ocean_core.model.limits import MOVER_ROWS_PER_DRAIN
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock, SystemClock
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import MoverCallbacks
from ocean_core.pipeline.schedule import MoverSettings
from ocean_core.storage.analytics import AnalyticsStore
from support.analytics import (
    EPOCH,
    FakeSource,
    drain_all,
    make_mover,
    make_store,
    plain_rows,
    readings_block,
)

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
    store.close()


def test_rebuild_progress(tmp_path: Path) -> None:
    store, source, names = opened(tmp_path), source_of(10), list[SeriesName]()
    mover = make_mover(
        source, store, settings=SMALL, rebuild_reason="missing",
        callbacks=MoverCallbacks(on_series=names.extend),
    )  # fmt: skip
    assert mover.progress() == (0, 0, True, 0, ""), "queries must not look into an empty file"
    source.error = BufferUnavailableError("away")
    mover.work_once()
    assert mover.progress() == (0, 0, True, 0, "BufferUnavailableError: away")
    source.error = None
    mover.work_once()
    assert mover.progress() == (0, 100, True, 100, "")
    mover.drain_once()
    assert mover.progress() == (20, 100, True, 100, "")
    drain_all(mover, source)
    assert mover.progress() == (100, 100, False, 100, "")
    assert names == [("sensor-0", "value"), ("sensor-1", "value"), ("sensor-2", "value")]
    store.close()


@pytest.mark.parametrize("reason", [None, "new"])
def test_a_start_without_a_rebuild_says_so(tmp_path: Path, reason: str | None) -> None:
    store, source = opened(tmp_path), source_of(10)
    mover = make_mover(source, store, rebuild_reason=reason)
    assert not mover.progress().rebuilding
    mover.prepare()
    assert not mover.progress().rebuilding
    store.close()


def test_what_keeps_it_from_moving_is_told_until_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, source = opened(tmp_path), source_of(2)
    mover = make_mover(source, store)
    mover.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", raiser(duckdb.OutOfMemoryException("too much\nof it")))
        mover.work_once()
    assert mover.progress().trouble == "OutOfMemoryException: too much"
    mover.work_once()
    assert mover.progress().trouble == ""
    store.close()


def test_ids_missing_at_the_end_of_the_journal_count_as_reached(tmp_path: Path) -> None:
    """After a salvage the journal goes on behind ids that it no longer holds."""
    store, source, reached = opened(tmp_path), source_of(1), list[int]()
    mover = make_mover(source, store, callbacks=MoverCallbacks(on_commit=reached.append))
    drain_all(mover, source)
    assert mover.want(25, urgent=True) == 0
    mover.work_once()
    assert mover.want(25, urgent=True) is None
    assert mover.progress()[:2] == (25, 25)
    assert reached == [0, 10, 25]
    assert store.watermark() == 10, "only what is there is promised durably"
    source.blocks.append(readings_block(26, plain_rows(5)))
    mover.notify(30)
    mover.drain_once()
    assert ids(store) == [*range(1, 11), *range(26, 31)]
    assert reached == [0, 10, 25, 30]
    store.close()


class Running:
    """A mover in its thread."""

    def __init__(self, folder: Path) -> None:
        self.store, self.source = opened(folder), source_of(1)
        self.reached = threading.Condition()
        self.mover = make_mover(
            self.source, self.store, clock=SystemClock(),
            callbacks=MoverCallbacks(on_commit=self._committed),
        )  # fmt: skip
        self.mover.start()

    def _committed(self, _watermark: int) -> None:
        with self.reached:
            self.reached.notify_all()

    def await_id(self, reading_id: int) -> bool:
        with self.reached:
            return self.reached.wait_for(
                lambda: self.mover.progress().watermark >= reading_id, timeout=30
            )


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    assert running.mover.stop(30)
    running.store.close()


def test_an_id_that_is_wanted_is_moved(running: Running) -> None:
    mover, source = running.mover, running.source
    mover.want(10, urgent=False)
    assert running.await_id(10)
    for urgent in (True, False):
        source.add_rows(plain_rows(5))
        mover.notify(source.last_id())
        mover.touch()
        due_s = mover.want(source.last_id(), urgent=urgent)
        assert due_s is None or due_s <= (0.0 if urgent else 0.25)
        assert running.await_id(source.last_id())
    assert ids(running.store) == list(range(1, 21))


def test_many_rows_are_moved_without_a_query(running: Running) -> None:
    running.source.add_rows(plain_rows(MOVER_ROWS_PER_DRAIN))
    running.mover.notify(running.source.last_id())
    assert running.await_id(MOVER_ROWS_PER_DRAIN + 10)


def test_an_id_that_never_comes_is_looked_for_once(running: Running) -> None:
    assert running.await_id(10)
    running.mover.want(1_000_000, urgent=True)
    assert running.await_id(1_000_000)
    reads = running.source.reads
    assert running.mover.want(1_000_000, urgent=True) is None
    assert running.source.reads == reads
