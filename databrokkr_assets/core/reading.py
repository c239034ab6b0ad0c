"""From plain data to the models, collecting every mistake with its place instead of stopping at the first.

`Kinds` says which models stand behind a `type:`; this module knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from databrokkr_assets.core import graph
from databrokkr_assets.core.discovered import Found
from databrokkr_assets.core.document import Document, KeyPath
from databrokkr_assets.core.errors import SpecError, SpecErrors, Where, did_you_mean
from databrokkr_assets.core.names import is_name
from databrokkr_assets.core.spec import (
    CheckSettings,
    ConnectionSettings,
    ExpandsToStreams,
    FileArrival,
    Pipeline,
    ScheduleSettings,
    SinkSettings,
    SourceSettings,
    TransformSettings,
    WatchesFiles,
)

Model = TypeVar("Model", bound=BaseModel)

SECTIONS = ("sources", "transforms", "sinks", "checks", "triggers")
"""The name-keyed parts of a pipeline."""


@dataclass(frozen=True)
class Kinds:
    """The models by `type:`; each function raises SpecError for a name that there is not."""

    source: Callable[[str], type[SourceSettings]]
    transform: Callable[[str], type[TransformSettings]]
    sink: Callable[[str], type[SinkSettings]]
    connection: Callable[[str], type[ConnectionSettings]]
    check_problems: Callable[[CheckSettings], Iterable[str]]


@dataclass
class _Mistakes:
    """Gathers mistakes of one document."""

    document: Document | None
    found: list[SpecError] = field(default_factory=list)

    def add(self, path: KeyPath, what: str, mend: str) -> None:
        self.found.append(SpecError(what, mend=mend, where=self.where(path)))

    def where(self, path: KeyPath) -> Where | None:
        return self.document.where(("attributes", *path)) if self.document else None

    def raise_any(self) -> None:
        if self.found:
            raise SpecErrors(
                sorted(
                    self.found,
                    key=lambda error: (error.where.line or 0) if isinstance(error.where, Where) else 0,
                )
            )


def read_pipeline(
    name: str, attributes: Mapping[str, Any], document: Document, kinds: Kinds, found: Found | None = None
) -> Pipeline:
    """The pipeline that `attributes` (the document's, templates resolved) describe.

    Sources of several tables become one for each; `found` tells what patterns of tables stand for. Raises SpecErrors
    with every mistake: file, line, what is wrong, how to mend it.
    """
    mistakes = _Mistakes(document)
    attributes = dict(attributes)
    parts = {section: _mapping(attributes.pop(section, None), section, mistakes) for section in SECTIONS}
    schedule = attributes.pop("schedule", None)
    _node_names(parts, mistakes)
    head = _validated(Pipeline, {"name": name, **attributes}, (), mistakes)
    sections: dict[str, dict[str, Any]] = {
        "sources": _typed(parts["sources"], "sources", kinds.source, mistakes),
        "transforms": _typed(parts["transforms"], "transforms", kinds.transform, mistakes),
        "sinks": _typed(parts["sinks"], "sinks", kinds.sink, mistakes),
        "checks": _all(CheckSettings, parts["checks"], "checks", mistakes),
        "triggers": _typed(parts["triggers"], "triggers", _trigger, mistakes),
    }
    when = _validated(ScheduleSettings, schedule, ("schedule",), mistakes) if schedule is not None else None
    mistakes.raise_any()
    assert head is not None
    sections["sources"] = _expanded(name, sections["sources"], found or {}, mistakes)
    mistakes.raise_any()
    pipeline = head.model_copy(update={**sections, "schedule": when})
    _whole(pipeline, kinds, mistakes)
    mistakes.raise_any()
    return pipeline


def check_pipeline(pipeline: Pipeline, kinds: Kinds, found: Found | None = None) -> Pipeline:
    """What `read_pipeline` makes of a pipeline that was built in Python. Raises SpecErrors."""
    mistakes = _Mistakes(None)
    _node_names({section: getattr(pipeline, section) for section in SECTIONS}, mistakes)
    mistakes.raise_any()
    sources = _expanded(pipeline.name, pipeline.sources, found or {}, mistakes)
    mistakes.raise_any()
    whole = pipeline.model_copy(update={"sources": sources})
    _whole(whole, kinds, mistakes)
    mistakes.raise_any()
    return whole


def pattern_sources(attributes: Mapping[str, Any], document: Document, kinds: Kinds) -> dict[str, SourceSettings]:
    """The sources whose tables are to be looked up, by name. Raises SpecErrors for mistakes in the sources."""
    mistakes = _Mistakes(document)
    given = _mapping(attributes.get("sources"), "sources", mistakes)
    sources: dict[str, SourceSettings] = _typed(given, "sources", kinds.source, mistakes)
    mistakes.raise_any()
    return {
        name: source for name, source in sources.items() if isinstance(source, ExpandsToStreams) and source.patterns()
    }


def _expanded(
    pipeline: str, sources: Mapping[str, SourceSettings], found: Found, mistakes: _Mistakes
) -> dict[str, SourceSettings]:
    """The sources, those of several tables as one for each table."""
    nodes: dict[str, SourceSettings] = {}
    for name, source in sources.items():
        if isinstance(source, ExpandsToStreams):
            parts = _parts(pipeline, name, source, found, mistakes)
            nodes |= {f"{name}_{suffix}": part for suffix, part in parts.items()} or {name: source}
        else:
            nodes[name] = source
    for name in nodes:
        _check_name(name, ("sources", name), mistakes)
    return nodes


def _parts(
    pipeline: str, name: str, source: ExpandsToStreams, found: Found, mistakes: _Mistakes
) -> Mapping[str, SourceSettings]:
    path = ("sources", name, "tables")
    look = f"run `databrokkr refresh {pipeline}`"
    if source.patterns() and name not in found:
        mistakes.add(path, f"nobody has looked up yet what {', '.join(source.patterns())} stands for", look)
        return {}
    try:
        parts = source.expanded(found.get(name, ()))
    except SpecError as error:
        mistakes.add(path, error.what, error.mend)
        return {}
    except ValidationError as error:
        for detail in error.errors():
            what, mend = _in_words(SourceSettings, detail)
            mistakes.add(path, what, mend)
        return {}
    if source.patterns() and not parts:
        mistakes.add(path, f"no table fits {', '.join(source.patterns())}", f"correct it, or {look}")
    return parts


def read_settings(model: type[Model], attributes: Mapping[str, Any], document: Document) -> Model:
    """The settings of a component that has no nodes. Raises SpecErrors."""
    mistakes = _Mistakes(document)
    found = _validated(model, attributes, (), mistakes)
    mistakes.raise_any()
    assert found is not None
    return found


def read_connections(attributes: Mapping[str, Any], document: Document, kinds: Kinds) -> dict[str, ConnectionSettings]:
    """Connections by name. Raises SpecErrors."""
    mistakes = _Mistakes(document)
    for name in attributes:
        _check_name(name, (name,), mistakes)
    found = {name: _one_typed(item, (name,), kinds.connection, mistakes) for name, item in attributes.items()}
    mistakes.raise_any()
    return found


def _trigger(kind: str) -> type[FileArrival]:
    if kind != "file_arrival":
        raise SpecError(f'there is no trigger "{kind}"', mend=did_you_mean(kind, ["file_arrival"]))
    return FileArrival


def _mapping(value: object, section: str, mistakes: _Mistakes) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    mistakes.add((section,), f"`{section}` must map names to settings", f"write `{section}:` and below it `  name: …`")
    return {}


def _node_names(parts: Mapping[str, Mapping[str, Any]], mistakes: _Mistakes) -> None:
    owner: dict[str, str] = {}
    for section in ("sources", "transforms", "sinks"):
        for name in parts[section]:
            _check_name(name, (section, name), mistakes)
            if name in owner:
                mistakes.add(
                    (section, name),
                    f'"{name}" is already a node under `{owner[name]}`',
                    "give one of the two another name",
                )
            owner[name] = section


def _check_name(name: object, path: KeyPath, mistakes: _Mistakes) -> None:
    if not isinstance(name, str) or not is_name(name):
        mistakes.add(path, f'"{name}" cannot be a name', "use letters, digits and _, not starting with a digit")


def _typed(
    items: Mapping[str, Any], section: str, find: Callable[[str], type[Model]], mistakes: _Mistakes
) -> dict[str, Any]:
    return {name: _one_typed(item, (section, name), find, mistakes) for name, item in items.items()}


def _one_typed(item: object, path: KeyPath, find: Callable[[str], type[Model]], mistakes: _Mistakes) -> Any:
    if isinstance(item, BaseModel):
        return item
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        mistakes.add(path, f'"{path[-1]}" does not say what it is', "add `type:` with the kind of thing it is")
        return None
    try:
        model = find(item["type"])
    except SpecError as error:
        mistakes.add((*path, "type"), error.what, error.mend)
        return None
    return _validated(model, item, path, mistakes)


def _all(model: type[Model], items: Mapping[str, Any], section: str, mistakes: _Mistakes) -> dict[str, Any]:
    for name in items:
        _check_name(name, (section, name), mistakes)
    return {name: _validated(model, item, (section, name), mistakes) for name, item in items.items()}


def _validated(model: type[Model], value: object, path: KeyPath, mistakes: _Mistakes) -> Model | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for detail in error.errors():
            what, mend = _in_words(model, detail)
            mistakes.add((*path, *detail["loc"]), what, mend)
        return None


def _in_words(model: type[BaseModel], detail: ErrorDetails) -> tuple[str, str]:
    key = ".".join(str(part) for part in detail["loc"])
    match detail["type"]:
        case "extra_forbidden" if " " in key:
            return f'unknown key "{key}"', "a text with commas inside { } needs quotes, or a line of its own"
        case "extra_forbidden":
            return f'unknown key "{key}"', did_you_mean(str(detail["loc"][-1]), model.model_fields)
        case "missing":
            described = model.model_fields[key].description if key in model.model_fields else None
            return f'"{key}" is missing', f"add `{key}:`" + (f" - {described}" if described else "")
        case "value_error":
            what, _, mend = str(detail["msg"]).removeprefix("Value error, ").partition("; ")
            return (f"{key}: {what}" if key else what), mend or "change it accordingly"
        case _:
            given = detail["input"]
            # A connection's value may be a secret, whatever key it was put behind.
            shown = isinstance(given, str | int | float | bool) and not issubclass(model, ConnectionSettings)
            cannot = f"cannot be {given!r}" if shown else "cannot be what it is"
            return f'"{key}" {cannot}: {detail["msg"].lower()}', "change the value accordingly"


def _whole(pipeline: Pipeline, kinds: Kinds, mistakes: _Mistakes) -> None:
    """What can only be seen when every part is known."""
    if not any(True for _ in pipeline.nodes()):
        mistakes.add((), "the pipeline has no nodes", "add at least one item under `sources:`")
    _inputs(pipeline, mistakes)
    _triggers(pipeline, mistakes)
    if mistakes.found:
        return
    circle = graph.cycle(pipeline)
    if circle:
        section = "transforms" if circle[0] in pipeline.transforms else "sinks"
        mistakes.add(
            (section, circle[0]),
            f"nodes read each other in a circle: {' → '.join(circle)}",
            "remove one of these inputs",
        )
        return
    _checks(pipeline, kinds, mistakes)
    _append_needs_append(pipeline, mistakes)


def _inputs(pipeline: Pipeline, mistakes: _Mistakes) -> None:
    readable = {*pipeline.sources, *pipeline.transforms}
    for section in ("transforms", "sinks"):
        for name in getattr(pipeline, section):
            for source in pipeline.inputs_of(name):
                if source not in readable:
                    what = f'"{name}" reads "{source}", which is no source or transform of this pipeline'
                    mistakes.add((section, name, "input"), what, did_you_mean(source, readable - {name}))


def _triggers(pipeline: Pipeline, mistakes: _Mistakes) -> None:
    for name, trigger in pipeline.triggers.items():
        source = pipeline.sources.get(trigger.source)
        path = ("triggers", name, "source")
        if source is None:
            mistakes.add(path, f'there is no source "{trigger.source}"', did_you_mean(trigger.source, pipeline.sources))
        elif not isinstance(source, WatchesFiles):
            mistakes.add(path, f'"{trigger.source}" reads {source.type}, not files', "name a source of type `files`")


def _checks(pipeline: Pipeline, kinds: Kinds, mistakes: _Mistakes) -> None:
    guarded = {*pipeline.sources, *(name for name, node in pipeline.transforms.items() if node.stored)}
    for name, check in pipeline.checks.items():
        if check.dataset not in guarded:
            mend = did_you_mean(check.dataset, guarded)
            mistakes.add(("checks", name, "dataset"), f'there is no dataset "{check.dataset}" to check', mend)
        for problem in kinds.check_problems(check):
            what, _, mend = problem.partition("; ")
            mistakes.add(("checks", name), what, mend or "see the expectation's own parameters")


def _append_needs_append(pipeline: Pipeline, mistakes: _Mistakes) -> None:
    """What a dataset that is rewritten would append again and again, nobody wants."""
    for name, sink in pipeline.sinks.items():
        source = pipeline.sources.get(sink.input)
        if str(sink.how) == "append" and (source is None or str(source.how) != "append"):
            mistakes.add(
                ("sinks", name, "disposition"),
                f'"{name}" appends, but its input "{sink.input}" is rewritten and would be added again at each load',
                "use `disposition: replace` or `merge`, or a source that appends",
            )
