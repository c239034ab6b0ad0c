"""Peak memory of a whole run: TPC-H `lineitem`, PostgreSQL → dataset → DuckDB, as `databrokkr run` does it.

    python -m benchmarks.memory --scale 1 --scale 3

prints for each scale the rows, seconds and peak memory of the run's process, and how much the peak grew. It checks that
every row arrived, by count and by sums of exact columns, before it counts. Bars: 700 MB, and 15 % growth from 1 to 3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg

from tests.project import Project
from tests.services import Postgres, postgres

PIPELINE = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    lineitem: {type: postgres, connection: source, table: lineitem}
  sinks:
    copy: {type: duckdb, connection: warehouse, table: lineitem, input: lineitem}
  checks:
    keyed: {type: expect_column_values_to_not_be_null, dataset: lineitem, column: l_orderkey}
    priced: {type: expect_column_values_to_be_between, dataset: lineitem, column: l_extendedprice, min_value: 0}
"""
CONNECTIONS = """\
type: databrokkr_assets.Connections
attributes:
  source: {type: postgres, url: "{{ env.BENCH_DSN }}"}
  warehouse: {type: duckdb, path: warehouse.duckdb}
"""
TRUTH = (
    "SELECT count(*), sum(l_orderkey), sum(l_quantity), sum(l_extendedprice), sum(l_tax), min(l_shipdate), "
    "max(l_receiptdate), sum(length(l_comment)) FROM lineitem"
)


@dataclass(frozen=True)
class Figure:
    """One run at one scale."""

    scale: float
    rows: int
    seconds: float
    peak_mb: float


def main() -> int:
    """Run at every scale and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--scale", type=float, action="append", help="TPC-H scale; repeatable; 1 and 3 by default")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="databrokkr-bench-") as folder, postgres(max_wal_size="8GB") as server:
        figures = [_measured(scale, Path(folder), server) for scale in given.scale or [1, 3]]
    _print(figures, as_json=given.json)
    return 0


def _measured(scale: float, folder: Path, server: Postgres) -> Figure:
    name = f"scale_{scale:g}".replace(".", "_")
    dsn = server.create_database(name)
    _fill(dsn, scale, folder)
    (folder / name).mkdir()
    project = Project.made(folder / name)
    project.write("connections", CONNECTIONS)
    project.write("load", PIPELINE)
    began = time.monotonic()
    peak = _peak_of(project, {"BENCH_DSN": dsn})
    seconds = time.monotonic() - began
    figure = Figure(scale, _right(project, dsn), seconds, peak)
    server.drop_database(name)
    return figure


def _fill(dsn: str, scale: float, folder: Path) -> None:
    """Generate lineitem and copy it into PostgreSQL, analysed as a used table is."""
    tpchgen = str(Path(sys.executable).with_name("tpchgen-cli"))
    target = folder / "tpch"
    command = [tpchgen, "csv", "-s", f"{scale:g}", "--tables", "lineitem", "--output-dir", str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    file = next(target.rglob("lineitem*.csv"))
    with psycopg.connect(dsn, autocommit=True) as source:
        source.execute(
            "CREATE TABLE lineitem (l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber int, "
            "l_quantity numeric(15, 2), l_extendedprice numeric(15, 2), l_discount numeric(15, 2), "
            "l_tax numeric(15, 2), l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, "
            "l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text)"
        )
        copying = "COPY lineitem FROM STDIN (FORMAT csv, HEADER)"
        with source.cursor() as cursor, cursor.copy(copying) as copy, file.open("rb") as rows:
            while block := rows.read(1 << 20):
                copy.write(block)
        source.execute("ANALYZE lineitem")
    file.unlink()


def _peak_of(project: Project, environment: dict[str, str]) -> float:
    """Run the pipeline to its end; the peak resident memory of its process, in MB of 1,000,000 bytes."""
    command = project.command("run", "load", "--json")
    process = subprocess.Popen(command, cwd=project.root, env={**os.environ, **environment}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    report = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run failed:\n{report.decode()}")
    return usage.ru_maxrss * 1024 / 1e6


def _right(project: Project, dsn: str) -> int:
    """The number of rows, once the copy's sums are those of the source."""
    with psycopg.connect(dsn) as source:
        truth = source.execute(TRUTH).fetchone()
    with duckdb.connect(str(project.root / "warehouse.duckdb"), read_only=True) as warehouse:
        copied = warehouse.execute(TRUTH).fetchone()
    if truth is None or copied is None or list(truth) != list(copied):
        raise SystemExit(f"the copy is wrong:\n  source {truth}\n  copy   {copied}")
    return int(truth[0])


def _print(figures: list[Figure], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([vars(figure) for figure in figures], indent=2))
        return
    print(f"{platform.platform()}, {os.cpu_count()} cores, DuckDB {duckdb.__version__}")
    print(f"{'scale':>6} {'rows':>12} {'seconds':>8} {'peak MB':>8} {'growth':>7}")
    for figure in figures:
        growth = figure.peak_mb / figures[0].peak_mb - 1
        print(f"{figure.scale:>6g} {figure.rows:>12,} {figure.seconds:>8.1f} {figure.peak_mb:>8.0f} {growth:>6.0%}")


if __name__ == "__main__":
    sys.exit(main())
