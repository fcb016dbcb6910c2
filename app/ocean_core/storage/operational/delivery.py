"""From the writer thread to the event loop: outcomes, states, the ends of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ocean_core.model.errors import OceanError
from ocean_core.storage.operational.failures import told
from ocean_core.storage.operational.opened import Command, Outcome

Waiting = tuple[Command, asyncio.Future[Any]]


class Delivery:
    """How the thread reaches the event loop: everything here is carried out there, in order."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_state: Callable[[bool, str], None]
    ) -> None:
        self._loop = loop
        self._on_state = on_state

    def future(self) -> asyncio.Future[Any]:
        """Return a future of the loop. On the loop only."""
        return self._loop.create_future()

    def answer(self, group: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
        """Tell each caller of a group its outcome: one call to the loop for all."""
        self._call(_settle_all, [future for _, future in group], outcomes)

    def refuse(self, group: Sequence[Waiting], failure: OceanError, *, undone: bool = True) -> None:
        """Tell each caller of a group that nothing was changed, or that this is not sure."""
        if group:
            self.answer(group, [(None, told(failure, undone=undone)) for _ in group])

    def state(self, *, is_ready: bool, reason: str) -> None:
        """Tell whether changes are taken."""
        self._call(self._on_state, is_ready, reason)

    def settle(self, future: asyncio.Future[None], error: OceanError | None = None) -> None:
        """End a wait, unless it ended before."""
        self._call(_settle_all, [future], [(None, error)])

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed; nobody is there to be told.
            return


def _settle_all(futures: list[asyncio.Future[Any]], outcomes: Sequence[Outcome]) -> None:
    for future, (result, error) in zip(futures, outcomes, strict=True):
        # A client that left has cancelled its future.
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
