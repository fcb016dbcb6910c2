"""The consumer groups of the embedded journal, as the event loop uses them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import apsw

from ocean_core.buffer.embedded.failures import translate
from ocean_core.buffer.embedded.groups import MarkRequest
from ocean_core.buffer.embedded.settings import JournalSettings
from ocean_core.buffer.embedded.store import JournalStore
from ocean_core.buffer.embedded.unread import UnreadReader
from ocean_core.buffer.embedded.writer import JournalWriter
from ocean_core.buffer.port import Acknowledged, BufferState, GroupState, IdRange, StoredRow
from ocean_core.buffer.ranges import GroupMarks, IdRanges
from ocean_core.model.errors import (
    BufferFullError,
    FieldProblem,
    InvalidInputError,
    OceanError,
)
from ocean_core.model.limits import GROUP_NAME_BYTES_MAX, MARK_IDS_MAX, UNPROCESSED_PAGE_MAX

_WAITING_MAX: Final = 1024
_WAITING_IDS_MAX: Final = 10 * MARK_IDS_MAX
_MANY_IDS: Final = 5_000

Waiting = tuple[MarkRequest, "asyncio.Future[Acknowledged]"]


class Consumers:
    """Marks and reads for consumer groups.

    Requests to mark that wait together are one transaction, as those to append are.
    """

    def __init__(
        self,
        writer: JournalWriter,
        settings: JournalSettings,
        report_damage: Callable[[list[IdRange]], None],
    ) -> None:
        self._writer = writer
        self._unread = UnreadReader(settings.path, settings.vfs, report_damage)
        self._waiting: deque[Waiting] = deque()
        self._waiting_ids = 0
        self._is_queued = False

    async def acknowledge(self, group: str, ids: Sequence[int]) -> Acknowledged:
        """Mark ids as read; see ``ConsumerGroups.acknowledge``."""
        check_group_name(group)
        self._require_ready()
        if not ids:
            return Acknowledged(0, 0)
        if len(ids) > MARK_IDS_MAX:
            raise InvalidInputError(
                f"{len(ids)} ids in one request",
                fields=(FieldProblem("ids", f"{len(ids)} ids", f"at most {MARK_IDS_MAX}"),),
            )
        if len(self._waiting) >= _WAITING_MAX or self._waiting_ids > _WAITING_IDS_MAX:
            raise BufferFullError("more marks wait for the disk than may", retry_after_s=1)
        _check_ids(ids, self._writer.head_id)
        self._waiting_ids += len(ids)
        try:
            # Ten thousand Python numbers take a millisecond to make a column of.
            few = len(ids) <= _MANY_IDS
            ranges = IdRanges.of_ids(ids) if few else await asyncio.to_thread(IdRanges.of_ids, ids)
            return await self._mark(MarkRequest(group, ranges))
        finally:
            self._waiting_ids -= len(ids)

    async def _mark(self, request: MarkRequest) -> Acknowledged:
        future: asyncio.Future[Acknowledged] = asyncio.get_running_loop().create_future()
        waiting = request, future
        self._waiting.append(waiting)
        if not self._is_queued:
            self._is_queued = True
            try:
                self._writer.put_task(self._mark_waiting)
            except OceanError:
                self._is_queued = False
                self._waiting.remove(waiting)
                raise
        return await future

    def _mark_waiting(self, store: JournalStore | None) -> None:
        """Write the marks of everyone who waits; on the writer's thread."""
        # Before looking: whoever comes later queues this again.
        self._is_queued = False
        waiting: list[Waiting] = []
        while self._waiting:
            waiting.append(self._waiting.popleft())
        outcomes: list[Acknowledged | OceanError]
        failure: Exception | None = None
        if store is None:
            outcomes = [self._writer.refusal()] * len(waiting)
        else:
            try:
                outcomes = store.acknowledge([request for request, _ in waiting])
            except (OceanError, apsw.Error, OSError) as error:
                failure = error
                outcomes = [translate(error, store.db)] * len(waiting)
        self._writer.call_on_loop(
            _deliver, [(future, out) for (_, future), out in zip(waiting, outcomes, strict=True)]
        )
        if failure is not None:
            raise failure

    async def read_unacknowledged(self, group: str, limit: int) -> list[StoredRow]:
        """Return the oldest rows not read; see ``ConsumerGroups.read_unacknowledged``."""
        check_group_name(group)
        if not 1 <= limit <= UNPROCESSED_PAGE_MAX:
            raise InvalidInputError(
                f"limit is {limit}",
                fields=(FieldProblem("limit", str(limit), f"1 to {UNPROCESSED_PAGE_MAX}"),),
            )
        if self._writer.state in {BufferState.OPENING, BufferState.CLOSED}:
            raise self._writer.refusal()
        marks = self._writer.groups.get(group) or GroupMarks(0)
        # Only what is durable: behind it there may be what a failed sync has left.
        return await self._unread.read(marks, limit, self._writer.head_id)

    def groups(self) -> list[GroupState]:
        """Return the groups by name."""
        head_id = self._writer.head_id
        gone = IdRanges.of_ranges(self._writer.missing)
        states: list[GroupState] = []
        for name, marks in sorted(self._writer.groups.items()):
            pending = marks.ahead.union(gone).gaps(marks.cursor + 1, head_id).count
            states.append(GroupState(name, marks.cursor, marks.ahead.count, pending, marks.evicted))
        return states

    def _require_ready(self) -> None:
        if self._writer.state is not BufferState.READY:
            raise self._writer.refusal()

    async def close(self) -> None:
        """Let go of the file that is read."""
        await self._unread.close()


def check_group_name(name: str) -> None:
    """Raise InvalidInputError unless this can be the name of a group."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= GROUP_NAME_BYTES_MAX or not name.isprintable():
        expected = f"1 to {GROUP_NAME_BYTES_MAX} bytes of printable text"
        raise InvalidInputError(
            "group is no name of a consumer group",
            fields=(FieldProblem("group", ascii(name[:80]), expected),),
        )


def _check_ids(ids: Sequence[int], head_id: int) -> None:
    if min(ids) >= 1 and max(ids) <= head_id:
        return
    place, bad = next((i, id_) for i, id_ in enumerate(ids) if not 1 <= id_ <= head_id)
    given = f"the ids given out so far are 1 to {head_id}" if head_id else "no id was given out yet"
    raise InvalidInputError(
        f"ids[{place}] is {bad}; {given}",
        fields=(FieldProblem(f"ids[{place}]", str(bad)[:40], f"1 to {head_id}"),),
    )


def _deliver(answers: list[tuple[asyncio.Future[Acknowledged], Acknowledged | OceanError]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, Acknowledged):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
