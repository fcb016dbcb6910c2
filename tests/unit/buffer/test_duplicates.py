"""What comes again is counted by sensor: exactly, before it is answered, whatever happens."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalTuning, duplicates, opening
from ocean_core.buffer.embedded.wal import FRAME_BYTES, parse_wal
from ocean_core.buffer.port import DuplicateCount
from ocean_core.model.errors import OceanError
from ocean_core.model.receipt import Intake
from support.forgetful_vfs import Disk
from support.journal_kit import (
    START_US,
    WAIT_S,
    copy_as_killed,
    events,
    intake_of,
    key_of,
    log_text,
    readings,
    settings_for,
    until,
)

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


async def nothing(_journal: EmbeddedJournal) -> None:
    return


def counts(journal: EmbeddedJournal) -> dict[str, int]:
    return {name: one.count for name, one in journal.duplicates().items()}


def test_rows_of_an_intake_by_sensor() -> None:
    one = replace(readings(1, 7), series=[("a", "x")])
    assert intake_of(one).rows_by_sensor() == {"a": 7}
    several = replace(readings(1, 7, sensors=3), series=[("a", "x"), ("b", "x"), ("a", "y")])
    assert intake_of(several).rows_by_sensor() == {"a": 5, "b": 2}
    lists = replace(readings(1, 4, sensors=2, as_lists=True), series=[("a", "x"), ("b", "x")])
    both = Intake(lists, replace(events(2, 3), series=[("b", "")]), 7)
    assert both.rows_by_sensor() == {"a": 2, "b": 5}


def test_repeats_are_counted_by_sensor(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        assert journal.duplicates() == {}
        request = intake_of(readings(1, 10, sensors=2))
        # The first of them in the same group, the last after it.
        sent = await asyncio.gather(*(journal.append(request, key_of("a")) for _ in range(3)))
        assert sorted(receipt.duplicate for receipt in sent) == [False, True, True]
        await journal.append(request, key_of("a"))
        with pytest.raises(OceanError):
            await journal.append(request, key_of("a", "other"))
        both = await asyncio.gather(
            journal.append(intake_of(readings(5)), key_of("c")),
            journal.append(intake_of(readings(5)), key_of("c", "other")),
            return_exceptions=True,
        )
        assert [isinstance(one, OceanError) for one in both] == [False, True]
        assert journal.duplicates() == {
            "sensor-1-0": DuplicateCount(15, START_US),
            "sensor-1-1": DuplicateCount(15, START_US),
        }

    assert counts(EmbeddedJournal(settings_for(tmp_path))) == {}
    with_journal(tmp_path, scenario, commit_delay_ms=20)
    assert counts(with_journal(tmp_path, nothing)) == {"sensor-1-0": 15, "sensor-1-1": 15}


def test_a_lookup_counts_what_it_finds(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        mixed = Intake(readings(1, 4), events(2, 3), 5, layout=(2, 2, 0, 0, 0))
        await journal.append(mixed, key_of("a"))
        assert await journal.lookup(key_of("b"), {"x": 1}) is None
        found = await asyncio.gather(*(journal.lookup(key_of("a"), {"x": 2}) for _ in range(200)))
        assert all(receipt is not None and receipt.duplicate for receipt in found)
        # Whoever cannot tell whose rows they are leaves that open.
        assert await journal.lookup(key_of("a")) is not None
        assert counts(journal) == {"x": 400, "": 7}

    with_journal(tmp_path, scenario)
    assert counts(with_journal(tmp_path, nothing)) == {"x": 400, "": 7}


def test_a_repeat_that_finds_the_queue_full_is_counted(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        request = intake_of(readings(1, 3))
        await journal.append(request, key_of("a"))
        first, *others = await asyncio.gather(
            journal.append(intake_of(readings(2))),
            *(journal.append(request, key_of("a")) for _ in range(5)),
        )
        assert not first.duplicate
        assert all(receipt.duplicate for receipt in others)
        assert counts(journal) == {"sensor-1-0": 15}

    tuning = JournalTuning(queue_requests_max=1)
    with_journal(tmp_path, scenario, tuning=tuning, commit_delay_ms=50)
    assert counts(with_journal(tmp_path, nothing)) == {"sensor-1-0": 15}


def test_too_many_sensors_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "DUPLICATE_SENSORS_MAX", 4)

    async def scenario(journal: EmbeddedJournal) -> None:
        for tag in range(3):
            request = intake_of(readings(tag, 10, sensors=2))
            for _ in range(3):
                await journal.append(request, key_of(f"{tag}"))
        # Some in one group, where both bounds meet.
        more = [intake_of(readings(tag, 6, sensors=6)) for tag in (7, 8)]
        for request in more * 2:
            await journal.append(request, key_of(f"{request.rows_by_sensor()}"))
        assert len(journal.duplicates()) <= 5
        assert sum(counts(journal).values()) == 60 + 12
        assert counts(journal)["sensor-0-0"] == 10

    with_journal(tmp_path, scenario)
    assert sum(counts(with_journal(tmp_path, nothing)).values()) == 72


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk(random.Random(7)) as made:
        yield made


@pytest.mark.parametrize("trouble", ["sync", "write"])
def test_while_the_disk_fails_repeats_are_answered_and_counted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, trouble: str
) -> None:
    """Each answer counts once, also if the commit that failed is in the file all the same."""
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
    answered = 0

    async def scenario(journal: EmbeddedJournal) -> None:
        nonlocal answered
        request = intake_of(readings(1, 5))
        await journal.append(request, key_of("a"))
        assert (await journal.append(request, key_of("a"))).duplicate
        failing = True

        def fail(path: str) -> None:
            if failing and path.endswith("-wal"):
                raise apsw.IOError("no") if trouble == "sync" else apsw.FullError("full")

        if trouble == "sync":
            disk.before_sync = fail
        else:
            disk.before_write = lambda path, _size: fail(path)
        answered = 1
        for _ in range(4):
            try:
                await journal.append(request, key_of("a"))
                answered += 1
            except OceanError:
                assert journal.state == "failed"
        assert answered >= 4
        # What is not durable does not show.
        assert counts(journal) == {"sensor-1-0": 5}
        failing = False
        journal.retry_now()
        await until(lambda: journal.state == "ready")
        assert counts(journal) == {"sensor-1-0": 5 * answered}

    with_journal(tmp_path, scenario, vfs=disk.name, exclusive=True)
    assert counts(with_journal(tmp_path, nothing)) == {"sensor-1-0": 5 * answered}


def test_lookups_waiting_when_the_disk_fails_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)

    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 5)), key_of("a"))
        hits = 0

        def fail_once(path: str) -> None:
            nonlocal hits
            if path.endswith("-wal") and not hits:
                hits += 1
                raise apsw.IOError("no")

        disk.before_sync = fail_once
        found = await asyncio.gather(*(journal.lookup(key_of("a"), {"x": 1}) for _ in range(9)))
        assert hits == 1
        assert all(found)
        await until(lambda: journal.state == "ready")
        assert counts(journal) == {"x": 9}

    with_journal(tmp_path, scenario, vfs=disk.name, exclusive=True)
    assert counts(with_journal(tmp_path, nothing)) == {"x": 9}


# --- damage ---------------------------------------------------------------------------------------

SENSORS = 300


def filled(directory: Path, *, wal_pages_max: int) -> tuple[Path, dict[str, int]]:
    """Make a journal as kill -9 leaves it, with so many sensors that their table has inner pages."""
    live = directory / "live"
    live.mkdir()
    expected: dict[str, int] = {}

    async def scenario(journal: EmbeddedJournal) -> None:
        for start in range(0, SENSORS, 20):
            sent = []
            for i in range(start, start + 20):
                name = f"{i:04}-{'x' * 60}"
                request = intake_of(replace(readings(i + 1, 1 + i % 5), series=[(name, "value")]))
                expected[name] = 2 * (1 + i % 5)
                sent += [journal.append(request, key_of(f"{i}")) for _ in range(3)]
            await asyncio.gather(*sent)
        copy_as_killed(live, directory / "killed")

    tuning = JournalTuning(wal_pages_max=wal_pages_max, checkpoint_idle_s=60)
    with_journal(live, scenario, tuning=tuning)
    return directory / "killed", expected


@pytest.mark.parametrize("wal_pages_max", [5, 10_000])
def test_a_salvage_takes_the_counts_along(tmp_path: Path, wal_pages_max: int) -> None:
    killed, expected = filled(tmp_path, wal_pages_max=wal_pages_max)
    whole = copy_as_killed(killed, tmp_path / "whole")
    assert counts(with_journal(whole, nothing)) == expected
    with (killed / "journal.db").open("r+b") as file:
        file.write(bytes(60))
    assert counts(with_journal(killed, nothing)) == expected
    assert list(killed.glob("*.damaged-*"))


def test_a_damaged_count_is_noticed(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        for tag in (1, 2):
            for _ in range(2):
                await journal.append(intake_of(readings(tag, 7)), key_of(f"{tag}"))

    with_journal(tmp_path, scenario)
    db = apsw.Connection(str(tmp_path / "journal.db"))
    db.execute("UPDATE duplicates SET count = 1000 WHERE sensor_id = 'sensor-1-0'")
    db.close()
    again = with_journal(tmp_path, nothing)
    assert list(tmp_path.glob("*.damaged-*"))
    assert counts(again)["sensor-2-0"] == 7
    assert counts(again).get("sensor-1-0", 7) == 7


def test_a_sensor_called_like_a_row_of_another_table(tmp_path: Path) -> None:
    """A salvage finds rows without their tables: their names must not make them others' rows."""
    names = ["trimmed", "high_water", "epoch", "api", "anna", "format_version"]

    async def scenario(journal: EmbeddedJournal) -> None:
        for name in names:
            request = intake_of(replace(readings(1, 3), series=[(name, "value")]))
            for _ in range(2):
                await journal.append(request, key_of(name))
        await journal.acknowledge("api", [1, 2, 5])

    before = with_journal(tmp_path, scenario)
    with (tmp_path / "journal.db").open("r+b") as file:
        file.write(bytes(60))
    after = with_journal(tmp_path, nothing)
    assert counts(after) == dict.fromkeys(names, 3)
    assert (after.head_id, after.epoch) == (before.head_id, before.epoch)
    assert after.missing_ranges() == ()


@pytest.mark.parametrize("sample", range(12))
def test_counts_behind_a_damaged_frame(tmp_path: Path, sample: int) -> None:
    killed, expected = filled(tmp_path, wal_pages_max=10_000)
    rng = random.Random(sample)
    wal = bytearray((killed / "journal.db-wal").read_bytes())
    frames = len(parse_wal(bytes(wal)).frames)
    # The checksum in the head of a frame: the page itself stays whole.
    wal[32 + FRAME_BYTES * rng.randrange(frames) + 20] ^= 0xFF
    (killed / "journal.db-wal").write_bytes(wal)
    assert counts(with_journal(killed, nothing)) == expected


def test_repeats_that_could_never_be_counted_are_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
    settings = settings_for(tmp_path, vfs=disk.name, exclusive=True)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            await journal.append(intake_of(readings(1, 5)), key_of("a"))

            def fail(path: str) -> None:
                if path.endswith("-wal"):
                    raise apsw.IOError("no")

            disk.before_sync = fail
            assert await journal.lookup(key_of("a"), {"x": 5}) is not None
            await journal.close()

    asyncio.run(scenario())
    assert "5 duplicates were answered and are not counted" in log_text(settings)
