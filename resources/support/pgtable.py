"""The table that a PostgreSQL sink writes: making it fit the rows, and applying staged rows to it by disposition.

All of it happens in the caller's transaction, so a load that fails has changed nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.core.names import columns, quoted
from resources.support.applying import Applying
from resources.support.libpq import driver
from resources.support.pgbent import bent
from resources.support.pgtypes import Wire, by_name
from resources.support.tables import TableName

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[Any, ...]]


_MOMENT = "timestamp with time zone"


@dataclass(frozen=True)
class Done:
    """How many rows were written, and what else happened."""

    rows: int
    facts: Mapping[str, int] = field(default_factory=dict)


# Each column with its type as CAST takes it, the same with domains resolved, also those that an array is made of, and
# whether it takes no value but the server's own.
_COLUMNS = """
WITH RECURSIVE made AS (
    SELECT attnum, attname, atttypid AS kind, atttypmod AS modifier, '' AS suffix, 0 AS depth,
        format_type(atttypid, atttypmod) AS type, attidentity = 'a' OR attgenerated <> '' AS own
    FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT attnum, attname, CASE typtype WHEN 'd' THEN typbasetype ELSE typelem END,
        CASE typtype WHEN 'd' THEN typtypmod ELSE -1 END, suffix || CASE typtype WHEN 'd' THEN '' ELSE '[]' END,
        depth + 1, type, own
    FROM made JOIN pg_type ON pg_type.oid = kind
    WHERE typtype = 'd' OR typcategory = 'A' AND EXISTS (
        SELECT 1 FROM pg_type AS element WHERE element.oid = pg_type.typelem AND element.typtype = 'd')
)
SELECT DISTINCT ON (attnum) attname, type, format_type(kind, modifier) || suffix, own FROM made
ORDER BY attnum, depth DESC
"""


@dataclass(frozen=True)
class Place:
    """A column of the target: its type, the type with domains resolved, and whether the server alone fills it."""

    name: str
    type: str
    base: str
    own: bool


@dataclass(frozen=True)
class Pair:
    """A staged column and the target's column that takes it."""

    wire: Wire
    place: Place

    @property
    def value(self) -> str:
        """The staged value in the target's type."""
        staged = quoted(self.wire.name)
        return staged if self.wire.staged == self.place.type else f"CAST({staged} AS {self.place.type})"


def exists(session: Session, table: TableName) -> bool:
    """Whether there is such a table."""
    return session.execute("SELECT to_regclass(%s) IS NOT NULL", (table.sql,)).fetchone() == (True,)


def places(session: Session, table: TableName) -> dict[str, Place]:
    """The columns of a table by name; empty when there is no such table."""
    return {row[0]: Place(*row) for row in session.execute(_COLUMNS.encode(), (table.sql,)).fetchall()}


def fit(session: Session, table: TableName, wires: Sequence[Wire], how: Disposition, *, create: bool) -> None:
    """Make the table, and the columns that it lacks for the staged ones.

    Raises SpecError when something is missing and `create` is false, or for columns of a history that are others.
    """
    present = {name: place.type for name, place in places(session, table).items()}
    history = {VALID_FROM: _MOMENT, VALID_TO: _MOMENT} if isinstance(how, History) else {}
    other = [name for name in history if present.get(name, _MOMENT) != _MOMENT]
    if other:
        what = f'the column "{other[0]}" of {table} is {present[other[0]]}, but a history needs {_MOMENT}'
        raise SpecError(what, mend="rename it, or write the history to another table", where=str(table))
    wanted = {one.name: one.landed for one in wires} | history
    missing = {name: kind for name, kind in wanted.items() if by_name(list(present), name) is None}
    if missing and not create:
        what = f"has no column {columns(list(missing))}" if present else "does not exist"
        raise SpecError(f"{table} {what}", mend="create it, or set `create: true`", where=str(table))
    landed = [f"{quoted(name)} {kind}" for name, kind in missing.items()]
    if landed and present:
        session.execute(f"ALTER TABLE {table.sql} {', '.join(f'ADD COLUMN {one}' for one in landed)}")
    elif landed:
        session.execute(f"CREATE TABLE {table.sql} ({', '.join(landed)})")


def paired(session: Session, table: TableName, wires: Sequence[Wire]) -> list[Pair]:
    """Which column of the table, which has one for each, takes which staged column.

    Raises SpecError for a column that the server alone may fill.
    """
    present = places(session, table)
    found = [(one, by_name(list(present), one.name)) for one in wires]
    pairs = [Pair(one, present[name]) for one, name in found if name is not None]
    for pair in pairs:
        if pair.place.own:
            raise SpecError(
                f'the column "{pair.place.name}" of {table} is GENERATED ALWAYS, so only the server may fill it',
                mend="leave it out in a transform, or make it GENERATED BY DEFAULT AS IDENTITY",
                where=str(table),
            )
    return pairs


