"""What a data directory really holds, and whether that is what was acknowledged."""

import contextlib
import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from ocean_core.buffer.embedded import JournalReader
from ocean_core.model.block import Block, Events, Readings, unpack_block
from ocean_core.storage.archive.manifest import ARCHIVE_DIR, load_manifest
from support.appliance import Appliance
from support.load import Row, Sent
from support.waiting import until
from support.web import events_path, sensor_path

READ_ROWS = 50_000
VISIBLE_WITHIN_S = 40.0


@dataclass
class Holdings:
    """Rows by id, and how often each id was met: more than once is a defect."""

    rows: dict[int, Row] = field(default_factory=dict)
    moments: dict[int, int] = field(default_factory=dict)
    met: Counter[int] = field(default_factory=Counter)

    def add(self, row_id: int, row: Row, moment_us: int) -> None:
        self.rows[row_id] = row
        self.moments[row_id] = moment_us
        self.met[row_id] += 1

    def doubled_ids(self) -> list[int]:
        return [row_id for row_id, times in self.met.items() if times > 1]

    def series(self) -> dict[tuple[str, str], list[int]]:
        """Return the ids of each series."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row_id, row in self.rows.items():
            found[row.sensor_id, row.metric].append(row_id)
        return found

    def values(self, sensor_id: str, metric: str) -> npt.NDArray[np.float64]:
        """Return the numbers of a series in the order of time, then id."""
        ids = self.series().get((sensor_id, metric), [])
        ids.sort(key=lambda row_id: (self.moments[row_id], row_id))
        return np.array([self.rows[row_id].value for row_id in ids])


def _add_block(holdings: Holdings, block: Block) -> None:
    rows = block.rows
    for place in range(len(rows)):
        sensor_id, metric = rows.series[int(rows.series_index[place])]
        if isinstance(rows, Readings):
            value = float(rows.value[place])
        else:
            assert isinstance(rows, Events)
            value = marker_of(rows.payload[place])
        row = Row(sensor_id, metric, value)
        holdings.add(block.first_id + place, row, int(rows.timestamp_us[place]))


def marker_of(payload: bytes | str) -> float:
    """Return the number that tells an event of ours from all others; NaN for a foreign one."""
    content = json.loads(payload)
    if isinstance(content, dict) and "marker" in content:
        return float(content["marker"])
    return math.nan


_ARCHIVED = {
    "readings": "SELECT id, sensor_id, metric, value, epoch_us(timestamp) FROM read_parquet(?)",
    "events": "SELECT id, sensor_id, '', payload, epoch_us(timestamp) FROM read_parquet(?)",
}


def read_kept(data_dir: Path) -> Holdings:
    """Return what archive and journal of a stopped appliance hold together.

    What is in both, because the journal was not trimmed yet, must be the same.
    """
    journal = read_journal(data_dir)
    archive = read_archive(data_dir)
    assert not archive.doubled_ids(), f"twice in the archive: {archive.doubled_ids()[:10]}"
    for row_id, row in archive.rows.items():
        known = journal.rows.get(row_id)
        if known is None:
            journal.add(row_id, row, archive.moments[row_id])
        else:
            assert _same(known, row), f"id {row_id} is {known} in the journal, {row} in the archive"
            assert journal.moments[row_id] == archive.moments[row_id], row_id
    return journal


def read_archive(data_dir: Path) -> Holdings:
    """Return what the archive's parts hold, and check that its manifest adds up."""
    holdings = Holdings()
    manifest = load_manifest(data_dir / ARCHIVE_DIR).manifest
    if manifest is None:
        return holdings
    assert manifest.balance() == ""
    with duckdb.connect() as db:
        for part in manifest.parts:
            if part.kind not in _ARCHIVED:
                continue
            path = str(data_dir / ARCHIVE_DIR / part.name)
            for row_id, sensor_id, metric, content, moment in db.execute(
                _ARCHIVED[part.kind], [path]
            ).fetchall():
                value = marker_of(content) if part.kind == "events" else content
                holdings.add(row_id, Row(sensor_id, metric, value), moment)
    return holdings


