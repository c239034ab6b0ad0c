"""Temporary tables of one session, into which rows are written before they are applied.

They go with the session, so a load that dies leaves nothing, and their rows are in no binary log. DuckDB writes the
rows as SQL text, many to a statement. Where the connection allows `LOAD DATA LOCAL`, they go through a pipe instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import duckdb

from databrokkr_assets.core.errors import AccessError, DataError
from databrokkr_assets.core.names import quoted
from resources.support.mysql_server import changed, rows, ticked, ticked_all
from resources.support.mysql_types import Wire, bad_value

if TYPE_CHECKING:
    from resources.support.mysql_server import Session
    from resources.support.tables import TableName

ROW = "_databrokkr_row"
"""The column that numbers the staged rows in the order in which they came."""

_ROWS = 1_000
_STATEMENT = 1 << 20
"""Characters after which a statement ends; a server takes sixteen times as many bytes, unless it is set otherwise."""


def exact_collation(session: Session) -> str:
    """The collation of this server in which two texts are the same only if each of their bytes is."""
    ((version,),) = rows(session, "SELECT VERSION()")
    return "utf8mb4_nopad_bin" if "MariaDB" in version else "utf8mb4_0900_bin"


def sql(table: TableName) -> str:
    """A table as the server names it."""
    return f"{ticked(table.schema)}.{ticked(table.table)}"


class Stage:
    """A temporary table of a session, with columns for `wires`; `target` is what errors name.

    `by_pipe` asks for `LOAD DATA LOCAL`, where the server allows it.
    """

    def __init__(
        self, session: Session, table: TableName, wires: Sequence[Wire], target: TableName, *, by_pipe: bool
    ) -> None:
        self.table = table
        self.wires = tuple(wires)
        self._session = session
        self._target = target
        self._add = self._pipe if by_pipe and rows(session, "SELECT @@local_infile") == [(1,)] else self._insert
        listed = ", ".join(f"{ticked(one.name)} {one.staged} NULL" for one in wires)
        changed(
            session,
            f"CREATE TEMPORARY TABLE {sql(table)} ({ticked(ROW)} bigint unsigned AUTO_INCREMENT PRIMARY KEY, {listed}) "
            f"ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE {exact_collation(session)}",
        )

    def add(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Add the rows of `query`. Raises DataError for a value that the staging table cannot hold."""
        try:
            self._add(duck, query)
        except duckdb.Error as error:
            bad = bad_value(error)
            if bad is None:
                raise
            one = self.wires[bad[0]]
            raise DataError(
                f'the column "{one.name}" holds {bad[1]}, which {one.staged} cannot hold',
                mend="clean the values in a transform, or cast the column to VARCHAR there",
                where=str(self._target),
            ) from error

    def _insert(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        row = " || ',' || ".join(_as_literal(one, index) for index, one in enumerate(self.wires))
        into = f"INSERT INTO {sql(self.table)} ({ticked_all([one.name for one in self.wires])}) VALUES "
        most = int(rows(self._session, "SELECT @@max_allowed_packet")[0][0])
        for statement in _statements(duck, f"SELECT '(' || {row} || ')' FROM ({query})"):
            if 4 * len(statement) > most and len((into + statement).encode()) >= most:
                self._refuse_packet(most)
            changed(self._session, into + statement)

    def _refuse_packet(self, most: int) -> NoReturn:
        """A server that is sent too much may hang up before anybody has read why."""
        raise AccessError(
            f"a row of {self._target} takes more than the {most:,} bytes that the server takes at once",
            mend="raise max_allowed_packet on the server, or set `local_infile: true`",
            where=str(self._target),
        )

    def _pipe(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """The same with `LOAD DATA LOCAL INFILE`, while DuckDB writes CSV to the other end of the pipe."""
        reading, writing = os.pipe()
        listed = ", ".join(f"{one.guarded(index)} AS {quoted(one.name)}" for index, one in enumerate(self.wires))
        copy = (
            f"COPY (SELECT {listed} FROM ({query})) TO '/dev/fd/{writing}' "
            "(FORMAT csv, HEADER false, NULLSTR 'NULL', FORCE_QUOTE *, USE_TMP_FILE false)"
        )
        failed: list[Exception] = []

        def produce() -> None:
            try:
                duck.execute(copy)
            except Exception as error:
                failed.append(error)
            finally:
                os.close(writing)

        thread = threading.Thread(target=produce)
        thread.start()
        try:
            self._load(reading)
        finally:
            os.close(reading)  # so that DuckDB ends, too, when the server did
            thread.join()
        if failed:
            raise failed[0]
        # With LOCAL, what would be an error is a warning.
        warnings = rows(self._session, "SHOW WARNINGS LIMIT 1")
        if warnings:
            raise DataError(warnings[0][2], mend="clean the values in a transform", where=str(self._target))

    def _load(self, reading: int) -> None:
        targets = [f"@v{index}" if one.in_bytes else ticked(one.name) for index, one in enumerate(self.wires)]
        sets = [f"{ticked(one.name)} = UNHEX(@v{index})" for index, one in enumerate(self.wires) if one.in_bytes]
        changed(
            self._session,
            f"LOAD DATA LOCAL INFILE '/dev/fd/{reading}' INTO TABLE {sql(self.table)} CHARACTER SET utf8mb4 "
            "FIELDS TERMINATED BY ',' ENCLOSED BY '\"' ESCAPED BY '' LINES TERMINATED BY '\\n' "
            f"({', '.join(targets)}){' SET ' if sets else ''}{', '.join(sets)}",
        )


def _as_literal(one: Wire, index: int) -> str:
    text = one.guarded(index)
    if one.in_bytes:
        return f"coalesce('X''' || {text} || '''', 'NULL')"
    return rf"coalesce('''' || replace(replace({text}, '\', '\\'), '''', '''''') || '''', 'NULL')"


def _statements(duck: duckdb.DuckDBPyConnection, query: str) -> Iterator[str]:
    """The rows, already text, joined to pieces of about `_STATEMENT` characters."""
    piece: list[str] = []
    size = 0
    for batch in duck.execute(query).to_arrow_reader(_ROWS):
        for row in batch.column(0).to_pylist():
            if size + len(row) > _STATEMENT and piece:
                yield ",".join(piece)
                piece, size = [], 0
            piece.append(row)
            size += len(row)
    if piece:
        yield ",".join(piece)
