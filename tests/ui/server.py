"""The real Dagster of a project, started by `databrokkr dev`, and what a browser would ask it.

with dagster(project) as ui:
    run = ui.run("orders")
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.project import Project
from tests.services import HOST, Daemon, free_port

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds for anything that Dagster does; a machine that is busy with other tests needs them."""

ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
    ... on PipelineNotFoundError { message }
  }
}"""

RUN = """
query($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      runId status jobName tags { key value }
      eventConnection {
        events {
          __typename
          ... on MessageEvent { message level stepKey eventType }
          ... on MaterializationEvent {
            assetKey { path } description
            metadataEntries { ...facts }
          }
          ... on AssetCheckEvaluationEvent { evaluation { checkName success } }
          ... on ExecutionStepFailureEvent {
            error { message className stack causes { message stack } }
            failureMetadata { metadataEntries { ...facts } }
          }
        }
      }
    }
  }
}"""

FACTS = """
fragment facts on MetadataEntry {
  __typename label
  ... on TextMetadataEntry { text }
  ... on IntMetadataEntry { intValue }
  ... on FloatMetadataEntry { floatValue }
  ... on BoolMetadataEntry { boolValue }
  ... on JsonMetadataEntry { jsonString }
  ... on MarkdownMetadataEntry { mdStr }
  ... on PathMetadataEntry { path }
  ... on UrlMetadataEntry { url }
  ... on TableSchemaMetadataEntry { schema { columns { name type } } }
  ... on TableColumnLineageMetadataEntry {
    lineage { columnName columnDeps { assetKey { path } columnName } }
  }
  ... on CodeReferencesMetadataEntry {
    codeReferences { ... on LocalFileCodeReference { filePath lineNumber label } }
  }
}"""


@dataclass(frozen=True)
class Run:
    """A run that ended."""

    id: str
    status: str
    tags: Mapping[str, str]
    events: list[dict[str, Any]]

    def of(self, event: str) -> list[dict[str, Any]]:
        """Its events of one GraphQL type."""
        return [one for one in self.events if one["__typename"] == event]

    def materialised(self) -> dict[str, dict[str, Any]]:
        """The facts of each asset that the run materialised, by the last part of its key."""
        return {one["assetKey"]["path"][-1]: facts(one["metadataEntries"]) for one in self.of("MaterializationEvent")}

    def started(self) -> set[str]:
        """The nodes whose step began."""
        return {one["stepKey"].partition("__")[2] for one in self.of("ExecutionStepStartEvent")}


@dataclass(frozen=True)
class Ui:
    """A Dagster webserver with its daemon and code server; `answers` keeps every answer that it gave."""

    project: Project
    url: str
    answers: list[str] = field(default_factory=list)

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL answer without errors."""
        body = json.dumps({"query": query + (FACTS if "...facts" in query else ""), "variables": variables})
        request = urllib.request.Request(f"{self.url}/graphql", body.encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                text = reply.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        self.answers.append(text)
        answer = json.loads(text)
        assert not answer.get("errors"), text
        return answer["data"]

    def launch(self, pipeline: str, *nodes: str) -> str:
        """Materialise nodes of a pipeline, or all, as the button does; gives the run's id."""
        selector: dict[str, Any] = {
            "pipelineName": pipeline,
            "repositoryName": "__repository__",
            "repositoryLocationName": "project",
        }
        if nodes:
            selector["assetSelection"] = [{"path": [pipeline, node]} for node in nodes]
        answer = self.ask(LAUNCH, params={"selector": selector, "mode": "default"})["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def wait(self, run_id: str) -> Run:
        """The run, when it has ended."""
        return until(lambda: self._ended(run_id), f"the run {run_id} did not end")

    def run(self, pipeline: str, *nodes: str) -> Run:
        """Launch and wait."""
        return self.wait(self.launch(pipeline, *nodes))

    def _ended(self, run_id: str) -> Run | None:
        status = self.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        if status["runOrError"]["status"] not in ENDED:
            return None
        found = self.ask(RUN, id=run_id)["runOrError"]
        tags = {tag["key"]: tag["value"] for tag in found["tags"]}
        return Run(run_id, found["status"], tags, found["eventConnection"]["events"])


@contextmanager
def dagster(project: Project, **environment: str) -> Iterator[Ui]:
    """Start `databrokkr dev` in a project; gives it when the definitions are loaded. No process outlives the block."""
    port = free_port()
    given = [f"{name}={value}" for name, value in environment.items()]
    # A shell's background job ignores SIGINT, and so would all that it starts.
    command = ["setpriv", "--pdeathsig=INT", "env", "--default-signal=INT"]
    command += [f"--chdir={project.root}", *given, *project.command("dev", "--port", str(port))]
    daemon = Daemon(command, _folder(project))
    ui = Ui(project, f"http://{HOST}:{port}")
    try:
        daemon.start(lambda: _loaded(ui))
        yield ui
    finally:
        _stop(daemon)


def _folder(project: Project) -> Path:
    """Where the log goes: what git ignores already."""
    folder = project.root / ".databrokkr"
    folder.mkdir(exist_ok=True)
    return folder


def _stop(daemon: Daemon) -> None:
    """As Ctrl-C does. Fails when a process is still there after a while."""
    session = daemon.pid
    if session is None:
        return
    os.kill(session, signal.SIGINT)
    try:
        until(lambda: not _alive(session), "Dagster left processes")
    finally:
        for pid in _alive(session):
            os.kill(pid, signal.SIGKILL)
        daemon.stop(signal.SIGKILL)


def facts(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Metadata by label; each value is what the UI gets for it."""
    return {one["label"]: next(iter(_values(one)), None) for one in entries}


def until(look: Callable[[], T | None], otherwise: str) -> T:
    """What `look` gives as soon as it gives something. Fails with `otherwise` when patience ends."""
    give_up = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < give_up, otherwise
        time.sleep(0.1)
    return found


def _values(entry: dict[str, Any]) -> Iterator[Any]:
    return (value for key, value in entry.items() if key not in ("__typename", "label"))


def _loaded(ui: Ui) -> bool:
    query = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
    try:
        entries = ui.ask(query)["workspaceOrError"]["locationEntries"]
    except (urllib.error.URLError, OSError):
        return False
    kinds = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
    assert "PythonError" not in kinds, "the code location did not load"
    return kinds == ["RepositoryLocation"]


def _alive(session: int) -> list[int]:
    """The processes of a session: the webserver, the daemon, code servers and runs stay in that of `databrokkr dev`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = status.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(status.parent.name))
    return found
