"""Damaged files: the store opens whatever stands in them, and what is intact is there again."""

import random
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from ocean_core.model.errors import ConflictError, StoreUnavailableError
from ocean_core.storage.operational import OperationalStore, billing, loss_ledger
from ocean_core.storage.operational.files import FRAME_BYTES, WAL_HEADER_BYTES
from ocean_core.storage.operational.salvage import SalvageReport
from support.operational_kit import (
    NAME,
    Content,
    beside,
    content,
    copy_as_killed,
    in_loop,
    keys,
    log_text,
    opened,
    populate,
    put,
    settings_for,
    until,
)

PAGE = 4096
USERS = 40
WAL = NAME + "-wal"
# Which column names the user without whom a row cannot be put back.
USER_COLUMN = {"billing": 0, "sessions": 1, "access_keys": 6}


@dataclass(frozen=True)
class Sound:
    """A store before it is damaged; ``pages`` tells of each page: table, kind, cells."""

    directory: Path
    content: Content
    pages: dict[int, tuple[str, str, int]]

    @property
    def count(self) -> int:
        return (self.directory / NAME).stat().st_size // PAGE

    def copy(self, target: Path) -> Path:
        target.mkdir()
        shutil.copy(self.directory / NAME, target / NAME)
        return target

    def pages_of(self, table: str, kind: str) -> list[int]:
        return [no for no, told in self.pages.items() if told[:2] == (table, kind)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    directory = tmp_path_factory.mktemp("sound")

    @in_loop
    async def fill() -> None:
        async with opened(settings_for(directory)) as store:
            await store.write(lambda db: populate(db, USERS))

    fill()
    db = apsw.Connection(str(directory / NAME))
    told: list[Any] = db.execute("SELECT pageno, name, pagetype, ncell FROM dbstat").fetchall()
    db.close()
    pages = {no: (name, kind, cells) for no, name, kind, cells in told}
    return Sound(directory, content(directory / NAME), pages)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def wipe(directory: Path, *pages: int) -> None:
    for page_no in pages:
        overwrite(directory / NAME, (page_no - 1) * PAGE, bytes(PAGE))


def taken_back(db: apsw.Connection) -> None:
    put("probe")(db)
    raise ConflictError("seen that it works")


async def reopened(directory: Path, **changes: Any) -> SalvageReport | None:
    """Start after an unclean stop; the store must come up and take changes."""
    async with opened(settings_for(directory, was_clean=False, **changes)) as store:
        assert store.is_ready, store.failure
        with pytest.raises(ConflictError):
            await store.write(taken_back)
        return store.salvage_report


def check_loss(sound: Sound, directory: Path, page_no: int, *, may_alter: bool) -> None:
    """Only what stood on one page may be gone, with what belongs to a user who is gone."""
    name, kind, cells = sound.pages.get(page_no, ("", "", 0))
    found = content(directory / NAME)
    lost = {table: rows - found[table] for table, rows in sound.content.items()}
    users = {row[0] for row in lost["users"]}
    for table, rows in lost.items():
        column = USER_COLUMN.get(table)
        direct = [row for row in rows if column is None or row[column] not in users]
        allowed = (1 if kind == "overflow" else cells) if table == name else 0
        assert len(direct) <= allowed, table
        new = found[table] - sound.content[table]
        if table == "billing":
            # Accounts that were lost are made anew.
            owners = {row[0] for row in rows}
            new = {row for row in new if row[0] not in owners}
        assert len(new) <= int(may_alter), "what was deleted must not come back"


@pytest.mark.parametrize("part", range(2))
@in_loop
async def test_one_page_lost_costs_only_its_rows(tmp_path: Path, sound: Sound, part: int) -> None:
    rng = random.Random(part)
    kinds = {"internal": 8, "leaf": 12, "overflow": 4, "": 6}
    for kind, count in kinds.items():
        numbers = range(1, sound.count + 1)
        some = [no for no in numbers if sound.pages.get(no, ("", "", 0))[1] == kind]
        for page_no in rng.sample(some, min(count, len(some))):
            directory = sound.copy(tmp_path / f"{page_no}")
            data = rng.choice((bytes(PAGE), b"\xff" * PAGE, rng.randbytes(PAGE)))
            overwrite(directory / NAME, (page_no - 1) * PAGE, data)
            await reopened(directory)
            check_loss(sound, directory, page_no, may_alter=False)


@pytest.mark.parametrize("part", range(2))
@in_loop
async def test_flipped_bits(tmp_path: Path, sound: Sound, part: int) -> None:
    rng = random.Random(100 + part)
    for number in range(25):
        directory = sound.copy(tmp_path / f"{number}")
        page_no = rng.choice((1, 2, rng.randrange(1, sound.count + 1)))
        within = rng.choice((rng.randrange(PAGE), rng.randrange(100)))
        at = (page_no - 1) * PAGE + within
        was = (directory / NAME).read_bytes()[at]
        overwrite(directory / NAME, at, bytes([was ^ 1 << rng.randrange(8)]))
        await reopened(directory)
        check_loss(sound, directory, page_no, may_alter=True)


@in_loop
async def test_many_damages_at_once(tmp_path: Path, sound: Sound) -> None:
    rng = random.Random(5)
    for number in range(6):
        directory = sound.copy(tmp_path / f"{number}")
        for _ in range(rng.choice((2, 10, 60))):
            at = rng.randrange(sound.count * PAGE)
            overwrite(directory / NAME, at, rng.randbytes(rng.choice((1, 30, PAGE))))
        await reopened(directory)


@pytest.mark.parametrize("size", [0, 1, 50, 100, 512, PAGE, PAGE + 1, 20 * PAGE, -PAGE])
@in_loop
async def test_file_cut_off(tmp_path: Path, sound: Sound, size: int) -> None:
    directory = sound.copy(tmp_path / "cut")
    with (directory / NAME).open("r+b") as file:
        file.truncate(size if size >= 0 else sound.count * PAGE + size)
    report = await reopened(directory)
    if size >= 0:
        assert (report is None) == (size == 0), "an empty file is a new one"
    for table, rows in content(directory / NAME).items():
        assert rows <= sound.content[table]


@pytest.mark.parametrize("was_clean", [True, False])
@in_loop
async def test_header_gone(tmp_path: Path, sound: Sound, was_clean: bool) -> None:
    directory = sound.copy(tmp_path / "header")
    overwrite(directory / NAME, 0, bytes(100))
    settings = settings_for(directory, was_clean=was_clean)
    async with opened(settings) as store:
        assert store.is_ready
        assert store.salvage_report is not None
        detail = store.salvage_report.detail
    assert content(directory / NAME) == sound.content
    assert "40 users" in detail
    assert "left out as damaged: none" in detail
    assert "accounts.damaged" in log_text(settings)
    assert "accounts.salvaged" in log_text(settings)
    assert len(beside(directory, ".damaged*")) == 1
    async with opened(settings_for(directory)) as store:
        assert store.salvage_report is not None, "known after a restart, too"
        assert store.salvage_report.detail == detail


@pytest.mark.parametrize("text", [b"CREATE TABLE users", b"STRICT, WITHOUT ROWID", b"store_id"])
@in_loop
async def test_a_text_of_the_file_itself_that_is_none(
    tmp_path: Path, sound: Sound, text: bytes
) -> None:
    directory = sound.copy(tmp_path / "text")
    file = directory / NAME
    data = file.read_bytes()
    if text == b"store_id":
        at = data.index(text) + len(text)
        text = data[at : at + 36]
    file.write_bytes(data.replace(text, text[:-1] + b"\xfc"))
    settings = settings_for(directory)
    async with opened(settings) as store:
        await until(lambda: store.is_ready)
        assert store.salvage_report is not None
        assert await store.former_id() == ""
    assert content(directory / NAME) == sound.content


@in_loop
async def test_first_page_and_pointer_map_gone(tmp_path: Path, sound: Sound) -> None:
    """Where the tables begin is known from how a new file looks."""
    directory = sound.copy(tmp_path / "two")
    wipe(directory, 1, 2)
    await reopened(directory)
    assert content(directory / NAME) == sound.content


@in_loop
async def test_all_inner_pages_gone(tmp_path: Path, sound: Sound) -> None:
    """The pointer map knows whose the leaves are."""
    directory = sound.copy(tmp_path / "inner")
    inner = [no for no, told in sound.pages.items() if told[1] == "internal" and no > 1]
    assert len(inner) > 5
    wipe(directory, *inner)
    report = await reopened(directory)
    assert report is not None
    assert report.pages_unreadable
    found = content(directory / NAME)
    assert found["audit"] == sound.content["audit"], "inner pages of this kind hold no rows"
    lost = sum(len(rows - found[table]) for table, rows in sound.content.items())
    assert lost <= 10 * sum(sound.pages[no][2] for no in inner)


@in_loop
async def test_a_row_whose_user_is_gone_is_left_out_and_counted(
    tmp_path: Path, sound: Sound
) -> None:
    directory = sound.copy(tmp_path / "users")
    wipe(directory, *sound.pages_of("users", "leaf"))
    report = await reopened(directory)
    assert report is not None
    found = content(directory / NAME)
    users = {row[0] for row in found["users"]}
    assert {row[0] for row in found["billing"]} <= users
    assert report.left_out["billing"] == len(sound.content["billing"]) - len(found["billing"])
    assert found["billing_ledger"] == sound.content["billing_ledger"]


@in_loop
async def test_accounts_that_are_lost_are_made_anew_from_the_ledger(
    tmp_path: Path, sound: Sound
) -> None:
    directory = sound.copy(tmp_path / "billing")

    def enter(db: apsw.Connection) -> None:
        for amount, kind, left in ((-30, "usage", 70), (-5, "deduction", 65), (-12, "usage", 53)):
            db.execute(
                "INSERT INTO billing_ledger VALUES (NULL, 'user-00003', 0, ?, ?, ?, '', 'journal')",
                (kind, amount, left),
            )
        # An account whose entries say nonsense must not keep the store from opening.
        for _ in range(3):
            db.execute(
                "INSERT INTO billing_ledger VALUES (NULL, 'user-00004', 0, 'usage', ?, -7, '', '')",
                (-(2**63),),
            )

    async with opened(settings_for(directory)) as store:
        await store.write(enter)
    wipe(directory, *sound.pages_of("billing", "leaf"))
    report = await reopened(directory)
    assert report is not None
    assert report.renewed == USERS
    assert f"accounts made anew: {USERS}" in report.detail
    rows = {row[0]: row for row in content(directory / NAME)["billing"]}
    assert rows.keys() == {row[0] for row in sound.content["users"]}
    assert rows["user-00003"][2:8] == ("free", 53, 0, "", 0, 42)
    assert rows["user-00007"][2:8] == ("free", 14, 0, "", 0, 0)
    assert rows["user-00004"][3] == 0
    async with opened(settings_for(directory)) as store:
        counted = [billing.Counts("user-00003", stored=50, charged=44)]
        settle = partial(billing.settle, now_us=1, epoch="epoch", counts=counted)
        for _ in range(2):
            await store.write(settle)
        row = await store.read(partial(billing.get, user_id="user-00003"))
    assert (row.credits, row.usage, row.charged_mark) == (51, 50, 44), "42 were paid before"


@in_loop
async def test_what_waits_to_be_counted_goes_on_waiting_if_its_rule_is_there(
    tmp_path: Path, sound: Sound
) -> None:
    directory = sound.copy(tmp_path / "awaited")

    def wait(db: apsw.Connection) -> None:
        for rule_id in (2, 1000):
            loss_ledger.await_count(db, rule_id, f"s-{rule_id}")
        loss_ledger.enter(db, {("s-2", "refused OC-2002"): 3}, 7, loss_ledger.UncleanStop(5, 9, 1))

    async with opened(settings_for(directory)) as store:
        await store.write(wait)
    overwrite(directory / NAME, 0, bytes(100))
    assert await reopened(directory) is not None
    async with opened(settings_for(directory)) as store:
        assert await store.read(loss_ledger._awaited) == {2: "s-2"}
        assert await store.read(loss_ledger.unsure) == (4, 9, 1)


@in_loop
async def test_another_programs_file_is_moved_aside(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / NAME))
    db.execute("CREATE TABLE users (name)")
    db.execute("INSERT INTO users VALUES ('x')")
    db.close()
    assert await reopened(tmp_path) is not None
    assert content(tmp_path / NAME)["users"] == set()


