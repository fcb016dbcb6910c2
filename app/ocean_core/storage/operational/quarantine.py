"""Rows of ``quarantine``: refused frames, and what became of those that were tried again.

The loss ledger counts, in the transaction of the row itself, each frame that came in (class
``quarantined``, a repeat of the same bytes again) and each that left: ``quarantine released`` when
what it says is stored, ``quarantine evicted`` when it made room, ``quarantine forgotten`` when
somebody deleted it. What is left over is here now.

A row is ``held``; ``trying`` while a retry is under way, which a crash leaves so; ``unsure`` if
nobody can tell any more whether such a retry had stored it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import apsw

from ocean_core.model.access import Origin
from ocean_core.model.errors import UnknownRecordError
from ocean_core.storage.operational import audit, loss_ledger
from ocean_core.storage.operational.loss_ledger import LossRow
from ocean_core.storage.operational.pages import page_of
from ocean_core.storage.operational.row_counts import row_count, rows_changed

QUARANTINED: Final = "quarantined"
RELEASED: Final = "quarantine released"
EVICTED: Final = "quarantine evicted"
FORGOTTEN: Final = "quarantine forgotten"
UNSURE: Final = "unsure"

_TABLE: Final = "quarantine"
_LAST_ID: Final = "quarantine last id"
_COLUMNS: Final = """
id, digest, first_us, last_us, seen, boot, steady_us, transport, address, actor, pattern, user_id,
outcome, detail, byte_offset, model_id, sensor_id, counted_as, given, is_early, state, tried_us,
note, size, frame
"""
_AGAIN: Final = """
UPDATE quarantine SET
    seen = seen + 1, last_us = ?, outcome = ?, detail = ?, byte_offset = ?,
    is_early = max(is_early, ?)
WHERE digest = ? RETURNING id
"""
# That the same bytes came before says nothing new; why they were refused first does.
_REPEATED: Final = """
UPDATE quarantine SET seen = seen + 1, last_us = ? WHERE digest = ? RETURNING id
"""
_REPLAY: Final = "E_REPLAY"
_IDS_TOLD: Final = 20
_INSERT: Final = """
INSERT INTO quarantine VALUES (
    ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'held', NULL, ?, ?, ?
)
"""
_EVICT: Final = """
DELETE FROM quarantine WHERE id IN (
    SELECT id FROM quarantine WHERE state <> 'trying' ORDER BY id LIMIT ?
) RETURNING counted_as, seen, note
"""
_PAGE: Final = f"SELECT {_COLUMNS} FROM quarantine WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608
_PAGE_OF_OUTCOME: Final = f"""
SELECT {_COLUMNS} FROM quarantine WHERE id < ? AND outcome = ? ORDER BY id DESC LIMIT ?
"""  # noqa: S608 - constants of ours
_GET: Final = f"SELECT {_COLUMNS} FROM quarantine WHERE id = ?"  # noqa: S608 - constants of ours
_HELD: Final = "SELECT id FROM quarantine WHERE id > ? AND state = 'held' ORDER BY id LIMIT ?"
_HELD_OF_OUTCOME: Final = """
SELECT id FROM quarantine WHERE id > ? AND outcome = ? AND state = 'held' ORDER BY id LIMIT ?
"""
_FORGET: Final = "DELETE FROM quarantine WHERE id = ? RETURNING id, counted_as, seen, note"
# What a retry is under way for may be stored at this moment; a person can still name it by its id.
_FORGET_OLDEST: Final = """
DELETE FROM quarantine WHERE id IN (
    SELECT id FROM quarantine
    WHERE id > ? AND state <> 'trying' AND (? IS NULL OR outcome = ?) ORDER BY id LIMIT ?
) RETURNING id, counted_as, seen, note
"""
_EARLY: Final = """
SELECT id FROM quarantine
WHERE is_early = 1 AND id > ? AND boot = ? AND boot <> '' AND steady_us <= ? AND state = 'held'
ORDER BY id LIMIT ?
"""
_TRYING: Final = "SELECT id, tried_us FROM quarantine WHERE state = 'trying' ORDER BY tried_us, id"
_BEGIN: Final = f"""
UPDATE quarantine SET
    state = 'trying', tried_us = CASE state WHEN 'trying' THEN tried_us ELSE ? END