def refuse_bent(session: Session, table: TableName, stage: TableName, pairs: Sequence[Pair]) -> None:
    """Raise DataError when a value would change in the target's type, naming the column and one such value."""
    psycopg = driver()
    for pair in pairs:
        name = quoted(pair.wire.name)
        condition = bent(pair.wire.staged, pair.place.type, name, pair.place.base)
        if condition is None:
            continue
        try:
            rows = session.execute(f"SELECT count(*), min({name}::text) FROM {stage.sql} WHERE {condition}")
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise _unfit(table, pair, str(error).splitlines()[0]) from error
        except psycopg.errors.CannotCoerce as error:
            raise SpecError(
                f'the column "{pair.place.name}" is {pair.place.type} and cannot take {pair.wire.landed}',
                mend="cast the column in a transform, or change the type of the table's column",
                where=str(table),
            ) from error
        count, example = rows.fetchone() or (0, "")
        if count:
            raise _unfit(table, pair, f"{count} of its values, such as {str(example)[:100]!r}, would be changed by it")


def _unfit(table: TableName, pair: Pair, why: str) -> DataError:
    return DataError(
        f'the column "{pair.place.name}" is {pair.place.type}: {why}',
        mend="give the table's column a wider type, or clean the values in a transform",
        where=str(table),
    )


def apply(
    session: Session, table: TableName, stage: TableName, pairs: Sequence[Pair], how: Disposition, at: str
) -> Done:
    """Bring the staged rows into the table, for a history from the moment `at` (SQL) on."""
    match how:
        case Merge():
            return Done(_merge(session, table, stage, pairs, _keys(pairs, how.keys)))
        case History():
            return _history(session, table, stage, pairs, _keys(pairs, how.keys), at)
        case Replace():
            _empty(session, table)
    return Done(session.execute(applying(table, stage, pairs).insert()).rowcount)


def applying(table: TableName, stage: TableName, pairs: Sequence[Pair], keys: Sequence[Pair] = ()) -> Applying:
    """The statements that bring staged rows, in the table's types, into the table."""
    values = ", ".join(f"{pair.value} AS {quoted(pair.place.name)}" for pair in pairs)
    names, by = (tuple(pair.place.name for pair in some) for some in (pairs, keys))
    return Applying(table.sql, f"SELECT {values} FROM {stage.sql}", names, by, same=_same_image)


def _same_image(left: Sequence[str], right: Sequence[str]) -> str:
    """To the bit, so that 1.0 differs from 1.00; and json, xml and points, which have no `=`, can be compared."""
    return f"record_image_eq(ROW({', '.join(left)}), ROW({', '.join(right)}))"


def _keys(pairs: Sequence[Pair], wanted: Sequence[str]) -> list[Pair]:
    by_input = {pair.wire.name: pair for pair in pairs}
    names = [by_name(list(by_input), key) for key in wanted]
    return [by_input[name] for name in names if name is not None]


def _history(
    session: Session, table: TableName, stage: TableName, pairs: Sequence[Pair], keys: Sequence[Pair], at: str
) -> Done:
    session.execute("SET LOCAL work_mem = '64MB'")
    by = ", ".join(key.value for key in keys)
    # Of rows with one key the one staged last stays.
    session.execute(
        f"DELETE FROM {stage.sql} WHERE ctid IN (SELECT ctid FROM (SELECT ctid, row_number() OVER (PARTITION BY {by} "
        f"ORDER BY ctid DESC) AS nth FROM {stage.sql}) AS numbered WHERE nth > 1)"
    )
    given = applying(table, stage, pairs, keys)
    closed = session.execute(given.close(at)).rowcount
    return Done(session.execute(given.open(at)).rowcount, {"rows_closed": closed})


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


def _merge(session: Session, table: TableName, stage: TableName, pairs: Sequence[Pair], keys: Sequence[Pair]) -> int:
    by = [key.place.name for key in keys]
    _unique(session, table, by)
    on = ", ".join(key.value for key in keys)
    names = [pair.place.name for pair in pairs]
    changes = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names if name not in by)
    session.execute("SET LOCAL work_mem = '64MB'")
    # In the order of the keys, the index is walked once; of rows with one key the one staged last comes first.
    values = ", ".join(pair.value for pair in pairs)
    return session.execute(
        f"INSERT INTO {table.sql} AS target ({columns(names)}) "
        f"SELECT DISTINCT ON ({on}) {values} FROM {stage.sql} ORDER BY {on}, ctid DESC "
        f"ON CONFLICT ({columns(by)}) " + (f"DO UPDATE SET {changes}" if changes else "DO NOTHING")
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
