"""The line between the processes: whole messages in order, errors as they were, no one left waiting."""

import asyncio
import socket

import pytest

from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    FieldProblem,
    QueriesFullError,
    QueryError,
    all_error_classes,
)
from ocean_core.service.analytics_link import AnalyticsLink, LinkHandlers
from ocean_core.service.channel import Channel
from ocean_core.service.messages import (
    Answer,
    Head,
    Hello,
    Message,
    Query,
    Report,
    pack_message,
    report_error,
    restore_error,
)


def test_messages_survive_any_cutting() -> None:
    sent: list[Message] = [Head(1), Query(1, "stats", {"sensor_id": "ä"}, 5, wait=True), Head(2)]
    data = b"".join(pack_message(message) for message in sent)
    for size in (1, 3, 7, len(data)):
        received: list[Message] = []
        channel = Channel(received.append, lambda: None)
        for start in range(0, len(data), size):
            channel.data_received(data[start : start + size])
        assert received == sent


@pytest.mark.parametrize("cls", all_error_classes())
def test_errors_come_out_as_they_went_in(cls: type) -> None:
    error = cls("what happened", fields=(FieldProblem("f", "x", "y", 3),), retry_after_s=4)
    again = restore_error(report_error(error))
    assert type(again) is cls
    assert (again.detail, again.hint, again.fields, again.retry_after_s) == (
        error.detail,
        error.hint,
        error.fields,
        error.retry_after_s,
    )


class Rig:
    """A link and a scripted analytics process at its other end."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.reported: list[Report] = []
        self.ready = asyncio.Event()
        self.queries: asyncio.Queue[Query] = asyncio.Queue()
        self.link = AnalyticsLink(
            lambda: 42,
            5,
            LinkHandlers(
                hello=lambda _: self.ready.set(),
                series=lambda _: None,
                report=self.reported.append,
                damage=lambda _: None,
                journal_damaged=lambda _: None,
                watermark_ahead=lambda _first, _last: None,
                closed=self.lost.set,
            ),
        )

    def take(self, message: Message) -> None:
        if isinstance(message, Query):
            self.queries.put_nowait(message)

    async def connect(self) -> Channel:
        ours, theirs = socket.socketpair()
        other = await Channel.over(theirs, self.take, lambda: None)
        await self.link.connect(ours)
        self.other = other
        other.send(Hello(1, "epoch", 40, ""))
        async with asyncio.timeout(10):
            await self.ready.wait()
        return other


async def hang_up(rig: Rig) -> None:
    rig.other.close()
    async with asyncio.timeout(10):
        await rig.lost.wait()
        # The transports close their sockets in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)


def test_answers_find_their_question_whatever_the_order() -> None:
    async def scenario() -> None:
        rig = Rig()
        with pytest.raises(AnalyticsUnavailableError):
            await rig.link.query("stats", {})
        other = await rig.connect()
        one = asyncio.create_task(rig.link.query("stats", {"n": 1}))
        two = asyncio.create_task(rig.link.query("stats", {"n": 2}))
        async with asyncio.timeout(10):
            first, second = await rig.queries.get(), await rig.queries.get()
            assert first.head_id == 42
            other.send(Answer(second.id, b"second"))
            other.send(Answer(first.id, error=report_error(QueryError("bad"))))
            assert await two == b"second"
            with pytest.raises(QueryError, match="bad"):
                await one
        await hang_up(rig)

    asyncio.run(scenario())


def test_when_analytics_go_every_question_is_answered_with_that() -> None:
    async def scenario() -> None:
        rig = Rig()
        other = await rig.connect()
        asked = [asyncio.create_task(rig.link.query("stats", {})) for _ in range(3)]
        async with asyncio.timeout(10):
            await rig.queries.get()
            other.close()
            for task in asked:
                with pytest.raises(AnalyticsUnavailableError, match="restarted"):
                    await task
        await hang_up(rig)
        assert not rig.link.is_up

    asyncio.run(scenario())


def test_the_number_of_waiting_questions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocean_core.model.limits.QUERIES_WAITING_MAX", 2)

    async def scenario() -> None:
        rig = Rig()
        other = await rig.connect()
        asked = [asyncio.create_task(rig.link.query("stats", {})) for _ in range(2)]
        async with asyncio.timeout(10):
            await rig.queries.get()
            await rig.queries.get()
            with pytest.raises(QueriesFullError):
                await rig.link.query("stats", {})
            other.close()
            await asyncio.gather(*asked, return_exceptions=True)
        await hang_up(rig)

    asyncio.run(scenario())
