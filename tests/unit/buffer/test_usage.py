"""Counters of rows per user: exactly what is stored, whatever happens to the journal."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalTuning, opening
from ocean_core.buffer.embedded.rows import unpack_keys
from ocean_core.buffer.embedded.wal import FRAME_BYTES, parse_wal
from ocean_core.buffer.port import UsageCounts
from ocean_core.model.errors import OceanError
from ocean_core.model.receipt import Intake, Owner
from support.forgetful_vfs import Disk
from support.journal_kit import (
    WAIT_S,
    copy_as_killed,
    events,
    intake_of,
    key_of,
    readings,
    settings_for,
    until,
)

ANNA, BERT = Owner("anna", True), Owner("bert", False)

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


def owned_rows(path: Path) -> dict[str, int]:
    """Return how many rows the blocks themselves note for each user."""
    db = apsw.Connection(str(path))
    owned: dict[str, int] = {}
    for uuid, keys in db.execute("SELECT uuid, keys FROM telemetry_buffer"):
        for user_id, (stored, _) in unpack_keys(uuid, keys).usage.items():
            owned[user_id] = owned.get(user_id, 0) + stored
    db.close()
    return owned


async def nothing(_journal: EmbeddedJournal) -> None:
    return


def test_rows_count_for_their_owner(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        assert journal.usage_of("anna") == UsageCounts()
        both = Intake(readings(1, 10), events(2, 4), 14, layout=(1,) * 10 + (0,) * 4)
        await asyncio.gather(
            journal.append(both, owner=ANNA),
            journal.append(intake_of(readings(3, 5)), owner=BERT),
            journal.append(intake_of(readings(4, 100))),
            journal.append(intake_of(readings(5, 2)), owner=Owner("anna", False)),
        )
        assert journal.usage_of("anna") == UsageCounts(16, 14)
        assert journal.usage_of("bert") == UsageCounts(5, 0)
        assert sorted(journal.counted_users()) == ["anna", "bert"]

    with_journal(tmp_path, scenario, commit_delay_ms=20)
    assert owned_rows(tmp_path / "journal.db") == {"anna": 16, "bert": 5}

    async def later(journal: EmbeddedJournal) -> None:
        assert journal.usage_of("anna") == UsageCounts(16, 14)
        await journal.append(intake_of(events(5, 3)), owner=ANNA)
        await journal.trim(journal.head_id)
        assert journal.usage_of("anna") == UsageCounts(19, 17)

    with_journal(tmp_path, later)
    journal = EmbeddedJournal(settings_for(tmp_path))
    assert journal.counted_users() == ()
    assert journal.usage_of("anna") == UsageCounts()


def test_a_request_larger_than_a_block_counts_once(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 1_000_001)), owner=ANNA)
        assert journal.usage_of("anna") == UsageCounts(1_000_001, 1_000_001)

    with_journal(tmp_path, scenario)


def test_a_repeat_counts_nothing(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        request = intake_of(readings(1, 3))
        sent = [journal.append(request, key_of("a"), ANNA) for _ in range(3)]
        await asyncio.gather(*sent)
        await journal.append(request, key_of("a"), BERT)
        with pytest.raises(OceanError):
            await journal.append(request, key_of("a", "other"), ANNA)
        assert journal.usage_of("anna") == UsageCounts(3, 3)
        assert journal.counted_users() == ("anna",)

    with_journal(tmp_path, scenario, commit_delay_ms=20)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk(random.Random(7)) as made:
        yield made


def test_what_failed_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    """Neither rows whose sync failed, though they stand in the file, nor after the reopening."""
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)

    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 5)), owner=ANNA)
        failing = True

        def fail(path: str) -> None:
            if failing and path.endswith("-wal"):
                raise apsw.IOError("no")

        disk.before_sync = fail
        with pytest.raises(OceanError):
            await journal.append(intake_of(readings(2, 7)), owner=ANNA)
        with pytest.raises(OceanError):
            await journal.append(intake_of(readings(2, 7)), owner=BERT)
        assert journal.usage_of("anna") == UsageCounts(5, 5)
        failing = False
        journal.retry_now()
        await until(lambda: journal.state == "ready")
        assert journal.usage_of("anna") == UsageCounts(5, 5)
        assert journal.counted_users() == ("anna",)
        await journal.append(intake_of(readings(3, 1)), owner=ANNA)

    with_journal(tmp_path, scenario, vfs=disk.name, exclusive=True)
    again = with_journal(tmp_path, nothing)
    assert again.usage_of("anna") == UsageCounts(6, 6)
    assert owned_rows(tmp_path / "journal.db") == {"anna": 6}


# --- damage ---------------------------------------------------------------------------------------

USERS = 300


def filled(directory: Path, *, wal_pages_max: int) -> tuple[Path, dict[str, int]]:
    """Make a journal as kill -9 leaves it, with so many users that their table has inner pages."""
    live = directory / "live"
    live.mkdir()
    counts: dict[str, int] = {}

    async def scenario(journal: EmbeddedJournal) -> None:
        for start in range(0, USERS, 20):
            sent = []
            for i in range(start, start + 20):
                name = f"{i:04}-{'x' * 60}"
                counts[name] = 1 + i % 5
                sent.append(
                    journal.append(intake_of(readings(i + 1, 1 + i % 5)), owner=Owner(name, True))
                )
            await asyncio.gather(*sent)
        copy_as_killed(live, directory / "killed")

    tuning = JournalTuning(wal_pages_max=wal_pages_max, checkpoint_idle_s=60)
    with_journal(live, scenario, tuning=tuning)
    return directory / "killed", counts


def check_counts(directory: Path, counts: dict[str, int], **changes: Any) -> None:
    journal = with_journal(directory, nothing, **changes)
    assert {user: journal.usage_of(user) for user in journal.counted_users()} == {
        user: UsageCounts(count, count) for user, count in counts.items()
    }


@pytest.mark.parametrize("wal_pages_max", [5, 10_000])
def test_a_salvage_takes_the_counters_along(tmp_path: Path, wal_pages_max: int) -> None:
    killed, counts = filled(tmp_path, wal_pages_max=wal_pages_max)
    check_counts(copy_as_killed(killed, tmp_path / "whole"), counts)
    with (killed / "journal.db").open("r+b") as file:
        file.write(bytes(60))
    check_counts(killed, counts)
    assert list(killed.glob("*.damaged-*"))


def test_counters_survive_without_their_blocks_and_blocks_count_without_counters(
    tmp_path: Path,
) -> None:
    """The salvage believes the table, and where that is unreadable what the blocks note."""
    killed, counts = filled(tmp_path, wal_pages_max=10_000)
    check_counts(killed, counts)
    data = (killed / "journal.db").read_bytes()
    for number, name in enumerate(("usage", "blocks")):
        other = tmp_path / str(number)
        other.mkdir()
        pages = bytearray(data)
        pages[:60] = bytes(60)
        for start in range(4096, len(pages), 4096):
            page = bytes(pages[start : start + 4096])
            holds_block = b"OCB1" in page
            holds_usage = b"-xxxxxxxx" in page and not holds_block
            if holds_usage if name == "usage" else holds_block:
                pages[start : start + 4096] = bytes(4096)
        (other / "journal.db").write_bytes(pages)
        check_counts(other, counts)


def test_a_damaged_counter_is_noticed(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 77)), owner=ANNA)
        await journal.append(intake_of(readings(2, 5)), owner=BERT)

    with_journal(tmp_path, scenario)
    db = apsw.Connection(str(tmp_path / "journal.db"))
    db.execute("UPDATE usage SET stored = 1000 WHERE user_id = 'anna'")
    db.close()
    again = with_journal(tmp_path, nothing)
    assert list(tmp_path.glob("*.damaged-*"))
    assert again.usage_of("anna") == UsageCounts(77, 77)
    assert again.usage_of("bert") == UsageCounts(5, 0)


@pytest.mark.parametrize("sample", range(12))
def test_counters_behind_a_damaged_frame(tmp_path: Path, sample: int) -> None:
    """Nothing acknowledged may drop out of a counter; if nothing is lost it is exact."""
    killed, counts = filled(tmp_path, wal_pages_max=10_000)
    rng = random.Random(sample)
    wal = bytearray((killed / "journal.db-wal").read_bytes())
    frames = len(parse_wal(bytes(wal)).frames)
    # The checksum in the head of a frame: the page itself stays whole.
    at = 32 + FRAME_BYTES * rng.randrange(frames) + 20
    wal[at] ^= 0xFF
    (killed / "journal.db-wal").write_bytes(wal)
    journal = with_journal(killed, nothing)
    assert {user: journal.usage_of(user).stored for user in journal.counted_users()} == counts
    assert journal.missing_ranges() == ()


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_transaction_that_was_cut_off(tmp_path: Path, cut: int) -> None:
    """Blocks of it may come back or not; the counter is what the blocks that are there say."""
    killed, _ = filled(tmp_path, wal_pages_max=10_000)
    wal = bytearray((killed / "journal.db-wal").read_bytes())
    frames = len(parse_wal(bytes(wal)).frames)
    # As after a restart of the WAL: older bytes stand where the last frames were to come.
    start = 32 + FRAME_BYTES * (frames - cut) + 24
    wal[start:] = random.Random(cut).randbytes(len(wal) - start)
    (killed / "journal.db-wal").write_bytes(wal)
    journal = with_journal(killed, nothing)
    found = {user: journal.usage_of(user).stored for user in journal.counted_users()}
    assert found == owned_rows(killed / "journal.db")
    assert len(found) >= USERS - 20


@pytest.mark.parametrize("place", range(1, 6))
def test_the_end_of_an_older_frame_ends_no_transaction(tmp_path: Path, place: int) -> None:
    """A frame that never reached the disk leaves the one of an earlier round in its place.

    What comes before it in the transaction that was cut off is no more acknowledged than the rest.
    """
    killed, _ = filled(tmp_path, wal_pages_max=10_000)
    wal = bytearray((killed / "journal.db-wal").read_bytes())
    image = parse_wal(bytes(wal))
    at = 32 + FRAME_BYTES * (image.last_transaction + place)
    wal[at + 4 : at + 16] = b"\x00\x00\x00\x50" + b"older..."
    wal[-2000:] = bytes(2000)
    (killed / "journal.db-wal").write_bytes(wal)
    assert parse_wal(bytes(wal)).last_transaction == image.last_transaction
    journal = with_journal(killed, nothing)
    found = {user: journal.usage_of(user).stored for user in journal.counted_users()}
    assert found == owned_rows(killed / "journal.db")
