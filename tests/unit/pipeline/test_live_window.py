from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model.block import Block
from ocean_core.pipeline.gather import SeriesBook, gather
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.rollup import MINUTE_US, merge_partials, minute_partials
from support.analytics import (
    EPOCH,
    START_US,
    FakeSource,
    Row,
    drain_all,
    events_block,
    make_mover,
    make_store,
    plain_rows,
    readings_block,
)


class Feed:
    """Feeds blocks to a window as the mover does."""

    def __init__(self, window: LiveWindow) -> None:
        self.window = window
        self.book = SeriesBook()
        self.next_id = 1
        self.rows: list[tuple[int, Row]] = []

    def give(self, rows: list[Row], *, with_rings: bool = True) -> None:
        block = readings_block(self.next_id, rows)
        self.rows += list(enumerate(rows, self.next_id))
        self.give_block(block, with_rings=with_rings)

    def give_block(self, block: Block, *, with_rings: bool = True) -> None:
        gathered = gather([block], self.book, epoch=EPOCH, watermark=block.last_id)
        self.book.commit()
        self.next_id = block.last_id + 1
        self.window.apply(gathered.batch, gathered.runs, with_rings=with_rings)


A, B = ("a", "value"), ("b", "value")


def test_recent_rows_come_ordered_by_time_and_id() -> None:
    window = LiveWindow()
    Feed(window).give([(A, 30, 3.0, 0), (A, 10, 1.0, 2), (A, 30, 4.0, 1), (A, 20, 2.0, 0)])
    state = window.latest("a", "value")
    assert state is not None
    rows = window.recent(state, 10, 31)
    assert rows is not None
    assert rows.value.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert rows.id.tolist() == [2, 4, 1, 3]
    assert rows.quality.tolist() == [2, 0, 0, 1]
    empty = window.recent(state, 100, 200)
    assert empty is not None
    assert len(empty.ts_us) == 0


def test_totals_follow_the_newest_time_not_the_newest_id() -> None:
    window = LiveWindow()
    feed = Feed(window)
    feed.give([(A, 50, 5.0, 1), (A, 10, 1.0, 2)])
    feed.give([(A, 20, 9.0, 2)])
    feed.give([(A, 50, 6.0, 0)])
    state = window.latest("a", "value")
    assert state is not None
    totals = state.totals
    assert (totals.n, totals.min, totals.max) == (4, 1.0, 9.0)
    assert (totals.first_ts_us, totals.first_value) == (10, 1.0)
    assert (totals.last_ts_us, totals.last_value, totals.last_quality) == (50, 6.0, 0)
    assert totals.last_id == 4
    assert totals.untrusted_n == 2
    assert totals.mean == pytest.approx(5.25)
    assert totals.m2 == pytest.approx(np.var([5, 1, 9, 6]) * 4)


def test_events_are_counted_apart_from_readings() -> None:
    window = LiveWindow()
    feed = Feed(window)
    feed.give_block(events_block(1, "door", [b"1", b"2"]))
    feed.give_block(events_block(3, "door", [b"3"]))
    feed.give([(A, 1, 1.0, 0)])
    assert window.events["door"].n == 3
    assert window.latest("door", "") is None
    assert window.sensors() == ["a", "door"]


def test_a_late_backfill_does_not_push_recent_rows_out() -> None:
    window = LiveWindow(ring_rows=16)
    feed = Feed(window)
    feed.give([(A, 1_000_000 + k, 0.0, 0) for k in range(40)])
    feed.give([(A, k, 0.0, 0) for k in range(1000)])
    state = window.latest("a", "value")
    assert state is not None
    rows = window.recent(state, 1_000_024, 2_000_000)
    assert rows is not None
    assert len(rows.ts_us) == 16


def test_queries_decide_who_gets_memory() -> None:
    window = LiveWindow(bytes_max=6_000, ring_rows=16)
    feed = Feed(window)
    names = [(f"s{k}", "value") for k in range(50)]
    feed.give([(name, 10, 1.0, 0) for name in names])
    covered = [window.catalog[s]["value"] for s, _ in names if window.catalog[s]]
    states = [state for state in covered if state.series_id in window._rings]
    assert 0 < len(states) < 50
    poor = next(state for state in covered if state.series_id not in window._rings)
    assert window.recent(poor, 100, 200) is None
    feed.give([(name, 20, 1.0, 0) for name in names])
    rows = window.recent(poor, 11, 200)
    assert rows is not None
    assert rows.ts_us.tolist() == [20]
    assert window._ring_bytes <= 6_000


def test_without_rings_only_totals_follow() -> None:
    window = LiveWindow()
    feed = Feed(window)
    feed.give([(A, 10, 1.0, 0)])
    feed.give([(A, 20, 2.0, 0)], with_rings=False)
    state = window.latest("a", "value")
    assert state is not None
    assert state.totals.n == 2
    assert window.recent(state, 5, 50) is None
    feed.give([(A, 30, 3.0, 0)])
    rows = window.recent(state, 21, 50)
    assert rows is not None
    assert rows.value.tolist() == [3.0]
    assert window.recent(state, 20, 50) is None


