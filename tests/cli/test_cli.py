"""The `databrokkr` command as a person uses it: what it prints, and the exit code that a script sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from tests.project import Project, node

SHOP = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: files, path: "{{ env.ORDERS }}"}
  transforms:
    large: {type: sql, sql: "select * from orders where amount > 10"}
    count: {type: sql, sql: "select count(*) as orders from orders"}
  sinks:
    report: {type: files, input: large, path: out/large.csv}
  checks:
    amount_is_positive:
      type: expect_column_values_to_be_between
      dataset: orders
      column: amount
      min_value: 0
      on_fail: quarantine
"""
GATED = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: files, path: in/orders.csv}
  transforms:
    copied: {type: sql, sql: select * from orders}
  checks:
    id_is_unique: {type: expect_column_values_to_be_unique, dataset: orders, column: id}
"""
MISSING = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: files, path: in/nothing/*.csv}
"""
AWAY = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: postgres, connection: away, table: orders}
"""
CONNECTIONS = """\
type: databrokkr_assets.Connections
attributes:
  away: {type: postgres, host: 127.0.0.1, port: 1, database: shop, user: shop, retries: 1}
"""
BROKEN = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: file, path: in/orders.csv}
  transforms:
    copied: {type: sql, sql: select * from orders, stord: false}
"""
ORDERS = "id,amount\n1,5\n1,20\n2,30\n3,-1\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with one sound pipeline, one for each way to fail, and a `.env`."""
    made = Project.made(tmp_path_factory.mktemp("cli"))
    pipelines = {"shop": SHOP, "gated": GATED, "missing": MISSING, "away": AWAY, "broken": BROKEN}
    for name, text in (pipelines | {"connections": CONNECTIONS}).items():
        made.write(name, text)
    (made.root / "in").mkdir()
    (made.root / "in/orders.csv").write_text(ORDERS)
    (made.root / ".env").write_text("ORDERS=in/orders.csv\n")
    return made