def read_journal(data_dir: Path) -> Holdings:
    """Return what the journal of a stopped appliance holds, as the mover would read it."""
    holdings = Holdings()
    reader = JournalReader(data_dir / "journal.db")
    with contextlib.closing(reader):
        cursor = 0
        while True:
            batch = reader.read_after(cursor, rows_max=READ_ROWS)
            assert not batch.damaged, batch.damaged
            for block in batch.blocks:
                _add_block(holdings, block)
            if batch.next_after_id == cursor:
                return holdings
            cursor = batch.next_after_id


def read_journal_plainly(path: Path) -> Holdings:
    """Return what the journal's table holds, without any code of the journal."""
    holdings = Holdings()
    with contextlib.closing(sqlite3.connect(path)) as db:
        for (packed,) in db.execute("SELECT data FROM telemetry_buffer ORDER BY id"):
            _add_block(holdings, unpack_block(packed))
    return holdings


@dataclass
class AnalyticsHoldings(Holdings):
    """What analytics.duckdb holds, with its watermark and the sums of its rollups."""

    watermark: int = 0
    rollups: dict[str, dict[tuple[str, str], tuple[int, float, float]]] = field(
        default_factory=dict
    )


_ROWS = """
SELECT r.id, s.sensor_id, s.metric, r.value, epoch_us(r.ts)
FROM readings r JOIN series s USING (series_id)
"""
_EVENT_ROWS = """
SELECT e.id, s.sensor_id, e.payload, epoch_us(e.ts) FROM events e JOIN series s USING (series_id)
"""
_ROLLUP = """
SELECT s.sensor_id, s.metric, sum(r.n)::BIGINT, min(r.min), max(r.max)
FROM {} r JOIN series s USING (series_id) GROUP BY ALL
"""


def read_analytics(data_dir: Path) -> AnalyticsHoldings | None:
    """Return what analytics.duckdb of a stopped appliance holds; None if there is none.

    None too if a marker says that the next start will not trust the file.
    """
    path = data_dir / "analytics.duckdb"
    markers = [path.with_suffix(suffix) for suffix in (".opening", ".suspect")]
    if not path.exists() or any(marker.exists() for marker in markers):
        return None
    holdings = AnalyticsHoldings()
    with duckdb.connect(str(path), read_only=True) as db:
        mark = db.execute("SELECT id FROM watermark").fetchone()
        assert mark is not None
        holdings.watermark = mark[0]
        for row_id, sensor_id, metric, value, moment in db.execute(_ROWS).fetchall():
            holdings.add(row_id, Row(sensor_id, metric, value), moment)
        for row_id, sensor_id, payload, moment in db.execute(_EVENT_ROWS).fetchall():
            holdings.add(row_id, Row(sensor_id, "", marker_of(payload)), moment)
        for table in ("rollup_1m", "rollup_1h"):
            holdings.rollups[table] = {
                (sensor_id, metric): (count, low, high)
                for sensor_id, metric, count, low, high in db.execute(
                    _ROLLUP.format(table)
                ).fetchall()
            }
    return holdings


def check_record(
    record: Iterable[Sent], held: Holdings, *, lost: frozenset[int] = frozenset()
) -> None:
    """Check every promise of the answers, and that nothing is there twice.

    ``lost`` are ids that the appliance itself reports as missing.
    """
    assert not held.doubled_ids(), f"ids that are there twice: {held.doubled_ids()[:10]}"
    times = Counter((row.sensor_id, row.metric, row.value) for row in held.rows.values())
    doubled = [row for row, count in times.items() if count > 1 and not math.isnan(row[2])]
    assert not doubled, f"readings that are there twice: {doubled[:10]}"
    promised: dict[int, Row] = {}
    for sent in record:
        if sent.ids is not None:
            rows = sent.stored_rows()
            again = promised.keys() & rows.keys()
            assert not again, f"ids that two answers promised: {sorted(again)[:10]}"
            promised |= rows
            continue
        # Nobody knows; but all or nothing of it, and nothing twice (checked above).
        there = sum(times[row.sensor_id, row.metric, row.value] for row in sent.rows)
        assert there in {0, len(sent.rows)}, f"{there} of {len(sent.rows)} rows of {sent}"
    missing = [row_id for row_id in promised if row_id not in held.rows and row_id not in lost]
    assert not missing, f"{len(missing)} of {len(promised)} acknowledged are lost: {missing[:10]}"
    wrong = {
        row_id: (row, held.rows[row_id])
        for row_id, row in promised.items()
        if row_id in held.rows and held.rows[row_id] != row
    }
    assert not wrong, f"{len(wrong)} differ, for example {next(iter(wrong.items()))}"


