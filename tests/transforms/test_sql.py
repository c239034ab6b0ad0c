"""SQL transforms: their inputs are found in the query, and chains become one query with column lineage."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from databrokkr_assets.core.spec import Pipeline
from databrokkr_assets.engine.composing import column_lineage, composed
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.transforms.sql import Sql


@pytest.mark.parametrize(
    ("sql", "inputs"),
    [
        ("select * from a join b using (id)", ("a", "b")),
        ("with c as (select * from a) select * from c", ("a",)),
        ("with a as (select * from a) select * from a", ("a",)),
        ("select (select max(x) from b) from a where id in (select id from c)", ("a", "b", "c")),
        ("select * from range(3), other.a, read_csv('x.csv')", ()),
        ("from a select id", ("a",)),
        ("select * from a union all by name select * from b", ("a", "b")),
        ('select * from "A b"', ("A b",)),
        ("with recursive r as (select 1 as n union all select n + 1 from r where n < 3) select * from r, a", ("a",)),
    ],
)
def test_inputs_are_found_in_the_query(sql: str, inputs: tuple[str, ...]) -> None:
    assert sorted(Sql(sql=sql).inputs()) == sorted(inputs)


@pytest.mark.parametrize("sql", ["select 1; select 2", "drop table a", "select from where", "", "copy a to 'x'"])
def test_what_is_not_one_select_is_refused(sql: str) -> None:
    with pytest.raises(ValidationError):
        Sql(sql=sql)


def chain() -> Pipeline:
    return Pipeline(
        name="p",
        transforms={
            "cleaned": Sql(sql="select id, upper(name) as name, amount from orders where amount > 0", stored=False),
            "doubled": Sql(sql="select c.id, c.name, c.amount * 2 as twice from cleaned as c", stored=False),
            "totals": Sql(
                sql="with x as (from doubled) select name, sum(twice) as total, count(*) n from x group by 1"
            ),
        },
    )


def test_a_chain_is_one_query() -> None:
    query = composed(chain(), "totals").sql(dialect="duckdb")
    with open_duck() as duck:
        duck.execute(
            "CREATE TABLE orders AS SELECT * FROM (VALUES (1, 'a', 5), (2, 'A', 7), (3, 'b', -1)) t(id, name, amount)"
        )
        assert duck.sql(query).fetchall() == [("A", 24, 2)]


def test_columns_are_followed_through_the_chain() -> None:
    schemas = {"orders": [("id", "INTEGER"), ("name", "VARCHAR"), ("amount", "INTEGER")]}
    assert column_lineage(composed(chain(), "totals"), schemas) == {
        "name": [("orders", "name")],
        "total": [("orders", "amount")],
        "n": [],
    }


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select * from a", {"id": [("a", "id")], "x": [("a", "x")]}),
        (
            "select a.id, b.y + a.x as z from a join b on a.id = b.id",
            {"id": [("a", "id")], "z": [("a", "x"), ("b", "y")]},
        ),
        ("select x from a union all select y from b", {"x": [("a", "x"), ("b", "y")]}),
        ("select sum(x) over (partition by id) as s from a", {"s": [("a", "id"), ("a", "x")]}),
    ],
)
def test_column_lineage(sql: str, expected: dict[str, list[tuple[str, str]]]) -> None:
    pipeline = Pipeline(name="p", transforms={"t": Sql(sql=sql)})
    schemas = {"a": [("id", "INTEGER"), ("x", "INTEGER")], "b": [("id", "INTEGER"), ("y", "INTEGER")]}
    assert column_lineage(composed(pipeline, "t"), schemas) == expected


def test_lineage_that_cannot_be_followed_is_empty() -> None:
    pipeline = Pipeline(name="p", transforms={"t": Sql(sql="select nowhere.x from a")})
    assert column_lineage(composed(pipeline, "t"), {"a": [("id", "INTEGER")]}) == {}
