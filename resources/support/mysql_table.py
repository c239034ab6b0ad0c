"""The table that a MySQL sink writes: making it fit the rows, and the rows fit its types.

MySQL commits whatever is open when it creates or alters a table. So all of this comes before the transaction that
applies the rows: a load that fails may leave an empty table or a column of NULLs, but never rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History, Merge
from databrokkr_assets.core.errors import DataError, SpecError, Unavailable
from resources.support.mysql_server import changed, driver, rows, ticked, ticked_all
from resources.support.mysql_stage import ROW, Stage, exact_collation, sql
from resources.support.mysql_types import Wire, by_name, narrowed
from resources.support.tables import TableName

if TYPE_CHECKING:
    from resources.support.mysql_server import Session

_DUPLICATE = 1062
_PATIENCE = 60
"""Seconds to wait for another writer of the table."""


@dataclass(frozen=True)
class Taking:
    """A column of the target: its type, its collation (empty for what is no text), and whether it takes NULL."""

    type: str
    collation: str
    nullable: bool


@dataclass(frozen=True)
class Pair:
    """A staged column and the target's column that takes it."""

    wire: Wire
    column: str
    takes: Taking


@dataclass(frozen=True)
class Rows:
    """A temporary table whose columns are the target's, in its types; `by_bytes` are those whose texts may be the same
    to the target though their bytes differ."""

    table: str
    columns: tuple[str, ...]
    count: int
    by_bytes: frozenset[str] = frozenset()


def existing(session: Session, table: TableName) -> dict[str, Taking]:
    """The columns of a table; empty when there is no such table."""
    found = rows(
        session,
        "SELECT COLUMN_NAME, COLUMN_TYPE, COALESCE(COLLATION_NAME, ''), IS_NULLABLE = 'YES' "
        "FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
        (table.schema, table.table),
    )
    return {name: Taking(narrowed(kind), collation, bool(null)) for name, kind, collation, null in found}


def refuse_without_transactions(session: Session, table: TableName) -> None:
    """Raise SpecError for a table whose engine cannot undo, so that nothing would be exactly once."""
    found = rows(
        session,
        "SELECT one.ENGINE FROM information_schema.TABLES AS one JOIN information_schema.ENGINES AS known "
        "ON known.ENGINE = one.ENGINE WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND TRANSACTIONS <> 'YES'",
        (table.schema, table.table),
    )
    if found:
        raise SpecError(
            f"{table} is a {found[0][0]} table, which has no transactions",
            mend=f"ALTER TABLE {sql(table)} ENGINE = InnoDB, or write to another table",
            where=str(table),
        )


@contextmanager
def only_writer(session: Session, table: TableName) -> Iterator[None]:
    """Hold what only one of us may do at a time: write this table. Raises Unavailable after a minute."""
    name = f"databrokkr {hashlib.md5(str(table).encode()).hexdigest()}"
    ((held,),) = rows(session, "SELECT GET_LOCK(%s, %s)", (name, _PATIENCE))
    if held != 1:
        raise Unavailable(f"another load writes {table}", mend="run it again", where=str(table))
    yield
    rows(session, "SELECT RELEASE_LOCK(%s)", (name,))  # Where this is not reached, it ends with the session.


def fitted(session: Session, table: TableName, wires: Sequence[Wire], how: Disposition, *, create: bool) -> list[Pair]:
    """Make the table take the staged columns, adding what is missing, and say which column takes which.

    Raises SpecError when something is missing and `create` is false, and DataError for doubles among merge keys.
    """
    refuse_without_transactions(session, table)
    present = existing(session, table)
    wanted = {one.name: one.landed for one in wires}
    wanted |= {VALID_FROM: "timestamp(6)", VALID_TO: "timestamp(6)"} if isinstance(how, History) else {}
    missing = {name: kind for name, kind in wanted.items() if by_name(list(present), name) is None}
    if missing and not create:
        what = f"has no column {ticked_all(list(missing))}" if present else "does not exist"
        raise SpecError(f"{table} {what}", mend="create it, or set `create: true`", where=str(table))
    if missing:
        _add(session, table, missing, new=not present)
        present = existing(session, table)
    if isinstance(how, Merge | History):
        _index(session, table, [by_name(list(present), key) or key for key in how.keys], unique=isinstance(how, Merge))
    return pairs(present, wires)


def pairs(present: dict[str, Taking], wires: Sequence[Wire]) -> list[Pair]:
    """Which column of the table takes which staged one."""
    found = [(one, by_name(list(present), one.name)) for one in wires]
    return [Pair(one, name, present[name]) for one, name in found if name is not None]


def _add(session: Session, table: TableName, missing: dict[str, str], *, new: bool) -> None:
    exact = f"CHARACTER SET utf8mb4 COLLATE {exact_collation(session)}"
    listed = [f"{ticked(name)} {kind} {exact if _is_text(kind) else ''} NULL" for name, kind in missing.items()]
    if new:
        changed(session, f"CREATE TABLE {sql(table)} ({', '.join(listed)}) ENGINE = InnoDB {exact}")
    else:
        changed(session, f"ALTER TABLE {sql(table)} {', '.join(f'ADD COLUMN {one}' for one in listed)}")


def _is_text(kind: str) -> bool:
    return kind.startswith(("longtext", "varchar", "char"))


