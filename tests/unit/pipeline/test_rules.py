"""Rules about names in the mover: when they are followed, and what becomes of it if that fails."""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ocean_core.model.naming import NameRule, Names
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.pipeline import renaming
from ocean_core.pipeline import rules as rules_module
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover, MoverCallbacks
from ocean_core.pipeline.rules import NO_WORD, RuleKeeper
from ocean_core.storage.analytics import AnalyticsStore, Changes
from support.analytics import (
    EPOCH,
    START_US,
    FakeSource,
    Row,
    make_mover,
    make_store,
)
from support.renaming import forget, partials_of, rename, rows_of

MINUTE_US = 60_000_000


def rows(
    sensor_id: str, count: int, *, start_us: int = START_US, metric: str = "value"
) -> list[Row]:
    return [((sensor_id, metric), start_us + k * 1_000_000, float(k), 0) for k in range(count)]


class Rig:
    """A store with its mover; ``told`` collects what the mover says."""

    def __init__(self, folder: Path, source: FakeSource | None = None, **more: Any) -> None:
        self.folder = folder
        self.source = source or FakeSource()
        self.clock = ManualClock()
        self.told: list[Any] = []
        self.store: AnalyticsStore = make_store(folder, self.clock, **more)
        self.opened = self.store.open(EPOCH, journal_empty=True)
        self.window = LiveWindow()
        self.window.warm(self.store)
        self.mover = self.make()

    def make(self, **more: Any) -> Mover:
        callbacks = MoverCallbacks(
            on_series=self.told.append,
            on_names=self.told.append,
            on_rules=lambda last, counts: self.told.append((last, counts)),
            on_crash=self.told.append,
        )
        mover = make_mover(
            self.source, self.store, self.window, clock=self.clock, callbacks=callbacks, **more
        )
        mover.prepare()
        return mover

    def move(self) -> None:
        self.mover.notify(self.source.last_id())
        while self.mover.progress().watermark < self.source.last_id():
            self.mover.drain_once()
        self.told.clear()

    def follow(self, *rules: NameRule) -> None:
        self.mover.set_rules(rules)
        self.mover.work_once()

    def again(self, **more: Any) -> "Rig":
        self.store.close()
        return Rig(self.folder, self.source, **more)

    def ids(self, sensor_id: str) -> list[int]:
        return [row[2] for row in rows_of(self.store) if row[0] == sensor_id]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.store.close()


# --- when ----------------------------------------------------------------------------------------


def test_nothing_is_moved_before_the_rules_are_known(rig: Rig) -> None:
    rig.source.add_rows(rows("a", 5))
    mover = rig.make(rules_wait_s=10)
    mover.want(5, urgent=True)
    for _ in range(3):
        mover.work_once()
    assert mover.progress().watermark == 0
    mover.set_rules([rename(1, "a", "b")])
    mover.work_once()
    mover.work_once()
    assert mover.progress().watermark == 5
    assert rig.ids("b") == [1, 2, 3, 4, 5]


def test_without_a_word_the_last_known_rules_hold_and_it_is_said(rig: Rig) -> None:
    rig.follow(rename(1, "a", "b"))
    rig.source.add_rows(rows("a", 5))
    stream = io.StringIO()
    mover = rig.make(rules_wait_s=10)
    mover._rules._log = EventLog(rig.clock, stream=stream)
    mover.want(5, urgent=True)
    rig.clock.advance(9.9)
    mover.work_once()
    assert (mover.progress().watermark, mover.progress().trouble) == (0, "")
    rig.clock.advance(0.2)
    mover.work_once()
    assert mover.progress().trouble == NO_WORD
    assert "analytics.rules_missing" in stream.getvalue()
    mover.work_once()
    assert rig.ids("b") == [1, 2, 3, 4, 5]
    assert mover.progress().trouble == NO_WORD
    mover.set_rules([rename(1, "a", "b")])
    mover.work_once()
    assert mover.progress().trouble == ""


