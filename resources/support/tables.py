"""How an author names a table: `orders`, `sales.orders`, `"odd.name"."a table"`, or with the schema apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import quoted

if TYPE_CHECKING:
    from sqlglot import exp

_PART = r'("(?:[^"]|"")+"|[^".]+)'
_NAME = re.compile(rf"(?:{_PART}\.)?{_PART}")


@dataclass(frozen=True)
class TableName:
    """A table within a database, its two names as they are, unquoted."""

    schema: str
    table: str

    @property
    def sql(self) -> str:
        """The name as SQL."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


def table_name(table: str, schema: str | None, default: str) -> TableName:
    """The table that an author means. Beside a `schema`, `table` is a name as it stands, dots and quotes included.

    Raises ValueError with what to write instead.
    """
    if schema is not None:
        return TableName(schema, table)
    match = _NAME.fullmatch(table)
    if match is None:
        raise ValueError(
            f'"{table}" can be read in more than one way; write the table\'s name alone, and `schema:` beside it'
        )
    return TableName(_unquoted(match[1]) if match[1] else default, _unquoted(match[2]))


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def tables_of(query: str, dialect: str, default: str) -> list[TableName]:
    """The tables that a query reads, each once; none when it cannot be parsed, which the system itself tells better."""
    from sqlglot.errors import SqlglotError

    try:
        found = [TableName(table.db or default, table.name) for table in _read_by(_parsed(query, dialect))]
    except SqlglotError:
        return []
    return list(dict.fromkeys(found))


def in_catalog(query: str, dialect: str, catalog: str, default: str) -> str:
    """The query with every table that it reads named in full, so that it runs beside other catalogs.

    Raises SpecError for SQL that cannot be parsed.
    """
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = _parsed(query, dialect)
        for table in _read_by(tree):
            table.set("db", exp.to_identifier(table.db or default, quoted=True))
            table.set("catalog", exp.to_identifier(catalog, quoted=True))
    except SqlglotError as error:
        raise SpecError(f"the query cannot be read: {error}", mend="correct its SQL") from error
    return str(tree.sql(dialect=dialect))


def _parsed(query: str, dialect: str) -> exp.Expr:
    import sqlglot

    return sqlglot.parse_one(query, read=dialect)


def _read_by(tree: exp.Expr) -> list[exp.Table]:
    """Tables proper: not the common table expressions, whose names may be those of tables, and not functions."""
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    found = {
        id(source): source
        for scope in traverse_scope(tree)
        for source in scope.sources.values()
        if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)
    }
    return list(found.values())
