"""Rows of ``loss_ledger``: how many readings of a sensor are not, or no longer, stored, and why.

A class is one word, or ``refused`` and the code of the refusal. What cannot be told from any sensor
that is known stands under an empty name. How many a forget rule took away is known only when analytics have applied it. Until then the rule
is noted in ``meta``, so that its readings are counted once, whatever happens in between. There too:
between which moments refusals may be missing, because the process died before they were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import apsw

from ocean_core.model.naming import NameRule, Names
from ocean_core.storage.operational.pages import page_of

FORGOTTEN: Final = "forgotten"
REFUSED: Final = "refused"

_ADD = """
INSERT INTO loss_ledger VALUES (?, ?, ?, ?)
ON CONFLICT (sensor_id, class) DO UPDATE SET
    count = count + excluded.count, updated_us = excluded.updated_us
"""
_PAGE = """
SELECT sensor_id, class, count, updated_us FROM loss_ledger
WHERE (sensor_id, class) > (?, ?) ORDER BY sensor_id, class LIMIT ?
"""
_OF_SENSOR = """
SELECT sensor_id, class, count, updated_us FROM loss_ledger
WHERE sensor_id = ? AND class > ? ORDER BY class
"""
_TOTALS = "SELECT class, sum(count) FROM loss_ledger GROUP BY class ORDER BY class"
_LAST_REFUSED = "SELECT max(updated_us) FROM loss_ledger WHERE class GLOB 'refused *'"
_AWAITED = "count of rule:"
_UNSURE = "refusals unsure"


class LossRow(NamedTuple):
    """How many readings of a sensor went one way."""

    sensor_id: str
    loss_class: str
    lost: int
    updated_us: int


class UncleanStop(NamedTuple):
    """A process that died after ``alive_us``, found at ``until_us``.

    What it had counted in its last ``delay_us`` was perhaps not entered.
    """

    alive_us: int
    until_us: int
    delay_us: int


class Unsure(NamedTuple):
    """Between which moments refusals may be missing, and how many unclean stops there were."""

    since_us: int
    until_us: int
    stops: int


def refused_class(code: str) -> str:
    """Return the class of what is refused with a code."""
    return f"{REFUSED} {code}"


def enter(
    db: apsw.Connection,
    counts: Mapping[tuple[str, str], int],
    now_us: int,
    stop: UncleanStop | None = None,
) -> None:
    """Add counts by (sensor, class), and note what a stop before may have left out."""
    if stop is not None:
        _note(db, stop)
    for (sensor_id, loss_class), count in counts.items():
        add(db, LossRow(sensor_id, loss_class, count, now_us))


def add(db: apsw.Connection, row: LossRow) -> None:
    """Add to what is counted for a sensor and class."""
    db.execute(_ADD, row)


def move(db: apsw.Connection, sensor_id: str, new_id: str) -> None:
    """Let what was counted for a sensor be counted under another name."""
    rows = list(db.execute("SELECT * FROM loss_ledger WHERE sensor_id = ?", (sensor_id,)))
    for _, loss_class, count, updated_us in rows:
        add(db, LossRow(new_id, loss_class, count, updated_us))
    db.execute("DELETE FROM loss_ledger WHERE sensor_id = ?", (sensor_id,))


def page(db: apsw.Connection, after: tuple[str, str], limit: int) -> tuple[list[LossRow], bool]:
    """Return rows by sensor and class behind (sensor, class), and whether more follow."""
    rows, more = page_of(db, _PAGE, after, limit)
    return [LossRow(*row) for row in rows], more


class Found(NamedTuple):
    """Rows for a page, whether more follow, the sums for the first page, and how sure all is."""

    rows: list[LossRow]
    more: bool
    totals: dict[str, int]
    unsure: Unsure | None


def look(db: apsw.Connection, after: tuple[str, str], limit: int, sensor_id: str | None) -> Found:
    """Return rows by sensor and class behind (sensor, class); of one sensor all there are."""
    unsure_now = unsure(db)
    if sensor_id is not None:
        after_class = after[1] if after[0] == sensor_id else ""
        return Found(_of_sensor(db, sensor_id, after_class), False, {}, unsure_now)
    rows, more = page(db, after, limit)
    return Found(rows, more, {} if any(after) else _totals(db), unsure_now)


def _of_sensor(db: apsw.Connection, sensor_id: str, after_class: str) -> list[LossRow]:
    """Return the rows of one sensor by class, those behind a class."""
    return [LossRow(*row) for row in db.execute(_OF_SENSOR, (sensor_id, after_class))]


def _totals(db: apsw.Connection) -> dict[str, int]:
    """Return the sum of each class. Reads the whole table."""
    return {loss_class: int(count) for loss_class, count in db.execute(_TOTALS)}


def _note(db: apsw.Connection, stop: UncleanStop) -> None:
    entered = db.execute(_LAST_REFUSED).get
    alive_us = max(stop.alive_us, entered if isinstance(entered, int) else 0)
    before = unsure(db) or Unsure(stop.until_us, 0, 0)
    # A clock that was set back must not turn the span around.
    since_us = max(0, min(before.since_us, alive_us - stop.delay_us, stop.until_us))
    noted = f"{since_us} {stop.until_us} {before.stops + 1}"
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_UNSURE, noted))


def unsure(db: apsw.Connection) -> Unsure | None:
    """Return when refusals may be missing, None if they are all there."""
    noted = db.execute("SELECT value FROM meta WHERE key = ?", (_UNSURE,)).get
    numbers = noted.split() if isinstance(noted, str) else []
    if len(numbers) != len(Unsure._fields) or not all(map(str.isdecimal, numbers)):
        return None
    return Unsure(*map(int, numbers))


def await_count(db: apsw.Connection, rule_id: int, sensor_id: str) -> None:
    """Note that a rule's readings are not counted yet."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_AWAITED}{rule_id}", sensor_id))