def test_the_thread_waits_and_wakes_for_rules(tmp_path: Path) -> None:
    import threading

    rig = Rig(tmp_path)
    rig.source.add_rows(rows("a", 3))
    done = threading.Event()
    mover = make_mover(
        rig.source, rig.store, rig.window, rules_wait_s=1e9,
        callbacks=MoverCallbacks(on_rules=lambda *_: done.set()),
    )  # fmt: skip
    mover.start()
    mover.set_rules([forget(1, "a", 2)])
    assert done.wait(20)
    assert mover.stop(20)
    assert rig.ids("a") == [3]
    rig.store.close()


def test_what_is_forgotten_but_not_moved_yet_is_counted_before_it_is_told(rig: Rig) -> None:
    rig.source.add_rows(rows("a", 4))
    rig.move()
    rig.source.add_rows(rows("a", 4))
    rig.follow(forget(1, "a", 7))
    assert [told for told in rig.told if isinstance(told, tuple)] == []
    assert rig.ids("a") == []
    rig.mover.work_once()
    assert rig.told[-1] == (1, {1: 7})
    assert rig.ids("a") == [8]
    # The same is told again, also by the next process.
    again = rig.again()
    again.follow(forget(1, "a", 7))
    assert again.told[-1] == (1, {1: 7})
    again.store.close()


def test_ids_beyond_the_journal_hold_nobody_up(rig: Rig) -> None:
    rig.source.add_rows(rows("a", 4))
    rig.move()
    rig.follow(forget(1, "a", 2**53))
    assert rig.told[-1] == (1, {1: 4})
    rig.source.add_rows(rows("b", 2))
    rig.move()
    assert rig.ids("b") == [5, 6]


# --- what ----------------------------------------------------------------------------------------


def test_a_rename_keeps_what_memory_holds(rig: Rig) -> None:
    rig.source.add_rows(rows("a", 50))
    rig.source.add_events("a", [b"1"])
    rig.move()
    rig.follow(rename(1, "a", "b"))
    assert rig.told[0] == [("b", "value"), ("b", "")]
    assert isinstance(rig.told[1], Names)
    assert rig.told[2] == (1, {})
    assert rig.window.sensors() == ["b"]
    state = rig.window.latest("b", "value")
    assert state is not None
    recent = rig.window.recent(state, START_US, START_US + MINUTE_US)
    assert recent is not None
    assert len(recent.ts_us) == 50
    rig.source.add_rows(rows("a", 2))
    rig.move()
    assert state.totals.n == 52
    assert rig.window.events["b"].n == 1
    assert [entry.name for entry in rig.store.series()] == [("b", "value"), ("b", "")]


@pytest.mark.parametrize(("old", "new", "kept"), [(30, 3, 1), (3, 30, 2)])
def test_of_two_series_the_smaller_one_is_moved(rig: Rig, old: int, new: int, kept: int) -> None:
    rig.source.add_rows(rows("a", old))
    rig.source.add_rows(rows("b", new))
    rig.source.add_events("a", [b"1"])
    rig.source.add_events("b", [b"2", b"3"])
    rig.move()
    rig.follow(rename(1, "a", "b"))
    numbers = {entry.name[1]: entry.series_id for entry in rig.store.series()}
    assert numbers == {"value": kept, "": 4}
    state = rig.window.latest("b", "value")
    assert state is not None
    assert state.totals.n == 33
    assert rig.window.events["b"].n == 3
    assert "a" not in rig.window.sensors()
    # Rings start anew, and are never wrong about what was before.
    assert rig.window.recent(state, START_US, START_US + MINUTE_US) is None
    rig.source.add_rows(rows("b", 1, start_us=START_US + 2 * MINUTE_US))
    rig.move()
    recent = rig.window.recent(state, START_US + MINUTE_US, START_US + 3 * MINUTE_US)
    assert recent is not None
    assert recent.id.tolist() == [37]


