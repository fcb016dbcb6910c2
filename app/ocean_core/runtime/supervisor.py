"""Keeps the analytics process running.

    state        START      HELLO   EXITED       RETRY      STOP
    idle         starting   -       -            -          stopped
    starting     -          up      backing_off  -          stopping
    up           -          -       backing_off  -          stopping
    backing_off  -          -       -            starting   stopped
    stopping     -          -       stopped      -          -
    stopped      -          -       -            -          -

A dash means: nothing to do. The wait before a retry doubles from 0.2 s to 10 s and is forgotten
once the process was up for a minute. A process that could not be started counts as one that has
exited. One that gives no sign of life for a minute (a quarter of an hour while it starts) is killed;
its end then takes the usual way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.process import own_command
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0
STEADY_AFTER_S: Final = 60.0
SILENT_MAX_S: Final = 60.0
OPENING_MAX_S: Final = 900.0
STOP_TIMEOUT_S: Final = 20.0


class ChildState(StrEnum):
    """Where the analytics process is in its life."""

    IDLE = "idle"
    STARTING = "starting"
    UP = "up"
    BACKING_OFF = "backing_off"
    STOPPING = "stopping"
    STOPPED = "stopped"


class ChildEvent(StrEnum):
    """What can happen to it."""

    START = "start"
    HELLO = "hello"
    EXITED = "exited"
    RETRY = "retry"
    STOP = "stop"


_S, _E = ChildState, ChildEvent
TRANSITIONS: Final[dict[tuple[ChildState, ChildEvent], ChildState]] = {
    (_S.IDLE, _E.START): _S.STARTING,
    (_S.IDLE, _E.STOP): _S.STOPPED,
    (_S.STARTING, _E.HELLO): _S.UP,
    (_S.STARTING, _E.EXITED): _S.BACKING_OFF,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.UP, _E.EXITED): _S.BACKING_OFF,
    (_S.UP, _E.STOP): _S.STOPPING,
    (_S.BACKING_OFF, _E.RETRY): _S.STARTING,
    (_S.BACKING_OFF, _E.STOP): _S.STOPPED,
    (_S.STOPPING, _E.EXITED): _S.STOPPED,
}


def next_state(state: ChildState, event: ChildEvent) -> ChildState:
    """Return the state after an event; one without a row changes nothing."""
    return TRANSITIONS.get((state, event), state)


class Supervisor:
    """Starts, watches, restarts and stops the analytics process. Lives on the event loop."""

    def __init__(
        self,
        *,
        arguments: list[str],
        link: AnalyticsLink,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        alarms: AlarmBook,
        spawn: Callable[[list[str], socket.socket], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self._arguments = arguments
        self._link = link
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._alarms = alarms
        self._spawn = spawn if spawn is not None else spawn_child
        self._child: subprocess.Popen[bytes] | None = None
        self._backoff_s = BACKOFF_FIRST_S
        self._started_at = 0.0
        self._heard_at = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.state = ChildState.IDLE

    async def start(self) -> None:
        """Start the process; returns before it is up."""
        self._move(ChildEvent.START)
        await self._launch()

    def heard(self, *, hello: bool = False) -> None:
        """Note a sign of life."""
        self._heard_at = self._clock.monotonic()
        if hello:
            self._move(ChildEvent.HELLO)
            self._alarms.clear_alarm("analytics.down")
            took = round(self._heard_at - self._started_at, 3)
            self._log.info("analytics.started", pid=self._pid(), seconds=took)

    def closed(self) -> None:
        """Note that the process hung up: it has ended, or is about to."""
        task = asyncio.get_running_loop().create_task(self._reap())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check(self) -> None:
        """Kill a process that gives no sign of life. Called now and then."""
        silent = self._clock.monotonic() - self._heard_at
        # While it opens its file, it cannot speak: replaying a large WAL from an SD card takes long.
        silent_max_s = OPENING_MAX_S if self.state == ChildState.STARTING else SILENT_MAX_S
        if self._child is not None and silent > silent_max_s:
            self._log.warning("runtime.stop_forced", process="analytics", silent_s=round(silent))
            self._child.kill()

    async def stop(self) -> bool:
        """End the process; return whether it ended by itself in time."""
        self._move(ChildEvent.STOP)
        if self._retry is not None:
            self._retry.cancel()
        if self.state == ChildState.STOPPED or self._child is None:
            return True
        self._link.ask_to_stop()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._stopped.wait()
        except TimeoutError:
            self._log.warning("runtime.stop_forced", process="analytics", pid=self._pid())
            self._child.kill()
            await self._stopped.wait()
            return False
        return True

    async def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._child = self._spawn(self._arguments, theirs)
        except OSError as error:
            # No memory, no process number: what is short now may not be later.
            ours.close()
            self._move(ChildEvent.EXITED)
            self._log.warning("analytics.exited", reason=str(error))
            self._try_again(f"cannot be started: {error}")
            return
        finally:
            theirs.close()
        self._started_at = self._heard_at = self._clock.monotonic()
        self._metrics.add("ocean_runtime_analytics_starts_total")
        await self._link.connect(ours)
        if self.state == ChildState.STOPPING:
            self._link.ask_to_stop()

    async def _reap(self) -> None:
        child = self._child
        if child is None:
            return
        loop = asyncio.get_running_loop()
        try:
            code = await loop.run_in_executor(None, child.wait, 5.0)
        except subprocess.TimeoutExpired:
            child.kill()
            code = await loop.run_in_executor(None, child.wait)
        self._child = None
        self._move(ChildEvent.EXITED)
        if self.state == ChildState.STOPPED:
            if code:
                self._log.warning("analytics.exited", code=code, reason=_told(code))
            self._stopped.set()
            return
        if self._clock.monotonic() - self._started_at > STEADY_AFTER_S:
            self._backoff_s = BACKOFF_FIRST_S
        self._log.warning("analytics.exited", code=code, reason=_told(code))
        self._try_again(f"ended with {_told(code)}")

    def _try_again(self, reason: str) -> None:
        self._alarms.raise_alarm("analytics.down", reason)
        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(self._backoff_s, self._relaunch)
        self._backoff_s = min(BACKOFF_MAX_S, 2 * self._backoff_s)

    def _relaunch(self) -> None:
        task = asyncio.get_running_loop().create_task(self._launch_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _launch_again(self) -> None:
        # Between timer and task a stop may have come.
        self._move(ChildEvent.RETRY)
        if self.state == ChildState.STARTING:
            await self._launch()

    def _move(self, event: ChildEvent) -> None:
        self.state = next_state(self.state, event)

    def _pid(self) -> int:
        return self._child.pid if self._child is not None else 0


def spawn_child(arguments: list[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Run ourselves with the socket inherited.

    Called on the main thread: the child asks the kernel to be killed with the thread that made it.
    """
    descriptor = theirs.fileno()
    command = own_command(
        "_analytics", "--socket", str(descriptor), "--parent", str(os.getpid()), *arguments
    )
    return subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)


def _told(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
