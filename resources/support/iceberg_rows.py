"""The rows of an Iceberg table as a DuckDB query over its files, where the files are plainly the rows."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import duckdb

from databrokkr_assets.core.names import columns, literal, quoted
from resources.support.iceberg_types import sql_type

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table

FILE = "databrokkr_file"
"""The column that names a row's file."""


def address(path: str) -> str:
    """The address of a data file as DuckDB takes it."""
    scheme, separated, rest = path.partition("://")
    if not separated:
        return path.removeprefix("file:")
    return rest if scheme == "file" else f"s3://{rest}" if scheme.startswith("s3") else path


def plain(table: Table, schema: Schema, tasks: Sequence[FileScanTask]) -> bool:
    """Whether the rows are those of the files: none is deleted apart, and columns have the same names everywhere.

    Iceberg knows columns by number. By name they are the same where no schema that the table ever had gives a number
    another name, or a name another number, where no file is older than the table (a name mapping), and where no nested
    field has a name that Iceberg's writers change in their files.
    """
    if table.metadata.name_mapping() is not None or any(task.delete_files for task in tasks):
        return False
    if any(str(task.file.file_format).rpartition(".")[2].lower() != "parquet" for task in tasks):
        return False
    if any(field.initial_default is not None for field in schema.fields):
        return False
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for one in (*table.schemas().values(), schema):
        own = {field.field_id for field in one.fields}
        for number in one.field_ids:
            name = (one.find_column_name(number) or "").casefold()
            if number not in own and _is_changed(one.find_field(number).name):
                return False
            if names.setdefault(number, name) != name or numbers.setdefault(name, number) != number:
                return False
    return True


def rows_of(duck: duckdb.DuckDBPyConnection, schema: Schema, paths: Sequence[str], *, with_file: bool = False) -> str:
    """The rows of plain data files in the types of `schema`. `with_file` adds the column `FILE`."""
    typed = {field.name: sql_type(field.field_type) for field in schema.fields}
    more = f", {FILE}" if with_file else ""
    nulls = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in typed.items())
    query = f"SELECT {nulls}, '' AS {FILE} WHERE false"
    if paths:
        listed = ", ".join(literal(address(path)) for path in paths)
        by = _by_number(schema) if any(map(_is_changed, typed)) else "union_by_name = true"
        read = f"read_parquet([{listed}], {by}, hive_partitioning = false, filename = '{FILE}')"
        query = f"{query} UNION ALL BY NAME SELECT * FROM {read}"
    casts = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in typed.items())
    return f"SELECT {casts}{more} FROM ({query})"


def _is_changed(name: str) -> bool:
    """Whether Iceberg's writers call a column otherwise in their files: `two words` is `two_x20words` there."""
    from pyiceberg.schema import make_compatible_name

    return make_compatible_name(name) != name


def _by_number(schema: Schema) -> str:
    """The option that finds columns by their numbers."""
    told = (
        f"{field.field_id}: {{name: {literal(field.name)}, type: {literal(sql_type(field.field_type))}, "
        "default_value: NULL}"
        for field in schema.fields
    )
    return f"schema = MAP {{{', '.join(told)}}}"


def scanned(duck: duckdb.DuckDBPyConnection, table: Table, schema: Schema, tasks: Sequence[FileScanTask]) -> str:
    """The rows through pyiceberg, which knows deleted rows and columns by number; one data file in memory at a time."""
    import pyarrow as pa
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    name = f"databrokkr_scan_{secrets.token_hex(4)}"
    target = schema_to_pyarrow(schema, include_field_ids=False)
    duck.register(name, pa.RecordBatchReader.from_batches(target, _batches(table, schema, tasks, target)))
    return f"SELECT {columns(target.names)} FROM {name}"


def _batches(
    table: Table, schema: Schema, tasks: Sequence[FileScanTask], target: pa.Schema
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    scan = ArrowScan(table.metadata, table.io, schema, AlwaysTrue())
    for task in tasks:  # one at a time: given all, pyiceberg reads ahead as far as it can
        for batch in scan.to_record_batches([task]):
            yield from pa.Table.from_batches([batch]).cast(target).to_batches()
