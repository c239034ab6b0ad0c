"""The docs are executed: what they show is read, run and followed, and what is generated is fresh."""

from __future__ import annotations

import importlib
import re
import shlex
import sqlite3
import tomllib
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import typer

from databrokkr_assets.cli import reference
from databrokkr_assets.cli.main import app
from databrokkr_assets.core.disposition import Append
from databrokkr_assets.core.document import read_documents
from databrokkr_assets.core.errors import Unavailable
from databrokkr_assets.core.ports import LoadMark, Target
from databrokkr_assets.core.reading import read_connections, read_pipeline
from databrokkr_assets.factory.kinds import installed
from databrokkr_assets.factory.schema import LakeSettings
from tests.project import Project, node

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "changelog.d/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
GUIDE = DOCS / "guide-connector.md"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def each(language: str, begins: str = "", but: Collection[Path] = ()) -> list[Any]:
    """Every block of the pages that begins so, comments aside, as a test's parameters."""
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        if page not in but
        for number, text in enumerate(blocks(page, language), 1)
        if re.match(rf"(#.*\n)*{begins}", text)
    ]


def placed(page: Path) -> dict[str, str]:
    """The Python files that a page shows, by the path in their first line; blocks of one path are one file."""
    files: dict[str, str] = {}
    for text in blocks(page, "python"):
        first, _, rest = text.partition("\n")
        assert first.startswith("# "), f"{page.name}: a python block begins with `# path/of/the/file.py`"
        files[first[2:]] = files.get(first[2:], "") + rest + "\n\n"
    return files


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


# The guide's own needs its own connectors; it runs below.
@pytest.mark.parametrize("text", each("yaml", begins=r"type: databrokkr_assets\.", but=[GUIDE]))
def test_every_definition_is_free_of_mistakes(text: str, tmp_path: Path) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(text)
    for document in read_documents(file):
        match document.type.removeprefix("databrokkr_assets."):
            case "Pipeline":
                read_pipeline("shown", document.attributes, document, installed())
            case "Connections":
                read_connections(document.attributes, document, installed())
            case "Lake":
                LakeSettings.model_validate(document.attributes)
            case other:
                pytest.fail(f"there is no component {other}")


@pytest.mark.parametrize("text", each("console"))
def test_every_command_is_one(text: str) -> None:
    group: Any = typer.main.get_command(app)
    for line in text.splitlines():
        words = shlex.split(line.partition(" > ")[0], comments=True)
        if words and words[0].startswith("./"):
            assert (ROOT / words[0]).is_file(), line
        if words and Path(words[0]).name == "databrokkr":
            assert words[1] in group.commands, line
            group.commands[words[1]].make_context(words[1], words[2:])  # raises for what it cannot parse


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> list[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_generated_pages_are_fresh() -> None:
    assert reference.stale(DOCS, reference.pages()) == []


def test_a_page_that_is_old_missing_or_left_is_stale(tmp_path: Path) -> None:
    fresh = reference.pages()
    reference.write(tmp_path, fresh)
    assert reference.stale(tmp_path, fresh) == []
    old, missing, *_ = sorted(fresh)
    (tmp_path / old).write_text("old")
    (tmp_path / missing).unlink()
    left = Path("connectors/gone.md")
    (tmp_path / left).write_text(fresh[old])
    (tmp_path / "written.md").write_text("by hand")
    assert reference.stale(tmp_path, fresh) == sorted([old, missing, left])
    reference.write(tmp_path, fresh)
    assert reference.stale(tmp_path, fresh) == [] and (tmp_path / "written.md").exists()


def test_every_key_says_what_it_means() -> None:
    rows = [f"{path}: {row}" for path, text in reference.pages().items() for row in text.splitlines()]
    assert [row for row in rows if ": | `" in row and row.endswith("|  |")] == []


def test_the_quickstart_shows_the_mistake_as_it_is_told(tmp_path: Path) -> None:
    page = DOCS / "quickstart.md"
    project = Project.made(tmp_path)
    project.write("totals", blocks(page, "yaml")[0].replace("path: data", "pth: data"))
    told = project.call("check")
    assert told.returncode == 2
    shown = next(text for text in blocks(page, "text") if "broken  totals" in text)
    for line in shown.splitlines()[2:]:
        assert line.strip().replace("my_project", "project") in told.stdout


def test_pipelines_from_python_run(tmp_path: Path) -> None:
    project = Project.made(tmp_path)
    files = placed(DOCS / "python.md")
    write(project.root, {name.replace("my_project", "project"): text for name, text in files.items()})
    for name in ("north", "south"):
        write(project.root, {f"data/{name}/1.csv": "id,amount\n1,2.50\n"})
    checked = project.call("check")
    assert [line.split() for line in checked.stdout.splitlines()] == [
        ["ok", name] for name in ("north", "south", "totals")
    ]
    assert node(project.run("totals"), "report")["rows_out"] == 3
    assert node(project.run("north"), "copy")["rows_out"] == 1
    assert (project.root / "out" / "totals.parquet").exists()


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """The guide's package, as installing it would leave it: its files, and its entry points beside them."""
    folder = tmp_path / "plugins"
    write(folder, placed(GUIDE))
    project = tomllib.loads(blocks(GUIDE, "toml")[0])["project"]
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in found.items())
        for group, found in project["entry-points"].items()
    ]
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    info = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    write(folder, {f"{info}/METADATA": about, f"{info}/entry_points.txt": "\n".join(points)})
    return folder