@in_loop
async def test_only_the_newest_damaged_file_is_kept(tmp_path: Path) -> None:
    for day in (0, 1, 2):
        (tmp_path / NAME).write_bytes(b"nothing of ours" * 1000)
        settings = settings_for(tmp_path, was_clean=False)
        settings.clock.advance(86_400 * day)  # type: ignore[attr-defined]
        async with opened(settings) as store:
            assert store.is_ready
    assert beside(tmp_path, ".damaged*") == [f"{NAME}.damaged-20260530T202640Z"]


# --- damage met while the store is open -----------------------------------------------------------


@pytest.mark.parametrize("who", ["read", "write"])
@in_loop
async def test_damage_met_in_use(tmp_path: Path, sound: Sound, who: str) -> None:
    directory = sound.copy(tmp_path / "use")
    wipe(directory, sound.pages_of("metadata", "leaf")[-1])
    settings = settings_for(directory)
    async with opened(settings) as store:
        assert store.salvage_report is None, "after a clean stop nobody looked"
        with pytest.raises(StoreUnavailableError) as refused:
            await (store.read(keys) if who == "read" else store.write(keys))
        assert refused.value.retry_after_s
        await until(lambda: store.is_ready and store.salvage_report)
        assert await store.read(keys) == await store.write(keys)
        assert await store.write(put("new")) == "new"
    found = content(directory / NAME)
    assert found["users"] == sound.content["users"]
    assert settings.metrics.value("ocean_database_errors_total", "operational")


