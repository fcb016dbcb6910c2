"""The ingest process's end of the line to analytics: asks, matches answers, keeps the last report."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocean_core.model import limits
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    QueriesFullError,
    QueryTimeoutError,
)
from ocean_core.model.naming import NO_RULES, NameRule, Names
from ocean_core.service.channel import Channel
from ocean_core.service.messages import (
    Answer,
    CancelWork,
    Damage,
    Head,
    Hello,
    JournalDamaged,
    Message,
    Query,
    Report,
    Rules,
    RulesApplied,
    RulesLost,
    Sealed,
    SeriesKnown,
    Stop,
    WatermarkAhead,
    Work,
    WorkDone,
    WorkProgress,
    restore_error,
)


def _ignore(*_: object) -> None:
    return


# Beyond the analytics process's own time limit: it answers timeouts itself while it is well.
_GRACE_S = 5.0


@dataclass
class LinkHandlers:
    """What the composition root does with messages that are no answers."""

    hello: Callable[[Hello], None]
    series: Callable[[list[tuple[str, str]]], None]
    report: Callable[[Report], None]
    damage: Callable[[list[tuple[int, int]]], None]
    journal_damaged: Callable[[str], None]
    watermark_ahead: Callable[[int, int], None]
    closed: Callable[[], None]
    rules_applied: Callable[[dict[int, int]], None] = _ignore
    """Told how many rows each rule that forgets made vanish; again after each restart."""
    rules_lost: Callable[[str], None] = _ignore
    """Told which rules analytics followed and no longer will."""
    sealed: Callable[[int], None] = _ignore
    """Told up to which id everything is in the archive; again after each restart."""


@dataclass(frozen=True, slots=True)
class _Working:
    done: asyncio.Future[bytes]
    on_progress: Callable[[WorkProgress], None]


class AnalyticsLink:
    """Asks the analytics process, whichever is connected at the moment."""

    def __init__(
        self,
        head_id: Callable[[], int],
        query_timeout_s: int,
        handlers: LinkHandlers,
        *,
        rules: Sequence[NameRule] | None = (),
    ) -> None:
        """With ``rules`` None they are not known yet: ``set_rules`` brings them."""
        self._head_id = head_id
        self._timeout_s = query_timeout_s + _GRACE_S
        self._handlers = handlers
        self._channel: Channel | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._next_id = 1
        self._working: dict[int, _Working] = {}
        self._rules = None if rules is None else list(rules)
        self._syncing: list[tuple[int, asyncio.Future[dict[int, int]]]] = []
        self.names = NO_RULES if rules is None else Names(rules)
        """The rules about names, prepared for questions."""
        self.hello: Hello | None = None
        self.report: Report | None = None

    @property
    def is_up(self) -> bool:
        """Whether queries can be answered now."""
        return self.hello is not None and self._channel is not None and self._channel.is_open

    @property
    def watermark(self) -> int:
        """Id of the last reading known to be in analytics, 0 before the first word of it."""
        if self.report is not None:
            return self.report.watermark
        return self.hello.watermark if self.hello is not None else 0

    async def connect(self, sock: socket.socket) -> None:
        """Talk to a newly started analytics process over its end of the socket pair."""
        self.hello = None
        self.report = None
        self._channel = await Channel.over(sock, self._receive, self._lost)
        if self._rules is not None:
            self._channel.send(Rules(self._rules))

    def tell_head(self, head_id: int) -> None:
        """Say that the journal has grown."""
        if self._channel is not None:
            self._channel.send(Head(head_id))

    def set_rules(self, rules: Sequence[NameRule]) -> None:
        """Say which rules about names there are, all of them in the order of their ids.

        They are said again to each analytics process that starts.
        """
        self._rules = list(rules)
        self.names = Names(rules)
        if self._channel is not None:
            self._channel.send(Rules(self._rules))

    async def sync_rules(self, rules: Sequence[NameRule], timeout_s: float) -> dict[int, int]:
        """``set_rules``, and wait until they show in answers.

        Return, for each rule that forgets, how many readings and events it made vanish. Raises
        AnalyticsUnavailableError if analytics are not up, are restarted, or take longer than
        ``timeout_s``; the rules are followed nevertheless, as soon as that is possible.
        """
        self.set_rules(rules)
        if not self.is_up:
            raise AnalyticsUnavailableError("analytics are starting", retry_after_s=1)
        done: asyncio.Future[dict[int, int]] = asyncio.get_running_loop().create_future()
        entry = (self.names.last_rule, done)
        self._syncing.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError as error:
            raise AnalyticsUnavailableError(
                f"analytics did not follow within {timeout_s:g} s; they will", retry_after_s=5
            ) from error
        finally:
            self._syncing.remove(entry)

    def ask_to_stop(self) -> None:
        """Ask for a clean end."""
        if self._channel is not None:
            self._channel.send(Stop())

    def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            self._channel.close()

    async def query(self, name: str, params: Mapping[str, Any], *, wait: bool = False) -> bytes:
        """Return the answer's JSON.

        Raises the errors of analytics as they were raised there, AnalyticsUnavailableError while
        the process is not up, and QueriesFullError beyond QUERIES_WAITING_MAX.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            raise AnalyticsUnavailableError("analytics are starting", retry_after_s=1)
        if len(self._waiting) >= limits.QUERIES_WAITING_MAX:
            raise QueriesFullError(f"{len(self._waiting)} queries are waiting", retry_after_s=1)
        query_id = self._next_id
        self._next_id += 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[query_id] = answer
        channel.send(Query(query_id, name, dict(params), self._head_id(), wait))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as error:
            raise QueryTimeoutError(f"no answer after {self._timeout_s:g} s") from error
        finally:
            self._waiting.pop(query_id, None)

    async def work(
        self, kind: str, params: Mapping[str, Any], on_progress: Callable[[WorkProgress], None]
    ) -> bytes:
        """Have long work done and return its result as JSON; cancelling this cancels the work.

        Raises the errors of analytics as they were raised there, AnalyticsUnavailableError while
        the process is not up or when it is restarted.
        """
        channel = self._channel
        if channel is None or not self.is_up:
            raise AnalyticsUnavailableError("analytics are starting", retry_after_s=1)
        work_id = self._next_id
        self._next_id += 1
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._working[work_id] = _Working(done, on_progress)
        channel.send(Work(work_id, kind, dict(params)))
        try:
            return await done
        except asyncio.CancelledError:
            channel.send(CancelWork(work_id))
            raise
        finally:
            self._working.pop(work_id, None)

    def _work_told(self, message: WorkProgress | WorkDone) -> None:
        working = self._working.get(message.id)
        if working is None or working.done.done():
            return
        if isinstance(message, WorkProgress):
            working.on_progress(message)
        elif message.error is None:
            working.done.set_result(message.body)
        else:
            working.done.set_exception(restore_error(message.error))

    def _receive(self, message: Message) -> None:
        handlers = self._handlers
        match message:
            case Answer():
                self._settle(message)
            case Report():
                self.report = message
                handlers.report(message)
            case Hello():
                self.hello = message
                handlers.hello(message)
            case SeriesKnown():
                handlers.series(message.names)
            case RulesApplied():
                self._rules_applied(message)
            case RulesLost():
                handlers.rules_lost(message.detail)
            case WorkProgress() | WorkDone():
                self._work_told(message)
            case Sealed():
                handlers.sealed(message.up_to_id)
            case Damage():
                handlers.damage(message.ranges)
            case JournalDamaged():
                handlers.journal_damaged(message.reason)
            case WatermarkAhead():
                handlers.watermark_ahead(message.first, message.last)
            case _:
                raise AssertionError(f"not for this end: {type(message).__name__}")

    def _rules_applied(self, message: RulesApplied) -> None:
        for rule_id, done in self._syncing:
            if rule_id <= message.up_to_rule and not done.done():
                done.set_result(message.forgotten)
        self._handlers.rules_applied(message.forgotten)

    def _settle(self, message: Answer) -> None:
        waiting = self._waiting.get(message.id)
        if waiting is None or waiting.done():
            return
        if message.error is None:
            waiting.set_result(message.body)
        else:
            waiting.set_exception(restore_error(message.error))

    def _lost(self) -> None:
        self.hello = None
        lost: list[asyncio.Future[Any]] = [*self._waiting.values()]
        lost += [done for _, done in self._syncing]
        lost += [working.done for working in self._working.values()]
        for waiting in lost:
            if not waiting.done():
                waiting.set_exception(
                    AnalyticsUnavailableError("analytics were restarted", retry_after_s=1)
                )
        self._handlers.closed()
