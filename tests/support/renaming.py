"""What an index holds, by name: to compare indexes that came about in different ways."""

from typing import Any

from ocean_core.model.naming import NameRule
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.rollup import merge_partials
from ocean_core.storage.analytics import AnalyticsStore
from ocean_core.storage.analytics.cursor import PARTIAL_COLUMNS, fetch_partials

Rows = dict[tuple[Any, ...], Any]


def rename(number: int, old: str, new: str) -> NameRule:
    return NameRule(number, "rename", old, new)


def forget(number: int, sensor_id: str, up_to_id: int) -> NameRule:
    return NameRule(number, "forget", sensor_id, "", up_to_id)


def rows_of(store: AnalyticsStore) -> list[tuple[Any, ...]]:
    """Return all readings and events: (sensor_id, metric, id, time, value or payload, quality)."""
    found: list[tuple[Any, ...]] = []
    cursor = store.cursor()
    for table, content in (("readings", "value"), ("events", "payload")):
        found += cursor.execute(
            f"SELECT sensor_id, metric, id, epoch_us(ts), {content}, quality FROM {table} "
            "JOIN series USING (series_id) ORDER BY id"
        ).fetchall()
        count = cursor.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert count is not None
    total = cursor.execute(
        "SELECT (SELECT count(*) FROM readings) + (SELECT count(*) FROM events)"
    ).fetchall()[0][0]
    assert total == len(found), "rows without a series"
    store.release(cursor)
    return found


def partials_of(store: AnalyticsStore, table: str) -> tuple[Rows, Rows]:
    """Return by (sensor_id, metric, bucket) what is exact, and (mean, m2)."""
    names = {entry.series_id: entry.name for entry in store.series()}
    cursor = store.cursor()
    merged = merge_partials(
        fetch_partials(cursor.execute(f"SELECT {PARTIAL_COLUMNS} FROM {table}"))
    )
    store.release(cursor)
    exact: Rows = {}
    sums: Rows = {}
    for k in range(len(merged)):
        key = (*names[int(merged.series_id[k])], int(merged.bucket_us[k]))
        exact[key] = tuple(
            getattr(merged, name)[k].item()
            for name in (
                "n", "min", "max", "first_ts_us", "first_value", "last_ts_us", "last_value"
            )
        )  # fmt: skip
        sums[key] = (merged.mean[k].item(), merged.m2[k].item())
    return exact, sums


def window_of(window: LiveWindow) -> tuple[Rows, Rows]:
    """Return by (sensor_id, metric) what is exact, and (mean, m2); events by (sensor_id,)."""
    exact: Rows = {}
    sums: Rows = {}
    for sensor_id, metrics in window.catalog.items():
        for metric, state in metrics.items():
            assert (state.sensor_id, state.metric) == (sensor_id, metric)
            totals = state.totals
            exact[sensor_id, metric] = totals._replace(mean=0.0, m2=0.0)
            sums[sensor_id, metric] = (totals.mean, totals.m2)
    for sensor_id, events in window.events.items():
        assert events.sensor_id == sensor_id
        exact[(sensor_id,)] = (events.n, events.first_ts_us, events.last_ts_us)
    return exact, sums
