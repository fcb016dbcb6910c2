"""The analytics process as its parent sees it: what it says first, and how it ends."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.config.settings import Settings
from ocean_core.model.errors import StoreIOError
from ocean_core.model.naming import NameRule
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.mover import Mover
from ocean_core.pipeline.rules import NO_WORD
from ocean_core.runtime import analytics_process
from ocean_core.runtime.analytics_process import (
    EXIT_CRASHED,
    EXIT_DAMAGED,
    EXIT_UNOPENED,
    AnalyticsProcess,
)
from ocean_core.service.channel import Channel
from ocean_core.service.messages import (
    Answer,
    Hello,
    Message,
    Query,
    Report,
    Rules,
    RulesApplied,
    RulesLost,
    SeriesKnown,
    Stop,
)
from ocean_core.service.queries.engine import QueryEngine
from ocean_core.service.queries.session import Session
from ocean_core.storage.analytics import AnalyticsStore
from support.journal_kit import intake_of, readings, settings_for
from support.renaming import forget, rename


class Parent:
    """The other end of the line; says ``rules`` first, unless they are None."""

    def __init__(self, rules: list[NameRule] | None = []) -> None:  # noqa: B006 - not changed
        self.rules = rules
        self.heard: list[Message] = []
        self.code = 0
        self._news = asyncio.Event()

    async def serve(self, folder: Path, scenario: Callable[["Parent"], Any]) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        hung_up = asyncio.Event()
        self.channel = await Channel.over(ours, self._hear, hung_up.set)
        if self.rules is not None:
            self.channel.send(Rules(self.rules))
        self.process = process = AnalyticsProcess(Settings(), folder, scrub=False)
        running = asyncio.create_task(process.run(theirs))
        await scenario(self)
        self.channel.send(Stop())
        async with asyncio.timeout(20):
            code = await running
        assert not process.is_stuck
        if code == EXIT_DAMAGED:
            # The end of a real process does this.
            process._store._disconnect()
        async with asyncio.timeout(20):
            await hung_up.wait()
        # The transports of both ends close in the next turns of the loop.
        for _ in range(5):
            await asyncio.sleep(0)
        return code

    def _hear(self, message: Message) -> None:
        self.heard.append(message)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def names(self) -> list[tuple[str, str]]:
        return [n for m in self.heard if isinstance(m, SeriesKnown) for n in m.names]

    def watermark(self) -> int:
        return max((m.watermark for m in self.heard if isinstance(m, Report)), default=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal with 40 readings of 5 series."""

    async def fill() -> None:
        journal = EmbeddedJournal(settings_for(tmp_path))
        await journal.open()
        await journal.append(intake_of(readings(1, 40, sensors=5)))
        await journal.close()

    asyncio.run(fill())
    return tmp_path


async def moved(parent: Parent) -> None:
    await parent.until(lambda: parent.watermark() == 40)


async def nothing(_parent: Parent) -> None:
    return


def serve(
    folder: Path, scenario: Callable[[Parent], Coroutine[Any, Any, None]]
) -> tuple[Parent, int]:
    async def whole() -> tuple[Parent, int]:
        parent = Parent()
        return parent, await parent.serve(folder, scenario)

    return asyncio.run(whole())


def test_series_are_told_after_hello_and_as_a_rebuild_finds_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics_process, "SERIES_NAMES_MAX", 2)
    names = [(f"sensor-1-{k}", "value") for k in range(5)]
    first, _ = serve(folder, moved)
    assert isinstance(first.heard[0], Hello)
    assert first.heard[0].rebuild_reason == ""
    (folder / "analytics.duckdb").unlink()
    rebuilt, code = serve(folder, moved)
    assert code == 0
    assert isinstance(rebuilt.heard[0], Hello)
    assert rebuilt.heard[0].rebuild_reason == "missing"
    assert rebuilt.names() == names
    again, _ = serve(folder, moved)
    kinds = [type(message) for message in again.heard]
    assert kinds[:4] == [Hello, SeriesKnown, SeriesKnown, SeriesKnown]
    assert again.names() == names
    assert next(m for m in again.heard if isinstance(m, Report)).watermark == 40


