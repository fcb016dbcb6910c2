"""Rows of ``name_rules``: renamed and forgotten sensors, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw
import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import ConflictError, FieldProblem, RecordsFullError
from ocean_core.model.naming import NameRule, Names
from ocean_core.storage.operational import audit, loss_ledger, sensors

_ALL = """
SELECT id, kind, sensor_id, new_id, iif(kind = 'forget' AND epoch <> ?, 0, up_to_id)
FROM name_rules ORDER BY id
"""
_PUT = """
INSERT OR REPLACE INTO name_rules (id, kind, sensor_id, new_id, up_to_id, epoch, created_us)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class Held(NamedTuple):
    """What memory holds: the journal's epoch, and all rules as they are in it."""

    epoch: str
    rules: Sequence[NameRule] = ()


def every(db: apsw.Connection, epoch: str) -> list[NameRule]:
    """Return all rules in their order, as they are in a journal of this epoch.

    They only ever become more. What was forgotten in another epoch had other ids: such a rule
    keeps its place and forgets nothing.
    """
    return [NameRule(*row) for row in db.execute(_ALL, (epoch,))]


def put_back(db: apsw.Connection, held: Held, now_us: int) -> None:
    """Add the rules that memory holds and the file has lost, in a salvage."""
    found = {rule.id: rule for rule in every(db, held.epoch)}
    for rule in held.rules:
        if found.get(rule.id) != rule:
            _put(db, rule, held.epoch, now_us)


def rename(
    db: apsw.Connection,
    sensor_id: str,
    new_id: str,
    now_us: int,
    origin: Origin,
    *,
    held: Held,
) -> list[NameRule]:
    """Give a sensor another name; its record, profiles and losses go along. Return all rules.

    An older name of the same sensor can be taken back. Raises ConflictError if the new name is, or
    was, the name of another sensor as far as is known here; RecordsFullError beyond NAME_RULES_MAX.
    """
    put_back(db, held, now_us)
    rules = every(db, held.epoch)
    name = Names(rules).asked(sensor_id)
    _check_free(db, rules, name, new_id)
    _check_room(rules)
    _put(db, NameRule(_next_id(rules), "rename", name, new_id), held.epoch, now_us)
    db.execute("UPDATE sensors SET sensor_id = ? WHERE sensor_id = ?", (new_id, name))
    db.execute("UPDATE profiles SET sensor_id = ? WHERE sensor_id = ?", (new_id, name))
    loss_ledger.move(db, name, new_id)
    audit.record(db, now_us, origin, "sensors.rename", name, {"to": new_id})
    return every(db, held.epoch)


def forget(
    db: apsw.Connection,
    sensor_id: str,
    up_to_id: int,
    now_us: int,
    origin: Origin,
    *,
    held: Held,
) -> tuple[list[NameRule], int]:
    """Forget a sensor's readings up to an id, and its record. Return all rules, and the new id.

    The rule names the sensor as it is called today: by the earlier rules that means whatever came
    under any of its names. Raises RecordsFullError beyond NAME_RULES_MAX.
    """
    put_back(db, held, now_us)
    rules = every(db, held.epoch)
    name = Names(rules).asked(sensor_id)
    _check_room(rules)
    rule_id = _next_id(rules)
    _put(db, NameRule(rule_id, "forget", name, "", up_to_id), held.epoch, now_us)
    loss_ledger.await_count(db, rule_id, name)
    sensors.delete(db, name)
    audit.record(db, now_us, origin, "sensors.forget", name, {"up_to_id": up_to_id})
    return every(db, held.epoch), rule_id


def _next_id(rules: list[NameRule]) -> int:
    return rules[-1].id + 1 if rules else 1


def _put(db: apsw.Connection, rule: NameRule, epoch: str, now_us: int) -> None:
    # One that forgets nothing is of no epoch: its number would mean something else in this one.
    noted = epoch if rule.kind == "forget" and rule.up_to_id else ""
    db.execute(_PUT, (*msgspec.structs.astuple(rule), noted, now_us))


def _check_free(db: apsw.Connection, rules: list[NameRule], name: str, new_id: str) -> None:
    taken = None
    names = Names(rules)
    if new_id == name:
        taken = "it has this name already"
    elif new_id in names.stored(name) and names.asked(new_id) == name:
        # A name of its own that it had before: taken back.
        return
    elif any(rule.kind == "rename" and new_id in {rule.sensor_id, rule.new_id} for rule in rules):
        # Also keeps chains of names from becoming rings.
        taken = f"this is, or was, a name of the sensor {names.asked(new_id)!r}"
    elif sensors.get(db, new_id) is not None:
        taken = "there is a record for a sensor of this name"
    if taken is not None:
        raise name_taken(name, new_id, taken)


def name_taken(name: str, new_id: str, why: str) -> ConflictError:
    """Return the error for a new name that is none."""
    return ConflictError(
        f"{name!r} cannot be renamed to {new_id!r}: {why}",
        fields=(FieldProblem("to", repr(new_id), "a name that no sensor has or had"),),
    )


def _check_room(rules: list[NameRule]) -> None:
    if len(rules) >= limits.NAME_RULES_MAX:
        raise RecordsFullError(
            f"{limits.NAME_RULES_MAX} sensors were renamed or forgotten already",
            hint="Change the name where the readings come from.",
        )
