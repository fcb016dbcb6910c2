"""Files cut, flipped, deleted: it starts, saves what is whole, and names what is not (I3, I4)."""

import contextlib
import math
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.appliance import Appliance
from support.audit import Holdings, ask, read_analytics, read_journal
from support.load import Sent, Writer, post
from support.waiting import until
from support.web import sensor_path

LONG = os.environ.get("OCEAN_CRASH_LONG") == "1"
FLIPS = 60 if LONG else 6
BIG_BATCHES = 90
SMALL_BATCHES = 10
BATCH_ROWS = 500
SINGLES = 60
PAGE = 4096
TABLE_LEAF = 0x0D
WAL_HEADER, FRAME_HEADER = 32, 24
FRAME = FRAME_HEADER + PAGE
DEVICES = 5
REBUILT_WITHIN_S = 40.0

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Base:
    """A data directory as kill -9 left it, with both WALs; what it holds; where its blocks lie."""

    data_dir: Path
    held: Holdings
    blocks: dict[tuple[int, int], bytes]


def post_base(box: Appliance, writers: list[Writer], batches: int) -> None:
    http = box.http()
    for number in range(batches):
        assert post(http, writers[number % DEVICES].batch(BATCH_ROWS))
    http.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Most of it in the main files, the rest only in the WALs."""
    data_dir = tmp_path_factory.mktemp("base") / "data"
    with Appliance(data_dir) as box:
        writers = [Writer(f"device-{i}", i + 1, seed=11) for i in range(DEVICES)]
        box.start()
        post_base(box, writers, BIG_BATCHES)
        ask(box, sensor_path("device-0", "stats"))
        assert box.stop() == 0
        box.start()
        post_base(box, writers, SMALL_BATCHES)
        http = box.http()
        for number in range(SINGLES):
            assert post(http, writers[number % DEVICES].single())
        ask(box, sensor_path("device-0", "stats"))
        box.kill("analytics", "ingest")
    for name in ("journal.db-wal", "analytics.duckdb.wal"):
        assert (data_dir / name).stat().st_size > 0, f"{name} should hold something"
    copy = data_dir.parent / "read"
    shutil.copytree(data_dir, copy)
    held = read_journal(copy)
    assert len(held.rows) == (BIG_BATCHES + SMALL_BATCHES) * BATCH_ROWS + SINGLES
    with contextlib.closing(sqlite3.connect(copy / "journal.db")) as db:
        blocks = {
            (first, first + count - 1): data
            for first, count, data in db.execute("SELECT id, count, data FROM telemetry_buffer")
        }
    return Base(data_dir, held, blocks)


@pytest.fixture
def damaged(base: Base, tmp_path: Path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "data"
    shutil.copytree(base.data_dir, copy)
    return copy


# --- where the bytes of a block lie: without any code of the journal ------------------------------

Unit = tuple[str, int]
"""("main", page number from 1) or ("wal", frame number from 0): what a flipped byte may spoil."""


class Layout:
    """Finds the pages of each block, by SQLite's file format."""

    def __init__(self, data_dir: Path) -> None:
        self._main = (data_dir / "journal.db").read_bytes()
        self._wal = (data_dir / "journal.db-wal").read_bytes()
        self.pages = len(self._main) // PAGE
        self.frames = (len(self._wal) - WAL_HEADER) // FRAME
        self._frame_of_page = {
            int.from_bytes(self._wal[at : at + 4], "big"): number
            for number, at in enumerate(range(WAL_HEADER, WAL_HEADER + self.frames * FRAME, FRAME))
        }

    def copies(self, packed: bytes) -> list[set[Unit]]:
        """Return for each copy of a block the units that hold it: in the file, and in the WAL."""
        leaves: list[Unit] = [("main", at // PAGE + 1) for at in _places(self._main, packed[:64])]
        leaves += [("wal", (at - WAL_HEADER) // FRAME) for at in _places(self._wal, packed[:64])]
        # A page that became something else, such as the first leaf that became the root, still
        # has remains of what it was.
        return [
            self._units(leaf, packed[:64])
            for leaf in dict.fromkeys(leaves)
            if self._image(leaf)[0] == TABLE_LEAF
        ]

    def _image(self, unit: Unit) -> bytes:
        kind, number = unit
        if kind == "main":
            return self._main[(number - 1) * PAGE : number * PAGE]
        start = WAL_HEADER + number * FRAME + FRAME_HEADER
        return self._wal[start : start + PAGE]

    def _units(self, leaf: Unit, header: bytes) -> set[Unit]:
        """Return the leaf page and the chain of overflow pages behind the cell of a block."""
        page = self._image(leaf)
        at = page.index(header)
        count = int.from_bytes(page[3:5], "big")
        cells = [int.from_bytes(page[8 + 2 * i : 10 + 2 * i], "big") for i in range(count)]
        payload, start = _varint(page, max(cell for cell in cells if cell < at))
        _, start = _varint(page, start)
        units = {leaf}
        most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
        if payload <= most:
            return units
        surplus = least + (payload - least) % (PAGE - 4)
        end = start + (surplus if surplus <= most else least)
        following = int.from_bytes(page[end : end + 4], "big")
        while following:
            in_wal = leaf[0] == "wal" and following in self._frame_of_page
            unit = ("wal", self._frame_of_page[following]) if in_wal else ("main", following)
            assert unit not in units, "a chain has no end"
            units.add(unit)
            following = int.from_bytes(self._image(unit)[:4], "big")
        return units


def _places(image: bytes, piece: bytes) -> Iterator[int]:
    at = image.find(piece)
    while at >= 0:
        yield at
        at = image.find(piece, at + len(piece))


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        byte = page[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at


def may_be_lost(base: Base, hit: set[Unit]) -> set[int]:
    """Return the ids of blocks of which no copy is free of damage.

    Everything on a damaged page counts as damaged: its structure may be what broke.
    """
    layout = Layout(base.data_dir)
    lost: set[int] = set()
    for (first, last), packed in base.blocks.items():
        copies = layout.copies(packed)
        assert copies, "each block is somewhere"
        if all(copy & hit for copy in copies):
            lost |= set(range(first, last + 1))
    return lost


def main_from(base: Base, page: int) -> set[Unit]:
    """Return the pages of the main file from one on."""
    return {("main", number) for number in range(page, Layout(base.data_dir).pages + 1)}


def wal_from(base: Base, frame: int) -> set[Unit]:
    """Return the frames of the WAL from one on."""
    return {("wal", number) for number in range(frame, Layout(base.data_dir).frames)}


# --- what must hold after any damage --------------------------------------------------------------


def listed(ranges: list[list[int]]) -> set[int]:
    return {row_id for first, last in ranges for row_id in range(first, last + 1)}


def check_after_journal_damage(base: Base, data_dir: Path, allowed: set[int]) -> None:
    """Start; what is whole is there, what is not is listed, ids go on, analytics agree."""
    with Appliance(data_dir) as box:
        box.start()
        writer = Writer("later", 90, seed=2)
        sent = [writer.single(), writer.batch(30)]
        for request in sent:
            assert post(box.http(), request)
        new_ids = {row_id for request in sent for row_id in request.stored_rows()}
        assert min(new_ids) > max(base.held.rows), "an id was given out twice"
        ask(box, sensor_path("later", "stats"))
        # What analytics find damaged while they read comes a moment later.
        journal = settled_journal(box, data_dir)
        buffer = box.status()["buffer"]
        missing = listed(buffer["missing_ranges"])
        if missing:
            until(
                lambda: "readings.missing" in box.alarms(),
                within_s=15, every_s=0.1, what="the alarm readings.missing",
            )  # fmt: skip
        alarms = box.alarms()
        check_counts(box, base, journal)
        assert box.stop() == 0

    held = read_journal(data_dir)
    assert not held.doubled_ids()
    for row_id in held.rows.keys() - new_ids:
        assert held.rows[row_id] == base.held.rows[row_id], row_id
        assert held.moments[row_id] == base.held.moments[row_id], row_id
    lost = base.held.rows.keys() - held.rows.keys()
    assert lost <= allowed, f"whole, but not there: {sorted(lost - allowed)[:10]} of {len(lost)}"
    assert missing == lost, (
        f"listed but there: {sorted(missing - lost)[:5]}, "
        f"gone but not listed: {sorted(lost - missing)[:5]}"
    )
    assert buffer["missing_readings"] == len(lost)
    assert ("readings.missing" in alarms) == bool(lost)
    for request in sent:
        for row_id, row in request.stored_rows().items():
            assert held.rows[row_id] == row


def settled_journal(box: Appliance, data_dir: Path) -> int:
    """Wait until the list of missing ids stands still; return how many readings are missing."""
    last = -1

    def same_twice() -> bool:
        nonlocal last
        before, last = last, box.status()["buffer"]["missing_readings"]
        return bool(before == last)

    until(same_twice, within_s=10, every_s=0.4, what="the list of missing ids stands still")
    return last


def check_counts(box: Appliance, base: Base, missing: int) -> None:
    """Check that analytics answer for at least what the journal holds, and at most all there was."""
    total = 0
    for i in range(DEVICES):
        reply = box.http().get(sensor_path(f"device-{i}", "stats"), wait="true")
        if reply.status == 404:
            continue
        total += ask(box, sensor_path(f"device-{i}", "stats"))["count"]
    assert len(base.held.rows) - missing <= total <= len(base.held.rows)


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def flip_places(path: Path, count: int, seed: str) -> list[tuple[int, int]]:
    chooser = random.Random(seed)
    size = path.stat().st_size
    return [(chooser.randrange(size), chooser.randrange(8)) for _ in range(count)]


# --- the journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(FLIPS))
def test_journal_flipped(base: Base, damaged: Path, number: int) -> None:
    offset, bit = flip_places(damaged / "journal.db", FLIPS, "main")[number]
    print(f"journal.db, offset {offset}, bit {bit}")
    flip(damaged / "journal.db", offset, bit)
    allowed = may_be_lost(base, {("main", offset // PAGE + 1)})
    check_after_journal_damage(base, damaged, allowed)


@pytest.mark.parametrize("number", range(FLIPS))
def test_journal_wal_flipped(base: Base, damaged: Path, number: int) -> None:
    wal = damaged / "journal.db-wal"
    offset, bit = flip_places(wal, FLIPS, "wal")[number]
    print(f"journal.db-wal, offset {offset}, bit {bit}")
    flip(wal, offset, bit)
    allowed = may_be_lost(base, {("wal", (offset - WAL_HEADER) // FRAME)})
    check_after_journal_damage(base, damaged, allowed)


@pytest.mark.parametrize("part", ["schema page", "wal header", "frame header"])
def test_journal_structure_damaged(base: Base, damaged: Path, part: str) -> None:
    """Damage beside the blocks: their bytes are all whole, so not one may be lost."""
    name, offset = {
        "schema page": ("journal.db", 120),
        "wal header": ("journal.db-wal", 8),
        "frame header": ("journal.db-wal", WAL_HEADER + 3 * FRAME + 17),
    }[part]
    flip(damaged / name, offset, 3)
    check_after_journal_damage(base, damaged, set())


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_journal_truncated(base: Base, damaged: Path, share: float) -> None:
    path = damaged / "journal.db"
    end = int(path.stat().st_size * share)
    os.truncate(path, end)
    allowed = may_be_lost(base, main_from(base, end // PAGE + 1))
    check_after_journal_damage(base, damaged, allowed)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_journal_wal_truncated(base: Base, damaged: Path, share: float) -> None:
    path = damaged / "journal.db-wal"
    end = int(path.stat().st_size * share)
    os.truncate(path, end)
    allowed = may_be_lost(base, wal_from(base, max(0, (end - WAL_HEADER) // FRAME)))
    check_after_journal_damage(base, damaged, allowed)


@pytest.mark.parametrize(
    "names", [("journal.db",), ("journal.db-wal",), ("journal.db", "journal.db-wal")], ids="+".join
)
def test_journal_deleted(base: Base, damaged: Path, names: tuple[str, ...]) -> None:
    for name in (*names, "journal.db-shm"):
        (damaged / name).unlink(missing_ok=True)
    hit: set[Unit] = main_from(base, 1) if "journal.db" in names else set()
    if "journal.db-wal" in names:
        hit |= wal_from(base, 0)
    allowed = may_be_lost(base, hit)
    check_after_journal_damage(base, damaged, allowed)


# --- analytics ------------------------------------------------------------------------------------


def check_after_analytics_damage(base: Base, data_dir: Path) -> None:
    """Start; ingest works at once, and every kind of question is answered rightly in the end."""
    with Appliance(data_dir) as box:
        box.start()
        writer = Writer("later", 90, seed=2)
        sent = [writer.single(), writer.batch(30)]
        for request in sent:
            assert post(box.http(), request)
        for i in range(DEVICES):
            check_all_questions(box, base.held, f"device-{i}")
        assert ask(box, sensor_path("later", "stats"))["count"] == 31
        assert box.status()["buffer"]["missing_ranges"] == []
        until(
            lambda: not {"analytics.rebuilding", "analytics.down"} & set(box.alarms()),
            within_s=REBUILT_WITHIN_S, every_s=0.3, what="analytics are well again",
        )  # fmt: skip
        assert box.stop() == 0
    held = read_journal(data_dir)
    assert {i: held.rows[i] for i in base.held.rows} == base.held.rows
    analytics = read_analytics(data_dir)
    assert analytics is not None
    check_readings_equal(held, analytics, sent)


def check_readings_equal(held: Holdings, analytics: Holdings, sent: list[Sent]) -> None:
    assert not analytics.doubled_ids()
    assert analytics.rows == held.rows
    for request in sent:
        assert request.stored_rows().items() <= held.rows.items()


def check_all_questions(box: Appliance, held: Holdings, sensor_id: str) -> None:
    """Ask what memory, rollups and raw rows answer, and compare with the journal's numbers."""
    ids = held.series()[sensor_id, "value"]
    ids.sort(key=lambda row_id: (held.moments[row_id], row_id))
    values = np.array([held.rows[row_id].value for row_id in ids])
    moments = np.array([held.moments[row_id] for row_id in ids])
    stats = ask(box, sensor_path(sensor_id, "stats"))
    check_figures(stats, values)
    # Off the minute, so that raw rows must be read.
    low, high = int(moments[len(ids) // 5]) + 1, int(moments[-len(ids) // 5]) - 1
    inside = values[(moments >= low) & (moments <= high)]
    stats = ask(box, sensor_path(sensor_id, "stats"), start=low, end=high)
    check_figures(stats, inside)
    series = ask(box, sensor_path(sensor_id, "timeseries"), interval="1s")
    assert sum(bucket["count"] for bucket in series["data"]) == len(ids)
    per_second = {int(moment) // 1_000_000 for moment in moments}
    assert len(series["data"]) == len(per_second)
    anomalies = ask(box, sensor_path(sensor_id, "anomalies"), threshold=1.5, limit=1)
    scores = np.abs(values - values.mean()) / values.std(ddof=1)
    assert anomalies["count"] == int((scores > 1.5).sum())


def check_figures(answer: dict[str, Any], values: "np.ndarray[Any, np.dtype[np.float64]]") -> None:
    assert answer["count"] == len(values)
    assert answer["min_value"] == values.min()
    assert answer["max_value"] == values.max()
    assert math.isclose(answer["avg_value"], values.mean(), rel_tol=1e-12)
    assert math.isclose(answer["stddev_value"], values.std(ddof=1), rel_tol=1e-6)


@pytest.mark.parametrize("number", range(FLIPS))
def test_analytics_flipped(base: Base, damaged: Path, number: int) -> None:
    """Some of these only a query finds, and some hit nothing that is used."""
    path = damaged / "analytics.duckdb"
    places = flip_places(path, 16 * FLIPS, "duckdb")[16 * number : 16 * number + 16]
    print(f"analytics.duckdb, {places}")
    for offset, bit in places:
        flip(path, offset, bit)
    check_after_analytics_damage(base, damaged)


@pytest.mark.parametrize("number", range(FLIPS // 2))
def test_analytics_one_bit_flipped_in_a_stopped_file(
    base: Base, tmp_path: Path, damaged: Path, number: int
) -> None:
    """After a clean stop there is no WAL that a start would read: the damage lies deeper."""
    with Appliance(damaged) as box:
        box.start()
        ask(box, sensor_path("device-0", "stats"))
        assert box.stop() == 0
    path = damaged / "analytics.duckdb"
    # Behind the three header blocks of 4 KB are blocks of 256 KB with the rows.
    size = path.stat().st_size
    chooser = random.Random(f"deep-{number}")
    flip(path, chooser.randrange(12_288, size), chooser.randrange(8))
    check_after_analytics_damage(base, damaged)


@pytest.mark.parametrize("number", range(FLIPS // 2))
def test_analytics_wal_flipped(base: Base, damaged: Path, number: int) -> None:
    path = damaged / "analytics.duckdb.wal"
    offset, bit = flip_places(path, FLIPS, "duckdb-wal")[number]
    print(f"analytics.duckdb.wal, offset {offset}, bit {bit}")
    flip(path, offset, bit)
    check_after_analytics_damage(base, damaged)


@pytest.mark.parametrize("name", ["analytics.duckdb", "analytics.duckdb.wal"])
@pytest.mark.parametrize("share", [0, 0.6])
def test_analytics_truncated(base: Base, damaged: Path, name: str, share: float) -> None:
    os.truncate(damaged / name, int((damaged / name).stat().st_size * share))
    check_after_analytics_damage(base, damaged)


@pytest.mark.parametrize(
    "names",
    [
        ("analytics.duckdb",),
        ("analytics.duckdb.wal",),
        ("analytics.duckdb", "analytics.duckdb.wal"),
    ],
    ids="+".join,
)
def test_analytics_deleted(base: Base, damaged: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (damaged / name).unlink()
    check_after_analytics_damage(base, damaged)


def test_both_damaged_at_once(base: Base, damaged: Path) -> None:
    """The journal is the truth: what it lost and only a damaged index held is gone, and said so."""
    flip(damaged / "journal.db", PAGE * 40 + 2000, 1)
    (damaged / "analytics.duckdb").unlink()
    allowed = may_be_lost(base, {("main", 41)})
    check_after_journal_damage(base, damaged, allowed)


def test_mark_damaged(base: Base, damaged: Path) -> None:
    """The mover's mark is only a help: without it nothing is lost."""
    (damaged / "analytics.mark").write_bytes(b"\xff" * 100)
    check_after_journal_damage(base, damaged, set())
