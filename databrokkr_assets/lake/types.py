"""What a Delta table can hold, and how everything else is kept without changing a value.

A column whose type Delta does not know is stored as a type that holds every one of its values (`TIME` as text,
`UINTEGER` as `BIGINT`), and its own type stands in the field's metadata under `databrokkr.type`. Reading casts it back.
Source of the limits: the Delta transaction protocol, "Primitive Types".
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import quoted

TYPE = b"databrokkr.type"
"""The field metadata key that holds a column's own type, where the stored one differs."""

_STORED_AS = {
    "utinyint": "SMALLINT",
    "usmallint": "INTEGER",
    "uinteger": "BIGINT",
    "ubigint": "DECIMAL(20,0)",
    "timestamp_s": "TIMESTAMP",
    "timestamp_ms": "TIMESTAMP",
    "null": "VARCHAR",
    "sqlnull": "VARCHAR",
    '"null"': "VARCHAR",
}
_AS_TEXT = {
    "hugeint",
    "uhugeint",
    "time",
    "time with time zone",
    "interval",
    "uuid",
    "enum",
    "bit",
    "timestamp_ns",
    "json",
    "time_ns",
    "bignum",
}
_AS_IS = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "float", "double", "decimal",
    "varchar", "blob", "date", "timestamp", "timestamp with time zone",
}  # fmt: skip


def storage_type(own: DuckDBPyType) -> str:
    """The SQL type that a column of type `own` is stored as. Raises SpecError for a type that nothing can hold."""
    match own.id:
        case "list":
            return f"{storage_type(child_type(own, 0))}[]"
        case "array":
            return f"{storage_type(child_type(own, 0))}[]"
        case "struct":
            fields = (f"{quoted(name)} {storage_type(child_type(own, i))}" for i, (name, _) in enumerate(own.children))
            return f"STRUCT({', '.join(fields)})"
        case "map":
            return f"MAP({storage_type(child_type(own, 0))}, {storage_type(child_type(own, 1))})"
        case kind if kind in _STORED_AS:
            return _STORED_AS[kind]
        case kind if kind in _AS_TEXT:
            return "VARCHAR"
        case kind if kind in _AS_IS and str(own) != "JSON":
            return str(own)
        case "varchar":
            return "VARCHAR"
        case _:
            raise SpecError(f"a dataset cannot hold a column of type {own}", mend="cast it to VARCHAR or another type")


def child_type(own: DuckDBPyType, index: int) -> DuckDBPyType:
    """The type of a nested type's field or element."""
    child = own.children[index][1]
    assert isinstance(child, DuckDBPyType)
    return child


def stored(names: Sequence[str], types: Sequence[DuckDBPyType]) -> str:
    """The select list that casts columns to what is stored."""
    return ", ".join(_cast(name, str(own), storage_type(own)) for name, own in zip(names, types, strict=True))


def _cast(name: str, before: str, after: str) -> str:
    return quoted(name) if before == after else f"CAST({quoted(name)} AS {after}) AS {quoted(name)}"


def stored_schema(duck: DuckDBPyConnection, names: Sequence[str], types: Sequence[DuckDBPyType]) -> pa.Schema:
    """The Arrow schema of the stored columns, each column's own type in its metadata."""
    if not names:
        raise SpecError("the rows have no columns", mend="select at least one column")
    casts = ", ".join(
        f"CAST(NULL AS {storage_type(own)}) AS {quoted(name)}" for name, own in zip(names, types, strict=True)
    )
    plain = duck.execute(f"SELECT {casts} LIMIT 0").to_arrow_table().schema
    fields = [
        field.with_metadata({TYPE: str(own).encode()}) if str(own) != storage_type(own) else field
        for field, own in zip(plain, types, strict=True)
    ]
    return pa.schema(fields)


def own_types(duck: DuckDBPyConnection, schema: pa.Schema) -> list[DuckDBPyType]:
    """The columns' own types as DuckDB names them, from a stored schema."""
    return list(duck.sql(f"SELECT {nulls(duck, schema)} LIMIT 0").types) if len(schema) else []


def nulls(duck: DuckDBPyConnection, schema: pa.Schema, *, as_stored: bool = False) -> str:
    """A select list of typed NULLs, one for each column of a stored schema."""
    empty = duck.from_arrow(schema.remove_metadata().empty_table())
    kept = [
        str(kind) if as_stored or not (field.metadata or {}).get(TYPE) else field.metadata[TYPE].decode()
        for field, kind in zip(schema, empty.types, strict=True)
    ]
    return ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in zip(schema.names, kept, strict=True))


def read_back(schema: pa.Schema) -> str:
    """The select list that casts stored columns back to their own types."""
    return ", ".join(
        f"CAST({quoted(field.name)} AS {field.metadata[TYPE].decode()}) AS {quoted(field.name)}"
        if (field.metadata or {}).get(TYPE)
        else quoted(field.name)
        for field in schema
    )
