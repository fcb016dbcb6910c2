"""Getting blocks back out of a damaged journal.

Two cases. *Hidden*: the main file is good, but a damaged WAL frame hides the frames behind it.
Their blocks are written to ``journal.db-hidden`` before SQLite opens (and overwrites) the WAL, and
go back into the journal right after. *Damaged*: SQLite cannot read the main file. Then every page
of file and WAL is walked and every block whose CRC holds is copied into a new file.

The copy is restartable: ``.salvage`` is worthless until it is whole and synced; renamed to
``.salvaged`` it only has to take its place, which each start completes first of all. The old WAL
must be gone before that, for SQLite would replay it over the new file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final
from uuid import UUID

import apsw
import msgspec

from ocean_core.buffer.embedded import schema
from ocean_core.buffer.embedded.files import (
    JournalFiles,
    make_private,
    raw_file,
    read_raw,
    require_room,
    size_of,
    sync_directory,
    write_durably,
)
from ocean_core.buffer.embedded.kept import KeptRows
from ocean_core.buffer.embedded.pages import (
    INDEX_INNER,
    INDEX_LEAF,
    TABLE_LEAF,
    Cell,
    Fetch,
    Page,
    SqlValue,
    claims_of,
    find_block,
    payload_of,
    record_of,
    row_cells,
)
from ocean_core.buffer.embedded.rows import (
    INSERT_MISSING,
    PUT_BLOCK_BACK,
    PUT_KEY_BACK,
    SELECT_MISSING,
    SET_CURSOR,
    SET_META,
    BlockRow,
    Grown,
    KeyRow,
    add_growth,
    checked,
    gaps,
    keys_fit,
    meta_is_whole,
    meta_row,
    missing_range,
    missing_ranges,
    missing_row,
    opened_receipt,
    row_of,
    subtract,
    unpack_keys,
    whole_block,
    with_crc,
)
from ocean_core.buffer.embedded.wal import PAGE_BYTES, WalImage, parse_wal
from ocean_core.buffer.mark import Mark
from ocean_core.buffer.port import IdRange
from ocean_core.obs.faults import Faults

_COMMIT_BYTES: Final = 16 * 1024 * 1024
_READ_PAGES: Final = 256
_ROW_KINDS: Final = (INDEX_INNER, INDEX_LEAF, TABLE_LEAF)


class Hidden(msgspec.Struct, frozen=True):
    """What was found behind a damaged WAL frame.

    ``claims`` are (first id, count) that unreadable blocks there may have had. ``kept`` are rows of
    other tables, ``unconfirmed`` the first ids of blocks whose transaction perhaps never ended.
    """

    blocks: list[BlockRow]
    claims: list[tuple[int, int]]
    kept: KeptRows = msgspec.field(default_factory=KeptRows)
    unconfirmed: set[int] = msgspec.field(default_factory=set)


class _Pages:
    """Page images of a main file and its WAL, whatever their condition."""

    def __init__(self, files: JournalFiles, vfs: str | None) -> None:
        self._files = files
        self._vfs = vfs
        self.wal = parse_wal(_read_whole(files, vfs))
        self.main_pages = size_of(files.main) // PAGE_BYTES
        self._chunk_no = -1
        self._chunk = b""
        self._versions: dict[int, list[int]] = {}
        for i, frame in enumerate(self.wal.frames):
            self._versions.setdefault(frame.page_no, []).append(i)

    def main(self, page_no: int) -> bytes:
        """Return a page of the main file; zeros stand for what the disk does not give back."""
        chunk_no, index = divmod(page_no - 1, _READ_PAGES)
        if chunk_no != self._chunk_no:
            self._chunk = self._read_main(
                chunk_no * _READ_PAGES, min(_READ_PAGES, self.main_pages - chunk_no * _READ_PAGES)
            )
            self._chunk_no = chunk_no
        return self._chunk[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]

    def _read_main(self, start: int, count: int) -> bytes:
        try:
            with raw_file(self._files.main, self._vfs) as file:
                return read_raw(file, start * PAGE_BYTES, count * PAGE_BYTES)
        except apsw.Error:
            if count == 1:
                return bytes(PAGE_BYTES)
            return b"".join(self._read_main(start + i, 1) for i in range(count))

    def _from_main(self, page_no: int) -> Page | None:
        return self.main(page_no) if 0 < page_no <= self.main_pages else None

    def _from_wal(self, page_no: int, until: int) -> Page | None:
        fitting = [i for i in self._versions.get(page_no, ()) if i <= until]
        return self.wal.frames[fitting[-1]].page if fitting else None

    def ways_from_frame(self, index: int) -> list[Fetch]:
        """Return how to look up overflow pages for a leaf in the WAL: the likeliest way first."""
        frames = self.wal.frames
        until = next(
            (i for i in range(index, len(frames)) if frames[i].ends_transaction), len(frames)
        )
        return [
            lambda no: self._from_wal(no, until) or self._from_main(no),
            lambda no: self._from_wal(no, len(frames)) or self._from_main(no),
        ]

    def ways_from_main(self) -> list[Fetch]:
        """Return how to look up overflow pages for a leaf in the main file."""
        last = len(self.wal.frames)
        return [self._from_main, lambda no: self._from_wal(no, last) or self._from_main(no)]


def _read_whole(files: JournalFiles, vfs: str | None) -> bytes:
    if not size_of(files.wal):
        return b""
    with raw_file(files.wal, vfs) as file:
        return read_raw(file, 0, file.xFileSize())


def _block_in(cell: Cell, ways: list[Fetch]) -> BlockRow | None:
    """Return the whole block of a cell, None if the cell has none or its CRC does not hold.

    Keys that are not those of the block are left out; ``keys_fit`` tells.
    """
    trace = find_block(cell)
    if trace is None:
        return None
    end = trace.offset + trace.block_bytes
    # The second length serves if the cell's own is damaged; it is right without keys.
    for payload_bytes in dict.fromkeys((cell.payload_bytes, end)):
        for fetch in ways if end <= payload_bytes else ():
            payload = payload_of(cell, payload_bytes, fetch)
            data = None if payload is None else payload[trace.offset : end]
            block = whole_block(data)
            if block is not None and data is not None and payload is not None:
                columns = record_of(payload)
                keys = columns[6] if columns is not None and len(columns) == 7 else None
                if isinstance(keys, bytes) and keys_fit(block.uuid, keys):
                    return row_of(block, data, keys)
                return row_of(block, data, None)
    return None


def find_hidden(files: JournalFiles, vfs: str | None) -> Hidden | None:
    """Return what the WAL hides from SQLite, None if it hides nothing. Raises apsw.Error."""
    pages = _Pages(files, vfs)
    if not pages.wal.hides_something:
        return None
    blocks: dict[int, BlockRow] = {}
    claims: set[tuple[int, int]] = set()
    kept = KeptRows()
    loose: set[int] = set()
    unconfirmed = pages.wal.last_transaction
    for i in range(pages.wal.accepted, len(pages.wal.frames)):
        frame = pages.wal.frames[i]
        ways: list[Fetch] | None = None
        for cell in row_cells(frame.page, frame.page_no):
            trace = find_block(cell)
            if trace is not None and trace.first_id in blocks:
                continue
            ways = ways or pages.ways_from_frame(i)
            if trace is None:
                _take_row(kept, cell, ways, with_usage=i < unconfirmed)
            row = _block_in(cell, ways)
            # What may never have been acknowledged comes back with its keys or not at all: its
            # client may send it again.
            if row is None or (i >= unconfirmed and not keys_fit(row.uuid, row.keys)):
                claims.update(claims_of(cell, trace))
            else:
                blocks[row.id] = row
                loose.update({row.id} if i >= unconfirmed else ())
    return Hidden([blocks[first] for first in sorted(blocks)], sorted(claims), kept, loose)


def _take_row(kept: KeptRows, cell: Cell, ways: list[Fetch], *, with_usage: bool) -> None:
    for fetch in ways:
        payload = payload_of(cell, cell.payload_bytes, fetch)
        columns = None if payload is None else record_of(payload)
        if columns is not None:
            kept.take(columns, with_usage=with_usage)


def keep_hidden(files: JournalFiles, vfs: str | None) -> None:
    """Write what the WAL hides to ``journal.db-hidden``. Raises apsw.Error, OSError."""
    if size_of(files.wal):
        found = find_hidden(files, vfs)
        before = kept_hidden(files)
        if found is not None:
            if before is not None:
                found.kept.update(before.kept)
                found = Hidden(
                    before.blocks + found.blocks,
                    before.claims + found.claims,
                    found.kept,
                    before.unconfirmed | found.unconfirmed,
                )
            write_durably(files.hidden, with_crc(msgspec.msgpack.encode(found)))


def kept_hidden(files: JournalFiles) -> Hidden | None:
    """Return what a former start found hidden and did not get to put back."""
    try:
        body = checked(files.hidden.read_bytes())
    except FileNotFoundError:
        return None
    return None if body is None else msgspec.msgpack.decode(body, type=Hidden)


# --- a damaged main file --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What a salvage saved and what it could not."""

    blocks: int
    readings: int
    missing: list[IdRange]


