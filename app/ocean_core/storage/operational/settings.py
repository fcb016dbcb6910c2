"""What the operational store is given when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ocean_core.model import limits
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry

Durability = Literal["fsync", "os"]


@dataclass(frozen=True, slots=True)
class OperationalTuning:
    """Times in seconds, sizes in pages of 4 KiB or commands. Tests shorten them."""

    retry_delays_s: tuple[float, ...] = (1.0, 2.0, 5.0)
    checkpoint_idle_s: float = 5.0
    checkpoint_retry_s: float = 1.0
    wal_pages_max: int = 1_000
    queue_max: int = limits.OPERATIONAL_QUEUE_MAX
    group_max: int = 2_000
    busy_timeout_ms: int = 250


@dataclass(frozen=True, slots=True)
class OperationalSettings:
    """Everything the store needs.

    ``was_clean``: whether the run before ended as it should; if not, the whole file is checked.
    ``vfs`` and ``exclusive`` (no second connection, so no ``read``) are for tests with a file layer
    of their own.
    """

    path: Path
    clock: Clock
    random_bytes: Callable[[int], bytes]
    log: EventLog
    metrics: MetricsRegistry
    faults: Faults = NO_FAULTS
    durability: Durability = "fsync"
    was_clean: bool = True
    vfs: str | None = None
    exclusive: bool = False
    tuning: OperationalTuning = OperationalTuning()

    @property
    def each_synced(self) -> bool:
        """Whether a commit is on the disk before it is acknowledged."""
        return self.durability == "fsync"
