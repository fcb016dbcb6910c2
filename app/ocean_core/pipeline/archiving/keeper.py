"""The keeper: one thread, with little claim to the processor, that does all work on the archive."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar

from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.storage.analytics.errors import DuckError

RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
LOOK_EVERY_S: Final = 600.0
"""Due times are asked for again at least this often: wall clocks step, and files change."""

T = TypeVar("T")


class Chore(Protocol):
    """A kind of work on the archive, done in bounded steps."""

    @property
    def name(self) -> str:
        """What it is called in the log."""
        ...

    def due_in(self) -> float | None:
        """Seconds until ``step`` is wanted, 0 for now, None if nothing is foreseeable."""
        ...

    def step(self) -> None:
        """Do one bounded piece. May raise OceanError, OSError or DuckError: it is tried again."""
        ...


def _ignore(*_: object) -> None:
    return


class Keeper:
    """Runs chores by their order, first come those that are due; and calls in between."""

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        clock: Clock,
        log: EventLog,
        prepare: Callable[[], None] = lambda: None,
        give_way: Callable[[], None] = lambda: None,
        on_change: Callable[[str], None] = _ignore,
    ) -> None:
        """``prepare`` opens the archive: it is tried again until it raises no more.

        ``on_change`` is told after each piece of work why work fails, empty if it does not.
        ``give_way`` is called once in the thread.
        """
        self._chores = list(chores)
        self._clock = clock
        self._log = log
        self._prepare: Callable[[], None] | None = prepare
        self._give_way = give_way
        self._on_change = on_change
        self._condition = threading.Condition()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._woken = False
        self._stopping = False
        self._retries: dict[str, tuple[float, float]] = {}
        self._troubles: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    @property
    def trouble(self) -> str:
        """Why some work fails, empty if none does."""
        return "; ".join(self._troubles.values())

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End after the step that runs; return whether that happened in time."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Ask the chores anew when they are due. From any thread; returns at once."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function run in the keeper's thread, between two steps. From any thread."""
        future: Future[T] = Future()
        with self._condition:
            if self._stopping:
                future.cancel()
            else:
                self._calls.append((function, future))
                self._condition.notify_all()
        return future

    def work_once(self) -> float | None:
        """Do what is due, one piece; return 0.0 if there may be more, else seconds until then.

        The thread's step; tests call it.
        """
        if self._serve_call():
            return 0.0
        if self._prepare is not None:
            return self._attempt("open", self._prepare, self._opened)
        waits: list[float] = []
        for chore in self._chores:
            held = self._held_back(chore.name)
            due = self._attempt_due(chore) if held <= 0 else held
            if due is None:
                continue
            if due <= 0:
                return self._attempt(chore.name, chore.step)
            waits.append(due)
        return min(waits, default=None)

    def _opened(self) -> None:
        self._prepare = None

    def _serve_call(self) -> bool:
        with self._condition:
            if not self._calls:
                return False
            function, future = self._calls.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - belongs to whoever called
                future.set_exception(error)
            self._on_change(self.trouble)
        return True

    def _held_back(self, name: str) -> float:
        _, until = self._retries.get(name, (0.0, float("-inf")))
        return until - self._clock.monotonic()

    def _attempt_due(self, chore: Chore) -> float | None:
        try:
            return chore.due_in()
        except (OceanError, OSError, DuckError) as error:
            return self._failed(chore.name, error)

    def _attempt(
        self, name: str, step: Callable[[], None], then: Callable[[], None] = lambda: None
    ) -> float:
        try:
            step()
        except (OceanError, OSError, DuckError) as error:
            wait = self._failed(name, error)
            self._on_change(self.trouble)
            return wait
        self._retries.pop(name, None)
        self._troubles.pop(name, None)
        then()
        self._on_change(self.trouble)
        return 0.0

    def _failed(self, name: str, error: Exception) -> float:
        last, _ = self._retries.get(name, (0.0, 0.0))
        wait = min(RETRY_MAX_S, max(RETRY_FIRST_S, last * 2))
        self._retries[name] = (wait, self._clock.monotonic() + wait)
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        self._troubles[name] = f"{name}: {reason}"
        self._log.warning("archive.failed", work=name, reason=reason, retry_s=wait)
        return wait

    def _run(self) -> None:
        self._give_way()
        while True:
            with self._condition:
                if self._stopping:
                    break
                self._woken = False
            wait = self.work_once()
            with self._condition:
                if wait != 0.0 and not (self._woken or self._calls or self._stopping):
                    self._condition.wait(LOOK_EVERY_S if wait is None else min(wait, LOOK_EVERY_S))
        for _, future in self._calls:
            future.cancel()