class _Copy:
    """The new file, filled from page images."""

    def __init__(self, db: apsw.Connection, now_us: int, on_commit: Callable[[], None]) -> None:
        self._db = db
        self._now_us = now_us
        self._on_commit = on_commit
        self._bytes = 0
        self.epoch = ""
        self.epoch_copy = ""
        self.integers: dict[str, int] = {}
        self._kept = KeptRows()
        self._grown: Grown = {}

    def take_page(self, page: Page, page_no: int, ways: Callable[[], list[Fetch]]) -> None:
        """Copy what a page holds."""
        for cell in row_cells(page, page_no):
            trace = find_block(cell)
            if trace is not None:
                found = "SELECT 1 FROM telemetry_buffer WHERE id = ?"
                if self._db.execute(found, (trace.first_id,)).get is None:
                    self._take_block(_block_in(cell, ways()))
                continue
            for fetch in ways():
                payload = payload_of(cell, cell.payload_bytes, fetch)
                columns = record_of(payload) if payload is not None else None
                if columns is not None:
                    self._take_columns(columns, cell.rowid)

    def _take_block(self, row: BlockRow | None) -> None:
        if row is None:
            return
        self._db.execute(PUT_BLOCK_BACK, msgspec.structs.astuple(row))
        notes = unpack_keys(row.uuid, row.keys)
        for user_id, counts in notes.usage.items() if self._db.changes() else ():
            add_growth(self._grown, user_id, *counts)
        for key in notes.keys:
            self._db.execute(PUT_KEY_BACK, msgspec.structs.astuple(key))
        self._bytes += len(row.data)
        if self._bytes >= _COMMIT_BYTES:
            self.commit()

    def _take_columns(self, columns: list[SqlValue], rowid: int) -> None:
        match columns:
            case ["epoch", str(text), crc] if meta_is_whole("epoch", text, crc):
                self.epoch = text
            case [str(key), int(number), crc] if key in schema.META_INTEGERS and meta_is_whole(
                key, number, crc
            ):
                self.integers[key] = max(number, self.integers.get(key, 0))
            case [str(scope), str(key), bytes(digest), int(created_us), bytes(receipt)]:
                if opened_receipt(scope, key, digest, receipt) is not None:
                    row = KeyRow(scope, key, digest, created_us, receipt)
                    self._db.execute(PUT_KEY_BACK, msgspec.structs.astuple(row))
            case [None, int(last_id), int(found_us), str(reason), crc]:
                item = missing_range(rowid, last_id, crc)
                if item is not None:
                    self._db.execute(INSERT_MISSING, missing_row(item, found_us, reason))
            case [str(group), str(epoch), int(position)] if _is_uuid(epoch):
                self.epoch_copy = self.epoch_copy if group else epoch
                self._db.execute(SET_CURSOR, (group, epoch, position))
            case _:
                self._kept.take(columns)

    def commit(self) -> None:
        """End the running transaction and begin the next."""
        self._db.execute("COMMIT")
        self._on_commit()
        self._db.execute("BEGIN IMMEDIATE")
        self._bytes = 0

    def finish(
        self, mark: Mark | None, archived: Mark | None, new_epoch: str, floor_id: int
    ) -> SalvageReport:
        """Write what belongs to the whole: epoch, bounds, missing ids."""
        db = self._db
        former = mark or archived
        epoch = self.epoch or self.epoch_copy or (former.epoch if former is not None else new_epoch)
        trimmed = self.integers.get("trimmed", 0)
        if archived is not None and archived.epoch == epoch:
            trimmed = max(trimmed, archived.id)
        db.execute("DELETE FROM telemetry_buffer WHERE id + count - 1 <= ?", (trimmed,))
        known = missing_ranges(db.execute(SELECT_MISSING))
        last, blocks, readings = db.execute(
            "SELECT max(id + count - 1), count(*), sum(count) FROM telemetry_buffer"
        ).get
        high_water = max(
            last or 0,
            self.integers.get("high_water", 0),
            mark.id if mark is not None and mark.epoch == epoch else 0,
            max((item.last for item in known), default=0),
            floor_id,
            trimmed,
        )
        found = chain(
            db.execute("SELECT id, count FROM telemetry_buffer ORDER BY id"), [(high_water + 1, 1)]
        )
        lost = subtract(gaps(found, trimmed + 1), known)
        for item in lost:
            db.execute(INSERT_MISSING, missing_row(item, self._now_us, "damaged journal"))
        self._kept.put_back(db, self._grown, {})
        schema.put_epoch(db, epoch)
        db.execute(SET_META, meta_row("high_water", high_water))
        db.execute(SET_META, meta_row("trimmed", trimmed))
        return SalvageReport(blocks, readings or 0, lost)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class SalvageInput:
    """What a salvage needs to know. ``floor_id`` is the last id known to be acknowledged."""

    files: JournalFiles
    vfs: str | None
    mark: Mark | None
    archived: Mark | None
    new_epoch: str
    now_us: int
    floor_id: int
    faults: Faults


