"""A journal in memory with an index made from it by the mover, to be verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from ocean_core.buffer.port import IdRange, Losses
from ocean_core.model.block import Block
from ocean_core.model.naming import NameRule
from ocean_core.obs.clock import ManualClock
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.service.queries.engine import QueryEngine
from ocean_core.service.queries.verify import Verifier, VerifyCallbacks
from support.analytics import EPOCH, FakeSource, make_mover, make_store

DIFFERENCES = ("absent", "changed", "doubled", "surplus")


class FakeJournal(FakeSource):
    """Blocks, and what the journal knows not to hold."""

    def __init__(self, blocks: Sequence[Block] = ()) -> None:
        super().__init__(blocks)
        self.missing: list[IdRange] = []
        self.trimmed = 0
        self.on_scan: Callable[[], None] = lambda: None

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        self.on_scan()
        if self.error is not None:
            raise self.error
        for block in self.blocks:
            if first_id is None:
                break
            if block.last_id >= first_id:
                first_id = take(block)
        return self.damaged

    def losses(self) -> Losses:
        return Losses(self.trimmed, self.missing)

    def lose(self, first: int, last: int) -> None:
        """Have no blocks that lie between two ids."""
        self.blocks = [b for b in self.blocks if b.last_id < first or b.first_id > last]


class VerifyLab:
    """``told`` collects what the verifier says to others."""

    def __init__(self, folder: Path, journal: FakeJournal | None = None) -> None:
        self.path = folder / "analytics.duckdb"
        self.journal = journal or FakeJournal()
        self.clock = ManualClock()
        self.store = make_store(folder, self.clock)
        self.store.open(EPOCH, journal_empty=True)
        self.window = LiveWindow()
        self.mover = make_mover(self.journal, self.store, self.window, clock=self.clock)
        self.mover.prepare()
        self.told: list[Any] = []
        callbacks = VerifyCallbacks(self.told.append, self.told.append, self.told.append)
        self.verifier = Verifier(self.store, lambda: self.journal, self.clock, callbacks)
        self.engine = QueryEngine(self.store, self.window, self.clock, 30.0, verifier=self.verifier)

    def move(self) -> None:
        """Have the mover take over everything."""
        self.mover.notify(self.journal.last_id())
        while self.mover.progress().watermark < self.journal.last_id():
            self.mover.drain_once()

    def follow(self, *rules: NameRule) -> None:
        self.mover.set_rules(rules)
        self.mover.work_once()

    def break_it(self, *statements: str) -> None:
        """Change what the index holds behind everybody's back."""
        connection: duckdb.DuckDBPyConnection = self.store._opened()
        for statement in statements:
            connection.execute(statement)

    def step(self, after_id: int = 0) -> Any:
        return msgspec.json.decode(self.engine.answer("verify", {"after_id": after_id}))

    def verify(self) -> list[Any]:
        """Return all steps."""
        steps = [self.step()]
        while steps[-1]["next_after_id"] is not None:
            steps.append(self.step(steps[-1]["next_after_id"]))
            assert len(steps) < 1000
        return steps

    def close(self) -> None:
        self.store.close()


def differences(step: dict[str, Any]) -> dict[str, int]:
    """Return what differs, without what does not."""
    return {name: step[name] for name in DIFFERENCES if step[name]}
