"""The SQL that Great Expectations writes, as DuckDB reads it, over a connection that stays ours.

Importing this module imports SQLAlchemy; only `quality.gx` does, when checks run. It knows nothing of Great Expectations
except, in `Names`, the few attributes that it looks for on what it calls a dialect module.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect, PGIdentifierPreparer, PGTypeCompiler


def engine(duck: duckdb.DuckDBPyConnection, tables: Mapping[str, Sequence[tuple[str, str]]]) -> sa.Engine:
    """A SQLAlchemy engine that runs on `duck` itself and never begins, commits, rolls back or closes it.

    `tables` answers every question about columns: the (name, DuckDB type) pairs of each table that will be asked about.
    `dispose()` lets go of `duck`.
    """
    made = sa.create_engine(
        "databrokkr_duckdb://", creator=lambda: BorrowedConnection(duck), poolclass=sa.pool.StaticPool
    )
    made.dialect.tables = tables  # type: ignore[attr-defined]
    return made


class BorrowedConnection:
    """A DuckDB connection lent to SQLAlchemy. Its transaction is the lender's, so these four verbs do nothing to it.

    Great Expectations hands its connection back before it fetches: a real rollback there would discard the result.
    """

    def __init__(self, duck: duckdb.DuckDBPyConnection) -> None:
        self.duck: duckdb.DuckDBPyConnection | None = duck
        self.reading: BorrowedCursor | None = None

    def cursor(self) -> "BorrowedCursor":
        return BorrowedCursor(self)

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None:
        self.duck = self.reading = None


class BorrowedCursor:
    """Reads the result of its own statement, and refuses once another has run: a DuckDB connection holds one result."""

    rowcount = -1

    def __init__(self, lent: BorrowedConnection) -> None:
        self._lent = lent

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> None:
        self._lent.reading = self
        self._duck.execute(statement, parameters)

    @property
    def _duck(self) -> duckdb.DuckDBPyConnection:
        if self._lent.duck is None or self._lent.reading is not self:
            raise duckdb.InterfaceError("this result is gone: its connection has run another statement")
        return self._lent.duck

    @property
    def description(self) -> Any:
        return self._duck.description

    def fetchone(self) -> Any:
        return self._duck.fetchone()

    def fetchmany(self, size: int = 1) -> Any:
        return self._duck.fetchmany(size)

    def fetchall(self) -> Any:
        return self._duck.fetchall()

    def close(self) -> None: ...


class LiteralCompiler(PGCompiler):
    """Writes every value into the statement, so that a condition selects the same rows wherever its text is used.

    A bound value is typed before DuckDB sees the other operand (a float is DOUBLE, a text VARCHAR); a literal adapts.
    """

    def visit_bindparam(
        self, bindparam: Any, within_columns_clause: bool = False, literal_binds: bool = False, **kw: Any
    ) -> str:
        return super().visit_bindparam(bindparam, within_columns_clause, literal_binds=True, **kw)


class TypeNames(PGTypeCompiler):
    """DuckDB's FLOAT has 4 bytes, where Great Expectations means 8."""

    def visit_FLOAT(self, type_: Any, **kw: Any) -> str:
        return "DOUBLE"


class Preparer(PGIdentifierPreparer):
    """Quotes every name: no list of reserved words to keep in step with DuckDB's."""

    def _requires_quotes(self, value: str) -> bool:
        return True


class FloatLiteral(sa.Float[float]):
    """A Python float as SQL text."""

    def literal_processor(self, dialect: sa.Dialect) -> Any:
        def text(value: float) -> str:
            if not math.isfinite(value):
                return f"'{value}'::DOUBLE"
            # Great Expectations asks for floating point by `1.0 * column`; as DuckDB's DECIMAL literal, 1.0 would overflow
            # on a HUGEINT. Other floats stay DECIMAL literals: 0.1 then equals the 0.1 of a REAL and of a DECIMAL column.
            return f"{value!r}::DOUBLE" if float(value).is_integer() else repr(float(value))

        return text


class ColumnType(sa.types.UserDefinedType[Any]):
    """The type of a DuckDB column, known by its name. Great Expectations compares types by Python class, so each is one."""

    cache_ok = True
    name = ""

    def get_col_spec(self, **kw: Any) -> str:
        return self.name


_types: dict[str, type[ColumnType]] = {}


def column_type(name: str) -> type[ColumnType]:
    """The class of the DuckDB type `name`; DECIMAL(10,2) is a DECIMAL, STRUCT(a INTEGER) a STRUCT, INTEGER[] a LIST."""
    if name not in _types:
        family = "LIST" if name.endswith("]") else name.partition("(")[0]
        parent = ColumnType if family == name else column_type(family)
        _types[name] = type(name, (parent,), {"name": name})
    return _types[name]


class DuckdbDialect(PGDialect):
    """PostgreSQL's SQL, which DuckDB speaks, with values written in place, every name quoted, and columns told beforehand."""

    name = "duckdb"
    driver = "duckdb"
    supports_statement_cache = False  # a cached statement would keep the values of the one before
    statement_compiler = LiteralCompiler
    type_compiler_cls = TypeNames
    preparer = Preparer
    colspecs = {**PGDialect.colspecs, sa.Float: FloatLiteral}
    tables: Mapping[str, Sequence[tuple[str, str]]]

    @classmethod
    def import_dbapi(cls) -> Any:
        return duckdb

    def initialize(self, connection: Any) -> None:
        """Asks the connection nothing. A backslash is only a backslash in DuckDB's strings."""
        self._backslash_escapes = False

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return [{"name": name, "type": column_type(kind)()} for name, kind in self.tables[table_name]]

    def get_pk_constraint(self, connection: Any, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return {"constrained_columns": [], "name": None}


class Names:
    """What Great Expectations calls a dialect module: it asks for types by name, and for SQL abilities by attribute.

    `DremioDialect` makes it write `REGEXP_MATCHES(column, pattern)` and LIKE, which are DuckDB's spellings as well.
    """

    name = "duckdb"
    DremioDialect = DuckdbDialect

    def __init__(self, duck: duckdb.DuckDBPyConnection) -> None:
        self.__name__ = "duckdb"
        self._duck = duck

    def __getattr__(self, name: str) -> type[ColumnType]:
        """The class of a type by any of DuckDB's names for it: BIGINT, int8, text, DECIMAL(10,2), DECIMAL."""
        try:
            known = str(self._duck.sqltype(name))
        except duckdb.Error:
            if name.upper() in ("STRUCT", "LIST", "MAP", "UNION", "ENUM"):  # need a modifier to be types on their own
                return column_type(name.upper())
            raise AttributeError(name) from None
        return column_type(known if "(" in name else known.partition("(")[0])


registry.register("databrokkr_duckdb", __name__, DuckdbDialect.__name__)
