import random
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ocean_core.model.block import Block, Readings
from ocean_core.obs.clock import ManualClock
from ocean_core.pipeline.gather import SeriesBook, gather
from ocean_core.storage.analytics import is_damage
from support.analytics import EPOCH, make_store

QUERIES = (
    "SELECT sum(id), sum(series_id), max(ts), sum(value), sum(quality) FROM readings",
    "SELECT count(DISTINCT sensor_id), max(metric), sum(first_id) FROM series",
    "SELECT sum(mean), sum(m2), min(first_ts) FROM rollup_1m",
    "SELECT sum(mean), sum(m2), min(first_ts) FROM rollup_1h",
    "SELECT max(payload) FROM events",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with 60,000 random readings."""
    folder = tmp_path_factory.mktemp("whole")
    store = make_store(folder)
    store.open(EPOCH)
    rng = np.random.default_rng(3)
    count = 60_000
    rows = Readings(
        [(f"sensor-{k}", "value") for k in range(50)],
        rng.integers(0, 50, count).astype(np.uint32),
        1_780_000_000_000_000 + np.arange(count) * 1000,
        rng.normal(size=count),
        np.zeros(count, dtype=np.uint8),
    )
    block = Block(1, 0, bytes(16), rows)
    store.write(gather([block], SeriesBook(), epoch=EPOCH, watermark=count).batch)
    store.close()
    return folder / "analytics.duckdb"


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "analytics.duckdb"))


def reason_of(folder: Path, epoch: str = EPOCH) -> str | None:
    store = make_store(folder)
    reason = store.open(epoch).rebuild_reason
    if reason is not None:
        assert store.watermark() == 0
        assert store.cursor().execute("SELECT count(*) FROM readings").fetchall() == [(0,)]
    store.close()
    assert not (folder / "analytics.opening").exists()
    assert not (folder / "analytics.suspect").exists()
    return reason


def asides(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("analytics.duckdb.damaged-*"))


def test_an_undamaged_file_is_kept(damaged: Path) -> None:
    assert reason_of(damaged.parent) is None
    assert asides(damaged.parent) == []


def test_a_crash_while_opening_replaces_the_file(damaged: Path) -> None:
    (damaged.parent / "analytics.opening").write_text("2026")
    assert "while it opened" in (reason_of(damaged.parent) or "")
    assert len(asides(damaged.parent)) == 1
    assert reason_of(damaged.parent) is None


def test_what_a_query_found_replaces_the_file(damaged: Path) -> None:
    store = make_store(damaged.parent)
    store.open(EPOCH)
    store.mark_suspect("a sum failed")
    store.close()
    assert reason_of(damaged.parent) == "a sum failed"
    assert reason_of(damaged.parent) is None


def test_another_epoch_replaces_the_file(damaged: Path) -> None:
    other = "00000000-0000-0000-0000-000000000002"
    assert "another journal" in (reason_of(damaged.parent, other) or "")
    assert reason_of(damaged.parent, other) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE meta SET value = '99'", "schema version 99"),
        ("DELETE FROM meta", "schema version None"),
        ("DROP TABLE watermark", "table is missing"),
        ("DELETE FROM watermark", "0 watermarks"),
        ("INSERT INTO watermark VALUES ('x', 1)", "2 watermarks"),
    ],
)
def test_a_foreign_file_is_replaced(damaged: Path, change: str, told: str) -> None:
    with duckdb.connect(str(damaged)) as connection:
        connection.execute(change)
    assert told in (reason_of(damaged.parent) or "")


@pytest.mark.parametrize("size", [0, 1, 4096, 12_288, 300_000])
def test_a_truncated_file_never_answers(damaged: Path, size: int) -> None:
    damaged.write_bytes(damaged.read_bytes()[:size])
    store = make_store(damaged.parent)
    if store.open(EPOCH).rebuild_reason is None:
        with pytest.raises(duckdb.Error) as caught:
            [store.cursor().execute(query).fetchall() for query in QUERIES]
        assert is_damage(caught.value)
    store.close()


def test_garbage_is_replaced(damaged: Path) -> None:
    damaged.write_bytes(random.Random(1).randbytes(100_000))
    assert reason_of(damaged.parent) is not None


def test_only_the_newest_damaged_file_is_kept(damaged: Path) -> None:
    clock = ManualClock()
    for _ in range(3):
        store = make_store(damaged.parent, clock)
        store.open(EPOCH)
        store.mark_suspect("again")
        store.close()
        clock.advance(60)
    kept = asides(damaged.parent)
    assert len([name for name in kept if not name.endswith(".wal")]) == 1
    assert len(kept) <= 2


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_is_found_or_harmless(whole: Path, tmp_path: Path, seed: int) -> None:
    """At the open, by a query as damage, or it lies where nothing is; never a wrong answer."""
    rng = random.Random(seed)
    data = whole.read_bytes()
    right = answers_or_damage(whole, tmp_path / "right", data)
    assert isinstance(right, list)
    for attempt in range(12):
        offset = rng.randrange(20_000) if attempt % 3 == 0 else rng.randrange(len(data))
        flipped = bytearray(data)
        flipped[offset] ^= 1 << rng.randrange(8)
        found = answers_or_damage(whole, tmp_path / str(attempt), bytes(flipped))
        assert found in (right, "moved aside", "damage"), (offset, found)


def answers_or_damage(whole: Path, folder: Path, data: bytes) -> object:
    folder.mkdir()
    (folder / whole.name).write_bytes(data)
    store = make_store(folder)
    if store.open(EPOCH).rebuild_reason is not None:
        store.close()
        return "moved aside"
    try:
        return [store.cursor().execute(query).fetchall() for query in QUERIES]
    except (duckdb.Error, UnicodeDecodeError) as error:
        return "damage" if is_damage(error) else repr(error)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (duckdb.IOException("Could not read all bytes"), True),
        (duckdb.InternalException("assertion"), True),
        (duckdb.FatalException("database has been invalidated"), True),
        (duckdb.SerializationException("x"), True),
        (duckdb.Error("Corrupt database file: computed checksum"), True),
        (duckdb.Error("TransactionContext Error: Failed to commit: checksum"), True),
        (duckdb.FatalException("No space left on device"), False),
        (duckdb.IOException('Could not set lock on file "x"'), False),
        (duckdb.IOException("Permission denied"), False),
        (duckdb.OutOfMemoryException("failed to allocate"), False),
        (duckdb.InterruptException("Interrupted"), False),
        (duckdb.BinderException("column corrupt not found"), False),
        (duckdb.ParserException("syntax error at checksum"), False),
        (duckdb.CatalogException("no table corrupt"), False),
        (duckdb.ConversionException("malformed"), False),
        (ValueError("checksum"), False),
    ],
)
def test_damage_is_told_from_ordinary_errors(error: Exception, damage: bool) -> None:
    assert is_damage(error) is damage
