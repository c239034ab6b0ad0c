"""The specification: what a pipeline author writes, as models.

The same models serve YAML (through `core.reading`) and Python. Settings of connectors and transforms derive from the
node models here, so an author sees one flat mapping per node.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, SerializeAsAny, model_validator

from databrokkr_assets.core.contract import Contract
from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.ports import Cursor, Sink, Source, Stream, Taken
from databrokkr_assets.core.privacy import Masking
from databrokkr_assets.core.settings import Names, Settings

if TYPE_CHECKING:
    from sqlglot import exp


class Zone(StrEnum):
    """Where a dataset stands in the lake."""

    LANDING = "landing"
    RAW = "raw"
    STAGING = "staging"
    CURATED = "curated"
    ARCHIVE = "archive"


@dataclass(frozen=True)
class Origin:
    """An external system's table, file or bucket, as an asset upstream of a source or downstream of a sink."""

    key: tuple[str, ...]
    kind: str
    uri: str


@dataclass(frozen=True)
class Place:
    """Where a node stands: relative paths in its settings start at `project`."""

    project: Path

    def resolve(self, path: str) -> str:
        """`path` as an absolute path or the URL that it already is."""
        return path if "://" in path else str(self.project / Path(path).expanduser())


class ConnectionSettings(Settings):
    """Coordinates and secrets of one system. Secrets are `SecretStr`, so that they are never shown."""

    type: str
    """The connector's name."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """How many nodes may use the system at once, over all runs and machines; without it any number."""

    def alone(self, place: Place) -> str | None:
        """What only one thread of a process may work with at a time, such as a file that two libraries open; `None`
        where any number may."""
        return None


@dataclass(frozen=True)
class Finding:
    """One thing that a test of a connection found out: what was tried, whether it went well, and what was seen."""

    what: str
    ok: bool
    says: str
    mend: str = ""


class ChecksAccess(ABC):
    """A connection that can be tested."""

    @abstractmethod
    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the system is reachable, as whom, and with which rights, in seconds; changes nothing that stays.

        `name` is what errors call the connection. Ends at the first finding that makes the others pointless.
        """


