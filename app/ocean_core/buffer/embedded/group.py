"""From the requests of one group to the blocks of one transaction. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ocean_core.buffer.embedded.rows import (
    BlockRow,
    Grown,
    KeyRow,
    add_growth,
    pack_keys,
    row_of,
    uuid_with_keys,
)
from ocean_core.model.block import (
    Block,
    Events,
    EventsBuilder,
    Readings,
    ReadingsBuilder,
    pack_block,
)
from ocean_core.model.limits import BLOCK_MERGE_ROWS_MAX, BLOCK_ROWS_MAX, MIB
from ocean_core.model.receipt import Intake, Owner, Receipt

EVENT_BLOCK_BYTES_MAX: Final = 16 * MIB


@dataclass(slots=True)
class Slot:
    """A block in the making; ``first_id`` is known once it is sealed."""

    first_id: int = 0
    rows: Readings | Events | None = None
    keys: list[KeyRow] = field(default_factory=list)
    usage: Grown = field(default_factory=dict)
    frames: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the rows of a request went: block, and position of its first row in it."""

    readings: tuple[Slot, int] | None
    events: tuple[Slot, int] | None

    def receipt(self, intake: Intake, arrival_us: int) -> Receipt:
        """Return the receipt; only after the plan is sealed."""
        timestamp_us = 0
        for rows in (intake.events, intake.readings):
            if rows is not None and len(rows):
                timestamp_us = int(rows.timestamp_us[0])
        return Receipt(
            first_reading_id=self.readings[0].first_id + self.readings[1] if self.readings else 0,
            first_event_id=self.events[0].first_id + self.events[1] if self.events else 0,
            arrival_us=arrival_us,
            items=intake.items,
            layout=intake.layout,
            rejects=intake.rejects,
            timestamp_us=timestamp_us,
            columnar=intake.columnar,
        )

    def keep(self, key: KeyRow) -> None:
        """Put a key beside every block that holds rows of its request."""
        for place in (self.readings, self.events):
            if place is not None:
                place[0].keys.append(key)

    def count(self, owner: Owner, rows: int) -> None:
        """Note beside the first block of a request whose rows they are."""
        place = self.readings or self.events
        if place is not None:
            add_growth(place[0].usage, owner.user_id, rows, rows if owner.charged else 0)

    def note_frames(self, frames: bytes) -> None:
        """Put the notes of frames beside the first block of their rows.

        Without rows there is nothing that could be stored twice, and nothing to note.
        """
        assert self.readings is None or self.events is None, "frames of both kinds of rows"
        place = self.readings or self.events
        if place is not None:
            place[0].frames += frames


class GroupPlan:
    """Merges requests into blocks. A request's rows keep dense ids, even across blocks."""

    def __init__(self, next_id: int, arrival_us: int, random_bytes: Callable[[int], bytes]) -> None:
        self.next_id = next_id
        self._arrival_us = arrival_us
        self._random_bytes = random_bytes
        self._slots: list[Slot] = []
        self._readings = ReadingsBuilder()
        self._readings_slot = Slot()
        self._events = EventsBuilder()
        self._events_slot = Slot()
        self._event_bytes = 0

    def add(self, intake: Intake) -> Placement:
        """Take the rows of one request."""
        readings = events = None
        if intake.readings is not None and len(intake.readings):
            readings = self._add_readings(intake.readings)
        if intake.events is not None and len(intake.events):
            events = self._add_events(intake.events)
        placement = Placement(readings, events)
        if intake.frames:
            placement.note_frames(intake.frames)
        return placement

    def _add_readings(self, rows: Readings) -> tuple[Slot, int]:
        if len(self._readings) and len(self._readings) + len(rows) > BLOCK_MERGE_ROWS_MAX:
            self._seal_readings()
        first_slot = self._readings_slot
        if len(rows) <= BLOCK_ROWS_MAX:
            return first_slot, self._readings.add(rows)
        for start in range(0, len(rows), BLOCK_ROWS_MAX):
            end = start + BLOCK_ROWS_MAX
            part = Readings(
                rows.series, rows.series_index[start:end], rows.timestamp_us[start:end],
                rows.value[start:end], rows.quality[start:end],
            )  # fmt: skip
            self._readings.add(part)
            self._seal_readings()
        return first_slot, 0

    def _add_events(self, rows: Events) -> tuple[Slot, int]:
        size = sum(map(len, rows.payload))
        count = len(self._events)
        if count and (
            count + len(rows) > BLOCK_MERGE_ROWS_MAX
            or self._event_bytes + size > EVENT_BLOCK_BYTES_MAX
        ):
            self._seal_events()
        assert len(rows) <= BLOCK_ROWS_MAX, len(rows)
        self._event_bytes += size
        return self._events_slot, self._events.add(rows)

    def _seal_readings(self) -> None:
        if len(self._readings):
            self._seal(self._readings_slot, self._readings.build())
            self._readings = ReadingsBuilder()
            self._readings_slot = Slot()

    def _seal_events(self) -> None:
        if len(self._events):
            self._seal(self._events_slot, self._events.build())
            self._events = EventsBuilder()
            self._events_slot = Slot()
            self._event_bytes = 0

    def _seal(self, slot: Slot, rows: Readings | Events) -> None:
        slot.first_id = self.next_id
        slot.rows = rows
        self.next_id += len(rows)
        self._slots.append(slot)

    def seal(self) -> None:
        """Give the remaining blocks their ids; then the receipts are known."""
        self._seal_readings()
        self._seal_events()

    def growth(self) -> Grown:
        """Return what all blocks add to usage; when all owners are known."""
        grown: Grown = {}
        for slot in self._slots:
            for user_id, (stored, charged) in slot.usage.items():
                add_growth(grown, user_id, stored, charged)
        return grown

    def rows(self) -> list[BlockRow]:
        """Return the rows for the database; last, when all keys are known."""
        rows: list[BlockRow] = []
        for slot in self._slots:
            assert slot.rows is not None
            keys = pack_keys(slot.keys, slot.usage, bytes(slot.frames))
            uuid = uuid_with_keys(self._random_bytes(12), keys)
            block = Block(slot.first_id, self._arrival_us, uuid, slot.rows)
            rows.append(row_of(block, pack_block(block), keys))
        return rows
