"""Consumer groups: what a group has not processed yet, and the marks that it has."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from ocean_core.buffer.port import ConsumerGroups, GroupState, StoredRow
from ocean_core.model.access import Origin
from ocean_core.model.errors import UnknownRecordError
from ocean_core.model.naming import Names
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.storage.operational import audit
from ocean_core.storage.operational.store import OperationalStore

_MANY_ROWS: Final = 500
_PASSED_OVER_MAX: Final = 20
"""Pages of nothing but forgotten readings that one request passes over."""


class UnprocessedRow(msgspec.Struct, omit_defaults=True):
    """A reading or an event; ``metric`` and ``value`` are null for an event.

    ``data`` is text, as in the original: the number of a reading; of an event the text that came,
    or the JSON text of anything else that came. ``encoding`` is there, and says base64, only when
    the bytes are no text.
    """

    id: int
    sensor_id: str
    timestamp: str
    metric: str | None
    value: float | None
    quality: int
    data: str
    kind: str
    encoding: str = ""


class UnprocessedAnswer(msgspec.Struct):
    """What a group has not processed, the oldest first.

    Fewer than asked for does not mean that there is no more: large rows make a page shorter.
    """

    group: str
    count: int
    data: list[UnprocessedRow]


class MarkAnswer(msgspec.Struct):
    """How many different ids were marked now, and how many had been before."""

    processed: int
    success: bool
    already: int


class GroupInfo(msgspec.Struct):
    """A consumer group. It has processed everything up to the id ``cursor``, and more ``ahead``.

    ``pending`` are not processed, ``evicted`` were deleted before the group processed them.
    """

    name: str
    cursor: int
    ahead: int
    pending: int
    evicted: int


class GroupList(msgspec.Struct):
    """All groups by name."""

    groups: list[GroupInfo]


class GroupForgotten(msgspec.Struct):
    """The group is gone; used again it starts at the first reading that is kept."""

    name: str
    forgotten: bool


class GroupService:
    """What the routes of consumer groups call."""

    def __init__(
        self,
        buffer: ConsumerGroups,
        store: OperationalStore,
        clock: Clock,
        names: Callable[[], Names],
    ) -> None:
        self._buffer = buffer
        self._names = names
        self._store = store
        self._clock = clock

    async def unprocessed(self, group: str, limit: int) -> bytes:
        """Return the JSON of the oldest rows that a group has not processed. Changes nothing.

        Sensors have their names of today. What was forgotten is left out, and marked in passing, so
        that it cannot hide what lies behind it. Raises what ``ConsumerGroups.read_unacknowledged``
        does.
        """
        names = self._names()
        kept: list[StoredRow] = []
        for _ in range(_PASSED_OVER_MAX):
            rows = await self._buffer.read_unacknowledged(group, limit)
            kept = [row for row in rows if not _is_forgotten(names, row)]
            if len(kept) == len(rows):
                break
            gone = [row.id for row in rows if _is_forgotten(names, row)]
            await self._buffer.acknowledge(group, gone)
            if kept:
                break
        if len(kept) > _MANY_ROWS:
            return await asyncio.to_thread(_unprocessed_json, group, kept, names)
        return _unprocessed_json(group, kept, names)

    async def mark(self, group: str, ids: Sequence[int]) -> MarkAnswer:
        """Mark ids as processed by a group. Raises what ``ConsumerGroups.acknowledge`` does."""
        done = await self._buffer.acknowledge(group, ids)
        return MarkAnswer(done.newly, True, done.already)

    def groups(self) -> GroupList:
        """Return all groups by name."""
        return GroupList([_info(state) for state in self._buffer.groups()])

    async def forget(self, group: str, origin: Origin) -> GroupForgotten:
        """Delete a group. Raises UnknownRecordError, and buffer and store errors."""
        known = {state.name: state for state in self._buffer.groups()}
        if group not in known:
            raise UnknownRecordError(f"there is no group {group[:80]!r}")
        # Not one transaction, for these are two files. The audit log comes first: an act must not
        # go unrecorded because the log cannot be written.
        detail: dict[str, object] = {"cursor": known[group].cursor, "pending": known[group].pending}
        now_us = self._clock.now_us()
        await self._store.write(
            partial(
                audit.record,
                now_us=now_us,
                origin=origin,
                act="groups.forget",
                subject=group,
                detail=detail,
            )
        )
        await self._buffer.forget_group(group)
        return GroupForgotten(group, True)


def _info(state: GroupState) -> GroupInfo:
    return GroupInfo(state.name, state.cursor, state.ahead, state.pending, state.evicted)


def _is_forgotten(names: Names, row: StoredRow) -> bool:
    if row.id > names.forgets_up_to:
        return False
    return any(row.id <= up_to_id for up_to_id, _ in names.forgotten(row.sensor_id))


def _unprocessed_json(group: str, rows: list[StoredRow], names: Names) -> bytes:
    shown = [_row(row, names.shown(row.sensor_id)) for row in rows]
    return msgspec.json.encode(UnprocessedAnswer(group, len(rows), shown))


def _row(row: StoredRow, sensor_id: str) -> UnprocessedRow:
    timestamp = iso_utc(row.timestamp_us)
    if row.payload is None:
        assert row.value is not None
        number = repr(row.value).removesuffix(".0")
        return UnprocessedRow(
            row.id, sensor_id, timestamp, row.metric, row.value, row.quality, number, "reading"
        )
    text, encoding = _text_of(row.payload)
    return UnprocessedRow(
        row.id, sensor_id, timestamp, None, None, row.quality, text, "event", encoding
    )


def _text_of(payload: bytes) -> tuple[str, str]:
    """Return a payload as text, and its encoding if that is not plain."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode(), "base64"
    if text.startswith('"'):
        try:
            return msgspec.json.decode(payload, type=str), ""
        except (msgspec.DecodeError, UnicodeDecodeError):
            return text, ""
    return text, ""