class ListsStreams(ABC):
    """A connection whose system can say what it holds."""

    @abstractmethod
    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables, views or files that this user may read, by namespace and name. Reads no rows."""


class NodeSettings(Settings):
    """What every node can say."""

    type: str
    """What kind of node this is."""
    description: str = ""
    """Shown with the asset in the UI; Markdown."""
    owners: tuple[str, ...] = ()
    """Email addresses, or teams as `team:name`."""
    tags: Mapping[str, str] = Field(default_factory=dict)
    """Tags of the asset."""

    def accepts(self, connection: str) -> bool:
        """Whether the node can use a connection of this type; its own type, unless it says otherwise."""
        return connection == self.type


class _Disposed(NodeSettings):
    disposition: Literal["append", "replace", "merge", "history"] | None = None
    """How rows meet the table: `append`, `replace`, `merge` by `keys`, or `history` by `keys`, which keeps each version
    of a row with `valid_from` and `valid_to`."""
    keys: Names = ()
    """The columns that name a row; needed by `merge` and `history`."""

    @model_validator(mode="after")
    def _merge_has_keys(self) -> _Disposed:
        if self._meets_by_key() and not self.keys:
            raise ValueError(f"{self.disposition} needs `keys`, the columns that name a row; add e.g. `keys: [id]`")
        return self

    def _meets_by_key(self) -> bool:
        return self.disposition in ("merge", "history")

    def _how(self, default: Disposition) -> Disposition:
        match self.disposition:
            case "append":
                return Append()
            case "replace":
                return Replace()
            case "merge":
                return Merge(self.keys)
            case "history":
                return History(self.keys)
            case _:
                return default


class SourceSettings(_Disposed, ABC):
    """A source: reads a system into a dataset."""

    connection: str | None = None
    """The name of a connection, where the system needs one."""
    zone: Zone = Zone.RAW
    """The zone of the dataset."""
    max_rejects: int | None = Field(default=None, ge=0)
    """How many rows may be unreadable before the load fails; without it any number goes to quarantine."""
    contract: Contract = Field(default_factory=Contract)
    """What may change in the columns and types that come, and what happens otherwise: one word, or a mapping."""
    rename: Mapping[str, str] = Field(default_factory=dict)
    """Columns to call otherwise: the source's name, and the dataset's. So a column that the source renamed goes on
    under its old name."""
    masked: Mapping[str, Masking] = Field(default_factory=dict)
    """Personal data, by the source's column: `drop`, `hash`, `mask` or `encrypt`, before anything is stored."""
    masking_key: SecretStr | None = None
    """The secret of `hash` and `encrypt`, best `{{ env.NAME }}`; under one key the same values give the same text."""
    provenance: bool = False
    """Whether each row says where it came from: `_load_id`, `_source` (the file or table) and `_position` in it."""
    deleted_flag: str | None = None
    """A column that tells deleted rows by being true, a number but 0, or a time or text that is not NULL: `merge`
    removes the row with the same keys, `history` closes it."""
    delete_missing: bool = False
    """Whether a row whose keys do not come any more was deleted; for `merge` and `history` of a source that gives all
    its rows in each load."""

    @model_validator(mode="after")
    def _deletes_by_key(self) -> SourceSettings:
        if (self.deleted_flag or self.delete_missing) and not isinstance(self.how, Merge | History):
            raise ValueError("rows are deleted by their keys; add `disposition: merge` or `history`, and `keys`")
        return self

    @model_validator(mode="after")
    def _has_masking_key(self) -> SourceSettings:
        secret = [name for name, how in self.masked.items() if how in (Masking.HASH, Masking.ENCRYPT)]
        if secret and self.masking_key is None:
            raise ValueError(f"`{secret[0]}` is to be masked by a secret; add `masking_key: '{{{{ env.NAME }}}}'`")
        return self

    @property
    def how(self) -> Disposition:
        """The disposition asked for, or the one that fits how this source reads."""
        return self._how(self.default_disposition())

    def default_disposition(self) -> Disposition:
        """`Append` for a source that reads only what is new, `Replace` for one that reads everything."""
        return Replace()

    @abstractmethod
    def open(self, connection: ConnectionSettings | None, place: Place) -> Source:
        """A reader of the system. Cheap: the system is asked when the reader is used."""

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The external assets that this source reads; must not touch the network."""
        return ()


class ExpandsToStreams(ABC):
    """A source that reads several tables: in the pipeline it stands for one source for each of them."""

    @abstractmethod
    def patterns(self) -> tuple[str, ...]:
        """The names that only the system can complete, such as `sales_*`; none for a list of plain names."""

    @abstractmethod
    def finds(self, stream: Stream) -> bool:
        """Whether one of the patterns stands for `stream`."""

    @abstractmethod
    def expanded(self, known: Sequence[Stream]) -> Mapping[str, SourceSettings]:
        """The sources by what is added to this one's name; `known` is what discovery found.

        Raises SpecError or pydantic's ValidationError.
        """


class ReadsInParts(ABC):
    """A source that can be read part by part, so that a load that dies goes on where it was."""

    @property
    @abstractmethod
    def in_parts(self) -> bool:
        """Whether its author wants that."""

    @abstractmethod
    def bounds(self, connection: ConnectionSettings | None, place: Place) -> list[str]:
        """Where the parts begin, but for the first. Asks the system."""

    @abstractmethod
    def parted(self, bounds: Sequence[str]) -> list[SourceSettings]:
        """A source for each part, together all rows, whatever has come since the bounds were asked for."""


@dataclass(frozen=True)
class Range:
    """The values of a cursor from `low` up to, not including, `high`, as text."""

    low: str
    high: str


class ReadsRanges(ABC):
    """A source that can read a range of its cursor again."""

    @abstractmethod
    def within(self, values: Range) -> tuple[SourceSettings, str]:
        """The source of the rows of a range, and the SQL condition that tells these rows in the dataset.

        Raises SpecError for a source that has nothing to tell a range by.
        """


@dataclass(frozen=True)
class FromCopies:
    """What was landed is to be read again, in the place of the system."""


class LandsCopies(ABC):
    """A source that can keep its files in the lake as they came, and read them again from there."""

    @property
    @abstractmethod
    def lands(self) -> bool:
        """Whether its author wants that."""

    @abstractmethod
    def open_copies(self, copies: Sequence[Taken], place: Place) -> Source:
        """A reader of what one load took, by the settings as they are now; it asks no system."""


@dataclass(frozen=True)
class Arrivals:
    """Files that are new or have changed, and the cursor that knows them."""

    paths: list[str]
    cursor: Cursor


class WatchesFiles(ABC):
    """A source whose arrivals a sensor can see."""

    @abstractmethod
    def arrivals(self, place: Place, after: Cursor | None, connection: ConnectionSettings | None = None) -> Arrivals:
        """What came or changed since the cursor, without files that are still being written. Reads no rows."""


class TransformSettings(NodeSettings, ABC):
    """A transform: reshapes datasets into a dataset."""

    zone: Zone = Zone.CURATED
    """The zone of the dataset."""
    stored: bool = True
    """Whether the result is kept as a dataset; `false` makes it part of the queries of the nodes that read it."""

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The names of the nodes that this one reads, in no particular order, each once."""


class ComposesSql(ABC):
    """A transform that is a query: chains of them become one query."""

    @abstractmethod
    def to_sql(self, inputs: Mapping[str, exp.Expression]) -> exp.Query:
        """The query. Each input is a table reference to put wherever the input is read.

        Raises SpecError for SQL that cannot be parsed, with the line and column within the node's text.
        """


