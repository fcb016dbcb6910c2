"""The operational store: transactions, reads beside them, and disks that refuse."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import apsw
import pytest

from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Origin, Principal
from ocean_core.model.errors import (
    ConflictError,
    DiskFullError,
    IdempotencyMismatchError,
    InternalError,
    OceanError,
    StoreBusyError,
    StoreIOError,
    StoreUnavailableError,
    StoreVersionError,
)
from ocean_core.storage.operational import (
    OperationalStore,
    OperationalTuning,
    audit,
    opening,
    request_answers,
    schema,
    writer,
)
from ocean_core.storage.operational.opened import OpenedFile
from support.forgetful_vfs import Disk
from support.operational_kit import (
    NAME,
    START_US,
    WAIT_S,
    Blocker,
    States,
    beside,
    content,
    in_loop,
    keys,
    log_text,
    one_group,
    opened,
    put,
    settings_for,
    until,
)


def pragma(db: apsw.Connection, name: str) -> object:
    return db.pragma(name)


def refuse(db: apsw.Connection) -> None:
    """Change something, then find that it may not be."""
    put("refused")(db)
    raise ConflictError("taken")


def break_down(db: apsw.Connection) -> None:
    put("broken")(db)
    raise ZeroDivisionError


def half_read(db: apsw.Connection) -> None:
    """Fail in the middle of a query."""
    put("half")(db)
    for _ in db.execute("SELECT key FROM metadata"):
        raise ConflictError("seen enough")


@in_loop
async def test_what_was_written_is_read_at_once_and_after_a_restart(tmp_path: Path) -> None:
    states = States()
    async with opened(settings_for(tmp_path), states) as store:
        assert store.is_ready
        assert store.failure is None
        assert await store.write(put("a")) == "a"
        assert await store.read(keys) == ["a"]
    assert states.told == [(True, "")]
    assert not (tmp_path / (NAME + "-wal")).stat().st_size, "a clean stop leaves an empty WAL"
    async with opened(settings_for(tmp_path)) as store:
        assert await store.read(keys) == ["a"]
        assert store.salvage_report is None


@in_loop
async def test_file_is_private_and_set_up(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with opened(settings) as store:
        pragmas = {
            "journal_mode": "wal", "synchronous": 2, "cache_size": 10_000, "temp_store": 2,
            "auto_vacuum": 2, "foreign_keys": 1, "trusted_schema": 0, "user_version": 2,
            "application_id": schema.APPLICATION_ID,
        }  # fmt: skip
        for name, value in pragmas.items():
            assert await store.write(partial(pragma, name=name)) == value, name
        with pytest.raises(InternalError):
            await store.read(put("x"))
        for suffix in ("", "-wal"):
            assert (tmp_path / (NAME + suffix)).stat().st_mode & 0o777 == 0o600
    async with opened(replace(settings, durability="os")) as store:
        assert await store.write(lambda db: db.pragma("synchronous")) == 1


@in_loop
async def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / NAME).touch(mode=0o644)
    async with opened(settings_for(tmp_path)):
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


@in_loop
async def test_a_command_that_raises_leaves_nothing_and_its_neighbours_stay(
    tmp_path: Path,
) -> None:
    # A checkpoint after each group, although errors that we hold keep a query half read.
    settings = settings_for(tmp_path, tuning=OperationalTuning(wal_pages_max=1))
    async with opened(settings) as store:
        commits = partial(settings.metrics.value, "ocean_accounts_commits_total")
        before = commits()
        results = await one_group(
            store, put("a"), refuse, put("b"), break_down, put("b"), half_read, put("c")
        )
        assert commits() - before == 2, "the blocker and one group"
        assert results[::2] == ["a", "b", results[4], "c"]
        assert type(results[1]) is ConflictError
        assert type(results[3]) is InternalError
        assert "ZeroDivisionError" in results[3].detail
        assert type(results[4]) is InternalError, "b is there already"
        assert type(results[5]) is ConflictError
        assert await store.read(keys) == ["a", "b", "c"]
        assert store.is_ready
    assert "accounts.failed" not in log_text(settings)


@in_loop
async def test_a_group_is_answered_with_one_call_to_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(settings_for(tmp_path)) as store:
        loop = asyncio.get_running_loop()
        calls: list[object] = []
        real = loop.call_soon_threadsafe

        def counted(*arguments: object, **more: object) -> object:
            calls.append(arguments[0])
            return real(*arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        await one_group(store, *(put(f"{i}") for i in range(300)))
        monkeypatch.undo()
        assert len(calls) == 2


@in_loop
async def test_queue_is_bounded(tmp_path: Path) -> None:
    tuning = OperationalTuning(queue_max=3)
    async with opened(settings_for(tmp_path, tuning=tuning)) as store:
        blocker = Blocker()
        waiting = [asyncio.ensure_future(store.write(blocker))]
        await until(blocker.begun.is_set)
        waiting += [asyncio.ensure_future(store.write(put(f"{i}"))) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(StoreBusyError) as refused:
            await store.write(put("one too many"))
        assert refused.value.retry_after_s
        blocker.go_on.set()
        await asyncio.gather(*waiting)
        assert await store.read(keys) == ["0", "1", "2"]


@in_loop
async def test_reads_are_bounded_and_do_not_wait_for_a_write(tmp_path: Path) -> None:
    tuning = OperationalTuning(queue_max=1)
    async with opened(settings_for(tmp_path, tuning=tuning)) as store:
        blocker = Blocker()
        write = asyncio.ensure_future(store.write(blocker))
        await until(blocker.begun.is_set)
        assert await store.read(keys) == []
        blocker.go_on.set()
        await write
        slow = Blocker()
        read = asyncio.ensure_future(store.read(slow))
        await until(slow.begun.is_set)
        with pytest.raises(StoreBusyError):
            await store.read(keys)
        assert await store.write(put("a")) == "a", "and a write does not wait for a read"
        slow.go_on.set()
        await read


@in_loop
async def test_a_query_sees_one_state(tmp_path: Path) -> None:
    async with opened(settings_for(tmp_path)) as store:
        await store.write(put("a"))
        halfway = Blocker()

        def twice(db: apsw.Connection) -> tuple[list[str], list[str]]:
            first = keys(db)
            halfway(db)
            return first, keys(db)

        read = asyncio.ensure_future(store.read(twice))
        await until(halfway.begun.is_set)
        await store.write(put("b"))
        halfway.go_on.set()
        assert await read == (["a"], ["a"])
        assert await store.read(keys) == ["a", "b"]


@in_loop
async def test_a_query_may_raise(tmp_path: Path) -> None:
    async with opened(settings_for(tmp_path)) as store:
        await store.write(put("a"))
        for error, told in ((ConflictError("no"), ConflictError), (KeyError("x"), KeyError)):

            def query(db: apsw.Connection, error: Exception = error) -> None:
                for _ in db.execute("SELECT * FROM metadata"):
                    raise error

            with pytest.raises(told):
                await store.read(query)
        assert await store.read(keys) == ["a"]


@in_loop
async def test_a_client_that_left_is_no_trouble(tmp_path: Path) -> None:
    async with opened(settings_for(tmp_path)) as store:
        blocker = Blocker()
        first = asyncio.ensure_future(store.write(blocker))
        await until(blocker.begun.is_set)
        gone = asyncio.ensure_future(store.write(put("a")))
        stays = asyncio.ensure_future(store.write(put("b")))
        await asyncio.sleep(0)
        gone.cancel()
        blocker.go_on.set()
        await asyncio.gather(first, stays)
        assert await store.read(keys) == ["a", "b"], "what was taken is carried out"


@in_loop
async def test_close_carries_out_what_was_taken(tmp_path: Path) -> None:
    store = OperationalStore(settings_for(tmp_path), on_state=States())
    with pytest.raises(StoreUnavailableError):
        await store.write(put("early"))
    async with asyncio.timeout(WAIT_S):
        await store.open()
        blocker = Blocker()
        taken = [asyncio.ensure_future(store.write(c)) for c in (blocker, put("a"), put("b"))]
        await until(blocker.begun.is_set)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError):
            await store.write(put("late"))
        blocker.go_on.set()
        await closing
        await asyncio.gather(*taken)
        for late in (store.write(put("late")), store.read(keys)):
            with pytest.raises(StoreUnavailableError):
                await late
    assert {row[0] for row in content(tmp_path / NAME)["metadata"]} == {"a", "b"}


@in_loop
async def test_wal_is_copied_when_long_and_when_idle(tmp_path: Path) -> None:
    tuning = OperationalTuning(wal_pages_max=4, checkpoint_idle_s=0.01)
    wal = tmp_path / (NAME + "-wal")
    async with opened(settings_for(tmp_path, tuning=tuning)) as store:
        for i in range(40):
            await store.write(put(f"{i}"))
        assert wal.stat().st_size < 40 * 4096
        await until(lambda: not wal.stat().st_size)


@in_loop
async def test_room_of_deleted_rows_is_given_back(tmp_path: Path) -> None:
    tuning = OperationalTuning(checkpoint_idle_s=0.01)

    def fill(db: apsw.Connection) -> None:
        for i in range(100):
            put(f"{i}", '"' + "x" * 60_000 + '"')(db)

    async with opened(settings_for(tmp_path, tuning=tuning)) as store:
        await store.write(fill)
        await store.write(lambda db: db.execute("DELETE FROM metadata").fetchall())
        await until(lambda: (tmp_path / NAME).stat().st_size < 3_000_000)


# --- versions -------------------------------------------------------------------------------------


@in_loop
async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(settings_for(tmp_path)) as store:
        await store.write(put("a"))
        await store.write(lambda db: schema._set_version(db, schema.VERSION + 1))
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(StoreVersionError):
        async with opened(settings_for(tmp_path)):
            pass
    assert (tmp_path / NAME).read_bytes() == before
    assert not beside(tmp_path, ".damaged*")


@in_loop
async def test_an_older_file_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(settings_for(tmp_path)) as store:
        await store.write(put("a"))
    texts = {
        f"migrations/{schema.VERSION + 1:04}.sql": "CREATE TABLE second (x INTEGER PRIMARY KEY) STRICT"
    }
    real = schema._text
    version = schema.VERSION + 1
    monkeypatch.setattr(schema, "VERSION", version)
    monkeypatch.setattr(schema, "_text", lambda name: texts.get(name) or real(name))
    for cached in (schema.tables, schema._expected_schema):
        cached.cache_clear()
    for place in (tmp_path, tmp_path / "new"):
        place.mkdir(exist_ok=True)
        async with opened(settings_for(place)) as store:
            assert await store.write(lambda db: db.pragma("user_version")) == version
            await store.write(lambda db: db.execute("INSERT INTO second VALUES (1)").fetchall())
        assert not beside(place, ".damaged*")
    monkeypatch.undo()
    for cached in (schema.tables, schema._expected_schema):
        cached.cache_clear()
    assert "a" in {row[0] for row in content(tmp_path / NAME)["metadata"]}


# --- failures -------------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    with Disk(random.Random(7)) as made:
        monkeypatch.setattr(opening, "sync_directory", made.sync_directory)
        yield made


class Trouble:
    """Lets writes or syncs fail from the n-th on, until told otherwise."""

    def __init__(self, disk: Disk, what: str, nth: int) -> None:
        self.left = nth
        self.over = False
        self.error: type[apsw.Error] = apsw.IOError
        if what.startswith("write"):
            self.error = apsw.FullError
            disk.before_write = lambda path, size: self.maybe(path)
        else:
            disk.before_sync = self.maybe
        self.suffix = "-wal" if what.endswith("wal") else ".db"

    def maybe(self, path: str) -> None:
        if self.over or not path.endswith(self.suffix):
            return
        self.left -= 1
        if self.left <= 0:
            raise self.error("trouble")


@pytest.mark.parametrize("what", ["write-wal", "sync-wal", "write-main", "sync-main"])
@pytest.mark.parametrize("nth", [1, 2, 5])
@in_loop
async def test_trouble_stops_acknowledging_and_passes(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, what: str, nth: int
) -> None:
    """What was refused never happened, what was acknowledged is there, also after a power cut."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    tuning = OperationalTuning(retry_delays_s=(0.002,), wal_pages_max=10)
    states = States()
    settings = settings_for(before, vfs=disk.name, exclusive=True, tuning=tuning)
    acked: set[str] = set()
    refusals: list[OceanError] = []

    async def send(store: OperationalStore, name: str) -> None:
        try:
            acked.add(await store.write(put(name)))
        except OceanError as error:
            refusals.append(error)

    async with opened(settings, states) as store:
        await send(store, "first")
        trouble = Trouble(disk, what, nth)
        for i in itertools.count():
            await asyncio.gather(*(send(store, f"{i}-{j}") for j in range(3)))
            if refusals:
                break
        assert not store.is_ready
        assert store.failure is not None
        told = DiskFullError if what.startswith("write") else StoreIOError
        assert {type(error) for error in refusals} == {told}
        assert all(error.retry_after_s for error in refusals)
        assert states.told[1][0] is False
        assert settings.metrics.value("ocean_database_errors_total", "operational")
        trouble.over = True
        await until(lambda: store.is_ready)
        await send(store, "last")
        assert "last" in acked
        disk.cut_power()
    monkeypatch.undo()
    disk.write_survivors(after)
    async with opened(settings_for(after)) as store:
        assert set(await store.read(keys)) == acked
    assert "accounts.recovered" in log_text(settings)
    assert states.told[-1] == (True, "")


