"""Named places where a test can end the process, to prove what survives.

``OCEAN_FAULT=name`` or ``name@3`` kills the process that reaches the point for the first (third)
time, as a power switch would: no handler runs. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Final

FAULT_POINTS: Final[dict[str, str]] = {
    "journal.opened": "The journal is open, nothing was accepted yet.",
    "journal.before_commit": "A group is written but not committed.",
    "journal.after_commit": "A group is committed and synced, nobody was told.",
    "journal.before_checkpoint": "The WAL is about to be copied into the journal.",
    "journal.after_checkpoint": "The WAL was copied into the journal.",
    "journal.salvage_copying": "A damaged journal is being copied, half done.",
    "journal.salvage_before_swap": "The salvaged journal is complete but not yet in place.",
    "journal.salvage_after_swap": "The salvaged journal is in place.",
    "operational.before_commit": "Changes of accounts are written but not committed.",
    "operational.after_commit": "Changes of accounts are committed and synced, nobody was told.",
    "operational.salvage_before_swap": "A salvaged operational store is complete but not in place.",
    "operational.salvage_after_swap": "A salvaged operational store is in place.",
    "quarantine.after_take": "Frames out of quarantine are stored, but are still in quarantine.",
    "mark.before_write": "The mover is about to write its mark.",
    "mark.after_write": "The mark is durable, the analytics transaction is not.",
    "mover.before_commit": "The analytics transaction is filled but not committed.",
    "mover.after_commit": "The analytics transaction is committed, nobody was told.",
    "analytics.before_open": "The opening marker is set, analytics.duckdb is not open yet.",
    "analytics.after_open": "analytics.duckdb is open.",
    "analytics.damaged_moved": "A damaged analytics.duckdb was moved aside.",
    "rules.before_commit": "Rules about names are applied to analytics.duckdb but not committed.",
    "rules.after_commit": "Rules about names are committed, nobody was told.",
    "rebuild.half": "A rebuild has moved some blocks, not all.",
    "archive.part_written": "A part of the archive is written, under its temporary name.",
    "archive.part_renamed": "A part of the archive has its name, no manifest names it yet.",
    "archive.before_manifest": "The archive's manifest is about to be replaced.",
    "archive.after_manifest": "The archive's manifest was replaced, its copy was not.",
    "archive.before_unlink": "The manifest holds; the files it no longer names are still there.",
    "archive.sealed": "A range of ids is in the archive; the journal was not told to trim.",
    "journal.before_trim": "Blocks are about to be deleted from the journal.",
    "journal.after_trim": "Blocks were deleted from the journal.",
    "analytics.before_checkpoint": "analytics.duckdb is about to be checkpointed.",
    "analytics.after_checkpoint": "analytics.duckdb was checkpointed.",
}
"""Every fault point and the situation it stands for."""


class Faults:
    """Knows which point, if any, is to end the process."""

    def __init__(self, armed: str | None = None, nth: int = 1) -> None:
        assert armed is None or armed in FAULT_POINTS, armed
        self._armed = armed
        self._left = nth

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Faults:
        """Read ``OCEAN_FAULT``; an unknown name is ignored by processes that do not know it."""
        name, _, nth = environment.get("OCEAN_FAULT", "").partition("@")
        return cls(name if name in FAULT_POINTS else None, int(nth or 1))

    def hit(self, name: str) -> None:
        """Pass a point; does not return if it is the armed one."""
        if self._armed is None:
            return
        assert name in FAULT_POINTS, name
        if name == self._armed:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


NO_FAULTS: Final = Faults()
