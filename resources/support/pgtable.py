"""The table that a PostgreSQL sink writes: making it fit the rows, and applying staged rows to it by disposition.

All of it happens in the caller's transaction, so a load that fails has changed nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.disposition import Disposition, Merge, Replace
from databrokkr_assets.core.errors import DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import columns, literal, quoted
from resources.support.libpq import driver
from resources.support.pgtypes import Wire, bent, by_name
from resources.support.tables import TableName

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Pair:
    """A staged column and the target's column that takes it, with that one's type."""

    wire: Wire
    column: str
    type: str

    @property
    def value(self) -> str:
        """The staged value in the target's type."""
        staged = quoted(self.wire.name)
        return staged if self.wire.staged == self.type else f"CAST({staged} AS {self.type})"


def existing(session: Session, table: TableName) -> dict[str, str]:
    """The columns of a table with their types; empty when there is no such table."""
    rows = session.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (table.sql,),
    )
    return dict(rows.fetchall())


def require_keys(how: Disposition, names: Sequence[str], table: TableName) -> None:
    """Raise SpecError when a merge key is no column of the rows."""
    for key in how.keys if isinstance(how, Merge) else ():
        if by_name(names, key) is None:
            raise SpecError(f'the key "{key}" is no column', mend=did_you_mean(key, names), where=str(table))


def fitted(session: Session, table: TableName, wires: Sequence[Wire], *, create: bool) -> list[Pair]:
    """Make the table take the staged columns, adding what is missing, and say which column takes which.

    Raises SpecError when something is missing and `create` is false.
    """
    present = existing(session, table)
    missing = [one for one in wires if by_name(list(present), one.name) is None]
    if missing and not create:
        what = f"has no column {columns([one.name for one in missing])}" if present else "does not exist"
        raise SpecError(f"{table} {what}", mend="create it, or set `create: true`", where=str(table))
    if missing:
        landed = [f"{quoted(one.name)} {one.landed}" for one in missing]
        if present:
            session.execute(f"ALTER TABLE {table.sql} {', '.join(f'ADD COLUMN {one}' for one in landed)}")
        else:
            session.execute(f"CREATE TABLE {table.sql} ({', '.join(landed)})")
        present = existing(session, table)
    found = [(one, by_name(list(present), one.name)) for one in wires]
    return [Pair(one, name, present[name]) for one, name in found if name is not None]


def refuse_bent(session: Session, table: TableName, stage: TableName, pairs: Sequence[Pair]) -> None:
    """Raise DataError when a value would change in the target's type, naming the column and one such value."""
    psycopg = driver()
    for pair in pairs:
        name = quoted(pair.wire.name)
        condition = bent(pair.wire.staged, pair.type, name)
        if condition is None:
            continue
        try:
            rows = session.execute(f"SELECT count(*), min({name}::text) FROM {stage.sql} WHERE {condition}")
        except psycopg.DataError as error:
            raise _unfit(table, pair, str(error).splitlines()[0]) from error
        except psycopg.errors.CannotCoerce as error:
            raise SpecError(
                f'the column "{pair.column}" is {pair.type} and cannot take {pair.wire.landed}',
                mend="cast the column in a transform, or change the type of the table's column",
                where=str(table),
            ) from error
        count, example = rows.fetchone() or (0, "")
        if count:
            raise _unfit(table, pair, f"{count} of its values, such as {str(example)[:100]!r}, would be changed by it")


def _unfit(table: TableName, pair: Pair, why: str) -> DataError:
    return DataError(
        f'the column "{pair.column}" is {pair.type}: {why}',
        mend="give the table's column a wider type, or clean the values in a transform",
        where=str(table),
    )


def apply(session: Session, table: TableName, stage: TableName, pairs: Sequence[Pair], how: Disposition) -> int:
    """Bring the staged rows into the table; gives how many rows were written."""
    into = f"INSERT INTO {table.sql} AS target ({columns([pair.column for pair in pairs])})"
    values = ", ".join(pair.value for pair in pairs)
    if isinstance(how, Merge):
        return _merge(session, table, into, f"{values} FROM {stage.sql}", pairs, how.keys)
    if isinstance(how, Replace):
        _empty(session, table)
    return session.execute(f"{into} SELECT {values} FROM {stage.sql}").rowcount


