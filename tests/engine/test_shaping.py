"""Masking, renaming and provenance: what is stored of the columns that come."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import pytest

from databrokkr_assets.core.disposition import Append, Merge
from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.core.ports import Reject
from databrokkr_assets.core.privacy import Masking
from databrokkr_assets.engine.job import Job
from databrokkr_assets.engine.loading import load
from databrokkr_assets.engine.shaping import Shape, decrypted
from tests.engine.loads import Query, letters, table

Jobs = Callable[..., Job]
PEOPLE = "SELECT 1 AS id, 'Zoë' AS name, '4111111111111111' AS card, 'ab' AS pin, 'note' AS secret"


def test_personal_data_is_masked_before_it_is_stored(job: Jobs) -> None:
    masked = {"name": Masking.HASH, "card": Masking.MASK, "pin": Masking.MASK, "secret": Masking.DROP}
    load(job(shape=Shape(masked, "key")), Query(PEOPLE), Append())
    digest = hmac.new(b"key", "Zoë".encode(), hashlib.sha256).hexdigest()
    assert table(job()) == [(1, digest, "************1111", "**")]


def test_a_long_key_hashes_as_hmac_says(job: Jobs) -> None:
    key = "k" * 100
    load(job(shape=Shape({"name": Masking.HASH}, key)), Query("SELECT 1 AS id, 'x' AS name"), Append())
    assert table(job())[0][1] == hmac.new(key.encode(), b"x", hashlib.sha256).hexdigest()


def test_what_is_encrypted_is_read_again_by_the_key_alone(job: Jobs) -> None:
    sql = "SELECT * FROM (VALUES (1, 'x'), (2, NULL), (3, 'x'), (4, '')) t(id, name)"
    load(job(shape=Shape({"name": Masking.ENCRYPT}, "key")), Query(sql), Append())
    (_, first), (_, none), (_, third), (_, empty) = table(job())
    assert (none, empty, first == third, first != "x") == (None, "", True, True)
    assert decrypted(first, "key") == "x"
    with pytest.raises(DataError):
        decrypted(first, "another key")


def test_a_rejected_row_shows_nothing_of_what_is_masked(job: Jobs) -> None:
    source = Query("SELECT 1 AS id, 'x' AS name", [Reject("'Zoë' is no number", "cast", "line 3", "Zoë,4111")])
    load(job(shape=Shape({"name": Masking.HASH}, "key")), source, Append())
    (letter,) = letters(job())
    assert "Zoë" not in str(letter) and letter["position"] == "line 3"


def test_an_unknown_column_is_refused_before_a_row_moves(job: Jobs) -> None:
    with pytest.raises(SpecError, match='"nam" is to be masked'):
        load(job(shape=Shape({"nam": Masking.DROP})), Query(PEOPLE), Append())
    assert job().dataset.open() is None


def test_a_renamed_column_goes_on_under_its_old_name(job: Jobs) -> None:
    load(job(), Query("SELECT 1 AS id, 10 AS amount"), Append())
    load(job(shape=Shape(rename={"total": "amount"})), Query("SELECT 2 AS id, 20 AS total"), Append())
    assert table(job()) == [(1, 10), (2, 20)]


def test_two_columns_cannot_have_one_name(job: Jobs) -> None:
    with pytest.raises(SpecError, match="that column comes too"):
        load(job(shape=Shape(rename={"id": "amount"})), Query("SELECT 1 AS id, 2 AS amount"), Append())


def test_names_may_be_exchanged(job: Jobs) -> None:
    load(job(shape=Shape(rename={"a": "b", "b": "a"})), Query("SELECT 1 AS id, 2 AS a, 3 AS b"), Append())
    with job().duck() as duck:
        snapshot = job().dataset.open()
        assert snapshot is not None
        assert duck.sql(f"SELECT a, b FROM ({snapshot.query(duck)})").fetchall() == [(3, 2)]


def test_a_renamed_cursor_still_resumes(job: Jobs) -> None:
    shape = Shape({"name": Masking.DROP}, rename={"id": "number"})
    source = Query("SELECT 7 AS id, 'x' AS name")
    load(job(shape=shape), source, Append())
    load(job(shape=shape), source, Append())
    assert source.asked_after == [None, {"id": 7}]


def test_rows_tell_where_they_came_from(job: Jobs) -> None:
    shape = Shape(provenance=True)
    first = load(job(shape=shape), Query("SELECT 1 AS id"), Append())
    load(job(shape=shape), Query("SELECT 2 AS id, 'a.csv' AS _source, '17' AS _position"), Append())
    (one, two) = table(job())
    assert one == (1, first.load_id, "query", None)
    assert (two[2], two[3]) == ("a.csv", "17")


def test_keys_may_be_hashed(job: Jobs) -> None:
    shape = Shape({"mail": Masking.HASH}, "key")
    load(job(shape=shape), Query("SELECT 1 AS id, 'a@b' AS mail, 1 AS n"), Merge(("mail",)))
    load(job(shape=shape), Query("SELECT 2 AS id, 'a@b' AS mail, 2 AS n"), Merge(("mail",)))
    assert [row[0] for row in table(job())] == [2]
