"""Reads for a consumer group what it has not acknowledged: on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ocean_core.buffer.embedded.reader import JournalReader
from ocean_core.buffer.port import IdRange, StoredRow
from ocean_core.buffer.ranges import GroupMarks
from ocean_core.model.block import Block, Readings
from ocean_core.model.errors import BufferFullError
from ocean_core.model.limits import UNPROCESSED_BYTES_MAX, UNPROCESSED_DECODED_BYTES_MAX

_WAITING_MAX: Final = 64
_ROW_BYTES: Final = 21


class UnreadReader:
    """A read-only connection beside the writer, opened when it is first needed."""

    def __init__(
        self, path: Path, vfs: str | None, report_damage: Callable[[list[IdRange]], None]
    ) -> None:
        self._path = path
        self._vfs = vfs
        self._report_damage = report_damage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal-groups")
        self._reader: JournalReader | None = None
        self._waiting = 0

    async def read(self, marks: GroupMarks, limit: int, up_to_id: int) -> list[StoredRow]:
        """Return the oldest rows up to an id that are not acknowledged; see ``ConsumerGroups``."""
        if self._waiting >= _WAITING_MAX:
            raise BufferFullError("many consumers are reading already", retry_after_s=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._read, marks, limit, up_to_id
            )
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Let go of the file after the reads that wait."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _read(self, marks: GroupMarks, limit: int, up_to_id: int) -> list[StoredRow]:
        if self._reader is None:
            self._reader = JournalReader(self._path, vfs=self._vfs)
        page = _Page(marks, limit, up_to_id)
        damaged = self._reader.scan(page.wanted, page.take)
        if damaged:
            self._report_damage(damaged)
        return page.rows

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Page:
    """Rows gathered so far, and which id is wanted next (None: enough)."""

    def __init__(self, marks: GroupMarks, limit: int, up_to_id: int) -> None:
        self.rows: list[StoredRow] = []
        self._marks = marks
        self._limit = limit
        self._up_to_id = up_to_id
        self._bytes = 0
        self._decoded_bytes = 0
        self.wanted = self._next(1)

    def _next(self, first: int) -> int | None:
        wanted = self._marks.next_unread(first)
        return wanted if wanted <= self._up_to_id else None

    def take(self, block: Block) -> int | None:
        """Take what is not acknowledged of a block; return the id wanted next."""
        unread = self._marks.unread(block.first_id, min(block.last_id, self._up_to_id))
        for item in unread:
            for row in _rows(block, item):
                if len(self.rows) >= self._limit or self._bytes >= UNPROCESSED_BYTES_MAX:
                    return None
                self.rows.append(row)
                self._bytes += len(row.payload or b"")
        self._decoded_bytes += _ROW_BYTES * block.count
        if not isinstance(block.rows, Readings):
            self._decoded_bytes += sum(map(len, block.rows.payload))
        if self.rows and self._decoded_bytes >= UNPROCESSED_DECODED_BYTES_MAX:
            return None
        return None if len(self.rows) >= self._limit else self._next(block.last_id + 1)


def _rows(block: Block, ids: IdRange) -> Iterator[StoredRow]:
    rows = block.rows
    start = ids.first - block.first_id
    for place in range(start, start + ids.count):
        value = payload = None
        if isinstance(rows, Readings):
            value = float(rows.value[place])
        else:
            payload = rows.payload[place]
        sensor_id, metric = rows.series[int(rows.series_index[place])]
        yield StoredRow(
            id=block.first_id + place,
            sensor_id=sensor_id,
            metric=metric,
            timestamp_us=int(rows.timestamp_us[place]),
            quality=int(rows.quality[place]),
            value=value,
            payload=payload,
        )
