"""Changes that are finished once they were begun, though whoever asked for them has left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


async def uninterrupted(change: Coroutine[Any, Any, T]) -> T:
    """Return what ``change`` returns; a caller that is cancelled does not cancel it.

    For changes of file and memory together: cancelled in between, they would say different things.
    """
    task = asyncio.ensure_future(change)
    # The loop itself holds tasks only weakly.
    _running.add(task)
    task.add_done_callback(_finished)
    return await asyncio.shield(task)


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        # Taken note of: an error that nobody waits for any more is no news to the loop.
        task.exception()
