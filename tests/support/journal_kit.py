"""Making journals, requests and audits for tests."""

from __future__ import annotations

import asyncio
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ocean_core.buffer.embedded import JournalReader, JournalTuning
from ocean_core.buffer.embedded.journal import JournalSettings
from ocean_core.model.block import Block, Events, Readings
from ocean_core.model.receipt import FRAME_NOTE_BYTES, IdempotencyKey, Intake
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry

START_US = 1_780_000_000_000_000
WAIT_S = 20.0


def settings_for(directory: Path, *, seed: int = 0, **changes: Any) -> JournalSettings:
    """Settings with a repeatable source of randomness and a log that goes nowhere."""
    clock = ManualClock(START_US)
    made = JournalSettings(
        path=directory / "journal.db",
        clock=clock,
        random_bytes=random.Random(seed).randbytes,
        log=EventLog(clock, stream=io.StringIO()),
        metrics=MetricsRegistry(METRICS),
        tuning=JournalTuning(retry_delays_s=(0.005,), checkpoint_idle_s=60.0),
    )
    return replace(made, **changes)


def log_text(settings: JournalSettings) -> str:
    stream = settings.log._stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def readings(tag: float, count: int = 1, *, sensors: int = 1, as_lists: bool = False) -> Readings:
    """Readings whose values tell them apart from all of another tag: tag + row / 2^20."""
    series = [(f"sensor-{int(tag)}-{i}", "value") for i in range(sensors)]
    rows = np.arange(count)
    columns = (
        (rows % sensors).astype(np.uint32),
        START_US + rows.astype(np.int64),
        tag + rows / 2**20,
        (rows % 3).astype(np.uint8),
    )
    if as_lists:
        index, timestamp, value, quality = (column.tolist() for column in columns)
        return Readings(series, index, timestamp, value, quality)
    return Readings(series, *columns)


def events(tag: int, count: int = 1, *, size: int = 20) -> Events:
    payload = [f'"{tag}-{i}-{"x" * size}"'.encode() for i in range(count)]
    return Events([(f"sensor-{tag}", "")], [0] * count, [START_US] * count, [0] * count, payload)


def intake_of(rows: Readings | Events) -> Intake:
    if isinstance(rows, Readings):
        return Intake(rows, None, len(rows))
    return Intake(None, rows, len(rows), layout=(0,) * len(rows))


def note_of(tag: int, place: int = 0) -> bytes:
    """The note of a frame, another for each tag and place."""
    return (1_780_000_000).to_bytes(4, "big") + f"{tag:010}{place:06}".encode()


def notes_in(frames: bytes) -> list[bytes]:
    return [frames[i : i + FRAME_NOTE_BYTES] for i in range(0, len(frames), FRAME_NOTE_BYTES)]


def key_of(name: str, digest: str = "") -> IdempotencyKey:
    return IdempotencyKey("tests", name, (digest or name).encode().ljust(32, b".")[:32])


def rows_of(block: Block) -> dict[int, tuple[object, ...]]:
    """Return every row of a block by its id."""
    rows = block.rows
    last: list[Any] = (
        [float(v) for v in rows.value] if isinstance(rows, Readings) else list(rows.payload)
    )
    return {
        block.first_id + i: (
            rows.series[int(rows.series_index[i])],
            int(rows.timestamp_us[i]),
            int(rows.quality[i]),
            last[i],
        )
        for i in range(block.count)
    }


def expected_rows(rows: Readings | Events, first_id: int) -> dict[int, tuple[object, ...]]:
    return rows_of(Block(first_id, 0, b"", rows))


def read_all(path: Path) -> list[Block]:
    """Read the whole journal as the mover would; damage is a failure."""
    reader = JournalReader(path)
    blocks: list[Block] = []
    position = 0
    try:
        while True:
            batch = reader.read_after(position, rows_max=50_000)
            assert batch.damaged == []
            blocks += batch.blocks
            if batch.next_after_id == position:
                return blocks
            position = batch.next_after_id
    finally:
        reader.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the writer thread does by itself; whoever calls this bounds the time."""
    while not condition():  # noqa: ASYNC110 - the thread knows no event of the loop
        await asyncio.sleep(0.001)


def copy_as_killed(source: Path, target: Path) -> Path:
    """Copy the files as kill -9 would leave them; returns the directory."""
    target.mkdir()
    for name in ("journal.db", "journal.db-wal", "analytics.mark"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    return target
