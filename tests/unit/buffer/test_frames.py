"""Notes of frames: kept with the rows of the frames, and exactly as long as they are needed."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.buffer.embedded.group import GroupPlan
from ocean_core.buffer.embedded.rows import pack_keys, unpack_keys, uuid_with_keys
from ocean_core.buffer.embedded.wal import PAGE_BYTES
from ocean_core.model.errors import BufferUnavailableError, OceanError, StoreIOError
from ocean_core.model.receipt import FRAME_NOTE_BYTES, Intake
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.faults import Faults
from support.journal_kit import (
    START_US,
    WAIT_S,
    copy_as_killed,
    events,
    intake_of,
    key_of,
    log_text,
    note_of,
    notes_in,
    readings,
    settings_for,
    until,
)

SECOND_US = 1_000_000

Scenario = Callable[[EmbeddedJournal], Coroutine[Any, Any, None]]


def with_journal(directory: Path, scenario: Scenario, **changes: Any) -> EmbeddedJournal:
    journal = EmbeddedJournal(settings_for(directory, **changes))

    async def whole() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            try:
                await scenario(journal)
            finally:
                await journal.close()

    asyncio.run(whole())
    return journal


def framed(tag: int, count: int = 1, notes: int = 1, *, as_events: bool = False) -> Intake:
    rows = events(tag, count) if as_events else readings(tag, count)
    return replace(intake_of(rows), frames=b"".join(note_of(tag, i) for i in range(notes)))


def tags(kept: list[bytes]) -> list[int]:
    """Return the tags of notes in order, each once in a row."""
    found: list[int] = []
    for frames in kept:
        for note in notes_in(frames):
            tag = int(note[4:14])
            if not found or found[-1] != tag:
                found.append(tag)
    return found


def test_notes_come_back_newest_block_first(tmp_path: Path) -> None:
    async def first(journal: EmbeddedJournal) -> None:
        assert await journal.kept_frames(0, 100) == []
        await journal.append(framed(1))
        await journal.append(intake_of(readings(2)))
        await journal.append(framed(3, 200, 150), key_of("a"))
        await journal.append(framed(4, 3, 3, as_events=True))

    async def second(journal: EmbeddedJournal) -> None:
        kept = await journal.kept_frames(START_US, 1_000)
        assert tags(kept) == [4, 3, 1]
        assert notes_in(kept[1]) == [note_of(3, i) for i in range(150)]
        assert await journal.kept_frames(START_US + 1, 1_000) == []
        # Whole blocks, until there are enough.
        assert tags(await journal.kept_frames(START_US, 4)) == [4, 3]
        assert tags(await journal.kept_frames(START_US, 3)) == [4]
        assert await journal.kept_frames(START_US, 0) == []

    with_journal(tmp_path, first)
    with_journal(tmp_path, second)


def test_requests_of_one_block_and_a_request_of_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocean_core.buffer.embedded.group.BLOCK_ROWS_MAX", 100)
    monkeypatch.setattr("ocean_core.buffer.embedded.group.BLOCK_MERGE_ROWS_MAX", 50)

    async def scenario(journal: EmbeddedJournal) -> None:
        sent = [framed(tag, 10, 2) for tag in range(1, 8)]
        sent += [framed(8, 350, 20), framed(9, 2, 2, as_events=True)]
        await asyncio.gather(*(journal.append(item) for item in sent))
        kept = b"".join(await journal.kept_frames(START_US, 10_000))
        expected = [note for item in sent for note in notes_in(item.frames)]
        assert sorted(notes_in(kept)) == sorted(expected)

    with_journal(tmp_path, scenario, commit_delay_ms=20)


def test_a_repeat_with_a_key_is_noted_once(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await asyncio.gather(*(journal.append(framed(1), key_of("a")) for _ in range(3)))
        await journal.append(framed(1), key_of("a"))
        with pytest.raises(OceanError):
            await journal.append(framed(2), key_of("a", "other"))
        assert tags(await journal.kept_frames(0, 9)) == [1]
        assert len(b"".join(await journal.kept_frames(0, 9))) == FRAME_NOTE_BYTES

    with_journal(tmp_path, scenario, commit_delay_ms=10)


def test_frames_without_rows_leave_no_note(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(Intake(None, None, 0, frames=note_of(1)))
        assert await journal.kept_frames(0, 9) == []

    with_journal(tmp_path, scenario)


def test_readings_and_events_of_frames_do_not_come_together() -> None:
    plan = GroupPlan(1, START_US, random.Random(1).randbytes)
    both = Intake(readings(1), events(2), 2, layout=(1, 0), frames=note_of(1))
    with pytest.raises(AssertionError):
        plan.add(both)


class Failing(Faults):
    """Fails the next commit, as a disk might."""

    def __init__(self) -> None:
        self.armed = False

    def hit(self, point: str) -> None:
        if self.armed and point == "journal.before_commit":
            self.armed = False
            raise StoreIOError("trouble")


def test_what_a_group_that_fails_says_is_not_kept(tmp_path: Path) -> None:
    faults = Failing()

    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(framed(1))
        faults.armed = True
        sent = [journal.append(framed(tag)) for tag in range(2, 6)]
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        assert all(isinstance(one, OceanError) for one in outcomes)
        await until(lambda: journal.state == "ready")
        assert tags(await journal.kept_frames(0, 99)) == [1]
        await journal.append(framed(2))
        assert tags(await journal.kept_frames(0, 99)) == [2, 1]

    with_journal(tmp_path, scenario, faults=faults, commit_delay_ms=20)


def test_nobody_reads_a_journal_that_is_not_ready(tmp_path: Path) -> None:
    journal = with_journal(tmp_path, lambda one: one.settled())
    with pytest.raises(BufferUnavailableError):
        asyncio.run(journal.kept_frames(0, 9))


def test_blocks_before_the_clock_was_set_do_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocean_core.buffer.embedded.reader._NOTES_STEP", 1)
    clock = ManualClock(START_US)

    async def scenario(journal: EmbeddedJournal) -> None:
        day_us = 86_400 * SECOND_US
        for tag, at_us in enumerate(
            [START_US - 2 * day_us, START_US, 5 * SECOND_US, START_US - day_us // 2, START_US]
        ):
            clock.set_wall(at_us)
            await journal.append(framed(tag + 1))
        assert tags(await journal.kept_frames(START_US, 99)) == [5, 2]
        assert tags(await journal.kept_frames(START_US - day_us, 99)) == [5, 4, 2]

    with_journal(tmp_path, scenario, clock=clock)


def test_a_search_ends_where_all_is_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocean_core.buffer.embedded.reader._NOTES_STEP", 3)
    clock = ManualClock(START_US)

    async def scenario(journal: EmbeddedJournal) -> None:
        for tag in range(20):
            await journal.append(framed(tag))
            clock.advance(6 * 3_600)
        now_us = clock.now_us()
        kept = tags(await journal.kept_frames(now_us - 3 * 6 * 3_600 * SECOND_US, 99))
        assert kept == [19, 18, 17]
        assert tags(await journal.kept_frames(0, 99)) == list(range(19, -1, -1))

    with_journal(tmp_path, scenario, clock=clock)


def test_old_executables_and_old_journals() -> None:
    """Both read each other's rows: what is not known is passed over, what is not there is empty."""

    class Before(msgspec.Struct, omit_defaults=True):
        keys: list[Any] = msgspec.field(default_factory=list)
        usage: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)

    packed = pack_keys([], {"anna": (3, 2)}, note_of(1))
    assert packed is not None
    assert msgspec.msgpack.decode(packed, type=list[Any] | Before) == Before([], {"anna": (3, 2)})
    old = msgspec.msgpack.encode(Before([], {"anna": (3, 2)}))
    found = unpack_keys(uuid_with_keys(bytes(12), old), old)
    assert (found.usage, found.frames) == ({"anna": (3, 2)}, b"")
    assert unpack_keys(uuid_with_keys(bytes(12), packed), packed).frames == note_of(1)
    # Damaged notes are none.
    assert unpack_keys(uuid_with_keys(bytes(12), old), packed).frames == b""
    assert pack_keys([], {}, b"") is None


