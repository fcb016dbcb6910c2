"""The journal's file in use: one connection that writes and checkpoints.

Belongs to the writer thread alone. After any error the object is worthless: close it and open
another one (``opening.open_store``), because SQLite's picture of the file may be wrong then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import apsw
import msgspec

from ocean_core.buffer.embedded.duplicates import DuplicatesTable, Repeats, add_repeats
from ocean_core.buffer.embedded.files import JournalFiles, identity_of
from ocean_core.buffer.embedded.group import GroupPlan, Placement
from ocean_core.buffer.embedded.groups import Changes, GroupTable, MarkRequest
from ocean_core.buffer.embedded.rows import (
    ADD_BLOCK,
    INSERT_MISSING,
    PUT_BLOCK_BACK,
    SET_META,
    KeyRow,
    count_of,
    keys_fit,
    meta_row,
    missing_row,
    opened_receipt,
    row_of,
    sealed_receipt,
    subtract,
    whole_block,
)
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.buffer.embedded.trimming import Candidate, deletable
from ocean_core.buffer.embedded.usage import UsageTable
from ocean_core.buffer.port import Acknowledged, IdRange
from ocean_core.buffer.ranges import IdRanges
from ocean_core.model.errors import (
    IdempotencyMismatchError,
    OceanError,
    StoreCorruptError,
    StoreIOError,
)
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt

_FIND_KEY: Final = (
    "SELECT digest, receipt FROM idempotency WHERE scope = ? AND key = ? AND created_us > ?"
)
_NEWEST_ARRIVAL: Final = "SELECT timestamp FROM telemetry_buffer ORDER BY id DESC LIMIT 1"
_REDATE_KEYS: Final = "UPDATE idempotency SET created_us = created_us + ?"
_PUT_KEY: Final = (
    "INSERT OR REPLACE INTO idempotency (scope, key, digest, created_us, receipt) "
    "VALUES (?, ?, ?, ?, ?)"
)
_DROP_OLDEST: Final = (
    "DELETE FROM idempotency WHERE (scope, key) IN (SELECT scope, key FROM idempotency "
    "WHERE created_us < ? ORDER BY created_us LIMIT ?)"
)
_OLDEST_BLOCKS: Final = (
    "SELECT id, count, timestamp, length(data) + ifnull(length(keys), 0) FROM telemetry_buffer "
    "WHERE id <= ? ORDER BY id LIMIT ?"
)
_OVERLAP: Final = (
    "SELECT id FROM (SELECT id, lag(id + count) OVER (ORDER BY id) AS free_from "
    "FROM telemetry_buffer) WHERE id < free_from LIMIT 1"
)
_PURGE_STEP: Final = 256
_TRIM_STEP: Final = 500
_SET_ASIDE_MAX: Final = 64
_NO_TIME: Final = 2**62
_SOUND_FOR_S: Final = 3600.0
_CLOCK_STEP_US: Final = 60_000_000

_NO_REPEATS: Final[Mapping[str, int]] = {}

_encoder = msgspec.msgpack.Encoder()
_receipts = msgspec.msgpack.Decoder(Receipt)


class Request(Protocol):
    """A request as the store sees it."""

    @property
    def intake(self) -> Intake:
        """The rows."""
        ...

    @property
    def key(self) -> IdempotencyKey | None:
        """The retry marker."""
        ...

    @property
    def owner(self) -> Owner | None:
        """Whose rows they are."""
        ...


@dataclass(frozen=True, slots=True)
class Committed:
    """What a transaction did: one outcome per request, in order."""

    outcomes: list[Receipt | OceanError]
    rows: int
    block_bytes: int
    keys_evicted: int


class JournalStore:
    """The open journal."""

    def __init__(
        self, db: apsw.Connection, files: JournalFiles, settings: JournalSettings, epoch: str
    ) -> None:
        self.db = db
        self.epoch = epoch
        self.next_id = 1
        self.trimmed = 0
        self.missing: list[IdRange] = []
        self.wal_pages = 0
        self.usage = UsageTable(db)
        self.groups = GroupTable(db)
        self.duplicates = DuplicatesTable(db)
        self._files = files
        self._paths = str(files.main), str(files.wal)
        self._settings = settings
        self._high_water = 0
        self._identity = (identity_of(files.main), identity_of(files.wal))
        self._keys = int(db.execute("SELECT count(*) FROM idempotency").get)
        self._purged_at = float("-inf")
        self._sound_at = float("-inf")
        # Where the wall clock and the steady one stood together, to notice a clock that is set.
        self._clock_offset_us = self._offset_us()
        newest = db.execute(_NEWEST_ARRIVAL).get
        self.newest_arrival_us = newest if isinstance(newest, int) else 0
        db.set_wal_hook(self._on_wal)

    def _on_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def _offset_us(self) -> int:
        clock = self._settings.clock
        return clock.now_us() - round(clock.monotonic() * 1e6)

    @property
    def head_id(self) -> int:
        """Id of the last durable reading."""
        return self.next_id - 1

    # --- requests ---

    def commit(
        self, requests: Sequence[Request], repeats: Mapping[str, int] = _NO_REPEATS
    ) -> Committed:
        """Make a group durable, its duplicates and those of ``repeats`` counted.

        Raises apsw.Error or OceanError; nothing is acknowledged then.
        """
        settings = self._settings
        now_us = settings.clock.now_us()
        plan = GroupPlan(self.next_id, now_us, settings.random_bytes)
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        offset_us = self._follow_clock()
        counted: Repeats = dict(repeats)
        outcomes, placed = self._place(requests, plan, counted)
        plan.seal()
        new_keys: list[KeyRow] = []
        for i, placement in placed.items():
            request = requests[i]
            receipt = placement.receipt(request.intake, now_us)
            outcomes[i] = receipt
            if request.owner is not None:
                placement.count(request.owner, request.intake.rows)
            key = request.key
            if key is not None:
                sealed = sealed_receipt(key.scope, key.key, key.digest, _encoder.encode(receipt))
                row = KeyRow(key.scope, key.key, key.digest, now_us, sealed)
                placement.keep(row)
                new_keys.append(row)
        rows = plan.rows()
        db.executemany(ADD_BLOCK, map(msgspec.structs.astuple, rows))
        if new_keys:
            db.executemany(_PUT_KEY, map(msgspec.structs.astuple, new_keys))
        grown = self.usage.write(plan.growth())
        repeated = self.duplicates.write(counted, now_us)
        keys = self._keys + len(new_keys)
        evicted, purged = self._drop_keys(keys, now_us) if new_keys else (0, 0)
        settings.faults.hit("journal.before_commit")
        db.execute("COMMIT")
        self._require_in_place()
        settings.faults.hit("journal.after_commit")
        self._clock_offset_us = offset_us
        self.usage.publish(grown)
        self.duplicates.publish(repeated)
        added = plan.next_id - self.next_id
        if added:
            self.newest_arrival_us = max(self.newest_arrival_us, now_us)
        self.next_id = plan.next_id
        self._keys = keys - evicted - purged
        done = [_outcome(outcome, outcomes) for outcome in outcomes]
        return Committed(done, added, sum(len(row.data) for row in rows), evicted)

    def _follow_clock(self) -> int:
        """Redate the keys when the wall clock was set, so that they keep their true age.

        A box without a battery-backed clock starts years behind; the time server's correction
        must not make keys of a minute ago look old. Returns the offset to remember.
        """
        offset_us = self._offset_us()
        step_us = offset_us - self._clock_offset_us
        if abs(step_us) <= _CLOCK_STEP_US:
            # Slow drift is not a step, however far it goes in the end.
            return offset_us
        self.db.execute(_REDATE_KEYS, (step_us,))
        return offset_us

    def _place(
        self, requests: Sequence[Request], plan: GroupPlan, repeats: Repeats
    ) -> tuple[list[Receipt | OceanError | int | None], dict[int, Placement]]:
        """Sort out repeats, adding their rows to ``repeats``; put the rest into the plan.

        An outcome that is a number names the request of this group whose receipt it shares.
        """
        outcomes: list[Receipt | OceanError | int | None] = [None] * len(requests)
        placed: dict[int, Placement] = {}
        first_use: dict[tuple[str, str], tuple[int, bytes]] = {}
        for i, request in enumerate(requests):
            key = request.key
            if key is not None:
                name = key.scope, key.key
                earlier = first_use.get(name)
                if earlier is not None and earlier[1] == key.digest:
                    outcomes[i] = earlier[0]
                    add_repeats(repeats, request.intake.rows_by_sensor())
                    continue
                if earlier is not None:
                    outcomes[i] = _mismatch(key)
                    continue
                try:
                    outcomes[i] = self.lookup(key, redated=True)
                except IdempotencyMismatchError as error:
                    outcomes[i] = error
                    continue
                if outcomes[i] is not None:
                    add_repeats(repeats, request.intake.rows_by_sensor())
                    continue
                first_use[name] = i, key.digest
            placed[i] = plan.add(request.intake)
        return outcomes, placed

    def lookup(self, key: IdempotencyKey, *, redated: bool = False) -> Receipt | None:
        """Return the receipt kept for a key. Raises IdempotencyMismatchError.

        Without ``redated`` the clock may have been set since the last commit.
        """
        oldest_us = self._settings.clock.now_us() - self._settings.idempotency_kept_s * 1_000_000
        if not redated:
            step_us = self._offset_us() - self._clock_offset_us
            oldest_us -= step_us if abs(step_us) > _CLOCK_STEP_US else 0
        return find_receipt(self.db, key, oldest_us)

    def _drop_keys(self, keys: int, now_us: int) -> tuple[int, int]:
        """Forget keys beyond the bound, and now and then those that are old enough."""
        settings = self._settings
        evicted = purged = 0
        excess = keys - settings.idempotency_keys_max
        if excess > 0:
            self.db.execute(_DROP_OLDEST, (_NO_TIME, excess))
            evicted = self.db.changes()
        if settings.clock.monotonic() - self._purged_at >= settings.tuning.purge_every_s:
            oldest_us = now_us - settings.idempotency_kept_s * 1_000_000
            self.db.execute(_DROP_OLDEST, (oldest_us, _PURGE_STEP))
            purged = self.db.changes()
            # A full step means that more are waiting: go on with the next group.
            if purged < _PURGE_STEP:
                self._purged_at = settings.clock.monotonic()
        return evicted, purged

    def _require_in_place(self) -> None:
        """Make sure that what was just synced is what the next start will find."""
        main, wal = self._paths
        found = identity_of(main), identity_of(wal)
        if self._identity[1] is None:
            self._identity = self._identity[0], found[1]
        if found != self._identity:
            raise StoreIOError("the journal's files were removed or replaced while in use")

    # --- upkeep ---

    def checkpoint(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> bool:
        """Copy the WAL into the file; False if a reader was in the way. Raises apsw.Error."""
        self._note_high_water()
        self._settings.faults.hit("journal.before_checkpoint")
        try:
            total, copied = self.db.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return False
        self._settings.faults.hit("journal.after_checkpoint")
        if total == copied:
            self.wal_pages = 0
        return total == copied

    def _note_high_water(self) -> None:
        # Once per checkpoint: from then on the loss of the newest blocks cannot go unnoticed.
        if self._high_water != self.head_id:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute(SET_META, meta_row("high_water", self.head_id))
            self.db.execute("COMMIT")
            self._high_water = self.head_id

    def probe(self) -> None:
        """Commit something small, to know that commits work. Raises apsw.Error."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(SET_META, meta_row("high_water", self.head_id))
        self.db.execute("COMMIT")
        self._require_in_place()
        self._high_water = self.head_id

    # --- consumer groups ---

    def acknowledge(self, requests: Sequence[MarkRequest]) -> list[Acknowledged | OceanError]:
        """Mark ids as read, durably; return an outcome for each request. Raises apsw.Error."""
        self.db.execute("BEGIN IMMEDIATE")
        outcomes, changes = self.groups.acknowledge(
            requests, self.trimmed, self._gone(), self._settings.clock.now_us()
        )
        self._commit_marks(changes)
        return outcomes

    def forget_group(self, name: str) -> None:
        """Delete a group, durably. Raises UnknownRecordError or apsw.Error."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            changes = self.groups.forget(name)
        except OceanError:
            self.db.execute("ROLLBACK")
            raise
        self._commit_marks(changes)

    def _commit_marks(self, changes: Changes) -> None:
        if changes:
            self._settings.faults.hit("journal.before_commit")
        self.db.execute("COMMIT")
        if changes:
            self._require_in_place()
            self._settings.faults.hit("journal.after_commit")
            self.groups.publish(changes)

    def reload_tallies(self) -> None:
        """Read usage, groups and duplicates again after others wrote their tables."""
        self.usage = UsageTable(self.db)
        self.duplicates = DuplicatesTable(self.db)
        self.groups = GroupTable(self.db)

    def _gone(self) -> IdRanges:
        return IdRanges.of_ranges(self.missing)

    def trim(self, up_to_id: int) -> bool:
        """Delete some whole blocks up to an id; False while there are more. Raises apsw.Error.

        Stops at a block that is still held back.
        """
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        rows: list[tuple[Any, ...]] = db.execute(_OLDEST_BLOCKS, (up_to_id, _TRIM_STEP)).fetchall()
        blocks = [
            Candidate(first, first + count_of(count) - 1, arrival, size)
            for first, count, arrival, size in rows
        ]
        blocks = [block for block in blocks if block.last_id <= up_to_id]
        found = deletable(blocks, self._held_from(), self._settings, db)
        free = found.blocks
        lost: dict[str, int] = {}
        changes: Changes = {}
        if free:
            self._settings.faults.hit("journal.before_trim")
            last = free[-1].last_id
            db.execute("DELETE FROM telemetry_buffer WHERE id <= ?", (last,))
            db.execute(SET_META, meta_row("trimmed", last))
            db.execute(SET_META, meta_row("high_water", self.head_id))
            lost, changes = self.groups.evict(last, self._gone())
            self.trimmed = last
            self._high_water = self.head_id
        db.execute("COMMIT")
        if free:
            self._settings.faults.hit("journal.after_trim")
        self.groups.publish(changes)
        for name, count in lost.items():
            self._settings.log.warning("buffer.group_evicted", group=name, readings=count)
        if found.notes_evicted:
            self._settings.metrics.add("ocean_buffer_frames_evicted_total", found.notes_evicted)
            self._settings.log.warning("buffer.frames_evicted", frames=found.notes_evicted)
        return len(free) < _TRIM_STEP

    def _held_from(self) -> int | None:
        """Return the first id that a group still waits for; None without groups."""
        marks = self.groups.marks.values()
        gone = self._gone()
        return min((item.evict(0, gone)[0].cursor + 1 for item in marks), default=None)

    # --- damage ---

    def record_damage(self, ranges: Sequence[IdRange], reason: str) -> list[IdRange]:
        """Take unreadable blocks out of the way and note their ids; return what is newly missing.

        Each block is read again here first: only what is damaged for the writer too is given up.
        Raises apsw.Error.
        """
        db = self.db
        now_us = self._settings.clock.now_us()
        lost: list[IdRange] = []
        db.execute("BEGIN IMMEDIATE")
        for item in ranges:
            # A row whose id is damaged may seem to lie within the block before it.
            before = db.execute("SELECT max(id) FROM telemetry_buffer WHERE id < ?", (item.first,))
            held = self.repair_row(before.get or 0)
            whole = [] if held is None else [held]
            for first, data in self._blocks_over(item):
                held = self.repair_row(first)
                if held is not None:
                    whole.append(held)
                else:
                    db.execute("DELETE FROM telemetry_buffer WHERE id = ?", (first,))
                    kept = "INSERT OR REPLACE INTO set_aside (id, found_us, data) VALUES (?, ?, ?)"
                    db.execute(kept, (first, now_us, data if isinstance(data, bytes) else b""))
            within = IdRange(max(item.first, self.trimmed + 1), min(item.last, self.head_id))
            lost += subtract([within], [*whole, *self.missing, *lost])
        for item in lost:
            db.execute(INSERT_MISSING, missing_row(item, now_us, reason))
        db.execute(
            "DELETE FROM set_aside WHERE id NOT IN "
            "(SELECT id FROM set_aside ORDER BY found_us DESC LIMIT ?)",
            (_SET_ASIDE_MAX,),
        )
        db.execute("COMMIT")
        self.missing = sorted([*self.missing, *lost], key=lambda item: item.first)
        return lost

    def _blocks_over(self, item: IdRange) -> list[tuple[int, object]]:
        before = self.db.execute(
            "SELECT max(id) FROM telemetry_buffer WHERE id <= ?", (item.first,)
        )
        start = before.get or item.first
        rows = self.db.execute(
            "SELECT id, count, data FROM telemetry_buffer WHERE id BETWEEN ? AND ?",
            (start, item.last),
        )
        return [
            (first, data)
            for first, count, data in rows
            if first >= item.first or first + count_of(count) > item.first
        ]

    def repair_row(self, first_id: int) -> IdRange | None:
        """Return the ids of the block in a row; None if it is damaged.

        The block knows best: where id or count of the row differ, the row is put right.
        """
        row: tuple[Any, ...] | None = self.db.execute(
            "SELECT count, data, keys FROM telemetry_buffer WHERE id = ?", (first_id,)
        ).fetchone()
        if row is None:
            return None
        count, data, keys = row
        block = whole_block(data)
        if block is None:
            return None
        if (block.first_id, block.count) != (first_id, count):
            fitting = isinstance(keys, bytes) and keys_fit(block.uuid, keys)
            right = row_of(block, data, keys if fitting else None)
            self.db.execute("DELETE FROM telemetry_buffer WHERE id = ?", (first_id,))
            self.db.execute(PUT_BLOCK_BACK, msgspec.structs.astuple(right))
        return IdRange(block.first_id, block.last_id)

    def require_sound(self) -> None:
        """Read the whole file. Raises StoreCorruptError or apsw.Error if it cannot be trusted."""
        # It holds up the requests that wait, so what was sound a while ago is not read again.
        now = self._settings.clock.monotonic()
        if now - self._sound_at < _SOUND_FOR_S:
            return
        # The file is in question, not what this connection remembers of it.
        self.db.execute("PRAGMA shrink_memory")
        # Connection.pragma takes no arguments in brackets: it would always answer None.
        answer = self.db.execute("PRAGMA quick_check(1)").get
        if answer != "ok":
            raise StoreCorruptError(f"journal: {answer}")
        overlap = self.db.execute(_OVERLAP).get
        if overlap is not None:
            # To SQLite one order of ids is as good as another; readers cannot get past this one.
            raise StoreCorruptError(f"journal: the block at id {overlap} lies within another")
        self._sound_at = now

    def close(self) -> None:
        """Let go of the file without any further write."""
        self.db.set_wal_hook(None)
        self.db.close(force=True)


def is_whole(first_id: int, count: int, data: object) -> bool:
    """Whether a row holds the undamaged block that its columns claim."""
    block = whole_block(data)
    return block is not None and (block.first_id, block.count) == (first_id, count)


def find_receipt(db: apsw.Connection, key: IdempotencyKey, after_us: int) -> Receipt | None:
    """Return the receipt kept for a key since ``after_us``, as a duplicate.

    Raises IdempotencyMismatchError.
    """
    found = db.execute(_FIND_KEY, (key.scope, key.key, after_us)).fetchone()
    if found is None:
        return None
    digest, sealed = found
    receipt = opened_receipt(key.scope, key.key, digest, sealed)
    if receipt is None:
        raise StoreCorruptError("journal: a kept receipt is damaged")
    if digest != key.digest:
        raise _mismatch(key)
    return _repeated(_receipts.decode(receipt))


def _repeated(receipt: Receipt) -> Receipt:
    return msgspec.structs.replace(receipt, duplicate=True)


def _mismatch(key: IdempotencyKey) -> IdempotencyMismatchError:
    return IdempotencyMismatchError(f"the key {key.key!r} came before with another body")


def _outcome(
    outcome: Receipt | OceanError | int | None,
    outcomes: Sequence[Receipt | OceanError | int | None],
) -> Receipt | OceanError:
    if isinstance(outcome, int):
        shared = outcomes[outcome]
        assert isinstance(shared, Receipt)
        return _repeated(shared)
    assert outcome is not None
    return outcome
