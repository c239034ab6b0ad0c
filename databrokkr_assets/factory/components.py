"""The components that a `defs.yaml` names: `databrokkr_assets.Pipeline`, `.Connections` and `.Lake`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster.components.component.component import ComponentTypeSpec
from dagster.components.core.defs_module import ComponentPath
from pydantic import BaseModel, RootModel

from databrokkr_assets.core.discovered import read_discovered
from databrokkr_assets.core.document import Document, read_documents
from databrokkr_assets.core.errors import DatabrokkrError, SpecError, Where, did_you_mean
from databrokkr_assets.core.reading import check_pipeline, read_connections, read_pipeline, read_settings
from databrokkr_assets.core.spec import ConnectionSettings
from databrokkr_assets.core.spec import Pipeline as PipelineSpec
from databrokkr_assets.factory import schema, triggers
from databrokkr_assets.factory.assets import pipeline_assets
from databrokkr_assets.factory.broken import as_error, broken_defs
from databrokkr_assets.factory.kinds import installed
from databrokkr_assets.factory.project import Project, Unset, current
from databrokkr_assets.factory.templates import resolved
from databrokkr_assets.lake.store import Store, store_at

DEFS = "defs.yaml"
PIPELINE = "databrokkr_assets.Pipeline"


class _PipelineAttributes(RootModel[dict[str, Any]]):
    """Anything; the component itself checks it, so that a mistake breaks one pipeline and not the code location."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return schema.pipeline_schema()


class _ConnectionsAttributes(RootModel[dict[str, Any]]):
    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return schema.connections_schema()


class Pipeline(dg.Component):
    """Sources, transforms, sinks and checks, as software-defined assets."""

    def __init__(
        self,
        spec: PipelineSpec | None = None,
        document: Document | None = None,
        broken: DatabrokkrError | None = None,
    ) -> None:
        self.spec = spec
        self._document = document
        self._broken = broken

    @classmethod
    def get_spec(cls) -> ComponentTypeSpec:
        return ComponentTypeSpec(description=cls.__doc__, tags=["databrokkr"], produces=["asset", "asset_check"])

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return _PipelineAttributes

    @classmethod
    def get_code_references_for_yaml(cls, *args: Any, **kwargs: Any) -> list[Any]:
        return []  # each asset has the line of its own node

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        document = _document(context)
        try:
            raw = attributes.root if isinstance(attributes, _PipelineAttributes) else {}
            given, missing = resolved(raw, context.resolution_context)
            _require_set(missing, Where(document.file))
            name = given.pop("name", None) or context.path.name
            return cls(read_pipeline(name, given, document, installed(), read_discovered(context.path)), document)
        except DatabrokkrError as error:
            return cls(document=document, broken=error)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        project = current(context.project_root)
        if self._broken or self.spec is None:
            error = self._broken or SpecError("the pipeline is empty", mend="give it nodes")
            return broken_defs(context.path.name, error, project.root)
        try:
            return self._defs(self.spec, project, context.path)
        except Exception as error:
            file = self._document.file if self._document else context.path
            return broken_defs(self.spec.name, as_error(error, file), project.root)

    def _defs(self, spec: PipelineSpec, project: Project, folder: Path) -> dg.Definitions:
        if self._document is None:
            spec = check_pipeline(spec, installed(), read_discovered(folder))
        _require_connections(spec, project, self._document)
        job = dg.define_asset_job(
            spec.name, selection=dg.AssetSelection.groups(spec.name), description=spec.description or None
        )
        return dg.Definitions(
            assets=pipeline_assets(spec, project, self._document),
            jobs=[job],
            schedules=triggers.schedules(spec, job, self._document),
            sensors=triggers.sensors(spec, project),
        )


class Connections(dg.Component):
    """Named coordinates and secrets of systems; each is a Dagster resource."""

    def __init__(self, connections: Mapping[str, ConnectionSettings | Unset]) -> None:
        self.connections = dict(connections)

    @classmethod
    def get_spec(cls) -> ComponentTypeSpec:
        return ComponentTypeSpec(description=cls.__doc__, tags=["databrokkr"], produces=["resource"])

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return _ConnectionsAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        return cls(connections_in(_document(context), context.resolution_context))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(resources={name: _resource(item) for name, item in self.connections.items()})


class Lake(dg.Component, dg.Resolvable, schema.LakeSettings):
    """Where the datasets stand; without it, in the project's folder `lake`."""

    @classmethod
    def get_spec(cls) -> ComponentTypeSpec:
        return ComponentTypeSpec(description=cls.__doc__, tags=["databrokkr"], produces=["resource"])

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions()


def connections_in(document: Document, context: dg.ResolutionContext) -> dict[str, ConnectionSettings | Unset]:
    """The connections that a document names. Raises SpecErrors."""
    whole: dict[str, ConnectionSettings | Unset] = {}
    ready: dict[str, Any] = {}
    for name, item in document.attributes.items():
        given, missing = resolved(item, context)
        if missing and isinstance(given, dict):
            whole[name] = Unset(str(given.get("type")), missing)
        else:
            ready[name] = given
    return whole | read_connections(ready, document, installed())


def lake_in(document: Document, context: dg.ResolutionContext, root: Path) -> Store:
    """The lake that a document names. Raises SpecError."""
    given, missing = resolved(dict(document.attributes), context)
    _require_set(missing, document.where(()))
    settings = read_settings(schema.LakeSettings, given, document)
    return store_at(settings.url, root, settings.options)


def _require_set(missing: tuple[str, ...], where: Where) -> None:
    if missing:
        listed = ", ".join(missing)
        raise SpecError(f"the environment variable {listed} is not set", mend=f"set {listed}", where=where)


def _document(context: dg.ComponentLoadContext) -> Document:
    location = context.component_path
    assert isinstance(location, ComponentPath)
    index = location.instance_key if isinstance(location.instance_key, int) else 0
    return read_documents(context.path / DEFS)[index]


def _resource(connection: ConnectionSettings | Unset) -> dg.ResourceDefinition:
    """The connection as Dagster shows it: its kind and coordinates; secrets are `SecretStr` and print as stars."""
    if isinstance(connection, Unset):
        shown = f"{connection.type}; not usable: {', '.join(connection.variables)} is not set"
    else:
        facts = connection.model_dump(mode="json", exclude_defaults=True)
        shown = "\n".join(f"- {key}: `{value}`" for key, value in facts.items())
    return resource(connection.type, connection, shown)


def resource(kind: str, value: object, description: str) -> dg.ResourceDefinition:
    """A value as a Dagster resource. The UI shows `kind`, which it takes from the name of a function."""

    def give(_: object) -> object:
        return value

    give.__name__ = give.__qualname__ = kind
    return dg.ResourceDefinition(resource_fn=give, description=description)


def _require_connections(spec: PipelineSpec, project: Project, document: Document | None) -> None:
    for section, nodes in (("sources", spec.sources), ("sinks", spec.sinks)):
        for name, node in nodes.items():
            if node.connection is None:
                continue
            where = document.where(("attributes", section, name, "connection")) if document else None
            known = project.connections.get(node.connection)
            if known is None:
                mend = did_you_mean(node.connection, project.connections)
                raise SpecError(f'there is no connection "{node.connection}"', mend=mend, where=where)
            if not node.accepts(known.type):
                fitting = [key for key, item in project.connections.items() if node.accepts(item.type)]
                mend = f"use one that fits: {', '.join(fitting) or 'none is defined yet'}"
                raise SpecError(
                    f'"{node.connection}" is a connection to {known.type}, which {node.type} cannot use',
                    mend=mend,
                    where=where,
                )