def any_awaited(db: apsw.Connection) -> bool:
    """Whether readings of a rule are not counted yet."""
    return bool(_awaited(db))


def is_note(key: str) -> bool:
    """Whether a key of ``meta`` belongs to the ledger."""
    number = key.removeprefix(_AWAITED)
    return key == _UNSURE or (number != key and number.isdecimal())


def drop_unknown(db: apsw.Connection) -> None:
    """Wait no longer for rules that are not there (after a salvage)."""
    known = {rule_id for (rule_id,) in db.execute("SELECT id FROM name_rules")}
    for rule_id in _awaited(db).keys() - known:
        db.execute("DELETE FROM meta WHERE key = ?", (f"{_AWAITED}{rule_id}",))


def settle(
    db: apsw.Connection, rules: list[NameRule], counts: Mapping[int, int], now_us: int
) -> bool:
    """Count what these rules took away that were waiting for it; a missing number is 0.

    Return whether other rules, later ones, still wait.
    """
    names = Names(rules)
    awaited = _awaited(db)
    for rule_id, sensor_id in awaited.items():
        if rule_id > names.last_rule:
            continue
        count = counts.get(rule_id, 0)
        if count:
            # It may have been renamed while analytics were away.
            add(db, LossRow(names.asked(sensor_id), FORGOTTEN, count, now_us))
        db.execute("DELETE FROM meta WHERE key = ?", (f"{_AWAITED}{rule_id}",))
    return any(rule_id > names.last_rule for rule_id in awaited)


def _awaited(db: apsw.Connection) -> dict[int, str]:
    rows = db.execute(
        "SELECT key, value FROM meta WHERE key >= ? AND key < ?", (_AWAITED, _AWAITED[:-1] + ";")
    )
    return {int(key.removeprefix(_AWAITED)): sensor_id for key, sensor_id in rows}
