"""Columns between DuckDB and Arrow: exact types both ways, and a query as batches with cursors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import Batch, Cursor
from databrokkr_assets.lake.types import TYPE, own_types

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from duckdb.sqltypes import DuckDBPyType

    from resources.support.cursor import Incremental

_BATCH_ROWS = 50_000
_LOST = re.compile(r"""(?<![\w'"])(TIME WITH TIME ZONE|BIT)(?![\w'"])""")


def own_columns(schema: pa.Schema) -> dict[str, DuckDBPyType]:
    """The columns of a target with their exact types, which Arrow alone cannot always say."""
    import duckdb

    with duckdb.connect() as duck:
        return dict(zip(schema.names, own_types(duck, schema), strict=True))


def told_by_arrow(schema: pa.Schema) -> str:
    """The select list that gives the columns of Arrow batches their exact types again.

    Raises SpecError for a column that batches cannot carry: they have lost a time's offset, or a bit string's length.
    """
    own = own_columns(schema)
    for name, kind in own.items():
        if _LOST.search(str(kind)):
            raise SpecError(
                f'the column "{name}" is {kind}, which batches of rows cannot carry',
                mend="cast it to VARCHAR in a transform",
            )
    return ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in own.items())


def arrow_schema(columns: Iterable[tuple[str, str]]) -> pa.Schema:
    """Columns of DuckDB types as Arrow, each with its exact type in the metadata where Arrow cannot say it."""
    import duckdb

    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        nulls = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in columns)
        rows = duck.sql(f"SELECT {nulls} LIMIT 0")
        own, plain = rows.types, rows.to_arrow_table()
        told = duck.from_arrow(plain).types
    fields = [
        field if str(one) == str(other) else field.with_metadata({TYPE: str(one).encode()})
        for field, one, other in zip(plain.schema, own, told, strict=True)
    ]
    return pa.schema(fields)


def arrow_schemas(tables: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, pa.Schema]:
    """What `arrow_schema` gives for each of many tables, in little more time than for one.

    A table with a type that Arrow does not know is left out.
    """
    import duckdb

    known: dict[str, pa.Field] = {}
    for kind in {kind for listed in tables.values() for _, kind in listed}:
        with suppress(duckdb.Error):
            known[kind] = arrow_schema([("column", kind)]).field(0)
    return {
        table: pa.schema([known[kind].with_name(name) for name, kind in listed])
        for table, listed in tables.items()
        if all(kind in known for _, kind in listed)
    }


def batches(
    duck: DuckDBPyConnection, query: str, incremental: Incremental | None, after: Cursor | None
) -> Iterator[Batch]:
    """The rows of `query` with the cursor after each batch; one empty batch when there are no rows."""
    # Without this, UUID and JSON columns would come out as plain text.
    duck.execute("SET arrow_lossless_conversion = true")
    reader = duck.execute(query).to_arrow_reader(_BATCH_ROWS)
    empty = True
    for records in reader:
        empty = False
        if incremental is not None:
            after = incremental.advance(after)(partial(_scalar, duck, records))
        yield Batch(records, after)
    if empty:
        yield Batch(pa.RecordBatch.from_pylist([], schema=reader.schema), after)


def _scalar(duck: DuckDBPyConnection, records: pa.RecordBatch, expression: str) -> Any:
    with duck.cursor() as beside:
        row = beside.from_arrow(pa.Table.from_batches([records])).aggregate(expression).fetchone()
    return row[0] if row else None
