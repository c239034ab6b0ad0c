"""The ledger in MySQL's own SQL; `resources.support.ledger` says what it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from databrokkr_assets.core.ports import LoadMark
from resources.support import ledger
from resources.support.mysql_server import changed, rows
from resources.support.mysql_stage import sql
from resources.support.tables import TableName

if TYPE_CHECKING:
    from resources.support.mysql_server import Session


class Ledger:
    """The ledger beside the tables of one database."""

    def __init__(self, schema: str) -> None:
        self._table = TableName(schema, ledger.TABLE)

    def is_there(self, session: Session) -> bool:
        """Whether the ledger was created."""
        found = rows(
            session,
            "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
            (self._table.schema, self._table.table),
        )
        return bool(found)

    def create(self, session: Session) -> None:
        """Create the ledger where it is not there. Commits what is open."""
        if not self.is_there(session):
            changed(
                session,
                f"CREATE TABLE IF NOT EXISTS {sql(self._table)} (node varchar(255) PRIMARY KEY, dataset text NOT NULL, "
                "version bigint NOT NULL, load_id text NOT NULL, run_id text NOT NULL, `rows` bigint NOT NULL, "
                "loaded_at timestamp(6) NOT NULL) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            )

    def last(self, session: Session, node: str, *, hold: bool = False) -> LoadMark | None:
        """The newest load of `node`; with `hold` nobody else changes it before this transaction ends."""
        found = rows(session, ledger.select(sql(self._table), node) + (" FOR UPDATE" if hold else ""))
        return ledger.mark(found[0] if found else None)

    def note(self, session: Session, node: str, load: LoadMark, count: int) -> None:
        """Make `load` the newest of `node`."""
        given = (load.dataset, load.version, load.load_id, load.run_id, count)
        sets = "dataset = %s, version = %s, load_id = %s, run_id = %s, `rows` = %s, loaded_at = NOW(6)"
        changed(
            session,
            f"INSERT INTO {sql(self._table)} SET node = %s, {sets} ON DUPLICATE KEY UPDATE {sets}",
            (node, *given, *given),
        )
