import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ocean_core.model.block import Block, Readings
from ocean_core.model.errors import StoreIOError
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
    (damaged.parent / "analytics.opening").write_text("2026\n")
    assert "while it opened" in (reason_of(damaged.parent) or "")
    assert len(asides(damaged.parent)) == 1
    assert reason_of(damaged.parent) is None


@pytest.mark.parametrize("written", ["", "2026"])
def test_a_marker_that_was_not_written_to_its_end_says_nothing(damaged: Path, written: str) -> None:
    (damaged.parent / "analytics.opening").write_text(written)
    assert reason_of(damaged.parent) is None


def test_a_full_disk_is_no_reason_to_replace_the_file(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker's name fits, its content does not."""
    content = damaged.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StoreIOError):
            make_store(damaged.parent).open(EPOCH)
        assert not (damaged.parent / "analytics.opening").exists()
    assert damaged.read_bytes() == content
    assert reason_of(damaged.parent) is None
    assert asides(damaged.parent) == []


@pytest.mark.parametrize("marker", ["analytics.opening", "analytics.suspect"])
def test_without_space_for_a_rebuild_the_file_stays_where_it_is(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    content = damaged.read_bytes()
    (damaged.parent / marker).write_text("2026\n")
    usage = shutil.disk_usage(damaged.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 << 20))
        for _ in range(2):
            with pytest.raises(StoreIOError, match="too little space"):
                make_store(damaged.parent).open(EPOCH)
    assert damaged.read_bytes() == content
    assert reason_of(damaged.parent) is not None


def test_a_file_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)

    def no_space(_connection: object) -> None:
        raise duckdb.IOException('Could not write file "x": No space left on device')

    monkeypatch.setattr(store, "_create", no_space)
    with pytest.raises(StoreIOError):
        store.open(EPOCH)
    assert list(tmp_path.iterdir()) == []
    assert reason_of(tmp_path) == "missing"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_full_really(whole: Path, small_disk: Path) -> None:
    file, ballast = small_disk / whole.name, small_disk / "ballast"
    shutil.copy(whole, file)
    content = file.read_bytes()
    for left in (0, 4096, 1 << 20):
        fill(ballast, left)
        for _ in range(3):
            store = make_store(small_disk)
            try:
                assert store.open(EPOCH).rebuild_reason is None
            except StoreIOError:
                pass
            finally:
                store.close()
        assert asides(small_disk) == []
        ballast.unlink()
    assert file.read_bytes() == content
    file.unlink()
    fill(ballast, 8192)
    with pytest.raises(StoreIOError):
        make_store(small_disk).open(EPOCH)
    ballast.unlink()
    assert reason_of(small_disk) == "missing"


def fill(ballast: Path, left: int) -> None:
    """Take all of the disk but ``left`` bytes."""
    space = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - left)


BARE = duckdb.InternalException("INTERNAL Error: Attempted to dereference a pointer")


def judged(folder: Path, clock: ManualClock, *errors: Exception) -> bool:
    """One life of the process, in which these errors came; return whether the file is suspect."""
    store = make_store(folder, clock)
    for error in errors:
        store.condemn(error)
    return store.is_suspect


def test_an_internal_error_is_no_damage_until_it_comes_again(tmp_path: Path) -> None:
    clock = ManualClock()
    assert not judged(tmp_path, clock, BARE, BARE, duckdb.FatalException("invalidated"))
    clock.advance(601)
    assert not judged(tmp_path, clock, BARE)
    clock.advance(599)
    assert judged(tmp_path, clock, BARE)


def test_internal_errors_bring_no_second_rebuild(tmp_path: Path) -> None:
    """A query that DuckDB does not get right fails on a new file as well."""
    clock = ManualClock()
    judged(tmp_path, clock, BARE)
    assert judged(tmp_path, clock, BARE)
    (tmp_path / "analytics.suspect").unlink()
    for _ in range(100):
        clock.advance(60)
        assert not judged(tmp_path, clock, BARE)
    clock.advance(86_400)
    assert not judged(tmp_path, clock, BARE)
    assert judged(tmp_path, clock, BARE)


@pytest.mark.parametrize("note", ["", "x", "1 2 3", "9" * 40, "-1 -1", "\x00"])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, note: str) -> None:
    (tmp_path / "analytics.trouble").write_text(note)
    assert not judged(tmp_path, ManualClock(), BARE)
    assert judged(tmp_path, ManualClock(), BARE)


@pytest.mark.parametrize(
    "error",
    [
        duckdb.IOException("Could not read all bytes"),
        duckdb.SerializationException("x"),
        duckdb.InternalException("Corrupt block"),
        duckdb.FatalException("invalidated. Original error: computed checksum 1"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid"),
    ],
)
def test_damage_that_is_certain_makes_suspect_at_once(tmp_path: Path, error: Exception) -> None:
    assert judged(tmp_path, ManualClock(), error)
    assert not (tmp_path / "analytics.trouble").exists()


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