@in_loop
async def test_reads_go_on_while_nothing_can_be_written(tmp_path: Path) -> None:
    tuning = OperationalTuning(retry_delays_s=(0.002,), busy_timeout_ms=0)
    states = States()
    async with opened(settings_for(tmp_path, tuning=tuning), states) as store:
        await store.write(put("a"))
        other = apsw.Connection(str(tmp_path / NAME))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            await store.write(put("b"))
        assert not store.is_ready
        assert await store.read(keys) == ["a"]
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: store.is_ready)
        assert await store.write(put("b")) == "b"
        assert await store.read(keys) == ["a", "b"]
    assert [ready for ready, _ in states.told][:2] == [True, False]
    assert states.told[-1][0]


def is_other(store: OperationalStore, failure: object) -> bool:
    return store.failure is not failure


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal"), ("", "-wal", "-shm")])
@in_loop
async def test_a_file_taken_away_is_missed_until_it_is_put_back(
    tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    """An empty one in its place would not be what memory describes."""
    settings = settings_for(tmp_path)
    aside = tmp_path / "aside"
    aside.mkdir()
    async with opened(settings) as store:
        await store.write(put("a"))
        for suffix in suffixes:
            (tmp_path / (NAME + suffix)).rename(aside / (NAME + suffix))
        with pytest.raises(StoreIOError):
            await store.write(put("b"))
        for _ in range(3):
            before = store.failure
            store.retry_now()
            await until(partial(is_other, store, before))
        assert not store.is_ready
        with pytest.raises(StoreIOError, match="removed while in use; put it back, or restart"):
            await store.write(put("b"))
        assert not (tmp_path / NAME).exists()
        for suffix in suffixes:
            (aside / (NAME + suffix)).rename(tmp_path / (NAME + suffix))
        store.retry_now()
        await until(lambda: store.is_ready)
        assert await store.read(keys) == ["a"]
        assert await store.former_id() == ""


@in_loop
async def test_another_store_in_its_place_is_not_taken_while_in_use(tmp_path: Path) -> None:
    for place in ("mine", "other"):
        (tmp_path / place).mkdir()
    async with opened(settings_for(tmp_path / "other", seed=9)) as other:
        await other.write(put("other"))
    async with opened(settings_for(tmp_path / "mine")) as store:
        await store.write(put("a"))
        for suffix in ("-wal", "-shm"):
            (tmp_path / "mine" / (NAME + suffix)).unlink()
        (tmp_path / "other" / NAME).replace(tmp_path / "mine" / NAME)
        with pytest.raises(StoreIOError):
            await store.write(put("b"))
        await until(lambda: "replaced by another store" in str(store.failure))
        assert not store.is_ready


@in_loop
async def test_a_store_that_was_lost_while_stopped_is_told(tmp_path: Path) -> None:
    witness = tmp_path / "accounts.id"
    async with opened(settings_for(tmp_path)) as store:
        first = store.store_id
        assert await store.former_id() == ""
    assert witness.read_text() == first + "\n"
    kept = (tmp_path / NAME).rename(tmp_path / "backup")
    for _ in range(2):
        async with opened(settings_for(tmp_path, seed=9)) as store:
            assert store.is_ready
            assert await store.former_id() == first
    # Restored: all is well. Accepted: it is the one from now on.
    empty = (tmp_path / NAME).rename(tmp_path / "empty")
    kept.rename(tmp_path / NAME)
    async with opened(settings_for(tmp_path)) as store:
        assert await store.former_id() == ""
    empty.rename(tmp_path / NAME)
    async with opened(settings_for(tmp_path)) as store:
        assert await store.former_id() == first
        witness.unlink()
        assert await store.former_id() == ""
        assert witness.read_text() == store.store_id + "\n" != first + "\n"


@in_loop
async def test_a_salvaged_store_is_the_same_store(tmp_path: Path) -> None:
    async with opened(settings_for(tmp_path)) as store:
        first = store.store_id
    (tmp_path / NAME).write_bytes(b"nothing of ours" * 1000)
    async with opened(settings_for(tmp_path, seed=9)) as store:
        assert store.salvage_report is not None
        assert store.store_id == first
        assert await store.former_id() == ""


@in_loop
async def test_a_witness_that_says_nothing_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "accounts.id").write_bytes(b"\xff\x00")
    async with opened(settings_for(tmp_path)) as store:
        assert (tmp_path / "accounts.id").read_text() == store.store_id + "\n"
    (tmp_path / "accounts.id").unlink()
    (tmp_path / "accounts.id.new").mkdir()
    settings = settings_for(tmp_path)
    async with opened(settings) as store:
        assert store.is_ready, "the store is as good without it"
        with pytest.raises(StoreIOError):
            await store.former_id()
    assert "accounts.id" in log_text(settings)