def test_minutes_of_one_bucket_do_not_pile_up() -> None:
    window = LiveWindow()
    feed = Feed(window)
    for k in range(100):
        feed.give([(A, START_US + k * 1000, float(k), 0)])
    assert len(window._rings[1].minutes) == 1
    state = window.latest("a", "value")
    assert state is not None
    found = window.minutes(state, START_US, START_US + MINUTE_US)
    assert found is not None
    assert found.n.tolist() == [100]
    assert found.m2[0] == pytest.approx(np.var(np.arange(100)) * 100)


row = st.tuples(
    st.sampled_from([A, B]), st.integers(0, 40), st.floats(-100, 100), st.integers(0, 2)
)


@settings(max_examples=150, deadline=None)
@given(
    batches=st.lists(
        st.tuples(st.lists(row, min_size=1, max_size=30), st.booleans()), min_size=1, max_size=8
    ),
    scale=st.sampled_from([1, 7_000_000]),
    bytes_max=st.sampled_from([2_000, 4_000, 1_000_000]),
    ring_rows=st.sampled_from([4, 16, 1024]),
)
def test_what_memory_covers_is_what_came(
    batches: list[tuple[list[Row], bool]], scale: int, bytes_max: int, ring_rows: int
) -> None:
    window = LiveWindow(bytes_max=bytes_max, ring_rows=ring_rows)
    feed = Feed(window)
    for rows, with_rings in batches:
        feed.give([(s, ts * scale, v, q) for s, ts, v, q in rows], with_rings=with_rings)
        for name in (A, B):
            check_coverage(window, feed, name, scale)
        assert window._ring_bytes <= bytes_max


def check_coverage(window: LiveWindow, feed: Feed, name: tuple[str, str], scale: int) -> None:
    state = window.latest(*name)
    mine = sorted((r[1], i, r[2], r[3]) for i, r in feed.rows if r[0] == name)
    if state is None:
        assert not mine
        return
    assert state.totals.n == len(mine)
    assert state.totals.last_id == mine[-1][1]
    for start in (0, 5, 20, 39, 41):
        found = window.recent(state, start * scale, 100 * scale)
        expected = [r for r in mine if r[0] >= start * scale]
        if found is not None:
            assert found.id.tolist() == [r[1] for r in expected]
            assert found.value.tolist() == [r[2] for r in expected]
        start_us = start * scale // MINUTE_US * MINUTE_US
        minutes = window.minutes(state, start_us, start_us + 1000 * MINUTE_US)
        if minutes is not None:
            counts: dict[int, int] = {}
            for ts, *_ in mine:
                bucket = ts // MINUTE_US * MINUTE_US
                if bucket >= start_us:
                    counts[bucket] = counts.get(bucket, 0) + 1
            assert dict(zip(minutes.bucket_us.tolist(), minutes.n.tolist(), strict=True)) == counts


def test_a_warm_window_knows_what_the_former_one_knew(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open(EPOCH)
    source, before, after = FakeSource(), LiveWindow(), LiveWindow()
    source.add_rows([*plain_rows(500), (A, START_US, 7.0, 2), (A, START_US, 8.0, 1)])
    source.add_events("door", [b"1", b"2"])
    mover = make_mover(source, store, before)
    drain_all(mover, source)
    after.warm(store)
    assert after.sensors() == before.sensors()
    assert after.events == before.events
    for sensor_id, metrics in before.catalog.items():
        for metric, state in metrics.items():
            warmed = after.latest(sensor_id, metric)
            assert warmed is not None
            assert warmed.totals == pytest.approx(state.totals)
            assert after.recent(warmed, warmed.totals.last_ts_us, 2**62) is None
    source.add_rows([(A, START_US + 5, 9.0, 0)])
    drain_all(make_mover(source, store, after), source)
    state = after.catalog["a"]["value"]
    rows = after.recent(state, START_US + 1, 2**62)
    assert rows is not None
    assert rows.value.tolist() == [9.0]
    assert state.totals.n == 3
    store.close()


def test_minute_answers_equal_the_rollups_of_all_rows() -> None:
    window = LiveWindow()
    feed = Feed(window)
    rng = np.random.default_rng(3)
    gathered = []
    for _ in range(5):
        ts = START_US + rng.integers(0, 5 * MINUTE_US, 200)
        rows: list[Row] = [
            (A, int(t), float(v), 0) for t, v in zip(ts, rng.normal(size=200), strict=True)
        ]
        block = readings_block(feed.next_id, rows)
        gathered += rows
        feed.give_block(block)
    whole = gather([readings_block(1, gathered)], SeriesBook(), epoch=EPOCH, watermark=1000)
    assert whole.runs is not None
    expected = merge_partials(minute_partials(whole.runs))
    found = window.minutes(window.catalog["a"]["value"], START_US, START_US + 5 * MINUTE_US)
    assert found is not None
    assert found.n.tolist() == expected.n.tolist()
    assert found.m2 == pytest.approx(expected.m2)
    assert found.first_value.tolist() == expected.first_value.tolist()
    assert found.last_value.tolist() == expected.last_value.tolist()