class CallsPython(ABC):
    """A transform that is a Python function over its inputs."""

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The names of the nodes that the function is given."""

    @abstractmethod
    def joins_inputs(self) -> bool:
        """Whether the function gets relations of one connection, which it may join, rather than a stream each."""

    @abstractmethod
    def call(self, inputs: Mapping[str, Any]) -> Any:
        """The function's result: an Arrow table, record batch reader, pandas data frame, or DuckDB relation.

        `inputs` are DuckDB relations by node name. Raises DataError when the function raises.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when the function's code does."""


class SinkSettings(_Disposed, ABC):
    """A sink: writes a dataset to a system."""

    input: str
    """The node whose dataset is written."""
    connection: str | None = None
    """The name of a connection, where the system needs one."""

    @property
    def how(self) -> Disposition:
        """The disposition asked for; a sink replaces unless told otherwise."""
        return self._how(Replace())

    @abstractmethod
    def open(self, connection: ConnectionSettings | None, place: Place) -> Sink:
        """A writer to the system. Cheap: the system is asked when the writer is used."""

    @abstractmethod
    def origin(self, connection: ConnectionSettings | None) -> Origin:
        """The table or file that is written, as the UI names it; must not touch the network."""

    def pool(self, connection: ConnectionSettings | None) -> str | None:
        """The Dagster pool that writers of this target share; `None` where any number may write."""
        return None


class OnFail(StrEnum):
    """The fate of a failed check."""

    WARN = "warn"
    QUARANTINE = "quarantine"
    BLOCK = "block"


class CheckSettings(Settings):
    """One Great Expectations expectation on a node's dataset.

    Every other key is a parameter of the expectation, by its own name: `column`, `min_value`, `mostly` …
    """

    model_config = Settings.model_config | {"extra": "allow"}

    type: str
    """The expectation's own name, e.g. `expect_column_values_to_not_be_null`."""
    dataset: str
    """The node whose rows are checked."""
    on_fail: OnFail = OnFail.BLOCK
    """`warn` shows it, `quarantine` sets the failing rows aside, `block` publishes nothing."""
    description: str = ""
    """Shown with the check in the UI."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The expectation's own parameters."""
        return self.model_extra or {}


class ScheduleSettings(Settings):
    """When the pipeline runs by the clock."""

    cron: str
    """A cron expression of five fields, e.g. `0 6 * * *`."""
    timezone: str = "UTC"
    """A name of the IANA time zone database, e.g. `Europe/Berlin`."""


class FileArrival(Settings):
    """Runs the pipeline when files have arrived for one of its sources."""

    type: Literal["file_arrival"]
    """The kind of event."""
    source: str
    """The `files` source whose path is watched; its node and everything downstream run."""
    every: float = Field(default=30.0, ge=1)
    """Seconds between two looks."""


class Pipeline(Settings):
    """Sources, transforms, sinks and checks of one name, and what starts them."""

    name: str
    """The pipeline's name; without it, the name of its folder."""
    description: str = ""
    """Shown with the pipeline's job in the UI."""
    owners: tuple[str, ...] = ()
    """The owners of every node that names none of its own."""
    tags: Mapping[str, str] = Field(default_factory=dict)
    """Tags of every node, beside its own."""
    sources: Mapping[str, SerializeAsAny[SourceSettings]] = Field(default_factory=dict)
    """What is read, by name."""
    transforms: Mapping[str, SerializeAsAny[TransformSettings]] = Field(default_factory=dict)
    """What is reshaped, by name."""
    sinks: Mapping[str, SerializeAsAny[SinkSettings]] = Field(default_factory=dict)
    """What is written, by name."""
    checks: Mapping[str, CheckSettings] = Field(default_factory=dict)
    """What is guarded, by name."""
    schedule: ScheduleSettings | None = None
    """When the pipeline runs by the clock."""
    triggers: Mapping[str, FileArrival] = Field(default_factory=dict)
    """What starts the pipeline beside its schedule, by name."""
    parallel_reads: int = Field(default=2, ge=1)
    """How many of its sources are read at once; each takes memory of its own."""

    def nodes(self) -> Iterator[tuple[str, NodeSettings]]:
        """Every node by name: sources, then transforms, then sinks."""
        yield from self.sources.items()
        yield from self.transforms.items()
        yield from self.sinks.items()

    def inputs_of(self, node: str) -> tuple[str, ...]:
        """The names of the nodes that `node` reads."""
        if node in self.transforms:
            return self.transforms[node].inputs()
        return (self.sinks[node].input,) if node in self.sinks else ()

    def checks_on(self, node: str) -> dict[str, CheckSettings]:
        """The checks that guard `node`."""
        return {name: check for name, check in self.checks.items() if check.dataset == node}
