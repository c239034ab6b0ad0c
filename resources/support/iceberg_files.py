"""Data files of an Iceberg table, written by DuckDB with the table's field numbers in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq

from databrokkr_assets.core.names import quoted
from databrokkr_assets.lake.store import Store
from resources.support.fitting import Place, fitted, refused_value
from resources.support.iceberg_types import Partition, field_ids, partitions, sql_type
from resources.support.parquet_parts import Part, PartsWriter

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table.metadata import TableMetadata

_BEYOND = {
    "DATE": "NOT isfinite({})",
    "TIMESTAMP": "NOT isfinite({})",
    "TIMESTAMP WITH TIME ZONE": "NOT isfinite({})",
    "TIME": "{} = TIME '24:00:00'",
}
"""Values of DuckDB's types that Iceberg's have not; other readers would see another value."""

_NO_VALUE = "has an infinite time, or 24:00:00, which Iceberg cannot hold"


@dataclass(frozen=True)
class Files:
    """Writes into `folder`, whose address is `location` in the table's own words."""

    duck: duckdb.DuckDBPyConnection
    metadata: TableMetadata
    io: FileIO
    folder: Store
    location: str
    target_bytes: int
    where: str

    @property
    def schema(self) -> Schema:
        """The table's columns, as they will be after the load."""
        return self.metadata.schema()

    def fits(self, metadata: TableMetadata) -> bool:
        """Whether files that were written so fit a table as it is now."""
        now, then = metadata, self.metadata
        return (now.schema().as_struct(), now.spec(), now.location) == (
            then.schema().as_struct(),
            then.spec(),
            then.location,
        )

    def fitted(self, query: str) -> str:
        """The rows of `query` in the types of the table; running it raises what `fitting.refusals` tells."""
        given = self.duck.sql(query)
        own = dict(zip(given.columns, map(str, given.types), strict=True))
        known = {name.casefold() for name in own}
        fields = [field for field in self.schema.fields if field.name.casefold() in known]
        places = {field.name: Place(field.name, sql_type(field.field_type), field.required) for field in fields}
        beyond = [
            f"{refused_value(name, _BEYOND[place.type].format(quoted(name)), _NO_VALUE)} AS {quoted(name)}"
            for name, place in places.items()
            if place.type in _BEYOND
        ]
        replaced = f"REPLACE ({', '.join(beyond)})" if beyond else ""
        return f"SELECT * {replaced} FROM (SELECT {fitted(own, places.values())} FROM ({query}))"

    def write(self, query: str, name: str) -> list[DataFile]:
        """The data files with the rows of `query`, which has columns of the table in its types."""
        fields = partitions(self.metadata.spec(), self.schema, self.where)
        hidden = tuple(f"databrokkr_{number}" for number in range(len(fields)))
        names = self.duck.sql(query).columns
        more = "".join(f", {field.of(names)} AS {column}" for field, column in zip(fields, hidden, strict=True))
        options = (field_ids(self.schema.select(*names)),)
        writer = PartsWriter(self.duck, self.folder, hidden, self.target_bytes, keep=False, options=options)
        return [self._data_file(part, fields) for part in writer.write(f"SELECT *{more} FROM ({query})", name)]

    def _data_file(self, part: Part, fields: list[Partition]) -> DataFile:
        from pyiceberg.io.pyarrow import (
            compute_statistics_plan,
            data_file_statistics_from_parquet_metadata,
            parquet_path_to_id_mapping,
        )
        from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
        from pyiceberg.typedef import Record

        path = f"{self.location}/{part.path}"
        with self.io.new_input(path).open() as stream:
            footer = pq.read_metadata(stream)
        statistics = data_file_statistics_from_parquet_metadata(
            footer,
            compute_statistics_plan(self.schema, self.metadata.properties),
            parquet_path_to_id_mapping(self.schema),
        )
        texts = [part.partition[f"databrokkr_{number}"] for number in range(len(fields))]
        values = [None if text is None else field.value(text) for field, text in zip(fields, texts, strict=True)]
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=Record(*values),
            file_size_in_bytes=part.bytes,
            sort_order_id=None,
            spec_id=self.metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
