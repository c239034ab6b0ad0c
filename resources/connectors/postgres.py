"""PostgreSQL: reads tables and queries as one stream from one snapshot, and writes tables exactly once.

Reading. The server runs one `COPY (SELECT …) TO STDOUT (FORMAT binary)` in a repeatable-read transaction, and DuckDB's scanner
takes the rows as they come: bounded memory for any table, analyzed or not, and nothing of it passes through Python.
Splitting a table into page ranges, the scanner's own way, was no faster on two cores, and can neither guard values nor use
an index.

Writing. Rows are staged in an unlogged table beside the target, outside of any long transaction. `commit` then applies them and
writes the ledger in one transaction.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable, did_you_mean
from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.core.ports import (
    Batch,
    Cursor,
    Delivery,
    Load,
    LoadMark,
    ReadsAsRelation,
    Receipt,
    RelationRead,
    Sink,
    Source,
    Stream,
    Target,
    WritesRelation,
)
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import ConnectionSettings, Origin, Place, SinkSettings, SourceSettings
from resources.base import Connector
from resources.support import ledger
from resources.support.cursor import Incremental
from resources.support.libpq import EXTRA, Server
from resources.support.pgtypes import Column, Wire, bad_value, bent, by_name, wire
from resources.support.tables import TableName, table_name

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from psycopg import Connection

Session = "Connection[tuple[Any, ...]]"
