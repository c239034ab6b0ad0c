"""The nodes of a pipeline as a graph: what is upstream, in which order, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from databrokkr_assets.core.spec import Pipeline


def order(pipeline: Pipeline) -> list[str]:
    """The nodes so that each comes after its inputs. Raises graphlib.CycleError."""
    return list(TopologicalSorter({name: pipeline.inputs_of(name) for name, _ in pipeline.nodes()}).static_order())


def cycle(pipeline: Pipeline) -> list[str] | None:
    """The names along a cycle, first and last the same; `None` when there is none."""
    try:
        order(pipeline)
    except CycleError as error:
        return list(reversed(error.args[1]))
    return None


def stored_inputs(pipeline: Pipeline, node: str) -> list[str]:
    """The stored datasets that `node` reads, seen through the transforms that are not stored."""
    found: dict[str, None] = {}
    for name in pipeline.inputs_of(node):
        through = name in pipeline.transforms and not pipeline.transforms[name].stored
        found |= dict.fromkeys(stored_inputs(pipeline, name) if through else [name])
    return list(found)


def downstream(pipeline: Pipeline, nodes: Iterable[str]) -> list[str]:
    """`nodes` and every node that reads them, directly or not, in running order."""
    reached = set(nodes)
    for name in order(pipeline):
        if reached & set(pipeline.inputs_of(name)):
            reached.add(name)
    return [name for name in order(pipeline) if name in reached]


def upstream(pipeline: Pipeline, node: str) -> Iterator[str]:
    """Every node that `node` depends on, nearest first; a node may come twice."""
    for name in pipeline.inputs_of(node):
        yield name
        yield from upstream(pipeline, name)
