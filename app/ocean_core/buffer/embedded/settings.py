"""What the journal is given when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ocean_core.buffer.mark import Mark
from ocean_core.model import limits
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry

Durability = Literal["fsync", "os"]


@dataclass(frozen=True, slots=True)
class JournalTuning:
    """Times in seconds, sizes in pages. Tests shorten them."""

    retry_delays_s: tuple[float, ...] = (1.0, 2.0, 5.0)
    checkpoint_idle_s: float = 5.0
    checkpoint_retry_s: float = 1.0
    wal_pages_max: int = limits.JOURNAL_WAL_PAGES_MAX
    queue_bytes_max: int = limits.JOURNAL_QUEUE_BYTES_MAX
    queue_requests_max: int = limits.JOURNAL_QUEUE_REQUESTS_MAX
    purge_every_s: float = 10.0
    busy_timeout_ms: int = 250


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Everything the writer needs. ``mark_path`` is the mover's mark, see ``buffer.mark``.

    ``frames_kept_s``: how long trimming leaves blocks with notes of frames, 0: not at all.
    ``archived`` tells which ids of which epoch are in the archive: nobody must miss them here.
    ``disk_bytes`` tells the size of the disk; None asks the system.
    """

    path: Path
    clock: Clock
    random_bytes: Callable[[int], bytes]
    log: EventLog
    metrics: MetricsRegistry
    faults: Faults = NO_FAULTS
    durability: Durability = "fsync"
    commit_delay_ms: int = 0
    idempotency_kept_s: int = limits.IDEMPOTENCY_KEPT_S
    idempotency_keys_max: int = limits.IDEMPOTENCY_KEYS_MAX
    frames_kept_s: int = 0
    mark_path: Path | None = None
    archived: Mark | None = None
    vfs: str | None = None
    exclusive: bool = False
    disk_bytes: Callable[[], int] | None = None
    tuning: JournalTuning = JournalTuning()
