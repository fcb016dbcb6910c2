"""Damaged journals: they open, what the damage did not touch is there, the rest is listed."""

import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import apsw
import msgspec
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalReader, JournalTuning
from ocean_core.buffer.embedded.pages import find_block, payload_of, row_cells
from ocean_core.buffer.embedded.wal import FRAME_BYTES, parse_wal
from ocean_core.buffer.mark import MarkFile
from ocean_core.buffer.port import BufferState, IdRange
from ocean_core.model.errors import BufferUnavailableError, OceanError, StoreCorruptError
from ocean_core.model.receipt import Receipt
from support.journal_kit import (
    WAIT_S,
    copy_as_killed,
    events,
    expected_rows,
    intake_of,
    key_of,
    readings,
    rows_of,
    settings_for,
    until,
)

Rows = dict[int, tuple[object, ...]]
SAMPLES = 60


@dataclass
class Pristine:
    """A journal as kill -9 left it, and what was acknowledged."""

    directory: Path
    rows: Rows
    receipts: dict[str, Receipt]
    epoch: str
    pages: dict[int, set[int]]
    """Page number -> ids of the readings whose block lies on that page (as far as is known)."""

    @property
    def head_id(self) -> int:
        return max(self.rows)


def build(directory: Path, *, wal_pages_max: int, requests: int) -> Pristine:
    """Fill a journal with blocks of all sizes; copy it while it is open."""
    rng = random.Random(5)
    live = directory / "live"
    live.mkdir(parents=True)
    tuning = JournalTuning(wal_pages_max=wal_pages_max, checkpoint_idle_s=60)
    journal = EmbeddedJournal(settings_for(live, tuning=tuning))
    rows: Rows = {}
    receipts: dict[str, Receipt] = {}

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            for tag in range(1, requests + 1):
                part = readings(tag, rng.choice((1, 2, 30, 150, 900)), sensors=2)
                numbers = events(tag, 3, size=300) if tag % 7 == 0 else part
                key = key_of(f"key-{tag}") if tag % 3 == 0 else None
                receipt = await journal.append(intake_of(numbers), key)
                if key is not None:
                    receipts[key.key] = receipt
                first = receipt.first_reading_id or receipt.first_event_id
                rows.update(expected_rows(numbers, first))
            copy_as_killed(live, directory / "killed")
            await journal.close()

    asyncio.run(scenario())
    # Page numbers are those of the closed file: the WAL was copied into it page by page.
    return Pristine(directory / "killed", rows, receipts, journal.epoch, page_map(live))


def page_map(directory: Path) -> dict[int, set[int]]:
    data = (directory / "journal.db").read_bytes()
    pages = [data[i : i + 4096] for i in range(0, len(data), 4096)]
    touched: dict[int, set[int]] = {}
    for number, page in enumerate(pages, 1):
        for cell in row_cells(page, number):
            trace = find_block(cell)
            if trace is None:
                continue
            chain = [number]

            def fetch(no: int, chain: list[int] = chain) -> bytes:
                chain.append(no)
                return pages[no - 1]

            assert payload_of(cell, cell.payload_bytes, fetch) is not None
            ids = range(trace.first_id, trace.first_id + trace.count)
            for no in chain:
                touched.setdefault(no, set()).update(ids)
    return touched


@cache
def in_main(base: Path) -> Pristine:
    """Nearly everything is checkpointed into the main file."""
    return build(base / "main", wal_pages_max=12, requests=60)


@cache
def in_wal(base: Path) -> Pristine:
    """Nearly everything is in the WAL."""
    return build(base / "wal", wal_pages_max=10_000, requests=40)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pristine")


@dataclass
class Healed:
    rows: Rows = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    epoch: str = ""
    new_id: int = 0
    receipts: dict[str, Receipt | None] = field(default_factory=dict)


class Healer:
    """Does what the appliance does by itself: scrub, report, until all is quiet."""

    def __init__(self, journal: EmbeddedJournal, path: Path) -> None:
        self.journal = journal
        self.path = path
        self.healed = Healed()

    async def ready(self) -> None:
        await until(lambda: self.journal.state is BufferState.READY)

    def read(self) -> list[IdRange]:
        """Read everything there is; return what was damaged."""
        damaged: list[IdRange] = []
        self.healed.rows.clear()
        reader = JournalReader(self.path)
        position = -1
        batch = reader.read_after(0, rows_max=10_000)
        while batch.next_after_id != position:
            damaged += batch.damaged
            for block in batch.blocks:
                self.healed.rows.update(rows_of(block))
            position = batch.next_after_id
            batch = reader.read_after(position, rows_max=10_000)
        reader.close()
        return damaged

    async def scrub(self) -> None:
        for _ in range(8):
            try:
                damaged = self.read()
            except StoreCorruptError as error:
                self.journal.report_corruption(error.detail)
            else:
                if not damaged:
                    return
                self.journal.report_damage(damaged)
            with contextlib.suppress(OceanError):
                await self.journal.settled()
            await self.ready()
        raise AssertionError("the damage does not go away")

    async def append(self) -> int:
        for _ in range(5):
            with contextlib.suppress(BufferUnavailableError):
                return (await self.journal.append(intake_of(readings(10**6)))).first_reading_id
            await self.ready()
        raise AssertionError("the journal does not recover")


