"""Looks up what the patterns of a pipeline's sources stand for, and keeps it beside the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from databrokkr_assets.core.contract import Change
from databrokkr_assets.core.discovered import read_discovered, write_discovered
from databrokkr_assets.core.document import Document, read_documents
from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.reading import pattern_sources
from databrokkr_assets.core.spec import ExpandsToStreams, ListsStreams, SourceSettings
from databrokkr_assets.factory.components import DEFS, PIPELINE
from databrokkr_assets.factory.kinds import installed
from databrokkr_assets.factory.loading import folders_of
from databrokkr_assets.factory.project import Project
from databrokkr_assets.factory.templates import resolved


@dataclass(frozen=True)
class Refreshed:
    """What a look at a source's system changed, by `schema.table`. `left_out` are new tables that it keeps out."""

    source: str
    tables: int
    added: tuple[str, ...]
    gone: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def refresh(within: Path, pipeline: str) -> list[Refreshed]:
    """Look up the tables of every source of `pipeline` that names patterns; gives what changed, by source.

    Raises SpecError for a pipeline that is not there or a connection that cannot list, AccessError, Unavailable.
    """
    project, folders = folders_of(within)
    known = {name: (folder, document) for folder in folders for name, document in _pipelines(folder)}
    if pipeline not in known:
        raise SpecError(f'there is no pipeline "{pipeline}"', mend=did_you_mean(pipeline, known))
    folder, document = known[pipeline]
    given, missing = resolved(dict(document.attributes), dg.ResolutionContext.default())
    if missing:
        raise SpecError(f"the environment variable {', '.join(missing)} is not set", mend="set it, then run again")
    sources = pattern_sources(given, document, installed())
    before = read_discovered(folder)
    seen = {name: _streams(project, source) for name, source in sources.items()}
    told = [_compared(name, sources[name], before.get(name), streams) for name, streams in seen.items()]
    frozen = {one.source: set(one.left_out) for one in told}
    write_discovered(
        folder, {name: [one for one in found if _name(one) not in frozen[name]] for name, found in seen.items()}
    )
    return told


def _pipelines(folder: Path) -> Iterator[tuple[str, Document]]:
    file = folder / DEFS
    for document in read_documents(file) if file.exists() else []:
        if document.type == PIPELINE:
            yield str(document.attributes.get("name") or folder.name), document


def _streams(project: Project, source: SourceSettings) -> list[Stream]:
    connection = project.connection(source.connection)
    if not isinstance(connection, ListsStreams) or not isinstance(source, ExpandsToStreams):
        raise SpecError(
            f'the connection "{source.connection}" cannot list what it holds', mend="name the tables one by one"
        )
    found = connection.list_streams(str(source.connection), project.place)
    return sorted((stream for stream in found if source.finds(stream)), key=_name)


def _compared(name: str, source: SourceSettings, before: Sequence[Stream] | None, now: list[Stream]) -> Refreshed:
    old, new = {_name(one) for one in before or ()}, {_name(one) for one in now}
    frozen = before is not None and source.contract.tables is Change.FREEZE
    added = tuple(sorted(new - old))
    return Refreshed(
        name,
        len(new) - (len(added) if frozen else 0),
        () if frozen else added,
        tuple(sorted(old - new)),
        added if frozen else (),
    )


def _name(stream: Stream) -> str:
    return f"{stream.namespace}.{stream.name}" if stream.namespace else stream.name
