"""Delta tables beside the lake: a folder or S3 prefix that other engines read and write, too."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ByteSize, Field, SecretStr, model_validator

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.ports import Sink, Source
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import ConnectionSettings, NodeSettings, Origin, Place, SinkSettings, SourceSettings
from resources.base import Connector
from resources.support.connections import connected


class DeltaConnection(ConnectionSettings):
    """How to get into a bucket with Delta tables. What is left out comes from the environment, as boto3 finds it."""

    type: Literal["delta"]
    endpoint_url: str | None = None
    """The address of an S3-compatible store that is not AWS."""
    region: str | None = None
    """The bucket's region."""
    access_key_id: str | None = None
    """The access key."""
    secret_access_key: SecretStr | None = None
    """The secret key."""
    session_token: SecretStr | None = None
    """The token of temporary credentials."""

    def options(self) -> dict[str, str]:
        """What was given, secrets in the open, as a store takes it."""
        given = self.model_dump(exclude={"type", "max_concurrent"}, exclude_none=True)
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in given.items()
        }


class _OfTable(NodeSettings):
    path: str
    """The table's folder, or `s3://bucket/prefix`; relative paths start at the project."""

    def _table(self, connection: ConnectionSettings | None, place: Place) -> Any:
        from databrokkr_assets.lake.external import ExternalTable
        from databrokkr_assets.lake.store import store_at

        options = connected(connection, DeltaConnection).options() if connection else {}
        return ExternalTable(store_at(self.path, place.project, options))

    def _origin(self) -> Origin:
        words = [re.sub(r"[^\w.-]", "_", word) for word in re.split(r"[:/]+", self.path) if word not in ("", ".", "..")]
        return Origin(("delta", *words), "deltalake", self.path if "://" in self.path else f"file://{self.path}")


class DeltaSourceSettings(_OfTable, SourceSettings):
    """Reads a Delta table: as it is now, as it was, or what was added since the last load."""

    type: Literal["delta"]
    version: int | None = Field(default=None, ge=0)
    """The version to read; without it the newest."""
    as_of: datetime | None = None
    """Read the table as it was at this time, in UTC unless it says otherwise."""
    incremental: bool = False
    """Whether each load reads only the rows that were added since the last one. Where rows were changed or removed
    since, `append` fails, and `merge` reads the whole table again; removed rows are not noticed then."""
    columns: Names = ()
    """The columns to read; without it all of them."""

    @model_validator(mode="after")
    def _one_way_to_read(self) -> DeltaSourceSettings:
        if [self.version is None, self.as_of is None, not self.incremental].count(False) > 1:
            raise ValueError("give one of `version`, `as_of` and `incremental`")
        if self.incremental and self.delete_missing:
            raise ValueError("with `incremental` most rows do not come again; leave out `delete_missing`")
        return self

    def default_disposition(self) -> Disposition:
        """`Append` when incremental, else `Replace`."""
        return Append() if self.incremental else Replace()

    def open(self, connection: ConnectionSettings | None, place: Place) -> Source:
        """A reader of the table. Raises SpecError for an address that cannot be one."""
        from resources.support.delta_source import DeltaSource

        at = self.version if self.as_of is None else _in_utc(self.as_of)
        return DeltaSource(self._table(connection, place), at, self.columns, self.incremental, self.how)

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The table."""
        return (self._origin(),)


class DeltaSinkSettings(_OfTable, SinkSettings):
    """Writes a Delta table, exactly once, also one that others write.

    Columns of types that Delta has not (times of day, unsigned numbers, UUIDs …) are stored as text or wider numbers,
    their own types in the column's metadata, as in a dataset.
    """

    type: Literal["delta"]
    partition_by: Names | None = None
    """The columns to partition a new table by; without it, none, or those that a table has that is there."""
    target_size: ByteSize = Field(default=ByteSize(128_000_000), ge=1_000_000)
    """About how large files are to be."""
    create: bool = True
    """Whether the table, and columns that it lacks, are created."""

    def open(self, connection: ConnectionSettings | None, place: Place) -> Sink:
        """A writer of the table. Raises SpecError for an address that cannot be one."""
        from resources.support.delta_loads import DeltaSink
        from resources.support.delta_plan import DeltaLayout

        layout = DeltaLayout(self.partition_by, int(self.target_size), self.create)
        return DeltaSink(self._table(connection, place), layout)

    def origin(self, connection: ConnectionSettings | None) -> Origin:
        """The table."""
        return self._origin()


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


connector = Connector(
    name="delta",
    summary="Delta tables beside the lake: read at any version or what was added, and written exactly once.",
    kind="deltalake",
    connection=DeltaConnection,
    source=DeltaSourceSettings,
    sink=DeltaSinkSettings,
)
