"""The ingest service on a buffer in memory."""

import asyncio
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from ocean_core.buffer.port import BufferState
from ocean_core.config.settings import IngestSettings
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.errors import CreditsError, DiskFullError, IdempotencyMismatchError
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.ingest import IngestService
from ocean_core.service.ingest_body import PLAIN, Sent
from ocean_core.service.ledger import RefusalBook
from ocean_core.service.policy import IngestPolicy
from ocean_core.service.series_quota import SeriesQuota

NOW_US = 1_780_000_000_000_000


class MemoryBuffer:
    """An IngestBuffer that keeps intakes in a list."""

    def __init__(self) -> None:
        self.state = BufferState.READY
        self.head_id = 0
        self.newest_arrival_us = 0
        self.stored: list[Intake] = []
        self.owners: list[Owner | None] = []
        self.kept: dict[tuple[str, str], tuple[bytes, Receipt]] = {}
        self.broken = False
        self.repeated: list[Mapping[str, int] | None] = []

    async def append(
        self,
        intake: Intake,
        idempotency: IdempotencyKey | None = None,
        owner: Owner | None = None,
    ) -> Receipt:
        if idempotency is not None and (known := await self.lookup(idempotency)) is not None:
            return known
        if self.broken:
            raise DiskFullError("no space", retry_after_s=5)
        readings = len(intake.readings) if intake.readings is not None else 0
        rows = intake.readings or intake.events
        assert rows is not None
        receipt = Receipt(
            first_reading_id=self.head_id + 1 if readings else 0,
            first_event_id=self.head_id + readings + 1 if intake.events is not None else 0,
            arrival_us=NOW_US,
            items=intake.items,
            layout=intake.layout,
            rejects=intake.rejects,
            timestamp_us=int(rows.timestamp_us[0]),
            columnar=intake.columnar,
        )
        self.head_id += intake.rows
        self.newest_arrival_us = NOW_US
        self.stored.append(intake)
        self.owners.append(owner)
        if idempotency is not None:
            self.kept[idempotency.scope, idempotency.key] = (idempotency.digest, receipt)
        return receipt

    async def lookup(
        self, idempotency: IdempotencyKey, repeated: Mapping[str, int] | None = None
    ) -> Receipt | None:
        known = self.kept.get((idempotency.scope, idempotency.key))
        if known is None:
            return None
        if known[0] != idempotency.digest:
            raise IdempotencyMismatchError("another body")
        self.repeated.append(repeated)
        return msgspec.structs.replace(known[1], duplicate=True)


class Credits:
    """One account of ten readings."""

    enforced = True
    left = 10

    def reserve(self, user_id: str, readings: int) -> None:
        if readings > self.left:
            raise CreditsError(f"{user_id} has {self.left} left")

    def release(self, user_id: str, readings: int) -> None:
        pass


class IngestBench:
    def __init__(self, decoders: ThreadPoolExecutor, settings: IngestSettings) -> None:
        self.clock = ManualClock(NOW_US)
        self.metrics = MetricsRegistry(METRICS)
        self.alarms = AlarmBook(
            self.clock, EventLog(self.clock, stream=io.StringIO()), self.metrics
        )
        self.buffer = MemoryBuffer()
        self.quota = SeriesQuota(settings)
        self.credits = Credits()
        self.refusals = RefusalBook()
        self.service = IngestService(
            self.buffer,
            self.clock,
            self.metrics,
            self.alarms,
            self.quota,
            IngestPolicy(self.clock, self.credits),
            decoders,
            refusals=self.refusals,
        )

    def single(self, item: Any, key: str | None = None, principal: Principal = LOCAL) -> Any:
        body = json.dumps(item).encode()
        sent = Sent(idempotency_key=key)
        return json.loads(asyncio.run(self.service.ingest_single(body, sent, principal)))

    def batch(self, items: Any, key: str | None = None, *, partial: bool = False) -> Any:
        sent = Sent(idempotency_key=key)
        return self.send(json.dumps(items).encode(), sent, partial=partial)

    def send(
        self,
        body: bytes,
        sent: Sent = PLAIN,
        principal: Principal = LOCAL,
        *,
        partial: bool = False,
    ) -> Any:
        """Send a batch as it is."""
        store = self.service.ingest_partial if partial else self.service.ingest_batch
        return json.loads(asyncio.run(store(body, sent, principal)))
