"""Reading: rows come as they are, each once, also when the shape of what is read changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from databrokkr_assets.core.errors import AccessError, DataError, SpecError
from databrokkr_assets.core.spec import ListsStreams, Place

from .bench import CONNECTION, Bench, read
from .case import Reads, ReadsArrivals, ReadsByCursor, only_new
from .theme import Theme
from .values import keyed, table, told

EVERYDAY = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "what": ["", None, "a,'b\"\n ü🎉"],
        "amount": pa.array([Decimal("1.10"), None, Decimal("-9999999999.99")], pa.decimal128(12, 2)),
        "share": [0.1, None, -1e300],
        "paid": [True, None, False],
        "day": [date(2024, 2, 29), None, date(1970, 1, 1)],
        "at": pa.array([datetime(2024, 3, 31, 1, 30, 0, 123456, UTC), None, None], pa.timestamp("us", "UTC")),
    }
)
"""Rows of the types that every system has, with NULLs and an empty text."""


ITEMS = ["id", "what"]


class Reading(Theme):
    """What comes from a source."""

    title = "Reading"
    abilities = (Reads,)

    @pytest.mark.parametrize("by_batches", [False, True], ids=["fast", "batches"])
    def test_rows_come_as_they_are(self, bench: Bench, by_batches: bool) -> None:
        """Rows come as they are, by the fast way and in batches; empty is not null."""
        bench.case.put("orders", EVERYDAY)
        rows, _ = read(bench.source("orders"), by_batches=by_batches)
        assert told(rows) == told(EVERYDAY)

    @pytest.mark.parametrize("disposition", ["append", "replace", "merge", "history"])
    def test_what_was_read_is_not_doubled(self, bench: Bench, disposition: str) -> None:
        """A load after which nothing changed leaves the dataset as it was, for each disposition but a full `append`."""
        how: dict[str, Any] = {"disposition": disposition}
        if disposition == "append":
            how |= only_new(bench.case, "id")
        elif disposition != "replace":
            how["keys"] = ["id"]
        bench.case.put("orders", EVERYDAY)
        bench.load("orders", **how)
        first = told(bench.stored())
        bench.load("orders", **how)
        assert len(first) == 3
        assert told(bench.stored()) == first

    def test_an_empty_source_is_no_error(self, bench: Bench) -> None:
        """An empty source is read without rows, and what comes later is read then."""
        bench.case.put("orders", EVERYDAY.slice(0, 0))
        bench.load("orders", disposition="replace")
        assert bench.stored() == []
        bench.case.put("orders", EVERYDAY)
        bench.load("orders", disposition="replace")
        assert told(bench.stored()) == told(EVERYDAY)

    def test_what_is_not_there_is_told(self, bench: Bench) -> None:
        """A table or file that is not there is an error that names it and says what to do."""
        bench.case.put("orders", EVERYDAY)
        with pytest.raises((SpecError, AccessError), match="ordres") as raised:
            bench.load("ordres")
        assert raised.value.mend
        assert bench.stored() == []


class Discovering(Theme):
    """What a system says it holds."""

    title = "Discovery"
    abilities = (ListsStreams,)

    def test_everything_is_found(self, bench: Bench) -> None:
        """`discover` lists each table or file once, with columns and keys where the system tells them unread."""
        bench.case.put("orders", keyed(EVERYDAY, "id"))
        bench.case.put("items", EVERYDAY.select(ITEMS))
        connection = bench.plan().opened()
        assert isinstance(connection, ListsStreams)
        streams = list(connection.list_streams(CONNECTION, Place(bench.folder)))
        found = {name: [one for one in streams if name in (one.name, one.namespace)] for name in ("orders", "items")}
        assert [len(some) for some in found.values()] == [1, 1]
        assert not [one for one in streams if "_databrokkr" in one.name]
        for one, columns, keys in (
            (found["orders"][0], EVERYDAY.column_names, ("id",)),
            (found["items"][0], ITEMS, ()),
        ):
            assert one.schema is None or (one.schema.names, one.keys) == (columns, keys)


class Resuming(Theme):
    """Only what is new, by a cursor."""

    title = "Only what is new"
    abilities = (ReadsByCursor,)

    @pytest.mark.parametrize("by_batches", [False, True], ids=["fast", "batches"])
    def test_each_row_comes_once(self, bench: Bench, by_batches: bool) -> None:
        """Each row comes once, also rows that share the newest value and were committed later."""
        case = bench.able(ReadsByCursor)
        cursor: Any = None
        got = pa.table({"at": pa.array([], pa.int64()), "what": pa.array([], pa.string())})
        want = [
            [],
            [(1, "a"), (2, "b"), (2, "b")],
            [(2, "b"), (2, "c")],
            [],
            [(2, "c"), (3, "d"), (5, "e")],
            [(5, "e")],
        ]
        for number, rows in enumerate(want):
            given = _rows(rows)
            (case.add if number else bench.case.put)("log", given)
            fresh, cursor = read(bench.source("log", cursor="at"), cursor, by_batches=by_batches)
            assert told(fresh) == told(given), number
            got = pa.concat_tables([got, fresh.cast(got.schema)])
        assert got.num_rows == 9

    def test_rows_without_a_cursor_are_not_lost(self, bench: Bench) -> None:
        """Rows whose cursor is NULL come with the first load; by choice with every one."""
        case = bench.able(ReadsByCursor)
        bench.case.put("log", _rows([(None, "a"), (1, "b")]))
        how = {"cursor": "at", "cursor_nulls": "always", "disposition": "merge", "keys": ["what"]}
        bench.load("log", **how)
        assert [row["what"] for row in _in_order(bench.stored())] == ["a", "b"]
        case.add("log", _rows([(None, "c"), (2, "d")]))
        bench.load("log", **how)
        assert [row["what"] for row in _in_order(bench.stored())] == ["a", "b", "c", "d"]

    def test_late_rows_are_seen(self, bench: Bench) -> None:
        """Rows that come late are read within the look-back window, and none is doubled."""
        case = bench.able(ReadsByCursor)
        how = {"cursor": "at", "lookback": "3", "disposition": "merge", "keys": ["what"]}
        bench.case.put("log", _rows([(1, "a"), (10, "b")]))
        bench.load("log", **how)
        case.add("log", _rows([(8, "late"), (2, "too late"), (11, "c")]))
        bench.load("log", **how)
        assert [row["what"] for row in _in_order(bench.stored())] == ["a", "b", "c", "late"]

    def test_nothing_new_publishes_nothing(self, bench: Bench) -> None:
        """A load that finds nothing new publishes nothing."""
        bench.case.put("log", _rows([(1, "a")]))
        assert bench.load("log", cursor="at").published
        assert not bench.load("log", cursor="at").published


def _rows(rows: Sequence[tuple[int | None, str]]) -> pa.Table:
    return pa.table(
        {"at": pa.array([at for at, _ in rows], pa.int64()), "what": pa.array([what for _, what in rows], pa.string())}
    )


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["what"]))


class Arriving(Theme):
    """Only what is new, by what arrives."""

    title = "Only what has arrived"
    abilities = (ReadsArrivals,)

    def test_each_arrival_is_read_once(self, bench: Bench) -> None:
        """Each thing that arrives is read once, and a load after which nothing came publishes nothing."""
        case = bench.able(ReadsArrivals)
        for number in range(3):
            case.arrive("inbox", f"{number}", table(id=[number, number + 10]))
            bench.load("inbox", disposition="append", **case.only_new)
            assert not bench.load("inbox", disposition="append", **case.only_new).published
        assert sorted(row["id"] for row in bench.stored()) == [0, 1, 2, 10, 11, 12]


class Deleting(Theme):
    """Rows that are deleted where they come from."""

    title = "Deletions"
    abilities = (Reads,)

    @pytest.mark.parametrize("disposition", ["merge", "history"])
    def test_a_flag_deletes(self, bench: Bench, disposition: str) -> None:
        """A row whose flag column says that it is deleted goes, or is closed in a history."""
        how = {"disposition": disposition, "keys": ["id"], "deleted_flag": "gone"}
        bench.case.put("orders", table(id=[1, 2, 3], gone=pa.array([None, None, None], pa.bool_())))
        bench.load("orders", **how)
        bench.case.put("orders", table(id=[1, 2, 3, 4], gone=[None, True, False, True]))
        bench.load("orders", **how)
        assert _current(bench) == [1, 3]

    @pytest.mark.parametrize("disposition", ["merge", "history"])
    def test_keys_that_are_missing_are_deleted(self, bench: Bench, disposition: str) -> None:
        """A row whose keys do not come any more in a full read goes, or is closed in a history, when so asked."""
        how = {"disposition": disposition, "keys": ["id"], "delete_missing": True}
        bench.case.put("orders", table(id=[1, 2, 3], what=["a", "b", "c"]))
        bench.load("orders", **how)
        bench.case.put("orders", table(id=[1, 3, 4], what=["a", "C", "d"]))
        bench.load("orders", **how)
        assert _current(bench) == [1, 3, 4]

    def test_history_keeps_each_version(self, bench: Bench) -> None:
        """`history` keeps each version of a row, closes it when the next one comes, and adds none for the same row."""
        for what in ("a", "a", "b"):
            bench.case.put("orders", table(id=[1, 2], what=[what, "same"]))
            bench.load("orders", disposition="history", keys=["id"])
        rows = [(row["id"], row["what"], row["valid_to"] is None) for row in bench.stored()]
        assert sorted(rows) == [(1, "a", False), (1, "b", True), (2, "same", True)]


def _current(bench: Bench) -> list[int]:
    """The ids of the rows that are there now."""
    return sorted(row["id"] for row in bench.stored() if row.get("valid_to") is None)


MERGED: dict[str, Any] = {"disposition": "merge", "keys": ["id"]}


class Changing(Theme):
    """Columns and types that change where they come from."""

    title = "Contracts"
    abilities = (Reads,)

    def _second(self, bench: Bench, first: pa.Table, second: pa.Table, **more: Any) -> None:
        bench.case.put("orders", first)
        bench.load("orders", **MERGED)
        bench.case.put("orders", second)
        bench.load("orders", **MERGED, **more)

    def test_columns_evolve(self, bench: Bench) -> None:
        """`evolve` takes a new column on; rows that came before have NULL in it."""
        self._second(bench, table(id=[1]), table(id=[2, 3], more=["x", None]), contract={"columns": "evolve"})
        assert told(bench.stored()) == told([{"id": 1, "more": None}, {"id": 2, "more": "x"}, {"id": 3, "more": None}])

    def test_columns_freeze(self, bench: Bench) -> None:
        """`freeze` stops the load at a new column, and at one that does not come any more."""
        for second in (table(id=[2], what=["b"], more=["x"]), table(id=[3])):
            with pytest.raises(DataError, match=r"more|what") as raised:
                self._second(bench, table(id=[1], what=["a"]), second, contract={"columns": "freeze"})
            assert raised.value.mend
            assert told(bench.stored()) == told([{"id": 1, "what": "a"}])

    def test_columns_discard_row(self, bench: Bench) -> None:
        """`discard_row` sets rows with a value in a new column aside in quarantine, and loads the others."""
        self._second(bench, table(id=[1]), table(id=[2, 3], more=["x", None]), contract={"columns": "discard_row"})
        assert told(bench.stored()) == told([{"id": 1}, {"id": 3}])
        assert len(bench.set_aside()) == 1

    def test_columns_discard_value(self, bench: Bench) -> None:
        """`discard_value` loads all rows without the new column."""
        self._second(bench, table(id=[1]), table(id=[2, 3], more=["x", None]), contract={"columns": "discard_value"})
        assert told(bench.stored()) == told([{"id": 1}, {"id": 2}, {"id": 3}])
        assert bench.set_aside() == []

    @pytest.mark.parametrize(
        ("mode", "stored", "aside"),
        [
            ("evolve", [(1, 5), (3, 7)], 1),
            ("discard_row", [(1, 5), (3, 7)], 1),
            ("discard_value", [(1, 5), (2, None), (3, 7)], 0),
        ],
    )
    def test_types(self, bench: Bench, mode: str, stored: list[tuple[int, int | None]], aside: int) -> None:
        """A value that does not fit its column sets its row aside (`evolve`, `discard_row`) or is left out."""
        second = table(id=[2, 3], n=["x", "7"])
        self._second(bench, table(id=[1], n=[5]), second, contract={"types": mode})
        assert told(bench.stored()) == told({"id": key, "n": n} for key, n in stored)
        assert len(bench.set_aside()) == aside

    def test_types_freeze(self, bench: Bench) -> None:
        """`freeze` stops the load at a value of another type."""
        with pytest.raises(DataError, match="n") as raised:
            self._second(bench, table(id=[1], n=[5]), table(id=[2], n=["x"]), contract={"types": "freeze"})
        assert raised.value.mend
        assert told(bench.stored()) == told([{"id": 1, "n": 5}])

    def test_a_type_is_widened(self, bench: Bench) -> None:
        """A type that holds all values of both takes the place of a narrower one."""
        first, second = pa.array([1], pa.int32()), pa.array([2**40], pa.int64())
        self._second(bench, table(id=[1], n=first), table(id=[2], n=second))
        assert told(bench.stored()) == told([{"id": 1, "n": 1}, {"id": 2, "n": 2**40}])

    def test_a_declared_rename(self, bench: Bench) -> None:
        """A column that was renamed goes on under its old name, once the rename is declared."""
        self._second(bench, table(id=[1], what=["a"]), table(id=[2], said=["b"]), rename={"said": "what"})
        assert told(bench.stored()) == told([{"id": 1, "what": "a"}, {"id": 2, "what": "b"}])

    def test_a_column_goes_and_comes_back(self, bench: Bench) -> None:
        """A column that is dropped and added again has NULL for the rows between."""
        self._second(bench, table(id=[1], n=[1]), table(id=[2]))
        bench.case.put("orders", table(id=[3], n=[3]))
        bench.load("orders", **MERGED)
        assert told(bench.stored()) == told([{"id": 1, "n": 1}, {"id": 2, "n": None}, {"id": 3, "n": 3}])
