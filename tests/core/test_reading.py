"""Mistakes in a `defs.yaml` are found together, each with its line and how to mend it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from databrokkr_assets.core.document import read_documents
from databrokkr_assets.core.errors import SpecError, SpecErrors, Where
from databrokkr_assets.core.reading import read_connections, read_pipeline
from databrokkr_assets.core.spec import Pipeline
from databrokkr_assets.factory.kinds import installed


def read(tmp_path: Path, yaml: str) -> Pipeline:
    file = tmp_path / "defs.yaml"
    file.write_text("type: databrokkr_assets.Pipeline\nattributes:\n" + textwrap.indent(textwrap.dedent(yaml), "  "))
    document = read_documents(file)[0]
    return read_pipeline("p", document.attributes, document, installed())


def mistakes(tmp_path: Path, yaml: str) -> list[tuple[int, str, str]]:
    """Line within `yaml`, what is wrong, how to mend it."""
    with pytest.raises(SpecErrors) as caught:
        read(tmp_path, yaml)
    return [(_line(error) - 2, error.what, error.mend) for error in caught.value.errors]


def _line(error: SpecError) -> int:
    assert isinstance(error.where, Where) and error.where.line is not None
    return error.where.line


def test_a_pipeline_of_six_lines(tmp_path: Path) -> None:
    pipeline = read(
        tmp_path,
        """\
        sources:
          orders: {type: files, path: data/*.csv}
        transforms:
          totals: {type: sql, sql: "select customer, sum(amount) as amount from orders group by 1"}
        sinks:
          report: {type: files, input: totals, path: out/totals.parquet}
        """,
    )
    assert [name for name, _ in pipeline.nodes()] == ["orders", "totals", "report"]
    assert pipeline.inputs_of("totals") == ("orders",)


@pytest.mark.parametrize(
    ("yaml", "line", "what", "mend"),
    [
        ("sources:\n  a: {type: file, path: x.csv}", 2, 'there is no connector "file"', 'did you mean "files"?'),
        ("sources:\n  a: {type: files, pth: x.csv}", 2, 'unknown key "pth"', 'did you mean "path"?'),
        ("transforms:\n  b: {type: sql, sql: select 1, now() as x}", 2, "unknown key", "needs quotes"),
        ("sources:\n  a: {type: files}", 2, '"path" is missing', "add `path:`"),
        ("sources:\n  a: {path: x.csv}", 2, '"a" does not say what it is', "add `type:`"),
        ("sources:\n  a: [1]", 2, '"a" does not say what it is', "add `type:`"),
        ("sources: [a]", 1, "`sources` must map names to settings", "write `sources:`"),
        ("sorces:\n  a: {type: files, path: x}", 1, 'unknown key "sorces"', 'did you mean "sources"?'),
        ("sources:\n  9a: {type: files, path: x}", 2, '"9a" cannot be a name', "letters, digits and _"),
        ("transforms:\n  b: {type: sql, sql: selec 1}", 2, "sql: ", "correct the SQL there"),
        ("transforms:\n  b: {type: sql, sql: 'insert into a values (1)'}", 2, "sql: must be one SELECT", "reads"),
        ("transforms:\n  b: {type: sql, sql: select * from orders}", 2, 'reads "orders", which is no source', "none"),
        (
            "sources:\n  a: {type: files, path: x}\nsinks:\n  s: {type: files, path: y.csv, input: b}",
            4,
            '"s" reads "b", which is no source or transform',
            "use one of: a",
        ),
        (
            "transforms:\n  b: {type: sql, sql: select * from c}\n  c: {type: sql, sql: select * from b}",
            2,
            "nodes read each other in a circle",
            "remove one of these inputs",
        ),
        (
            "sources:\n  a: {type: files, path: x, disposition: merge}",
            2,
            "merge needs `keys`",
            "add e.g. `keys: [id]`",
        ),
        (
            "sources:\n  a: {type: files, path: x, disposition: upsert}",
            2,
            "\"disposition\" cannot be 'upsert'",
            "change",
        ),
        (
            "sources:\n  a: {type: files, path: x}\nchecks:\n"
            "  c: {type: expect_column_to_exist, dataset: b, column: i}",
            4,
            'there is no dataset "b" to check',
            "use one of: a",
        ),
        (
            "sources:\n  a: {type: files, path: x}\nchecks:\n"
            "  c: {type: expect_column_values_to_not_be_nul, dataset: a, column: i}",
            4,
            "expect_column_values_to_not_be_nul",
            "did you mean",
        ),
        (
            "sources:\n  a: {type: files, path: x}\nchecks:\n"
            "  c: {type: expect_column_values_to_not_be_null, dataset: a, colum: i}",
            4,
            "colum",
            "",
        ),
        (
            "sources:\n  a: {type: files, path: x}\ntriggers:\n  t: {type: file_arived, source: a}",
            4,
            "no trigger",
            "file_arrival",
        ),
        (
            "sources:\n  a: {type: files, path: x}\ntriggers:\n  t: {type: file_arrival, source: b}",
            4,
            'no source "b"',
            "a",
        ),
        (
            "sources:\n  a: {type: files, path: x.csv, disposition: replace}\n"
            "sinks:\n  s: {type: files, path: y, format: csv, input: a, disposition: append}",
            4,
            "would be added again at each load",
            "use `disposition: replace`",
        ),
        ("description: nothing else", 0, "the pipeline has no nodes", "add at least one item"),
    ],
)
def test_a_mistake_names_its_line_and_how_to_mend_it(
    tmp_path: Path, yaml: str, line: int, what: str, mend: str
) -> None:
    found = mistakes(tmp_path, yaml)
    assert any(at == line and what in said and mend in cure for at, said, cure in found), found


def test_a_mistake_in_a_connection_does_not_show_what_was_given(tmp_path: Path) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text("type: x\nattributes:\n  db: {type: postgres, host: h, database: d, user: u, password: 12345}\n")
    document = read_documents(file)[0]
    with pytest.raises(SpecErrors) as caught:
        read_connections(document.attributes, document, installed())
    assert "defs.yaml:3" in str(caught.value) and '"password"' in str(caught.value)
    assert "12345" not in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path, "sources:\n  a: {type: file}\n  b: {type: files, pth: x}\ntransforms:\n  a: {type: sql, sql: ''}"
    )
    assert {line for line, _, _ in found} == {2, 3, 5}


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a: 1\nb: [1", ":2", "is not valid YAML"),
        ("a: 1\n\tb: 2", ":2:1", "is not valid YAML"),
        ("attributes:\n  x: 1\n  x: 2", ":3:3", 'the key "x" stands here and on line 2'),
        ("- a list", ":1:1", "does not hold a mapping"),
        ("? [a, b]\n: 1", ":1", "a key must be plain text"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(tmp_path: Path, text: str, place: str, what: str) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_documents(file)
    assert what in caught.value.what and f"defs.yaml{place}" in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "defs.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        read_documents(file)


def test_dates_stay_text(tmp_path: Path) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text("type: x\nattributes: {a: 2020-01-01}")
    assert read_documents(file)[0].attributes == {"a": "2020-01-01"}
