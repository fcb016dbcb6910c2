"""What of the journal may be deleted although somebody may still need it.

A consumer group needs what it has not read yet. Who takes frames needs their notes as long as a
repeat of one could come: without them it would be stored twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import apsw

from ocean_core.buffer.embedded.rows import frames_of
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.model.limits import (
    GROUP_HOLDS_DISK_SHARE_MAX,
    GROUP_HOLDS_S_MAX,
    TIMESTAMP_PLAUSIBLE_US_MIN,
)
from ocean_core.model.receipt import FRAME_NOTE_BYTES

_NOTES: Final = "SELECT uuid, keys FROM telemetry_buffer WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block that could be deleted; ``arrival_us`` and ``size`` as the file has them."""

    first_id: int
    last_id: int
    arrival_us: object
    size: object


@dataclass(frozen=True, slots=True)
class Deletable:
    """Leading blocks that may go, and how many notes of frames go before their time."""

    blocks: list[Candidate]
    notes_evicted: int


def deletable(
    blocks: Iterable[Candidate],
    held_from: int | None,
    settings: JournalSettings,
    db: apsw.Connection,
) -> Deletable:
    """Return the leading blocks that nobody needs, or that are held for too long or too much.

    ``held_from`` is the first id that a group has not acknowledged. Raises apsw.Error, OSError.
    """
    free: list[Candidate] = []
    surplus: float | None = None
    evicted = 0
    for block in blocks:
        waits = held_from is not None and block.last_id >= held_from
        notes = _notes_held(block, settings, db)
        if notes or (waits and not _is_old(block, settings)):
            if surplus is None:
                surplus = _surplus_bytes(settings, db) - sum(_size(item) for item in free)
            if surplus <= 0:
                break
            evicted += notes
        if surplus is not None:
            surplus -= _size(block)
        free.append(block)
    return Deletable(free, evicted)


def _notes_held(block: Candidate, settings: JournalSettings, db: apsw.Connection) -> int:
    """Return how many notes of frames that are still needed stand beside a block."""
    arrival_us = block.arrival_us
    if not settings.frames_kept_s or not isinstance(arrival_us, int):
        return 0
    # Also of what came while the clock was ahead: frames are judged by the same clock.
    if abs(settings.clock.now_us() - arrival_us) > settings.frames_kept_s * 1_000_000:
        return 0
    rows: list[tuple[Any, ...]] = db.execute(_NOTES, (block.first_id,)).fetchall()
    return sum(len(frames_of(uuid, keys)) for uuid, keys in rows) // FRAME_NOTE_BYTES


def _surplus_bytes(settings: JournalSettings, db: apsw.Connection) -> float:
    """Return by how much the journal is larger than groups may make it.

    Free pages do not count: the file keeps them for what comes next.
    """
    used = (db.pragma("page_count") - db.pragma("freelist_count")) * db.pragma("page_size")
    if settings.disk_bytes is not None:
        disk = settings.disk_bytes()
    else:
        disk = shutil.disk_usage(settings.path.parent).total
    return float(used - GROUP_HOLDS_DISK_SHARE_MAX * disk)


def _is_old(block: Candidate, settings: JournalSettings) -> bool:
    arrival_us = block.arrival_us
    # What came before the clock of a box without a battery was set has no known age.
    if not isinstance(arrival_us, int) or arrival_us < TIMESTAMP_PLAUSIBLE_US_MIN:
        return False
    return settings.clock.now_us() - arrival_us > GROUP_HOLDS_S_MAX * 1_000_000


def _size(block: Candidate) -> int:
    return block.size if isinstance(block.size, int) else 0