def test_the_guides_connectors_carry_rows(plugins: Path, tmp_path: Path) -> None:
    project = Project.made(tmp_path)
    project.write("shop", blocks(GUIDE, "yaml")[0])
    with sqlite3.connect(project.root / "shop.sqlite") as shop:
        shop.execute("CREATE TABLE orders (id INTEGER, what TEXT, price REAL)")
        shop.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(1, "a", 1.5), ("x", "bad", 2.0), (2, None, None)])
    (project.root / "data" / "weather").mkdir()
    duckdb.sql("SELECT 1 AS day").write_parquet(str(project.root / "data" / "weather" / "1.parquet"))
    first = project.run("shop", PYTHONPATH=str(plugins))
    assert (node(first, "orders")["rows_out"], node(first, "orders")["quarantined"]) == (2, 1)
    shop.execute("INSERT INTO orders VALUES (3, 'new', 9.0)")
    shop.commit()
    second = project.run("shop", PYTHONPATH=str(plugins))
    assert [node(second, name)["published"] for name in ("orders", "weather", "copy", "wet")] == [
        True,
        False,
        True,
        False,
    ]
    assert shop.execute("SELECT * FROM orders_copy").fetchall() == [(1, "a", 1.5), (2, None, None), (3, "new", 9.0)]
    assert shop.execute("SELECT * FROM weather").fetchall() == [(1,)]


def test_the_guides_sink_writes_once_and_fences(plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugins)
    module = importlib.import_module("example_connectors.notebook")
    path = str(tmp_path / "shop.sqlite")
    first, second = LoadMark("a", "table", 0), LoadMark("b", "table", 1, after=0)
    assert not deliver(module, path, first, 1)
    assert deliver(module, path, first, 1), "a reply was lost: nothing is written again"
    assert not deliver(module, path, second, 2)
    with pytest.raises(Unavailable, match="by another run"):
        deliver(module, path, LoadMark("zombie", "table", 2, after=0), 99)
    with pytest.raises(KeyboardInterrupt):
        deliver(module, path, LoadMark("c", "table", 2, after=1), 99, dies=True)
    with sqlite3.connect(path) as shop:
        assert shop.execute("SELECT id FROM t").fetchall() == [(1,), (2,)]


def deliver(module: ModuleType, path: str, mark: LoadMark, row: int, *, dies: bool = False) -> bool:
    """Write one row by the guide's sink; gives whether it was there already."""
    records = pa.record_batch({"id": [row]})
    with module.NotebookWriter(path, "t").begin(Target("p/n", records.schema), Append(), mark) as load:
        load.write(records)
        if dies:
            raise KeyboardInterrupt
        already: bool = load.commit().already
        return already


def test_the_guides_fast_source_reads_without_duckdb_too(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugins)
    module = importlib.import_module("example_connectors.chunks")
    for name in ("1", "2"):
        duckdb.sql(f"SELECT {name} AS day").write_parquet(str(tmp_path / f"{name}.parquet"))
    reader = module.ChunksReader(tmp_path)
    stream = next(iter(reader.streams()))
    found = [(batch.records.to_pylist(), batch.cursor) for batch in reader.read(stream, {"last": "1.parquet"})]
    assert found == [([{"day": 2}], {"last": "2.parquet"})]