@in_loop
async def test_who_cannot_be_told_that_nothing_was_changed_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise apsw.IOError("trouble")

    async with opened(settings_for(tmp_path)) as store:
        await store.write(put("a"))
        for broken in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(OpenedFile, "_require_in_place", fail)
                if broken:
                    patch.setattr(writer, "restore_wal", fail)
                with pytest.raises(StoreIOError) as refused:
                    await store.write(put("b"))
            assert ("may have been made all the same" in refused.value.detail) is broken
            await until(lambda: store.is_ready)
            assert await store.read(keys) == ["a"], "the reopening cuts it off"


@in_loop
async def test_a_disk_full_from_the_start_is_tried_again(tmp_path: Path, disk: Disk) -> None:
    states = States()
    trouble = Trouble(disk, "write-main", 1)
    settings = settings_for(tmp_path, vfs=disk.name, exclusive=True)
    async with opened(settings, states) as store:
        with pytest.raises(DiskFullError):
            await store.write(put("a"))
        with pytest.raises(DiskFullError):
            await store.read(keys)
        assert isinstance(store.failure, DiskFullError)
        trouble.over = True
        store.retry_now()
        await until(lambda: store.is_ready)
        assert await store.write(put("a")) == "a"
    assert states.told[0][0] is False
    assert states.told[-1] == (True, "")


