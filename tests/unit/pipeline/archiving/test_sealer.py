"""Sealing: what the journal held is in the archive, once, and only then is it let go of."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.buffer.port import IdRange
from ocean_core.model.block import Events
from ocean_core.model.errors import BufferUnavailableError, OceanError, StoreIOError
from ocean_core.model.naming import NameRule, Names
from ocean_core.storage.archive.parquet import files, parquet_engine
from support.archive_kit import NOON_US, ArchiveBox, archived_rows

DAY_US = 86_400_000_000


@pytest.fixture
def box(tmp_path: Path) -> ArchiveBox:
    return ArchiveBox(tmp_path)


def test_all_that_was_in_the_journal_is_in_the_archive(box: ArchiveBox) -> None:
    box.journal.add_readings(700)
    box.journal.add_readings(900, step_us=97_000_000)
    result = box.sealer.seal_up_to()
    assert result.sealed_up_to == 1600 == box.manifest.sealed_up_to
    assert result.rows == 1600
    assert box.rows() == box.journal.rows()
    assert box.manifest.balance() == ""
    assert box.sealed == [1600]
    assert archived_rows(box.reopened()) == box.journal.rows()


def test_each_day_has_its_own_part_sorted_by_series_and_time(box: ArchiveBox) -> None:
    box.journal.add_readings(50, step_us=DAY_US // 20)
    box.sealer.seal_up_to()
    days = [part.date for part in box.manifest.parts]
    assert len(days) == len(set(days)) == 3
    for part in box.manifest.parts:
        path = box.store.path(part)
        assert path.parent.name == f"date={part.date}"
        with parquet_engine() as engine:
            rows = engine.rows(
                "SELECT sensor_id, metric, epoch_us(timestamp), id, "
                f"strftime(timestamp, '%Y-%m-%d') FROM {files([path])}"
            )
        assert rows == sorted(rows)
        assert {row[4] for row in rows} == {part.date}


def test_events_are_archived_with_their_payload(box: ArchiveBox) -> None:
    texts = [b'[{"a": "\xc3\xa4"}]', b"[]", b'[{"b": 1}]']
    box.journal.add(
        Events([("dev-1", ""), ("dev-2", "")], [0, 1, 0], [NOON_US] * 3, [0, 0, 2], texts)
    )
    box.sealer.seal_up_to()
    (part,) = box.manifest.parts
    assert part.kind == "events"
    with parquet_engine() as engine:
        found = engine.rows(
            f"SELECT id, sensor_id, payload FROM {files([box.store.path(part)])} ORDER BY id"
        )
    assert found == [(1, "dev-1", '[{"a": "ä"}]'), (2, "dev-2", "[]"), (3, "dev-1", '[{"b": 1}]')]


def test_nothing_behind_the_watermark_is_sealed(box: ArchiveBox) -> None:
    box.journal.add_readings(10)
    box.journal.add_readings(10)
    box.watermark = 10
    assert box.sealer.seal_up_to().sealed_up_to == 10
    assert [row[0] for row in box.rows()] == list(range(1, 11))


def test_ids_known_to_be_missing_are_accounted_for(box: ArchiveBox) -> None:
    box.journal.add_readings(10)
    box.journal.add_readings(10, skip=5)
    box.journal.missing = [IdRange(11, 15)]
    box.sealer.seal_up_to()
    assert box.manifest.missing == ((11, 15),)
    assert box.manifest.sealed_up_to == 25
    assert box.manifest.balance() == ""


def test_ids_nobody_can_explain_stop_the_sealing_and_are_told(box: ArchiveBox) -> None:
    box.journal.add_readings(10)
    box.journal.add_readings(10, skip=5)
    with pytest.raises(BufferUnavailableError, match="11-15"):
        box.sealer.seal_up_to()
    assert box.damage == [IdRange(11, 15)]
    assert box.manifest.sealed_up_to == 0
    assert not list(box.store.folder.glob("date=*/*"))


def test_a_part_ends_where_a_rule_forgets(box: ArchiveBox) -> None:
    box.journal.add_readings(30)
    box.names = Names([NameRule(1, "forget", "s-0", up_to_id=12)])
    box.sealer.seal_up_to()
    assert sorted((part.first_id, part.last_id) for part in box.manifest.parts) == [
        (1, 12), (13, 30),
    ]  # fmt: skip


def test_it_is_due_when_enough_waits_or_the_day_is_over(box: ArchiveBox) -> None:
    assert box.sealer.due_in() is None
    box.journal.add_readings(999)
    assert box.sealer.due_in() == pytest.approx(43_200 + 600)
    box.clock.advance(43_200 + 599)
    assert box.sealer.due_in() == pytest.approx(1)
    box.clock.advance(2)
    assert box.sealer.due_in() == 0
    box.sealer.step()
    assert box.sealer.due_in() is None
    box.journal.add_readings(1000, arrival_us=box.clock.now_us())
    assert box.sealer.due_in() == 0


def test_a_disk_that_refuses_leaves_everything_as_it_was(
    box: ArchiveBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.journal.add_readings(10)
    box.sealer.seal_up_to()
    box.journal.add_readings(10)
    before = box.manifest

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(StoreIOError):
            box.sealer.seal_up_to()
    assert box.manifest == before
    assert box.sealed == [10]
    assert len(list(box.store.folder.glob("date=*/*"))) == 1
    box.sealer.seal_up_to()
    assert box.rows() == box.journal.rows()


@pytest.mark.parametrize("nth", range(1, 9))
def test_whichever_sync_fails_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Four syncs make a part, two of them a manifest, two its copy."""
    box = ArchiveBox(tmp_path)
    box.journal.add_readings(10)
    calls = 0
    real = os.fsync

    def refuse_once(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(5, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse_once)
        try:
            box.sealer.seal_up_to()
        except OceanError:
            assert box.sealed == []
    again = box.reopened()
    assert again.manifest.balance() == ""
    assert again.manifest.sealed_up_to == box.manifest.sealed_up_to
    box.sealer.seal_up_to()
    assert box.rows() == box.journal.rows()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(-3, 3), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 2**32 - 1),
)
def test_any_journal_sealed_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[tuple[int, int, int, bool]],
    seed: int,
) -> None:
    box = ArchiveBox(tmp_path_factory.mktemp("any"), rows_per_part=30)
    random = np.random.default_rng(seed)
    for count, sensors, day, seals in blocks:
        box.journal.add_readings(count, sensors=sensors, at_us=NOON_US + day * DAY_US)
        if seals:
            box.sealer.seal_up_to(int(random.integers(1, box.journal.head + 1)))
    expected = box.journal.rows()
    box.sealer.seal_up_to()
    assert box.rows() == expected
    assert box.manifest.balance() == ""
    box.journal.trim(box.manifest.sealed_up_to)
    assert archived_rows(box.reopened()) == expected