def check_all_keyed_answered(record: Iterable[Sent]) -> None:
    """Check that what has a key was answered in the end: then ``check_record`` counts it once."""
    open_keys = [sent.key for sent in record if sent.key is not None and sent.ids is None]
    assert not open_keys, f"never answered: {open_keys[:10]}"


def check_analytics_agree(journal: Holdings, analytics: AnalyticsHoldings) -> None:
    """Check that analytics hold exactly the journal's rows up to their watermark, rollups too."""
    assert not analytics.doubled_ids(), f"twice in analytics: {analytics.doubled_ids()[:10]}"
    expected = {i: row for i, row in journal.rows.items() if i <= analytics.watermark}
    assert analytics.rows.keys() == expected.keys(), (
        f"only in the journal: {sorted(expected.keys() - analytics.rows.keys())[:10]}, "
        f"only in analytics: {sorted(analytics.rows.keys() - expected.keys())[:10]}, "
        f"watermark {analytics.watermark}"
    )
    different = [
        i for i, row in expected.items()
        if not _same(row, analytics.rows[i]) or journal.moments[i] != analytics.moments[i]
    ]  # fmt: skip
    assert not different, f"different in analytics: {different[:10]}"
    for table, sums in analytics.rollups.items():
        counted = {
            name: (
                len(ids),
                min(analytics.rows[i].value for i in ids),
                max(analytics.rows[i].value for i in ids),
            )
            for name, ids in analytics.series().items()
            if name[1]
        }
        assert sums == counted, table


def _same(one: Row, other: Row) -> bool:
    return one == other or (
        one.sensor_id == other.sensor_id and math.isnan(one.value) and math.isnan(other.value)
    )


def check_answers(box: Appliance, held: Holdings) -> None:
    """Check over HTTP that each series answers with what the journal holds."""
    for (sensor_id, metric), ids in held.series().items():
        if metric:
            _check_stats(box, held, sensor_id, metric, ids)
        else:
            _check_events(box, sensor_id, ids)


def _check_stats(
    box: Appliance, held: Holdings, sensor_id: str, metric: str, ids: list[int]
) -> None:
    values = np.array([held.rows[row_id].value for row_id in ids])
    answer = ask(box, sensor_path(sensor_id, "stats"), metric=metric)
    assert answer["count"] == len(ids), (sensor_id, metric)
    assert answer["min_value"] == values.min(), (sensor_id, metric)
    assert answer["max_value"] == values.max(), (sensor_id, metric)
    assert math.isclose(answer["avg_value"], values.mean(), rel_tol=1e-9), (sensor_id, metric)


def _check_events(box: Appliance, sensor_id: str, ids: list[int]) -> None:
    answer = ask(box, events_path(sensor_id), limit=1000)
    assert answer["count"] == min(1000, len(ids)), sensor_id
    assert {event["id"] for event in answer["events"]} <= set(ids), sensor_id


def ask(box: Appliance, path: str, **query: str | float) -> Any:
    """Return a fresh answer; asks again while analytics are away."""
    return until(
        lambda: _answered(box, path, query), within_s=VISIBLE_WITHIN_S, what=f"an answer to {path}"
    )


def _answered(box: Appliance, path: str, query: dict[str, str | float]) -> Any | None:
    reply = box.http().get(path, wait="true", **query)
    if reply.status == 503:
        assert "retry-after" in reply.headers, reply
        return None
    return reply.good()


def audit_stopped(
    data_dir: Path, record: list[Sent], *, lost: frozenset[int] = frozenset()
) -> Holdings:
    """Check a stopped appliance's files against the record; return what archive and journal hold."""
    journal = read_kept(data_dir)
    check_record(record, journal, lost=lost)
    analytics = read_analytics(data_dir)
    if analytics is not None:
        check_analytics_agree(journal, analytics)
    return journal