# --- rows of all resources ------------------------------------------------------------------------


@in_loop
async def test_audit_log_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDIT_ROWS_MAX", 5)
    origin = Origin(Principal("key", "k1"), "10.0.0.7")
    async with opened(settings_for(tmp_path)) as store:

        def act(db: apsw.Connection, i: int) -> None:
            audit.record(db, START_US + i, origin, "users.create", f"user-{i}", {"number": i})

        for i in range(8):
            await store.write(partial(act, i=i))
        rows, more = await store.read(partial(audit.page, act=None, before=None, limit=3))
        assert ([row.id for row in rows], more) == ([8, 7, 6], True)
        assert rows[0] == audit.AuditRow(
            8, START_US + 7, "key:k1", "10.0.0.7", "users.create", "user-7", '{"number":7}'
        )
        rest, more = await store.read(partial(audit.page, act=None, before=6, limit=3))
        assert ([row.id for row in rest], more) == ([5, 4], False)


@in_loop
async def test_audit_row_goes_with_an_act_that_failed(tmp_path: Path) -> None:
    def act(db: apsw.Connection) -> None:
        audit.record(db, START_US, Origin(LOCAL), "users.create", "u", {})
        raise ConflictError("taken")

    async with opened(settings_for(tmp_path)) as store:
        with pytest.raises(ConflictError):
            await store.write(act)
        found = await store.read(partial(audit.page, act=None, before=None, limit=3))
        assert found == ([], False)


