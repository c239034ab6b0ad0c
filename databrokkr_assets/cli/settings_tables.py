"""Settings models as Markdown tables: key, type in plain words, default, meaning. All of it comes from the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel


def table(
    model: type[BaseModel],
    *,
    beside: type[BaseModel] | None = None,
    meanings: Mapping[str, str] | None = None,
    optional: Iterable[str] = (),
) -> str:
    """The keys of a model: all, or with `beside` those that it adds to that one or changes, `type` left out.

    `meanings` serve keys that the model itself does not describe; `optional` keys are not shown as required.
    """
    schema = model.model_json_schema()
    known = beside.model_json_schema()["properties"] | {"type": schema["properties"].get("type")} if beside else {}
    required = set(schema.get("required", ())) - set(optional)
    rows = [
        _row(key, facts, schema, "required" if key in required else shown(facts.get("default")), meanings or {})
        for key, facts in schema["properties"].items()
        if facts != known.get(key)
    ]
    return "\n".join(["| key | type | default | meaning |\n|---|---|---|---|", *rows, ""]) if rows else ""


def _row(
    key: str, facts: Mapping[str, Any], schema: Mapping[str, Any], default: str, meanings: Mapping[str, str]
) -> str:
    meaning = facts.get("description") or meanings.get(key, "")
    return f"| `{key}` | {_words(facts, schema)} | {default} | {cell(meaning)} |"


def shown(value: Any) -> str:
    """A default as the table shows it; nothing for one that says nothing."""
    if value is None or value in ("", [], {}):
        return ""
    plain = int(value) if isinstance(value, float) and value.is_integer() else value
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _words(facts: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A JSON Schema as an author says it: `text`, `whole number`, `list of text`, `one of a, b`."""
    match facts:
        case {"$ref": reference}:
            return _words(schema["$defs"][reference.rsplit("/", 1)[-1]], schema)
        case {"properties": _}:
            return "settings"
        case {"anyOf": choices}:
            return " or ".join(dict.fromkeys(_words(one, schema) for one in choices if one != {"type": "null"}))
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return "one of " + ", ".join(f"`{value}`" for value in values)
        case {"type": "array"}:
            return f"list of {_words(facts.get('items', {}), schema)}"
        case {"type": "object", "additionalProperties": dict() | True as values}:
            return f"mapping of names to {_words(values if isinstance(values, dict) else {}, schema)}"
        case {"type": "integer" | "number" | "boolean" | "string" as kind}:
            return _scalar(kind, facts)
        case _:
            return "anything"


def _scalar(kind: str, facts: Mapping[str, Any]) -> str:
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}[kind]
    words = "secret text" if facts.get("format") == "password" else words
    return f"{words}, at least {facts['minimum']}" if "minimum" in facts else words


def cell(text: str) -> str:
    """`text` on one line, as a table can hold it."""
    return " ".join(text.split()).replace("|", "\\|")
