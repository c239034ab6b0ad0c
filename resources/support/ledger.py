"""The ledger that a database target keeps of our loads, so that a load is applied once whatever is lost on the way.

The same SQL serves PostgreSQL and DuckDB. The ledger stands in the target table's schema and is written in the
transaction that applies the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from databrokkr_assets.core.errors import Unavailable
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.ports import LoadMark

TABLE = "_databrokkr_loads"

COLUMNS = (
    "node text PRIMARY KEY, dataset text NOT NULL, version bigint NOT NULL, load_id text NOT NULL, "
    'run_id text NOT NULL, "rows" bigint NOT NULL, loaded_at timestamptz NOT NULL'
)
"""The ledger's columns, as `CREATE TABLE` takes them: one row for each node, its newest load."""


def select(ledger: str, node: str) -> str:
    """The query for the newest load of `node`; `mark` reads its row."""
    return f"SELECT load_id, dataset, version, run_id FROM {ledger} WHERE node = {literal(node)}"


def mark(row: Sequence[Any] | None) -> LoadMark | None:
    """The load that a row of `select` tells of."""
    return LoadMark(row[0], row[1], row[2], run_id=row[3]) if row else None


def upsert(ledger: str, node: str, load: LoadMark, rows: int) -> str:
    """The statement that makes `load` the newest of `node`."""
    values = [literal(node), literal(load.dataset), str(load.version), literal(load.load_id), literal(load.run_id)]
    columns = ("dataset", "version", "load_id", "run_id", '"rows"', "loaded_at")
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return (
        f"INSERT INTO {ledger} (node, {', '.join(columns)}) VALUES ({', '.join(values)}, {rows}, now()) "
        f"ON CONFLICT (node) DO UPDATE SET {changes}"
    )


def already(held: LoadMark | None, load: LoadMark, target: str) -> bool:
    """Whether the ledger holds this load's rows, so that there is nothing to write.

    Raises Unavailable when it names a load that this one did not build on.
    """
    if held and (held.dataset, held.version) == (load.dataset, load.version):
        return True
    found = held.version if held else None
    if found != load.after:
        raise Unavailable(
            f"{target} was written by another run in the meantime: its ledger names version {found}, "
            f"this load continues version {load.after}",
            mend="nothing is lost: run it again",
        )
    return False
