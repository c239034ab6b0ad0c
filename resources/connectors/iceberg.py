"""Iceberg tables behind a catalog: read at any snapshot, and written exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ByteSize, Field, model_validator

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.core.ports import Sink, Source, Stream
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import (
    ChecksAccess,
    ConnectionSettings,
    Finding,
    ListsStreams,
    NodeSettings,
    Origin,
    Place,
    SinkSettings,
    SourceSettings,
)
from resources.base import Connector
from resources.support.connections import connected


class IcebergConnection(ConnectionSettings, ChecksAccess, ListsStreams):
    """A catalog of Iceberg tables."""

    type: Literal["iceberg"]
    catalog: Mapping[str, str] = Field(min_length=1, repr=False)
    """The catalog's properties, as pyiceberg names them: `type: sql` with `uri` and `warehouse`, or `type: rest` with
    `uri` and `credential` or `token`; for a warehouse on S3 also `s3.endpoint`, `s3.access-key-id`,
    `s3.secret-access-key`, `s3.region`. Secrets are best as `{{ env.NAME }}`."""

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the catalog answers, and how many namespaces it shows."""
        from resources.support.iceberg_tables import open_catalog, told_plainly

        try:
            catalog = open_catalog(name, self.catalog)
            with told_plainly(f"connection {name}"):
                found = catalog.list_namespaces()
        except DatabrokkrError as error:
            yield Finding("reach the catalog", False, error.what, error.mend)
            return
        yield Finding("reach the catalog", True, f"it has {len(found)} namespaces")

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables by namespace and name."""
        from resources.support.iceberg_tables import open_catalog, told_plainly

        catalog = open_catalog(name, self.catalog)
        with told_plainly(f"connection {name}"):
            for namespace in sorted(catalog.list_namespaces()):
                for table in sorted(catalog.list_tables(namespace)):
                    yield Stream(table[-1], namespace=".".join(namespace))


class _OfTable(NodeSettings):
    connection: str
    """The name of a connection of type iceberg."""
    table: str = Field(pattern=r"^[^.]+(\.[^.]+)+$")
    """The table, `namespace.table`."""

    def _table(self, connection: ConnectionSettings | None) -> Any:
        from resources.support.iceberg_tables import IcebergTable

        return IcebergTable(self.connection, connected(connection, IcebergConnection).catalog, self.table)

    def _origin(self) -> Origin:
        return Origin((self.connection, *self.table.split(".")), "iceberg", f"iceberg://{self.connection}/{self.table}")


class IcebergSourceSettings(_OfTable, SourceSettings):
    """Reads an Iceberg table: as it is now, as it was, or what was appended since the last load."""

    type: Literal["iceberg"]
    connection: str
    """The name of a connection of type iceberg."""
    snapshot: int | None = None
    """The id of the snapshot to read; without it the newest."""
    as_of: datetime | None = None
    """Read the table as it was at this time, in UTC unless it says otherwise."""
    incremental: bool = False
    """Whether each load reads only the rows that were appended since the last one. Where rows were changed or removed
    since, `append` fails, and `merge` reads the whole table again; removed rows are not noticed then."""
    columns: Names = ()
    """The columns to read; without it all of them."""

    @model_validator(mode="after")
    def _one_way_to_read(self) -> IcebergSourceSettings:
        if [self.snapshot is None, self.as_of is None, not self.incremental].count(False) > 1:
            raise ValueError("give one of `snapshot`, `as_of` and `incremental`")
        if self.incremental and self.delete_missing:
            raise ValueError("with `incremental` most rows do not come again; leave out `delete_missing`")
        return self

    def default_disposition(self) -> Disposition:
        """`Append` when incremental, else `Replace`."""
        return Append() if self.incremental else Replace()

    def open(self, connection: ConnectionSettings | None, place: Place) -> Source:
        """A reader of the table."""
        from resources.support.iceberg_source import IcebergSource

        as_of = self.as_of if self.as_of is None or self.as_of.tzinfo else self.as_of.replace(tzinfo=UTC)
        at = self.snapshot if as_of is None else as_of
        return IcebergSource(self._table(connection), at, self.columns, self.incremental, self.how)

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The table."""
        return (self._origin(),)


class IcebergSinkSettings(_OfTable, SinkSettings):
    """Writes an Iceberg table, exactly once, also one that others write."""

    type: Literal["iceberg"]
    connection: str
    """The name of a connection of type iceberg."""
    partition_by: Names = ()
    """How to partition a new table: columns, or `year(column)`, `month(…)`, `day(…)`, `hour(…)`. A table that is there
    keeps its partitions."""
    target_size: ByteSize = Field(default=ByteSize(128_000_000), ge=1_000_000)
    """About how large files are to be."""
    create: bool = True
    """Whether the table, its namespace, and columns that it lacks, are created."""

    def open(self, connection: ConnectionSettings | None, place: Place) -> Sink:
        """A writer of the table."""
        from resources.support.iceberg_loads import IcebergLayout, IcebergSink

        layout = IcebergLayout(self.partition_by, int(self.target_size), self.create)
        return IcebergSink(self._table(connection), layout)

    def origin(self, connection: ConnectionSettings | None) -> Origin:
        """The table."""
        return self._origin()


connector = Connector(
    name="iceberg",
    summary="Iceberg tables behind a catalog: read at any snapshot or what was appended, and written exactly once.",
    kind="iceberg",
    connection=IcebergConnection,
    source=IcebergSourceSettings,
    sink=IcebergSinkSettings,
    extra="iceberg",
)
