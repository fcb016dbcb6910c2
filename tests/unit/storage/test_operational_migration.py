"""Operational stores of older versions become those of today when opened, and lose nothing."""

from pathlib import Path

import apsw
import pytest

from ocean_core.storage.operational import opening, schema
from support.operational_kit import (
    NAME,
    START_US,
    Content,
    beside,
    content,
    copy_as_killed,
    in_loop,
    opened,
    populate_first_version,
    settings_for,
)
from support.paths import REPO

# As released, unchanged.
SCRIPT = REPO / "tests/data/operational-1/schema.sql"
STORE_ID = "11111111-2222-4333-8444-555555555555"
SCHEMA_ROWS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid"


def write_first_version(directory: Path, count: int = 40) -> Content:
    """Make a store as version 1 did; the last rows are in the WAL."""
    settings = settings_for(directory)
    db = apsw.Connection(str(directory / NAME))
    opening.configure(db, settings)
    db.execute("BEGIN IMMEDIATE")
    db.execute(SCRIPT.read_text(encoding="utf-8"))
    db.pragma("application_id", schema.APPLICATION_ID)
    db.pragma("user_version", 1)
    meta = {"store_id": STORE_ID, "created_us": START_US, "schema_version": 1}
    db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
    db.execute("COMMIT")
    if count:
        populate_first_version(db, count)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.execute("INSERT INTO metadata VALUES ('last', '1', 1, NULL)")
    db.close()
    return content(directory / NAME)


def layout(path: Path) -> list[object]:
    db = apsw.Connection(str(path))
    try:
        assert db.pragma("user_version") == schema.VERSION
        assert db.pragma("integrity_check") == "ok"
        return [*db.execute(SCHEMA_ROWS)]
    finally:
        db.close()


async def use(directory: Path, expected: Content) -> None:
    """Open it as after an unclean stop, which reads everything; compare with what was there."""
    async with opened(settings_for(directory, was_clean=False)) as store:
        assert store.is_ready, store.failure
        assert store.store_id == STORE_ID
    found = content(directory / NAME)
    assert found.pop("quarantine") == set()
    assert found == expected


@pytest.mark.parametrize("count", [0, 40])
@in_loop
async def test_a_store_of_version_1_is_taken_over(tmp_path: Path, count: int) -> None:
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    old.mkdir()
    fresh.mkdir()
    expected = write_first_version(old, count)
    assert (old / (NAME + "-wal")).stat().st_size
    await use(old, expected)
    await use(old, expected)
    assert not beside(old, ".damaged*")
    async with opened(settings_for(fresh)):
        pass
    # The root pages too: a salvage knows them from how a new file looks.
    assert layout(old / NAME) == layout(fresh / NAME)


@pytest.mark.parametrize("harm", ["header", "first page", "version"])
@in_loop
async def test_a_damaged_store_of_version_1_is_salvaged_into_one_of_today(
    tmp_path: Path, harm: str
) -> None:
    expected = write_first_version(tmp_path)
    # The WAL has page 1 as well.
    db = apsw.Connection(str(tmp_path / NAME))
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    (tmp_path / "accounts.id").write_text(STORE_ID)
    with (tmp_path / NAME).open("r+b") as file:
        match harm:
            case "header":
                file.write(bytes(100))
            case "first page":
                file.write(bytes(4096))
            case "version":
                file.seek(60)
                file.write((2).to_bytes(4, "big"))
    async with opened(settings_for(tmp_path, was_clean=False)) as store:
        assert store.is_ready, store.failure
        assert store.salvage_report is not None
    found = content(tmp_path / NAME)
    assert found.pop("quarantine") == set()
    assert found == expected
    assert beside(tmp_path, ".damaged*")
    layout(tmp_path / NAME)


@in_loop
async def test_killed_while_migrating(tmp_path: Path) -> None:
    """It is one transaction: whatever part of the WAL is on the disk, the file opens."""
    old = tmp_path / "old"
    old.mkdir()
    expected = write_first_version(old)
    wal = old / (NAME + "-wal")
    before = wal.stat().st_size
    db = apsw.Connection(str(old / NAME))
    opening.configure(db, settings_for(old))
    schema.migrate(db)
    after = wal.stat().st_size
    assert after > before
    for number, end in enumerate(range(before, after + 1, (after - before) // 6)):
        cut = copy_as_killed(old, tmp_path / str(number))
        with (cut / (NAME + "-wal")).open("r+b") as file:
            file.truncate(end)
        await use(cut, expected)
    db.close()