class TestFirstSteps:
    """What the README and `init` tell a newcomer to type."""

    def test_init_prints_commands_that_work(self, tmp_path: Path) -> None:
        made = _said(Project(tmp_path).call("init", "my_shop"))
        commands = [line.split()[1:] for line in made.splitlines() if line.startswith("  databrokkr")]
        assert commands == [["check"], ["run", "orders"], ["dev"]]
        new = Project(tmp_path / "my_shop")
        assert "ok" in _said(new.call(*commands[0]))
        table = _said(new.call(*commands[1]))
        for text in (
            "node",
            "rows in",
            "quarantined",
            "orders",
            "by_customer",
            "report",
            "quarantine amount_is_positive",
        ):
            assert text in table
        assert "1 of 4 rows failed, e.g. 0.00" in table
        assert (new.root / "out/by_customer.parquet").is_file()

    def test_init_leaves_a_folder_with_files_alone(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/thing").write_text("mine")
        refused = Project(tmp_path).call("init", "mine")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "holds files already" in refused.stderr
        assert "mend: name a new folder" in refused.stderr
        assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thing"]

    @pytest.mark.parametrize("command", ["check", "status"])
    def test_outside_of_a_project(self, tmp_path: Path, command: str) -> None:
        refused = Project(tmp_path).call(command)
        assert refused.returncode == 2
        assert "no DataBrokkr project" in refused.stderr
        assert "databrokkr init" in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_help_is_quick_because_it_imports_nothing_heavy(self) -> None:
        heavy = "{'dagster', 'duckdb', 'pandas', 'pyarrow', 'great_expectations', 'deltalake'}"
        code = f"import sys, databrokkr_assets.cli.main; print(*sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""


class TestCheck:
    """Mistakes are told without running anything."""

    def test_it_names_file_line_and_remedy(self, project: Project) -> None:
        done = project.call("check")
        assert done.returncode == 2
        for text in (
            "ok      shop",
            "broken  broken",
            'project/defs/broken/defs.yaml:4:14: there is no connector "file"',
            'mend: did you mean "files"?',
            'unknown key "stord"',
            'mend: did you mean "stored"?',
        ):
            assert text in done.stdout

    def test_as_json(self, project: Project) -> None:
        done = project.call("check", "--json")
        found = {one["name"]: one for one in json.loads(done.stdout)}
        assert done.returncode == 2
        assert found["shop"]["mistakes"] == []
        assert {"orders", "large", "count", "report"} <= set(found["shop"]["nodes"])
        assert [set(mistake) for mistake in found["broken"]["mistakes"]] == [{"where", "what", "mend"}] * 2


class TestRun:
    """A run, whole or in part, and its failures by who mends them."""

    def test_a_run_then_its_status_from_a_folder_below(self, project: Project, tmp_path: Path) -> None:
        report = project.run("shop", DATABROKKR_LAKE=str(tmp_path))
        assert (report["exit_code"], [one["state"] for one in report["nodes"]]) == (0, ["done"] * 4)
        orders = node(report, "orders")
        assert (orders["rows_in"], orders["rows_out"], orders["quarantined"]) == (4, 3, 1)
        (check,) = orders["checks"]
        assert (check["name"], check["passed"], check["rows_failed"]) == ("amount_is_positive", False, 1)
        below = Project(project.root / "in").call("status", "--json")
        nodes = {(one["pipeline"], one["node"]): one for one in json.loads(_said(below))}
        assert nodes["shop", "orders"]["rows"] == 3
        assert nodes["shop", "orders"]["quarantined"] == 1
        assert nodes["shop", "orders"]["run_id"]
        assert nodes["broken", "-"]["state"] == "broken"

    def test_a_selection(self, project: Project) -> None:
        report = project.run("shop", "--select", "+large")
        assert {one["node"] for one in report["nodes"]} == {"orders", "large"}
        report = project.run("shop", "--select", "large+", "--select", "count")
        assert {one["node"] for one in report["nodes"]} == {"large", "report", "count"}

    @pytest.mark.parametrize(
        ("pipeline", "exit_code", "says", "mend"),
        [
            ("missing", 3, "no file matches", "check `path`"),
            ("away", 5, "Connection refused", "start the server"),
        ],
    )
    def test_exit_codes_say_who_mends_it(
        self, project: Project, pipeline: str, exit_code: int, says: str, mend: str
    ) -> None:
        done = project.call("run", pipeline)
        assert done.returncode == exit_code, done.stdout + done.stderr
        for text in ("failed", says, f"mend: {mend}"):
            assert text in done.stdout
        assert "Traceback" not in done.stdout + done.stderr

    def test_what_is_downstream_of_a_failure_is_skipped(self, project: Project) -> None:
        done = project.call("run", "gated", "--json")
        report = json.loads(done.stdout)
        assert done.returncode == report["exit_code"] == 4
        assert {one["node"]: one["state"] for one in report["nodes"]} == {"orders": "failed", "copied": "skipped"}
        assert "blocked by id_is_unique" in node(report, "orders")["error"]
        assert "2 of 4 rows failed, e.g. 1" in node(report, "orders")["error"]

    @pytest.mark.parametrize(
        ("words", "says", "mend"),
        [
            (["shp"], 'there is no pipeline "shp"', 'did you mean "shop"?'),
            (["shop", "--select", "lrage+"], 'there is no node "lrage" in shop', 'did you mean "large"?'),
            (["broken"], 'there is no connector "file"', 'did you mean "files"?'),
        ],
    )
    def test_what_is_not_there_is_refused(self, project: Project, words: list[str], says: str, mend: str) -> None:
        refused = project.call("run", *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: ")
        assert says in refused.stderr
        assert f"mend: {mend}" in refused.stderr


class TestCatalogue:
    """What can be written, for people and for editors."""

    def test_connectors(self, tmp_path: Path) -> None:
        anywhere = Project(tmp_path)
        rows = {row["name"]: row for row in json.loads(_said(anywhere.call("connectors", "--json")))}
        for name in ("duckdb", "files", "postgres"):
            assert rows[name]["source"] and rows[name]["sink"] and rows[name]["summary"]
        assert "files" in _said(anywhere.call("connectors"))

    def test_the_schema_accepts_what_loads_and_refuses_what_does_not(self, project: Project) -> None:
        schema = json.loads(_said(project.call("schema")))
        jsonschema.Draft202012Validator.check_schema(schema)
        for text in (SHOP, GATED, CONNECTIONS):
            jsonschema.validate(yaml.safe_load(text), schema)
        wrong: Any = yaml.safe_load(GATED)
        wrong["attributes"]["sources"]["orders"]["pth"] = "in/orders.csv"
        with pytest.raises(jsonschema.ValidationError, match="pth"):
            jsonschema.validate(wrong, schema)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
