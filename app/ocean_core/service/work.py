"""Long work in the analytics process: export, sealing and the like, on threads of their own."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from ocean_core.model.errors import InternalError, InvalidInputError, OceanError, WorkCancelledError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.service.messages import CancelWork, Work, WorkDone, WorkProgress, report_error

WORK_THREADS: Final = 2
PROGRESS_EVERY_S: Final = 0.2


class WorkContext:
    """What a piece of work tells, and how it hears that it is to end. For its own thread."""

    def __init__(self, tell: Callable[[int, int, str], None], clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._told_at = float("-inf")
        self._cancelled = threading.Event()

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell how far it is, a few times a second at most."""
        now = self._clock.monotonic()
        if now - self._told_at >= PROGRESS_EVERY_S or done == total:
            self._told_at = now
            self._tell(done, total, note)

    def check(self) -> None:
        """Raise WorkCancelledError if it is to end."""
        if self._cancelled.is_set():
            raise WorkCancelledError("cancelled")

    def cancel(self) -> None:
        """Have ``check`` raise. From any thread."""
        self._cancelled.set()


WorkFunction = Callable[[Mapping[str, Any], WorkContext], object]
"""Takes parameters, returns what becomes the JSON result; may raise OceanError."""


class WorkRunner:
    """Runs what the ingest process asks for; ``send`` may be called from any thread."""

    def __init__(
        self,
        functions: Mapping[str, WorkFunction],
        send: Callable[[WorkProgress | WorkDone], None],
        *,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._functions = functions
        self._send = send
        self._clock = clock
        self._log = log
        self._threads = ThreadPoolExecutor(WORK_THREADS, thread_name_prefix="work")
        self._running: dict[int, WorkContext] = {}

    def begin(self, work: Work) -> None:
        """Start it as soon as a thread is free."""
        context = WorkContext(
            lambda done, total, note: self._send(WorkProgress(work.id, done, total, note)),
            self._clock,
        )
        self._running[work.id] = context
        self._threads.submit(self._run, work, context)

    def cancel(self, message: CancelWork) -> None:
        """Have it end soon, if it runs."""
        context = self._running.get(message.id)
        if context is not None:
            context.cancel()

    def stop(self) -> None:
        """Cancel everything; threads end by themselves."""
        for context in list(self._running.values()):
            context.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, work: Work, context: WorkContext) -> None:
        self._log.info("work.started", kind=work.kind)
        try:
            context.check()
            function = self._functions.get(work.kind)
            if function is None:
                raise InvalidInputError(f"there is no work called {work.kind}")
            done = WorkDone(work.id, msgspec.json.encode(function(work.params, context)))
        except OceanError as error:
            done = WorkDone(work.id, error=report_error(error))
        except Exception as error:  # noqa: BLE001 - top of the thread: whatever it is, answer
            told = "".join(traceback.format_exception(error))
            self._log.error("work.ended", kind=work.kind, error=repr(error), traceback=told)
            done = WorkDone(work.id, error=report_error(InternalError(f"{work.kind} failed")))
        self._running.pop(work.id, None)
        self._log.info("work.ended", kind=work.kind, ok=done.error is None)
        self._send(done)
