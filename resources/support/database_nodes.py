"""What every database's source and sink can say: a table, several or a query, columns, a cursor."""

from __future__ import annotations

import fnmatch
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Source, Stream
from databrokkr_assets.core.settings import Names, Settings
from databrokkr_assets.core.spec import (
    ChecksAccess,
    ConnectionSettings,
    ExpandsToStreams,
    ListsStreams,
    NodeSettings,
    Origin,
    Place,
    Range,
    ReadsInParts,
    ReadsRanges,
    SinkSettings,
    SourceSettings,
)
from databrokkr_assets.engine.duckdb import open_duck
from resources.support.connections import connected
from resources.support.cursor import Incremental
from resources.support.ranges import evenly
from resources.support.tables import TableName, table_name, tables_of

_NUMBER = re.compile(r"-?\d+")
_MAGIC = re.compile(r"[*?\[]")


def _as_mapping(value: object) -> object:
    """Names, or names with settings of their own, as the latter."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, Mapping):
        return {name: own or {} for name, own in value.items()}
    return {name: {} for name in value} if isinstance(value, Iterable) else value


Tables = Annotated[
    Mapping[str, Mapping[str, Any]],
    BeforeValidator(_as_mapping, json_schema_input_type=str | list[str] | dict[str, dict[str, Any] | None]),
]
"""Names or patterns of tables, as a list or with settings of their own."""


class DatabaseConnection(ConnectionSettings, ChecksAccess, ListsStreams):
    """A database that nodes read and write."""

    @abstractmethod
    def uri(self) -> str:
        """Where the database is, as the UI names it, without user and secrets."""


class _OfDatabase(NodeSettings):
    connects: ClassVar[type[DatabaseConnection]]
    """The model of the connections that serve it."""
    dialect: ClassVar[str]
    """The database's name in sqlglot and in the UI."""
    home: ClassVar[str]
    """The schema of a table that names none."""
    schema_: str | None = Field(default=None, alias="schema")
    """The table's schema; beside it, `table` is taken as it stands, dots and quotes included."""

    def uri(self, connection: ConnectionSettings | None) -> str:
        """The database as the UI names it, without secrets. Raises SpecError for a connection of another type."""
        return connected(connection, self.connects).uri()

    def _origin(self, name: str, table: TableName, connection: ConnectionSettings | None) -> Origin:
        return Origin((name, table.schema, table.table), self.dialect, self.uri(connection))


class Parts(Settings):
    """How a table is cut into parts."""

    by: str
    """A column of whole numbers, dates or timestamps that is spread evenly, best the primary key."""
    count: int = Field(default=10, ge=2, le=10_000)
    """How many parts."""


