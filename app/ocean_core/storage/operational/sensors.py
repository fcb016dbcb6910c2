"""Rows of ``sensors``: what people wrote about a sensor, under its name of today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import RecordsFullError
from ocean_core.storage.operational import audit
from ocean_core.storage.operational.row_counts import row_count, rows_changed

_TABLE = "sensors"
_COLUMNS = "sensor_id, display_name, unit, tags, note, updated_us"
_GET = f"SELECT {_COLUMNS} FROM sensors WHERE sensor_id = ?"  # noqa: S608 - constants of ours
_GET_MANY = f"""
SELECT {_COLUMNS} FROM sensors WHERE sensor_id IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants of ours


class SensorRow(NamedTuple):
    """One record; ``tags`` is a JSON object of texts."""

    sensor_id: str
    display_name: str = ""
    unit: str = ""
    tags: str = "{}"
    note: str = ""
    updated_us: int = 0


def get(db: apsw.Connection, sensor_id: str) -> SensorRow | None:
    """Return the record of a sensor, None if nobody wrote one."""
    row = db.execute(_GET, (sensor_id,)).fetchone()
    return None if row is None else SensorRow(*row)


def get_many(db: apsw.Connection, sensor_ids: Sequence[str]) -> dict[str, SensorRow]:
    """Return the records that there are, by sensor."""
    rows = db.execute(_GET_MANY, (msgspec.json.encode(sensor_ids).decode(),))
    return {row[0]: SensorRow(*row) for row in rows}


def update(
    db: apsw.Connection, sensor_id: str, changes: Mapping[str, str], now_us: int, origin: Origin
) -> SensorRow:
    """Change columns of a record, which is made if there is none. Raises RecordsFullError."""
    known = get(db, sensor_id)
    if known is None and row_count(db, _TABLE) >= limits.SENSOR_RECORDS_MAX:
        raise RecordsFullError(f"there are {limits.SENSOR_RECORDS_MAX} sensor records already")
    row = (known or SensorRow(sensor_id))._replace(**changes, updated_us=now_us)
    db.execute("INSERT OR REPLACE INTO sensors VALUES (?, ?, ?, ?, ?, ?)", row)
    if known is None:
        rows_changed(db, _TABLE, 1)
    audit.record(db, now_us, origin, "sensors.update", sensor_id, {"fields": sorted(changes)})
    return row


def delete(db: apsw.Connection, sensor_id: str) -> None:
    """Delete the record of a sensor, if there is one."""
    db.execute("DELETE FROM sensors WHERE sensor_id = ?", (sensor_id,))
    if db.changes():
        rows_changed(db, _TABLE, -1)
