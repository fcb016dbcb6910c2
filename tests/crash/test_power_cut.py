"""The power goes at a random moment; what was acknowledged is there, once."""

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw
import msgspec
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal, JournalTuning, opening
from ocean_core.buffer.embedded.settings import Durability
from ocean_core.buffer.port import UsageCounts
from ocean_core.model.block import Events, Readings
from ocean_core.model.errors import OceanError
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt
from support.forgetful_vfs import Disk
from support.journal_kit import (
    START_US,
    WAIT_S,
    events,
    expected_rows,
    intake_of,
    key_of,
    note_of,
    notes_in,
    read_all,
    readings,
    rows_of,
    settings_for,
    until,
)

pytestmark = pytest.mark.crash

LONG = os.environ.get("OCEAN_CRASH_LONG") == "1"
OWNERS = (Owner("anna", charged=True), Owner("bert", charged=False), Owner("carl", charged=True))
ROUNDS = 1500 if LONG else 80
OS_ROUNDS = 60

Rows = dict[int, tuple[object, ...]]


@dataclass
class Sent:
    """One request and what its client knows of it."""

    rows: Readings | Events
    key: IdempotencyKey | None
    owner: Owner | None = None
    receipt: Receipt | None = None
    frames: bytes = b""

    @property
    def intake(self) -> Intake:
        return replace(intake_of(self.rows), frames=self.frames)

    def stored_under(self, receipt: Receipt) -> Rows:
        return expected_rows(self.rows, receipt.first_reading_id or receipt.first_event_id)


