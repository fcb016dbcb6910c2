"""Journals of older versions become those of today when they are opened, and lose nothing."""

import asyncio
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, schema
from ocean_core.buffer.embedded.rows import (
    ADD_BLOCK,
    SET_CURSOR,
    SET_META,
    KeyRow,
    meta_row,
    pack_keys,
    row_of,
    sealed_receipt,
    uuid_with_keys,
)
from ocean_core.buffer.embedded.store import _encoder
from ocean_core.buffer.port import UsageCounts
from ocean_core.model.block import Block, pack_block
from ocean_core.model.receipt import Owner, Receipt
from support.journal_kit import (
    START_US,
    WAIT_S,
    copy_as_killed,
    expected_rows,
    intake_of,
    key_of,
    read_all,
    readings,
    rows_of,
    settings_for,
)
from support.paths import REPO

# As released, unchanged.
SCRIPTS = (
    REPO / "tests/data/journal-1/schema.sql",
    REPO / "tests/data/journal-2/schema_2.sql",
)
EPOCH = "11111111-2222-4333-8444-555555555555"
SCHEMA_ROWS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid"

Rows = dict[int, tuple[object, ...]]


old_versions = pytest.mark.parametrize("version", range(1, len(SCRIPTS) + 1))


def write_version(version: int, path: Path, *, blocks: int = 40, trimmed: int = 0) -> Rows:
    """Make a journal as that version did; most of it in the main file, the rest in the WAL."""
    db = apsw.Connection(str(path))
    db.pragma("page_size", 4096)
    db.pragma("auto_vacuum", 2)
    db.pragma("journal_mode", "WAL")
    db.pragma("synchronous", "OFF")
    db.wal_autocheckpoint(0)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.execute("BEGIN IMMEDIATE")
    for script in SCRIPTS[:version]:
        db.execute(script.read_text(encoding="utf-8"))
    db.pragma("user_version", version)
    meta: dict[str, str | int] = {
        "epoch": EPOCH, "format_version": version, "high_water": 0, "trimmed": trimmed,
    }  # fmt: skip
    db.executemany(SET_META, [meta_row(key, value) for key, value in meta.items()])
    db.execute(SET_CURSOR, ("", EPOCH, 0))
    db.execute("COMMIT")
    rows: Rows = {}
    first = trimmed + 1
    for tag in range(1, blocks + 1):
        if tag == blocks - 3:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        numbers = readings(tag, 1 + tag * 37 % 800, sensors=2)
        key = key_of(f"key-{tag}")
        receipt = Receipt(first, 0, START_US, len(numbers), timestamp_us=START_US)
        sealed = sealed_receipt(key.scope, key.key, key.digest, _encoder.encode(receipt))
        keys = pack_keys([KeyRow(key.scope, key.key, key.digest, START_US, sealed)], {})
        block = Block(first, START_US, uuid_with_keys(bytes(12), keys), numbers)
        db.execute(ADD_BLOCK, msgspec.structs.astuple(row_of(block, pack_block(block), keys)))
        put = "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)"
        db.execute(put, (key.scope, key.key, key.digest, START_US, sealed))
        rows |= expected_rows(numbers, first)
        first += len(numbers)
    db.close()
    return rows


def stored(directory: Path) -> Rows:
    return {id_: row for b in read_all(directory / "journal.db") for id_, row in rows_of(b).items()}


def tables_of(path: Path) -> list[tuple[Any, ...]]:
    db = apsw.Connection(str(path))
    try:
        assert db.pragma("user_version") == schema.FORMAT_VERSION
        assert db.pragma("integrity_check") == "ok"
        return list(db.execute(SCHEMA_ROWS))
    finally:
        db.close()


def use(directory: Path, *, expect_head: int) -> None:
    """Open it and do everything that is new, and something old."""
    journal = EmbeddedJournal(settings_for(directory))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            assert journal.state == "ready", journal.failure
            assert journal.epoch == EPOCH
            assert journal.missing_ranges() == ()
            assert journal.head_id == expect_head
            assert journal.groups() == []
            again = await journal.append(intake_of(readings(5)), key_of("key-5"))
            assert again.duplicate
            assert {name: one.count for name, one in journal.duplicates().items()} == {
                "sensor-5-0": 1
            }
            receipt = await journal.append(intake_of(readings(10**6, 3)), owner=Owner("u", True))
            assert receipt.first_reading_id == expect_head + 1
            assert journal.usage_of("u") == UsageCounts(3, 3)
            assert (await journal.acknowledge("api", [1])).newly == 1
            await journal.forget_group("api")
            await journal.close()

    asyncio.run(scenario())


