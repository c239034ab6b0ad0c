"""Lets a DuckDB that works for one store into another: its extension, and a secret for that prefix only."""

from __future__ import annotations

import hashlib

import duckdb

from databrokkr_assets.engine.duckdb import S3_PARTS, load_extension
from databrokkr_assets.lake.store import Store


def let_in(duck: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Let `duck` read and write `store`, until it is closed. Raises SpecError for an extension that is missing."""
    for extension in store.extensions:
        load_extension(duck, extension, extra="s3")
    secret = store.duck_secret(f"databrokkr_{hashlib.md5(store.url.encode()).hexdigest()[:12]}")
    if secret:
        duck.execute(secret)
        duck.execute(S3_PARTS)
