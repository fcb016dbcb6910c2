from pathlib import Path

import pytest

from ocean_core.obs.clock import ManualClock
from ocean_core.pipeline import compaction
from ocean_core.pipeline.compaction import Compactor
from ocean_core.pipeline.rollup import merge_partials
from ocean_core.storage.analytics import (
    PARTIAL_COLUMNS,
    AnalyticsStore,
    Partials,
    fetch_partials,
)
from support.analytics import (
    EPOCH,
    START_US,
    FakeSource,
    make_mover,
    make_store,
    plain_rows,
)

HOUR_S = 3600


def rollup(store: AnalyticsStore, table: str) -> Partials:
    return fetch_partials(store.cursor().execute(f"SELECT {PARTIAL_COLUMNS} FROM {table}"))


def filled(folder: Path, clock: ManualClock, hours: int = 2) -> AnalyticsStore:
    """Many drains: each brings every series some seconds of every minute, in any order."""
    store = make_store(folder, clock)
    store.open(EPOCH)
    source = FakeSource()
    mover = make_mover(source, store, clock=clock)
    mover.prepare()
    for k in range(8):
        rows = plain_rows(hours * 60 * 3, start_us=START_US)
        source.add_rows(
            [
                (s, START_US + i * 20_000_000 + (k % 3), v + k, 0)
                for i, (s, _, v, _) in enumerate(rows)
            ]
        )
        mover.drain_once()
    return store


def run(compactor: Compactor) -> int:
    steps = 0
    while compactor.due_in() == 0:
        compactor.step()
        steps += 1
        assert steps < 1000
    return steps


@pytest.mark.parametrize("step_rows", [50, 200_000])
def test_answers_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_rows: int
) -> None:
    monkeypatch.setattr(compaction, "STEP_ROWS_MAX", step_rows)
    clock = ManualClock(START_US + 60_000_000)
    store = filled(tmp_path, clock)
    compactor = Compactor(store, clock)
    clock.advance(3 * HOUR_S)
    before = {table: rollup(store, table) for table in ("rollup_1m", "rollup_1h")}
    assert run(compactor) > 0
    for table, partials in before.items():
        after, expected = rollup(store, table), merge_partials(partials)
        assert len(partials) > len(expected)
        assert len(after) == len(expected)
        after = merge_partials(after)
        for name in Partials.__slots__:
            assert getattr(after, name).tolist() == getattr(expected, name).tolist()
    assert store.cursor().execute("SELECT count(*) FROM readings").fetchall() == [(2880,)]
    store.close()


def test_only_closed_hours_take_part(tmp_path: Path) -> None:
    clock = ManualClock(START_US - 1)
    store = filled(tmp_path, clock)
    compactor = Compactor(store, clock)
    clock.set_wall(START_US + HOUR_S * 1_000_000 + compaction.SETTLE_US)
    run(compactor)
    hours = rollup(store, "rollup_1h")
    assert (hours.bucket_us == START_US).sum() == 3
    assert (hours.bucket_us > START_US).sum() == 24
    assert compactor.due_in() is None
    compactor.appended(5)
    assert compactor.due_in() == HOUR_S
    store.close()


def test_too_many_partials_compact_the_open_hour(tmp_path: Path) -> None:
    clock = ManualClock(START_US + HOUR_S * 1_000_000 + 90_000_000)
    store = filled(tmp_path, clock)
    compactor = Compactor(store, clock)
    compactor.appended(compaction.APPENDED_ROWS_MAX)
    assert run(compactor) > 0
    assert len(rollup(store, "rollup_1h")) == 6
    store.close()


def test_a_mover_that_has_nothing_to_move_compacts(tmp_path: Path) -> None:
    clock = ManualClock(START_US + 60_000_000)
    store = filled(tmp_path, clock)
    source = FakeSource()
    mover = make_mover(source, store, clock=clock)
    mover.prepare()
    clock.advance(3 * HOUR_S)
    for _ in range(100):
        mover.work_once()
    assert len(rollup(store, "rollup_1h")) == 6
    assert mover._next_due(clock.monotonic()) is None
    store.close()
