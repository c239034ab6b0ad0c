"""What the parts of a project know of each other: connections, the lake, and the systems outside."""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from databrokkr_assets.core.errors import AccessError, DatabrokkrError
from databrokkr_assets.core.spec import ConnectionSettings, Origin, Place
from databrokkr_assets.lake.store import Store, store_at

LAKE = "DATABROKKR_LAKE"
"""The environment variable that moves the lake, over what the project says."""


@dataclass(frozen=True)
class Unset:
    """A connection whose secrets are not in this environment: it loads, and says so when it is used."""

    type: str
    variables: tuple[str, ...]


@dataclass
class Project:
    """What the parts of a project know of each other.

    `origins` are the external assets that sources read, `targets` the sinks (pipeline and node) that write such ones: a
    table that one pipeline writes and another reads is one asset between them.
    """

    root: Path
    connections: dict[str, ConnectionSettings | Unset] = field(default_factory=dict)
    lake: Store | DatabrokkrError | None = None
    origins: dict[tuple[str, ...], Origin] = field(default_factory=dict)
    targets: dict[tuple[str, ...], tuple[str, str]] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where relative paths start."""
        return Place(self.root)

    def store(self) -> Store:
        """The lake: from the environment, from a `databrokkr_assets.Lake`, or the folder `lake`.

        Raises the error of a `databrokkr_assets.Lake` that does not load: a pipeline must not go on in another lake,
        where its cursors are not.
        """
        moved = os.environ.get(LAKE)
        if moved:
            return store_at(moved, self.root, {})
        if isinstance(self.lake, DatabrokkrError):
            raise self.lake
        return self.lake or store_at("lake", self.root, {})

    def connection(self, name: str | None) -> ConnectionSettings | None:
        """The settings of a connection. Raises AccessError when its variables are not set."""
        if name is None:
            return None
        found = self.connections[name]
        if isinstance(found, Unset):
            listed = ", ".join(found.variables)
            raise AccessError(
                f'the connection "{name}" needs the environment variable {listed}',
                mend=f"set {listed} and start again",
            )
        return found


CURRENT: ContextVar[Project | None] = ContextVar("databrokkr_project", default=None)
"""The project whose definitions are being loaded."""


def current(root: Path) -> Project:
    """The project being loaded, or an empty one at `root` for a component that is loaded by itself."""
    return CURRENT.get() or Project(root)
