"""Lets the journal go of what the archive holds."""

from __future__ import annotations

import asyncio

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.model.errors import OceanError
from ocean_core.obs.log import EventLog


class JournalTrimmer:
    """One trim at a time, tried again at each tick while something holds rows back."""

    def __init__(self, journal: EmbeddedJournal, log: EventLog) -> None:
        self._journal = journal
        self._log = log
        self._sealed_up_to = 0
        self._trimmed = 0
        self._task: asyncio.Task[None] | None = None

    def sealed(self, up_to_id: int) -> None:
        """Note up to which id everything is in the archive, and trim."""
        self._sealed_up_to = max(self._sealed_up_to, up_to_id)
        self.tick()

    def tick(self) -> None:
        """Trim what may go, unless that is under way."""
        if self._trimmed < self._sealed_up_to and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._trim(self._sealed_up_to))

    async def _trim(self, up_to_id: int) -> None:
        try:
            self._trimmed = await self._journal.trim(up_to_id)
        except OceanError as error:
            # The journal tells why; the next tick tries again.
            self._log.debug("buffer.failed", reason=error.detail)
        finally:
            self._task = None
        if self._trimmed >= up_to_id:
            # What was sealed meanwhile.
            self.tick()

    async def close(self) -> None:
        """End what is under way; the next start goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
