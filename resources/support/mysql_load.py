"""One load of a MySQL table: rows in a temporary table of the session, then one transaction that applies them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.disposition import Disposition, History
from databrokkr_assets.core.ports import LoadMark, Receipt, Target
from resources.support import ledger, mysql_applying, mysql_table
from resources.support.mysql_ledger import Ledger
from resources.support.mysql_server import Server, driver
from resources.support.mysql_stage import Stage
from resources.support.mysql_types import Wire, by_name, wire
from resources.support.table_sink import HeldLoad
from resources.support.tables import TableName

if TYPE_CHECKING:
    from resources.support.mysql_server import Session


class MySQLLoad(HeldLoad):
    """One load, staged and applied by one session."""

    def __init__(
        self,
        server: Server,
        table: TableName,
        book: Ledger,
        target: Target,
        how: Disposition,
        load: LoadMark,
        *,
        create: bool,
    ) -> None:
        super().__init__(target, how, load)
        self._server = server
        self._table = table
        self._book = book
        self._create = create

    def commit(self) -> Receipt:
        """Stage the rows at the server, then apply them and write the ledger in one transaction.

        Raises DataError for a value that the table's type would change or a key that is NULL, SpecError, AccessError,
        or Unavailable, also when another load came first. Should the server die meanwhile, the ledger tells the next
        run what happened.
        """
        given, gone = self._held.last_of_each(self._keys), self._held.deleted()
        with self._server.session(local_infile=self._server.local_infile) as session:
            rows = self._stage(session, "_databrokkr_rows", given)
            keys = self._stage(session, "_databrokkr_gone", gone) if gone else None
            with mysql_table.only_writer(session, self._table):
                if self._is_already(session, hold=False):
                    return Receipt(0, self._place, already=True)
                return self._applied(session, rows, keys)

    @property
    def _place(self) -> str:
        return f"{self._server.place}:{self._table}"

    def _stage(self, session: Session, name: str, query: str) -> Stage:
        duck = self._held.duck
        present = mysql_table.existing(session, self._table)
        found = duck.sql(query)
        wires = [self._wire(one, own, present) for one, own in zip(found.columns, found.types, strict=True)]
        place = TableName(self._table.schema, name)
        stage = Stage(session, place, wires, self._table, by_pipe=self._server.local_infile)
        stage.add(duck, query)
        return stage

    def _wire(self, name: str, own: Any, present: dict[str, mysql_table.Taking]) -> Wire:
        there = by_name(list(present), name)
        is_key = by_name(self._keys, name) is not None
        return wire(name, own, key=is_key, present=present[there].type if there else None)

    def _is_already(self, session: Session, *, hold: bool) -> bool:
        last = self._book.last(session, self._target.node, hold=hold)
        return ledger.already(last, self._load, self._place)

    def _applied(self, session: Session, staged: Stage, deleted: Stage | None) -> Receipt:
        table, how = self._table, self._how
        pairs = mysql_table.fitted(session, table, staged.wires, how, create=self._create)
        names = {pair.wire.name: pair.column for pair in pairs}
        keys = [names[by_name(list(names), key) or key] for key in self._keys]
        given = mysql_table.shaped(session, table, staged, pairs, self._keys)
        gone = self._shaped_keys(session, deleted) if deleted else None
        if isinstance(how, History):
            mysql_applying.index_for_history(session, given, keys)
        session.begin()
        try:
            if self._is_already(session, hold=True):
                return Receipt(0, self._place, already=True)
            facts = {"rows_deleted": mysql_applying.delete(session, table, gone)} if gone else {}
            facts |= mysql_applying.apply(session, table, given, how, keys, self._load.at)
            self._book.note(session, self._target.node, self._load, given.count)
            session.commit()
        except BaseException:
            with suppress(driver().err.MySQLError):
                session.rollback()
            raise
        return Receipt(facts.pop("rows_opened", given.count), self._place, facts=facts)

    def _shaped_keys(self, session: Session, stage: Stage) -> mysql_table.Rows:
        pairs = mysql_table.pairs(mysql_table.existing(session, self._table), stage.wires)
        return mysql_table.shaped(session, self._table, stage, pairs, [one.name for one in stage.wires])