# --- damage ---------------------------------------------------------------------------------------


def test_a_salvage_keeps_the_notes(tmp_path: Path) -> None:
    base, killed = tmp_path / "base", tmp_path / "killed"
    base.mkdir()

    async def fill(journal: EmbeddedJournal) -> None:
        for tag in range(1, 30):
            await journal.append(framed(tag, 60, 60), key_of(f"{tag}") if tag % 2 else None)

    async def check(journal: EmbeddedJournal) -> None:
        kept = b"".join(await journal.kept_frames(0, 10_000))
        assert len(set(notes_in(kept))) == 29 * 60

    with_journal(base, fill)
    copy_as_killed(base, killed)
    db = apsw.Connection(str(base / "journal.db"))
    root = int(db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'").get)
    table = int(
        db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'telemetry_buffer'").get
    )
    db.close()
    assert root != table
    damaged = bytearray((killed / "journal.db").read_bytes())
    # The inner page above the blocks: SQLite finds none of them any more.
    damaged[(table - 1) * PAGE_BYTES] = 0xEE
    (killed / "journal.db").write_bytes(damaged)
    with_journal(killed, check)
    assert list(killed.glob("journal.db.damaged-*"))


# --- trimming -------------------------------------------------------------------------------------


def test_trimming_leaves_notes_until_they_are_old(tmp_path: Path) -> None:
    clock = ManualClock(START_US)

    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 10)), key_of("a"))
        await journal.append(framed(2, 10))
        await journal.append(intake_of(readings(3, 10)))
        clock.advance(100)
        await journal.append(framed(4, 10))
        # An idempotency key beside a block holds nothing back.
        assert await journal.trim(40) == 10
        clock.advance(3_560)
        assert await journal.trim(40) == 10
        clock.advance(1)
        assert await journal.trim(40) == 30
        assert tags(await journal.kept_frames(0, 9)) == [4]
        clock.advance(100)
        assert await journal.trim(40) == 40

    journal = with_journal(tmp_path, scenario, clock=clock, frames_kept_s=3_660)
    assert journal.duplicates() == {}


