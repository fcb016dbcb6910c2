"""Rules about names, applied to what analytics.duckdb holds already; all within one transaction.

The result is what a rebuild under the same rules would give: rows of two sensors that become one
share rollups as if they had always come under one name, and of a forgotten sensor nothing is left
that its remaining readings do not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from ocean_core.model.block import Int64Column
from ocean_core.model.naming import NameRule
from ocean_core.pipeline.rollup import (
    HOUR_US,
    MINUTE_US,
    minute_partials,
    rebucket,
    sort_into_runs,
)
from ocean_core.storage.analytics.batch import NewSeries, ReadingColumns
from ocean_core.storage.analytics.changes import Changes, Columns
from ocean_core.storage.analytics.cursor import as_us

CHUNK_ROWS: Final = 500_000
"""Readings that are read at once to make rollups anew, but whole minutes."""

_TABLES: Final = ("readings", "events", "rollup_1m", "rollup_1h")
_ROLLUPS: Final = ("rollup_1m", "rollup_1h")

_SHARED_HOURS: Final = """
SELECT DISTINCT epoch_us(bucket) FROM rollup_1h WHERE series_id = ?
INTERSECT SELECT DISTINCT epoch_us(bucket) FROM rollup_1h WHERE series_id = ?
"""
_FORGOTTEN_HOURS: Final = f"""
SELECT DISTINCT epoch_us(ts) // {HOUR_US} * {HOUR_US} FROM readings WHERE series_id = ? AND id <= ?
"""  # noqa: S608 - a constant
_WITHIN: Final = f"epoch_us({{column}}) // {HOUR_US} * {HOUR_US} IN (SELECT unnest(?::BIGINT[]))"
_MINUTES: Final = f"""
SELECT epoch_us(ts) // {MINUTE_US} * {MINUTE_US} AS minute, count(*) AS n FROM readings
WHERE series_id = ? AND {_WITHIN.format(column="ts")} GROUP BY minute ORDER BY minute
"""  # noqa: S608 - a constant
_ROWS: Final = f"""
SELECT id, ts, value, quality FROM readings
WHERE series_id = ? AND ts >= make_timestamp(?::BIGINT) AND ts < make_timestamp(?::BIGINT)
    AND {_WITHIN.format(column="ts")}
