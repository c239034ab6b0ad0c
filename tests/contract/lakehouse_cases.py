"""The cases of table formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace

from .bench import CONNECTION
from .case import CanBeReadOnly, Case, HoldsTypes, Merges, ReadsArrivals, Rows, RunsFull, Settings
from .places import SMALL, unwritable
from .values import TYPES


class DeltaCase(Case, ReadsArrivals, HoldsTypes, Merges, CanBeReadOnly, RunsFull):
    title = "Delta tables"
    connector = "delta"
    only_new: ClassVar = {"incremental": True}
    no_table = frozenset({"per%s cent", "br[ack]et{0}"})  # the second: deltalake's own writer fails, which `put` uses
    dispositions = (Append, Replace, Merge)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def fresh(cls, system: Any, folder: Path) -> Iterator[Self]:
        (folder / "tables").mkdir()
        yield cls(folder / "tables")

    def source(self, table: str) -> Settings:
        return {"path": str(self.folder / table)}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"path": str(self.folder / table)}

    def put(self, table: str, rows: pa.Table) -> None:
        plain = rows.cast(pa.schema([field.remove_metadata() for field in rows.schema]))
        write_deltalake(self._url(table), plain, mode="overwrite", schema_mode="overwrite")

    def arrive(self, table: str, name: str, rows: pa.Table) -> None:
        write_deltalake(self._url(table), rows, mode="append")

    def get(self, table: str) -> Rows:
        where = self._url(table)
        if not DeltaTable.is_deltatable(where):
            return []
        rows: Rows = pa.table(DeltaTable(where).to_pyarrow_table()).to_pylist()
        return rows

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with unwritable(self.folder):
            yield None

    @contextmanager
    def full_disk(self) -> Iterator[int]:
        yield SMALL

    def _url(self, table: str) -> str:
        return (self.folder / table).as_uri()


class IcebergCase(Case, ReadsArrivals, HoldsTypes, Merges, CanBeReadOnly, RunsFull):
    title = "Iceberg tables"
    connector = "iceberg"
    only_new: ClassVar = {"incremental": True}
    # What makes a URL of a table's folder another one, which pyiceberg does not quote.
    no_table = frozenset({"dot.ted", "$1:x ?", "per%s cent"})
    holds = frozenset(TYPES) - {"uint64"}
    dispositions = (Append, Replace, Merge)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def fresh(cls, system: Any, folder: Path) -> Iterator[Self]:
        (folder / "house").mkdir()
        case = cls(folder / "house")
        with case._catalog() as catalog:
            catalog.create_namespace("shop")
        yield case

    def connection(self) -> Settings:
        return {"catalog": {"type": "sql", **self._properties()}}

    def source(self, table: str) -> Settings:
        return {"table": f"shop.{table}"}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": f"shop.{table}"}

    def put(self, table: str, rows: pa.Table) -> None:
        plain = rows.cast(pa.schema([field.remove_metadata() for field in rows.schema]))
        with self._catalog() as catalog:
            if catalog.table_exists(("shop", table)):
                catalog.drop_table(("shop", table))
            catalog.create_table(("shop", table), plain.schema).append(plain)

    def arrive(self, table: str, name: str, rows: pa.Table) -> None:
        with self._catalog() as catalog:
            catalog.create_table_if_not_exists(("shop", table), rows.schema).append(rows)

    def get(self, table: str) -> Rows:
        with self._catalog() as catalog:
            if not catalog.table_exists(("shop", table)):
                return []
            rows: Rows = catalog.load_table(("shop", table)).scan().to_arrow().to_pylist()
        return rows

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with unwritable(self.folder):
            yield None

    @contextmanager
    def full_disk(self) -> Iterator[int]:
        yield SMALL

    def _properties(self) -> dict[str, str]:
        return {"uri": f"sqlite:///{self.folder}/catalog.db", "warehouse": f"file://{self.folder}/warehouse"}

    @contextmanager
    def _catalog(self) -> Iterator[Any]:
        from pyiceberg.catalog.sql import SqlCatalog

        catalog = SqlCatalog(CONNECTION, **self._properties())
        try:
            yield catalog
        finally:
            catalog.close()
