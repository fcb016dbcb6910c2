"""Changes to what analytics.duckdb holds already, and the rules about names that it follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import duckdb
import msgspec
import numpy.typing as npt

from ocean_core.model.naming import NameRule
from ocean_core.storage.analytics.batch import Partials
from ocean_core.storage.analytics.cursor import partial_columns

Columns = dict[str, npt.NDArray[Any]]

# Keys in the table meta; a file without them follows no rules.
_RULES: Final = "name_rules"
_FORGOTTEN: Final = "forgotten"
RULES_QUERY: Final = f"SELECT value FROM meta WHERE key = '{_RULES}'"  # noqa: S608 - a constant
"""Asks for the rules that the file follows, for ``decode_rules``; no row means none."""


class AppliedRules(NamedTuple):
    """The rules that a file follows, and how many rows each rule that forgets made vanish."""

    rules: tuple[NameRule, ...]
    forgotten: dict[int, int]


class Changes:
    """One transaction's handle. Methods raise DuckError."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query; it sees what was changed before."""
        return self._connection.execute(sql, list(params)).fetchall()

    def columns(self, sql: str, params: Sequence[object] = ()) -> Columns:
        """Return all rows of a query as columns."""
        return cast("Columns", self._connection.execute(sql, list(params)).fetchnumpy())

    def run(self, sql: str, params: Sequence[object] = ()) -> int:
        """Run an UPDATE or DELETE and return how many rows it met."""
        found = self._connection.execute(sql, list(params)).fetchone()
        assert found is not None
        return int(found[0])

    def add_partials(self, table: str, partials: Partials) -> None:
        """Append to rollup_1m or rollup_1h."""
        insert_columns(self._connection, table, partial_columns(partials))

    def follow(self, applied: AppliedRules) -> None:
        """Note which rules the file follows once this is committed."""
        _keep(self._connection, _RULES, applied.rules)
        keep_forgotten(self._connection, applied.forgotten)


def insert_columns(connection: duckdb.DuckDBPyConnection, table: str, columns: Columns) -> None:
    """Append columns to a table; they are in the table's order."""
    connection.register("incoming", cast("Any", columns))
    try:
        connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - our names
    finally:
        connection.unregister("incoming")


def keep_forgotten(connection: duckdb.DuckDBPyConnection, forgotten: Mapping[int, int]) -> None:
    """Note how many rows each rule made vanish, within a transaction."""
    _keep(connection, _FORGOTTEN, sorted(forgotten.items()))


def read_rules(connection: duckdb.DuckDBPyConnection) -> AppliedRules:
    """Return what ``follow`` noted. Raises DuckError, or ValueError if it is not readable."""
    found = connection.execute(
        "SELECT key, value FROM meta WHERE key IN (?, ?)", [_RULES, _FORGOTTEN]
    )
    texts = dict(found.fetchall())
    rules = decode_rules(texts.get(_RULES, "[]"))
    try:
        counts = msgspec.json.decode(texts.get(_FORGOTTEN, "[]"), type=list[tuple[int, int]])
    except msgspec.DecodeError as error:
        raise ValueError(f"the rules about names cannot be read: {error}") from error
    return AppliedRules(rules, dict(counts))


def decode_rules(text: str) -> tuple[NameRule, ...]:
    """Return the rules in a value of ``RULES_QUERY``. Raises ValueError if it is not readable."""
    try:
        return msgspec.json.decode(text, type=tuple[NameRule, ...])
    except msgspec.DecodeError as error:
        raise ValueError(f"the rules about names cannot be read: {error}") from error


def _keep(connection: duckdb.DuckDBPyConnection, key: str, value: object) -> None:
    connection.execute("DELETE FROM meta WHERE key = ?", [key])
    connection.execute("INSERT INTO meta VALUES (?, ?)", [key, msgspec.json.encode(value).decode()])
