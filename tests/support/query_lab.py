"""A small analytics store with its live window, filled directly, and asked both ways."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocean_core.model.block import Block, Events, Readings
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.pipeline.gather import SeriesBook, gather
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries.engine import QueryEngine
from ocean_core.storage.analytics.store import AnalyticsStore

EPOCH = "lab"
DAY_US = 86_400_000_000
T0 = 1_700_006_400_000_000  # 2023-11-15T00:00:00Z


class QueryLab:
    """Readings go through the same steps as in the mover; the clock stands still."""

    def __init__(self, folder: Path, *, ring_rows: int = 1_024, timeout_s: float = 30) -> None:
        self.clock = ManualClock()
        self.log = io.StringIO()
        self.store = AnalyticsStore(
            folder / "analytics.duckdb",
            memory_limit_mb=512,
            threads=2,
            clock=self.clock,
            log=EventLog(self.clock, stream=self.log),
        )
        self.store.open(EPOCH, journal_empty=True)
        self.window = LiveWindow(ring_rows=ring_rows)
        self.book = SeriesBook([])
        self.next_id = 1
        self.engine = QueryEngine(self.store, self.window, self.clock, timeout_s)
        self.file_engine = QueryEngine(self.store, None, self.clock, timeout_s)

    def add(
        self,
        sensor_id: str,
        ts_us: Sequence[int] | np.ndarray[Any, Any],
        values: Sequence[float] | np.ndarray[Any, Any],
        *,
        metric: str = "value",
        quality: int = 0,
    ) -> None:
        """Store readings of one series as one transaction."""
        size = len(ts_us)
        self._move(
            Readings(
                series=[(sensor_id, metric)],
                series_index=np.zeros(size, dtype=np.uint32),
                timestamp_us=np.asarray(ts_us, dtype=np.int64),
                value=np.asarray(values, dtype=np.float64),
                quality=np.full(size, quality, dtype=np.uint8),
            )
        )

    def add_events(self, sensor_id: str, ts_us: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Store events of one sensor as one transaction."""
        size = len(ts_us)
        self._move(Events([(sensor_id, "")], [0] * size, list(ts_us), [0] * size, payloads))

    def _move(self, rows: Readings | Events) -> None:
        block = Block(self.next_id, self.clock.now_us(), bytes(16), rows)
        gathered = gather([block], self.book, epoch=EPOCH, watermark=block.last_id)
        self.store.write(gathered.batch)
        self.book.commit()
        self.window.apply(gathered.batch, gathered.runs)
        self.next_id += block.count

    def ask(self, query: str, **params: object) -> Any:
        """Return the answer, after checking that memory and file say the same."""
        answer = decode(self.engine.answer(query, params))
        assert_same(answer, decode(self.file_engine.answer(query, params)))
        return answer

    def ask_live(self, query: str, **params: object) -> Any:
        """Return the answer, which must come from memory alone."""
        answer = self.ask(query, **params)
        assert answer["source"] == "live", answer["source"]
        return answer

    def close(self) -> None:
        self.store.close()


def decode(body: bytes) -> Any:
    """Return strict JSON: NaN and Infinity fail."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads(body, parse_constant=refuse)


def assert_same(left: Any, right: Any) -> None:
    """Compare answers: equal but for `source` and the last bits of sums in another order."""
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            if key != "source":
                assert_same(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, float) and isinstance(right, int | float):
        assert math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9), (left, right)
    else:
        assert left == right