WHERE id = ? RETURNING {_COLUMNS}
"""  # noqa: S608 - constants of ours
_LATER: Final = "UPDATE quarantine SET state = 'held', tried_us = NULL WHERE id = ?"
_REFUSED: Final = """
UPDATE quarantine SET
    state = 'held', tried_us = NULL, outcome = ?, detail = ?, byte_offset = ?, is_early = 0
WHERE id = ?
"""
# A forgery with the check value of a frame that was stored is evidence, and stays.
_RELEASE: Final = """
DELETE FROM quarantine WHERE note = ? AND outcome <> 'E_MAC' AND state <> 'trying'
RETURNING counted_as, seen
"""
_BEHIND_ALL: Final = 2**63 - 1

Naming = Callable[[str], str]
"""Returns the name of today for a sensor."""


class Arrival(NamedTuple):
    """A refused frame as it came. Times in microseconds; ``steady_us`` since the machine started."""

    digest: bytes
    arrival_us: int
    boot: str
    steady_us: int
    transport: str
    address: str
    actor: str
    pattern: str
    user_id: str | None
    outcome: str
    detail: str
    offset: int | None
    model_id: int | None
    sensor_id: str
    counted_as: str
    given: str
    is_early: bool
    note: bytes | None
    size: int
    frame: bytes


class QuarantineRow(NamedTuple):
    """One row; see migrations/0002.sql."""

    id: int
    digest: bytes
    first_us: int
    last_us: int
    seen: int
    boot: str
    steady_us: int
    transport: str
    address: str
    actor: str
    pattern: str
    user_id: str | None
    outcome: str
    detail: str
    byte_offset: int | None
    model_id: int | None
    sensor_id: str
    counted_as: str
    given: str
    is_early: int
    state: str
    tried_us: int | None
    note: bytes | None
    size: int
    frame: bytes


class Kept(NamedTuple):
    """How many rows there are now, how many frames had to leave; notes of what came and went."""

    rows: int
    evicted: int
    come: list[bytes]
    gone: list[bytes]


class Tried(NamedTuple):
    """What became of a row that was tried again.

    ``released``: what it says is durable. ``refused``: with this outcome. ``later``: nothing is
    decided, it stays as it was.
    """

    id: int
    verdict: Literal["released", "refused", "later"]
    outcome: str = ""
    detail: str = ""
    offset: int | None = None


class Order(NamedTuple):
    """Who asked for a retry or a deletion, of what."""

    origin: Origin
    subject: str
    detail: dict[str, object]


class Unwanted(NamedTuple):
    """What somebody wants deleted: these ids, or else the oldest behind ``after``.

    Those of one ``outcome``, or of all; at most ``limit``.
    """

    ids: Sequence[int] | None
    outcome: str | None
    after: int
    limit: int


class Forgotten(NamedTuple):
    """The ids that were deleted, in order, and the notes of these frames."""

    ids: list[int]
    notes: list[bytes]


class Waiting(NamedTuple):
    """Rows in all, and of early ones those of this run of the machine and of others."""

    rows: int
    early: int
    early_of_others: int


def is_sound(row: Sequence[object]) -> bool:
    """Whether a row read from a damaged file holds the frame that it was made for."""
    match row:
        case [_, bytes(digest), *_, int(size), bytes(frame)] if size == len(frame):
            return hashlib.sha256(frame).digest() == digest
        case _:
            return True


def keep(
    db: apsw.Connection,
    arrivals: Iterable[Arrival],
    turned_away: Mapping[str, int],
    frames_max: int,
    now_us: int,
    name: Naming,
) -> Kept:
    """Add frames in the order of their coming; the oldest beyond ``frames_max`` go.

    ``turned_away`` are frames that found no room in memory, by the name they are counted under.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for sensor_id, count in turned_away.items():
        counts[name(sensor_id), QUARANTINED] += count
        counts[name(sensor_id), EVICTED] += count
    last = _last_id(db)
    first = last
    come: list[bytes | None] = []
    for each in arrivals:
        last += _put(db, each, last + 1)
        come.append(each.note)
        counts[name(each.counted_as), QUARANTINED] += 1
    if last > first:
        rows_changed(db, _TABLE, last - first)
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_LAST_ID, last))
    evicted = 0
    gone: list[bytes | None] = []
    excess = row_count(db, _TABLE) - frames_max
    if excess > 0:
        for sensor_id, seen, note in _rows(db, _EVICT, (excess,)):
            counts[name(sensor_id), EVICTED] += seen
            evicted += seen
            gone.append(note)
        rows_changed(db, _TABLE, -len(gone))
    _count(db, counts, now_us)
    return Kept(row_count(db, _TABLE), evicted, _known(come), _known(gone))


