"""The query verify: analytics broken in every way that a row can be, and the journal, too."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import numpy as np
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalReader
from ocean_core.buffer.port import IdRange
from ocean_core.model import limits
from ocean_core.model.digest import digest_of, digest_text
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    QueriesFullError,
    QueryTimeoutError,
    StoreCorruptError,
)
from ocean_core.obs.clock import SystemClock
from ocean_core.service.queries import expected
from ocean_core.service.queries.engine import QueryEngine
from ocean_core.service.queries.verify import Verifier, VerifyCallbacks
from support.analytics import START_US, events_block, make_mover, make_store, plain_rows
from support.journal_kit import intake_of, readings, settings_for
from support.renaming import forget, rename
from support.verifying import FakeJournal, VerifyLab, differences

TOUCHED = "id = 5"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[VerifyLab]:
    made = VerifyLab(tmp_path)
    yield made
    made.close()


def fill(lab: VerifyLab) -> None:
    """30 readings of three sensors, 4 events, 30 readings: ids 1-30, 31-34, 35-64."""
    lab.journal.add_rows(plain_rows(30))
    lab.journal.add_events("door", [b'"open"', b'"shut"', b'{"a": 1}', b"[]"])
    lab.journal.add_rows(plain_rows(30, start_us=START_US + 10**9))
    lab.move()


def test_an_empty_box_is_in_order(lab: VerifyLab) -> None:
    step = lab.step()
    assert step["next_after_id"] is None
    assert (step["head_id"], step["watermark"], step["equal"]) == (0, 0, 0)
    assert step["totals"] == {
        "checked": True, "why_not": "", "series": 0, "readings": 0, "differing": 0,
        "differences": [],
    }  # fmt: skip
    assert lab.told == []


def test_what_is_equal(lab: VerifyLab) -> None:
    fill(lab)
    step = lab.step()
    assert differences(step) == {}
    assert (step["readings"], step["events"], step["equal"]) == (60, 4, 64)
    assert (step["up_to_id"], step["head_id"], step["next_after_id"]) == (64, 64, None)
    rows = plain_rows(30) + plain_rows(30, start_us=START_US + 10**9)
    digest = digest_text(digest_of([row[1] for row in rows], [row[2] for row in rows]))
    assert step["digest_journal"] == step["digest_analytics"] == digest
    assert (step["totals"]["series"], step["totals"]["differing"]) == (3, 0)
    assert step["lost"] == step["series"] == step["examples"] == []
    assert lab.told == []
    assert not lab.store.is_suspect


@pytest.mark.parametrize(
    ("statement", "found", "sensor_id"),
    [
        (f"DELETE FROM readings WHERE {TOUCHED}", {"absent": 1}, "sensor-1"),
        (
            f"INSERT INTO readings SELECT * FROM readings WHERE {TOUCHED}",
            {"doubled": 1},
            "sensor-1",
        ),
        (f"UPDATE readings SET value = value + 1e-9 WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (f"UPDATE readings SET value = NULL WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (f"UPDATE readings SET ts = ts + INTERVAL 1 microsecond WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (f"UPDATE readings SET ts = NULL WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (f"UPDATE readings SET quality = 1 WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (f"UPDATE readings SET series_id = 3 WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (f"UPDATE readings SET series_id = 99 WHERE {TOUCHED}", {"changed": 1}, "sensor-1"),
        (
            f"UPDATE readings SET id = 99 WHERE {TOUCHED}",
            {"absent": 1, "surplus": 1},
            "sensor-1",
        ),
        (
            f"UPDATE readings SET id = NULL WHERE {TOUCHED}",
            {"absent": 1, "surplus": 1},
            "sensor-1",
        ),
        (
            "UPDATE readings SET id = 6 WHERE id = 5",
            {"absent": 1, "changed": 1, "doubled": 1},
            "sensor-2",
        ),
        ("UPDATE readings SET id = 32 WHERE id = 5", {"absent": 1, "surplus": 1}, "sensor-1"),
        ("DELETE FROM events WHERE id = 32", {"absent": 1}, "door"),
        ("UPDATE events SET payload = '\"ajar\"' WHERE id = 32", {"changed": 1}, "door"),
        ("UPDATE events SET payload = NULL WHERE id = 32", {"changed": 1}, "door"),
        ("INSERT INTO events SELECT * FROM events WHERE id = 32", {"doubled": 1}, "door"),
        ("UPDATE series SET metric = 'other' WHERE sensor_id = 'sensor-1'", {"changed": 20}, "sensor-1"),
        ("DELETE FROM series WHERE sensor_id = 'sensor-1'", {"changed": 20}, "sensor-1"),
    ],
)  # fmt: skip
def test_rows_that_differ_are_found_and_the_file_is_to_be_replaced(
    lab: VerifyLab, statement: str, found: dict[str, int], sensor_id: str
) -> None:
    fill(lab)
    lab.break_it(statement)
    step = lab.step()
    assert differences(step) == found
    assert step["equal"] == 64 - found.get("absent", 0) - found.get("changed", 0)
    assert step["series"][0]["sensor_id"] == sensor_id
    assert sensor_id in {entry["sensor_id"] for entry in step["examples"]}
    assert len(lab.told) == 1
    assert "verify found rows that differ, ids 1-64" in lab.told[0]
    assert lab.store.is_suspect
    lab.step(after_id=64)
    assert lab.told[1:] == lab.told[:1], "steps that follow keep the process alive"


def test_minus_zero_is_another_number(lab: VerifyLab) -> None:
    lab.journal.add_rows([(("s", "value"), START_US, -0.0, 0), (("s", "value"), START_US, 0.0, 0)])
    lab.move()
    assert differences(lab.step()) == {}
    # DuckDB leaves out updates to what it takes for equal.
    lab.break_it(
        "CREATE TEMP TABLE kept AS SELECT * REPLACE (0.0 AS value) FROM readings WHERE id = 1",
        "DELETE FROM readings WHERE id = 1",
        "INSERT INTO readings SELECT * FROM kept",
    )
    assert differences(lab.step()) == {"changed": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET n = n + 1",
        "UPDATE {} SET mean = mean + 0.1",
        "UPDATE {} SET max = max + 1",
        "UPDATE {} SET first_ts = first_ts - INTERVAL 1 second",
        "DELETE FROM {} WHERE series_id = 2",
        "INSERT INTO {} SELECT * REPLACE (77 AS series_id) FROM {} LIMIT 1",
    ],
)
@pytest.mark.parametrize("table", ["rollup_1m", "rollup_1h"])
def test_rollups_that_do_not_say_what_the_readings_say(
    lab: VerifyLab, statement: str, table: str
) -> None:
    fill(lab)
    lab.break_it(statement.replace("{}", table))
    step = lab.step()
    assert differences(step) == {}
    assert step["totals"]["differing"] >= 1
    assert {entry["rollup"] for entry in step["totals"]["differences"]} == {table}
    assert "wrong rollups" in lab.told[0]


def test_sums_beyond_the_range_of_numbers_say_nothing(lab: VerifyLab) -> None:
    lab.journal.add_rows([(("s", "value"), START_US + k, 1.5e308, 0) for k in range(4)])
    lab.move()
    assert lab.step()["totals"]["differing"] == 0


def test_totals_of_too_many_readings_are_left_out(
    lab: VerifyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lab)
    monkeypatch.setattr(limits, "VERIFY_TOTALS_ROWS_MAX", 59)
    totals = lab.step()["totals"]
    assert not totals["checked"]
    assert "59" in totals["why_not"]


def test_renamed_and_forgotten_sensors(lab: VerifyLab) -> None:
    fill(lab)
    lab.follow(rename(1, "sensor-0", "sensor-2"), forget(2, "sensor-1", 40), forget(3, "door", 33))
    lab.journal.add_rows(plain_rows(9))
    lab.move()
    step = lab.step()
    assert differences(step) == {}
    assert step["forgotten"] == 10 + 2 + 3
    assert step["forgotten_sensors"] == [
        {"sensor_id": "door", "count": 3}, {"sensor_id": "sensor-1", "count": 12},
    ]  # fmt: skip
    assert step["equal"] == 73 - 15
    assert step["totals"]["differing"] == 0
    # What was to vanish and is there, and what was not to vanish and is not.
    lab.break_it(
        "INSERT INTO readings SELECT 2, series_id, ts, value, quality FROM readings WHERE id = 65",
        "DELETE FROM readings WHERE id = 66",
    )
    step = lab.step()
    assert differences(step) == {"absent": 1, "surplus": 1}
    assert {entry["sensor_id"] for entry in step["series"]} == {"sensor-2", "sensor-1"}


def test_what_the_journal_has_lost(lab: VerifyLab) -> None:
    for _ in range(5):
        lab.journal.add_rows(plain_rows(10))
    lab.move()
    lab.journal.lose(1, 30)
    lab.journal.trimmed = 10
    lab.journal.missing = [IdRange(11, 20)]
    step = lab.step()
    assert differences(step) == {}
    assert (step["trimmed"], step["missing"], step["damaged"]) == (10, 10, 10)
    assert (step["kept"], step["equal"], step["readings"]) == (30, 20, 20)
    assert step["lost"] == [
        {"first_id": 21, "last_id": 30, "why": "damaged", "in_analytics": 10},
        {"first_id": 11, "last_id": 20, "why": "missing", "in_analytics": 10},
        {"first_id": 1, "last_id": 10, "why": "trimmed", "in_analytics": 10},
    ]
    assert lab.told == [[IdRange(21, 30)]], "its writer is to note what it did not know"
    assert not lab.store.is_suspect


@pytest.mark.parametrize("hole", [expected.HOLE_IDS, expected.HOLE_IDS + 1, 10**12])
def test_holes_of_any_size_take_no_time(lab: VerifyLab, hole: int) -> None:
    lab.journal.add_rows(plain_rows(10))
    lab.move()
    lab.journal.blocks.append(events_block(11 + hole, "door", [b"1"]))
    lab.journal.missing = [IdRange(11, 10 + hole)]
    lab.move()
    assert lab.step()["missing"] == hole
    lab.break_it(
        f"INSERT INTO readings SELECT {10 + hole}, series_id, ts, value, quality FROM readings"
    )
    step = lab.step()
    assert differences(step) == ({"doubled": 9} if hole <= expected.HOLE_IDS else {})
    assert (step["missing"], step["up_to_id"], step["equal"]) == (hole, 11 + hole, 11)
    assert step["kept"] == (1 if hole <= expected.HOLE_IDS else 10)
    # At the end and at the beginning, too.
    lab.journal.blocks.clear()
    lab.journal.trimmed = 10
    lab.journal.missing.append(IdRange(11 + hole, 11 + hole))
    step = lab.step()
    assert (step["trimmed"], step["missing"], step["readings"]) == (10, hole + 1, 0)


def test_losses_behind_the_watermark_count_and_new_readings_wait(lab: VerifyLab) -> None:
    lab.journal.add_rows(plain_rows(10))
    lab.move()
    lab.journal.missing = [IdRange(11, 15)]
    step = lab.step()
    assert (step["missing"], step["head_id"], step["waiting"]) == (5, 15, 0)
    lab.journal.blocks.append(events_block(16, "door", [b"1", b"2"]))
    step = lab.step()
    assert (step["missing"], step["head_id"], step["waiting"]) == (5, 17, 2)
    assert lab.told == []


def test_steps_are_bounded_and_add_up(lab: VerifyLab, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):
        lab.journal.add_rows(plain_rows(7))
        lab.journal.add_events("door", [b"1", b"2"])
    lab.move()
    whole = lab.step()
    monkeypatch.setattr(expected, "CHUNK_ROWS", 5)
    monkeypatch.setattr(limits, "VERIFY_STEP_ROWS", 20)
    steps = lab.verify()
    assert len(steps) == 4
    for name in ("readings", "events", "equal"):
        assert sum(step[name] for step in steps) == whole[name]
    assert [step["totals"] is None for step in steps] == [True, True, True, False]
    # Anybody may begin in the middle of a block.
    for after_id in range(91):
        step = lab.step(after_id)
        assert differences(step) == {}
        assert step["equal"] == step["up_to_id"] - after_id


def test_a_step_ends_when_its_time_is_over(lab: VerifyLab) -> None:
    for _ in range(5):
        lab.journal.add_rows(plain_rows(10))
    lab.move()
    lab.journal.on_scan = lambda: lab.clock.advance(limits.VERIFY_STEP_S + 1)
    step = lab.step()
    assert (step["up_to_id"], step["next_after_id"]) == (10, 10)
    assert len(lab.verify()) == 5


def test_the_mover_goes_on_meanwhile(lab: VerifyLab) -> None:
    lab.journal.add_rows(plain_rows(10))
    lab.move()

    def more() -> None:
        lab.journal.on_scan = lambda: None
        lab.journal.add_rows(plain_rows(10))
        lab.move()
        lab.follow(rename(1, "sensor-0", "sensor-9"), forget(2, "sensor-1", 20))

    lab.journal.on_scan = more
    step = lab.step()
    assert differences(step) == {}
    assert (step["watermark"], step["up_to_id"], step["head_id"]) == (10, 10, 20)
    assert step["forgotten"] == 0
    assert differences(lab.step(10)) == {}
    assert lab.step()["forgotten"] == 6
    assert lab.told == []


def test_a_difference_that_is_gone_at_the_second_look_is_none(lab: VerifyLab) -> None:
    fill(lab)
    whole = lab.journal.blocks
    damaged = [*whole[:-1]]
    seen: list[int] = []

    def once_less() -> None:
        seen.append(1)
        lab.journal.blocks = damaged if len(seen) == 1 else whole

    lab.journal.on_scan = once_less
    lab.journal.trimmed = 0
    lab.journal.blocks = whole
    # A memory that errs once: the last block is read with another id.
    wrong = events_block(35, "door", [b"1"] * 30)
    damaged.append(wrong)
    assert differences(lab.step()) == {}
    assert len(seen) == 2
    assert not lab.store.is_suspect


def test_what_cannot_be_compared(lab: VerifyLab) -> None:
    fill(lab)
    lab.journal.epoch = "another"
    with pytest.raises(AnalyticsUnavailableError, match="another journal"):
        lab.step()
    lab.journal.epoch = "00000000-0000-0000-0000-000000000001"
    lab.journal.error = StoreCorruptError("the file is damaged")
    with pytest.raises(StoreCorruptError):
        lab.step()
    assert lab.told == [lab.journal.error]
    without = QueryEngine(lab.store, None, lab.clock, 30)
    with pytest.raises(AnalyticsUnavailableError, match="no journal"):
        without.answer("verify", {})


def test_one_at_a_time(lab: VerifyLab) -> None:
    fill(lab)
    refused: list[str] = []

    def ask_again() -> None:
        for name in ("verify", "digests"):
            with pytest.raises(QueriesFullError) as told:
                lab.engine.answer(name, {})
            refused.append(told.value.detail)

    lab.journal.on_scan = ask_again
    lab.step()
    assert len(refused) == 2
    lab.engine.answer("digests", {})


def test_it_is_ended_like_any_query(lab: VerifyLab) -> None:
    fill(lab)
    lab.journal.on_scan = lab.engine.interrupt_all
    with pytest.raises(AnalyticsUnavailableError, match="stopping"):
        lab.step()
    engine = QueryEngine(lab.store, None, lab.clock, 0.0, verifier=lab.verifier)
    with pytest.raises(QueryTimeoutError):
        engine.answer("verify", {})


def test_lists_are_bounded(lab: VerifyLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.journal.add_rows(plain_rows(900, series=300))
    lab.move()
    lab.break_it("UPDATE readings SET value = 1e9", "DELETE FROM readings WHERE id = 7")
    step = lab.step()
    assert differences(step) == {"changed": 899, "absent": 1}
    assert step["series_differing"] == 300
    assert len(step["series"]) == limits.VERIFY_SERIES_LISTED_MAX
    assert len(step["examples"]) == limits.VERIFY_ROWS_LISTED_MAX
    monkeypatch.setattr(limits, "VERIFY_RANGES_LISTED_MAX", 1)
    lab.journal.blocks.clear()
    lab.journal.missing = [IdRange(k, k) for k in range(1, 900, 2)]
    step = lab.step()
    assert step["missing"] == 450
    assert step["damaged"] == 450
    assert len(step["lost"]) == 1


@pytest.fixture
def journal_dir(tmp_path: Path) -> Path:
    """A journal on disk with ten blocks of 100 readings, ids 1 to 1000."""

    async def write() -> None:
        journal = EmbeddedJournal(settings_for(tmp_path))
        await journal.open()
        for k in range(10):
            await journal.append(intake_of(readings(k, 100, sensors=3)))
        await journal.close()

    asyncio.run(write())
    return tmp_path


def test_a_journal_on_disk_and_a_flipped_bit_in_it(journal_dir: Path) -> None:
    path = journal_dir / "journal.db"
    reader = JournalReader(path)
    store = make_store(journal_dir)
    store.open(reader.epoch)
    mover = make_mover(reader, store)  # type: ignore[arg-type]
    mover.prepare()
    mover.drain_once()
    told: list[Any] = []
    verifier = Verifier(
        store, lambda: JournalReader(path), SystemClock(), VerifyCallbacks(on_damage=told.append)
    )
    engine = QueryEngine(store, None, SystemClock(), 30, verifier=verifier)
    step = msgspec.json.decode(engine.answer("verify", {}))
    assert (step["equal"], step["head_id"]) == (1000, 1000)
    assert differences(step) == {}
    with apsw.Connection(str(path)) as db:
        data = bytearray(db.execute("SELECT data FROM telemetry_buffer WHERE id = 301").get)
        data[500] ^= 1
        db.execute("UPDATE telemetry_buffer SET data = ? WHERE id = 301", (bytes(data),))
        db.execute("DELETE FROM telemetry_buffer WHERE id = 501")
    step = msgspec.json.decode(engine.answer("verify", {}))
    assert differences(step) == {}
    assert (step["damaged"], step["kept"], step["equal"]) == (200, 200, 800)
    assert told == [[IdRange(301, 400), IdRange(501, 600)]]
    reader.close()
    store.close()


# --- digests --------------------------------------------------------------------------------------


def digests(lab: VerifyLab, **params: object) -> Any:
    return msgspec.json.decode(lab.engine.answer("digests", params))


def all_digests(lab: VerifyLab, **params: object) -> list[Any]:
    entries: list[Any] = []
    after: object = None
    for _ in range(100):
        page = digests(lab, after=after, **params)
        entries += page["series"]
        after = page["next"]
        if after is None:
            return entries
    raise AssertionError("pages without end")


@pytest.mark.parametrize("fetched", [1_000_000, 13])
@pytest.mark.parametrize("paged", [10**9, 1, 50])
def test_digests_of_series(
    lab: VerifyLab, monkeypatch: pytest.MonkeyPatch, fetched: int, paged: int
) -> None:
    from ocean_core.service.queries import digests as module

    monkeypatch.setattr(module, "_FETCH_ROWS", fetched)
    monkeypatch.setattr(limits, "DIGESTS_PAGE_ROWS", paged)
    fill(lab)
    names = [("wall/ä\"'", "metric/1"), ("wall/ä\"'", "value"), ("sensor-1", "Value")]
    generator = np.random.default_rng(4)
    for name in names:
        for value in generator.normal(size=20):
            lab.journal.add_rows([(name, START_US, float(value), 0)] * 2)
    lab.move()
    expected_ones: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for block in lab.journal.blocks:
        if block.rows.series[0][1]:
            rows: Any = block.rows
            for k in range(len(rows)):
                series = rows.series[int(rows.series_index[k])]
                entry = int(rows.timestamp_us[k]), float(rows.value[k])
                expected_ones.setdefault(series, []).append(entry)
    found = all_digests(lab, limit=2)
    assert [(one["sensor_id"], one["metric"]) for one in found] == sorted(expected_ones)
    for one in found:
        own = expected_ones[one["sensor_id"], one["metric"]]
        assert one["count"] == len(own)
        assert one["digest"] == digest_text(digest_of([t for t, _ in own], [v for _, v in own]))
    assert digests(lab)["watermark"] == lab.journal.last_id()
    assert [one["sensor_id"] for one in all_digests(lab, prefix="wall")] == [names[0][0]] * 2
    limited = all_digests(lab, pattern="*-[01]", limit=1)
    assert {one["sensor_id"] for one in limited} == {"sensor-0", "sensor-1"}
    assert digests(lab, prefix="none") == {
        "series": [], "next": None, "watermark": lab.journal.last_id(),
    }  # fmt: skip


def test_the_digest_of_what_was_renamed_and_forgotten(lab: VerifyLab) -> None:
    fill(lab)
    lab.follow(rename(1, "sensor-0", "hall"), forget(2, "sensor-1", 30))
    found = {one["sensor_id"]: one["count"] for one in all_digests(lab)}
    assert found == {"hall": 20, "sensor-1": 10, "sensor-2": 20}


def test_fake_journals_are_what_they_stand_for() -> None:
    journal = FakeJournal()
    assert journal.scan(1, lambda _block: None) == []
