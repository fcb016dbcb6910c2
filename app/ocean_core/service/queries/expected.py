"""What analytics must hold for some ids, read from the journal and from nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ocean_core.buffer.port import IdRange, Losses
from ocean_core.buffer.ranges import IdRanges
from ocean_core.model.block import Block, Events, Readings, SeriesName
from ocean_core.model.naming import Names
from ocean_core.pipeline.forgotten import Remainder, without_forgotten
from ocean_core.service.queries.matching import Rows
from ocean_core.storage.analytics.batch import Int32Column

CHUNK_ROWS: Final = 120_000
CHUNK_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
"""What is compared at once; a chunk ends behind the block that reaches one of these."""


HOLE_IDS: Final = 10_000
"""More ids than this in a row that the journal does not hold make a chunk of their own."""


class JournalView(Protocol):
    """The journal, to be read beside its writer by one thread."""

    @property
    def epoch(self) -> str:
        """Identity of its id sequence."""
        ...

    def last_id(self) -> int:
        """Id of the last reading that it holds."""
        ...

    def scan(self, first_id: int | None, take: Callable[[Block], int | None]) -> list[IdRange]:
        """Give whole blocks to ``take`` until that returns None; return what was damaged."""
        ...

    def losses(self) -> Losses:
        """Tell which ids it knows not to hold."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class SeriesNumbers:
    """Numbers of series as analytics have them; a series that they lack gets a negative one."""

    def __init__(self, known: Iterable[tuple[int, str, str]], names: Names) -> None:
        self._numbers: dict[SeriesName, int] = {}
        self._names: dict[int, SeriesName] = {}
        for number, sensor_id, metric in known:
            self._numbers[sensor_id, metric] = number
            self._names[number] = (sensor_id, metric)
        self._rules = names
        self._by_stored: dict[SeriesName, int] = {}

    def of_stored(self, series: Sequence[SeriesName]) -> Int32Column:
        """Return the numbers for names under which rows came."""
        known = self._by_stored
        try:
            return np.array([known[name] for name in series], dtype=np.int32)
        except KeyError:
            for name in series:
                if name not in known:
                    known[name] = self._number((self._rules.shown(name[0]), name[1]))
            return np.array([known[name] for name in series], dtype=np.int32)

    def name(self, number: int) -> SeriesName:
        """Return what a series is called; analytics may hold a number that has no name."""
        return self._names.get(number, (f"series number {number}", ""))

    def _number(self, shown: SeriesName) -> int:
        number = self._numbers.get(shown)
        if number is None:
            number = self._numbers[shown] = -1 - len(self._names)
            self._names[number] = shown
        return number


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Ids behind ``after_id`` up to ``up_to_id``: what of them must be in analytics.

    With ``is_hole`` the journal holds none of them; they may be any number.
    ``held_…`` count what the journal holds. The rest of the ids is ``damaged`` (it should be there
    whole), known to be ``missing``, or ``trimmed``. ``forgotten`` counts rows by the rule that made
    them vanish.
    """

    after_id: int
    up_to_id: int
    is_hole: bool
    readings: Rows
    events: Rows
    held_readings: int
    held_events: int
    damaged: IdRanges
    missing: IdRanges
    trimmed: IdRanges
    forgotten: dict[int, int]


class ChunkReader:
    """Reads chunk after chunk. ``check`` is called for each block and may raise to end it all."""

    def __init__(
        self,
        journal: JournalView,
        names: Names,
        numbers: SeriesNumbers,
        *,
        is_late: Callable[[], bool],
        check: Callable[[], None],
    ) -> None:
        """``is_late`` tells that a chunk is to end with the present block."""
        self._journal = journal
        self._names = names
        self._numbers = numbers
        self._is_late = is_late
        self._check = check

    def read(self, after_id: int, limit_id: int) -> Chunk:
        """Return the chunk behind ``after_id``, which reaches no further than ``limit_id``.

        Raises BufferUnavailableError, StoreCorruptError, and what ``check`` raises.
        """
        blocks, found, up_to_id = self._blocks(after_id, limit_id)
        gone = IdRanges.of_ranges(IdRange(b.first_id, b.last_id) for b in blocks).gaps(
            after_id + 1, up_to_id
        )
        # What was deleted before the blocks were read is noted by now.
        losses = self._journal.losses()
        known = IdRanges.of_ranges(losses.missing)
        noted = known.union(IdRanges.of_ranges([IdRange(0, losses.trimmed_up_to)]))
        # Less what a whole block holds: of a damaged row its id may be wrong, too.
        broken = _common(IdRanges.of_ranges(found), gone)
        damaged = broken.union(_less(gone, noted))
        left = _less(gone, damaged)
        forgotten: dict[int, int] = {}
        chosen: Sequence[Block | Remainder] = blocks
        if blocks and blocks[0].first_id <= self._names.forgets_up_to:
            chosen = without_forgotten(blocks, self._names, forgotten)
        return Chunk(
            after_id,
            up_to_id,
            not blocks,
            self._rows(chosen, Readings).within(after_id + 1, up_to_id),
            self._rows(chosen, Events).within(after_id + 1, up_to_id),
            _held(blocks, Readings, after_id, up_to_id),
            _held(blocks, Events, after_id, up_to_id),
            damaged,
            _common(left, known),
            _less(left, known),
            forgotten,
        )

    def _blocks(self, after_id: int, limit_id: int) -> tuple[list[Block], list[IdRange], int]:
        """Return blocks, what was damaged between them, and up to which id that is everything."""
        blocks: list[Block] = []
        rows = size = 0
        position, end = after_id, limit_id

        def take(block: Block) -> int | None:
            nonlocal rows, size, position, end
            self._check()
            if block.first_id > position + HOLE_IDS + 1 or block.first_id > limit_id:
                end = position if blocks else min(block.first_id - 1, limit_id)
                return None
            blocks.append(block)
            position = min(block.last_id, limit_id)
            rows += block.count
            if isinstance(block.rows, Events):
                size += sum(map(len, block.rows.payload))
            if rows >= CHUNK_ROWS or size >= CHUNK_PAYLOAD_BYTES or self._is_late():
                end = position
                return None
            return block.last_id + 1

        damaged = self._journal.scan(after_id + 1, take)
        if blocks and end > position + HOLE_IDS:
            end = position
        return blocks, damaged, end

    def _rows(self, blocks: Sequence[Block | Remainder], kind: type[Readings | Events]) -> Rows:
        chosen = [block for block in blocks if isinstance(block.rows, kind)]
        if not chosen:
            return _NONE if kind is Readings else _NO_EVENTS
        numbers = [self._numbers.of_stored(b.rows.series)[b.rows.series_index] for b in chosen]
        return Rows(
            id=np.concatenate([_ids(block) for block in chosen]),
            series_id=np.concatenate(numbers),
            ts_us=np.concatenate([block.rows.timestamp_us for block in chosen], dtype=np.int64),
            content=np.concatenate([_content(block.rows) for block in chosen]),
            quality=np.concatenate(
                [block.rows.quality for block in chosen], dtype=np.uint8, casting="unsafe"
            ),
        )


def _ids(block: Block | Remainder) -> npt.NDArray[np.int64]:
    if isinstance(block, Remainder):
        return block.ids
    return np.arange(block.first_id, block.last_id + 1, dtype=np.int64)


def _content(rows: Readings | Events) -> npt.NDArray[Any]:
    """Return the bits of values (0.0 is not -0.0), or texts as analytics keep them."""
    if isinstance(rows, Readings):
        return np.asarray(rows.value, dtype=np.float64).view(np.int64)
    texts = np.empty(len(rows), dtype=object)
    texts[:] = [item.decode("utf-8", "replace") for item in rows.payload]
    return texts


def _held(
    blocks: Sequence[Block], kind: type[Readings | Events], after_id: int, up_to_id: int
) -> int:
    return sum(
        min(block.last_id, up_to_id) - max(block.first_id, after_id + 1) + 1
        for block in blocks
        if isinstance(block.rows, kind)
    )


def _less(ids: IdRanges, others: IdRanges) -> IdRanges:
    """Return the ids that are not among the others."""
    return IdRanges.of_ranges(part for run in ids for part in others.gaps(run.first, run.last))


def _common(ids: IdRanges, others: IdRanges) -> IdRanges:
    """Return the ids that are among the others, too."""
    return IdRanges.of_ranges(part for run in ids for part in others.within(run.first, run.last))


_NOTHING: Final = np.zeros(0, dtype=np.int64)
_NONE: Final = Rows(
    _NOTHING, np.zeros(0, dtype=np.int32), _NOTHING, _NOTHING, np.zeros(0, dtype=np.uint8)
)
_NO_EVENTS: Final = Rows(
    _NOTHING, np.zeros(0, dtype=np.int32), _NOTHING, np.zeros(0, dtype=object),
    np.zeros(0, dtype=np.uint8),
)  # fmt: skip