def heal(directory: Path, pristine: Pristine, **changes: object) -> Healed:
    journal = EmbeddedJournal(settings_for(directory, seed=99, **changes))
    healer = Healer(journal, directory / "journal.db")
    healed = healer.healed

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            await healer.ready()
            await healer.scrub()
            healed.new_id = await healer.append()
            await healer.scrub()
            healed.rows.pop(healed.new_id)
            for name in pristine.receipts:
                healed.receipts[name] = await journal.lookup(key_of(name))
            healed.missing = {
                id_ for item in journal.missing_ranges() for id_ in range(item.first, item.last + 1)
            }
            healed.epoch = journal.epoch
            await journal.close()

    asyncio.run(scenario())
    return healed


def check(healed: Healed, pristine: Pristine, touched: set[int]) -> None:
    lost = set(pristine.rows) - set(healed.rows)
    assert healed.rows == {id_: row for id_, row in pristine.rows.items() if id_ not in lost}
    assert lost <= touched, "a block that the damage did not touch is gone"
    assert healed.missing == lost
    assert healed.new_id == pristine.head_id + 1
    assert healed.epoch == pristine.epoch
    for name, receipt in pristine.receipts.items():
        again = healed.receipts[name]
        assert again in {None, msgspec.structs.replace(receipt, duplicate=True)}