def _index(session: Session, table: TableName, keys: Sequence[str], *, unique: bool) -> None:
    """Make sure that the rows of a key are found without reading the table, and, for `unique`, that they are one."""
    indexes: dict[str, list[str]] = {}
    for name, column in rows(
        session,
        "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s "
        "AND NON_UNIQUE <= %s AND (SUB_PART IS NULL OR NON_UNIQUE) ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        (table.schema, table.table, 0 if unique else 1),
    ):
        indexes.setdefault(name, []).append(column)
    wanted = set(keys)
    if any(wanted == set(found if unique else found[: len(wanted)]) for found in indexes.values()):
        return
    name = f"_databrokkr_key_{hashlib.md5(repr((str(table), sorted(keys))).encode()).hexdigest()[:12]}"
    kind = "UNIQUE INDEX" if unique else "INDEX"
    try:
        changed(session, f"CREATE {kind} {ticked(name)} ON {sql(table)} ({ticked_all(list(keys))})")
    except driver().err.IntegrityError as error:
        raise DataError(
            f"{table} has several rows with one key ({', '.join(keys)}), so merging by it has no meaning: "
            f"{error.args[-1]}",
            mend="remove the doubles, or choose other `keys`",
            where=str(table),
        ) from error


def shaped(session: Session, table: TableName, stage: Stage, pairs: Sequence[Pair], keys: Sequence[str]) -> Rows:
    """The staged rows in the types of the target's columns.

    Raises DataError for a value that its column would change, and for a NULL where there can be none.
    """
    count = _refuse_nulls(session, table, stage, pairs, keys)
    exact = exact_collation(session)
    columns = tuple(pair.column for pair in pairs)
    odd = [pair for pair in pairs if pair.wire.staged != pair.takes.type or pair.takes.collation not in ("", exact)]
    by_bytes = frozenset(pair.column for pair in pairs if pair.takes.collation not in ("", exact))
    if not odd and all(pair.column == pair.wire.name for pair in pairs):
        return Rows(sql(stage.table), columns, count)
    fit = sql(TableName(stage.table.schema, f"{stage.table.table}_fit"))
    kinds = ", ".join(f"one.{ticked(name)}" for name in columns)
    number = f"{ticked(ROW)} bigint unsigned NOT NULL DEFAULT 0 PRIMARY KEY"
    changed(
        session,
        f"CREATE TEMPORARY TABLE {fit} ({number}) ENGINE = InnoDB SELECT {kinds} FROM {sql(table)} AS one LIMIT 0",
    )
    staged = ticked_all([ROW, *(pair.wire.name for pair in pairs)])
    changed(session, f"INSERT INTO {fit} ({ticked_all([ROW, *columns])}) SELECT {staged} FROM {sql(stage.table)}")
    _refuse_bent(session, table, stage, fit, odd)
    return Rows(fit, columns, count, by_bytes)


def _refuse_nulls(session: Session, table: TableName, stage: Stage, pairs: Sequence[Pair], keys: Sequence[str]) -> int:
    """Where MySQL would put a number or the time of day in place of a NULL, and in keys. Gives the number of rows."""
    strict = [pair for pair in pairs if not pair.takes.nullable or pair.wire.name in keys]
    listed = "".join(f", COUNT(*) - COUNT({ticked(pair.wire.name)})" for pair in strict)
    ((count, *nulls),) = rows(session, f"SELECT COUNT(*){listed} FROM {sql(stage.table)}")
    for pair, found in zip(strict, nulls, strict=True):
        if found:
            why = "is a key" if pair.wire.name in keys else "is NOT NULL"
            raise DataError(
                f'the column "{pair.column}" {why}, and {found} of its values are NULL',
                mend="fill the values in a transform, or leave the rows out there",
                where=str(table),
            )
    return int(count)


def _refuse_bent(session: Session, table: TableName, stage: Stage, fit: str, odd: Sequence[Pair]) -> None:
    """Compare what the target's types have made of the values with the values, by way of their own types again."""
    if not odd:
        return
    back = [f"{ticked(f'_databrokkr_back{index}')} {pair.wire.staged}" for index, pair in enumerate(odd)]
    listed = ", ".join(f"ADD COLUMN {one} NULL" for one in back)
    changed(session, f"ALTER TABLE {fit} {listed}, DEFAULT CHARACTER SET utf8mb4 COLLATE {exact_collation(session)}")
    sets = [f"{ticked(f'_databrokkr_back{index}')} = {ticked(pair.column)}" for index, pair in enumerate(odd)]
    changed(session, f"UPDATE {fit} SET {', '.join(sets)}")
    for index, pair in enumerate(odd):
        here, there = f"staged.{ticked(pair.wire.name)}", f"fit.{ticked(f'_databrokkr_back{index}')}"
        if _is_text(pair.wire.staged):
            here, there = f"CAST({here} AS BINARY)", f"CAST({there} AS BINARY)"
        ((found, example),) = rows(
            session,
            f"SELECT COUNT(*), MIN(CAST(staged.{ticked(pair.wire.name)} AS CHAR)) FROM {sql(stage.table)} AS staged "
            f"JOIN {fit} AS fit ON fit.{ticked(ROW)} = staged.{ticked(ROW)} WHERE NOT ({here} <=> {there})",
        )
        if found:
            raise DataError(
                f'the column "{pair.column}" is {pair.takes.type}: {found} of its values, such as '
                f"{str(example)[:100]!r}, would be changed by it",
                mend="give the table's column a wider type, or clean the values in a transform",
                where=str(table),
            )