def test_equal_times_of_merged_sensors_go_by_id(rig: Rig) -> None:
    moment = START_US + 5
    rig.source.add_rows(
        [
            ((name, "value"), moment, value, 0)
            for name, value in [("a", 1.0), ("b", 2.0), ("a", 3.0)]
        ]
    )
    rig.move()
    rig.follow(rename(1, "a", "b"))
    for table in ("rollup_1m", "rollup_1h"):
        exact, _ = partials_of(rig.store, table)
        assert list(exact.values()) == [(3, 1.0, 3.0, moment, 1.0, moment, 3.0)]
    assert rig.window.catalog["b"]["value"].totals.last_value == 3.0


def test_a_number_is_not_given_out_again(rig: Rig) -> None:
    rig.source.add_rows(rows("a", 3))
    rig.move()
    state = rig.window.catalog["a"]["value"]
    rig.follow(forget(1, "a", 3))
    assert rig.store.series() == []
    assert rig.window.sensors() == []
    # Whoever still holds the state finds nothing, rather than another sensor.
    assert state.totals.n == 0
    rig.source.add_rows(rows("z", 3))
    rig.move()
    assert state.totals.n == 0
    assert rig.store.series()[0].series_id == 2


def test_rollups_are_made_anew_in_pieces(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renaming, "CHUNK_ROWS", 70)
    for hour in range(3):
        rig.source.add_rows(rows("a", 200, start_us=START_US + hour * 60 * MINUTE_US))
    rig.move()
    rig.follow(forget(1, "a", 450))
    exact, _ = partials_of(rig.store, "rollup_1h")
    assert [(key[2], value[0]) for key, value in exact.items()] == [
        (START_US + 120 * MINUTE_US, 150)
    ]
    exact, _ = partials_of(rig.store, "rollup_1m")
    assert [value[0] for value in exact.values()] == [10, 60, 60, 20]


