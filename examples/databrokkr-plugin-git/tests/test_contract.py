"""The whole contract suite over the connector, on a real repository."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from databrokkr_contract.case import CanBeReadOnly, Case, HoldsTypes, Rows, RunsFull, Settings
from databrokkr_contract.places import SMALL, unwritable
from databrokkr_contract.suite import contract

from databrokkr_assets.core.disposition import Disposition


class GitCase(Case, HoldsTypes, CanBeReadOnly, RunsFull):
    title = "git"
    connector = "git"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def fresh(cls, system: Any, folder: Path) -> Iterator[GitCase]:
        subprocess.run(["git", "init", "-q", "--bare", folder / "shop.git"], check=True)
        yield cls(folder / "shop.git")

    def connection(self) -> Settings:
        return {"path": str(self.folder)}

    def source(self, table: str) -> Settings:
        return {"table": table}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": table}

    def put(self, table: str, rows: pa.Table) -> None:
        content = io.BytesIO()
        pq.write_table(rows, content)
        blob = self._git("hash-object", "-w", "--stdin", given=content.getvalue()).decode().strip()
        line = f"100644 {blob}\t{table}.parquet\0"
        self._git("update-index", "-z", "--index-info", given=line.encode())
        tree = self._git("write-tree").decode().strip()
        commit = self._git("commit-tree", tree, "-m", "put").decode().strip()
        self._git("update-ref", "refs/heads/main", commit)

    def get(self, table: str) -> Rows:
        done = subprocess.run(
            ["git", "-C", self.folder, "cat-file", "blob", f"main:{table}.parquet"], capture_output=True
        )
        return pq.read_table(io.BytesIO(done.stdout)).to_pylist() if done.returncode == 0 else []

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with unwritable(self.folder):
            yield None

    @contextmanager
    def full_disk(self) -> Iterator[int]:
        yield SMALL

    def _git(self, *words: str, given: bytes = b"") -> bytes:
        who = {f"GIT_{role}_{what}": "tester" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        command = ["git", "-C", str(self.folder), *words]
        return subprocess.run(command, input=given, check=True, capture_output=True, env={**os.environ, **who}).stdout


TestGit = contract(GitCase)