def test_rules_hold_before_anything_is_moved(folder: Path) -> None:
    rules = [rename(1, "sensor-1-0", "press"), forget(2, "press", 20)]
    told: list[RulesApplied] = []

    async def ask(parent: Parent) -> None:
        await moved(parent)
        await parent.until(lambda: any(isinstance(m, RulesApplied) for m in parent.heard))
        parent.channel.send(Query(1, "stats", {"sensor_id": "sensor-1-0"}, 40, True))
        await parent.until(lambda: any(isinstance(m, Answer) for m in parent.heard))

    async def whole() -> Parent:
        parent = Parent(rules)
        assert await parent.serve(folder, ask) == 0
        return parent

    for _ in range(2):
        parent = asyncio.run(whole())
        told += [m for m in parent.heard if isinstance(m, RulesApplied)]
        answer = next(m for m in parent.heard if isinstance(m, Answer))
        assert b'"sensor_id":"press"' in answer.body
        assert b'"count":4' in answer.body
        assert ("sensor-1-0", "value") not in parent.names()
    assert told == [RulesApplied(2, {2: 4})] * 2


def test_rules_that_are_gone_are_told_and_lead_to_a_rebuild(folder: Path) -> None:
    async def whole(rules: list[NameRule], scenario: Callable[[Parent], Any]) -> Parent:
        parent = Parent(rules)
        parent.code = await parent.serve(folder, scenario)
        return parent

    async def told(parent: Parent) -> None:
        await parent.until(lambda: any(isinstance(m, RulesLost) for m in parent.heard))

    asyncio.run(whole([forget(1, "sensor-1-0", 40)], moved))
    parent = asyncio.run(whole([], told))
    assert parent.code == EXIT_CRASHED
    assert RulesLost("'sensor-1-0' forgotten up to id 40") in parent.heard
    parent = asyncio.run(whole([], moved))
    assert ("sensor-1-0", "value") in parent.names()
    assert "other rules" in next(m for m in parent.heard if isinstance(m, Hello)).rebuild_reason


def test_without_rules_it_begins_after_a_while_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def troubled(parent: Parent) -> bool:
        return any(isinstance(m, Report) and m.trouble == NO_WORD for m in parent.heard)

    async def whole(wait_s: float, scenario: Callable[[Parent], Any]) -> Parent:
        monkeypatch.setattr(analytics_process, "RULES_WAIT_S", wait_s)
        parent = Parent(None)
        assert await parent.serve(folder, scenario) == 0
        return parent

    async def until_said(parent: Parent) -> None:
        await parent.until(lambda: troubled(parent) and parent.watermark() == 40)

    async def until_reported(parent: Parent) -> None:
        await parent.until(lambda: any(isinstance(m, Report) for m in parent.heard))

    assert asyncio.run(whole(1e6, until_reported)).watermark() == 0
    asyncio.run(whole(0, until_said))


def test_everything_is_read_once_and_before_the_mover_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    series, start = AnalyticsStore.series, Mover.start

    def counted(store: AnalyticsStore) -> Any:
        calls.append("series")
        return series(store)

    def started(mover: Mover) -> None:
        calls.append("start")
        start(mover)

    monkeypatch.setattr(AnalyticsStore, "series", counted)
    monkeypatch.setattr(Mover, "start", started)
    serve(folder, moved)
    assert calls == ["series", "start"]


