"""The JSON Schema of what an author writes, from the models: editors complete and validate with it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from databrokkr_assets.core import plugins
from databrokkr_assets.core.spec import CheckSettings, FileArrival, Pipeline
from resources.registry import connectors

_TEMPLATE = {"type": "string", "pattern": r"\{\{.*\}\}"}
_NO_TEXT = {"integer", "number", "boolean"}


def pipeline_schema() -> dict[str, Any]:
    """The attributes of `databrokkr_assets.Pipeline`, every installed connector and transform included."""
    schema = _inlined(Pipeline)
    parts = schema["properties"]
    parts["sources"] = _items([item.source for item in connectors() if item.source], "What is read, by name.")
    parts["transforms"] = _items(
        [plugins.load(plugins.TRANSFORMS, name) for name in plugins.names(plugins.TRANSFORMS)],
        "What is reshaped, by name.",
    )
    parts["sinks"] = _items([item.sink for item in connectors() if item.sink], "What is written, by name.")
    parts["checks"] = _items([CheckSettings], "What is guarded, by name.")
    parts["triggers"] = _items([FileArrival], "What starts the pipeline beside its schedule, by name.")
    schema["required"] = []
    return _with_templates(schema)


def connections_schema() -> dict[str, Any]:
    """The attributes of `databrokkr_assets.Connections`: settings by name."""
    return _with_templates(
        _items([item.connection for item in connectors() if item.connection], "Connections, by name.")
    )


def defs_yaml_schema() -> dict[str, Any]:
    """A whole `defs.yaml`, for editors."""
    components = {
        "databrokkr_assets.Pipeline": pipeline_schema(),
        "databrokkr_assets.Connections": connections_schema(),
        "databrokkr_assets.Lake": _with_templates(_inlined(LakeSettings)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "DataBrokkr defs.yaml",
        "type": "object",
        "required": ["type", "attributes"],
        "properties": {"type": {"enum": list(components)}},
        "allOf": [
            {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": {"attributes": schema}}}
            for name, schema in components.items()
        ],
    }


class LakeSettings(BaseModel):
    """Where the datasets stand."""

    url: str = "lake"
    """A folder, relative to the project, or `s3://bucket/prefix`."""
    options: dict[str, str] = {}
    """For S3: `endpoint_url`, `access_key_id`, `secret_access_key`, `session_token`, `region`."""

    model_config = {"extra": "forbid", "use_attribute_docstrings": True}


def _items(models: list[type[BaseModel]], description: str) -> dict[str, Any]:
    """A mapping of names to one of `models`; `type` says which, so that an editor's errors are about that one."""
    choices = [_inlined(model) for model in models]
    types = [_type_of(choice) for choice in choices]
    item: dict[str, Any] = choices[0]
    if len(choices) > 1:
        rules = [
            {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": choice}
            for name, choice in zip(types, choices, strict=True)
        ]
        item = {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": types}},
            "allOf": rules,
        }
    return {
        "type": "object",
        "description": description,
        "additionalProperties": item,
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    }


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema["properties"]["type"]
    return str(kind.get("const", kind.get("title")))


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema without references: Dagster puts it inside a larger one, where they would point nowhere."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                target = definitions[node["$ref"].rsplit("/", 1)[-1]]
                return resolve({**target, **{key: value for key, value in node.items() if key != "$ref"}})
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _with_templates(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema where every number, boolean or choice may also be a template such as `{{ env.PORT }}`."""
    found: dict[str, Any] = _with_template(schema)
    return found


def _with_template(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_template(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _with_template(value) for key, value in node.items()}
    if _needs_template(node):
        kept = {key: found.pop(key) for key in ("title", "description", "default") if key in found}
        return {"anyOf": [found, _TEMPLATE], **kept}
    return found


def _needs_template(node: dict[str, Any]) -> bool:
    kind = node.get("type")  # of a mapping of properties, one that is called `type`
    return isinstance(kind, str) and (kind in _NO_TEXT or "enum" in node) and "const" not in node
