"""The live window: what recent and small queries are answered from, without DuckDB.

The mover applies each batch after its commit; readers ask from other threads. Totals and names are
kept of every series, recent rows and minutes as far as the memory allows.

Who gets memory: queries decide. A series that nobody asked for takes what is free, but pushes
nobody out; one that was asked for takes the place of the one asked for longest ago. Otherwise a
hundred thousand series that are only written would push each other out with every batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

import numpy as np

from ocean_core.model import limits
from ocean_core.model.block import EVENT_METRIC, Float64Column, Int64Column, UInt8Column
from ocean_core.pipeline.renaming import Reshaped
from ocean_core.pipeline.ring import MINUTE_ROW, RECENT_ROW, Ring, Rows
from ocean_core.pipeline.rollup import (
    HOUR_US,
    MINUTE_US,
    Offsets,
    SeriesRuns,
    merge_partials,
    minute_partials,
    rebucket,
    sort_into_runs,
)
from ocean_core.pipeline.totals import Totals, TotalsTable
from ocean_core.pipeline.warm import Warmth, load_warmth
from ocean_core.storage.analytics.batch import (
    EventColumns,
    MoveBatch,
    NewSeries,
    Partials,
)
from ocean_core.storage.analytics.store import AnalyticsStore

MINUTE_RING_ROWS: Final = 1_024
WANTED_MAX: Final = 10_000
_MINUTE_FIELDS: Final = (
    "n", "mean", "m2", "min", "max", "first_ts_us", "first_value", "last_ts_us", "last_value",
)  # fmt: skip
_STATE_BYTES: Final = 400
"""Estimated memory of a series beside rings: state, names, dictionary entries."""


class SeriesState:
    """One series with readings. The object stays the same until the sensor is renamed."""

    __slots__ = ("_window", "metric", "sensor_id", "series_id")

    def __init__(self, window: LiveWindow, series_id: int, sensor_id: str, metric: str) -> None:
        self._window = window
        self.series_id = series_id
        self.sensor_id = sensor_id
        self.metric = metric

    @property
    def totals(self) -> Totals:
        """Statistics of one moment. Read once into a local: every access asks anew."""
        return self._window.totals(self.series_id)


class EventState(NamedTuple):
    """The events of one sensor; replaced as a whole."""

    series_id: int
    sensor_id: str
    n: int
    first_ts_us: int
    last_ts_us: int


class RecentRows(NamedTuple):
    """Readings of one series, ordered by (timestamp, id)."""

    ts_us: Int64Column
    value: Float64Column
    id: Int64Column
    quality: UInt8Column


class _Rings:
    """The rings of one series."""

    __slots__ = ("asked_for", "minutes", "recent")

    def __init__(self, last_ts_us: int) -> None:
        """Start empty for a series whose newest row so far is at ``last_ts_us`` (-1: none)."""
        self.recent = Ring(RECENT_ROW, last_ts_us)
        self.minutes = Ring(MINUTE_ROW, last_ts_us // MINUTE_US * MINUTE_US)
        self.asked_for = False

    @property
    def bytes(self) -> int:
        return self.recent.bytes + self.minutes.bytes


_RINGS_BYTES_MIN: Final = _Rings(-1).bytes


class LiveWindow:
    """One writer (the mover), any number of readers."""

    def __init__(
        self,
        bytes_max: int = limits.LIVE_WINDOW_BYTES_MAX,
        ring_rows: int = limits.LIVE_RING_ROWS,
    ) -> None:
        self.catalog: dict[str, dict[str, SeriesState]] = {}
        """sensor_id -> metric -> state, of series with readings. To loop over it while the
        mover runs take ``list(...)`` first."""
        self.events: dict[str, EventState] = {}
        """sensor_id -> events of the sensor."""
        self._bytes_max = bytes_max
        self._ring_rows = ring_rows
        # Held for microseconds per series, so that a reader never waits for a whole batch.
        self._lock = threading.Lock()
        self._totals = TotalsTable()
        self._names: dict[int, tuple[str, str]] = {}
        # Front: first to go. Those asked for move to the end.
        self._rings: OrderedDict[int, _Rings] = OrderedDict()
        self._ring_bytes = 0
        self._wanted: set[int] = set()
        """Series that were asked for while they had no ring."""

    # --- reading

    def latest(self, sensor_id: str, metric: str) -> SeriesState | None:
        """Return a series, None if it has no readings."""
        return self.catalog.get(sensor_id, {}).get(metric)

    def totals(self, series_id: int) -> Totals:
        """Return the totals of a series."""
        with self._lock:
            return self._totals.get(series_id)

    def sensors(self) -> list[str]:
        """Return every sensor that ever sent a reading or an event, in order of first sight."""
        return list(dict.fromkeys([*list(self.catalog), *list(self.events)]))

    def recent(self, state: SeriesState, start_us: int, end_us: int) -> RecentRows | None:
        """Return all readings with ``start <= ts < end``, None if memory does not cover them."""
        with self._lock:
            rings = self._ask(state.series_id)
            rows = None if rings is None else rings.recent.between(start_us, end_us)
        if rows is None:
            return None
        ts, ids = rows["ts"], rows["id"]
        if bool(np.any(ts[1:] <= ts[:-1])):
            rows = rows[np.lexsort((ids, ts))]
        return RecentRows(*(np.ascontiguousarray(rows[name]) for name in RECENT_ROW.names or ()))

    def minutes(self, state: SeriesState, start_us: int, end_us: int) -> Partials | None:
        """Return the minutes with ``start <= bucket < end``, merged and ordered.

        None if memory does not cover them. Minutes without readings have no row.
        """
        with self._lock:
            rings = self._ask(state.series_id)
            rows = None if rings is None else rings.minutes.between(start_us, end_us)
        if rows is None:
            return None
        columns: list[Any] = [np.ascontiguousarray(rows[name]) for name in MINUTE_ROW.names or ()]
        series_id = np.full(len(rows), state.series_id, dtype=np.int32)
        return merge_partials(Partials(series_id, *columns))

    @property
    def bytes(self) -> int:
        """Estimated memory: totals and names of all series, and the rings."""
        return self._ring_bytes + self._totals.bytes + len(self._names) * _STATE_BYTES

    @property
    def series_count(self) -> int:
        """Series known, those of events included."""
        return len(self._names)

    def _ask(self, series_id: int) -> _Rings | None:
        rings = self._rings.get(series_id)
        if rings is not None:
            rings.asked_for = True
            self._rings.move_to_end(series_id)
        elif len(self._wanted) < WANTED_MAX:
            self._wanted.add(series_id)
        return rings

    # --- writing

    def warm(self, store: AnalyticsStore, series: Sequence[NewSeries] | None = None) -> None:
        """Take over what the store knows, before the first batch. Raises DuckError.

        ``series`` are all of the store's, if they were read already. Rings stay empty: they are
        complete only after the newest reading of each series.
        """
        warmth = load_warmth(store)
        series = store.series() if series is None else series
        with self._lock:
            for series_id, totals in warmth.totals.items():
                self._totals.put(series_id, totals)
            self._learn(series, with_readings=set(warmth.totals))
            for series_id, (n, first, last) in warmth.events.items():
                sensor_id = self._names[series_id][0]
                self.events[sensor_id] = EventState(series_id, sensor_id, n, first, last)

    def apply(
        self, batch: MoveBatch, runs: SeriesRuns | None = None, *, with_rings: bool = True
    ) -> None:
        """Take over a committed batch; ``runs`` are its readings in order, if already known.

        Without rings only totals are brought up to date and all rings are given up: much quicker
        while there is a lot to catch up with, and nothing in it is recent.
        """
        if batch.readings is not None:
            runs = runs if runs is not None else sort_into_runs(batch.readings)
            minutes = batch.minutes if batch.minutes is not None else minute_partials(runs)
            hours = batch.hours if batch.hours is not None else rebucket(minutes, HOUR_US)
            with self._lock:
                before = self._totals.last_ts_us(runs.series_id)
                self._totals.apply(runs, hours)
                if not with_rings:
                    self._rings.clear()
                    self._ring_bytes = 0
            if with_rings:
                self._fill_rings(runs, minutes, before)
        with self._lock:
            # Names come last: whoever finds a state finds its totals.
            with_readings = set(runs.series_id.tolist()) if runs is not None else set[int]()
            self._learn(batch.new_series, with_readings)
        if batch.events is not None:
            self._apply_events(batch.events)

    def reshape(self, shape: Reshaped, warmth: Warmth) -> None:
        """Take over what rules about names have done to the store; ``warmth`` is of what changed.

        Rings of series that only have another name go on; those of others start anew.
        """
        moved = shape.gone | shape.changed | shape.renamed
        with self._lock:
            sensors = {self._names[number][0] for number in moved if number in self._names}
            sensors |= {shape.series[number].name[0] for number in moved - shape.gone}
            for number in shape.gone | shape.changed:
                self._forget(number)
            for number, totals in warmth.totals.items():
                self._totals.put(number, totals)
            states = {
                state.series_id: state
                for sensor_id in sensors
                for state in self.catalog.get(sensor_id, {}).values()
                if state.series_id not in shape.changed
            }
            events = {
                known.series_id: (known.n, known.first_ts_us, known.last_ts_us)
                for known in map(self.events.get, sensors)
                if known is not None and known.series_id not in shape.changed
            }
            for sensor_id in sensors:
                self._name_again(sensor_id, shape, states, events | warmth.events)

    def _name_again(
        self,
        sensor_id: str,
        shape: Reshaped,
        states: dict[int, SeriesState],
        events: dict[int, tuple[int, int, int]],
    ) -> None:
        """Set what a name stands for. Readers hold no lock, so each name changes at once."""
        series: dict[str, SeriesState] = {}
        happened: EventState | None = None
        for entry in shape.of_sensor(sensor_id):
            number, (_, metric) = entry.series_id, entry.name
            self._names[number] = entry.name
            state = states.get(number)
            if state is None or state.sensor_id != sensor_id:
                state = SeriesState(self, number, sensor_id, metric)
            if metric != EVENT_METRIC or number in states:
                series[metric] = state
            if number in events:
                happened = EventState(number, sensor_id, *events[number])
        if series:
            self.catalog[sensor_id] = series
        else:
            self.catalog.pop(sensor_id, None)
        if happened is not None:
            self.events[sensor_id] = happened
        else:
            self.events.pop(sensor_id, None)

    def _forget(self, series_id: int) -> None:
        rings = self._rings.pop(series_id, None)
        if rings is not None:
            self._ring_bytes -= rings.bytes
        self._wanted.discard(series_id)
        self._totals.clear(series_id)
        self._names.pop(series_id, None)

    def _learn(self, series: Iterable[NewSeries], with_readings: set[int]) -> None:
        for entry in series:
            sensor_id, metric = entry.name
            self._names[entry.series_id] = entry.name
            if metric != EVENT_METRIC or entry.series_id in with_readings:
                state = SeriesState(self, entry.series_id, sensor_id, metric)
                self.catalog.setdefault(sensor_id, {})[metric] = state

    def _fill_rings(self, runs: SeriesRuns, minutes: Partials, before: list[int]) -> None:
        tails = _Tails.of(runs, self._ring_rows)
        recent = _recent_rows(runs, tails.positions)
        partials = _minute_rows(minutes)
        ids = runs.series_id
        starts = tails.starts
        minute_starts = [*np.searchsorted(minutes.series_id, ids).tolist(), len(partials)]
        for k, series_id in enumerate(ids.tolist()):
            # One lock per series: a reader waits for microseconds, not for the whole batch.
            with self._lock:
                rings = self._rings_of(series_id, before[k])
                if rings is None:
                    continue
                new = recent[starts[k] : starts[k + 1]]
                new_minutes = partials[minute_starts[k] : minute_starts[k + 1]]
                self._add(rings, new, new_minutes, tails.left_out_us[k])

    def _rings_of(self, series_id: int, last_ts_us: int) -> _Rings | None:
        """Return the rings of a series, made if there is room or somebody asked for them."""
        rings = self._rings.get(series_id)
        if rings is not None:
            return rings
        wanted = series_id in self._wanted
        if not wanted and self._ring_bytes + _RINGS_BYTES_MIN > self._bytes_max:
            return None
        self._wanted.discard(series_id)
        rings = _Rings(last_ts_us)
        rings.asked_for = wanted
        self._rings[series_id] = rings
        self._rings.move_to_end(series_id, last=wanted)
        self._ring_bytes += rings.bytes
        return rings

    def _add(self, rings: _Rings, recent: Rows, minutes: Rows, left_out_us: int | None) -> None:
        before = rings.bytes
        recent_max, minutes_max = self._ring_rows, MINUTE_RING_ROWS
        if not rings.asked_for and self._is_tight(rings, len(recent), len(minutes)):
            # No more memory for those nobody asks for: they go on with what they have.
            recent_max, minutes_max = rings.recent.capacity, rings.minutes.capacity
        rings.recent.append(recent, recent_max, left_out_us)
        _append_minutes(rings.minutes, minutes, minutes_max)
        self._ring_bytes += rings.bytes - before
        while self._ring_bytes > self._bytes_max and self._rings:
            _, victim = self._rings.popitem(last=False)
            self._ring_bytes -= victim.bytes

    def _is_tight(self, rings: _Rings, recent: int, minutes: int) -> bool:
        """Whether these many rows more might not fit into what is left."""
        left = self._bytes_max - self._ring_bytes
        most = self._ring_rows * RECENT_ROW.itemsize + MINUTE_RING_ROWS * MINUTE_ROW.itemsize
        if left > most:
            return False
        return left < (
            rings.recent.growth_bytes(recent, self._ring_rows)
            + rings.minutes.growth_bytes(minutes, MINUTE_RING_ROWS)
        )

    def _apply_events(self, events: EventColumns) -> None:
        ids, inverse = np.unique(events.series_id, return_inverse=True)
        for k, series_id in enumerate(ids.tolist()):
            ts_us = events.ts_us[inverse == k]
            sensor_id = self._names[series_id][0]
            old = self.events.get(sensor_id)
            n, first, last = len(ts_us), int(ts_us.min()), int(ts_us.max())
            if old is not None:
                n, first, last = old.n + n, min(old.first_ts_us, first), max(old.last_ts_us, last)
            self.events[sensor_id] = EventState(series_id, sensor_id, n, first, last)


class _Tails(NamedTuple):
    """Which rows of a batch can be in rings: the newest of each run.

    ``positions`` are those in the runs, None for all. Run ``k`` keeps those from ``starts[k]`` to
    ``starts[k + 1]``; ``left_out_us[k]`` is the newest time before them, None if there is none.
    """

    positions: Offsets | None
    starts: list[int]
    left_out_us: list[int | None]

    @classmethod
    def of(cls, runs: SeriesRuns, rows_max: int) -> _Tails:
        lasts = runs.lasts
        sizes = lasts + 1 - runs.starts
        over = sizes - rows_max
        if int(over.max()) <= 0:
            starts = [*runs.starts.tolist(), len(runs)]
            return cls(None, starts, [None] * len(sizes))
        kept = np.minimum(sizes, rows_max)
        ends = np.cumsum(kept)
        positions = np.arange(int(ends[-1])) + np.repeat(lasts + 1 - ends, kept)
        left_out = runs.ts_us[np.maximum(lasts - rows_max, 0)].tolist()
        return cls(
            positions,
            [0, *ends.tolist()],
            [ts if more > 0 else None for ts, more in zip(left_out, over.tolist(), strict=True)],
        )


def _recent_rows(runs: SeriesRuns, positions: Offsets | None) -> Rows:
    order, ts_us, value = runs.order, runs.ts_us, runs.value
    if positions is not None:
        order, ts_us, value = order[positions], ts_us[positions], value[positions]
    rows = np.empty(len(order), dtype=RECENT_ROW)
    rows["ts"] = ts_us
    rows["value"] = value
    rows["id"] = runs.readings.id[order]
    rows["quality"] = runs.readings.quality[order]
    return rows


def _minute_rows(minutes: Partials) -> Rows:
    rows = np.empty(len(minutes), dtype=MINUTE_ROW)
    columns = [minutes.bucket_us, *(getattr(minutes, name) for name in _MINUTE_FIELDS)]
    for name, column in zip(MINUTE_ROW.names or (), columns, strict=True):
        rows[name] = column
    return rows


def _append_minutes(ring: Ring, rows: Rows, rows_max: int) -> None:
    """Append partials; what continues the newest minute is merged into it.

    Otherwise every transaction would add a row, four a second while somebody asks.
    """
    last = ring.last()
    if last is not None:
        first = rows[0].item()
        if last[0] == first[0]:
            ring.replace_last(_merged(last, first))
            rows = rows[1:]
    if len(rows):
        ring.append(rows, rows_max)


def _merged(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge two MINUTE_ROWs of one bucket by Chan's rule; ``b`` was written later."""
    ts, n_a, mean_a, m2_a, min_a, max_a, first_a, first_value_a, last_a, last_value_a = a
    _, n_b, mean_b, m2_b, min_b, max_b, first_b, first_value_b, last_b, last_value_b = b
    n = n_a + n_b
    delta = mean_b - mean_a
    # The difference of two huge means overflows, their weighted sum does not.
    mean = (
        mean_a + delta * (n_b / n) if isfinite(delta) else mean_a * (n_a / n) + mean_b * (n_b / n)
    )
    first = (first_b, first_value_b) if first_b < first_a else (first_a, first_value_a)
    last = (last_b, last_value_b) if last_b >= last_a else (last_a, last_value_a)
    return (
        ts, n, mean, m2_a + m2_b + delta * delta * (n_a * n_b / n),
        min(min_a, min_b), max(max_a, max_b), *first, *last,
    )  # fmt: skip