def test_rules_that_meet_nothing_run_no_statement(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(Changes, "run", lambda _, sql, __=(): ran.append(sql))
    monkeypatch.setattr(Changes, "rows", lambda _, sql, __=(): ran.append(sql))
    rig.follow(*(rename(k, f"s{k}", f"t{k}") for k in range(1, 2_000)), forget(2_000, "x", 9))
    assert ran == []
    assert rig.mover.names.last_rule == 2_000


# --- when it fails -------------------------------------------------------------------------------


class CrashError(BaseException):
    pass


@pytest.mark.parametrize("point", ["rules.before_commit", "rules.after_commit"])
def test_a_crash_applies_rules_once_or_not_at_all(tmp_path: Path, point: str) -> None:
    class Crashing:
        def hit(self, name: str) -> None:
            if name == point:
                raise CrashError

    source = FakeSource()
    source.add_rows(rows("a", 6))
    source.add_rows(rows("b", 6))
    rules = [rename(1, "a", "b"), forget(2, "b", 4), rename(3, "b", "a")]
    first = Rig(tmp_path, source)
    first.move()
    crashing = first.again(faults=Crashing())
    with pytest.raises(CrashError):
        crashing.follow(*rules)
    second = crashing.again()
    applied = second.store.applied_rules().rules
    assert applied == (tuple(rules) if point == "rules.after_commit" else ())
    second.follow(*rules)
    assert second.told[-1] == (3, {2: 4})
    assert second.ids("a") == [5, 6, 7, 8, 9, 10, 11, 12]
    assert second.window.catalog["a"]["value"].totals.n == 8
    second.store.close()


def test_an_error_leaves_everything_and_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.source.add_rows(rows("a", 3))
    rig.move()

    def fail(*_: object) -> None:
        raise duckdb.TransactionException("not now")

    with monkeypatch.context() as patch:
        patch.setattr(Changes, "follow", fail)
        rig.follow(rename(1, "a", "b"))
    assert "not now" in rig.mover.progress().trouble
    assert rig.ids("a") == [1, 2, 3]
    assert rig.window.sensors() == ["a"]
    rig.mover.work_once()
    assert rig.mover.progress().trouble == ""
    assert rig.ids("b") == [1, 2, 3]


def run_to_its_end(rig: Rig, rules: Sequence[NameRule]) -> str:
    """Let the mover's thread follow rules and return why it gave up."""
    rig.told.clear()
    rig.mover.set_rules(rules)
    rig.mover.start()
    rig.mover._thread.join(20)
    return str(rig.told[-1])


@pytest.mark.parametrize("now", [[], [rename(1, "a", "c")], [rename(2, "a", "b")]])
def test_an_index_of_other_rules_is_built_anew(rig: Rig, now: list[NameRule]) -> None:
    rig.source.add_rows(rows("a", 3))
    rig.follow(rename(1, "a", "b"))
    rig.move()
    assert "other rules" in run_to_its_end(rig, now)
    again = rig.again()
    assert "other rules" in (again.opened.rebuild_reason or "")
    again.follow(*now)
    again.move()
    assert again.ids(Names(now).shown("a")) == [1, 2, 3]
    again.store.close()


def test_too_little_memory_for_a_rule_leads_to_a_rebuild(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.source.add_rows(rows("a", 3))
    rig.move()

    def fail(*_: object) -> None:
        raise duckdb.OutOfMemoryException("too much")

    monkeypatch.setattr(Changes, "follow", fail)
    assert "too little memory" in run_to_its_end(rig, [rename(1, "a", "b")])
    monkeypatch.undo()
    again = rig.again()
    assert again.opened.rebuild_reason is not None
    again.follow(rename(1, "a", "b"))
    again.move()
    assert again.ids("b") == [1, 2, 3]
    again.store.close()


@pytest.mark.parametrize("error", [duckdb.OutOfMemoryException("too much"), ValueError("what?")])
def test_what_fails_after_the_commit_ends_the_mover_and_not_the_file(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Memory still holds what was forgotten: it must not go on answering from it."""
    rig.source.add_rows(rows("a", 3))
    rig.source.add_rows(rows("b", 3))
    rig.move()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(rules_module, "load_warmth", fail)
    told = run_to_its_end(rig, [forget(1, "a", 2)])
    assert "in the file only" in told
    assert str(error) in told
    monkeypatch.undo()
    again = rig.again()
    assert again.opened.rebuild_reason is None
    assert again.ids("a") == [3]
    assert again.window.catalog["a"]["value"].totals.n == 1
    again.store.close()


def test_rules_that_are_gone_are_told(rig: Rig) -> None:
    rig.source.add_rows(rows("a", 3))
    rig.move()
    rig.follow(forget(1, "a", 2), rename(2, "x", "y"), rename(3, "p", "q"))
    lost: list[str] = []
    rig.mover._callbacks = dataclasses.replace(rig.mover._callbacks, on_rules_lost=lost.append)
    stream = io.StringIO()
    rig.mover._rules._log = EventLog(rig.clock, stream=stream)
    run_to_its_end(rig, [rename(3, "p", "q")])
    assert lost == ["'a' forgotten up to id 2, 'x' renamed to 'y'"]
    assert "analytics.rules_lost" in stream.getvalue()


def test_a_commit_without_an_answer_ends_the_mover(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.source.add_rows(rows("a", 3))
    rig.move()
    apply = RuleKeeper._apply

    def lost(keeper: RuleKeeper, *arguments: Any) -> None:
        before = keeper._applied
        apply(keeper, *arguments)
        keeper._applied = before
        raise duckdb.Error("the line went dead")

    monkeypatch.setattr(RuleKeeper, "_apply", lost)
    assert "without an answer" in run_to_its_end(rig, [rename(1, "a", "b")])


def test_unreadable_rules_in_the_file_make_it_unfit(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.follow(rename(1, "a", "b"))
    rig.store._opened().execute("UPDATE meta SET value = '[[1' WHERE key = 'name_rules'")
    again = rig.again()
    assert "rules about names" in (again.opened.rebuild_reason or "")
    again.store.close()
