"""Tables in a git repository: a table is a Parquet file of a branch, and a load is one commit.

A commit holds the rows and the ledger alike, and a branch moves from one commit to another in one step, if nobody else
has moved it meanwhile. That is all that exactly once needs. What a load that died has left are objects that no commit
names, which git removes in its own time.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, did_you_mean
from databrokkr_assets.core.ports import Batch, Cursor, Delivery, Load, LoadMark, Receipt, Sink, Source, Stream, Target
from databrokkr_assets.core.spec import (
    ChecksAccess,
    ConnectionSettings,
    Finding,
    ListsStreams,
    Origin,
    Place,
    SinkSettings,
    SourceSettings,
)
from resources.base import Connector
from resources.support import ledger

LEDGER = f"{ledger.TABLE}.json"
ENDING = ".parquet"


class GitConnection(ConnectionSettings, ChecksAccess, ListsStreams):
    """A git repository on this machine."""

    type: Literal["git"]
    path: str
    """The repository's folder, bare or not, relative to the project."""
    branch: str = "main"
    """The branch that holds the tables; the first load makes it. A work tree where it is checked out does not move."""

    def repository(self, name: str | None, place: Place) -> Repository:
        """The repository, whose connection is called `name` in errors."""
        return Repository(name or "git", place.resolve(self.path), f"refs/heads/{self.branch}")

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether there is a repository, and what it holds."""
        try:
            tables = self.repository(name, place).tables()
        except AccessError as error:
            yield Finding("read the repository", False, error.what, error.mend)
        else:
            yield Finding("read the repository", True, f"{len(tables)} tables in {self.branch}")

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables of the branch."""
        yield from map(Stream, sorted(self.repository(name, place).tables()))