def flipped(source: Path, target: Path, name: str, at: int, rng: random.Random) -> Path:
    copy_as_killed(source, target)
    with (target / name).open("r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ rng.randrange(1, 256)]))
    return target


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_a_flipped_byte_in_the_main_file(tmp_path: Path, base: Path, sample: int) -> None:
    pristine = in_main(base)
    rng = random.Random(sample)
    size = (pristine.directory / "journal.db").stat().st_size
    at = rng.randrange(100) if sample < 12 else rng.randrange(size)
    directory = flipped(pristine.directory, tmp_path / "damaged", "journal.db", at, rng)
    check(heal(directory, pristine), pristine, pristine.pages.get(at // 4096 + 1, set()))


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_a_flipped_byte_in_the_wal(tmp_path: Path, base: Path, sample: int) -> None:
    pristine = in_wal(base)
    rng = random.Random(sample)
    wal = (pristine.directory / "journal.db-wal").read_bytes()
    frames = parse_wal(wal).frames
    at = rng.randrange(32 + 24) if sample < 10 else rng.randrange(32 + FRAME_BYTES * len(frames))
    directory = flipped(pristine.directory, tmp_path / "damaged", "journal.db-wal", at, rng)
    touched: set[int] = set()
    if at >= 32:
        touched = pristine.pages.get(frames[(at - 32) // FRAME_BYTES].page_no, set())
    check(heal(directory, pristine), pristine, touched)


@pytest.mark.parametrize("sample", range(20))
def test_several_flipped_bytes_everywhere(tmp_path: Path, base: Path, sample: int) -> None:
    pristine = in_main(base)
    rng = random.Random(sample)
    size = (pristine.directory / "journal.db").stat().st_size
    directory = copy_as_killed(pristine.directory, tmp_path / "damaged")
    data = bytearray((directory / "journal.db").read_bytes())
    touched: set[int] = set()
    for _ in range(8):
        at = rng.randrange(size)
        data[at] ^= 0x55
        touched |= pristine.pages.get(at // 4096 + 1, set())
    (directory / "journal.db").write_bytes(data)
    check(heal(directory, pristine), pristine, touched)


@pytest.mark.parametrize("sample", range(12))
def test_a_truncated_main_file(tmp_path: Path, base: Path, sample: int) -> None:
    pristine = in_main(base)
    rng = random.Random(sample)
    size = (pristine.directory / "journal.db").stat().st_size
    directory = copy_as_killed(pristine.directory, tmp_path / "damaged")
    length = rng.choice((rng.randrange(4096, size), rng.randrange(1, size // 4096) * 4096))
    with (directory / "journal.db").open("r+b") as file:
        file.truncate(length)
    touched = {id_ for page, ids in pristine.pages.items() if page * 4096 > length for id_ in ids}
    # The page that names the epoch may be cut off: then the mark knows it.
    mark = MarkFile(directory / "analytics.mark")
    mark.write(pristine.epoch, 1)
    mark.close()
    healed = heal(directory, pristine, mark_path=directory / "analytics.mark")
    check(healed, pristine, touched)
    assert not healed.missing or list(directory.glob("journal.db.damaged-*"))


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
@pytest.mark.parametrize("how", ["deleted", "emptied", "noise"])
def test_a_lost_file_is_counted_with_the_mark(
    tmp_path: Path, base: Path, name: str, how: str
) -> None:
    pristine = in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "damaged")
    path = directory / name
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "emptied" else random.Random(1).randbytes(50_000))
    mark = MarkFile(directory / "analytics.mark")
    mark.write(pristine.epoch, pristine.head_id)
    mark.close()
    healed = heal(directory, pristine, mark_path=directory / "analytics.mark")
    check(healed, pristine, set(pristine.rows))
    if name == "journal.db-wal":
        assert len(healed.rows) > len(pristine.rows) // 2


def test_a_mark_of_another_journal_is_ignored(tmp_path: Path, base: Path) -> None:
    pristine = in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "journal")
    mark = MarkFile(directory / "analytics.mark")
    mark.write("11111111-2222-4333-8444-555555555555", 10**9)
    mark.close()
    check(heal(directory, pristine, mark_path=directory / "analytics.mark"), pristine, set())


def test_a_byte_flipped_while_the_journal_is_in_use(tmp_path: Path, base: Path) -> None:
    pristine = in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "live")
    journal = EmbeddedJournal(settings_for(directory))
    page = next(no for no, ids in sorted(pristine.pages.items()) if len(ids) == 900)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            with (directory / "journal.db").open("r+b") as file:
                file.seek((page - 1) * 4096 + 2000)
                file.write(b"damage")
            reader = JournalReader(directory / "journal.db")
            for step in reader.verify_blocks():
                journal.report_damage(step.damaged)
            await journal.settled()
            lost = {
                i for item in journal.missing_ranges() for i in range(item.first, item.last + 1)
            }
            assert lost
            assert lost <= pristine.pages[page]
            assert all(not step.damaged for step in reader.verify_blocks())
            reader.close()
            await journal.close()

    asyncio.run(scenario())
    db = apsw.Connection(str(directory / "journal.db"))
    assert db.execute("SELECT count(*) FROM set_aside").get == 1
    db.close()


def test_files_removed_while_in_use(tmp_path: Path) -> None:
    journal = EmbeddedJournal(settings_for(tmp_path))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            epoch = journal.epoch
            await journal.append(intake_of(readings(1, 10)))
            for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
                (tmp_path / name).unlink()
            with pytest.raises(OceanError):
                await journal.append(intake_of(readings(2, 10)))
            await until(lambda: journal.state is BufferState.READY)
            assert (await journal.append(intake_of(readings(3)))).first_reading_id == 11
            assert journal.missing_ranges() == (IdRange(1, 10),)
            assert journal.epoch == epoch
            await journal.close()

    asyncio.run(scenario())


def test_a_reader_notices_that_the_file_was_replaced(tmp_path: Path, base: Path) -> None:
    pristine = in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "live")
    journal = EmbeddedJournal(settings_for(directory))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            reader = JournalReader(directory / "journal.db")
            assert reader.last_id() == pristine.head_id
            with (directory / "journal.db").open("r+b") as file:
                # The root page of telemetry_buffer.
                file.seek(2 * 4096)
                file.write(bytes(4096))
            # Another one, since the first keeps pages in memory that it knows not to have changed.
            with pytest.raises(StoreCorruptError):
                JournalReader(directory / "journal.db").read_after(0, rows_max=10**9)
            journal.report_corruption("a test")
            await until(lambda: list(directory.glob("journal.db.damaged-*")))
            await until(lambda: journal.state is BufferState.READY)
            assert journal.missing_ranges() == ()
            assert reader.last_id() == pristine.head_id
            reader.close()
            await journal.close()

    asyncio.run(scenario())


def test_a_sound_file_is_not_salvaged_whatever_a_reader_says(tmp_path: Path, base: Path) -> None:
    pristine = in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "live")
    states: list[BufferState] = []
    journal = EmbeddedJournal(
        settings_for(directory), on_state=lambda state, _reason: states.append(state)
    )

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            journal.report_corruption("a test")
            await journal.settled()
            assert not (await journal.append(intake_of(readings(1)))).duplicate
            await journal.close()

    asyncio.run(scenario())
    assert states == [BufferState.READY, BufferState.CLOSED]
    assert not list(directory.glob("journal.db.damaged-*"))


def test_blocks_in_each_others_way_are_put_right_while_running(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            for name in "abc":
                await journal.append(intake_of(readings(1, 100)), key_of(name))
            other = apsw.Connection(str(settings.path))
            other.execute("UPDATE telemetry_buffer SET id = 95 WHERE id = 101")
            other.close()
            reader = JournalReader(settings.path)
            with pytest.raises(StoreCorruptError) as caught:
                reader.read_after(0, rows_max=1000)
            journal.report_corruption(caught.value.detail)
            await until(lambda: list(tmp_path.glob("journal.db.damaged-*")))
            await until(lambda: journal.state is BufferState.READY)
            batch = reader.read_after(0, rows_max=1000)
            assert [block.first_id for block in batch.blocks] == [1, 101, 201]
            assert batch.damaged == []
            assert (await journal.append(intake_of(readings(1, 100)), key_of("b"))).duplicate
            assert journal.missing_ranges() == ()
            reader.close()
            await journal.close()

    asyncio.run(scenario())


def test_a_wrong_id_within_another_block_makes_nothing_missing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    journal = EmbeddedJournal(settings)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            for name in "abc":
                await journal.append(intake_of(readings(1, 100)), key_of(name))
            other = apsw.Connection(str(settings.path))
            other.execute("UPDATE telemetry_buffer SET id = 95 WHERE id = 101")
            other.close()
            reader = JournalReader(settings.path)
            damaged = reader.scan(1, lambda block: block.last_id + 1)
            assert damaged == [IdRange(95, 200)]
            journal.report_damage(damaged)
            await journal.settled()
            assert journal.missing_ranges() == ()
            assert reader.scan(1, lambda block: block.last_id + 1) == []
            reader.close()
            await journal.close()

    asyncio.run(scenario())


def test_only_the_newest_damaged_file_is_kept(tmp_path: Path, base: Path) -> None:
    pristine = in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "damaged")
    for name in ("20200101T000000Z", "20210101T000000Z"):
        (directory / f"journal.db.damaged-{name}").write_bytes(b"old")
    (directory / "journal.db").write_bytes(b"x" * 5000)
    heal(directory, pristine)
    kept = [path.name for path in directory.glob("journal.db.damaged-*")]
    assert len([name for name in kept if not name.endswith(".wal")]) == 1
    assert not any("2020" in name or "2021" in name for name in kept)


KILLED = """
import asyncio, sys
from pathlib import Path
from support.journal_kit import intake_of, readings, settings_for
from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.obs.faults import Faults
async def main():
    journal = EmbeddedJournal(settings_for(Path(sys.argv[1]), faults=Faults(sys.argv[2])))
    await journal.open()
    await asyncio.wait_for(journal.append(intake_of(readings(10**6))), 20)
    await journal.close()
asyncio.run(main())
"""

POINTS = [
    "journal.salvage_copying",
    "journal.salvage_before_swap",
    "journal.salvage_after_swap",
    "journal.before_checkpoint",
    "journal.after_checkpoint",
    "journal.opened",
]


def zero_header(directory: Path) -> None:
    with (directory / "journal.db").open("r+b") as file:
        file.write(bytes(100))


def hide_frames(directory: Path) -> None:
    with (directory / "journal.db-wal").open("r+b") as file:
        file.seek(32 + 24 + FRAME_BYTES * 20)
        file.write(b"damage")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("harm", [zero_header, hide_frames])
def test_killed_while_repairing(
    tmp_path: Path, base: Path, point: str, harm: Callable[[Path], None]
) -> None:
    pristine = in_wal(base) if harm is hide_frames else in_main(base)
    directory = copy_as_killed(pristine.directory, tmp_path / "damaged")
    harm(directory)
    untouched = shutil.copytree(directory, tmp_path / "same")
    reference = heal(untouched, pristine)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(directory), point],
        timeout=60, check=False, cwd=root,
    )  # fmt: skip
    assert done.returncode == (0 if harm is hide_frames and "salvage" in point else -9)
    healed = heal(directory, pristine)
    healed.rows = {id_: row for id_, row in healed.rows.items() if id_ <= pristine.head_id}
    assert healed.rows == reference.rows
    assert healed.missing == reference.missing
    assert healed.epoch == reference.epoch
    assert healed.new_id >= reference.new_id