# --- the WAL --------------------------------------------------------------------------------------


async def killed_with_wal(store: OperationalStore, directory: Path, target: Path) -> Path:
    """Put 20 rows, one commit each, and copy the files as they stand then."""
    for i in range(20):
        await store.write(put(f"key-{i:02}", f'"{i}"'))
    return copy_as_killed(directory, target)


@in_loop
async def test_a_damaged_frame_hides_nothing_that_stands_behind_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    async with opened(settings_for(tmp_path / "a")) as store:
        whole = await killed_with_wal(store, tmp_path / "a", tmp_path / "whole")
    frames = (whole / WAL).stat().st_size // FRAME_BYTES
    wanted = content(whole / NAME)
    rng = random.Random(3)
    for number in range(6):
        directory = copy_as_killed(whole, tmp_path / f"{number}")
        frame = rng.randrange(frames - 3)
        at = WAL_HEADER_BYTES + frame * FRAME_BYTES + rng.randrange(FRAME_BYTES)
        was = (directory / WAL).read_bytes()[at]
        overwrite(directory / WAL, at, bytes([was ^ 0x10]))
        assert await reopened(directory) is not None
        # All 20 rows stand on one page, whose newest image is good.
        assert content(directory / NAME) == wanted
    directory = copy_as_killed(whole, tmp_path / "header")
    overwrite(directory / WAL, 0, bytes(WAL_HEADER_BYTES))
    assert await reopened(directory) is not None
    assert content(directory / NAME) == wanted


