"""Archive and journal read as one: the same rows as if nothing had ever been trimmed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.buffer.port import IdRange, Losses
from ocean_core.model.block import Block, Events
from ocean_core.model.errors import ArchiveUnavailableError
from ocean_core.pipeline.archiving.source import WholeSource
from ocean_core.storage.archive.manifest import Part
from ocean_core.storage.archive.store import ArchiveStore
from support.archive_kit import NOON_US, ArchiveBox, ListJournal, Row, quiet_log, rows_of

DAY_US = 86_400_000_000
Event = tuple[int, str, int, int, bytes]


def events_of(block: Block) -> list[Event]:
    found = block.rows
    if not isinstance(found, Events):
        return []
    return [
        (block.first_id + at, found.series[int(index)][0], int(ts), int(quality), payload)
        for at, (index, ts, quality, payload) in enumerate(
            zip(found.series_index, found.timestamp_us, found.quality, found.payload, strict=True)
        )
    ]


def read_all(source: WholeSource, rows_max: int, after_id: int = 0) -> list[Block]:
    blocks: list[Block] = []
    while True:
        batch = source.read_after(after_id, rows_max=rows_max)
        blocks += batch.blocks
        if batch.next_after_id == after_id:
            return blocks
        assert all(after_id < b.first_id and b.last_id <= batch.next_after_id for b in batch.blocks)
        after_id = batch.next_after_id


def rows_in(blocks: list[Block]) -> list[Row]:
    return [row for block in blocks for row in rows_of(block)]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(-2, 2), st.booleans(), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 100),
    st.integers(0, 300),
)
def test_the_same_rows_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[tuple[int, int, bool, bool]],
    rows_max: int,
    cut: int,
) -> None:
    box = ArchiveBox(tmp_path_factory.mktemp("any"), rows_per_part=25)
    for count, day, is_events, seals in blocks:
        at_us = NOON_US + day * DAY_US
        if is_events:
            texts = [b'[{"n": %d}]' % n for n in range(count)]
            series = [("dev", ""), ("s-0", "")]
            index = [n % 2 for n in range(count)]
            box.journal.add(Events(series, index, [at_us] * count, [0] * count, texts))
        else:
            box.journal.add_readings(count, at_us=at_us)
        if seals:
            box.sealer.seal_up_to()
    before = list(box.journal.blocks)
    expected = [row for block in before for row in rows_of(block)]
    events = [row for block in before for row in events_of(block)]
    kept = [block.last_id for block in before if block.last_id <= box.manifest.sealed_up_to]
    box.journal.trim(max([0, *(last for last in kept if last <= cut)]))
    source = WholeSource(box.journal, box.store)
    found = read_all(source, rows_max)
    assert rows_in(sorted(found, key=lambda b: b.first_id)) == expected
    assert [row for block in found for row in events_of(block)] == events
    scanned: list[Block] = []

    def take(block: Block) -> int | None:
        scanned.append(block)
        return block.last_id + 1

    assert source.scan(None, take) == []
    assert rows_in(scanned) == expected
    assert source.last_id() == box.journal.head


def sealed_and_trimmed(box: ArchiveBox) -> list[Row]:
    expected = box.journal.rows()
    box.sealer.seal_up_to()
    box.journal.trim(box.manifest.sealed_up_to)
    return expected


def test_a_journal_that_was_trimmed_of_everything_still_has_a_last_id(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    box.journal.add_readings(20)
    sealed_and_trimmed(box)
    source = WholeSource(box.journal, box.store)
    assert (source.first_id(), source.last_id()) == (1, 20)


def test_lost_ids_are_known_once_they_are_sealed(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    box.journal.add_readings(10)
    box.journal.add_readings(10, skip=5)
    box.journal.missing = [IdRange(11, 15)]
    sealed_and_trimmed(box)
    box.journal.add_readings(10, skip=3)
    box.journal.missing = [IdRange(11, 15), IdRange(26, 28)]
    losses = WholeSource(box.journal, box.store).losses()
    assert losses == Losses(0, [IdRange(11, 15), IdRange(26, 28)])


def test_a_damaged_part_is_told_once_and_holds_no_other_up(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path, rows_per_part=50)
    for day in range(3):
        box.journal.add_readings(50, at_us=NOON_US + day * DAY_US)
    expected = sealed_and_trimmed(box)
    damaged = box.manifest.of_kind("readings")[1]
    data = bytearray(box.store.path(damaged).read_bytes())
    data[len(data) // 4 : len(data) // 2] = np.random.default_rng(1).bytes(
        len(data) // 2 - len(data) // 4
    )
    box.store.path(damaged).write_bytes(data)
    told: list[Part] = []
    source = WholeSource(box.journal, box.store, told.append)
    found = rows_in(read_all(source, 40))
    assert told == [damaged]
    others = [row for row in expected if not damaged.first_id <= row[0] <= damaged.last_id]
    assert [row for row in found if row in others] == others


def test_an_archive_that_is_needed_and_not_open_is_waited_for(tmp_path: Path) -> None:
    box = ArchiveBox(tmp_path)
    box.journal.add_readings(20)
    sealed_and_trimmed(box)
    source = WholeSource(box.journal, ArchiveStore(tmp_path / "other", log=quiet_log(box.clock)))
    with pytest.raises(ArchiveUnavailableError):
        source.read_after(0, rows_max=10)
    assert source.read_after(20, rows_max=10).blocks == []


def test_without_an_archive_it_is_the_journal(tmp_path: Path) -> None:
    journal = ListJournal()
    journal.add_readings(20)
    source = WholeSource(
        journal, ArchiveStore(tmp_path / "x", log=quiet_log(ArchiveBox(tmp_path).clock))
    )
    assert rows_in(read_all(source, 5)) == journal.rows()
    assert source.losses() == journal.losses()
