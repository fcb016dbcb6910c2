"""Rows that analytics must hold against the rows that they hold, one by one. No I/O.

The rule is simple: each id of the journal stands in analytics once, with the same series, time,
content and quality. Whole columns are compared; only where they differ is it found out how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Int64Column
from ocean_core.storage.analytics.batch import Int32Column

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Columns of readings or events. ``content`` is the value's 64 bits, or the payload's text."""

    id: Int64Column
    series_id: Int32Column
    ts_us: Int64Column
    content: npt.NDArray[Any]
    quality: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, which: npt.NDArray[Any]) -> Rows:
        """Return the rows at positions, or where a mask is true."""
        return Rows(
            self.id[which], self.series_id[which], self.ts_us[which],
            self.content[which], self.quality[which],
        )  # fmt: skip

    def within(self, first: int, last: int) -> Rows:
        """Return rows, which are in id order, with ids between two, both included."""
        if not len(self) or (self.id[0] >= first and self.id[-1] <= last):
            return self
        low = np.searchsorted(self.id, first)
        high = np.searchsorted(self.id, last, side="right")
        return self.take(np.arange(low, high))


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """What a comparison found.

    ``absent`` and ``changed`` are rows that must be there, ``doubled`` and ``surplus`` rows that
    are there; of a row that is there three times two are doubled.
    """

    equal: int
    absent: Rows
    changed: Rows
    doubled: Rows
    surplus: Rows


def match(expected: Rows, stored: Rows) -> Match:
    """Compare rows that must be there (in id order, each id once) with those that are, in any order."""
    none = expected.take(np.zeros(0, dtype=np.intp))
    stored, doubled = _each_once(stored)
    if len(expected) == len(stored) and bool((expected.id == stored.id).all()):
        same = _same(expected, stored)
        if same.all():
            return Match(len(expected), none, none, doubled, none)
        return Match(int(same.sum()), none, expected.take(~same), doubled, none)
    there = _positions(expected.id, stored.id)
    known = there >= 0
    here = there[known]
    absent = np.ones(len(expected), dtype=np.bool_)
    absent[here] = False
    pairs = expected.take(here)
    same = _same(pairs, stored.take(known))
    return Match(
        int(same.sum()), expected.take(absent), pairs.take(~same), doubled, stored.take(~known)
    )


def _each_once(stored: Rows) -> tuple[Rows, Rows]:
    """Return rows in id order with each id once, and those that were too many."""
    steps = np.diff(stored.id)
    if bool((steps > 0).all()):
        return stored, stored.take(np.zeros(0, dtype=np.intp))
    ordered = stored.take(np.argsort(stored.id, kind="stable"))
    again = np.zeros(len(ordered), dtype=np.bool_)
    again[1:] = np.diff(ordered.id) == 0
    return ordered.take(~again), ordered.take(again)


def _same(left: Rows, right: Rows) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = left.ts_us == right.ts_us
    same &= left.content == right.content
    same &= left.series_id == right.series_id
    same &= left.quality == right.quality
    return same


def _positions(wanted: Int64Column, ids: Int64Column) -> Positions:
    """Return where in ``wanted`` each id stands, -1 for nowhere; both rise."""
    if not len(wanted):
        return np.full(len(ids), -1, dtype=np.intp)
    places = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
    return np.where(wanted[places] == ids, places, -1)
