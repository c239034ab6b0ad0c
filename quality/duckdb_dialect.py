"""The SQL that Great Expectations writes, as DuckDB reads it, over a connection that stays ours.

Importing this module imports SQLAlchemy; only `quality.gx` does, when checks run. It knows nothing of Great
Expectations except, in `Names`, the attributes that it looks for on what it calls a dialect module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import duckdb
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect, PGIdentifierPreparer, PGTypeCompiler

Tables = Mapping[str, Sequence[tuple[str, str]]]
"""The columns of each table: pairs of a name and a DuckDB type."""


def engine(lent: BorrowedConnection, tables: Tables) -> sa.Engine:
    """A SQLAlchemy engine that runs on the connection of `lent` itself. It knows the columns of `tables`, no others."""
    made = sa.create_engine("databrokkr_duckdb://", creator=lambda: lent, poolclass=sa.pool.StaticPool)
    assert isinstance(made.dialect, DuckdbDialect)
    made.dialect.tables = tables
    return made


class BorrowedConnection:
    """A DuckDB connection lent to SQLAlchemy. Its transaction is the lender's: these verbs leave it alone.

    Great Expectations hands its connection back before it fetches: a rollback then would drop the result.
    """

    def __init__(self, duck: duckdb.DuckDBPyConnection) -> None:
        self.duck: duckdb.DuckDBPyConnection | None = duck
        self.reading: BorrowedCursor | None = None

    def cursor(self) -> BorrowedCursor:
        return BorrowedCursor(self)

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None:
        self.duck = self.reading = None


class BorrowedCursor:
    """Reads the result of its own statement, and refuses after the next: a connection has one result."""

    rowcount = -1

    def __init__(self, lent: BorrowedConnection) -> None:
        self._lent = lent

    @property
    def _duck(self) -> duckdb.DuckDBPyConnection:
        if self._lent.duck is None or self._lent.reading is not self:
            raise duckdb.ProgrammingError("this result is gone: its connection has run another statement")
        return self._lent.duck

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> None:
        self._lent.reading = self
        self._duck.execute(statement, parameters)

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
    """Writes every value into the statement: a condition then means the same wherever its text is used.

    A bound value has its type before DuckDB sees the other operand (a text is VARCHAR); a literal adapts.
    """

    def visit_bindparam(self, bindparam: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["literal_binds"] = True
        return super().visit_bindparam(bindparam, *args, **kwargs)  # type: ignore[no-untyped-call]

    def render_literal_value(self, value: Any, type_: sa.types.TypeEngine[Any]) -> str:
        """By what the value is. SQLAlchemy types a list by its first value, and would write [1, 2.5] as 1, 2."""
        if isinstance(value, float):
            return _float_text(value)
        own = sa.literal(value).type
        known = type_ if isinstance(own, sa.types.NullType) else own
        return str(super().render_literal_value(value, known))  # type: ignore[no-untyped-call]

    def visit_textclause(self, textclause: Any, *args: Any, **kwargs: Any) -> Any:
        """An author's query as it was written: its colons name no values to bind."""
        as_written = sa.text(textclause.text.replace(":", "\\:"))
        return super().visit_textclause(as_written, *args, **kwargs)  # type: ignore[no-untyped-call]

    def visit_mul_binary(self, binary: Any, operator: Any, **kwargs: Any) -> str:
        return f"{self._factor(binary.left, kwargs)} * {self._factor(binary.right, kwargs)}"

    def visit_sub_binary(self, binary: Any, operator: Any, **kwargs: Any) -> str:
        return f"{self._factor(binary.left, kwargs)} - {self._factor(binary.right, kwargs)}"

    def _factor(self, side: Any, kwargs: Mapping[str, Any]) -> str:
        """Great Expectations asks for floating point by `1.0 * column`; a DECIMAL there overflows on a HUGEINT."""
        if isinstance(side, sa.BindParameter) and isinstance(side.value, float):
            return f"CAST({side.value!r} AS DOUBLE)"
        return str(self.process(side, **kwargs))


class TypeNames(PGTypeCompiler):
    """DuckDB's FLOAT has 4 bytes, where Great Expectations means 8."""

    def visit_FLOAT(self, type_: Any, **kw: Any) -> str:
        return "DOUBLE"


class Preparer(PGIdentifierPreparer):
    """Quotes every name, so that there is no list of reserved words to keep in step with DuckDB's."""

    def _requires_quotes(self, value: str) -> bool:
        return True


def _float_text(value: float) -> str:
    """A float to compare with.

    An integer is written as one and 0.1 as DuckDB's DECIMAL, so that it equals the 0.1 of a REAL and of a DECIMAL
    column, and a BIGINT near 2**53 is not rounded to be compared, as a DOUBLE would have it.
    """
    if not math.isfinite(value):
        return f"'{value}'::DOUBLE"
    return str(int(value)) if value.is_integer() and abs(value) < _HUGEINT else repr(float(value))


_HUGEINT = 2.0**127


class ColumnType(sa.types.UserDefinedType[Any]):
    """The type of a DuckDB column. Great Expectations compares types as Python classes, so each is one."""

    cache_ok = True
    name: ClassVar[str] = ""

    def get_col_spec(self, **kw: Any) -> str:
        return self.name


_types: dict[str, type[ColumnType]] = {}


def column_type(name: str) -> type[ColumnType]:
    """The class of the DuckDB type `name`: DECIMAL(10,2) is a DECIMAL, INTEGER[] is a LIST."""
    if name not in _types:
        family = "LIST" if name.endswith("]") else name.partition("(")[0]
        parent = ColumnType if family == name else column_type(family)
        _types[name] = type(name, (parent,), {"name": name})
    return _types[name]


class DuckdbDialect(PGDialect):
    """PostgreSQL's SQL, which DuckDB speaks; values in place, every name quoted, columns told beforehand."""

    name = "duckdb"
    driver = "duckdb"
    supports_statement_cache = False  # a cached statement would keep the values of the one before
    statement_compiler = LiteralCompiler
    type_compiler_cls = TypeNames
    preparer = Preparer
    _backslash_escapes = False  # a backslash is no more than that in DuckDB's strings
    tables: Tables

    @classmethod
    def import_dbapi(cls) -> Any:
        return duckdb

    def initialize(self, connection: Any) -> None:
        """Asks the connection nothing."""

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return [{"name": name, "type": column_type(kind)()} for name, kind in self.tables[table_name]]

    def get_pk_constraint(self, connection: Any, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return {"constrained_columns": [], "name": None}


class Names:
    """What Great Expectations calls a dialect module: it looks there for types, and for what the SQL can do.

    `DremioDialect` makes it write `REGEXP_MATCHES(column, pattern)` and LIKE, as DuckDB spells them too.
    """

    name = "duckdb"
    DremioDialect = DuckdbDialect

    def __init__(self, duck: duckdb.DuckDBPyConnection) -> None:
        self.__name__ = "duckdb"
        self._duck = duck

    def __getattr__(self, name: str) -> type[ColumnType]:
        """The class of a type by any of DuckDB's names for it: BIGINT, int8, text, DECIMAL(10,2), DECIMAL."""
        if name.upper() in ("STRUCT", "LIST", "MAP", "UNION", "ENUM"):  # no types until they say of what
            return column_type(name.upper())
        try:
            known = str(self._duck.sqltype(name))
        except duckdb.Error:
            raise AttributeError(name) from None
        return column_type(known if "(" in name else known.partition("(")[0])


registry.register("databrokkr_duckdb", __name__, DuckdbDialect.__name__)