@old_versions
def test_an_older_journal_is_taken_over(tmp_path: Path, version: int) -> None:
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    old.mkdir()
    fresh.mkdir()
    rows = write_version(version, old / "journal.db")
    assert (old / "journal.db-wal").stat().st_size > 4096
    use(old, expect_head=max(rows))
    found = stored(old)
    assert {id_: found[id_] for id_ in rows} == rows
    assert len(found) == len(rows) + 3

    async def make() -> None:
        journal = EmbeddedJournal(settings_for(fresh))
        await journal.open()
        await journal.close()

    asyncio.run(make())
    # The root pages too: the same expectation holds for both.
    assert tables_of(old / "journal.db") == tables_of(fresh / "journal.db")


@old_versions
def test_an_empty_older_journal(tmp_path: Path, version: int) -> None:
    write_version(version, tmp_path / "journal.db", blocks=0)
    journal = EmbeddedJournal(settings_for(tmp_path))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            assert (await journal.append(intake_of(readings(1)))).first_reading_id == 1
            await journal.close()

    asyncio.run(scenario())
    assert journal.epoch == EPOCH
    assert not list(tmp_path.glob("*.damaged-*"))


@pytest.mark.parametrize("harm", ["header", "tables", "version"])
@old_versions
def test_a_damaged_older_journal_is_salvaged_into_one_of_today(
    tmp_path: Path, harm: str, version: int
) -> None:
    rows = write_version(version, tmp_path / "journal.db")
    with (tmp_path / "journal.db").open("r+b") as file:
        match harm:
            case "header":
                file.write(bytes(100))
            case "tables":
                # Inside the text of the last table made.
                file.seek(file.read(4096).index(b"CREATE TABLE cursors") + 8)
                file.write(b"x")
            case "version":
                file.seek(60)
                file.write((version + 1).to_bytes(4, "big"))
    # The WAL has page 1 as well.
    (tmp_path / "journal.db-wal").unlink()
    kept = {
        id_: row for id_, row in rows.items() if id_ <= max(stored_plainly(tmp_path), default=0)
    }
    use(tmp_path, expect_head=max(kept))
    found = stored(tmp_path)
    assert {id_: found[id_] for id_ in kept} == kept
    assert list(tmp_path.glob("journal.db.damaged-*"))
    tables_of(tmp_path / "journal.db")


def stored_plainly(directory: Path) -> list[int]:
    """Return ids that blocks in the main file have, by looking for their magic bytes."""
    data = (directory / "journal.db").read_bytes()
    last: list[int] = []
    at = data.find(b"OCB1\0")
    while at >= 0:
        first = int.from_bytes(data[at + 8 : at + 16], "little")
        last.append(first + int.from_bytes(data[at + 16 : at + 20], "little") - 1)
        at = data.find(b"OCB1\0", at + 4)
    return last


@old_versions
def test_killed_while_migrating(tmp_path: Path, version: int) -> None:
    """It is one transaction: whatever part of the WAL is on the disk, the file opens."""
    old = tmp_path / "old"
    old.mkdir()
    rows = write_version(version, old / "journal.db")
    before = (old / "journal.db-wal").stat().st_size
    db = apsw.Connection(str(old / "journal.db"))
    db.wal_autocheckpoint(0)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    schema.check_tables(db)
    schema.migrate(db)
    after = (old / "journal.db-wal").stat().st_size
    assert after > before
    for number, end in enumerate(range(before, after + 1, (after - before) // 6)):
        cut = copy_as_killed(old, tmp_path / str(number))
        with (cut / "journal.db-wal").open("r+b") as file:
            file.truncate(end)
        use(cut, expect_head=max(rows))
        assert len(stored(cut)) == len(rows) + 3
    db.close()