def _known(found: Iterable[bytes | None]) -> list[bytes]:
    return [note for note in found if note is not None]


def _put(db: apsw.Connection, new: Arrival, row_id: int) -> int:
    """Add a frame; return 1 if it is a new row, 0 if the same bytes came before."""
    again = (new.arrival_us, new.outcome, new.detail, new.offset, new.is_early, new.digest)
    if new.outcome == _REPLAY:
        present = db.execute(_REPEATED, (new.arrival_us, new.digest)).get
    else:
        present = db.execute(_AGAIN, again).get
    if present is not None:
        return 0
    values = (
        row_id, new.digest, new.arrival_us, new.arrival_us, new.boot, new.steady_us, new.transport,
        new.address, new.actor, new.pattern, new.user_id, new.outcome, new.detail, new.offset,
        new.model_id, new.sensor_id, new.counted_as, new.given, int(new.is_early), new.note,
        new.size, new.frame,
    )  # fmt: skip
    db.execute(_INSERT, values)
    return 1


def _last_id(db: apsw.Connection) -> int:
    """Return the largest id ever given out: one that was deleted must not mean another frame."""
    noted = db.execute("SELECT value FROM meta WHERE key = ?", (_LAST_ID,)).get
    present = db.execute("SELECT coalesce(max(id), 0) FROM quarantine").get
    return max(noted if isinstance(noted, int) else 0, int(present))


def page(
    db: apsw.Connection, outcome: str | None, before: int | None, limit: int
) -> tuple[list[QuarantineRow], bool]:
    """Return rows, newest first, older than the id ``before``, and whether more follow."""
    start = _BEHIND_ALL if before is None else before
    if outcome is None:
        rows, more = page_of(db, _PAGE, (start,), limit)
    else:
        rows, more = page_of(db, _PAGE_OF_OUTCOME, (start, outcome), limit)
    return [QuarantineRow(*row) for row in rows], more


def get(db: apsw.Connection, row_id: int) -> QuarantineRow:
    """Return a row. Raises UnknownRecordError."""
    row = next(iter(_rows(db, _GET, (row_id,))), None) if row_id <= _BEHIND_ALL else None
    if row is None:
        raise UnknownRecordError("No such frame in quarantine")
    return QuarantineRow(*row)


def forget(
    db: apsw.Connection, row_id: int, now_us: int, origin: Origin, name: Naming
) -> QuarantineRow:
    """Delete a row and return it. Raises UnknownRecordError."""
    row = get(db, row_id)
    db.execute("DELETE FROM quarantine WHERE id = ?", (row_id,))
    rows_changed(db, _TABLE, -1)
    loss_ledger.add(db, LossRow(name(row.counted_as), FORGOTTEN, row.seen, now_us))
    detail: dict[str, object] = {
        "outcome": row.outcome,
        "sensor_id": row.sensor_id,
        "digest": row.digest.hex(),
    }
    audit.record(db, now_us, origin, "quarantine.forget", str(row_id), detail)
    return row


def forget_some(
    db: apsw.Connection, unwanted: Unwanted, order: Order, now_us: int, name: Naming
) -> Forgotten:
    """Delete rows; ids that are not there are left out. ``order`` goes into the audit log."""
    ids, outcome, after, limit = unwanted
    if ids is None:
        rows = _rows(db, _FORGET_OLDEST, (after, outcome, outcome, limit))
    else:
        rows = [row for row_id in ids[:limit] for row in _rows(db, _FORGET, (row_id,))]
    counts: Counter[tuple[str, str]] = Counter()
    for _, counted_as, seen, _ in rows:
        counts[name(counted_as), FORGOTTEN] += seen
    _gone(db, len(rows), counts, now_us)
    gone = sorted(row_id for row_id, *_ in rows)
    detail = {"frames": len(gone), "ids": gone[:_IDS_TOLD], **order.detail}
    audit.record(db, now_us, order.origin, "quarantine.forget", order.subject, detail)
    return Forgotten(gone, _known(note for *_, note in rows))


