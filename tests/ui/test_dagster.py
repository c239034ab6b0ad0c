"""Dagster as `databrokkr dev` starts it: its webserver, daemon and code server show, run and watch the pipelines."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.store import store_at
from tests.ui.conftest import SECRET, arrives
from tests.ui.server import Run, Ui, facts, until

ASSETS = """{
  assetNodes {
    assetKey { path } groupName kinds description isMaterializable isExecutable codeVersion: opVersion
    owners { ... on UserAssetOwner { email } ... on TeamAssetOwner { team } }
    tags { key value }
    dependencyKeys { path }
    requiredResources { resourceKey }
    pools
    metadataEntries { ...facts }
    hasAssetChecks
  }
}"""

CHECKS = """
query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetChecksOrError {
        ... on AssetChecks {
          checks {
            name description blocking
            executionForLatestMaterialization {
              status runId
              evaluation { success severity description metadataEntries { ...facts } }
            }
          }
        }
      }
    }
  }
}"""

SENSOR = "drop__new_parcels"
pytestmark = pytest.mark.xdist_group("ui")

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "project"}


@pytest.fixture(scope="module")
def assets(ui: Ui) -> dict[str, dict[str, Any]]:
    """Every asset of the code location by its key."""
    return {"/".join(node["assetKey"]["path"]): node for node in ui.ask(ASSETS)["assetNodes"]}


class TestDefinitions:
    """What is there before anything ran."""

    def test_each_node_is_an_asset_and_each_system_one_upstream(self, assets: dict[str, dict[str, Any]]) -> None:
        shop = {key for key, node in assets.items() if node["groupName"] == "shop"}
        assert shop == {
            "shop/orders",
            "shop/orders__quarantine",
            "shop/paid",
            "shop/by_customer",
            "shop/report",
        }
        assert _upstream(assets["shop/orders"]) == {"files/in/orders"}
        assert _upstream(assets["shop/paid"]) == {"shop/orders"}
        assert _upstream(assets["shop/by_customer"]) == {"shop/paid", "shop/orders"}
        assert _upstream(assets["shop/report"]) == {"shop/by_customer"}
        assert _upstream(assets["shop/orders__quarantine"]) == {"shop/orders"}
        assert _upstream(assets["remote/invoices"]) == {"billing/public/invoices"}

    def test_only_what_is_stored_can_be_materialised(self, assets: dict[str, dict[str, Any]]) -> None:
        runs = {key for key, node in assets.items() if node["isExecutable"] and node["groupName"] == "shop"}
        assert runs == {"shop/orders", "shop/by_customer", "shop/report"}
        assert not assets["files/in/orders"]["isExecutable"]

    def test_kinds_owners_tags_and_descriptions(self, assets: dict[str, dict[str, Any]]) -> None:
        kinds = {key: set(assets[key]["kinds"]) for key in assets}
        assert kinds["shop/orders"] == {"file", "deltalake"}
        assert kinds["shop/paid"] == {"sql", "view"}
        assert kinds["shop/by_customer"] == {"sql", "deltalake"}
        assert kinds["shop/report"] == {"duckdb"}
        assert kinds["billing/public/invoices"] == {"postgres"}
        owners = [set(owner.values()).pop() for owner in assets["shop/orders"]["owners"]]
        assert owners == ["shop", "ada@example.com"]
        assert [owner["email"] for owner in assets["shop/by_customer"]["owners"]] == ["grace@example.com"]
        assert {"key": "domain", "value": "sales"} in assets["shop/orders"]["tags"]
        assert assets["shop/orders"]["description"] == "One row for each order."
        assert assets["shop/report"]["pools"]

    def test_what_has_no_description_is_described(self, assets: dict[str, dict[str, Any]]) -> None:
        described = {key: node["description"] for key, node in assets.items()}
        assert described["stock/levels"] == "Read from `files/in/levels_csv`."
        assert described["shop/paid"] == "Not stored: part of the queries of the nodes that read it."
        assert described["shop/report"] == "`by_customer`, written to `warehouse/main/by_customer`: replace."
        assert described["files/in/orders"] == "A system outside, at `file:in/orders`."

    def test_metadata_says_where_the_rows_stand_and_where_the_yaml_does(
        self, ui: Ui, assets: dict[str, dict[str, Any]]
    ) -> None:
        orders = facts(assets["shop/orders"]["metadataEntries"])
        assert orders["dagster/table_name"] == "raw.shop.orders"
        assert orders["dagster/storage_kind"] == "deltalake"
        assert orders["dagster/uri"] == str(ui.project.root / "lake/raw/shop/orders")
        (reference,) = orders["dagster/code_references"]
        file = ui.project.defs / "shop/defs.yaml"
        assert reference["filePath"] == str(file)
        assert file.read_text().splitlines()[reference["lineNumber"] - 1].strip() == "orders:"
        report = facts(assets["shop/report"]["metadataEntries"])
        assert (report["dagster/table_name"], report["dagster/storage_kind"]) == ("main.by_customer", "duckdb")
        assert "GROUP BY" in facts(assets["shop/by_customer"]["metadataEntries"])["databrokkr/sql"]

    def test_a_broken_pipeline_shows_its_mistakes_and_the_others_load(self, assets: dict[str, dict[str, Any]]) -> None:
        broken = assets["broken/broken"]
        assert broken["groupName"] == "broken"
        for text in ('unknown key "pth"', '"path" is missing', "project/defs/broken/defs.yaml:"):
            assert text in broken["description"]
        (reference,) = facts(broken["metadataEntries"])["dagster/code_references"]
        assert reference["lineNumber"] == 4
        assert [key for key, node in assets.items() if "broken" in node["kinds"]] == ["broken/broken"]

    def test_schedule_and_sensor_are_on(self, ui: Ui) -> None:
        query = """query($of: RepositorySelector!) {
          schedulesOrError(repositorySelector: $of) { ... on Schedules { results {
            name cronSchedule executionTimezone pipelineName scheduleState { status } } } }
          sensorsOrError(repositorySelector: $of) { ... on Sensors { results {
            name minIntervalSeconds sensorState { status } } } }
        }"""
        found = ui.ask(query, of=REPOSITORY)
        assert found["schedulesOrError"]["results"] == [
            {
                "name": "shop__schedule",
                "cronSchedule": "0 6 * * *",
                "executionTimezone": "Europe/Berlin",
                "pipelineName": "shop",
                "scheduleState": {"status": "RUNNING"},
            }
        ]
        assert {
            "name": SENSOR,
            "minIntervalSeconds": 1,
            "sensorState": {"status": "RUNNING"},
        } in found["sensorsOrError"]["results"]

    def test_resources_show_coordinates_and_no_secrets(self, ui: Ui) -> None:
        query = """query($of: RepositorySelector!) {
          allTopLevelResourceDetailsOrError(repositorySelector: $of) { ... on ResourceDetailsList { results {
            name description configuredValues { key value } assetKeysUsing { path } } } }
        }"""
        found = ui.ask(query, of=REPOSITORY)["allTopLevelResourceDetailsOrError"]["results"]
        described = {one["name"]: one["description"] for one in found}
        assert set(described) == {"archive", "billing", "lake", "ledger", "warehouse"}
        assert "127.0.0.1" in described["billing"]
        assert "ARCHIVE_URL" in described["archive"]
        assert "warehouse.duckdb" in described["warehouse"]
        users = {one["name"]: {"/".join(key["path"]) for key in one["assetKeysUsing"]} for one in found}
        assert users["warehouse"] == {"shop/report"}


class TestRuns:
    """What a click on "Materialize" does."""

    def test_all_of_a_pipeline(self, ui: Ui, shop: Run) -> None:
        assert shop.status == "SUCCESS"
        done = shop.materialised()
        assert set(done) == {"orders", "orders__quarantine", "by_customer", "report"}
        orders = done["orders"]
        assert orders["dagster/row_count"] == 4
        assert (orders["databrokkr/rows_in"], orders["databrokkr/rows_out"]) == (7, 4)
        assert orders["databrokkr/rows_quarantined"] == done["orders__quarantine"]["databrokkr/rows_quarantined"] == 3
        assert "2 × `amount_is_not_negative`" in done["orders__quarantine"]["databrokkr/reasons"]
        assert orders["databrokkr/load_id"] == done["orders__quarantine"]["databrokkr/load_id"]
        columns = {one["name"]: one["type"] for one in orders["dagster/column_schema"]["columns"]}
        assert columns == {"id": "BIGINT", "customer": "VARCHAR", "amount": "DECIMAL(10,2)"}
        with duckdb.connect(str(ui.project.root / "warehouse.duckdb"), read_only=True) as warehouse:
            rows = warehouse.execute("select buyer, spent from by_customer order by spent desc").fetchall()
        assert [(buyer, float(spent)) for buyer, spent in rows] == [
            ("EDSGER", 42.5),
            ("ADA", 19.9),
            (None, 7.25),
            ("GRACE", 5.0),
        ]

    def test_column_lineage_goes_through_what_is_not_stored(self, shop: Run) -> None:
        lineage = shop.materialised()["by_customer"]["dagster/column_lineage"]
        found = {
            one["columnName"]: {("/".join(dep["assetKey"]["path"]), dep["columnName"]) for dep in one["columnDeps"]}
            for one in lineage
        }
        assert found["buyer"] == {("shop/orders", "customer")}
        assert found["spent"] == {("shop/orders", "amount")}

    def test_checks_say_what_they_expected_and_found(self, ui: Ui, shop: Run) -> None:
        checks = _checks(ui, "shop", "orders")
        assert {name: check["blocking"] for name, check in checks.items()} == {
            "customer_is_known": False,
            "amount_is_not_negative": False,
            "id_is_unique": True,
        }
        known, negative, unique = (
            checks[name]["executionForLatestMaterialization"]
            for name in ("customer_is_known", "amount_is_not_negative", "id_is_unique")
        )
        assert (known["evaluation"]["success"], known["evaluation"]["severity"]) == (False, "WARN")
        assert (negative["evaluation"]["success"], negative["evaluation"]["severity"]) == (False, "WARN")
        assert (unique["status"], unique["evaluation"]["success"]) == ("SUCCEEDED", True)
        assert negative["evaluation"]["description"] == (
            "expect_column_values_to_be_between(column=amount, min_value=0): 2 of 6 rows failed, e.g. -1.00, -2.50"
        )
        told = facts(negative["evaluation"]["metadataEntries"])
        assert told["databrokkr/expectation"] == "expect_column_values_to_be_between"
        assert (told["databrokkr/rows_checked"], told["databrokkr/rows_failed"]) == (6, 2)
        assert "-2.50" in told["databrokkr/sample"]
        assert told["databrokkr/on_fail"] == "quarantine"

    def test_one_asset_and_then_a_selection(self, ui: Ui, shop: Run) -> None:
        launched = [ui.launch("shop", "by_customer"), ui.launch("shop", "orders", "report")]
        one, two = map(ui.wait, launched)
        assert (one.status, one.started()) == ("SUCCESS", {"by_customer"})
        assert (two.status, two.started()) == ("SUCCESS", {"orders", "report"})
        # Nothing new came: running again is harmless.
        assert two.materialised()["orders"]["databrokkr/published"] is False
        assert two.materialised()["orders"]["dagster/row_count"] == 4

    def test_a_blocking_check_keeps_the_published_version(self, ui: Ui, blocked: Run) -> None:
        assert (blocked.status, blocked.started()) == ("FAILURE", {"levels"})
        assert not blocked.materialised()
        snapshot = _dataset(ui, "raw", "stock", "levels").open()
        assert snapshot is not None
        with duckdb.connect() as duck:
            assert duck.execute(f"{snapshot.query(duck)} order by item").fetchall() == [("bolt", 50), ("nut", 5)]
        (failure,) = blocked.of("ExecutionStepFailureEvent")
        for text in ("blocked by level_is_possible", "2 of 3 rows failed", "mend:"):
            assert text in str(failure["error"])
        check = _checks(ui, "stock", "levels")["level_is_possible"]
        assert [one["evaluation"] for one in blocked.of("AssetCheckEvaluationEvent")] == [
            {"checkName": "level_is_possible", "success": False}
        ]
        assert check["blocking"]

    def test_a_blocked_check_is_red(self, ui: Ui, blocked: Run) -> None:
        query = """query($key: AssetKeyInput!) {
          assetCheckExecutions(assetKey: $key, checkName: "level_is_possible", limit: 1) { runId status evaluation {
            success severity description } } }"""
        (latest,) = ui.ask(query, key={"path": ["stock", "levels"]})["assetCheckExecutions"]
        assert (latest["runId"], latest["status"]) == (blocked.id, "FAILED")
        assert latest["evaluation"]["severity"] == "ERROR"
        assert "2 of 3 rows failed" in latest["evaluation"]["description"]

    def test_a_failure_says_how_to_mend_it(self, remote: Run) -> None:
        assert remote.status == "FAILURE"
        told = {one["stepKey"]: str(one["error"]["message"]) for one in remote.of("ExecutionStepFailureEvent")}
        assert "start the server at 127.0.0.1:1/b" in told["remote__invoices"]
        assert "set ARCHIVE_URL" in told["remote__old"]


class TestWatching:
    """What the daemon does by itself."""

    def test_a_file_that_arrives_starts_one_run(self, ui: Ui) -> None:
        run = _dropped(ui, "a.csv", "id,kg\n1,2.5\n2,4.5\n")
        assert run.status == "SUCCESS"
        assert run.tags["dagster/sensor_name"] == SENSOR
        assert run.materialised()["parcels"]["databrokkr/rows_in"] == 2
        assert run.materialised()["weights"]["dagster/row_count"] == 1
        assert _started(ui, SENSOR) == {run.id}


def test_no_answer_holds_a_secret(ui: Ui, shop: Run, remote: Run, assets: dict[str, dict[str, Any]]) -> None:
    for query in (WHOLE_WORKSPACE, WHOLE_INSTANCE):
        ui.ask(query)
    for name in ("billing", "ledger"):
        selector = {**REPOSITORY, "resourceName": name}
        ui.ask(ONE_RESOURCE, of=selector)
    whole = "".join(ui.answers)
    assert "billing" in whole
    assert "127.0.0.1:1" in whole
    assert SECRET not in whole
    logs = [file for file in (ui.project.root / ".databrokkr").rglob("*") if file.is_file()]
    assert logs
    assert not [file for file in logs if SECRET.encode() in file.read_bytes()]


WHOLE_WORKSPACE = """{
  repositoriesOrError { ... on RepositoryConnection { nodes {
    name assetManifest displayMetadata { key value }
    pipelines { name description tags { key value } modes { resources { name description configField { configType {
      key description } } } } runTags { key value } }
    allTopLevelResourceDetails { name description resourceType configuredValues { key value type } configFields {
      name description defaultValueAsJson } }
  } } }
  componentsForLocationOrError(locationName: "project") { __typename }
  utilizedEnvVarsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "project"}) {
    ... on EnvVarWithConsumersList { results { envVarName } } }
}"""
WHOLE_INSTANCE = """{
  instance { info hasInfo daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message } } } }
  runsOrError { ... on Runs { results { id runConfigYaml tags { key value } } } }
  assetsOrError { ... on AssetConnection { nodes { key { path } assetMaterializations { description metadataEntries {
    ...facts } } } } }
}"""
ONE_RESOURCE = """query($of: ResourceSelector!) {
  topLevelResourceDetailsOrError(resourceSelector: $of) { ... on ResourceDetails {
    name description configFields { name defaultValueAsJson } configuredValues { key value }
    nestedResources { name } parentResources { name } } }
}"""


def _upstream(node: dict[str, Any]) -> set[str]:
    return {"/".join(key["path"]) for key in node["dependencyKeys"]}


def _checks(ui: Ui, *key: str) -> dict[str, dict[str, Any]]:
    found = ui.ask(CHECKS, key={"path": list(key)})["assetNodeOrError"]["assetChecksOrError"]["checks"]
    return {check["name"]: check for check in found}


def _dataset(ui: Ui, zone: str, pipeline: str, node: str) -> Dataset:
    return Dataset(store_at("lake", ui.project.root, {}).child(zone, pipeline, node), f"{pipeline}/{node}")


def _started(ui: Ui, sensor: str) -> set[str]:
    query = "query($of: RunsFilter!) { runsOrError(filter: $of) { ... on Runs { results { runId } } } }"
    found = ui.ask(query, of={"tags": [{"key": "dagster/sensor_name", "value": sensor}]})
    return {run["runId"] for run in found["runsOrError"]["results"]}


def _dropped(ui: Ui, name: str, text: str) -> Run:
    """The run that starts because a file came into the watched folder."""
    before = _started(ui, SENSOR)
    arrives(ui.project.root / "in/parcels" / name, text)
    (run,) = until(lambda: _started(ui, SENSOR) - before, f"no run started for {name}")
    return ui.wait(run)