@in_loop
async def test_answers_are_kept_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_ANSWERS_MAX", 3)

    def keep(db: apsw.Connection, key: str, now_us: int, oldest_us: int = 0) -> None:
        request_answers.keep(
            db, "users", key, b"digest", key.encode(), now_us=now_us, oldest_us=oldest_us
        )

    def find(db: apsw.Connection, key: str, digest: bytes = b"digest") -> bytes | None:
        return request_answers.replay(db, "users", key, digest, 10)

    async with opened(settings_for(tmp_path)) as store:
        await store.write(partial(keep, key="a", now_us=11))
        assert await store.read(partial(find, key="a")) == b"a"
        assert await store.read(partial(find, key="b")) is None
        with pytest.raises(IdempotencyMismatchError):
            await store.read(partial(find, key="a", digest=b"other"))
        await store.write(partial(keep, key="old", now_us=10))
        assert await store.read(partial(find, key="old")) is None
        await store.write(partial(keep, key="old", now_us=12))
        assert await store.read(partial(find, key="old")) == b"old"
        for i in range(3):
            await store.write(partial(keep, key=f"{i}", now_us=20 + i))
        count = "SELECT count(*) FROM request_answers"
        assert await store.read(lambda db: db.execute(count).get) == 3
        await store.write(partial(keep, key="z", now_us=40, oldest_us=21))
        assert await store.read(lambda db: db.execute(count).get) == 2
