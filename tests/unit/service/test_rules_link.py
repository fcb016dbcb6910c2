"""Rules about names on the line: said first, said again, and waited for until they show."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ocean_core.model.errors import AnalyticsUnavailableError
from ocean_core.model.naming import NameRule
from ocean_core.service.analytics_link import AnalyticsLink, LinkHandlers
from ocean_core.service.channel import Channel
from ocean_core.service.messages import Head, Hello, Message, Rules, RulesApplied, RulesLost
from support.renaming import forget, rename

RULES = [rename(1, "a", "b"), forget(4, "b", 7)]


class Rig:
    """A link, and what arrives at its other end."""

    def __init__(self, rules: list[NameRule] | None) -> None:
        self.heard: list[Message] = []
        self.counts: list[dict[int, int]] = []
        self.told_lost: list[str] = []
        self._news = asyncio.Event()
        self.link = AnalyticsLink(
            lambda: 42,
            5,
            LinkHandlers(
                hello=lambda _: self._news.set(),
                series=lambda _: None,
                report=lambda _: None,
                damage=lambda _: None,
                journal_damaged=lambda _: None,
                watermark_ahead=lambda _first, _last: None,
                closed=self._news.set,
                rules_applied=self.count,
                rules_lost=self.lost,
            ),
            rules=rules,
        )

    def take(self, message: Message) -> None:
        self.heard.append(message)
        self._news.set()

    def count(self, counts: dict[int, int]) -> None:
        self.counts.append(counts)
        self._news.set()

    def lost(self, told: str) -> None:
        self.told_lost.append(told)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def connect(self, *, hello: bool = True) -> None:
        ours, theirs = socket.socketpair()
        self.other = await Channel.over(theirs, self.take, lambda: None)
        await self.link.connect(ours)
        if hello:
            self.other.send(Hello(1, "epoch", 40, ""))
            await self.until(lambda: self.link.is_up)

    async def hang_up(self) -> None:
        self.other.close()
        await self.until(lambda: self.link.hello is None)
        for _ in range(5):
            await asyncio.sleep(0)


def run(rules: list[NameRule] | None, scenario: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await scenario(Rig(rules))

    asyncio.run(whole())


def test_rules_are_the_first_word_to_every_process() -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(2):
            await rig.connect(hello=False)
            rig.link.tell_head(5)
            await rig.until(lambda: len(rig.heard) == 2)
            assert rig.heard == [Rules(RULES), Head(5)]
            rig.heard.clear()
            await rig.hang_up()

    run(RULES, scenario)


def test_rules_that_are_not_known_yet_are_not_said() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.connect()
        rig.link.tell_head(5)
        rig.link.set_rules(RULES)
        await rig.until(lambda: len(rig.heard) == 2)
        assert rig.heard == [Head(5), Rules(RULES)]
        assert rig.link.names.asked("a") == "b"
        await rig.hang_up()

    run(None, scenario)


def test_a_sync_ends_when_the_last_rule_shows() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.connect()
        waiting = asyncio.create_task(rig.link.sync_rules(RULES, 10))
        await rig.until(lambda: Rules(RULES) in rig.heard)
        rig.other.send(RulesApplied(1, {}))
        await rig.until(lambda: rig.counts == [{}])
        assert not waiting.done()
        rig.other.send(RulesApplied(4, {4: 3}))
        async with asyncio.timeout(10):
            assert await waiting == {4: 3}
        assert rig.counts == [{}, {4: 3}]
        await rig.hang_up()

    run([], scenario)


def test_rules_that_analytics_miss_are_told() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.connect()
        rig.other.send(RulesLost("'a' forgotten up to id 7"))
        await rig.until(lambda: rig.told_lost == ["'a' forgotten up to id 7"])
        await rig.hang_up()

    run(RULES, scenario)


def test_a_sync_without_analytics_fails_but_the_rules_are_kept() -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(AnalyticsUnavailableError, match="starting"):
            await rig.link.sync_rules(RULES, 10)
        await rig.connect()
        await rig.until(lambda: rig.heard)
        assert rig.heard == [Rules(RULES)]
        with pytest.raises(AnalyticsUnavailableError, match="within 0 s"):
            await rig.link.sync_rules(RULES, 0)
        waiting = asyncio.create_task(rig.link.sync_rules(RULES, 10))
        await asyncio.sleep(0)
        await rig.hang_up()
        with pytest.raises(AnalyticsUnavailableError, match="restarted"):
            await waiting

    run(None, scenario)
