"""One load of a PostgreSQL table: rows in a staging table beside it, then one transaction that applies them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from databrokkr_assets.core.disposition import Disposition
from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.ports import LoadMark, Receipt, Target
from resources.support import ledger, pgtable
from resources.support.applying import keys_of
from resources.support.columns import own_columns, told_by_arrow
from resources.support.libpq import Server
from resources.support.pgstage import Stage, stage_like
from resources.support.pgtypes import by_name, wire
from resources.support.table_sink import TableLoad
from resources.support.tables import TableName

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[Any, ...]]


class PostgresLoad(TableLoad):
    """One load: rows, and keys of rows to delete, in staging tables, then one transaction."""

    def __init__(
        self,
        server: Server,
        table: TableName,
        book: TableName,
        target: Target,
        how: Disposition,
        load: LoadMark,
        *,
        create: bool,
    ) -> None:
        self._server = server
        self._table = table
        self._book = book
        self._target = target
        self._how = how
        self._load = load
        self._create = create
        name = stage_like(target.node) + hashlib.md5(load.load_id.encode()).hexdigest()[:22]
        self._rows = Stage(server, TableName(table.schema, name), str(table))
        self._gone = Stage(server, TableName(table.schema, f"{name}_d"), str(table))
        self._applied: Receipt | None = None

    def write(self, records: pa.RecordBatch) -> None:
        """Stage rows through ADBC. Raises SpecError, DataError, AccessError or Unavailable."""
        with duckdb.connect() as duck:
            duck.register("databrokkr_records", records)
            self._rows.ingest(duck, f"SELECT {told_by_arrow(self._target.schema)} FROM databrokkr_records")

    def write_relation(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Stage the rows of `query` through DuckDB's scanner, or through ADBC where that is not installed.

        Raises DataError, AccessError or Unavailable.
        """
        # Of rows with one key the last wins, so a merge must keep their order.
        duck.execute(f"SET preserve_insertion_order = {str(bool(keys_of(self._how))).lower()}")
        self._rows.copy(duck, query)

    def delete(self, keys: pa.RecordBatch) -> None:
        """Stage keys through ADBC. Raises SpecError, DataError, AccessError or Unavailable."""
        own = self._target.schema
        named = [(by_name(own.names, name) or name, name) for name in keys.schema.names]
        told = told_by_arrow(pa.schema([own.field(there).with_name(name) for there, name in named]))
        with duckdb.connect() as duck:
            duck.register("databrokkr_records", keys)
            self._gone.ingest(duck, f"SELECT {told} FROM databrokkr_records")

    def commit(self) -> Receipt:
        """Apply the staged rows and write the ledger in one transaction, which is tried again when it is broken off.

        Raises DataError for a value that the table's type would change or a key that is NULL, SpecError, AccessError,
        or Unavailable, also when another load came first. Should the server die meanwhile, the ledger tells the next
        run what happened.
        """
        if not self._rows.wires:
            self._rows.create([wire(name, own) for name, own in own_columns(self._target.schema).items()])
        return self._server.again(self._commit)

    def close(self) -> None:
        """Drop the staging tables; where that fails, the node's next load does."""
        for stage in (self._rows, self._gone):
            with suppress(DatabrokkrError):
                stage.drop()

    def _commit(self) -> Receipt:
        table, place, node = self._table, f"{self._server.place}/{self._table}", self._target.node
        with self._server.session() as session, session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            pgtable.lock_for(session, str(table))
            session.execute("SET LOCAL lock_timeout = '60s'")
            held = ledger.mark(session.execute(ledger.select(self._book.sql, node) + " FOR UPDATE").fetchone())
            if ledger.already(held, self._load, place):
                # Where this load itself was broken off at the end, only the reply was lost.
                ours = held is not None and held.load_id == self._load.load_id
                return self._applied if ours and self._applied else Receipt(0, place, already=True)
            done = self._apply(session)
            session.execute(ledger.upsert(self._book.sql, node, self._load, done.rows))
            self._applied = Receipt(done.rows, place, facts=done.facts)
        return self._applied

    def _apply(self, session: Session) -> pgtable.Done:
        table, how = self._table, self._how
        self._rows.require(session, keys_of(how))
        pgtable.fit(session, table, self._rows.wires, how, create=self._create)
        deleted = self._delete(session) if self._gone.wires else None
        pairs = pgtable.paired(session, table, self._rows.wires)
        pgtable.refuse_bent(session, table, self._rows.name, pairs)
        at = f"{literal(self._load.at.isoformat())}::timestamptz"
        done = pgtable.apply(session, table, self._rows.name, pairs, how, at)
        return done if deleted is None else replace(done, facts={**done.facts, "rows_deleted": deleted})

    def _delete(self, session: Session) -> int:
        self._gone.require(session, ())
        pairs = pgtable.paired(session, self._table, self._gone.wires)
        pgtable.refuse_bent(session, self._table, self._gone.name, pairs)
        return session.execute(pgtable.applying(self._table, self._gone.name, pairs, pairs).delete()).rowcount
