"""Leaves out what rules about names have made vanish, before anything else sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Block, Events, Int64Column, Readings
from ocean_core.model.naming import Names


class Remainder(NamedTuple):
    """What is left of a block: its ids are no longer dense."""

    first_id: int
    rows: Readings | Events
    ids: Int64Column


def without_forgotten(
    blocks: Sequence[Block], names: Names, dropped: dict[int, int]
) -> list[Block | Remainder]:
    """Return blocks less what is forgotten, counting by rule in ``dropped`` what was left out."""
    left: list[Block | Remainder] = []
    for block in blocks:
        keep = _kept(block, names, dropped)
        if keep is None:
            left.append(block)
        elif bool(keep.any()):
            left.append(_remainder(block, keep))
    return left


def _kept(block: Block, names: Names, dropped: dict[int, int]) -> npt.NDArray[np.bool_] | None:
    """Return which rows of a block stay, None if all do."""
    if block.first_id > names.forgets_up_to:
        return None
    keep: npt.NDArray[np.bool_] | None = None
    index = np.asarray(block.rows.series_index)
    for number, (sensor_id, _) in enumerate(block.rows.series):
        position = 0
        for up_to_id, rule_id in names.forgotten(sensor_id):
            # Ids are dense within a block, so what a rule reaches is its beginning.
            end = min(up_to_id - block.first_id + 1, block.count)
            if end <= position:
                continue
            hits = np.flatnonzero(index[position:end] == number) + position
            position = end
            if len(hits):
                keep = np.ones(block.count, dtype=np.bool_) if keep is None else keep
                keep[hits] = False
                dropped[rule_id] = dropped.get(rule_id, 0) + len(hits)
    return keep


def _remainder(block: Block, keep: npt.NDArray[np.bool_]) -> Remainder:
    rows = block.rows
    at = np.flatnonzero(keep)
    # Names of which nothing is left must not become series.
    used, index = np.unique(np.asarray(rows.series_index)[at], return_inverse=True)
    series = [rows.series[number] for number in used.tolist()]
    ts_us = np.asarray(rows.timestamp_us, dtype=np.int64)[at]
    quality = np.asarray(rows.quality, dtype=np.uint8)[at]
    left: Readings | Events
    if isinstance(rows, Readings):
        value = np.asarray(rows.value, dtype=np.float64)[at]
        left = Readings(series, index.astype(np.uint32), ts_us, value, quality)
    else:
        payload = [rows.payload[position] for position in at.tolist()]
        left = Events(series, index.astype(np.uint32), ts_us, quality, payload)
    return Remainder(block.first_id, left, block.first_id + at.astype(np.int64))
