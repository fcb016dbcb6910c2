import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from ocean_core.model.errors import AlreadyRunningError, AnalyticsUnavailableError
from ocean_core.pipeline.gather import SeriesBook, gather
from ocean_core.storage.analytics import AnalyticsStore, MoveBatch, is_damage
from support.analytics import EPOCH, events_block, make_store, plain_rows, readings_block


def batch_of(first_id: int, count: int, book: SeriesBook) -> MoveBatch:
    blocks = [
        readings_block(first_id, plain_rows(count)),
        events_block(first_id + count, "door", [b'{"open":true}', "é".encode()]),
    ]
    return gather(blocks, book, epoch=EPOCH, watermark=first_id + count + 1).batch


def filled(folder: Path) -> AnalyticsStore:
    store = make_store(folder)
    store.open(EPOCH)
    store.write(batch_of(1, 100, SeriesBook()))
    return store


def test_a_new_file_says_why_it_is_new(tmp_path: Path) -> None:
    assert make_store(tmp_path).open(EPOCH).rebuild_reason == "missing"
    (tmp_path / "other").mkdir()
    opened = make_store(tmp_path / "other").open(EPOCH, journal_empty=True)
    assert (opened.rebuild_reason, opened.watermark) == ("new", 0)


def test_everything_of_a_batch_is_there_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path).close()
    store = make_store(tmp_path)
    opened = store.open(EPOCH)
    assert (opened.rebuild_reason, opened.watermark) == (None, 102)
    cursor = store.cursor()
    assert cursor.execute("SELECT count(*), sum(id), sum(value) FROM readings").fetchall() == [
        (100, 5050, 4950.0)
    ]
    assert cursor.execute("SELECT id, payload FROM events ORDER BY id").fetchall() == [
        (101, '{"open":true}'),
        (102, "é"),
    ]
    assert cursor.execute("SELECT sum(n) FROM rollup_1h").fetchall() == [(100,)]
    assert [entry.name for entry in store.series()] == [
        ("sensor-0", "value"), ("sensor-1", "value"), ("sensor-2", "value"), ("door", ""),
    ]  # fmt: skip
    assert [entry.first_id for entry in store.series()] == [1, 1, 1, 101]
    store.close()


def test_the_watermark_only_goes_forward(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(AssertionError):
        store.write(batch_of(1, 100, SeriesBook()))
    store.close()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path)

    def fail(name: str) -> None:
        raise duckdb.OutOfMemoryException("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(store._faults, "hit", fail)
        with pytest.raises(duckdb.OutOfMemoryException):
            store.write(batch_of(103, 10, SeriesBook()))
    assert store.reread_watermark() == 102
    assert store.cursor().execute("SELECT count(*) FROM readings").fetchall() == [(100,)]
    store.write(batch_of(103, 10, SeriesBook(store.series())))
    assert store.watermark() == 114
    store.close()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY readings TO '/tmp/out.csv'",
        "ATTACH '/tmp/other.duckdb'",
        "INSTALL httpfs",
        "SET memory_limit = '8GB'",
        "SET enable_external_access = true",
        "SELECT * FROM some_python_variable",
    ],
)
def test_configuration_and_the_outside_are_closed(tmp_path: Path, query: str) -> None:
    some_python_variable = {"a": [1]}
    store = filled(tmp_path)
    with pytest.raises(duckdb.Error) as caught:
        store.cursor().execute(query)
    assert not is_damage(caught.value), some_python_variable
    store.close()


def test_queries_may_spill_inside_the_data_directory(tmp_path: Path) -> None:
    store = make_store(tmp_path, memory_limit_mb=48)
    store.open(EPOCH)
    found = store.cursor().execute(
        "SELECT count(*) FROM (SELECT DISTINCT hash(range), range FROM range(2000000))"
    )
    assert found.fetchall() == [(2_000_000,)]
    store.close()


def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.close()
    store.close()
    with pytest.raises(AnalyticsUnavailableError):
        store.cursor()


def test_the_store_may_be_asked_while_it_is_written(tmp_path: Path) -> None:
    """One connection of DuckDB, used by two threads at once, mixes up results or ends the process."""
    store, done, errors = filled(tmp_path), threading.Event(), list[BaseException]()
    book = SeriesBook(store.series())

    def ask() -> None:
        try:
            while not done.is_set():
                assert [entry.series_id for entry in store.series()][:4] == [1, 2, 3, 4]
                assert store.reread_watermark() >= 102
                store.release(store.cursor())
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        store.write(batch_of(store.watermark() + 1, 200, book))
        book.commit()
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    store.close()


def test_a_released_cursor_is_forgotten(tmp_path: Path) -> None:
    store = filled(tmp_path)
    kept = store.cursor()
    for _ in range(5):
        store.release(store.cursor())
    assert store._cursors == [kept]
    store.close()


HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
sys.stdout.write("held\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.mark.parametrize("patient", [True, False])
def test_a_dying_predecessor_is_waited_for(tmp_path: Path, patient: bool) -> None:
    filled(tmp_path).close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "analytics.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if patient and len(waits) == 3:
            holder.communicate(timeout=30)

    store = make_store(tmp_path, wait=wait)
    if patient:
        assert store.open(EPOCH).rebuild_reason is None
        assert len(waits) == 3
        store.close()
    else:
        with pytest.raises(AlreadyRunningError):
            store.open(EPOCH)
        assert 4.9 < sum(waits) < 5.2
        assert not (tmp_path / "analytics.opening").exists()
        holder.communicate(timeout=30)