def salvage(given: SalvageInput) -> SalvageReport:
    """Copy what is readable into a new journal and put it in place.

    The damaged file is kept as ``journal.db.damaged-<utc>``. No connection may be open in this
    process. Raises apsw.Error or OSError (ENOSPC before anything is copied, if there is no room for
    a second journal); the damaged file is then untouched.
    """
    files = given.files
    discard_copy(files)
    require_room(files)
    pages = _Pages(files, given.vfs)
    make_private(files.copying)
    db = apsw.Connection(str(files.copying), vfs=given.vfs)
    try:
        db.pragma("journal_mode", "OFF")
        # Synced once as a whole, before it gets its name.
        db.pragma("synchronous", "OFF")
        schema.create(db, "")
        db.execute("BEGIN IMMEDIATE")
        copy = _Copy(db, given.now_us, lambda: given.faults.hit("journal.salvage_copying"))
        for page, page_no, ways in _every_page(pages):
            copy.take_page(page, page_no, ways)
        copy.commit()
        report = copy.finish(given.mark, given.archived, given.new_epoch, given.floor_id)
        db.execute("COMMIT")
    finally:
        db.close()
    with raw_file(files.copying, given.vfs, write=True) as file:
        file.xSync(apsw.SQLITE_SYNC_FULL)
    files.copying.rename(files.salvaged)
    sync_directory(files.main.parent)
    given.faults.hit("journal.salvage_before_swap")
    finish_swap(files, given.now_us)
    given.faults.hit("journal.salvage_after_swap")
    return report