@dataclass
class Load:
    """Random requests until the power goes."""

    rng: random.Random
    sent: list[Sent] = field(default_factory=list)
    trimmed_to: int = 0
    marked: set[int] = field(default_factory=set)

    def next_request(self) -> Sent:
        tag = len(self.sent) + 1
        count = self.rng.choice((1, 1, 1, 3, 40, 200, 700))
        rows: Readings | Events = readings(tag, count, sensors=min(count, 5), as_lists=count < 9)
        if self.rng.random() < 0.15:
            rows = events(tag, self.rng.choice((1, 30)), size=self.rng.choice((10, 900)))
        key = key_of(f"key-{tag}") if self.rng.random() < 0.5 else None
        owner = OWNERS[tag % 3] if self.rng.random() < 0.7 else None
        notes = [note_of(tag, i) for i in range(self.rng.choice((0, 1, min(count, 90))))]
        item = Sent(rows, key, owner, frames=b"".join(notes))
        self.sent.append(item)
        return item

    async def client(self, journal: EmbeddedJournal, disk: Disk) -> None:
        while not disk.is_off:
            item = self.next_request()
            try:
                item.receipt = await journal.append(item.intake, item.key, item.owner)
            except OceanError:
                await asyncio.sleep(0)

    async def consumer(self, journal: EmbeddedJournal, disk: Disk) -> None:
        while not disk.is_off:
            await asyncio.sleep(self.rng.random() * 0.005)
            low = self.rng.randrange(journal.head_id + 1)
            ids = [i for i in range(low + 1, min(journal.head_id, low + 40) + 1) if i % 7]
            try:
                await journal.acknowledge("api", ids)
            except OceanError:
                continue
            self.marked.update(ids)

    async def trimmer(self, journal: EmbeddedJournal, disk: Disk) -> None:
        while not disk.is_off:
            await asyncio.sleep(self.rng.random() * 0.01)
            if journal.head_id > 500 and self.rng.random() < 0.5:
                target = self.rng.randrange(journal.head_id // 2)
                self.trimmed_to = max(self.trimmed_to, target)
                try:
                    await journal.trim(target)
                except OceanError:
                    continue


def run_until_power_cut(
    directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> tuple[Load, Disk]:
    rng = random.Random(seed)
    load = Load(rng)
    tuning = JournalTuning(
        retry_delays_s=(0.001,), wal_pages_max=rng.choice((8, 30, 200)), checkpoint_idle_s=60
    )
    directory.mkdir()
    with Disk(rng, cut_at=rng.choice((rng.randrange(1, 80), rng.randrange(80, 900)))) as disk:
        monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
        journal = EmbeddedJournal(
            settings_for(
                directory, seed=seed, durability=durability, vfs=disk.name, exclusive=True,
                tuning=tuning,
            )
        )  # fmt: skip

        async def scenario() -> None:
            async with asyncio.timeout(WAIT_S):
                await journal.open()
                work = [load.client(journal, disk) for _ in range(rng.choice((1, 3, 12)))]
                await asyncio.gather(
                    *work, load.trimmer(journal, disk), load.consumer(journal, disk)
                )
                await journal.close()

        asyncio.run(scenario())
        monkeypatch.undo()
    return load, disk


@dataclass
class Reopened:
    """What the next start found, before and after clients tried again."""

    before: Rows
    after: Rows
    new_ids: list[int]
    missing: int
    usage: dict[str, UsageCounts] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)
    notes: list[bytes] = field(default_factory=list)


def reopen(directory: Path, load: Load) -> Reopened:
    settings = settings_for(directory, seed=10**6)
    journal = EmbeddedJournal(settings)
    found: list[Rows] = []
    new_ids: list[int] = []
    usage: dict[str, UsageCounts] = {}
    unread: set[int] = set()
    notes: list[bytes] = []

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            assert journal.state == "ready", journal.failure
            found.append(all_rows(directory))
            usage.update({user: journal.usage_of(user) for user in journal.counted_users()})
            unread.update(row.id for row in await journal.read_unacknowledged("api", 10_000))
            for kept in await journal.kept_frames(START_US, 10**6):
                notes.extend(notes_in(kept))
            for item in load.sent:
                if item.key is not None:
                    again = await journal.append(item.intake, item.key)
                    check_repeat(item, again)
            fresh = await journal.append(intake_of(readings(10**6)))
            new_ids.append(fresh.first_reading_id)
            await journal.close()

    asyncio.run(scenario())
    found.append(all_rows(directory))
    missing = len(journal.missing_ranges())
    return Reopened(found[0], found[1], new_ids, missing, usage, unread, notes)


def check_repeat(item: Sent, again: Receipt) -> None:
    if item.receipt is not None:
        first = msgspec.structs.replace(item.receipt, duplicate=True)
        if again != first:
            raise LostError(f"the receipt of {item.key} was forgotten")
    else:
        item.receipt = again


def all_rows(directory: Path) -> Rows:
    rows: Rows = {}
    for block in read_all(directory / "journal.db"):
        for id_, row in rows_of(block).items():
            assert id_ not in rows
            rows[id_] = row
    return rows


class LostError(AssertionError):
    """Something that was acknowledged is gone."""


def audit(load: Load, acked: list[tuple[Sent, Receipt]], found: Reopened) -> None:
    for item, receipt in acked:
        for id_, row in item.stored_under(receipt).items():
            if id_ not in found.before and id_ <= load.trimmed_to:
                continue
            if found.before.get(id_) != row:
                raise LostError(f"reading {id_} is {found.before.get(id_)}, was {row}")
    highest = max([max(item.stored_under(r)) for item, r in acked], default=0)
    assert min(found.new_ids) > highest
    # Nothing twice: each row of each request is unique by its value.
    values = [row[3] for row in found.after.values()]
    assert len(values) == len(set(values))
    # Nothing that was sent with a key is there in part.
    for item in load.sent:
        if item.key is not None and item.receipt is not None:
            kept = item.stored_under(item.receipt)
            wanted = {id_: row for id_, row in kept.items() if id_ > load.trimmed_to}
            assert {id_: found.after.get(id_) for id_ in wanted} == wanted


def audit_counts(load: Load, acked: list[tuple[Sent, Receipt]], found: Reopened) -> None:
    """Check that what is stored for a user, acknowledged or not, is what is counted."""
    stored = {row[0] for row in found.before.values()}
    promised = {id(item) for item, _ in acked}
    expected: dict[str, UsageCounts] = {}
    for item in load.sent:
        if item.owner is not None and (id(item) in promised or item.rows.series[0] in stored):
            before = expected.get(item.owner.user_id, UsageCounts())
            count = len(item.rows)
            expected[item.owner.user_id] = UsageCounts(
                before.stored + count, before.charged + (count if item.owner.charged else 0)
            )
    if found.usage != expected:
        raise LostError(f"counted are {found.usage}, stored {expected}")
    forgotten = found.unread & load.marked
    if forgotten:
        raise LostError(f"marks of {sorted(forgotten)[:10]} were forgotten")


def audit_notes(load: Load, acked: list[tuple[Sent, Receipt]], found: Reopened) -> None:
    """Check that the notes of frames are there exactly when what the frames said is."""
    promised = {id(item): receipt for item, receipt in acked}
    stored = {row[0] for row in found.before.values()}
    notes = set(found.notes)
    assert len(notes) == len(found.notes)
    for item in load.sent:
        receipt = promised.get(id(item))
        if receipt is not None and min(item.stored_under(receipt)) <= load.trimmed_to:
            continue
        own = set(notes_in(item.frames))
        is_stored = item.rows.series[0] in stored
        if receipt is not None and not is_stored:
            raise LostError("rows that were acknowledged")
        if own & notes != (own if is_stored else set()):
            raise LostError(f"{len(own & notes)} of {len(own)} notes, {is_stored=}")


def one_round(
    directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> tuple[int, int]:
    load, disk = run_until_power_cut(directory / f"{seed}", seed, monkeypatch, durability)
    acked = [(item, item.receipt) for item in load.sent if item.receipt is not None]
    after = directory / f"{seed}-after"
    after.mkdir()
    disk.write_survivors(after)
    found = reopen(after, load)
    audit(load, acked, found)
    audit_counts(load, acked, found)
    audit_notes(load, acked, found)
    return len(acked), found.missing


CHUNK = ROUNDS // 10


@pytest.mark.parametrize("part", range(10))
def test_nothing_acknowledged_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    acked = 0
    for seed in range(part * CHUNK, (part + 1) * CHUNK):
        acked += one_round(tmp_path, seed, monkeypatch, "fsync")[0]
    assert acked > CHUNK


def test_the_harness_finds_losses_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = 0
    for seed in range(OS_ROUNDS):
        try:
            one_round(tmp_path, seed, monkeypatch, "os")
        except LostError:
            lost += 1
        if lost >= 5:
            return
    pytest.fail(f"only {lost} losses without fsync: the harness is blind")


# --- full and failing disks -----------------------------------------------------------------------


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk(random.Random(7)) as made:
        yield made


class Trouble:
    """Lets writes or syncs fail from the n-th on, until told otherwise."""

    def __init__(self, disk: Disk, what: str, nth: int) -> None:
        self.left = nth
        self.hits = 0
        self.over = False
        if what.startswith("write"):
            self.error: type[apsw.Error] = apsw.FullError
            disk.before_write = lambda path, size: self.maybe(path)
        else:
            self.error = apsw.IOError
            disk.before_sync = self.maybe
        self.suffix = "-wal" if what.endswith("wal") else ".db"

    def maybe(self, path: str) -> None:
        if self.over or not path.endswith(self.suffix):
            return
        self.left -= 1
        if self.left <= 0:
            self.hits += 1
            raise self.error("trouble")


@pytest.mark.parametrize("what", ["write-wal", "sync-wal", "write-main", "sync-main"])
@pytest.mark.parametrize("nth", [1, 2, 3, 7])
def test_trouble_stops_acknowledging_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, what: str, nth: int
) -> None:
    (tmp_path / "before").mkdir()
    load = Load(random.Random(nth))
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
    journal = EmbeddedJournal(
        settings_for(
            tmp_path / "before", vfs=disk.name, exclusive=True,
            tuning=JournalTuning(retry_delays_s=(0.002,), wal_pages_max=10),
        )
    )  # fmt: skip
    refused = 0

    async def send(until: int) -> int:
        failures = 0
        for _ in range(until):
            item = load.next_request()
            try:
                item.receipt = await journal.append(intake_of(item.rows), item.key)
            except OceanError as error:
                failures += int(error.retry_after_s is not None)
                await asyncio.sleep(0.001)
        return failures

    async def scenario() -> None:
        nonlocal refused
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            assert await send(20) == 0
            trouble = Trouble(disk, what, nth)
            while not refused:
                refused += await send(20)
            assert trouble.hits
            trouble.over = True
            journal.retry_now()
            await until(lambda: journal.state == "ready")
            assert await send(20) == 0
            disk.cut_power()
            await journal.close()

    asyncio.run(scenario())
    monkeypatch.undo()
    acked = [(item, item.receipt) for item in load.sent if item.receipt is not None]
    after = tmp_path / "after"
    after.mkdir()
    disk.write_survivors(after)
    audit(load, acked, reopen(after, load))


def test_a_disk_that_is_full_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    trouble = Trouble(disk, "write-wal", 1)
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
    journal = EmbeddedJournal(settings_for(tmp_path, vfs=disk.name, exclusive=True))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            assert journal.state == "failed"
            with pytest.raises(OceanError):
                await journal.append(intake_of(readings(1)))
            trouble.over = True
            journal.retry_now()
            await until(lambda: journal.state == "ready")
            assert (await journal.append(intake_of(readings(1)))).first_reading_id == 1
            await journal.close()

    asyncio.run(scenario())


def test_a_repeat_is_answered_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
    journal = EmbeddedJournal(settings_for(tmp_path, vfs=disk.name, exclusive=True))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            first = await journal.append(intake_of(readings(1)), key_of("a"))
            Trouble(disk, "write-wal", 1)
            with pytest.raises(OceanError):
                await journal.append(intake_of(readings(2)), key_of("b"))
            assert journal.state == "failed"
            again = await journal.append(intake_of(readings(1)), key_of("a"))
            assert again == msgspec.structs.replace(first, duplicate=True)
            with pytest.raises(OceanError):
                await journal.append(intake_of(readings(2)), key_of("b"))
            await journal.close()

    asyncio.run(scenario())
