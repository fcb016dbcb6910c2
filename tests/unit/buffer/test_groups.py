"""Consumer groups: what was read is marked durably, what was not is kept for a while."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalReader, JournalTuning, opening
from ocean_core.buffer.embedded import groups as groups_module
from ocean_core.buffer.embedded import unread as unread_module
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.buffer.port import Acknowledged, GroupState, IdRange, StoredRow
from ocean_core.model.errors import (
    BufferUnavailableError,
    InvalidInputError,
    OceanError,
    RecordsFullError,
    UnknownRecordError,
)
from ocean_core.model.limits import (
    GROUP_HOLDS_S_MAX,
    GROUPS_MAX,
    MARK_IDS_MAX,
    TIMESTAMP_PLAUSIBLE_US_MIN,
    UNPROCESSED_PAGE_MAX,
)
from ocean_core.model.receipt import Intake
from ocean_core.obs.clock import ManualClock
from support.forgetful_vfs import Disk
from support.journal_kit import (
    START_US,
    WAIT_S,
    copy_as_killed,
    events,
    intake_of,
    log_text,
    read_all,
    readings,
    settings_for,
    until,
)

Scenario = Callable[[EmbeddedJournal], Coroutine[Any, Any, None]]


def with_settings(settings: JournalSettings, scenario: Scenario) -> EmbeddedJournal:
    journal = EmbeddedJournal(settings)

    async def whole() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            try:
                await scenario(journal)
            finally:
                await journal.close()

    asyncio.run(whole())
    return journal


def with_journal(directory: Path, scenario: Scenario, **changes: Any) -> EmbeddedJournal:
    return with_settings(settings_for(directory, **changes), scenario)


async def fill(journal: EmbeddedJournal, blocks: int, rows: int = 10) -> None:
    for tag in range(blocks):
        await journal.append(intake_of(readings(tag, rows)))


async def unread(journal: EmbeddedJournal, group: str = "api", limit: int = 1000) -> list[int]:
    return [row.id for row in await journal.read_unacknowledged(group, limit)]


def state_of(journal: EmbeddedJournal, name: str = "api") -> GroupState:
    return next(item for item in journal.groups() if item.name == name)


# --- marking and reading --------------------------------------------------------------------------


def test_rows_come_as_they_were_stored(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(Intake(readings(3, 2), events(4), 3, layout=(1, 1, 0)))
        assert await journal.read_unacknowledged("api", 10) == [
            StoredRow(1, "sensor-3-0", "value", START_US, 0, value=3.0),
            StoredRow(2, "sensor-3-0", "value", START_US + 1, 1, value=3.0 + 2**-20),
            StoredRow(3, "sensor-4", "", START_US, 0, payload=b'"4-0-' + b"x" * 20 + b'"'),
        ]

    with_journal(tmp_path, scenario)


def test_reading_changes_nothing_and_marking_is_sparse(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 4)
        assert await unread(journal) == list(range(1, 41))
        assert await unread(journal, limit=7) == list(range(1, 8))
        assert journal.groups() == []
        done = await journal.acknowledge("api", [15, 3, 3, 14, 13, 40])
        assert done == Acknowledged(newly=5, already=0)
        assert await unread(journal) == sorted(set(range(1, 41)) - {3, 13, 14, 15, 40})
        assert await journal.acknowledge("api", [1, 2, 3]) == Acknowledged(2, 1)
        assert journal.groups() == [GroupState("api", cursor=3, ahead=4, pending=33, evicted=0)]
        assert await journal.acknowledge("api", list(range(4, 41))) == Acknowledged(33, 4)
        assert journal.groups() == [GroupState("api", cursor=40, ahead=0, pending=0, evicted=0)]
        assert await unread(journal) == []
        await fill(journal, 1)
        assert await unread(journal) == list(range(41, 51))
        assert await journal.acknowledge("api", []) == Acknowledged(0, 0)

    with_journal(tmp_path, scenario)


def test_groups_do_not_disturb_each_other_or_the_mover(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 3)
        await asyncio.gather(
            journal.acknowledge("one", range(1, 11)),
            journal.acknowledge("two", [30]),
            journal.acknowledge("one", [12]),
            journal.append(intake_of(readings(9))),
        )
        assert await unread(journal, "one") == [11, *range(13, 32)]
        assert await unread(journal, "two") == [*range(1, 30), 31]
        assert [item.name for item in journal.groups()] == ["one", "two"]

    with_journal(tmp_path, scenario)
    assert [block.first_id for block in read_all(tmp_path / "journal.db")] == [1, 11, 21, 31]


def test_marks_that_wait_together_are_one_transaction(tmp_path: Path) -> None:
    commits = 0

    async def scenario(journal: EmbeddedJournal) -> None:
        nonlocal commits
        await fill(journal, 10)
        done = await asyncio.gather(
            *[journal.acknowledge("api", [i, i + 50]) for i in range(1, 51)]
        )
        assert done == [Acknowledged(2, 0)] * 50
        assert state_of(journal).cursor == 100

    class Counting:
        def hit(self, name: str) -> None:
            nonlocal commits
            commits += name == "journal.after_commit"

    with_journal(tmp_path, scenario, faults=Counting())
    assert 10 < commits < 30


def test_marks_survive_a_restart_and_kill_9(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()

    async def mark(journal: EmbeddedJournal) -> None:
        await fill(journal, 4)
        await journal.acknowledge("api", [1, 2, 9, 30, 31, 33])
        await journal.acknowledge("other", [40])
        await journal.acknowledge("gone", [5])
        await journal.forget_group("gone")
        copy_as_killed(live, tmp_path / "killed")

    with_journal(live, mark)

    async def check(journal: EmbeddedJournal) -> None:
        assert [(g.name, g.cursor, g.ahead) for g in journal.groups()] == [
            ("api", 2, 4),
            ("other", 0, 1),
        ]
        assert await unread(journal) == sorted(set(range(1, 41)) - {1, 2, 9, 30, 31, 33})

    with_journal(live, check)
    with_journal(tmp_path / "killed", check)


def test_bad_ids_are_named_and_nothing_is_marked(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        with pytest.raises(InvalidInputError, match=r"ids\[0\] is 1; no id was given out"):
            await journal.acknowledge("api", [1])
        await fill(journal, 1)
        for ids, place in (([1, 11, 0], 1), ([-1], 0), ([5, 2**70], 1)):
            with pytest.raises(InvalidInputError) as caught:
                await journal.acknowledge("api", ids)
            assert caught.value.fields[0].field == f"ids[{place}]"
            assert caught.value.fields[0].expected == "1 to 10"
        with pytest.raises(InvalidInputError, match="ids in one request"):
            await journal.acknowledge("api", [1] * (MARK_IDS_MAX + 1))
        assert journal.groups() == []
        assert await journal.acknowledge("api", [10] * MARK_IDS_MAX) == Acknowledged(1, 0)

    with_journal(tmp_path, scenario)


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33, "a\nb", "a\0", "\ud800", "\u2028"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 1)
        for work in (journal.acknowledge(name, [1]), journal.read_unacknowledged(name, 1)):
            with pytest.raises(InvalidInputError) as caught:
                await work
            assert caught.value.fields[0].field == "group"

    with_journal(tmp_path, scenario)


def test_good_names(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 1)
        for name in ("x", "x" * 64, "Größe 1/2", "'; DROP TABLE meta; --"):
            assert (await journal.acknowledge(name, [1])).newly == 1
        assert len(journal.groups()) == 4

    with_journal(tmp_path, scenario)


@pytest.mark.parametrize("limit", [0, -1, UNPROCESSED_PAGE_MAX + 1])
def test_bad_limits(tmp_path: Path, limit: int) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        with pytest.raises(InvalidInputError) as caught:
            await journal.read_unacknowledged("api", limit)
        assert caught.value.fields[0].field == "limit"

    with_journal(tmp_path, scenario)


def test_too_many_groups(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 1)
        names = [f"group-{i}" for i in range(GROUPS_MAX + 1)]
        done = await asyncio.gather(
            *[journal.acknowledge(name, [1]) for name in names], return_exceptions=True
        )
        assert [type(item) for item in done] == [Acknowledged] * GROUPS_MAX + [RecordsFullError]
        assert (await journal.acknowledge(names[0], [2])).newly == 1
        await journal.forget_group(names[0])
        assert (await journal.acknowledge(names[-1], [1])).newly == 1
        with pytest.raises(UnknownRecordError):
            await journal.forget_group(names[0])
        assert journal.state == "ready"

    with_journal(tmp_path, scenario)


def test_too_many_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "GROUP_RANGES_MAX", 3)

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 2)
        await journal.acknowledge("api", [3, 5, 7])
        with pytest.raises(RecordsFullError) as caught:
            await journal.acknowledge("api", [9])
        assert "oldest" in caught.value.hint
        assert "1 and those" in caught.value.hint
        # What makes no further range is taken: growing, joining, the oldest.
        assert (await journal.acknowledge("api", [8])).newly == 1
        assert (await journal.acknowledge("api", [4, 10])).newly == 2
        assert (await journal.acknowledge("api", [1, 2])).newly == 2
        assert state_of(journal) == GroupState("api", 5, 3, 12, 0)
        with pytest.raises(RecordsFullError):
            await journal.acknowledge("new", [2, 4, 6, 8])
        assert len(journal.groups()) == 1

    with_journal(tmp_path, scenario)
    with_journal(tmp_path, lambda journal: check_state(journal, GroupState("api", 5, 3, 12, 0)))


async def check_state(journal: EmbeddedJournal, *states: GroupState) -> None:
    assert journal.groups() == list(states)


def test_many_scattered_ids(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 30_000)))
        shuffled = list(range(2, 20_001, 2))
        random.Random(1).shuffle(shuffled)
        assert (await journal.acknowledge("api", shuffled)).newly == 10_000
        assert (await unread(journal, limit=10_000))[:3] == [1, 3, 5]
        with pytest.raises(RecordsFullError):
            await journal.acknowledge("api", [20_002])
        assert (await journal.acknowledge("api", range(1, 20_000, 2))).newly == 10_000
        assert state_of(journal) == GroupState("api", 20_000, 0, 10_000, 0)

    with_journal(tmp_path, scenario)
    db = apsw.Connection(str(tmp_path / "journal.db"))
    assert db.execute("SELECT count(*) FROM acknowledged").get == 0
    db.close()


def test_pages_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_module, "UNPROCESSED_BYTES_MAX", 1000)
    monkeypatch.setattr(unread_module, "UNPROCESSED_DECODED_BYTES_MAX", 50_000)

    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(events(1, 10, size=400)))
        await journal.append(intake_of(events(2, 2, size=5000)))
        await journal.append(intake_of(readings(3, 4000)))
        await journal.append(intake_of(readings(4, 10)))
        assert await unread(journal) == [1, 2, 3]
        await journal.acknowledge("api", range(1, 11))
        assert await unread(journal) == [11]
        await journal.acknowledge("api", range(11, 4012))
        # One row of a block that is large to decode: it comes alone.
        assert await unread(journal) == [4012]
        await journal.acknowledge("api", [4012])
        assert len(await unread(journal)) == 10

    with_journal(tmp_path, scenario)


def test_reading_starts_at_the_cursor_and_leaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    take = unread_module._Page.take

    def watched(self: Any, block: Any) -> int | None:
        decoded.append(block.first_id)
        return take(self, block)

    monkeypatch.setattr(unread_module._Page, "take", watched)

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 100)
        await journal.acknowledge("api", [*range(1, 406), *range(407, 896)])
        assert await unread(journal, limit=50) == [406, *range(896, 945)]
        assert decoded == [401, 891, 901, 911, 921, 931, 941]

    with_journal(tmp_path, scenario)


def test_closed_and_not_open(tmp_path: Path) -> None:
    journal = EmbeddedJournal(settings_for(tmp_path))

    async def scenario() -> None:
        with pytest.raises(BufferUnavailableError):
            await journal.read_unacknowledged("api", 1)
        await journal.open()
        await fill(journal, 1)
        await journal.acknowledge("api", [1])
        await journal.close()
        for work in (journal.acknowledge("api", [1]), journal.read_unacknowledged("api", 1)):
            with pytest.raises(BufferUnavailableError):
                await work
        with pytest.raises(BufferUnavailableError):
            await journal.forget_group("api")
        assert journal.groups() == []

    asyncio.run(scenario())


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk(random.Random(7)) as made:
        yield made


def test_a_mark_whose_sync_failed_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 2)
        await journal.acknowledge("api", [1, 2])
        failing = True

        def fail(path: str) -> None:
            if failing and path.endswith("-wal"):
                raise apsw.IOError("no")

        disk.before_sync = fail
        done = await asyncio.gather(
            journal.acknowledge("api", [3]), journal.acknowledge("b", [4]), return_exceptions=True
        )
        assert all(isinstance(item, OceanError) for item in done)
        assert state_of(journal).cursor == 2
        with pytest.raises(OceanError):
            await journal.acknowledge("api", [3])
        failing = False
        journal.retry_now()
        await until(lambda: journal.state == "ready")
        await check_state(journal, GroupState("api", 2, 0, 18, 0))
        assert (await journal.acknowledge("api", [3])).newly == 1

    with_journal(tmp_path, scenario, vfs=disk.name, exclusive=True)
    with_journal(tmp_path, lambda journal: check_state(journal, GroupState("api", 3, 0, 17, 0)))


def test_marks_alone_do_not_let_the_wal_grow(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 30)
        for id_ in range(1, 301):
            await journal.acknowledge("api", [id_])
        assert (tmp_path / "journal.db-wal").stat().st_size < 6 * 10 * 4200

    with_journal(tmp_path, scenario, tuning=JournalTuning(wal_pages_max=10, busy_timeout_ms=1))


# --- trimming -------------------------------------------------------------------------------------

HUGE = 10**15


def settings_with_clock(directory: Path, **changes: Any) -> tuple[JournalSettings, ManualClock]:
    settings = settings_for(directory, disk_bytes=lambda: HUGE, **changes)
    assert isinstance(settings.clock, ManualClock)
    return settings, settings.clock


def test_a_group_holds_back_what_it_has_not_read(tmp_path: Path) -> None:
    settings, clock = settings_with_clock(tmp_path)

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 5)
        assert await journal.trim(10) == 10
        await journal.acknowledge("slow", [11, 12, 21])
        await journal.acknowledge("fast", range(11, 41))
        assert state_of(journal, "slow") == GroupState("slow", 12, 1, 37, 0)
        clock.advance(GROUP_HOLDS_S_MAX - 1)
        assert await journal.trim(50) == 10
        await journal.acknowledge("slow", range(11, 36))
        assert await journal.trim(50) == 30
        assert await unread(journal, "slow") == list(range(36, 51))
        assert await unread(journal, "new") == list(range(31, 51))
        await journal.forget_group("slow")
        assert await journal.trim(50) == 40
        assert await unread(journal, "fast") == list(range(41, 51))
        # A new group begins behind what is gone.
        await journal.acknowledge("new", [45])
        assert state_of(journal, "new") == GroupState("new", 40, 1, 9, 0)
        assert all(item.evicted == 0 for item in journal.groups())

    with_settings(settings, scenario)


def test_what_is_held_for_too_long_is_evicted(tmp_path: Path) -> None:
    settings, clock = settings_with_clock(tmp_path)

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 2)
        clock.advance(3600)
        await fill(journal, 2)
        await journal.acknowledge("api", [2, 3, 25])
        clock.advance(GROUP_HOLDS_S_MAX - 1800)
        # Only the blocks of the first hour are too old.
        assert await journal.trim(40) == 20
        assert state_of(journal) == GroupState("api", 20, 1, 19, 18)
        assert await unread(journal) == [21, 22, 23, 24, *range(26, 41)]

    with_settings(settings, scenario)
    assert "group_evicted" in log_text(settings)
    with_journal(tmp_path, lambda journal: check_state(journal, GroupState("api", 20, 1, 19, 18)))


def test_what_takes_too_much_of_the_disk_is_evicted(tmp_path: Path) -> None:
    size = 0
    settings = settings_for(tmp_path, disk_bytes=lambda: size)

    async def scenario(journal: EmbeddedJournal) -> None:
        nonlocal size
        for tag in range(10):
            await journal.append(intake_of(readings(tag, 10_000)))
        await journal.acknowledge("api", [1])
        # Of about 2.17 MB it may have 1.6 MB, and a block has 0.21 MB: three must go.
        size = 16_000_000
        assert await journal.trim(100_000) == 30_000
        assert state_of(journal) == GroupState("api", 30_000, 0, 70_000, 29_999)
        assert await journal.trim(100_000) == 30_000
        size = 0
        assert await journal.trim(100_000) == 100_000
        assert state_of(journal) == GroupState("api", 100_000, 0, 0, 99_999)

    with_settings(settings, scenario)


def test_blocks_from_before_the_clock_was_set_have_no_age(tmp_path: Path) -> None:
    settings, clock = settings_with_clock(tmp_path)
    clock.set_wall(TIMESTAMP_PLAUSIBLE_US_MIN - 10**12)

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 1)
        clock.set_wall(START_US)
        await journal.acknowledge("api", [2])
        assert await journal.trim(10) == 0

    with_settings(settings, scenario)


def test_trimming_without_groups_asks_nobody(tmp_path: Path) -> None:
    def never() -> int:
        raise AssertionError

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 3)
        assert await journal.trim(25) == 20
        await journal.acknowledge("api", range(21, 31))
        assert await journal.trim(30) == 30

    with_journal(tmp_path, scenario, disk_bytes=never)


# --- damage ---------------------------------------------------------------------------------------


def test_lost_readings_do_not_stop_a_group(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 4)
        await journal.acknowledge("api", range(1, 11))
        other = apsw.Connection(str(tmp_path / "journal.db"))
        other.execute("UPDATE telemetry_buffer SET data = zeroblob(500) WHERE id = 11")
        other.close()
        # The reading finds it, the writer notes it, and the group goes on behind it.
        assert await unread(journal) == list(range(21, 41))
        await journal.settled()
        assert journal.missing_ranges() == (IdRange(11, 20),)
        assert state_of(journal).pending == 20
        await journal.acknowledge("api", [21])
        assert state_of(journal) == GroupState("api", 21, 0, 19, 0)
        assert await journal.trim(40) == 10
        assert state_of(journal).evicted == 0

    with_journal(tmp_path, scenario)


def damaged_journal(directory: Path, *, wal_pages_max: int) -> tuple[Path, list[GroupState]]:
    """Make a journal as kill -9 leaves it, whose groups fill several pages."""
    live = directory / "live"
    live.mkdir()
    states: list[GroupState] = []

    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 3000)))
        await journal.acknowledge("again", range(1, 2000))
        await journal.forget_group("again")
        for start in range(0, 3000, 100):
            await journal.acknowledge("api", range(start + 2, start + 101, 3))
            await journal.acknowledge("other", range(start + 1, start + 90))
        settings.clock.advance(1)  # type: ignore[attr-defined]
        await journal.acknowledge("again", [1, 3])
        states.extend(journal.groups())
        copy_as_killed(live, directory / "killed")

    tuning = JournalTuning(wal_pages_max=wal_pages_max, checkpoint_idle_s=60)
    settings = settings_for(live, tuning=tuning)
    with_settings(settings, scenario)
    assert sum(item.ahead for item in states) > 3000
    return directory / "killed", states


@pytest.mark.parametrize("wal_pages_max", [5, 10_000])
def test_a_salvage_takes_the_marks_along(tmp_path: Path, wal_pages_max: int) -> None:
    killed, states = damaged_journal(tmp_path, wal_pages_max=wal_pages_max)
    with (killed / "journal.db").open("r+b") as file:
        file.write(bytes(60))
    with_journal(killed, lambda journal: check_state(journal, *states))
    assert list(killed.glob("*.damaged-*"))


@pytest.mark.parametrize("frame", [3, 20, 60])
def test_marks_behind_a_damaged_frame(tmp_path: Path, frame: int) -> None:
    killed, states = damaged_journal(tmp_path, wal_pages_max=10_000)
    with (killed / "journal.db-wal").open("r+b") as file:
        file.seek(32 + frame * 4120 + 20)
        file.write(b"\xff")
    with_journal(killed, lambda journal: check_state(journal, *states))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE consumers SET cursor = cursor + 1",
        "UPDATE consumers SET evicted = 1",
        "UPDATE acknowledged SET last_id = last_id + 1 WHERE first_id = 1501",
        "UPDATE acknowledged SET group_name = 'api' WHERE first_id = 1501 AND group_name = 'other'",
    ],
)
def test_a_damaged_mark_is_noticed_and_never_skips(tmp_path: Path, change: str) -> None:
    """Rather a reading that was read comes again than one is skipped."""
    killed, states = damaged_journal(tmp_path, wal_pages_max=10_000)
    db = apsw.Connection(str(killed / "journal.db"))
    db.execute(change)
    assert db.changes()
    db.close()

    async def check(journal: EmbeddedJournal) -> None:
        for before in states:
            after = next((item for item in journal.groups() if item.name == before.name), None)
            if after is not None:
                assert after.cursor + after.ahead <= before.cursor + before.ahead
                assert after.cursor <= before.cursor

    with_journal(killed, check)
    assert list(killed.glob("*.damaged-*"))


def test_a_group_knows_ids_that_the_journal_lost(tmp_path: Path) -> None:
    """An id that a group has marked was given out: it is not given out again."""
    live = tmp_path / "live"
    live.mkdir()

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 3)
        await journal.acknowledge("api", range(1, 31))

    with_journal(live, scenario)
    db = apsw.Connection(str(live / "journal.db"))
    db.execute("DELETE FROM telemetry_buffer WHERE id > 1")
    db.execute("DELETE FROM meta WHERE key = 'high_water'")
    db.close()

    async def check(journal: EmbeddedJournal) -> None:
        assert journal.missing_ranges() == (IdRange(11, 30),)
        assert (await journal.append(intake_of(readings(9)))).first_reading_id == 31

    with_journal(live, check)


def test_a_reader_beside_the_groups(tmp_path: Path) -> None:
    """A scan from the middle of a block gives that block; one behind the end gives none."""

    async def scenario(journal: EmbeddedJournal) -> None:
        await fill(journal, 2)
        reader = JournalReader(tmp_path / "journal.db")
        seen: list[int] = []

        def take(block: Any) -> int | None:
            seen.append(block.first_id)
            return int(block.last_id) + 1

        assert reader.scan(15, take) == []
        assert reader.scan(21, take) == []
        assert reader.scan(None, take) == []
        assert seen == [11]
        reader.close()

    with_journal(tmp_path, scenario)
