"""What the service of frames works with, and how it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ocean_core.buffer.port import BufferState
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.nanogridata.replay import FrameMemory
from ocean_core.service.frames.facts import SensorFacts
from ocean_core.service.frames.gaps import GapBook
from ocean_core.service.frames.keyring import SecretStore
from ocean_core.service.frames.models import Models
from ocean_core.service.frames.terms import QuarantineSink
from ocean_core.service.ledger import RefusalBook
from ocean_core.service.policy import IngestPolicy
from ocean_core.service.series_quota import SeriesQuota


class FrameBuffer(Protocol):
    """What frames need of the buffer."""

    @property
    def state(self) -> BufferState:
        """Whether rows can be taken."""
        ...

    @property
    def newest_arrival_us(self) -> int:
        """When the newest stored rows came."""
        ...

    async def append(
        self,
        intake: Intake,
        idempotency: IdempotencyKey | None = None,
        owner: Owner | None = None,
    ) -> Receipt:
        """Make rows durable; see ``IngestBuffer.append``."""
        ...

    async def lookup(
        self, idempotency: IdempotencyKey, repeated: Mapping[str, int] | None = None
    ) -> Receipt | None:
        """Return the receipt kept for a key; see ``IngestBuffer.lookup``."""
        ...

    async def count_repeats(self, repeated: Mapping[str, int]) -> None:
        """Count rows that came again, durably."""
        ...

    async def kept_frames(self, since_us: int, frames_max: int) -> list[bytes]:
        """Return the notes of frames stored since then, the newest first."""
        ...


@dataclass(frozen=True, kw_only=True)
class FrameParts:
    """What the service works with."""

    buffer: FrameBuffer
    clock: Clock
    metrics: MetricsRegistry
    log: EventLog
    models: Models
    keys: SecretStore
    memory: FrameMemory
    quota: SeriesQuota
    policy: IngestPolicy
    quarantine: QuarantineSink
    refusals: RefusalBook
    facts: SensorFacts
    gaps: GapBook

    def count(self, transport: str, model_id: int | None, outcome: str, count: int) -> None:
        """Count frames by what became of them."""
        if model_id is None:
            model = "none"
        else:
            # Whoever sends unsigned frames of every number must not make as many figures.
            model = f"0x{model_id:02x}" if self.models.is_known(model_id) else "other"
        self.metrics.add("ocean_nanogridata_frames_total", count, transport, model, outcome)

    def count_models(self, transport: str, models: npt.NDArray[np.uint8], outcome: str) -> None:
        """Count frames of several models."""
        for model_id, count in enumerate(np.bincount(models).tolist()):
            if count:
                self.count(transport, model_id, outcome, count)
