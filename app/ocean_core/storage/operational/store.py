"""The operational store as the rest of the appliance sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import apsw

from ocean_core.model.errors import OceanError, StoreBusyError, StoreUnavailableError
from ocean_core.storage.operational.delivery import Delivery
from ocean_core.storage.operational.failures import translate
from ocean_core.storage.operational.salvage import SalvageReport
from ocean_core.storage.operational.settings import OperationalSettings
from ocean_core.storage.operational.writer import State, Writer

T = TypeVar("T")

_BUSY_RETRY_AFTER_S: Final = 1


class OperationalStore:
    """``clisonix_operational.db``: one thread writes it, another one reads it."""

    def __init__(
        self, settings: OperationalSettings, *, on_state: Callable[[bool, str], None]
    ) -> None:
        """Prepare; nothing is touched before ``open``.

        ``on_state`` is called on the event loop: (True, "") when the store can be written, (False,
        reason) when it no longer can.
        """
        self._settings = settings
        self._on_state = on_state
        self._writer: Writer | None = None
        self._threads = ThreadPoolExecutor(1, "accounts-reader")
        self._reads = 0

    @property
    def is_ready(self) -> bool:
        """Whether changes are taken now."""
        return self._writer is not None and self._writer.state is State.READY

    @property
    def failure(self) -> OceanError | None:
        """Why changes are not taken now; None if they are."""
        return None if self._writer is None else self._writer.failure

    @property
    def salvage_report(self) -> SalvageReport | None:
        """What the last salvage saved and what it could not; also after later starts.

        While the damaged file is kept as ``*.damaged-<utc>``, someone should look at it.
        """
        return None if self._writer is None else self._writer.salvage_report

    async def open(self) -> None:
        """Open the file, or create it; a damaged one is salvaged.

        Raises StoreVersionError only: on a full or failing disk the store stays unavailable and
        tries again by itself.
        """
        loop = asyncio.get_running_loop()
        self._writer = Writer(self._settings, Delivery(loop, self._on_state))
        await self._writer.start()

    async def close(self) -> None:
        """Make everything durable that was taken, then let go of the file."""
        if self._writer is not None:
            await self._writer.close()
        self._threads.shutdown(wait=True)

    async def write(self, command: Callable[[apsw.Connection], T]) -> T:
        """Carry out a command and return what it returns, once it is durable.

        It runs on the writer's thread, in a savepoint inside the transaction of its group. What it
        raises undoes what it did and nothing else: an OceanError reaches the caller as it is,
        anything unforeseen as InternalError. Also raises StoreBusyError, StoreUnavailableError,
        DiskFullError, StoreIOError; nothing was changed then, unless the error says that this is not
        sure.
        """
        if self._writer is None:
            raise StoreUnavailableError("the operational store is not open")
        result: T = await self._writer.put(command)
        return result

    async def read(self, query: Callable[[apsw.Connection], T]) -> T:
        """Answer a query from one consistent state that holds every change acknowledged so far.

        The query runs on the reader's thread and must fetch what it returns. Raises whatever the
        query raises, InternalError for SQL that is wrong, StoreBusyError, StoreUnavailableError,
        StoreIOError.
        """
        writer = self._writer
        if writer is None:
            raise StoreUnavailableError("the operational store is not open")
        if not writer.can_read():
            raise writer.refusal()
        if self._reads >= self._settings.tuning.queue_max:
            raise StoreBusyError(
                f"{self._reads} queries are waiting", retry_after_s=_BUSY_RETRY_AFTER_S
            )
        self._reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, writer.reader.run, query
            )
        finally:
            self._reads -= 1

    async def former_id(self) -> str:
        """Return the id of the store that was here before, empty if it is the one in use.

        Somebody took it away, or another one was put in its place; removing the file
        ``accounts.id`` accepts that. Raises StoreIOError if the disk does not tell.
        """
        writer = self._writer
        if writer is None or not writer.was_open:
            return ""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, writer.witness.former_id)
        except OSError as error:
            raise translate(error) from error

    @property
    def store_id(self) -> str:
        """The id that the store was made with, empty before it was open."""
        return "" if self._writer is None else self._writer.witness.store_id

    def retry_now(self) -> None:
        """Do not wait for the next try after a failure."""
        if self._writer is not None:
            self._writer.retry_now()
