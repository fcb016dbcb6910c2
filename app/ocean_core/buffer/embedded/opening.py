"""Opening the journal in whatever state it was left: finish, save, check, continue behind it.

The order matters: first what a former salvage left to finish, then what the WAL hides (SQLite
would overwrite it), then SQLite itself; last the checks that decide which id comes next.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, Final

import apsw
import msgspec

from ocean_core.buffer.embedded import schema
from ocean_core.buffer.embedded.failures import translate
from ocean_core.buffer.embedded.files import (
    JournalFiles,
    make_private,
    size_of,
    sync_directory,
    write_again,
)
from ocean_core.buffer.embedded.rows import (
    INSERT_MISSING,
    PUT_BLOCK_BACK,
    PUT_KEY_BACK,
    SELECT_MISSING,
    SET_META,
    Grown,
    add_growth,
    count_of,
    gaps,
    meta_row,
    missing_ranges,
    missing_row,
    subtract,
    unpack_keys,
)
from ocean_core.buffer.embedded.salvage import (
    Hidden,
    SalvageInput,
    discard_copy,
    finish_swap,
    keep_hidden,
    kept_hidden,
    salvage,
)
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.buffer.embedded.store import JournalStore, is_whole
from ocean_core.buffer.mark import Mark, read_mark
from ocean_core.buffer.port import DuplicateCount, IdRange, UsageCounts
from ocean_core.buffer.ranges import GroupMarks, IdRanges
from ocean_core.model.errors import StoreCorruptError

_BLOCKS_VERIFIED: Final = 8
_BLOCKS_SCANNED: Final = 1024
_CACHE_PAGES: Final = 2000
_WAL_KEPT_FACTOR: Final = 4


@dataclass(frozen=True, slots=True)
class Known:
    """What this process knows of the journal from having written it.

    ``usage``, ``groups`` and ``duplicates`` are the mirrors of the store, which hold what is
    committed.
    """

    epoch: str
    acked_id: int
    usage: Mapping[str, UsageCounts] = field(default_factory=dict)
    groups: Mapping[str, GroupMarks] = field(default_factory=dict)
    duplicates: Mapping[str, DuplicateCount] = field(default_factory=dict)


def open_store(
    settings: JournalSettings, *, known: Known | None = None, damaged: str | None = None
) -> JournalStore:
    """Open, repair and verify the journal.

    With ``known``, blocks beyond its id are removed: they were never acknowledged and their
    clients were told so. ``damaged`` (a reason) asks for a salvage
    without a first try. Raises StoreVersionError, DiskFullError, StoreIOError,
    BufferUnavailableError, or StoreCorruptError if even the salvaged file cannot be used.
    """
    files = JournalFiles(settings.path)
    try:
        finish_swap(files, settings.clock.now_us())
        discard_copy(files)
        if known is not None:
            write_again(files.wal, settings.vfs)
        if damaged is None and not size_of(files.main) and size_of(files.wal):
            damaged = "journal.db is gone, its WAL is not"
        if damaged is None:
            try:
                keep_hidden(files, settings.vfs)
                return _open_checked(settings, files, known)
            except StoreCorruptError as error:
                damaged = error.detail
        _salvage(settings, files, damaged, known)
        return _open_checked(settings, files, known)
    except (apsw.Error, OSError) as error:
        raise translate(error) from error


def _salvage(
    settings: JournalSettings, files: JournalFiles, reason: str, known: Known | None
) -> None:
    settings.log.error("buffer.damaged", file=files.main.name, reason=reason)
    report = salvage(
        SalvageInput(
            files=files,
            vfs=settings.vfs,
            mark=_mark(settings),
            archived=settings.archived,
            new_epoch=known.epoch if known is not None else _new_epoch(settings),
            now_us=settings.clock.now_us(),
            floor_id=known.acked_id if known is not None else 0,
            faults=settings.faults,
        )
    )
    settings.log.warning(
        "buffer.salvaged", blocks=report.blocks, readings=report.readings,
        missing=sum(item.count for item in report.missing),
    )  # fmt: skip


def _mark(settings: JournalSettings) -> Mark | None:
    return None if settings.mark_path is None else read_mark(settings.mark_path)


def _new_epoch(settings: JournalSettings) -> str:
    return str(uuid.UUID(bytes=settings.random_bytes(16), version=4))


def _open_checked(
    settings: JournalSettings, files: JournalFiles, known: Known | None
) -> JournalStore:
    schema.check_header(files.main, settings.vfs)
    make_private(files.main)
    db = apsw.Connection(str(files.main), vfs=settings.vfs)
    opened: JournalStore | None = None
    try:
        _configure(db, settings)
        mark = _mark(settings)
        is_new = not db.pragma("schema_version")
        if is_new:
            former = known or mark or settings.archived
            schema.create(db, former.epoch if former is not None else _new_epoch(settings))
            _begin_behind_archive(db, settings.archived)
        else:
            schema.check_tables(db)
            schema.migrate(db)
        sync_directory(files.main.parent)
        store = JournalStore(db, files, settings, schema.epoch_of(db))
        if known is not None and known.epoch != store.epoch:
            known = None
        _continue_behind(store, settings, files, mark, known)
        opened = store
    except apsw.SQLError as error:
        # The statements are right, so the tables are not what they claim to be.
        raise StoreCorruptError(f"journal: {error}") from error
    except (apsw.Error, OSError) as error:
        raise translate(error, db) from error
    finally:
        # Whatever went wrong: a connection left behind would lock the next one out.
        if opened is None:
            db.close(force=True)
    return opened


def _configure(db: apsw.Connection, settings: JournalSettings) -> None:
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    db.set_busy_timeout(settings.tuning.busy_timeout_ms)
    if settings.exclusive:
        db.pragma("locking_mode", "EXCLUSIVE")
    db.pragma("page_size", 4096)
    # Only takes effect on a file without tables, and must come before the first write.
    db.pragma("auto_vacuum", 2)
    if db.pragma("journal_mode", "WAL") != "wal":
        raise StoreCorruptError("the journal cannot be switched to WAL")
    db.pragma("synchronous", "FULL" if settings.durability == "fsync" else "NORMAL")
    db.pragma("journal_size_limit", _WAL_KEPT_FACTOR * settings.tuning.wal_pages_max * 4096)
    db.pragma("cache_size", _CACHE_PAGES)
    db.pragma("temp_store", "MEMORY")
    db.wal_autocheckpoint(0)


def _continue_behind(
    store: JournalStore,
    settings: JournalSettings,
    files: JournalFiles,
    mark: Mark | None,
    known: Known | None,
) -> None:
    """Bring back what was hidden, note what is missing, decide which id comes next."""
    db = store.db
    acked_id = None if known is None else known.acked_id
    store.trimmed = schema.meta_integer(db, "trimmed")
    store.missing = missing_ranges(db.execute(SELECT_MISSING))
    _repair_newest(store)
    if acked_id is not None:
        _forget_unacknowledged(db, acked_id)
    hidden = kept_hidden(files)
    db.execute("BEGIN IMMEDIATE")
    if hidden is not None:
        _put_back(db, hidden, store.trimmed, acked_id)
        store.reload_tallies()
    if known is not None:
        store.usage.restore(known.usage)
        store.groups.restore(known.groups)
        store.duplicates.restore(known.duplicates)
    last = _last_id(db)
    _strike_found(store)
    bounds = [last, store.trimmed, schema.meta_integer(db, "high_water"), acked_id or 0]
    bounds += [item.last for item in store.missing[-1:]]
    bounds += [marks.last_id for marks in store.groups.marks.values()]
    bounds += [mark.id] if mark is not None and mark.epoch == store.epoch else []
    archived_up_to = _archived_up_to(store, settings)
    bounds.append(archived_up_to)
    if acked_id is None and hidden is not None:
        bounds.append(_claimed_end(hidden, last))
    store.next_id = 1 + max(bounds)
    if last < schema.meta_integer(db, "high_water") or (acked_id or 0) > last:
        # The newest blocks should be there and are not: is it the file or only our view of it?
        _explain_short_end(store, last)
    lost = _find_gaps(store, everything=hidden is not None)
    if archived_up_to:
        lost = subtract(lost, [IdRange(1, archived_up_to)])
    now_us = settings.clock.now_us()
    for item in lost:
        db.execute(INSERT_MISSING, missing_row(item, now_us, "not in the journal"))
    store.missing = sorted([*store.missing, *lost], key=lambda item: item.first)
    # A damaged journal may have kept less of a group's marks than of what was trimmed.
    _, changes = store.groups.evict(store.trimmed, IdRanges.of_ranges(store.missing))
    db.execute("COMMIT")
    store.groups.publish(changes)
    _verify_newest(store)
    # What was brought back, and frames that were perhaps never synced, must not stay in the WAL.
    if not store.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
        store.checkpoint()
    if known is not None:
        store.probe()
    if hidden is not None or files.hidden.exists():
        files.hidden.unlink()
        settings.log.warning(
            "buffer.salvaged", blocks=len(hidden.blocks) if hidden else 0, from_file=files.wal.name
        )


def _begin_behind_archive(db: apsw.Connection, archived: Mark | None) -> None:
    """Have a new journal know that what the archive holds was here, and was let go of."""
    if archived is not None and archived.id and schema.epoch_of(db) == archived.epoch:
        db.execute("BEGIN IMMEDIATE")
        db.execute(SET_META, meta_row("trimmed", archived.id))
        db.execute("COMMIT")


def _archived_up_to(store: JournalStore, settings: JournalSettings) -> int:
    archived = settings.archived
    return archived.id if archived is not None and archived.epoch == store.epoch else 0


def _strike_found(store: JournalStore) -> None:
    """Take ids out of the missing ones whose blocks a salvage found after all."""
    db = store.db
    left: list[IdRange] = []
    for item in store.missing:
        inside = "SELECT id, count FROM telemetry_buffer WHERE id BETWEEN ? AND ?"
        blocks: list[tuple[Any, ...]] = db.execute(inside, (item.first, item.last)).fetchall()
        if not blocks:
            left.append(item)
            continue
        found = [IdRange(first, first + count_of(count) - 1) for first, count in blocks]
        why = "SELECT found_us, reason FROM missing WHERE first_id = ?"
        rows: list[tuple[Any, ...]] = db.execute(why, (item.first,)).fetchall()
        found_us, reason = rows[0]
        db.execute("DELETE FROM missing WHERE first_id = ?", (item.first,))
        for part in subtract([item], found):
            left.append(part)
            db.execute(INSERT_MISSING, missing_row(part, int(found_us), str(reason)))
    store.missing = left


def _last_id(db: apsw.Connection) -> int:
    newest = "SELECT id, count FROM telemetry_buffer ORDER BY id DESC LIMIT 1"
    row = db.execute(newest).fetchone()
    return 0 if row is None else row[0] + count_of(row[1]) - 1


def _forget_unacknowledged(db: apsw.Connection, acked_id: int) -> None:
    """Remove what a failed commit left behind: its clients were told that it failed."""
    db.execute("BEGIN IMMEDIATE")
    later = "SELECT uuid, keys FROM telemetry_buffer WHERE id > ?"
    rows: list[tuple[Any, ...]] = db.execute(later, (acked_id,)).fetchall()
    for block_uuid, keys in rows:
        for key in unpack_keys(block_uuid, keys).keys:
            drop = "DELETE FROM idempotency WHERE scope = ? AND key = ? AND receipt = ?"
            db.execute(drop, (key.scope, key.key, key.receipt))
    db.execute("DELETE FROM telemetry_buffer WHERE id > ?", (acked_id,))
    db.execute("COMMIT")


def _put_back(db: apsw.Connection, hidden: Hidden, trimmed: int, acked_id: int | None) -> None:
    confirmed: Grown = {}
    loose: Grown = {}
    for row in hidden.blocks:
        unwanted = row.last_id <= trimmed or (acked_id is not None and row.id > acked_id)
        nearest = db.execute(
            "SELECT id + count > ? FROM telemetry_buffer WHERE id <= ? ORDER BY id DESC LIMIT 1",
            (row.id, row.last_id),
        ).get
        if unwanted or nearest:
            continue
        db.execute(PUT_BLOCK_BACK, msgspec.structs.astuple(row))
        notes = unpack_keys(row.uuid, row.keys)
        for key in notes.keys:
            db.execute(PUT_KEY_BACK, msgspec.structs.astuple(key))
        grown = loose if row.id in hidden.unconfirmed else confirmed
        for user_id, counts in notes.usage.items():
            add_growth(grown, user_id, *counts)
    hidden.kept.put_back(db, confirmed, loose)


def _claimed_end(hidden: Hidden, last: int) -> int:
    """Return the last id of unreadable blocks that directly follow the last readable one."""
    sizes: dict[int, int] = {}
    for first, count in hidden.claims:
        sizes[first] = min(count, sizes.get(first, count))
    while last + 1 in sizes:
        last += sizes[last + 1]
    return last


def _explain_short_end(store: JournalStore, last: int) -> None:
    known = [*store.missing, IdRange(1, store.trimmed)] if store.trimmed else store.missing
    if subtract([IdRange(last + 1, store.head_id)], known):
        store.require_sound()


def _find_gaps(store: JournalStore, *, everything: bool) -> list[IdRange]:
    """Return ids that no block holds and that are not accounted for yet.

    A start looks at the newest blocks only; the scrub of the analytics process sees the rest.
    """
    newest = "SELECT id, count FROM telemetry_buffer ORDER BY id DESC LIMIT ?"
    limit = -1 if everything else _BLOCKS_SCANNED
    found: list[tuple[Any, ...]] = store.db.execute(newest, (limit,)).fetchall()
    rows = [(first, count_of(count)) for first, count in reversed(found)]
    rows = _with_true_counts(store, rows)
    complete = everything or len(rows) < _BLOCKS_SCANNED
    expected = store.trimmed + 1 if complete else rows[0][0]
    return subtract(gaps(chain(rows, [(store.next_id, 1)]), expected), store.missing)


def _with_true_counts(store: JournalStore, rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ask the blocks themselves where the columns do not fit together."""
    true: list[tuple[int, int]] = []
    for (first, count), (following, _) in pairwise([*rows, (store.next_id, 0)]):
        held = None if first + count == following else store.repair_row(first)
        true.append((first, count) if held is None else (held.first, held.count))
    return true


def _repair_newest(store: JournalStore) -> None:
    newest = "SELECT id FROM telemetry_buffer ORDER BY id DESC LIMIT ?"
    rows: list[tuple[Any, ...]] = store.db.execute(newest, (_BLOCKS_VERIFIED,)).fetchall()
    for (first,) in rows:
        store.repair_row(first)


def _verify_newest(store: JournalStore) -> None:
    rows: list[tuple[Any, ...]] = store.db.execute(
        "SELECT id, count, data FROM telemetry_buffer ORDER BY id DESC LIMIT ?",
        (_BLOCKS_VERIFIED,),
    ).fetchall()
    damaged = [
        IdRange(first, first + count_of(count) - 1)
        for first, count, data in rows
        if not is_whole(first, count, data)
    ]
    if damaged:
        store.record_damage(damaged, "damaged block")