@dataclass(frozen=True)
class Repository:
    """The tip of one branch, as git's own commands see and move it."""

    name: str
    path: str
    ref: str

    def tip(self) -> str:
        """The newest commit; empty before the first."""
        return self._git("for-each-ref", "--format=%(objectname)", self.ref).decode().strip()

    def files(self, commit: str) -> dict[str, str]:
        """The objects of the files of a commit, by name."""
        listed = self._git("ls-tree", "-z", commit).decode().split("\0") if commit else []
        pairs = (line.split("\t", 1) for line in listed if line)
        return {name: told.split(" ")[2] for told, name in pairs if told.split(" ")[1] == "blob"}

    def tables(self) -> list[str]:
        """The names of the tables."""
        return [name.removesuffix(ENDING) for name in self.files(self.tip()) if name.endswith(ENDING)]

    def read(self, blob: str, into: Path) -> None:
        """Write the content of an object into a file."""
        with into.open("wb") as file:
            self._git("cat-file", "blob", blob, out=file)

    def text(self, blob: str) -> str:
        """The content of a small object."""
        return self._git("cat-file", "blob", blob).decode()

    def keep(self, file: Path) -> str:
        """Store a file; gives its object, which no commit names yet."""
        return self._git("hash-object", "-w", "--no-filters", str(file)).decode().strip()

    def commit(self, before: str, files: Mapping[str, str], message: str) -> bool:
        """Make `files` the branch's next commit; false when its tip is not `before` any more."""
        lines = "".join(f"100644 blob {blob}\t{name}\0" for name, blob in files.items())
        tree = self._git("mktree", "-z", given=lines).decode().strip()
        parent = ["-p", before] if before else []
        fresh = self._git("commit-tree", tree, *parent, given=message).decode().strip()
        try:
            self._git("update-ref", self.ref, fresh, before or "0" * len(fresh))
        except AccessError:
            if self.tip() == before:
                raise
            return False
        return True

    def _git(self, *words: str, given: str = "", out: IO[bytes] | None = None) -> bytes:
        """What a git command says. Raises AccessError, or SpecError where git is not installed."""
        who = {f"GIT_{role}_{what}": "databrokkr" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        command, environment, into = ["git", "-C", self.path, *words], {**os.environ, **who}, out or subprocess.PIPE
        try:
            done = subprocess.run(
                command, input=given.encode(), stdout=into, stderr=subprocess.PIPE, env=environment, check=False
            )
        except FileNotFoundError as error:
            raise SpecError("git is not installed", mend="install git") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip() or f"git ended with {done.returncode}"
            raise _refused(said, self.name)
        return done.stdout or b""


def _refused(said: str, name: str) -> AccessError:
    mend = f"check `path` of the connection {name}, that this user may write there, and that its disk has space"
    return AccessError(said, mend=mend, where=f"connection {name}")


def _opened(file: Path) -> pq.ParquetFile:
    # Buffered by the megabyte; else pyarrow would hold what it reads ahead, which is all.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)


# ----- reading


class GitSource(SourceSettings):
    """Reads all rows of a table, as the branch's tip has them."""

    type: Literal["git"]
    connection: str
    table: str
    """The table: the name of its file, without `.parquet`."""

    def open(self, connection: ConnectionSettings | None, place: Place) -> GitReader:
        """A reader of the table."""
        assert isinstance(connection, GitConnection)
        return GitReader(connection.repository(self.connection, place), self.table)

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The table."""
        return (Origin(("git", self.connection, self.table), "git", f"git:{self.table}"),)


@dataclass(frozen=True)
class GitReader(Source):
    """Reads one table."""

    repository: Repository
    table: str

    def streams(self) -> Iterable[Stream]:
        """The one table."""
        return [Stream(self.table)]

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """All its rows. Raises SpecError when there is no such table, AccessError."""
        blob = self.repository.files(self.repository.tip()).get(self.table + ENDING)
        if blob is None:
            mend = did_you_mean(self.table, self.repository.tables())
            raise SpecError(f'there is no table "{self.table}"', mend=mend)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rows")
            self.repository.read(blob, file)
            with _opened(file) as rows:
                yield Batch(pa.RecordBatch.from_pylist([], rows.schema_arrow))
                yield from map(Batch, rows.iter_batches(10_000))


# ----- writing


class GitSink(SinkSettings):
    """Writes a table, each load in one commit."""

    type: Literal["git"]
    connection: str
    table: str
    """The table: the name of its file, without `.parquet`."""

    def open(self, connection: ConnectionSettings | None, place: Place) -> GitWriter:
        """A writer of the table."""
        assert isinstance(connection, GitConnection)
        return GitWriter(connection.repository(self.connection, place), self.table)

    def origin(self, connection: ConnectionSettings | None) -> Origin:
        """The table."""
        return Origin(("git", self.connection, self.table), "git", f"git:{self.table}")


@dataclass(frozen=True)
class GitWriter(Sink):
    """Rows and ledger change in one commit."""

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace})
    delivery: ClassVar[Delivery] = Delivery.EXACTLY_ONCE
    repository: Repository
    table: str

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError."""
        files = self.repository.files(self.repository.tip())
        return ledger.mark(_marks(self.repository, files).get(target.node))

    @contextmanager
    def begin(self, target: Target, how: Disposition, load: LoadMark) -> Iterator[GitLoad]:
        """Open a load; its rows wait in a file."""
        if "/" in self.table:
            raise SpecError(f'"{self.table}" cannot be a file\'s name', mend="write a table's name without a slash")
        with tempfile.TemporaryDirectory() as folder:
            writer = pq.ParquetWriter(Path(folder, "fresh"), target.schema.remove_metadata())
            try:
                yield GitLoad(self, target, how, load, Path(folder), writer)
            finally:
                with suppress(OSError):  # of a full disk, which was told already
                    writer.close()


@dataclass
class GitLoad(Load):
    """One load: a Parquet file, then one commit."""

    sink: GitWriter
    target: Target
    how: Disposition
    load: LoadMark
    folder: Path
    writer: pq.ParquetWriter
    rows: int = 0

    def write(self, records: pa.RecordBatch) -> None:
        """Add rows to the file. Raises AccessError when the disk is full."""
        with _told_plainly(self.sink.repository):
            self.writer.write_batch(records.cast(self.writer.schema))
        self.rows += records.num_rows

    def commit(self) -> Receipt:
        """Move the branch, if the ledger at its tip names the load that this one continues.

        Raises Unavailable when it names another, AccessError, or DataError for columns whose types do not fit.
        """
        repository, file, node = self.sink.repository, self.sink.table + ENDING, self.target.node
        place = f"{repository.path}:{file}"
        with _told_plainly(repository):
            self.writer.close()
        while True:
            tip = repository.tip()
            files = repository.files(tip)
            marks = _marks(repository, files)
            if ledger.already(ledger.mark(marks.get(node)), self.load, place):
                return Receipt(0, place, already=True)
            marks[node] = [self.load.load_id, self.load.dataset, self.load.version, self.load.run_id]
            fresh = {file: self._whole(files.get(file)), LEDGER: repository.keep(self._written(marks))}
            # Another table's load may have moved the branch: what it made is what this one goes on from.
            if repository.commit(tip, {**files, **fresh}, f"{self.rows} rows by {node}, load {self.load.load_id}"):
                return Receipt(self.rows, place)

    def _written(self, marks: Mapping[str, list[Any]]) -> Path:
        file = self.folder / LEDGER
        file.write_text(json.dumps(marks, indent=1))
        return file

    def _whole(self, before: str | None) -> str:
        """The table's next file: for `append` behind the rows that are there."""
        with _told_plainly(self.sink.repository):
            fresh, old, joined = (self.folder / name for name in ("fresh", "old", "joined"))
            if before is None or isinstance(self.how, Replace):
                return self.sink.repository.keep(fresh)
            self.sink.repository.read(before, old)
            _join([old, fresh], joined)
            return self.sink.repository.keep(joined)


def _join(parts: list[Path], whole: Path) -> None:
    """Write the rows of several Parquet files into one, batch by batch; columns that one lacks are NULL there."""
    opened = [_opened(part) for part in parts]
    try:
        schema = pa.unify_schemas([part.schema_arrow for part in opened])
    except pa.ArrowException as error:
        mend = "cast the column in a transform, or use `disposition: replace`"
        raise DataError(f"the table has a column of another type: {error}", mend=mend) from error
    with pq.ParquetWriter(whole, schema) as writer:
        for part in opened:
            for batch in part.iter_batches(10_000):
                missing = {name: pa.nulls(len(batch), schema.field(name).type) for name in schema.names}
                columns = {**missing, **dict(zip(batch.schema.names, batch.columns, strict=True))}
                writer.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))


def _marks(repository: Repository, files: Mapping[str, str]) -> dict[str, list[Any]]:
    """The ledger: for each node its newest load, in the order of `ledger.mark`."""
    if LEDGER not in files:
        return {}
    found: dict[str, list[Any]] = json.loads(repository.text(files[LEDGER]))
    return found


@contextmanager
def _told_plainly(repository: Repository) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refused(str(error), repository.name) from error


connector = Connector(
    name="git",
    summary="Tables in a git repository: read as the branch has them, written exactly once, each load one commit.",
    kind="git",
    connection=GitConnection,
    source=GitSource,
    sink=GitSink,
)
