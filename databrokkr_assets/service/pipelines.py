"""What a project's definitions hold: its pipelines, sound or broken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import dagster as dg

MISTAKES = "databrokkr/mistakes"
"""The metadata key under which a broken pipeline's asset lists its mistakes as JSON."""


@dataclass
class Known:
    """A pipeline as the definitions show it. `mistakes` are `{where, what, mend}`; none for a sound one."""

    name: str
    nodes: list[str] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)


def pipelines(defs: dg.Definitions) -> dict[str, Known]:
    """Every pipeline by name. An asset group with our assets is a pipeline."""
    found: dict[str, Known] = defaultdict(lambda: Known(""))
    for spec in _specs(defs):
        name = spec.key.path[0]
        if MISTAKES in spec.metadata:
            found[name].mistakes += spec.metadata[MISTAKES].value
        elif spec.group_name == name and len(spec.key.path) == 2:
            found[name].nodes.append(spec.key.path[1])
    for name, known in found.items():
        known.name = name
    return dict(sorted(found.items()))


def sound(defs: dg.Definitions, name: str) -> Known:
    """The pipeline called `name`. Raises SpecError when there is none, or when it is broken."""
    known = pipelines(defs)
    if name not in known:
        raise SpecError(f'there is no pipeline "{name}"', mend=did_you_mean(name, known))
    if known[name].mistakes:
        first = known[name].mistakes[0]
        raise SpecError(first["what"], mend=first["mend"], where=first["where"])
    return known[name]


def _specs(defs: dg.Definitions) -> Iterator[dg.AssetSpec]:
    """The specs in running order, so that nodes come as they run."""
    order = {key: place for place, key in enumerate(defs.resolve_asset_graph().toposorted_asset_keys)}
    yield from sorted(defs.resolve_all_asset_specs(), key=lambda spec: order[spec.key])
