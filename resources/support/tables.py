"""How an author names a table: `orders`, `sales.orders`, `"odd.name"."a table"`, or with the schema apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from databrokkr_assets.core.names import quoted

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
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.scope import traverse_scope

    try:
        # By scope, for a common table expression may have the name of the table that it reads.
        sources = [
            source
            for scope in traverse_scope(sqlglot.parse_one(query, read=dialect))
            for source in scope.sources.values()
        ]
    except SqlglotError:
        return []
    tables = [one for one in sources if isinstance(one, exp.Table) and isinstance(one.this, exp.Identifier)]
    return list(dict.fromkeys(TableName(table.db or default, table.name) for table in tables))