class DatabaseSourceSettings(_OfDatabase, SourceSettings, ExpandsToStreams, ReadsRanges, ReadsInParts):
    """Reads a table, a view, several of them, or the rows of a query."""

    connection: str
    """The name of a connection of the same type."""
    table: str | None = None
    """`table` or `schema.table`; the usual schema (`public` in PostgreSQL, `main` in DuckDB) needs no naming."""
    tables: Tables = Field(default_factory=dict)
    """Several tables, in place of `table`: names or patterns such as `sales_*`, as a list, or as a mapping to settings
    of their own. Each becomes a node, called `<this name>_<table>`; patterns are looked up by `databrokkr refresh`."""
    exclude: Names = ()
    """Tables that the patterns in `tables` are not to find: names or patterns."""
    query: str | None = None
    """SQL to read the rows of, in place of a table."""
    columns: Names = ()
    """The columns to read; without it all of them."""
    cursor: str | None = None
    """A column that grows: each load reads the rows from the last load's greatest value on. A row that is committed
    later with a smaller value is not seen, unless within `lookback`."""
    lookback: str | None = None
    """How far before the last load's greatest value each load starts, for rows that come late: `2 days` or `90 minutes`
    for a time, a number for a number. Rows come again then, so it needs `disposition: merge` or `history`."""
    cursor_nulls: Literal["first", "always"] = "first"
    """Whether rows without a value (NULL) in the cursor come with the first load only, or with each one, which needs
    `disposition: merge` or `history`."""

    parts: Parts | None = None
    """Reads a big table part by part, so that a load that dies goes on with the parts that it has not read, within a
    day. Each part is a snapshot of its own."""

    @model_validator(mode="after")
    def _one_of_three(self) -> DatabaseSourceSettings:
        if [self.table is None, self.query is None, not self.tables].count(False) != 1:
            raise ValueError("give one of `table`, `tables` and `query`")
        if self.query is not None and self.schema_ is not None:
            raise ValueError("`schema` belongs to `table`; name the schema within the `query`")
        if self.exclude and not self.patterns():
            raise ValueError("`exclude` belongs to patterns in `tables`")
        self.name()
        return self

    @model_validator(mode="after")
    def _cursor_is_whole(self) -> DatabaseSourceSettings:
        if self.cursor is None and (self.lookback or self.cursor_nulls == "always") and not self.tables:
            raise ValueError("there is no `cursor` to look back by; name one, or read everything")
        again = "lookback" if self.lookback else "cursor_nulls: always" if self.cursor_nulls == "always" else None
        if again and self.disposition not in ("merge", "history"):
            raise ValueError(f"`{again}` reads rows again; add `disposition: merge` and `keys`, which tell them")
        if self.cursor and self.cursor in self.masked:
            raise ValueError(f'the cursor "{self.cursor}" cannot be masked; choose another cursor')
        if self.cursor and self.parts:
            raise ValueError("with a `cursor` a load reads only what is new; `parts` are for reading everything")
        if self.cursor and self.delete_missing:
            raise ValueError("with a `cursor` most rows do not come again; use `deleted_flag`, or leave out the cursor")
        return self

    def _meets_by_key(self) -> bool:
        # Of several tables each has its own keys, which discovery knows.
        return not self.tables and super()._meets_by_key()

    def name(self) -> TableName | None:
        """The table; `None` for a query, and for several tables."""
        return table_name(self.table, self.schema_, self.home) if self.table is not None else None

    def default_disposition(self) -> Disposition:
        """`Append` with a cursor, else `Replace`."""
        return Append() if self.cursor else Replace()

    @property
    def meets_again(self) -> bool:
        """Whether a row that is read twice does no harm, because rows meet by key."""
        return isinstance(self.how, Merge | History)

    def incremental(self, kind: str, columns: tuple[str, ...], primary: Sequence[str]) -> Incremental | None:
        """How `columns` are read by the cursor, which arrives in the DuckDB type `kind`; `None` without a cursor.

        Rows that meet by the `primary` key need no order, because each key comes once. Raises SpecError for a type that
        cannot be a cursor, or that the lookback does not fit.
        """
        if self.cursor is None:
            return None
        how = self.how
        ordered = isinstance(how, Merge | History) and set(how.keys) != set(primary)
        nulls = self.cursor_nulls == "always"
        return Incremental(self.cursor, kind, columns, self.meets_again, ordered, self.lookback, nulls)

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The tables that are read; for a query those that it names."""
        name = self.name()
        names = [name] if name else tables_of(self.query or "", self.dialect, self.home)
        return tuple(self._origin(self.connection, one, connection) for one in names)

    def patterns(self) -> tuple[str, ...]:
        """The patterns among `tables`, each with its schema."""
        return tuple(str(self._named(word)) for word in self.tables if self._is_pattern(word))

    def finds(self, stream: Stream) -> bool:
        """Whether a pattern in `tables` stands for the table, and none in `exclude`."""
        table = TableName(stream.namespace, stream.name)
        wanted = any(_fits(table, self._named(word)) for word in self.tables if self._is_pattern(word))
        return wanted and not any(_fits(table, self._named(word)) for word in self.exclude)

    def expanded(self, known: Sequence[Stream]) -> Mapping[str, SourceSettings]:
        """A source for each table, by the table's name.

        Keys that are not given are the primary key, where discovery knows it. Raises SpecError for tables of one name.
        """
        found: dict[str, TableName] = {}
        own: dict[TableName, Mapping[str, Any]] = {}
        for word, settings in self.tables.items():
            for table in self._meant(word, known):
                own.setdefault(table, settings)
                suffix = re.sub(r"\W", "_", table.table)
                if found.setdefault(suffix, table) != table:
                    raise SpecError(
                        f"{found[suffix]} and {table} would both be called {suffix}",
                        mend="read them with two sources",
                    )
        keys = {str(TableName(one.namespace, one.name)): one.keys for one in known}
        return {suffix: self._single(table, own[table], keys.get(str(table), ())) for suffix, table in found.items()}

    def within(self, values: Range) -> tuple[SourceSettings, str]:
        """The source of the rows whose cursor is in a range, and the condition that tells them."""
        if self.cursor is None:
            raise SpecError("there is no `cursor` to tell a range by", mend="name a cursor, or load everything again")
        at = self.quoted_in_sql(self.cursor)
        low, high = self.literal_in_sql(values.low), self.literal_in_sql(values.high)
        rows = self._queried(f"SELECT * FROM {self.rows_in_sql(self.name())} WHERE {at} >= {low} AND {at} < {high}")
        stored = quoted(self.rename.get(self.cursor, self.cursor))
        return rows, f"{stored} >= {literal(values.low)} AND {stored} < {literal(values.high)}"

    @property
    def in_parts(self) -> bool:
        """Whether the author has asked for parts."""
        return self.parts is not None

    def bounds(self, connection: ConnectionSettings | None, place: Place) -> list[str]:
        """Where the parts begin, but for the first: at even distances between the least and the greatest value."""
        assert self.parts is not None
        at = self.quoted_in_sql(self.parts.by)
        ends = f"SELECT min({at}) AS low, max({at}) AS high FROM {self.rows_in_sql(self.name())}"
        with open_duck() as duck:
            rows = self._queried(ends).model_copy(update={"columns": (), "as_text": ()}).open(connection, place)
            duck.register("databrokkr_ends", _first(rows))
            return evenly(duck, "databrokkr_ends", self.parts.count)

    def parted(self, bounds: Sequence[str]) -> list[SourceSettings]:
        """The rows below the first bound with those that have no value, those between two, and those from the last."""
        assert self.parts is not None
        # A number stays one: compared with a text, MySQL would take both for doubles.
        limits = [one if _NUMBER.fullmatch(one) else self.literal_in_sql(one) for one in bounds]
        at = self.quoted_in_sql(self.parts.by)
        if not limits:
            return [self.model_copy(update={"parts": None})]
        between = [f"{at} >= {low} AND {at} < {high}" for low, high in pairwise(limits)]
        conditions = [f"{at} < {limits[0]} OR {at} IS NULL", *between, f"{at} >= {limits[-1]}"]
        return [self._queried(f"SELECT * FROM {self.rows_in_sql(self.name())} WHERE {one}") for one in conditions]

    def rows_in_sql(self, table: TableName | None) -> str:
        """A table, or else the rows of the query, as the database's own SQL takes them behind FROM."""
        if table:
            return self.named_in_sql(table)
        # The line break ends a comment that the author's query may end with.
        return f"({(self.query or '').rstrip().rstrip(';')}\n) AS databrokkr_query"

    def _queried(self, query: str) -> DatabaseSourceSettings:
        """This source, reading the rows of a query in place of its own."""
        others = {"table": None, "schema_": None, "cursor": None, "lookback": None, "parts": None}
        return self.model_copy(update={**others, "query": query, "disposition": self.how.name})

    @classmethod
    def quoted_in_sql(cls, name: str) -> str:
        """A name as the database's own SQL quotes it."""
        return quoted(name)

    @classmethod
    def literal_in_sql(cls, text: str) -> str:
        """A text as the database's own SQL writes it."""
        return literal(text)

    @classmethod
    def named_in_sql(cls, table: TableName) -> str:
        """A table as the database's own SQL names it."""
        return f"{cls.quoted_in_sql(table.schema)}.{cls.quoted_in_sql(table.table)}"

    def _is_pattern(self, word: str) -> bool:
        return _MAGIC.search(word) is not None

    def _named(self, word: str) -> TableName:
        return table_name(word, self.schema_, self.home)

    def _meant(self, word: str, known: Sequence[Stream]) -> Iterator[TableName]:
        wanted = self._named(word)
        if not self._is_pattern(word):
            yield wanted
            return
        for stream in known:
            table = TableName(stream.namespace, stream.name)
            if _fits(table, wanted) and self.finds(stream):
                yield table

    def _single(self, table: TableName, own: Mapping[str, Any], keys: tuple[str, ...]) -> SourceSettings:
        common = self.model_dump(by_alias=True, exclude_unset=True, exclude={"tables", "exclude"})
        given = {**common, **own, "table": table.table, "schema": table.schema}
        if given.get("disposition") in ("merge", "history") and not given.get("keys"):
            given["keys"] = keys
        return type(self).model_validate(given)


def _first(source: Source) -> pa.Table:
    """The one row of a source."""
    stream = next(iter(source.streams()))
    return pa.Table.from_batches([batch.records for batch in source.read(stream, None)])


def _fits(table: TableName, pattern: TableName) -> bool:
    return fnmatch.fnmatchcase(table.schema, pattern.schema) and fnmatch.fnmatchcase(table.table, pattern.table)


class DatabaseSinkSettings(_OfDatabase, SinkSettings):
    """Writes a table, exactly once."""

    connection: str
    """The name of a connection of the same type."""
    table: str
    """`table` or `schema.table`; the usual schema (`public` in PostgreSQL, `main` in DuckDB) needs no naming."""
    create: bool = True
    """Whether the table, and columns that it lacks, are created."""

    @model_validator(mode="after")
    def _readable_name(self) -> DatabaseSinkSettings:
        self.name()
        return self

    def name(self) -> TableName:
        """The table."""
        return table_name(self.table, self.schema_, self.home)

    def origin(self, connection: ConnectionSettings | None) -> Origin:
        """The table."""
        return self._origin(self.connection, self.name(), connection)
