"""Which store a node `files` works on: the disk, or the one that its connection opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from databrokkr_assets.core import plugins
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.spec import ConnectionSettings, Origin, Place
from resources.support import found_files
from resources.support.store_disk import DiskStore
from resources.support.store_folders import OpensFolders, names
from resources.support.stores import FileStore, OpensStore, StoreConnection

if TYPE_CHECKING:
    from resources.support.file_folders import TargetFolder


def gives(ability: type, connection: str) -> bool:
    """Whether connections of this type open a store, or one that can be written."""
    model = plugins.load(plugins.CONNECTORS, connection).connection
    return model is not None and issubclass(model, ability)


def store_of(connection: ConnectionSettings | None, place: Place, name: str | None) -> FileStore:
    """The store behind a connection, or the disk. Raises SpecError for a connection that opens none."""
    if connection is None:
        return DiskStore(place)
    if isinstance(connection, OpensStore):
        store = connection.store(place, name or connection.type)
        if isinstance(connection, StoreConnection):
            store.pace = connection.pace()
        return store
    raise SpecError(f"a connection to {connection.type} holds no files", mend="use e.g. one to s3, sftp or http")


def folder_of(connection: ConnectionSettings | None, place: Place, name: str | None, path: str) -> TargetFolder:
    """The folder at `path` to write into. Raises SpecError for a connection that opens none that can be written."""
    from resources.support.file_folders import DiskFolder, StoreFolder

    if connection is None:
        return DiskFolder(Path(place.resolve(path)))
    if not isinstance(connection, OpensFolders):
        raise SpecError(f'the connection "{name}" can only be read', mend="write to the disk or e.g. to s3 or sftp")
    store = connection.store(place, name or connection.type)
    return StoreFolder(store, "/".join(names(path)), place_of(connection, place, path))


def place_of(connection: ConnectionSettings | None, place: Place, path: str) -> str:
    """A path for messages: with its folder, or its store."""
    return connection.uri(path) if isinstance(connection, OpensStore) else place.resolve(path)


def origin_of(connection: ConnectionSettings | None, path: str) -> Origin:
    """The file, or the folder that a glob starts at, as an external asset."""
    if connection is None or not isinstance(connection, OpensStore):
        return Origin(("files", *found_files.sanitised(path)), "file", found_files.uri(path))
    where = connection.uri(found_files.fixed(path))
    _, _, inside = where.partition("://")
    return Origin((connection.type, *found_files.sanitised(inside)), connection.type, where)


def local_only(path: str) -> None:
    """Raises ValueError for a URL, which only a connection can open."""
    if "://" in path:
        raise ValueError(
            f"{path} is a URL; without a `connection` to its store this connector reads and writes local files only"
        )