def _every_page(pages: _Pages) -> Iterator[tuple[Page, int, Callable[[], list[Fetch]]]]:
    """Return every page image that may hold rows, newest first: of two copies of a row the first one stays."""
    wal: WalImage = pages.wal
    for i in range(len(wal.frames) - 1, -1, -1):
        frame = wal.frames[i]
        yield frame.page, frame.page_no, lambda i=i: pages.ways_from_frame(i)  # type: ignore[misc]
    for page_no in range(1, pages.main_pages + 1):
        page = pages.main(page_no)
        if page_no == 1 or (page and page[0] in _ROW_KINDS):
            yield page, page_no, pages.ways_from_main


def discard_copy(files: JournalFiles) -> None:
    """Remove a copy that a crash left half done. Raises OSError."""
    for path in (files.copying, files.copying.with_name(files.copying.name + "-journal")):
        path.unlink(missing_ok=True)


def finish_swap(files: JournalFiles, now_us: int) -> None:
    """If a complete salvage is waiting, put it in place. Raises OSError."""
    if not files.salvaged.exists():
        return
    moment = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC)
    kept = files.damaged(moment.strftime("%Y%m%dT%H%M%SZ"))
    if not files.main.exists() and files.kept_damaged():
        # A crash came between the two renames: the newest one is that of this salvage.
        kept = files.damaged(files.kept_damaged()[-1].name.rsplit("-")[-1].split(".")[0])
    kept_wal = kept.with_name(kept.name + ".wal")
    if files.wal.exists():
        files.wal.rename(kept_wal)
    # A reader may still hold the old index open: the new file must not be read through it.
    files.shm.unlink(missing_ok=True)
    if files.main.exists():
        files.main.rename(kept)
    sync_directory(files.main.parent)
    files.salvaged.rename(files.main)
    sync_directory(files.main.parent)
    for path in files.kept_damaged():
        if path not in {kept, kept_wal}:
            path.unlink(missing_ok=True)
