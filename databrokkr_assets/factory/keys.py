"""Asset keys: a pipeline's assets begin with its name."""

from __future__ import annotations

import dagster as dg

from databrokkr_assets.core.names import QUARANTINE_SUFFIX


def node_key(pipeline: str, node: str) -> dg.AssetKey:
    """The asset of a node."""
    return dg.AssetKey([pipeline, node])


def quarantine_key(pipeline: str, node: str) -> dg.AssetKey:
    """The asset of a node's dead letters."""
    return dg.AssetKey([pipeline, node + QUARANTINE_SUFFIX])


def connection_pool(connection: str) -> str:
    """The Dagster pool of a connection that says how many nodes may use it at once."""
    return f"connection_{connection}"
