"""Rows of ``loss_ledger``: how many readings of a sensor are no longer stored, and why.

How many a forget rule took away is known only when analytics have applied it. Until then the rule
is noted in ``meta``, so that its readings are counted once, whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import apsw

from ocean_core.model.naming import NameRule, Names
from ocean_core.storage.operational.pages import page_of

FORGOTTEN: Final = "forgotten"

_ADD = """
INSERT INTO loss_ledger VALUES (?, ?, ?, ?)
ON CONFLICT (sensor_id, class) DO UPDATE SET
    count = count + excluded.count, updated_us = excluded.updated_us
"""
_PAGE = """
SELECT sensor_id, class, count, updated_us FROM loss_ledger
WHERE (sensor_id, class) > (?, ?) ORDER BY sensor_id, class LIMIT ?
"""
_AWAITED = "count of rule:"


class LossRow(NamedTuple):
    """How many readings of a sensor went one way."""

    sensor_id: str
    loss_class: str
    lost: int
    updated_us: int


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


def await_count(db: apsw.Connection, rule_id: int, sensor_id: str) -> None:
    """Note that a rule's readings are not counted yet."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_AWAITED}{rule_id}", sensor_id))


def any_awaited(db: apsw.Connection) -> bool:
    """Whether readings of a rule are not counted yet."""
    return bool(_awaited(db))


def is_awaited(key: str) -> bool:
    """Whether a key of ``meta`` notes that a rule's readings are not counted yet."""
    return key.startswith(_AWAITED) and key.removeprefix(_AWAITED).isdecimal()


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
