"""The supervisor's table, walked whole, and its behaviour with processes that end."""

import asyncio
import io
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.supervisor import (
    BACKOFF_FIRST_S,
    TRANSITIONS,
    ChildEvent,
    ChildState,
    Supervisor,
    next_state,
)
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink, LinkHandlers

TABLE = {
    "idle": {"start": "starting", "stop": "stopped"},
    "starting": {"hello": "up", "exited": "backing_off", "stop": "stopping"},
    "up": {"exited": "backing_off", "stop": "stopping"},
    "backing_off": {"retry": "starting", "stop": "stopped"},
    "stopping": {"exited": "stopped"},
    "stopped": {},
}


@pytest.mark.parametrize("state", ChildState)
@pytest.mark.parametrize("event", ChildEvent)
def test_every_state_with_every_event(state: ChildState, event: ChildEvent) -> None:
    assert next_state(state, event) == TABLE[state].get(event, state)


def test_the_table_has_no_row_that_changes_nothing() -> None:
    assert all(source != target for (source, _), target in TRANSITIONS.items())


class Rig:
    """A supervisor whose children are tiny programs."""

    def __init__(self, program: str) -> None:
        clock = ManualClock()
        self.clock = clock
        self.stream = io.StringIO()
        log = EventLog(clock, stream=self.stream)
        metrics = MetricsRegistry(METRICS)
        self.alarms = AlarmBook(clock, log, metrics)
        self.closed = asyncio.Event()
        self.spawned: list[subprocess.Popen[bytes]] = []
        self.on_closed: Callable[[], None] = self.closed.set

        def hung_up() -> None:
            self.supervisor.closed()
            self.on_closed()

        link = AnalyticsLink(
            lambda: 0,
            5,
            LinkHandlers(
                hello=lambda _: None,
                series=lambda _: None,
                report=lambda _: None,
                damage=lambda _: None,
                journal_damaged=lambda _: None,
                watermark_ahead=lambda _first, _last: None,
                closed=hung_up,
            ),
        )

        def spawn(_arguments: list[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(
                [sys.executable, "-c", program, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
            self.spawned.append(child)
            return child

        self.supervisor = Supervisor(
            arguments=[],
            link=link,
            clock=clock,
            log=log,
            metrics=metrics,
            alarms=self.alarms,
            spawn=spawn,
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is about other processes
            await asyncio.sleep(0)


def test_a_process_that_ends_is_started_again_and_the_alarm_says_how_it_ended() -> None:
    async def scenario() -> None:
        rig = Rig("import os; os.kill(os.getpid(), 9)")
        await rig.supervisor.start()
        await until(lambda: len(rig.spawned) >= 3)
        assert "signal SIGKILL" in rig.alarms.open_alarms()[0].detail
        assert 'code=-9 reason="signal SIGKILL"' in rig.stream.getvalue()
        assert rig.supervisor._backoff_s > BACKOFF_FIRST_S
        await rig.supervisor.stop()
        assert rig.supervisor.state == ChildState.STOPPED

    asyncio.run(scenario())


def test_stop_waits_for_the_process_to_end_by_itself() -> None:
    async def scenario() -> None:
        # Reads the stop message, then ends: closing is what it was asked for.
        rig = Rig("import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(100)")
        await rig.supervisor.start()
        assert await rig.supervisor.stop()
        assert rig.supervisor.state == ChildState.STOPPED
        assert rig.spawned[0].returncode == 0
        assert len(rig.spawned) == 1

    asyncio.run(scenario())


def test_a_silent_process_is_killed() -> None:
    async def scenario() -> None:
        rig = Rig("import sys; sys.stdin.read() or __import__('signal').pause()")
        await rig.supervisor.start()
        rig.clock.advance(61)
        rig.supervisor.check()
        assert rig.spawned[0].poll() is None, "it may take long to open its file"
        rig.supervisor.heard(hello=True)
        rig.clock.advance(59)
        rig.supervisor.check()
        assert rig.spawned[0].poll() is None
        rig.clock.advance(2)
        rig.supervisor.check()
        await until(lambda: len(rig.spawned) == 2)
        assert rig.spawned[0].returncode == -9
        rig.spawned[1].kill()
        await rig.supervisor.stop()

    asyncio.run(scenario())


def test_a_process_that_cannot_be_started_is_tried_again() -> None:
    async def scenario() -> None:
        rig = Rig("import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(100)")
        spawn, failures = rig.supervisor._spawn, [OSError(12, "no memory")] * 2

        def sometimes(arguments: list[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
            if failures:
                raise failures.pop()
            return spawn(arguments, theirs)

        rig.supervisor._spawn = sometimes
        await rig.supervisor.start()
        assert "no memory" in rig.alarms.open_alarms()[0].detail
        await until(lambda: len(rig.spawned) == 1)
        assert await rig.supervisor.stop()

    asyncio.run(scenario())
