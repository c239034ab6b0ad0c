"""The connection that a node is opened with."""

from __future__ import annotations

from typing import TypeVar, get_args

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.spec import ConnectionSettings

Wanted = TypeVar("Wanted", bound=ConnectionSettings)


def connected(connection: ConnectionSettings | None, wanted: type[Wanted]) -> Wanted:
    """The connection, when it is of the model that a node needs. Raises SpecError for another, and for none."""
    if not isinstance(connection, wanted):
        (name,) = get_args(wanted.model_fields["type"].annotation)
        raise SpecError(f"the connection is not of type {name}", mend=f"name a connection with `type: {name}`")
    return connection
