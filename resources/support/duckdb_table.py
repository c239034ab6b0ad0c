"""The table of a DuckDB file that a sink writes: making it fit the rows, and refusing rows that do not fit it.

All of it happens in the caller's transaction, so a load that fails has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History
from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.core.names import columns, quoted
from resources.support.applying import Applying
from resources.support.tables import TableName

_MOMENT = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True)
class FileTable:
    """A table of a file that is attached to `duck` as `alias`. Names are found without regard to case."""

    duck: DuckDBPyConnection
    alias: str
    name: TableName

    @property
    def sql(self) -> str:
        """The table as SQL names it."""
        return f"{self.alias}.{self.name.sql}"

    def run(self, statement: str) -> int:
        """Run a statement; gives how many rows it changed."""
        found = self.duck.execute(statement).fetchone()
        return int(found[0]) if found else 0

    def columns(self) -> dict[str, str]:
        """The columns with their types; empty when there is no such table."""
        rows = self.duck.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? "
            "AND lower(table_name) = lower(?) ORDER BY column_index",
            [self.alias, self.name.schema, self.name.table],
        )
        return dict(rows.fetchall())

    def fit(self, rows: str, how: Disposition, *, create: bool) -> None:
        """Make the table, and the columns that it lacks for the rows of a query.

        Raises SpecError when something is missing and `create` is false, or for columns of a history that are others.
        """
        present = {name.casefold(): kind for name, kind in self.columns().items()}
        history = {VALID_FROM: _MOMENT, VALID_TO: _MOMENT} if isinstance(how, History) else {}
        other = [name for name in history if present.get(name, _MOMENT) != _MOMENT]
        if other:
            what = f'the column "{other[0]}" of {self.name} is {present[other[0]]}, but a history needs {_MOMENT}'
            raise SpecError(what, mend="rename it, or write the history to another table", where=str(self.name))
        wanted = (self._types(rows) | history).items()
        missing = {name: kind for name, kind in wanted if name.casefold() not in present}
        if missing and not create:
            what = f"has no column {columns(list(missing))}" if present else "does not exist"
            mend = "create it, or set `create: true`"
            raise SpecError(f"{self.name} {what}", mend=mend, where=str(self.name))
        self._add(missing, new=not present)

    def applying(self, rows: str, keys: tuple[str, ...]) -> Applying:
        """The statements that bring the rows of a query, in the table's types, into the table.

        Raises DataError for a value that such a type would change, and for a key that is NULL.
        """
        own = self._types(rows)
        present = {name.casefold(): kind for name, kind in self.columns().items()}
        self._refuse_bent(rows, own, present)
        self._refuse_null(rows, keys)
        cast = ", ".join(f"CAST({quoted(name)} AS {present[name.casefold()]}) AS {quoted(name)}" for name in own)
        return Applying(self.sql, f"SELECT {cast} FROM ({rows}) AS came", tuple(own), keys)

    def _types(self, rows: str) -> dict[str, str]:
        found = self.duck.sql(rows)
        return dict(zip(found.columns, map(str, found.types), strict=True))

    def _add(self, missing: Mapping[str, str], *, new: bool) -> None:
        listed = [f"{quoted(name)} {kind}" for name, kind in missing.items()]
        if new:
            self.duck.execute(f"CREATE TABLE {self.sql} ({', '.join(listed)})")
            return
        for one in listed:
            self.duck.execute(f"ALTER TABLE {self.sql} ADD COLUMN {one}")

    def _refuse_bent(self, rows: str, own: Mapping[str, str], present: Mapping[str, str]) -> None:
        """DuckDB would change a value silently in the type of the table's column."""
        for name, kind in own.items():
            column, target = quoted(name), present[name.casefold()]
            if kind == target:
                continue
            back = f"TRY_CAST(TRY_CAST({column} AS {target}) AS {kind})"
            bent = f"{column} IS NOT NULL AND {back} IS DISTINCT FROM {column}"
            found = self.duck.execute(
                f"SELECT count(*), min(CAST({column} AS VARCHAR)) FROM ({rows}) AS came WHERE {bent}"
            ).fetchone()
            if found and found[0]:
                raise DataError(
                    f'the column "{name}" is {target}: {found[0]} of its values, such as {found[1][:100]!r}, would be '
                    "changed by it",
                    mend="give the table's column a wider type, or clean the values in a transform",
                    where=str(self.name),
                )

    def _refuse_null(self, rows: str, keys: tuple[str, ...]) -> None:
        for key in keys:
            found = self.duck.execute(f"SELECT count(*) FROM ({rows}) AS came WHERE {quoted(key)} IS NULL").fetchone()
            if found and found[0]:
                raise DataError(
                    f'the key "{key}" is NULL in {found[0]} rows, which could not be found again by it',
                    mend="leave such rows out in a transform, or choose other `keys`",
                    where=str(self.name),
                )
