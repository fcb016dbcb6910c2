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


class Told(NamedTuple):
    """What a device tells of its sensor; empty where it tells nothing.

    ``former`` is what it told before, as far as the record has it from there: lab, profile, unit.
    """

    sensor_id: str
    lab: str
    profile: str
    unit: str
    former: tuple[str, str, str] = ("", "", "")


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


def learn(db: apsw.Connection, told: Sequence[Told], now_us: int) -> list[Told | None]:
    """Put what devices tell into their records, where nobody else has written anything.

    Returns what the records have from there now, None for a sensor that got no record because
    there are too many. Nobody acts here, so the audit log has no entry.
    """
    return [_learn(db, one, now_us) for one in told]


def _learn(db: apsw.Connection, told: Told, now_us: int) -> Told | None:
    known = get(db, told.sensor_id)
    if known is None and row_count(db, _TABLE) >= limits.SENSOR_RECORDS_LEARNED_MAX:
        return None
    row = known or SensorRow(told.sensor_id)
    tags = msgspec.json.decode(row.tags, type=dict[str, str])
    present = tags.get("lab", ""), tags.get("profile", ""), row.unit
    given = told.lab or present[0], told.profile or present[1], told.unit
    # What stands there and did not come from the device is somebody's decision.
    own = [old in {"", former} for old, former in zip(present, told.former, strict=True)]
    lab, profile, unit = (
        new if is_own else old for old, new, is_own in zip(present, given, own, strict=True)
    )
    former = lab if own[0] else "", profile if own[1] else "", unit if own[2] else ""
    wanted = {name: text for name, text in (("lab", lab), ("profile", profile)) if text}
    if len(tags.keys() | wanted.keys()) <= limits.SENSOR_TAGS_MAX:
        tags |= wanted
    text = msgspec.json.encode(tags).decode()
    if (text, unit) != (row.tags, row.unit):
        row = row._replace(tags=text, unit=unit, updated_us=now_us)
        db.execute("INSERT OR REPLACE INTO sensors VALUES (?, ?, ?, ?, ?, ?)", row)
        rows_changed(db, _TABLE, 1 if known is None else 0)
    return told._replace(former=former)


def delete(db: apsw.Connection, sensor_id: str) -> None:
    """Delete the record of a sensor, if there is one."""
    db.execute("DELETE FROM sensors WHERE sensor_id = ?", (sensor_id,))
    if db.changes():
        rows_changed(db, _TABLE, -1)
