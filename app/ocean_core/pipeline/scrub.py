"""Reads the whole journal once after an unclean stop and checks every block's CRC.

Damage in blocks that were moved long ago would otherwise be noticed only by a rebuild, when it is
too late to act. The scrub takes a small share of one core and gives up for good when the journal
cannot be read at all: then the mover has told so already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, Protocol

from ocean_core.buffer.port import IdRange
from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog

SHARE_OF_TIME: Final = 0.1
"""At most this share of the time is spent reading."""


class Step(Protocol):
    """One step of a scrub."""

    @property
    def up_to_id(self) -> int:
        """Up to which id the journal was checked."""
        ...

    @property
    def damaged(self) -> list[IdRange]:
        """What cannot be read."""
        ...


class Scrubbable(Protocol):
    """A journal that can be checked step by step."""

    def verify_blocks(self, after_id: int = 0) -> Iterator[Step]:
        """Check some blocks per step."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Scrubber:
    """One thread that ends when the journal's present end is reached."""

    def __init__(
        self,
        open_journal: Callable[[], Scrubbable],
        on_damage: Callable[[list[IdRange]], None],
        *,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._open_journal = open_journal
        self._on_damage = on_damage
        self._clock = clock
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the present step."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with closing(self._open_journal()) as journal:
                self.scrub(journal)
        except OceanError as error:
            self._log.warning("runtime.background_failed", task="scrub", error=error.detail)

    def scrub(self, journal: Scrubbable) -> int:
        """Check block after block; return the last id checked. Raises what the journal raises."""
        checked = 0
        began = self._clock.monotonic()
        for step in journal.verify_blocks():
            checked = step.up_to_id
            if step.damaged:
                self._on_damage(step.damaged)
            took = self._clock.monotonic() - began
            if self._stopping.wait(took * (1 / SHARE_OF_TIME - 1)):
                break
            began = self._clock.monotonic()
        return checked
