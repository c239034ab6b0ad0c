"""Iceberg tables behind a catalog: found, opened, and their files' addresses as DuckDB takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import AccessError, SpecError, Unavailable
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.ports import LoadMark
from databrokkr_assets.lake.store import Store

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

_S3 = {
    "s3.endpoint": "endpoint_url",
    "s3.region": "region",
    "client.region": "region",
    "s3.access-key-id": "access_key_id",
    "s3.secret-access-key": "secret_access_key",
    "s3.session-token": "session_token",
}
"""Properties of a catalog or table, as Iceberg names them, and ours."""


@dataclass(frozen=True)
class IcebergTable:
    """A table by name: `namespace.table`, in the catalog of these properties."""

    connection: str
    properties: Mapping[str, str] = field(repr=False)
    name: str

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog. Raises SpecError, AccessError or Unavailable."""
        return open_catalog(self.connection, self.properties)

    def open(self) -> Table | None:
        """The table as it is now; `None` when there is none."""
        catalog = self.catalog
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        with told_plainly(self.name):
            try:
                return catalog.load_table(self.name)
            except (NoSuchTableError, NoSuchNamespaceError):
                return None


def open_catalog(name: str, properties: Mapping[str, str]) -> Catalog:
    """The catalog of a connection. Raises SpecError, AccessError or Unavailable."""
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError as error:
        raise missing_extra("iceberg", "Iceberg") from error
    with told_plainly(f"connection {name}"):
        return load_catalog(name, **properties)


@contextmanager
def told_plainly(where: str) -> Iterator[None]:
    """Within the block, what catalogs and their drivers raise becomes ours."""
    from pyiceberg.exceptions import ForbiddenError, NotInstalledError, OAuthError, RESTError, UnauthorizedError
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except NotInstalledError as error:
        raise missing_extra("iceberg", f"this catalog ({error})") from error
    except (UnauthorizedError, ForbiddenError, OAuthError) as error:
        raise AccessError(
            f"the catalog does not let us in: {error}", mend="check its credentials", where=where
        ) from error
    except (RESTError, RequestException, SQLAlchemyError) as error:
        mend = "check the catalog's address, and that it is running; then run it again"
        raise Unavailable(f"the catalog does not answer: {error}", mend=mend, where=where) from error
    except OSError as error:
        mend = "check the warehouse's path, its credentials, and the room on the disk"
        raise AccessError(f"the table's files cannot be used: {error}", mend=mend, where=where) from error


def store_of(location: str, properties: Mapping[str, Any]) -> Store:
    """The folder at a location, with a table's credentials. Raises SpecError for one that DuckDB cannot reach."""
    scheme, separated, rest = location.partition("://")
    if not separated:
        return Store(location.removeprefix("file:"))
    if scheme == "file":
        return Store(rest)
    if scheme in ("s3", "s3a", "s3n"):
        options = {ours: str(properties[theirs]) for theirs, ours in _S3.items() if properties.get(theirs)}
        return Store(f"s3://{rest}", options)
    raise SpecError(f'a table on "{scheme}" cannot be used', mend="use a warehouse on a disk or on S3", where=location)


def ledger_property(node: str) -> str:
    """The table property that holds the newest load of a node."""
    return f"databrokkr.{node}"


def held(table: Table, node: str) -> LoadMark | None:
    """The newest load of a node, from the table's own properties."""
    text = table.properties.get(ledger_property(node))
    return LoadMark(**json.loads(text)) if text else None


def told(load: LoadMark) -> str:
    """A load as the table's properties hold it."""
    return json.dumps(
        {"load_id": load.load_id, "dataset": load.dataset, "version": load.version, "run_id": load.run_id}
    )
