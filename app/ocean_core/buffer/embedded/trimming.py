"""What of the journal may be deleted although a consumer group has not read it yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.model.limits import (
    GROUP_HOLDS_DISK_SHARE_MAX,
    GROUP_HOLDS_S_MAX,
    TIMESTAMP_PLAUSIBLE_US_MIN,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block that could be deleted; ``arrival_us`` and ``size`` as the file has them."""

    last_id: int
    arrival_us: object
    size: object


def deletable(
    blocks: Iterable[Candidate],
    held_from: int | None,
    settings: JournalSettings,
    db: apsw.Connection,
) -> list[Candidate]:
    """Return the leading blocks that may go: read by all groups, or held for too long or too much.

    ``held_from`` is the first id that a group has not acknowledged. Raises apsw.Error, OSError.
    """
    free: list[Candidate] = []
    surplus: float | None = None
    for block in blocks:
        if held_from is not None and block.last_id >= held_from:
            if surplus is None:
                surplus = _surplus_bytes(settings, db) - sum(_size(item) for item in free)
            if surplus <= 0 and not _is_old(block, settings):
                break
            surplus -= _size(block)
        free.append(block)
    return free


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
