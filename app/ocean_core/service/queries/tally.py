"""Adds up what the chunks of a step of ``verify`` have shown. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from ocean_core.buffer.port import IdRange
from ocean_core.buffer.ranges import IdRanges
from ocean_core.model import limits
from ocean_core.model.digest import add_digests, digest_text
from ocean_core.model.naming import Names
from ocean_core.service.queries.expected import Chunk, SeriesNumbers
from ocean_core.service.queries.matching import Match, Rows
from ocean_core.service.queries.verified import (
    Absence,
    Difference,
    ForgottenRows,
    LostRange,
    RowDifference,
    SeriesDifference,
    TotalsCheck,
    VerifyStep,
)

_DIFFERENCES: Final[tuple[Difference, ...]] = get_args(Difference)

Count = Callable[[int, int], int]
"""Says how many ids between two, both included, stand in analytics."""


class Tally:
    """Counts exactly; of what is listed it keeps the first, and of series the worst."""

    def __init__(self, numbers: SeriesNumbers, names: Names) -> None:
        self._numbers = numbers
        self._names = names
        self._readings = self._events = 0
        self._equal = 0
        self._differences: dict[Difference, int] = dict.fromkeys(_DIFFERENCES, 0)
        self._by_series: dict[int, dict[str, int]] = {}
        self._examples: list[RowDifference] = []
        self._gone: dict[Absence, int] = {"missing": 0, "damaged": 0, "trimmed": 0}
        self._kept = 0
        self._lost: list[LostRange] = []
        self._forgotten: dict[int, int] = {}
        self._digests = (0, 0)
        self.damaged: list[IdRange] = []
        """What the journal should hold whole and does not, to be told to its writer."""

    @property
    def rows(self) -> int:
        """How many rows of the journal were compared."""
        return self._readings + self._events

    def add(
        self,
        chunk: Chunk,
        readings: Match,
        events: Match,
        kept: npt.NDArray[np.int64],
        digests: tuple[int, int],
    ) -> None:
        """Add a chunk. ``kept`` are ids in analytics, in order, that the journal does not hold."""

        def count(first: int, last: int) -> int:
            low, high = np.searchsorted(kept, [first, last + 1])
            return int(high - low)

        self._add_journal(chunk, count)
        self._kept += len(kept)
        for found in (readings, events):
            self._equal += found.equal
            for difference in _DIFFERENCES:
                self._add_rows(difference, getattr(found, difference))
        first, second = self._digests
        self._digests = add_digests(first, digests[0]), add_digests(second, digests[1])

    def add_hole(self, chunk: Chunk, kept: int, count: Count) -> None:
        """Add ids of which the journal holds none, and analytics ``kept``."""
        self._add_journal(chunk, count)
        self._kept += kept

    def add_missing(self, missing: IdRanges) -> None:
        """Add ids that neither journal nor analytics hold."""
        self._add_gone("missing", missing, lambda _first, _last: 0)

    def add_strays(self, some: Sequence[tuple[int, int]], count: int) -> None:
        """Add ``count`` rows with ids that the journal gave nobody; ``some`` with series numbers."""
        self._differences["surplus"] += count
        for reading_id, number in some:
            self._note(reading_id, number, "surplus")

    def answer(
        self,
        *,
        after_id: int,
        up_to_id: int,
        next_after_id: int | None,
        watermark: int,
        head_id: int,
        waiting: int,
        totals: TotalsCheck | None,
    ) -> VerifyStep:
        """Return the step's answer."""
        forgotten = self._forgotten_sensors()
        return VerifyStep(
            after_id=after_id,
            up_to_id=up_to_id,
            next_after_id=next_after_id,
            watermark=watermark,
            head_id=head_id,
            waiting=waiting,
            readings=self._readings,
            events=self._events,
            forgotten=sum(forgotten.values()),
            **self._gone,
            kept=self._kept,
            equal=self._equal,
            **self._differences,
            digest_journal=digest_text(self._digests[0]),
            digest_analytics=digest_text(self._digests[1]),
            series_differing=len(self._by_series),
            series=self._worst(),
            examples=self._examples,
            lost=self._lost,
            forgotten_sensors=[
                ForgottenRows(name, count) for name, count in sorted(forgotten.items())
            ],
            totals=totals,
        )

    def _add_journal(self, chunk: Chunk, count: Count) -> None:
        self._readings += chunk.held_readings
        self._events += chunk.held_events
        for rule_id, rows in chunk.forgotten.items():
            self._forgotten[rule_id] = self._forgotten.get(rule_id, 0) + rows
        self._add_gone("damaged", chunk.damaged, count)
        self._add_gone("missing", chunk.missing, count)
        self._add_gone("trimmed", chunk.trimmed, count)
        self.damaged += list(chunk.damaged)

    def _add_gone(self, why: Absence, ids: IdRanges, count: Count) -> None:
        if not len(ids):
            return
        self._gone[why] += ids.count
        room = limits.VERIFY_RANGES_LISTED_MAX - len(self._lost)
        for found in list(ids)[: max(0, room)]:
            kept = count(found.first, found.last)
            self._lost.append(LostRange(found.first, found.last, why, kept))

    def _add_rows(self, difference: Difference, rows: Rows) -> None:
        if not len(rows):
            return
        self._differences[difference] += len(rows)
        numbers, counts = np.unique(rows.series_id, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._of_series(number)[difference] += count
        some = rows.take(np.arange(min(len(rows), limits.VERIFY_ROWS_LISTED_MAX)))
        for reading_id, number in zip(some.id.tolist(), some.series_id.tolist(), strict=True):
            self._note(reading_id, number, difference)

    def _of_series(self, number: int) -> dict[str, int]:
        return self._by_series.setdefault(number, dict.fromkeys(_DIFFERENCES, 0))

    def _note(self, reading_id: int, number: int, difference: Difference) -> None:
        if len(self._examples) < limits.VERIFY_ROWS_LISTED_MAX:
            sensor_id, metric = self._numbers.name(number)
            self._examples.append(RowDifference(reading_id, sensor_id, metric, difference))

    def _worst(self) -> list[SeriesDifference]:
        worst = heapq.nlargest(
            limits.VERIFY_SERIES_LISTED_MAX,
            self._by_series.items(),
            key=lambda item: sum(item[1].values()),
        )
        return [
            SeriesDifference(*self._numbers.name(number), *(counts[name] for name in _DIFFERENCES))
            for number, counts in worst
        ]

    def _forgotten_sensors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for rule in self._names.rules:
            count = self._forgotten.get(rule.id, 0)
            if count:
                name = self._names.asked(rule.sensor_id)
                found[name] = found.get(name, 0) + count
        return found
