"""Rules about names: applied whenever they come, or to a fresh file, they give the same index."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model.block import Readings
from ocean_core.model.naming import NameRule, Names
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover, MoverCallbacks
from ocean_core.pipeline.schedule import MoverSettings
from ocean_core.storage.analytics import AnalyticsStore
from support.analytics import EPOCH, START_US, FakeSource, make_mover, make_store
from support.renaming import forget, partials_of, rename, rows_of, window_of

NAMES = ("a", "b", "c")
names = st.sampled_from(NAMES)
# Few moments within a few hours: ties, shared minutes, and hours that only one sensor has.
moments = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)).map(
    lambda t: START_US + t[0] * 3_600_000_000 + t[1] * 60_000_000 + t[2] * 1_000_000
)
readings = st.tuples(
    st.just("readings"),
    st.lists(
        st.tuples(
            st.tuples(names, st.sampled_from(["value", "value", "rpm"])),
            moments,
            st.sampled_from([0, 2]),
        ),
        min_size=3,
        max_size=12,
    ),
    st.sampled_from([True, True, False]),
)
events = st.tuples(st.just("events"), names, st.lists(st.just(b'"x"'), min_size=1, max_size=3))
steps = st.lists(
    readings
    | readings
    | events
    | st.tuples(st.just("rename"), names, names)
    | st.tuples(st.just("forget"), names, st.integers(0, 20))
    | st.tuples(st.sampled_from(["drain", "drain", "follow", "follow", "restart"])),
    min_size=8,
    max_size=25,
)
SMALL = MoverSettings(rows_per_drain=8, rows_per_drain_behind=16)


class Box:
    """An index, and the mover that fills it."""

    def __init__(self, folder: Path, source: FakeSource) -> None:
        self.folder = folder
        self.source = source
        self.told: dict[int, int] = {}
        self.open()

    def open(self) -> None:
        self.store: AnalyticsStore = make_store(self.folder, memory_limit_mb=64)
        assert self.store.open(EPOCH, journal_empty=True).rebuild_reason in (None, "new")
        self.window = LiveWindow()
        self.window.warm(self.store)
        self.mover: Mover = make_mover(
            self.source, self.store, self.window, settings=SMALL,
            callbacks=MoverCallbacks(on_rules=lambda _, counts: self.told.update(counts)),
        )  # fmt: skip
        self.mover.prepare()

    def restart(self) -> None:
        self.store.close()
        self.open()

    def follow(self, rules: Sequence[NameRule]) -> None:
        self.mover.set_rules(rules)
        self.mover.work_once()
        assert self.mover.progress().trouble == ""
        assert self.mover.names.rules == tuple(rules)

    def drain(self) -> None:
        while self.mover.progress().watermark < self.source.last_id():
            self.mover.drain_once()


def oracle(
    source: FakeSource, rules: Sequence[NameRule]
) -> tuple[set[tuple[str, str, int]], dict[int, int]]:
    """Decide about each row by going through the rules one after the other."""
    left: set[tuple[str, str, int]] = set()
    counts = {rule.id: 0 for rule in rules if rule.kind == "forget"}
    for block in source.blocks:
        for k, index in enumerate(block.rows.series_index):
            name, metric = block.rows.series[int(index)]
            for rule in rules:
                if rule.sensor_id != name:
                    continue
                if rule.kind == "rename":
                    name = rule.new_id
                elif block.first_id + k <= rule.up_to_id:
                    counts[rule.id] += 1
                    break
            else:
                left.add((name, metric, block.first_id + k))
    return left, counts


def close(left: dict[Any, Any], right: dict[Any, Any]) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert value == pytest.approx(right[key], rel=1e-9, abs=1e-3)


def same(one: Box, other: Box) -> None:
    assert rows_of(one.store) == rows_of(other.store)
    assert {e.name for e in one.store.series()} == {e.name for e in other.store.series()}
    for table in ("rollup_1m", "rollup_1h"):
        exact, sums = zip(
            partials_of(one.store, table), partials_of(other.store, table), strict=True
        )
        assert exact[0] == exact[1]
        close(*sums)
    exact, sums = zip(window_of(one.window), window_of(other.window), strict=True)
    assert exact[0] == exact[1]
    close(*sums)
    assert one.store.applied_rules() == other.store.applied_rules()


def check_rings(box: Box) -> None:
    """What memory says it knows of a range must be what the store holds of it."""
    held = rows_of(box.store)
    for sensor_id, metrics in box.window.catalog.items():
        for metric, state in metrics.items():
            for start in range(START_US, START_US + 4 * 3_600_000_000, 30_000_000):
                recent = box.window.recent(state, start, START_US + 2**40)
                if recent is None:
                    continue
                ids = {row[2] for row in held if row[:2] == (sensor_id, metric) and row[3] >= start}
                assert set(recent.id.tolist()) == ids
                minutes = box.window.minutes(state, start, START_US + 2**40)
                if minutes is not None and start % 60_000_000 == 0:
                    assert int(minutes.n.sum()) == len(ids)
                break


@settings(max_examples=100, deadline=None)
@given(steps=steps)
def test_any_order_of_readings_rules_and_restarts_gives_what_a_rebuild_gives(
    steps: list[Any],
) -> None:
    source = FakeSource()
    rules: list[NameRule] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "new").mkdir()
        box = Box(Path(folder), source)
        for step in steps:
            match step:
                case ("readings", rows, moved):
                    # Values tell readings of one moment apart.
                    first = source.last_id() + 1
                    source.add_rows(
                        [
                            (name, ts_us, number * 1.5, q)
                            for number, (name, ts_us, q) in enumerate(rows, first)
                        ]
                    )
                    if moved:
                        box.drain()
                case ("events", sensor_id, payloads):
                    source.add_events(sensor_id, payloads)
                case ("rename", old, new):
                    rules.append(rename(len(rules) + 1, old, new))
                case ("forget", sensor_id, less):
                    rules.append(forget(len(rules) + 1, sensor_id, max(0, source.last_id() - less)))
                case ("drain",):
                    box.drain()
                case ("follow",):
                    box.follow(rules)
                case ("restart",):
                    box.restart()
            check_rings(box)
        box.follow(rules)
        box.drain()
        left, counts = oracle(source, rules)
        assert {row[:3] for row in rows_of(box.store)} == left
        assert box.told == counts
        rebuilt = Box(Path(folder) / "new", source)
        rebuilt.follow(rules)
        rebuilt.drain()
        same(rebuilt, box)
        assert rebuilt.told == counts
        warm = LiveWindow()
        warm.warm(box.store)
        exact, sums = zip(window_of(warm), window_of(box.window), strict=True)
        assert exact[0] == exact[1]
        close(*sums)
        box.store.close()
        rebuilt.store.close()


@given(
    rules=st.lists(st.tuples(names, names), max_size=12).map(
        lambda pairs: [rename(k, *pair) for k, pair in enumerate(pairs, 1)]
    )
)
def test_every_name_leads_to_one_that_is_in_use(rules: list[NameRule]) -> None:
    prepared = Names(rules)
    for name in NAMES:
        shown = prepared.shown(name)
        assert prepared.asked(shown) == shown
        assert prepared.asked(prepared.asked(name)) == prepared.asked(name)
        assert name in prepared.stored(shown)
    assert sorted(n for s in NAMES for n in prepared.stored(s)) == sorted(NAMES)


def test_rows_of_plain_lists_are_left_out_as_well() -> None:
    from ocean_core.model.block import Block
    from ocean_core.pipeline.forgotten import without_forgotten

    rows = Readings(
        [("a", "value"), ("b", "value")], [0, 1, 0], [1, 2, 3], [1.0, 2.0, 3.0], [0] * 3
    )
    dropped: dict[int, int] = {}
    left = without_forgotten([Block(5, 0, bytes(16), rows)], Names([forget(1, "a", 6)]), dropped)
    assert dropped == {1: 1}
    assert np.asarray(left[0].ids).tolist() == [6, 7]  # type: ignore[union-attr]
    assert left[0].rows.series == [("a", "value"), ("b", "value")]