def held(db: apsw.Connection, outcome: str | None, after: int, limit: int) -> list[int]:
    """Return the ids of rows behind one, the oldest first; of one outcome or of all."""
    if outcome is None:
        return [found for (found,) in db.execute(_HELD, (after, limit))]
    return [found for (found,) in db.execute(_HELD_OF_OUTCOME, (after, outcome, limit))]


def early(db: apsw.Connection, boot: str, steady_us: int, after: int, limit: int) -> list[int]:
    """Return the ids of early rows whose arrival is known by the steady clock of now."""
    return [found for (found,) in db.execute(_EARLY, (after, boot, steady_us, limit))]


def waiting(db: apsw.Connection, boot: str) -> Waiting:
    """Return how many rows there are."""
    query = (
        "SELECT coalesce(sum(boot = ? AND boot <> ''), 0), count(*) "
        "FROM quarantine WHERE is_early = 1"
    )
    ((of_this_boot, early),) = _rows(db, query, (boot,))
    return Waiting(row_count(db, _TABLE), of_this_boot, early - of_this_boot)


def notes(db: apsw.Connection) -> list[bytes]:
    """Return the notes of all frames that have one."""
    query = "SELECT note FROM quarantine WHERE note IS NOT NULL"
    return [found for (found,) in db.execute(query)]


def interrupted(db: apsw.Connection) -> list[tuple[int, int]]:
    """Return id and beginning of retries that did not come to their end."""
    return [(row_id, tried_us or 0) for row_id, tried_us in db.execute(_TRYING)]


def doubt(db: apsw.Connection, row_ids: Iterable[int]) -> None:
    """Note that nobody can tell any more what an interrupted retry has done."""
    doubtful = "UPDATE quarantine SET state = 'unsure' WHERE id = ? AND state = 'trying'"
    db.executemany(doubtful, [(row_id,) for row_id in row_ids])


def _rows(db: apsw.Connection, query: str, bindings: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return db.execute(query, bindings).fetchall()


def begin(
    db: apsw.Connection, row_ids: Iterable[int], now_us: int, order: Order | None = None
) -> list[QuarantineRow]:
    """Note that these are tried again from now on, and return those that are there.

    ``order`` goes into the audit log.
    """
    if order is not None:
        audit.record(db, now_us, order.origin, "quarantine.retry", order.subject, order.detail)
    rows = [_rows(db, _BEGIN, (now_us, row_id)) for row_id in row_ids]
    return [QuarantineRow(*row) for found in rows for row in found]


def finish(db: apsw.Connection, tried: Iterable[Tried], now_us: int, name: Naming) -> int:
    """Note what became of rows that were tried; return how many rows there are now."""
    counts: Counter[tuple[str, str]] = Counter()
    gone = 0
    for each in tried:
        match each.verdict:
            case "released":
                drop = "DELETE FROM quarantine WHERE id = ? RETURNING counted_as, seen"
                for sensor_id, seen in _rows(db, drop, (each.id,)):
                    counts[name(sensor_id), RELEASED] += seen
                    gone += 1
            case "refused":
                db.execute(_REFUSED, (each.outcome, each.detail, each.offset, each.id))
            case "later":
                db.execute(_LATER, (each.id,))
    return _gone(db, gone, counts, now_us)


def release(db: apsw.Connection, stored: Iterable[bytes], now_us: int, name: Naming) -> int:
    """Let frames go that have been stored otherwise; return how many rows there are now."""
    counts: Counter[tuple[str, str]] = Counter()
    gone = 0
    for note in stored:
        for sensor_id, seen in _rows(db, _RELEASE, (note,)):
            counts[name(sensor_id), RELEASED] += seen
            gone += 1
    return _gone(db, gone, counts, now_us)


def _gone(
    db: apsw.Connection, gone: int, counts: Mapping[tuple[str, str], int], now_us: int
) -> int:
    if gone:
        rows_changed(db, _TABLE, -gone)
    _count(db, counts, now_us)
    return row_count(db, _TABLE)


def _count(db: apsw.Connection, counts: Mapping[tuple[str, str], int], now_us: int) -> None:
    for (sensor_id, loss_class), count in counts.items():
        loss_ledger.add(db, LossRow(sensor_id, loss_class, count, now_us))
