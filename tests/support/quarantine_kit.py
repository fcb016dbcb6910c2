"""A quarantine over a real store, with a scripted taker of frames and a clock that stands still."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ocean_core.model.access import LOCAL, Origin, Principal
from ocean_core.model.errors import OceanError
from ocean_core.model.naming import NameRule, Names
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.frames.quarantine import Quarantine
from ocean_core.service.frames.quarantine_answers import ForgetOrder, RetryOrder
from ocean_core.service.frames.terms import FrameResult, RefusedFrame, Source
from ocean_core.storage.operational import OperationalStore, loss_ledger, quarantine
from ocean_core.storage.operational.audit import AuditRow
from ocean_core.storage.operational.audit import page as audit_page
from ocean_core.storage.operational.quarantine import QuarantineRow
from support.operational_kit import opened, settings_for

HERE = Origin(LOCAL, "127.0.0.1")
MARKERS_KEPT_S = 86_400


def frame_of(number: int, *, time_s: int = 1_780_000_000, level: int = 1) -> bytes:
    """Return bytes that look like a frame; its check value is of nothing."""
    payload = b"%06d" % number
    header = bytes([0xC1, 0x53, 1, 0x10, 1, level]) + len(payload).to_bytes(2, "big")
    header += time_s.to_bytes(4, "big") + bytes(2)
    size = 2 if level == 0 else 16
    return header + payload + hashlib.sha256(b"%d" % number).digest()[:size]


class Taker:
    """Does what the test says; what it stores it knows by its marker, as the journal would."""

    def __init__(self) -> None:
        self.result: FrameResult | OceanError = FrameResult("stored", sensor_id="s", rows=1)
        self.asked: list[tuple[bytes, Source, Principal, str, int | None]] = []
        self.stored: dict[str, bytes] = {}

    async def take(
        self,
        frames: Sequence[bytes],
        source: Source,
        principal: Principal = LOCAL,
        *,
        given: str = "",
        arrival_us: int | None = None,
        marker: str = "",
    ) -> list[FrameResult]:
        (frame,) = frames
        assert marker == hashlib.sha256(frame).hexdigest()
        self.asked.append((frame, source, principal, given, arrival_us))
        if marker in self.stored:
            return [FrameResult("duplicate")]
        if isinstance(self.result, OceanError):
            raise self.result
        if self.result.is_good:
            self.stored[marker] = frame
        return [self.result]

    async def take_stream(
        self, body: bytes, source: Source, principal: Principal = LOCAL
    ) -> list[FrameResult]:
        raise NotImplementedError


class FixedNames:
    """Rules about names, as the test gives them."""

    def __init__(self) -> None:
        self.rules: list[NameRule] = []

    @asynccontextmanager
    async def steady_names(self) -> AsyncIterator[Names]:
        yield Names(self.rules)


class Lab:
    """The quarantine and what it works with."""

    def __init__(self, store: OperationalStore, clock: ManualClock, frames_max: int) -> None:
        self.store = store
        self.clock = clock
        self.metrics = MetricsRegistry(METRICS)
        self.alarms = AlarmBook(clock, settings_for(Path()).log, self.metrics)
        self.names = FixedNames()
        self.taker = Taker()
        self.newest_us = 0
        self.frames_max = frames_max
        self.quarantine = self.make()

    def make(self) -> Quarantine:
        """Return a quarantine as a new process would have it."""
        made = Quarantine(
            self.store, self.clock, self.metrics, self.alarms, self.names,
            frames_max=self.frames_max, newest_arrival_us=lambda: self.newest_us,
            markers_kept_s=MARKERS_KEPT_S,
        )  # fmt: skip
        made.taker = self.taker
        made.counted_as = lambda sensor_id: sensor_id if sensor_id.startswith("known") else ""
        return made

    def refused(self, frame: bytes, outcome: str = "E_KEY", **more: Any) -> RefusedFrame:
        fields: dict[str, Any] = {
            "source": Source("tcp", "127.0.0.1:40122"),
            "arrival_us": self.clock.now_us(),
            "steady_s": self.clock.since_boot(),
            "detail": "why",
            "model_id": 0x10,
            **more,
        }
        return RefusedFrame(frame=frame, outcome=outcome, **fields)

    async def keep(self, frame: bytes, outcome: str = "E_KEY", **more: Any) -> None:
        """Refuse a frame and wait until that is durable."""
        self.quarantine.keep(self.refused(frame, outcome, **more))
        await self.quarantine.settle()

    async def rows(self) -> list[QuarantineRow]:
        """Return all rows, the oldest first."""
        found, more = await self.store.read(
            lambda db: quarantine.page(db, None, None, limit=100_000)
        )
        assert not more
        return found[::-1]

    async def ledger(self) -> dict[tuple[str, str], int]:
        rows, _ = await self.store.read(lambda db: loss_ledger.page(db, ("", ""), 1000))
        return {(row.sensor_id, row.loss_class): row.lost for row in rows}

    async def audit(self) -> list[AuditRow]:
        return (await self.store.read(lambda db: audit_page(db, None, None, 1000)))[0]

    async def retry(self, **order: Any) -> Any:
        return await self.quarantine.retry(RetryOrder(**order), HERE)

    async def forget(self, **order: Any) -> Any:
        return await self.quarantine.forget_some(ForgetOrder(**order), HERE)

    async def check_books(self) -> None:
        """What came in is here, or left in a way that was counted."""
        totals: dict[str, int] = {}
        for (_, loss_class), count in (await self.ledger()).items():
            totals[loss_class] = totals.get(loss_class, 0) + count
        came = totals.pop(quarantine.QUARANTINED, 0)
        assert came == sum(totals.values()) + sum(row.seen for row in await self.rows())


@asynccontextmanager
async def lab(directory: Path, frames_max: int = 1_000, **changes: Any) -> AsyncIterator[Lab]:
    settings = settings_for(directory, **changes)
    assert isinstance(settings.clock, ManualClock)
    async with opened(settings) as store:
        made = Lab(store, settings.clock, frames_max)
        yield made
        await made.quarantine.close()
