"""The journal in fair weather: receipts, groups, idempotency, bounds, trimming, reading."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalReader, JournalTuning
from ocean_core.buffer.embedded.rows import SET_META, meta_row
from ocean_core.buffer.port import BufferState, IdRange
from ocean_core.model.errors import (
    BufferFullError,
    BufferUnavailableError,
    IdempotencyMismatchError,
    StoreVersionError,
)
from ocean_core.model.limits import BLOCK_MERGE_ROWS_MAX, BLOCK_ROWS_MAX
from ocean_core.model.receipt import Intake, Receipt
from support.journal_kit import (
    WAIT_S,
    events,
    expected_rows,
    intake_of,
    key_of,
    read_all,
    readings,
    rows_of,
    settings_for,
    until,
)

Scenario = Callable[[EmbeddedJournal], Coroutine[Any, Any, None]]


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(WAIT_S):
            return await scenario

    return asyncio.run(bounded())


def with_journal(directory: Path, scenario: Scenario, **changes: Any) -> EmbeddedJournal:
    journal = EmbeddedJournal(settings_for(directory, **changes))

    async def whole() -> None:
        await journal.open()
        try:
            await scenario(journal)
        finally:
            await journal.close()

    run(whole())
    return journal


def test_rows_come_back_under_the_ids_of_the_receipt(tmp_path: Path) -> None:
    numbers, texts = readings(1, 10, sensors=3), events(2, 4)
    receipts: list[Receipt] = []

    async def scenario(journal: EmbeddedJournal) -> None:
        both = Intake(numbers, texts, 14, layout=(1,) * 10 + (0,) * 4)
        receipts.append(await journal.append(both))
        receipts.append(await journal.append(intake_of(readings(3, as_lists=True))))
        assert journal.head_id == 15

    with_journal(tmp_path, scenario)
    first, second = receipts
    assert (first.first_reading_id, first.first_event_id, first.items) == (1, 11, 14)
    assert second.first_reading_id == 15
    found = {
        id_: row
        for block in read_all(tmp_path / "journal.db")
        for id_, row in rows_of(block).items()
    }
    assert found == (
        expected_rows(numbers, 1) | expected_rows(texts, 11) | expected_rows(readings(3), 15)
    )


def test_requests_of_one_group_share_a_transaction_and_a_block(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        parts = [journal.append(intake_of(readings(i, 2))) for i in range(20)]
        receipts = await asyncio.gather(*parts)
        assert [r.first_reading_id for r in receipts] == list(range(1, 41, 2))

    settings = settings_for(tmp_path, commit_delay_ms=20)
    journal = EmbeddedJournal(settings)

    async def whole() -> None:
        await journal.open()
        await scenario(journal)
        await journal.close()

    run(whole())
    assert settings.metrics.value("ocean_buffer_commits_total") <= 3
    assert len(read_all(tmp_path / "journal.db")) <= 3


def test_blocks_stay_within_their_bounds(tmp_path: Path) -> None:
    half = BLOCK_MERGE_ROWS_MAX // 2 + 1

    async def scenario(journal: EmbeddedJournal) -> None:
        requests = [intake_of(readings(i, half)) for i in range(3)]
        requests.append(intake_of(readings(9, BLOCK_ROWS_MAX + 5)))
        receipts = await asyncio.gather(*[journal.append(item) for item in requests])
        assert [r.first_reading_id for r in receipts] == [1 + half * i for i in range(4)]
        assert journal.head_id == 3 * half + BLOCK_ROWS_MAX + 5

    with_journal(tmp_path, scenario, commit_delay_ms=50)
    sizes = [block.count for block in read_all(tmp_path / "journal.db")]
    assert sizes == [half, half, half, BLOCK_ROWS_MAX, 5]


def test_a_client_that_leaves_does_not_harm_others(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        tasks = [asyncio.ensure_future(journal.append(intake_of(readings(i)))) for i in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(item, Receipt) for item in done[1::2])
        assert journal.head_id == 10

    with_journal(tmp_path, scenario, commit_delay_ms=20)


def test_ids_go_on_after_a_restart(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        before = journal.head_id
        receipt = await journal.append(intake_of(readings(1, 7)))
        assert receipt.first_reading_id == before + 1

    epochs = {with_journal(tmp_path, scenario, seed=i).epoch for i in range(3)}
    assert len(epochs) == 1
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("journal.db*")} == {0o600}
    assert sum(block.count for block in read_all(tmp_path / "journal.db")) == 21


# --- idempotency ----------------------------------------------------------------------------------


def test_a_repeat_gets_the_first_receipt_even_after_restart(tmp_path: Path) -> None:
    firsts: list[Receipt] = []

    async def send(journal: EmbeddedJournal) -> None:
        request = Intake(readings(1, 3), None, 2, layout=(1, 2))
        firsts.append(await journal.append(request, key_of("a")))

    with_journal(tmp_path, send)
    with_journal(tmp_path, send)
    assert firsts[1] == replace_duplicate(firsts[0])
    assert sum(block.count for block in read_all(tmp_path / "journal.db")) == 3


def replace_duplicate(receipt: Receipt) -> Receipt:
    import msgspec

    return msgspec.structs.replace(receipt, duplicate=True)


def test_repeats_in_one_group(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        request = intake_of(readings(1))
        keys = [key_of("a"), key_of("a"), key_of("a", "other"), None]
        done = await asyncio.gather(
            *[journal.append(request, key) for key in keys], return_exceptions=True
        )
        first, repeat, mismatch, plain = done
        assert isinstance(first, Receipt)
        assert repeat == replace_duplicate(first)
        assert isinstance(mismatch, IdempotencyMismatchError)
        assert isinstance(plain, Receipt)
        assert not plain.duplicate
        assert journal.head_id == 2

    with_journal(tmp_path, scenario, commit_delay_ms=20)


def test_lookup(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        assert await journal.lookup(key_of("a")) is None
        first = await journal.append(intake_of(readings(1)), key_of("a"))
        assert await journal.lookup(key_of("a")) == replace_duplicate(first)
        with pytest.raises(IdempotencyMismatchError):
            await journal.lookup(key_of("a", "other"))
        assert journal.state is BufferState.READY

    with_journal(tmp_path, scenario)


def test_old_keys_are_forgotten_and_surplus_ones_counted(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, idempotency_keys_max=5, idempotency_kept_s=3600)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        await journal.open()
        for i in range(8):
            settings.clock.advance(20)  # type: ignore[attr-defined]
            await journal.append(intake_of(readings(i)), key_of(str(i)))
        assert await journal.lookup(key_of("2")) is None
        assert await journal.lookup(key_of("3")) is not None
        settings.clock.advance(3700)  # type: ignore[attr-defined]
        await journal.append(intake_of(readings(9)), key_of("new"))
        assert await journal.lookup(key_of("7")) is None
        assert await journal.lookup(key_of("new")) is not None
        await journal.close()

    run(scenario())
    assert settings.metrics.value("ocean_buffer_idempotency_evicted_total") >= 3


def test_an_expired_key_is_new_again_whatever_its_body(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, idempotency_kept_s=3600)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        await journal.open()
        first = await journal.append(intake_of(readings(1)), key_of("daily"))
        settings.clock.advance(3601)  # type: ignore[attr-defined]
        again = await journal.append(intake_of(readings(2)), key_of("daily", "other"))
        assert not again.duplicate
        assert again.first_reading_id > first.first_reading_id
        await journal.close()

    run(scenario())


@pytest.mark.parametrize("step_s", [800_000_000, -86_400 * 30])
def test_setting_the_clock_does_not_age_keys(tmp_path: Path, step_s: int) -> None:
    settings = settings_for(tmp_path, idempotency_kept_s=3600)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        await journal.open()
        first = await journal.append(intake_of(readings(1)), key_of("a"))
        settings.clock.set_wall(settings.clock.now_us() + step_s * 1_000_000)  # type: ignore[attr-defined]
        # Also before a commit has given the keys their new dates.
        assert await journal.lookup(key_of("a")) is not None
        await journal.append(intake_of(readings(2)), key_of("b"))
        assert await journal.lookup(key_of("a")) is not None
        again = await journal.append(intake_of(readings(1)), key_of("a"))
        assert again.duplicate
        assert again.first_reading_id == first.first_reading_id
        settings.clock.advance(3601)  # type: ignore[attr-defined]
        assert await journal.lookup(key_of("a")) is None
        assert not (await journal.append(intake_of(readings(1)), key_of("a"))).duplicate
        await journal.close()

    run(scenario())


def test_the_newest_arrival_is_known_after_a_restart(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)

    async def once(*, write: bool) -> int:
        journal = EmbeddedJournal(settings)
        await journal.open()
        if write:
            await journal.append(intake_of(readings(1)))
        newest = journal.newest_arrival_us
        await journal.close()
        return newest

    written_us = settings.clock.now_us()
    assert run(once(write=True)) == written_us
    settings.clock.advance(100)  # type: ignore[attr-defined]
    assert run(once(write=False)) == written_us


# --- bounds and state -----------------------------------------------------------------------------


def test_a_full_queue_refuses_but_answers_repeats(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        first = await journal.append(intake_of(readings(1)), key_of("a"))
        waiting = [asyncio.ensure_future(journal.append(intake_of(readings(i)))) for i in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(BufferFullError) as caught:
            await journal.append(intake_of(readings(9)))
        assert caught.value.retry_after_s
        repeat, new = await asyncio.gather(
            journal.append(intake_of(readings(1)), key_of("a")),
            journal.append(intake_of(readings(1)), key_of("b")),
            return_exceptions=True,
        )
        assert repeat == replace_duplicate(first)
        assert isinstance(new, BufferFullError)
        await asyncio.gather(*waiting)

    tuning = JournalTuning(queue_requests_max=5)
    with_journal(tmp_path, scenario, commit_delay_ms=200, tuning=tuning)


def test_close_stores_what_is_queued_and_leaves_no_wal(tmp_path: Path) -> None:
    journal = EmbeddedJournal(settings_for(tmp_path, commit_delay_ms=1000))

    async def scenario() -> None:
        await journal.open()
        waiting = [asyncio.ensure_future(journal.append(intake_of(readings(i)))) for i in range(5)]
        await asyncio.sleep(0)
        await journal.close()
        assert {r.first_reading_id for r in await asyncio.gather(*waiting)} == {1, 2, 3, 4, 5}
        with pytest.raises(BufferUnavailableError):
            await journal.append(intake_of(readings(9)), key_of("a"))
        await journal.close()

    run(scenario())
    assert journal.state is BufferState.CLOSED
    wal = tmp_path / "journal.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0


def test_callbacks_and_metrics(tmp_path: Path) -> None:
    states: list[BufferState] = []
    heads: list[int] = []
    settings = settings_for(tmp_path)
    journal = EmbeddedJournal(
        settings, on_commit=heads.append, on_state=lambda state, _reason: states.append(state)
    )

    async def scenario() -> None:
        await journal.open()
        await journal.append(intake_of(readings(1, 5)))
        await journal.append(intake_of(readings(2, 5)))
        assert settings.metrics.value("ocean_buffer_ready") == 1
        await journal.close()

    run(scenario())
    assert heads == [5, 10]
    assert states == [BufferState.READY, BufferState.CLOSED]
    assert settings.metrics.value("ocean_buffer_head_id") == 10
    assert settings.metrics.value("ocean_buffer_written_bytes") > 200
    assert settings.metrics.value("ocean_buffer_ready") == 0


def test_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async def nothing(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1)))

    with_journal(tmp_path, nothing)
    db = apsw.Connection(str(tmp_path / "journal.db"))
    db.pragma("user_version", 7)
    db.execute(SET_META, meta_row("format_version", 7))
    db.close()
    before = (tmp_path / "journal.db").read_bytes()
    journal = EmbeddedJournal(settings_for(tmp_path))

    async def scenario() -> None:
        with pytest.raises(StoreVersionError):
            await journal.open()
        await journal.close()

    run(scenario())
    assert (tmp_path / "journal.db").read_bytes() == before


# --- WAL ------------------------------------------------------------------------------------------


def test_the_wal_stays_small_even_beside_a_reader(tmp_path: Path) -> None:
    wal = tmp_path / "journal.db-wal"

    async def scenario(journal: EmbeddedJournal) -> None:
        reader = JournalReader(tmp_path / "journal.db")
        for i in range(300):
            await journal.append(intake_of(readings(i, 100)))
            reader.read_after(max(0, journal.head_id - 200), rows_max=1000)
            assert wal.stat().st_size < 6 * 20 * 4200
        reader.close()

    tuning = JournalTuning(wal_pages_max=20, busy_timeout_ms=1)
    with_journal(tmp_path, scenario, tuning=tuning)


def test_a_reader_that_never_ends_does_not_stop_the_writer(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 100)))
        stuck = apsw.Connection(str(tmp_path / "journal.db"), flags=apsw.SQLITE_OPEN_READONLY)
        stuck.execute("BEGIN")
        stuck.execute("SELECT count(*) FROM telemetry_buffer").fetchall()
        for i in range(50):
            await journal.append(intake_of(readings(i, 100)))
        stuck.close()
        for i in range(50):
            await journal.append(intake_of(readings(i, 100)))
        assert (tmp_path / "journal.db-wal").stat().st_size < 6 * 10 * 4200

    tuning = JournalTuning(wal_pages_max=10, busy_timeout_ms=1)
    with_journal(tmp_path, scenario, tuning=tuning)


def test_an_idle_journal_empties_its_wal(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        await journal.append(intake_of(readings(1, 100)))
        async with asyncio.timeout(5):
            await until(lambda: not (tmp_path / "journal.db-wal").stat().st_size)

    with_journal(tmp_path, scenario, tuning=JournalTuning(checkpoint_idle_s=0.01))


# --- trimming and reading -------------------------------------------------------------------------


def test_ids_are_not_reused_after_trimming_everything(tmp_path: Path) -> None:
    async def fill(journal: EmbeddedJournal) -> None:
        for i in range(5):
            await journal.append(intake_of(readings(i, 10)))
        await journal.trim(35)
        assert read_all(tmp_path / "journal.db")[0].first_id == 31
        await journal.trim(50)

    with_journal(tmp_path, fill)
    assert read_all(tmp_path / "journal.db") == []

    async def go_on(journal: EmbeddedJournal) -> None:
        assert journal.head_id == 50
        assert (await journal.append(intake_of(readings(9)))).first_reading_id == 51
        assert journal.missing_ranges() == ()

    with_journal(tmp_path, go_on)
    assert [b.first_id for b in read_all(tmp_path / "journal.db")] == [51]


def test_reader_batches(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        reader = JournalReader(tmp_path / "journal.db")
        assert (reader.first_id(), reader.last_id()) == (0, 0)
        assert reader.read_after(0, rows_max=10).next_after_id == 0
        for i in range(4):
            await journal.append(intake_of(readings(i, 10)))
        assert reader.epoch == journal.epoch
        assert (reader.first_id(), reader.last_id()) == (1, 40)
        sizes = [len(reader.read_after(0, rows_max=n).blocks) for n in (1, 10, 19, 20, 1000)]
        assert sizes == [1, 1, 1, 2, 4]
        batch = reader.read_after(10, rows_max=20)
        assert (batch.blocks[0].first_id, batch.next_after_id) == (11, 30)
        assert [step.up_to_id for step in reader.verify_blocks()] == [40]
        reader.close()

    with_journal(tmp_path, scenario)


def test_a_reader_without_a_journal(tmp_path: Path) -> None:
    with pytest.raises(BufferUnavailableError):
        JournalReader(tmp_path / "journal.db")


def test_reported_gaps_become_missing(tmp_path: Path) -> None:
    async def scenario(journal: EmbeddedJournal) -> None:
        for i in range(4):
            await journal.append(intake_of(readings(i, 10)))
        other = apsw.Connection(str(tmp_path / "journal.db"))
        other.execute("DELETE FROM telemetry_buffer WHERE id = 11")
        other.close()
        reader = JournalReader(tmp_path / "journal.db")
        assert reader.read_after(0, rows_max=1000).damaged == [IdRange(11, 20)]
        journal.report_damage([IdRange(11, 20), IdRange(25, 26), IdRange(38, 90)])
        await journal.settled()
        assert journal.missing_ranges() == (IdRange(11, 20),)
        assert reader.read_after(0, rows_max=1000).damaged == []
        reader.close()

    settings = settings_for(tmp_path)
    journal = with_journal(tmp_path, scenario, metrics=settings.metrics)
    assert settings.metrics.value("ocean_buffer_missing_readings") == 10
    again = with_journal(tmp_path, nothing_to_do)
    assert again.missing_ranges() == journal.missing_ranges() == (IdRange(11, 20),)


async def nothing_to_do(journal: EmbeddedJournal) -> None:
    assert replace(settings_for(Path())).durability == "fsync"
    assert journal.state is BufferState.READY