@in_loop
async def test_without_syncs_a_power_cut_is_no_damage(tmp_path: Path) -> None:
    """Then any write may be missing, so what comes behind a gap proves nothing and is not taken."""
    (tmp_path / "a").mkdir()
    async with opened(settings_for(tmp_path / "a")) as store:
        whole = await killed_with_wal(store, tmp_path / "a", tmp_path / "whole")
    frames = (whole / WAL).stat().st_size // FRAME_BYTES
    at = WAL_HEADER_BYTES + frames // 2 * FRAME_BYTES
    overwrite(whole / WAL, at, bytes(FRAME_BYTES))
    salvaged = copy_as_killed(whole, tmp_path / "salvaged")
    assert await reopened(whole, durability="os") is None
    left = content(whole / NAME)
    assert 0 < len(left["metadata"]) < 20
    overwrite(salvaged / NAME, 0, bytes(100))
    assert await reopened(salvaged, durability="os") is not None
    assert content(salvaged / NAME) == left


@in_loop
async def test_a_wal_that_a_crash_cut_off_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    async with opened(settings_for(tmp_path / "a")) as store:
        whole = await killed_with_wal(store, tmp_path / "a", tmp_path / "whole")
    size = (whole / WAL).stat().st_size
    for cut in (0, 10, 40, 5000, size // 2, size - 1):
        directory = copy_as_killed(whole, tmp_path / f"{cut}")
        with (directory / WAL).open("r+b") as file:
            file.truncate(cut)
        assert await reopened(directory) is None


@in_loop
async def test_a_wal_without_its_file(tmp_path: Path) -> None:
    """What the WAL holds is all there is: it is read."""
    (tmp_path / "a").mkdir()
    async with opened(settings_for(tmp_path / "a")) as store:
        whole = await killed_with_wal(store, tmp_path / "a", tmp_path / "whole")
    (whole / NAME).unlink()
    report = await reopened(whole)
    assert report is not None
    assert report.rows == {"metadata": 20}
