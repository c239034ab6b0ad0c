"""A big table is read part by part; a load that dies goes on with the parts that it has not read."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.spec import Pipeline, Place, SourceSettings
from databrokkr_assets.engine.job import Outcome
from databrokkr_assets.factory.project import Project
from databrokkr_assets.factory.work import Worker
from databrokkr_assets.lake.publishing import STAGING
from resources.connectors.duckdb import DuckDBConnection, DuckDBSourceSettings
from resources.support.ranges import evenly


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "shop.duckdb"
    with duckdb.connect(file) as made:
        made.execute("CREATE TABLE orders AS SELECT i AS id, 'n' || i AS name FROM range(100) t(i)")
        made.execute("INSERT INTO orders VALUES (NULL, 'none')")
    return file


def source(**more: object) -> DuckDBSourceSettings:
    given = {"type": "duckdb", "connection": "shop", "table": "orders", "parts": {"by": "id", "count": 4}}
    return DuckDBSourceSettings.model_validate({**given, **more})


def run(shop: Path, settings: SourceSettings) -> Outcome:
    connection = DuckDBConnection(type="duckdb", path=str(shop))
    project = Project(shop.parent, {"shop": connection})
    return Worker(Pipeline(name="p", sources={"orders": settings}), project).run("orders")


def ids(shop: Path) -> list[int | None]:
    rows = DeltaTable(str(shop.parent / "lake/raw/p/orders")).to_pyarrow_table().to_pylist()
    return sorted((row["id"] for row in rows), key=lambda one: (one is None, one))


def test_all_rows_come_once(shop: Path) -> None:
    assert run(shop, source()).rows_out == 101
    assert ids(shop) == [*range(100), None]


class Dying(DuckDBSourceSettings):
    """A source whose third part cannot be read."""

    def parted(self, bounds: object) -> list[SourceSettings]:
        parts = super().parted(bounds)  # type: ignore[arg-type]
        return [*parts[:2], parts[2].model_copy(update={"query": "SELECT * FROM missing"}), *parts[3:]]


def test_a_load_that_died_goes_on_where_it_was(shop: Path) -> None:
    dying = Dying.model_validate(source().model_dump(by_alias=True, exclude_unset=True))
    with pytest.raises(SpecError, match="missing"):
        run(shop, dying)
    staging = shop.parent / "lake/raw/p/orders" / STAGING
    assert len(list(staging.iterdir())) == 1
    with duckdb.connect(shop) as changed:  # what is read again shows itself by the change, what was done does not
        changed.execute("UPDATE orders SET name = 'new'")
        changed.execute("INSERT INTO orders VALUES (1000, 'late'), (-5, 'early')")
    outcome = run(shop, source())
    assert outcome.facts["parts_resumed"] == 2
    assert ids(shop) == [*range(100), 1000, None]  # -5 belongs to a part that was done
    rows = DeltaTable(str(shop.parent / "lake/raw/p/orders")).to_pyarrow_table().to_pylist()
    names = {row["id"]: row["name"] for row in rows}
    assert (names[0], names[99], names[1000]) == ("n0", "new", "late")
    assert run(shop, source()).facts["parts_resumed"] == 0  # a load that is done leaves nothing to go on from
    assert ids(shop) == [-5, *range(100), 1000, None]
    assert not list(staging.iterdir())


def test_other_settings_begin_anew(shop: Path) -> None:
    dying = Dying.model_validate(source().model_dump(by_alias=True, exclude_unset=True))
    with pytest.raises(SpecError):
        run(shop, dying)
    assert run(shop, source(columns=["name"], parts={"by": "id", "count": 3})).facts["parts_resumed"] == 0


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ("(1), (100)", ["25", "50", "75"]),
        ("(1::UBIGINT), (18446744073709551615::UBIGINT)", None),
        ("(DATE '2026-01-01'), (DATE '2026-01-05')", ["2026-01-02", "2026-01-03", "2026-01-04"]),
        ("(7), (7)", []),
        ("(1), (2)", []),
        ("(NULL::INTEGER), (NULL)", []),
    ],
    ids=["numbers", "great ones", "dates", "one value", "two values", "none"],
)
def test_ranges_are_even(values: str, bounds: list[str] | None) -> None:
    with duckdb.connect() as duck:
        duck.execute(f"CREATE TABLE ends AS SELECT min(x) AS low, max(x) AS high FROM (VALUES {values}) t(x)")
        found = evenly(duck, "ends", 4)
    assert found == bounds if bounds is not None else len(found) == 3


def test_parts_need_an_order(shop: Path) -> None:
    with pytest.raises(SpecError, match="VARCHAR"):
        source(parts={"by": "name"}).bounds(DuckDBConnection(type="duckdb", path=str(shop)), Place(shop.parent))
