"""Compaction of the archive: fewer files, the same rows, whatever fails."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model.errors import StoreIOError
from ocean_core.pipeline.archiving.compaction import MANY_PARTS, PartCompaction
from ocean_core.storage.archive.parquet import files, parquet_engine
from support.archive_kit import NOON_US, ArchiveBox, archived_rows

DAY_US = 86_400_000_000
DAY_S = 86_400


def compaction_of(box: ArchiveBox, rows_max: int = 1_000) -> PartCompaction:
    return PartCompaction(
        box.store, clock=box.clock, log=box.log, metrics=box.metrics, rows_max=rows_max
    )


def run_all(compaction: PartCompaction) -> int:
    steps = 0
    while compaction.due_in() == 0:
        compaction.step()
        steps += 1
    return steps


def sealed(box: ArchiveBox, pieces: int, *, day: int = 0, count: int = 30) -> None:
    for _ in range(pieces):
        box.journal.add_readings(count, at_us=NOON_US + day * DAY_US)
        box.sealer.seal_up_to()


def test_the_parts_of_a_closed_day_become_one(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    sealed(box, 3)
    compaction = compaction_of(box)
    assert compaction.due_in() == pytest.approx(DAY_S / 2 + 600)
    box.clock.advance(DAY_S / 2 + 601)
    expected = box.rows()
    assert run_all(compaction) == 1
    (part,) = box.manifest.parts
    assert (part.first_id, part.last_id, part.rows) == (1, 90, 90)
    assert box.rows() == expected
    assert box.manifest.balance() == ""
    assert len(list(box.store.folder.glob("date=*/*"))) == 1
    with parquet_engine() as engine:
        order = engine.rows(
            "SELECT sensor_id, metric, epoch_us(timestamp), id "
            f"FROM {files([box.store.path(part)])}"
        )
    assert order == sorted(order)
    assert archived_rows(box.reopened()) == expected


def test_an_open_day_waits_for_many_parts_and_sizes_are_bounded(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    compaction = compaction_of(box, rows_max=30 * MANY_PARTS)
    sealed(box, MANY_PARTS - 1)
    assert compaction.due_in() != 0
    sealed(box, 5)
    assert run_all(compaction) == 1
    assert sorted(part.rows for part in box.manifest.parts) == [30, 30, 30, 30, 240]


def test_an_open_day_merges_large_parts_once_no_more_would_fit(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    compaction = compaction_of(box, rows_max=100)
    sealed(box, 3)
    assert compaction.due_in() != 0
    sealed(box, 1)
    assert run_all(compaction) == 1
    assert sorted(part.rows for part in box.manifest.parts) == [30, 90]


def test_a_few_late_readings_do_not_rewrite_a_day(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    sealed(box, 3)
    box.clock.advance(3 * DAY_S)
    compaction = compaction_of(box)
    run_all(compaction)
    for late in range(1, MANY_PARTS - 1):
        sealed(box, 1, count=2)
        assert compaction.due_in() != 0, late
    sealed(box, 1, count=2)
    assert run_all(compaction) == 1
    assert [part.rows for part in box.manifest.parts] == [90 + 2 * (MANY_PARTS - 1)]


def test_a_late_part_is_merged_into_its_day(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    sealed(box, 2)
    box.clock.advance(3 * DAY_S)
    compaction = compaction_of(box)
    run_all(compaction)
    sealed(box, 1)
    assert run_all(compaction) == 1
    assert [part.rows for part in box.manifest.parts] == [90]


def test_a_damaged_part_holds_no_other_up(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    sealed(box, 3)
    sealed(box, 2, day=1)
    box.clock.advance(3 * DAY_S)
    damaged = box.manifest.parts[1]
    box.store.path(damaged).write_bytes(b"not a file of ours")
    run_all(compaction_of(box))
    assert sorted(part.rows for part in box.manifest.parts) == [30, 60, 60]
    assert damaged in box.manifest.parts


@pytest.mark.parametrize("nth", range(1, 8))
def test_whichever_sync_fails_the_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    box = ArchiveBox(tmp_path)
    sealed(box, 3)
    box.clock.advance(3 * DAY_S)
    expected = box.rows()
    compaction = compaction_of(box)
    calls = 0
    real = os.fsync

    def refuse_once(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse_once)
        try:
            compaction.step()
        except StoreIOError:
            assert len(box.manifest.parts) == 3
    again = box.reopened()
    assert archived_rows(again) == expected
    assert again.manifest.balance() == ""
    run_all(compaction)
    assert box.rows() == expected
    assert len(box.manifest.parts) == 1


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(-1, 1)), min_size=1, max_size=10),
    st.integers(10, 120),
)
def test_any_archive_holds_the_same_rows_afterwards(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int]], rows_max: int
) -> None:
    box = ArchiveBox(tmp_path_factory.mktemp("any"))
    for count, day in pieces:
        sealed(box, 1, day=day, count=count)
    box.clock.advance(5 * DAY_S)
    expected = box.rows()
    with box.store.pin() as seen:
        run_all(compaction_of(box, rows_max))
        assert all(box.store.path(part).exists() for part in seen.parts)
    assert box.rows() == expected
    assert box.manifest.balance() == ""
    assert all(part.rows <= max(rows_max, 40) for part in box.manifest.parts)
    assert len(list(box.store.folder.glob("date=*/*"))) == len(box.manifest.parts)