ORDER BY id
"""  # noqa: S608 - a constant


class Reshaped:
    """What rules have done to series; numbers of series.

    ``series`` are all there are now. ``gone`` no longer exist, ``changed`` have other rows than
    before, ``renamed`` have only another name. ``forgotten`` counts rows by rule.
    """

    def __init__(self, series: Iterable[NewSeries]) -> None:
        self.series: dict[int, NewSeries] = {}
        self.gone: set[int] = set()
        self.changed: set[int] = set()
        self.renamed: set[int] = set()
        self.forgotten: dict[int, int] = {}
        self._by_sensor: dict[str, set[int]] = {}
        for entry in series:
            self.put(entry)

    def of_sensor(self, sensor_id: str) -> list[NewSeries]:
        """Return the series shown under a name, by number."""
        return [self.series[number] for number in sorted(self._by_sensor.get(sensor_id, ()))]

    def put(self, entry: NewSeries) -> None:
        """Add a series, or give it another name."""
        known = self.series.get(entry.series_id)
        if known is not None:
            self._by_sensor[known.name[0]].discard(entry.series_id)
        self.series[entry.series_id] = entry
        self._by_sensor.setdefault(entry.name[0], set()).add(entry.series_id)

    def drop(self, entry: NewSeries) -> None:
        """Note that a series has no rows any longer."""
        del self.series[entry.series_id]
        self._by_sensor[entry.name[0]].discard(entry.series_id)
        self.gone.add(entry.series_id)


def apply_rules(
    changes: Changes, series: Iterable[NewSeries], rules: Sequence[NameRule]
) -> Reshaped:
    """Apply rules in their order. Raises DuckError: then nothing may be committed."""
    shape = Reshaped(series)
    for rule in rules:
        if rule.kind == "rename":
            _rename(changes, shape, rule)
        else:
            shape.forgotten[rule.id] = _forget(changes, shape, rule)
    shape.renamed -= shape.gone | shape.changed
    shape.changed -= shape.gone
    return shape


def _rename(changes: Changes, shape: Reshaped, rule: NameRule) -> None:
    if rule.sensor_id == rule.new_id:
        return
    there = {entry.name[1]: entry for entry in shape.of_sensor(rule.new_id)}
    for entry in shape.of_sensor(rule.sensor_id):
        other = there.get(entry.name[1])
        keep = entry if other is None else _merge(changes, shape, entry, other)
        _set_name(changes, shape, keep, rule.new_id)


def _set_name(changes: Changes, shape: Reshaped, entry: NewSeries, sensor_id: str) -> None:
    changes.run(
        "UPDATE series SET sensor_id = ?, first_id = ? WHERE series_id = ?",
        [sensor_id, entry.first_id, entry.series_id],
    )
    shape.put(entry._replace(name=(sensor_id, entry.name[1])))
    shape.renamed.add(entry.series_id)


def _merge(changes: Changes, shape: Reshaped, one: NewSeries, other: NewSeries) -> NewSeries:
    """Give the rows of the smaller series to the larger; return that."""
    sizes = [_size(changes, entry.series_id) for entry in (one, other)]
    keep, drop = (one, other) if sizes[0] > sizes[1] else (other, one)
    numbers = [keep.series_id, drop.series_id]
    shared = [row[0] for row in changes.rows(_SHARED_HOURS, numbers)]
    for table in _TABLES:
        changes.run(f"UPDATE {table} SET series_id = ? WHERE series_id = ?", numbers)  # noqa: S608 - our names
    changes.run("DELETE FROM series WHERE series_id = ?", [drop.series_id])
    _roll_up_again(changes, keep.series_id, shared)
    shape.drop(drop)
    shape.changed.add(keep.series_id)
    return keep._replace(first_id=min(keep.first_id, drop.first_id))


def _size(changes: Changes, series_id: int) -> int:
    count = "SELECT (SELECT coalesce(sum(n), 0) FROM rollup_1h WHERE series_id = $1)"
    count += " + (SELECT count(*) FROM events WHERE series_id = $1)"
    return int(changes.rows(count, [series_id])[0][0])


def _forget(changes: Changes, shape: Reshaped, rule: NameRule) -> int:
    """Delete rows; return how many."""
    deleted = 0
    for entry in shape.of_sensor(rule.sensor_id):
        number = entry.series_id
        hours = [row[0] for row in changes.rows(_FORGOTTEN_HOURS, [number, rule.up_to_id])]
        rows = sum(
            changes.run(
                f"DELETE FROM {table} WHERE series_id = ? AND id <= ?",  # noqa: S608 - our names
                [number, rule.up_to_id],
            )
            for table in ("readings", "events")
        )
        if not rows:
            continue
        deleted += rows
        if _is_empty(changes, number):
            for table in (*_ROLLUPS, "series"):
                changes.run(f"DELETE FROM {table} WHERE series_id = ?", [number])  # noqa: S608 - our names
            shape.drop(entry)
        else:
            _roll_up_again(changes, number, hours)
            shape.changed.add(number)
    return deleted


def _is_empty(changes: Changes, series_id: int) -> bool:
    left = "SELECT EXISTS (FROM readings WHERE series_id = $1)"
    left += " OR EXISTS (FROM events WHERE series_id = $1)"
    return not changes.rows(left, [series_id])[0][0]


def _roll_up_again(changes: Changes, series_id: int, hours: list[int]) -> None:
    """Make the rollups of these hours (their beginnings, in microseconds) anew from the readings."""
    if not hours:
        return
    hours = sorted(hours)
    for table in _ROLLUPS:
        within = _WITHIN.format(column="bucket")
        changes.run(f"DELETE FROM {table} WHERE series_id = ? AND {within}", [series_id, hours])  # noqa: S608 - ours
    minutes = changes.columns(_MINUTES, [series_id, hours])
    for start_us, end_us in _chunks(minutes["minute"], minutes["n"]):
        inside = [hour for hour in hours if start_us - HOUR_US < hour < end_us]
        rows = changes.columns(_ROWS, [series_id, start_us, end_us, inside])
        partials = minute_partials(sort_into_runs(_readings_of(rows, series_id)))
        changes.add_partials("rollup_1m", partials)
        changes.add_partials("rollup_1h", rebucket(partials, HOUR_US))


def _chunks(minute_us: Int64Column, n: Int64Column) -> Iterator[tuple[int, int]]:
    """Cut the time into (start, end) of whole minutes with not much more than CHUNK_ROWS rows."""
    chunk = (np.cumsum(n) - n) // CHUNK_ROWS
    for number in np.unique(chunk).tolist():
        mine = minute_us[chunk == number]
        yield int(mine[0]), int(mine[-1]) + MINUTE_US


def _readings_of(rows: Columns, series_id: int) -> ReadingColumns:
    ids = np.asarray(rows["id"], dtype=np.int64)
    return ReadingColumns(
        ids,
        np.full(len(ids), series_id, dtype=np.int32),
        as_us(rows["ts"]),
        np.asarray(rows["value"], dtype=np.float64),
        np.asarray(rows["quality"], dtype=np.uint8),
    )
