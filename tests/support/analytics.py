"""Stand-ins for the journal around the analytics store, and rows to fill it with."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocean_core.buffer.port import BlockBatch, IdRange
from ocean_core.model.block import Block, Events, Readings, SeriesName
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import Clock, ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover
from ocean_core.storage.analytics import AnalyticsStore

EPOCH = "00000000-0000-0000-0000-000000000001"
START_US = 1_780_000_000_000_000 // 3_600_000_000 * 3_600_000_000

Row = tuple[SeriesName, int, float, int]
"""Series, timestamp in microseconds, value, quality."""


def quiet_log(clock: Clock) -> EventLog:
    return EventLog(clock, stream=io.StringIO())


def readings_block(first_id: int, rows: Sequence[Row]) -> Block:
    names = list(dict.fromkeys(row[0] for row in rows))
    return Block(
        first_id,
        0,
        bytes(16),
        Readings(
            names,
            np.array([names.index(row[0]) for row in rows], dtype=np.uint32),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=np.float64),
            np.array([row[3] for row in rows], dtype=np.uint8),
        ),
    )


def plain_rows(count: int, *, series: int = 3, start_us: int = START_US) -> list[Row]:
    """Rows one second apart, series in turn, values that tell their position."""
    return [
        ((f"sensor-{k % series}", "value"), start_us + k * 1_000_000, float(k), 0)
        for k in range(count)
    ]


def events_block(first_id: int, sensor_id: str, payloads: Sequence[bytes]) -> Block:
    count = len(payloads)
    stamps = [START_US + k for k in range(count)]
    return Block(
        first_id,
        0,
        bytes(16),
        Events([(sensor_id, "")], [0] * count, stamps, [0] * count, payloads),
    )


class FakeSource:
    """A journal in memory."""

    def __init__(self, blocks: Sequence[Block] = (), epoch: str = EPOCH) -> None:
        self.epoch = epoch
        self.blocks = list(blocks)
        self.damaged: list[IdRange] = []
        self.error: Exception | None = None
        self.reads = 0

    def add_rows(self, rows: Sequence[Row]) -> None:
        self.blocks.append(readings_block(self.last_id() + 1, rows))

    def add_events(self, sensor_id: str, payloads: Sequence[bytes]) -> None:
        self.blocks.append(events_block(self.last_id() + 1, sensor_id, payloads))

    def last_id(self) -> int:
        if self.error is not None:
            raise self.error
        ends = [block.last_id for block in self.blocks] + [lost.last for lost in self.damaged]
        return max(ends, default=0)

    def first_id(self) -> int:
        return self.blocks[0].first_id if self.blocks else 0

    def read_after(self, after_id: int, *, rows_max: int) -> BlockBatch:
        self.reads += 1
        if self.error is not None:
            raise self.error
        chosen: list[Block] = []
        for block in self.blocks:
            if block.first_id <= after_id:
                continue
            if chosen and sum(b.count for b in chosen) + block.count > rows_max:
                break
            chosen.append(block)
        end = max((block.last_id for block in chosen), default=after_id)
        damaged = [lost for lost in self.damaged if lost.first > after_id]
        end = max([end, *(lost.last for lost in damaged)])
        return BlockBatch(chosen, end, damaged)

    def close(self) -> None:
        return


def make_store(folder: Path, clock: Clock | None = None, **more: Any) -> AnalyticsStore:
    clock = clock or ManualClock()
    settings = {"memory_limit_mb": 256, "threads": 1, "clock": clock, "log": quiet_log(clock)}
    return AnalyticsStore(folder / "analytics.duckdb", **{**settings, **more})


def make_mover(
    source: FakeSource, store: AnalyticsStore, window: LiveWindow | None = None, **more: Any
) -> Mover:
    clock = more.pop("clock", None) or ManualClock()
    return Mover(
        source,
        store,
        window or LiveWindow(),
        more.pop("mark_writer", lambda epoch, last_id: None),
        clock=clock,
        log=quiet_log(clock),
        metrics=more.pop("metrics", None) or MetricsRegistry(METRICS),
        **more,
    )


def drain_all(mover: Mover, source: FakeSource) -> None:
    """Do in this thread what the mover's would."""
    mover.prepare()
    for _ in range(1000):
        if mover.progress().watermark >= source.last_id():
            return
        mover.drain_once()
    raise AssertionError("the mover does not come to an end")
