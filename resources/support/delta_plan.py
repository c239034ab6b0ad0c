"""How the files of a load into an external Delta table are to look: columns, stored types, partitions."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import quoted
from databrokkr_assets.lake import types
from databrokkr_assets.lake.external import NewFile
from resources.support.fitting import Place, fitted, refused_value

_PARTITIONS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "VARCHAR", "BOOLEAN", "DATE"}
"""The types of columns that can partition: those whose text is the same to everyone who reads the log."""


@dataclass(frozen=True)
class DeltaLayout:
    """How the sink shall lay out the table; `partition_by` is `None` for the partitions that the table has."""

    partition_by: tuple[str, ...] | None
    target_bytes: int
    create: bool


@dataclass(frozen=True)
class Plan:
    """The table's columns, as its log has them, and those that partition it."""

    schema: pa.Schema
    partition_by: tuple[str, ...]

    def check(self, given: duckdb.DuckDBPyRelation, url: str) -> None:
        """Raise SpecError for partitions that cannot be, and for a column that the table requires and rows lack."""
        known = {name.casefold() for name in given.columns}
        for name in self.partition_by:
            if name not in self.schema.names:
                mend = did_you_mean(name, self.schema.names)
                raise SpecError(f'the table cannot be partitioned by "{name}": it is no column', mend=mend, where=url)
        for field in self.schema:
            if not field.nullable and field.name.casefold() not in known:
                mend = "add the column in a transform"
                raise SpecError(f'the table requires the column "{field.name}"', mend=mend, where=url)

    def stored(self, duck: duckdb.DuckDBPyConnection, query: str) -> str:
        """The rows of `query` as files are to have them.

        Raises SpecError for a partition column of a type that cannot partition; running the query raises what
        `fitting.refusals` tells, for a value that the table's type would change.
        """
        given = duck.sql(query)
        own = dict(zip(given.columns, map(str, given.types), strict=True))
        kinds = list(map(str, types.own_types(duck, self.schema)))
        places = [Place(field.name, kind, not field.nullable) for field, kind in zip(self.schema, kinds, strict=True)]
        fit = f"SELECT {fitted(own, places)} FROM ({query})"
        rows = duck.sql(f"{fit} LIMIT 0")
        stored = f"SELECT {types.stored(rows.columns, rows.types)} FROM ({fit})"
        return self._with_text_in_partitions(duck, stored)

    def _with_text_in_partitions(self, duck: duckdb.DuckDBPyConnection, query: str) -> str:
        """The same rows; an empty text in a partition column is refused, because the log would make it NULL."""
        rows = duck.sql(f"{query} LIMIT 0")
        kinds = {
            name: str(kind) for name, kind in zip(rows.columns, rows.types, strict=True) if name in self.partition_by
        }
        for name, kind in kinds.items():
            if kind not in _PARTITIONS:
                mend = "partition by whole numbers, text, dates or booleans"
                raise SpecError(f'"{name}" is {kind}, which cannot partition', mend=mend)
        why = "partitions the table, and Delta would make NULL of an empty text in it"
        texts = [
            f"{refused_value(name, f'{quoted(name)} = {chr(39) * 2}', why)} AS {quoted(name)}"
            for name, kind in kinds.items()
            if kind == "VARCHAR"
        ]
        return f"SELECT * REPLACE ({', '.join(texts)}) FROM ({query})" if texts else query


@dataclass(frozen=True)
class Staged:
    """The files of a load's own rows."""

    plan: Plan
    files: list[NewFile]

    @property
    def rows(self) -> int:
        """How many rows they hold."""
        return sum(file.rows for file in self.files)
