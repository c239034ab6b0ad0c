"""Bringing staged rows into the table of a MySQL sink, by disposition; all of it in the caller's transaction.

A temporary table stands in each statement once, because MySQL cannot open it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.engine.shaping import PROVENANCE
from resources.support.mysql_server import changed, rows, ticked, ticked_all
from resources.support.mysql_stage import ROW, sql
from resources.support.mysql_table import Rows
from resources.support.tables import TableName

if TYPE_CHECKING:
    from resources.support.mysql_server import Session


def index_for_history(session: Session, given: Rows, keys: Sequence[str]) -> None:
    """Let current versions find their row among the given ones; before the transaction, as it would end it."""
    changed(session, f"ALTER TABLE {given.table} ADD INDEX ({ticked_all(list(keys))})")


def delete(session: Session, table: TableName, gone: Rows) -> int:
    """Remove the rows with the keys of `gone`; gives how many there were."""
    return changed(
        session,
        f"DELETE past FROM {gone.table} AS given STRAIGHT_JOIN {sql(table)} AS past ON {_met(gone, gone.columns)}",
    )


def apply(
    session: Session, table: TableName, given: Rows, how: Disposition, keys: Sequence[str], at: datetime
) -> dict[str, int]:
    """Bring the rows into the table, in the caller's transaction; gives what else happened."""
    match how:
        case History():
            return _follow(session, table, given, keys, at)
        case Merge():
            _merge(session, table, given, keys)
        case Replace():
            _empty(session, table)
            _insert(session, table, given)
        case _:
            _insert(session, table, given)
    return {}


def _insert(session: Session, table: TableName, given: Rows, condition: str = "") -> None:
    # In the order in which they came, which is mostly that of the keys: then indexes grow at their end.
    values = ", ".join(f"given.{ticked(name)}" for name in given.columns)
    changed(
        session,
        f"INSERT INTO {sql(table)} ({ticked_all(given.columns)}) SELECT {values} FROM {given.table} AS given "
        f"{condition} ORDER BY given.{ticked(ROW)}",
    )


def _merge(session: Session, table: TableName, given: Rows, keys: Sequence[str]) -> None:
    """Not ON DUPLICATE KEY UPDATE: it would also change rows that another unique index holds to be the same."""
    met = _met(given, keys)
    rest = [ticked(name) for name in given.columns if name not in keys]
    if rest:
        sets = ", ".join(f"past.{name} = given.{name}" for name in rest)
        changed(session, f"UPDATE {given.table} AS given STRAIGHT_JOIN {sql(table)} AS past ON {met} SET {sets}")
    _insert(session, table, given, f"WHERE NOT EXISTS (SELECT 1 FROM {sql(table)} AS past WHERE {met})")


def _follow(session: Session, table: TableName, given: Rows, keys: Sequence[str], at: datetime) -> dict[str, int]:
    """End the current versions that came otherwise or not at all, and add the rows that have none."""
    moment = f"'{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
    content = [name for name in given.columns if name not in PROVENANCE and name not in keys]
    alike = "".join(f" AND {_alike(given, name)}" for name in content)
    met = _met(given, keys)
    closed = changed(
        session,
        f"UPDATE {sql(table)} AS past LEFT JOIN {given.table} AS given ON {met}{alike} "
        f"SET past.{ticked(VALID_TO)} = {moment} WHERE past.{ticked(VALID_TO)} IS NULL AND given.{ticked(ROW)} IS NULL",
    )
    values = ", ".join(f"given.{ticked(name)}" for name in given.columns)
    opened = changed(
        session,
        f"INSERT INTO {sql(table)} ({ticked_all([*given.columns, VALID_FROM, VALID_TO])}) "
        f"SELECT {values}, {moment}, NULL FROM {given.table} AS given WHERE NOT EXISTS (SELECT 1 FROM {sql(table)} "
        f"AS past WHERE past.{ticked(VALID_TO)} IS NULL AND {met}) ORDER BY given.{ticked(ROW)}",
    )
    return {"rows_closed": closed, "rows_opened": opened}


def _met(given: Rows, keys: Sequence[str]) -> str:
    """The condition that a row of the table has the key of a given one: by its index, and by its bytes."""
    parts = [f"past.{ticked(key)} = given.{ticked(key)}" for key in keys]
    parts += [_alike(given, key) for key in keys if key in given.by_bytes]
    return " AND ".join(parts)


def _alike(given: Rows, name: str) -> str:
    """The condition that both have the same value: of texts, the same bytes."""
    here, there = f"given.{ticked(name)}", f"past.{ticked(name)}"
    return f"CAST({here} AS BINARY) <=> CAST({there} AS BINARY)" if name in given.by_bytes else f"{here} <=> {there}"


def _empty(session: Session, table: TableName) -> None:
    """DELETE, not TRUNCATE or a table that takes the other's name: those would commit, and apart from the ledger."""
    referring = rows(
        session,
        "SELECT CONSTRAINT_SCHEMA, TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS "
        "WHERE UNIQUE_CONSTRAINT_SCHEMA = %s AND REFERENCED_TABLE_NAME = %s "
        "AND DELETE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT') "
        "AND (CONSTRAINT_SCHEMA, TABLE_NAME) <> (UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME)",
        (table.schema, table.table),
    )
    if referring:
        raise SpecError(
            f"replacing {table} would delete or change rows of {'.'.join(referring[0])}, whose foreign key cascades",
            mend="use `disposition: merge` with `keys`, or change the foreign key",
            where=str(table),
        )
    changed(session, f"DELETE FROM {sql(table)}")
