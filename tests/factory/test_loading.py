"""A project as one code location: what is broken shows, the rest loads, and pipelines know of each other's tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from databrokkr_assets.factory.loading import load_project
from databrokkr_assets.service.pipelines import pipelines
from tests.project import Project

GOOD = """\
type: databrokkr_assets.Pipeline
attributes:
  sources: {a: {type: files, path: a.csv}}
"""
CONNECTIONS = """\
type: databrokkr_assets.Connections
attributes:
  file: {type: duckdb, path: x.duckdb}
  elsewhere: {type: postgres, url: "{{ env.NOT_SET_HERE }}"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project that this process can import; every test's is called `project`, so it is forgotten afterwards."""
    made = Project.made(tmp_path)
    sys.path.insert(0, str(made.root))
    yield made
    sys.path.remove(str(made.root))
    for name in [name for name in sys.modules if name.partition(".")[0] == "project"]:
        del sys.modules[name]


def spec(defs: dg.Definitions, *key: str) -> dg.AssetSpec:
    return next(one for one in defs.resolve_all_asset_specs() if one.key.path == list(key))


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("type: databrokkr_assets.Pipeline\nattributes:\n  sources: {a: {type: fils}}", 'did you mean "files"?'),
        ("type: databrokkr_assets.Pipeline\nattributes: [", "is not valid YAML"),
        ("type: databrokkr_assets.Pipelin\nattributes: {}", "Pipelin"),
        ("type: nowhere.Thing\nattributes: {}", "nowhere"),
        (GOOD + "  name: good", "defined twice"),
        (GOOD + "  schedule: {cron: every day}", "cron"),
        (GOOD + '  schedule: {cron: "0 6 * * *", timezone: Mars/Olympus}', "Mars"),
        (GOOD.replace("files, path: a.csv", "duckdb, connection: fil, table: t"), 'did you mean "file"?'),
        (GOOD.replace("files, path: a.csv", "postgres, connection: file, table: t"), "is a connection to duckdb"),
        (GOOD.replace("a.csv", '"{{ env.NOT_SET_HERE }}"'), "NOT_SET_HERE is not set"),
    ],
)
def test_a_broken_pipeline_shows_and_the_others_load(project: Project, yaml: str, says: str) -> None:
    project.write("connections", CONNECTIONS)
    project.write("good", GOOD)
    project.write("zz_bad", yaml)
    defs = load_project(project.root / "project")
    found = pipelines(defs)
    assert found["good"].nodes and not found["good"].mistakes
    (bad,) = (known for known in found.values() if known.mistakes)
    assert any(says in mistake["what"] + mistake["mend"] for mistake in bad.mistakes), bad
    assert dg.Definitions.validate_loadable(defs) is None


def test_a_broken_python_file_does_not_take_the_others_down(project: Project) -> None:
    project.write("good", GOOD)
    (project.defs / "bad").mkdir()
    (project.defs / "bad" / "pipeline.py").write_text("import no_such_module\n")
    found = pipelines(load_project(project.root / "project"))
    assert found["good"].nodes and "no_such_module" in found["bad"].mistakes[0]["what"]


def test_a_table_between_two_pipelines_joins_their_lineage(project: Project) -> None:
    project.write("connections", CONNECTIONS)
    project.write("one", GOOD + "  sinks: {out: {type: duckdb, connection: file, table: t, input: a}}\n")
    project.write("two", GOOD.replace("files, path: a.csv", "duckdb, connection: file, table: t"))
    defs = load_project(project.root / "project")
    assert [dep.asset_key.path for dep in spec(defs, "two", "a").deps] == [["file", "main", "t"]]
    assert [dep.asset_key.path for dep in spec(defs, "file", "main", "t").deps] == [["one", "out"]]


def test_a_connection_without_its_secret_loads_and_says_so_when_used(project: Project) -> None:
    project.write("connections", CONNECTIONS)
    project.write("reads", GOOD.replace("files, path: a.csv", "postgres, connection: elsewhere, table: t"))
    defs = load_project(project.root / "project")
    assert not pipelines(defs)["reads"].mistakes
    result = defs.resolve_job_def("reads").execute_in_process(raise_on_error=False)
    (failure,) = (event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    assert failure.step_failure_data.user_failure_data is not None
    assert "NOT_SET_HERE" in str(failure.step_failure_data.user_failure_data.description)


@pytest.mark.parametrize(
    ("lake", "says"),
    [
        ("{ulr: elsewhere}", "ulr"),
        ('{url: "{{ env.NOT_SET_HERE }}"}', "NOT_SET_HERE"),
        ("{url: x, url: y}", "stands here"),
    ],
)
def test_no_pipeline_goes_on_in_another_lake(project: Project, lake: str, says: str) -> None:
    project.write("lake", f"type: databrokkr_assets.Lake\nattributes: {lake}\n")
    project.write("good", GOOD)
    found = pipelines(load_project(project.root / "project"))
    assert says in found["good"].mistakes[0]["what"] and says in found["lake"].mistakes[0]["what"]


def test_a_file_outside_of_a_folder_is_told(project: Project) -> None:
    project.write("good", GOOD)
    (project.defs / "stray.yaml").write_text(GOOD)
    found = pipelines(load_project(project.root / "project"))
    assert "outside of a folder" in found["stray"].mistakes[0]["what"] and found["good"].nodes


def test_a_pipeline_from_python_is_checked_as_a_whole(project: Project) -> None:
    (project.defs / "made").mkdir()
    (project.defs / "made" / "pipeline.py").write_text(
        "import dagster as dg\n"
        "from databrokkr_assets import Pipeline\n"
        "from databrokkr_assets.core.spec import Pipeline as Spec\n"
        "from databrokkr_assets.transforms.sql import Sql\n\n"
        "@dg.component_instance\n"
        "def load(context):\n"
        "    return Pipeline(Spec(name='made', transforms={'t': Sql(sql='select * from nowhere')}))\n"
    )
    (mistake,) = pipelines(load_project(project.root / "project"))["made"].mistakes
    assert 'reads "nowhere"' in mistake["what"]


def test_a_folder_in_a_folder_is_found(project: Project) -> None:
    file = project.write("team", GOOD)
    (project.defs / "team" / "inner").mkdir()
    file.rename(project.defs / "team" / "inner" / "defs.yaml")
    assert list(pipelines(load_project(project.root / "project"))) == ["inner"]


def test_what_an_asset_tells(project: Project) -> None:
    file = project.write("good", GOOD)
    shown = spec(load_project(project.root / "project"), "good", "a")
    assert (shown.group_name, shown.kinds) == ("good", {"file", "deltalake"})
    (reference,) = shown.metadata["dagster/code_references"].code_references
    assert (reference.file_path, reference.line_number) == (str(file), 3)
    assert shown.code_version and [dep.asset_key.path[0] for dep in shown.deps] == ["files"]