def test_a_slow_query_does_not_delay_a_stop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def slow(_engine: QueryEngine, session: Session, _request: object) -> Any:
        begun.set()
        return session.rows(
            "SELECT sum(a.range * b.range) FROM range(10000000) a, range(99999) b", ()
        )

    monkeypatch.setitem(
        QueryEngine.answer_request.__globals__["_METHODS"],
        analytics_request("stats"),
        slow,
    )
    ended = []

    async def ask(parent: Parent) -> None:
        await moved(parent)
        for number in range(5):
            parent.channel.send(Query(number, "stats", {"sensor_id": "sensor-1-0"}, 40, False))
        assert await asyncio.to_thread(begun.wait, 20)
        ended.append(asyncio.get_running_loop().time())

    async def whole() -> tuple[int, float]:
        code = await Parent().serve(folder, ask)
        return code, asyncio.get_running_loop().time() - ended[0]

    code, took_s = asyncio.run(whole())
    assert code == 0
    assert took_s < 3


def analytics_request(name: str) -> type:
    from ocean_core.service.queries.requests import parse_request

    return type(parse_request(name, {"sensor_id": "s"}))


@pytest.mark.parametrize("waits", [False, True])
def test_rows_that_differ_lead_to_a_rebuild_when_all_was_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, waits: bool
) -> None:
    serve(folder, moved)
    with duckdb.connect(str(folder / "analytics.duckdb")) as file:
        file.execute("DELETE FROM readings WHERE id = 7")

    async def ask(parent: Parent, number: int, after_id: int) -> None:
        parent.channel.send(Query(number, "verify", {"after_id": after_id}, 40, True))
        await parent.until(
            lambda: any(isinstance(m, Answer) and m.id == number for m in parent.heard)
        )

    async def verify(parent: Parent) -> None:
        await moved(parent)
        await ask(parent, 1, 0)
        if waits:
            # Time goes by; a step follows, also with nothing to find, and it begins anew.
            await ask(parent, 2, 40)
            assert not parent.process._ended.is_set()
            assert parent.process._rebuild_timer is not None
            ends_in = parent.process._rebuild_timer.when() - parent.process._loop.time()
            assert 0 < ends_in <= analytics_process.REBUILD_DELAY_S
            return
        async with asyncio.timeout(20):
            await parent.process._ended.wait()

    if not waits:
        monkeypatch.setattr(analytics_process, "REBUILD_DELAY_S", 0.0)
    parent, code = serve(folder, verify)
    answer = next(m for m in parent.heard if isinstance(m, Answer))
    assert b'"absent":1' in answer.body
    assert code == (0 if waits else EXIT_DAMAGED)
    parent, code = serve(folder, moved)
    assert code == 0
    assert isinstance(parent.heard[0], Hello)
    assert "verify found rows that differ, ids 1-40: 1 absent" in parent.heard[0].rebuild_reason


def test_the_rebuild_is_not_put_off_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analytics_process, "REBUILD_DELAY_MAX_S", 0.0)

    async def differ(parent: Parent) -> None:
        await moved(parent)
        parent.process._rows_differ("told by a test")
        parent.process._rows_differ("told by a test")
        async with asyncio.timeout(20):
            await parent.process._ended.wait()

    assert serve(folder, differ)[1] == EXIT_DAMAGED


def test_without_space_it_ends_and_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise StoreIOError("no space left")

    monkeypatch.setattr(AnalyticsStore, "open", no_space)
    parent, code = serve(folder, nothing)
    assert code == EXIT_UNOPENED
    assert parent.heard == []
    assert "no space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "starts"), [(duckdb.IOException, 1), (duckdb.InternalException, 2)]
)
def test_damage_found_while_starting_leads_to_a_rebuild(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], starts: int
) -> None:
    serve(folder, moved)

    def fail(*_: object) -> None:
        raise error("unexpected")

    with monkeypatch.context() as patch:
        patch.setattr(LiveWindow, "warm", fail)
        for number in range(starts):
            assert (folder / "analytics.suspect").exists() is False, number
            assert serve(folder, nothing)[1] == EXIT_DAMAGED
    parent, code = serve(folder, moved)
    assert code == 0
    assert isinstance(parent.heard[0], Hello)
    assert "unexpected" in parent.heard[0].rebuild_reason
