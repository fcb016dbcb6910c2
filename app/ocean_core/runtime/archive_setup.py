"""The archive in the analytics process: its store, its keeper, and the long work that reads it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ocean_core.buffer.embedded import JournalReader
from ocean_core.buffer.port import IdRange
from ocean_core.model.errors import ArchiveUnavailableError, InvalidInputError
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.pipeline.archiving.compaction import PartCompaction
from ocean_core.pipeline.archiving.keeper import Chore, Keeper
from ocean_core.pipeline.archiving.sealer import Sealer, SealerTools
from ocean_core.service.messages import ArchiveState, Message, Sealed
from ocean_core.service.work import WorkContext, WorkFunction
from ocean_core.storage.archive.manifest import RAW_KINDS, Manifest
from ocean_core.storage.archive.store import ArchiveStore

KEEPER_NICE: Final = 15
"""Of the keeper's thread alone: queries and the mover go first."""


class ArchiveSide:
    """Wires what keeps the archive together. ``start`` once watermark and names are known."""

    def __init__(
        self,
        data_dir: Path,
        store: ArchiveStore,
        *,
        watermark: Callable[[], int],
        names: Callable[[], Names],
        send: Callable[[Message], None],
        on_damage: Callable[[list[IdRange]], None],
        on_change: Callable[[], None],
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        faults: Faults,
    ) -> None:
        """``send``, ``on_damage`` and ``on_change`` are called from the keeper's thread."""
        self._journal = data_dir / "journal.db"
        self._send = send
        self._on_change = on_change
        self._metrics = metrics
        self._trouble = "not open yet"
        self.store = store
        self._sealer = Sealer(
            self.store,
            SealerTools(
                open_source=lambda: JournalReader(self._journal),
                watermark=watermark,
                names=names,
                on_sealed=lambda up_to_id: send(Sealed(up_to_id)),
                on_damage=on_damage,
            ),
            clock=clock,
            log=log,
            metrics=metrics,
            faults=faults,
        )
        self._compaction = PartCompaction(store, clock=clock, log=log, metrics=metrics)
        self.keeper = Keeper(
            self._chores(),
            clock=clock,
            log=log,
            prepare=self._open,
            give_way=_give_way,
            on_change=self._changed,
        )

    def _chores(self) -> Sequence[Chore]:
        return (self._sealer, self._compaction)

    def _open(self) -> None:
        """Open the archive of this journal. Raises OceanError; it is tried again."""
        if not self.store.is_open:
            with closing(JournalReader(self._journal)) as source:
                self.store.open(source.epoch, source.losses().trimmed_up_to)
        self._send(Sealed(self.store.manifest.sealed_up_to))

    def _changed(self, trouble: str) -> None:
        self._trouble = trouble
        state = self.state()
        self._metrics.set("ocean_archive_sealed_up_to_id", state.sealed_up_to)
        self._metrics.set("ocean_archive_parts", state.parts)
        self._metrics.set("ocean_archive_rows", state.rows)
        self._metrics.set("ocean_archive_bytes", state.bytes)
        self._on_change()

    def state(self) -> ArchiveState:
        """Return what the archive holds, for the report."""
        if not self.store.is_open:
            return ArchiveState(0, 0, 0, 0, trouble=self._trouble or "not open yet")
        return state_of(self.store.manifest, self._trouble)

    def work(self) -> dict[str, WorkFunction]:
        """Return the long work that concerns the archive, by kind."""
        return {"seal": self._seal}

    def _seal(self, params: Mapping[str, Any], context: WorkContext) -> object:
        """Seal everything that analytics hold, and tell what that made."""
        if params:
            raise InvalidInputError(f"sealing takes no {', '.join(params)}")
        if not self.store.is_open:
            raise ArchiveUnavailableError(self._trouble or "the archive is not open yet")
        context.check()
        result = self.keeper.call(self._sealer.seal_up_to).result()
        return result._asdict()


def state_of(manifest: Manifest, trouble: str) -> ArchiveState:
    """Return a manifest's figures."""
    raw = [part for part in manifest.parts if part.kind in RAW_KINDS]
    days = [part.date for part in raw]
    return ArchiveState(
        sealed_up_to=manifest.sealed_up_to,
        parts=len(manifest.parts),
        rows=sum(part.rows for part in raw),
        bytes=manifest.bytes,
        oldest=min(days, default=""),
        newest=max(days, default=""),
        trouble=trouble,
    )


def _give_way() -> None:
    """Let this thread run when no other of the box wants to."""
    # The kernel keeps niceness per thread; a thread's own id stands for it alone.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), KEEPER_NICE)