def test_without_a_hold_notes_go_with_their_blocks(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(framed(1, 10))
        assert await journal.trim(10) == 10
        assert await journal.kept_frames(0, 9) == []

    with_journal(tmp_path, scenario)


def test_a_full_disk_goes_before_notes(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, frames_kept_s=3_600, disk_bytes=lambda: 20 * 1024 * 1024)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            for tag in range(40):
                await journal.append(framed(tag, 5_000, 100))
            trimmed = await journal.trim(200_000)
            # What stays is a tenth of the disk at most, and not less than it need be.
            assert 40_000 < trimmed < 160_000
            assert await journal.trim(200_000) == trimmed
            await journal.close()

    asyncio.run(scenario())
    gone = settings.metrics.value("ocean_buffer_frames_evicted_total")
    assert gone > 0
    assert "frames_evicted" in log_text(settings)


# --- repeats that are known before they reach the journal -----------------------------------------


def test_repeats_are_counted_durably(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(framed(1))
        await journal.count_repeats({})
        await asyncio.gather(*(journal.count_repeats({"a": 1, "b": 2}) for _ in range(50)))
        counted = {name: one.count for name, one in journal.duplicates().items()}
        assert counted == {"a": 50, "b": 100}
        copy_as_killed(tmp_path, tmp_path / "killed")

    async def after(journal: EmbeddedJournal) -> None:
        counted = {name: one.count for name, one in journal.duplicates().items()}
        assert counted == {"a": 50, "b": 100}

    closed = with_journal(tmp_path, scenario)
    with_journal(tmp_path / "killed", after)
    with pytest.raises(BufferUnavailableError):
        asyncio.run(closed.count_repeats({"a": 1}))


def test_repeats_while_the_disk_fails_are_counted_later(tmp_path: Path) -> None:
    faults = Failing()

    async def scenario(journal: EmbeddedJournal) -> None:
        faults.armed = True
        await asyncio.gather(*(journal.count_repeats({"a": 1}) for _ in range(5)))
        await until(lambda: journal.state == "ready")
        assert {name: one.count for name, one in journal.duplicates().items()} == {"a": 5}

    with_journal(tmp_path, scenario, faults=faults)
