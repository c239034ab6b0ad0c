"""What every database's source and sink can say: a table or a query, columns, a cursor."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field, model_validator

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import ConnectionSettings, NodeSettings, Origin, SinkSettings, SourceSettings
from resources.support.tables import TableName, table_name, tables_of


class _OfDatabase(NodeSettings):
    dialect: ClassVar[str]
    """The database's name in sqlglot and in the UI."""
    home: ClassVar[str]
    """The schema of a table that names none."""
    schema_: str | None = Field(default=None, alias="schema")
    """The table's schema; beside it, `table` is taken as it stands, dots and quotes included."""

    @abstractmethod
    def uri(self, connection: ConnectionSettings | None) -> str:
        """The database as the UI names it, without secrets."""

    def _origin(self, name: str, table: TableName, connection: ConnectionSettings | None) -> Origin:
        return Origin((name, table.schema, table.table), self.dialect, self.uri(connection))


class DatabaseSourceSettings(_OfDatabase, SourceSettings):
    """Reads a table, a view or the rows of a query."""

    connection: str
    """The name of a connection of the same type."""
    table: str | None = None
    """`table` or `schema.table`; the usual schema (`public` in PostgreSQL, `main` in DuckDB) needs no naming."""
    query: str | None = None
    """SQL to read the rows of, in place of a table."""
    columns: Names = ()
    """The columns to read; without it all of them."""
    cursor: str | None = None
    """A column that grows: each load reads the rows from the last load's greatest value on. Rows without a value (NULL)
    are read by the first load only; rows that are committed later with a smaller value are not seen."""

    @model_validator(mode="after")
    def _one_of_both(self) -> DatabaseSourceSettings:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either `table` or `query`")
        if self.query is not None and self.schema_ is not None:
            raise ValueError("`schema` belongs to `table`; name the schema within the `query`")
        self.name()
        return self

    def name(self) -> TableName | None:
        """The table; `None` for a query."""
        return table_name(self.table, self.schema_, self.home) if self.table is not None else None

    def default_disposition(self) -> Disposition:
        """`Append` with a cursor, else `Replace`."""
        return Append() if self.cursor else Replace()

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The tables that are read; for a query those that it names."""
        name = self.name()
        names = [name] if name else tables_of(self.query or "", self.dialect, self.home)
        return tuple(self._origin(self.connection, one, connection) for one in names)


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