def _empty(session: Session, table: TableName) -> None:
    """DELETE, not TRUNCATE: that would lock readers out while the rows come in, and a reader whose snapshot is older
    would find the table empty."""
    referring = session.execute(
        "SELECT conrelid::regclass::text FROM pg_constraint "
        "WHERE confrelid = to_regclass(%s) AND contype = 'f' AND confdeltype IN ('c', 'n', 'd') "
        "AND conrelid <> confrelid",
        (table.sql,),
    ).fetchone()
    if referring:
        raise SpecError(
            f"replacing {table} would delete or change rows of {referring[0]}, whose foreign key cascades",
            mend="use `disposition: merge` with `keys`, or change the foreign key",
            where=str(table),
        )
    session.execute(f"DELETE FROM {table.sql}")


def _merge(
    session: Session, table: TableName, into: str, rows: str, pairs: Sequence[Pair], wanted: Sequence[str]
) -> int:
    by_input = {pair.wire.name: pair for pair in pairs}
    names = [by_name(list(by_input), key) for key in wanted]
    keys = [by_input[name] for name in names if name is not None]
    _unique(session, table, [key.column for key in keys])
    on = ", ".join(key.value for key in keys)
    rest = [pair.column for pair in pairs if pair not in keys]
    changes = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in rest)
    session.execute("SET LOCAL work_mem = '64MB'")
    # In the order of the keys, the index is walked once; of rows with one key the one staged last comes first.
    return session.execute(
        f"{into} SELECT DISTINCT ON ({on}) {rows} ORDER BY {on}, ctid DESC "
        f"ON CONFLICT ({columns([key.column for key in keys])}) "
        + (f"DO UPDATE SET {changes}" if changes else "DO NOTHING")
    ).rowcount


def _unique(session: Session, table: TableName, keys: Sequence[str]) -> None:
    """Make sure that a unique index on the keys stands, which `ON CONFLICT` needs."""
    found = session.execute(
        "SELECT 1 FROM pg_index WHERE indrelid = to_regclass(%s) AND indisunique AND indimmediate AND indisvalid "
        "AND indpred IS NULL AND indexprs IS NULL AND indnkeyatts = %s "
        "AND ARRAY(SELECT attname::text FROM pg_attribute "
        "WHERE attrelid = indrelid AND attnum = ANY((indkey::int2[])[0:indnkeyatts - 1])) @> %s::text[]",
        (table.sql, len(keys), list(keys)),
    ).fetchone()
    if found:
        return
    name = f"_databrokkr_key_{hashlib.md5(repr((str(table), sorted(keys))).encode()).hexdigest()[:12]}"
    try:
        session.execute(f"CREATE UNIQUE INDEX {quoted(name)} ON {table.sql} ({columns(list(keys))})")
    except driver().errors.UniqueViolation as error:
        raise DataError(
            f"{table} has several rows with one key ({', '.join(keys)}), so merging by it has no meaning: {error}",
            mend="remove the doubles, or choose other `keys`",
            where=str(table),
        ) from error


def known_tables(session: Session) -> list[str]:
    """The tables and views of the database, `schema.table`, for suggestions."""
    rows = session.execute(
        "SELECT nspname || '.' || relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^(pg_|information_schema$)' "
        "AND relname NOT LIKE '\\_databrokkr\\_%' ORDER BY 1 LIMIT 5000"
    )
    return [name for (name,) in rows.fetchall()]


def lock_for(session: Session, name: str) -> None:
    """Hold, until the transaction ends, what only one of us may do at a time."""
    number = int.from_bytes(hashlib.md5(f"databrokkr {name}".encode()).digest()[:8], "big", signed=True)
    session.execute(f"SELECT pg_advisory_xact_lock({number})")


def stage_like(node: str) -> str:
    """How the staging tables of a node's loads begin; a load's own name follows."""
    return f"_databrokkr_stage_{hashlib.md5(node.encode()).hexdigest()[:8]}_"


def leftovers(session: Session, schema: str, prefix: str) -> list[TableName]:
    """Staging tables whose names begin with `prefix`."""
    rows = session.execute(
        "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        f"WHERE relkind = 'r' AND nspname = {literal(schema)} AND starts_with(relname::text, {literal(prefix)})"
    )
    return [TableName(schema, name) for (name,) in rows.fetchall()]
