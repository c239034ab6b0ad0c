"""Runs one node: brings the settings, the connection, the dataset and the gate together for the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from threading import Lock

from databrokkr_assets.core.errors import DatabrokkrError, SpecError
from databrokkr_assets.core.graph import stored_inputs
from databrokkr_assets.core.run_tags import Again
from databrokkr_assets.core.spec import (
    ConnectionSettings,
    FromCopies,
    LandsCopies,
    Pipeline,
    Place,
    Range,
    ReadsInParts,
    ReadsRanges,
    SourceSettings,
    Zone,
)
from databrokkr_assets.engine.deleting import Deletes
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.job import Job, Outcome
from databrokkr_assets.engine.loading import load, load_range
from databrokkr_assets.engine.parts import Parts, load_in_parts
from databrokkr_assets.engine.progress import Listener, silent
from databrokkr_assets.engine.reloading import reload
from databrokkr_assets.engine.shaping import Shape
from databrokkr_assets.engine.transforming import transform
from databrokkr_assets.factory.project import Project
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.landing import LANDING
from databrokkr_assets.lake.store import Store
from quality.gate import gate

LISTENER: ContextVar[Listener] = ContextVar("databrokkr_listener", default=silent)
"""Who is told how far the work is; the command line sets it."""

QUARANTINE = "quarantine"
"""The folder of the lake that holds dead letters, beside the zones."""


_GUARD = Lock()
_ALONE: dict[str, Lock] = {}
"""A lock for each thing that only one thread of this process may work with, by its name."""


class Worker:
    """Runs the nodes of one pipeline in one run."""

    def __init__(self, pipeline: Pipeline, project: Project, run_id: str = "", again: Again | None = None) -> None:
        """With `again`, sources read that again, rather than what is new."""
        self.pipeline = pipeline
        self._again = again
        self._project = project
        self._run_id = run_id

    def run(self, node: str) -> Outcome:
        """Do the node's work. Raises our errors, each naming the node."""
        try:
            with self._alone(node):
                return self._run(node)
        except DatabrokkrError as error:
            error.where = error.where or f"{self.pipeline.name}/{node}"
            raise

    @contextmanager
    def _alone(self, node: str) -> Iterator[None]:
        """Wait for other threads of this process whose system lets only one of them work with it."""
        settings = self.pipeline.sources.get(node) or self.pipeline.sinks.get(node)
        connection = self._project.connection(settings.connection) if settings else None
        key = connection.alone(self._project.place) if connection else None
        if key is None:
            yield
            return
        with _GUARD:
            lock = _ALONE.setdefault(key, Lock())
        with lock:
            yield

    def _run(self, node: str) -> Outcome:
        if node in self.pipeline.sources:
            return self._load(node)
        if node in self.pipeline.sinks:
            return self._deliver(node)
        inputs = {name: self.dataset(name) for name in stored_inputs(self.pipeline, node)}
        return transform(self._job(node), self.pipeline, node, inputs)

    def dataset(self, node: str) -> Dataset:
        """Where the node's rows stand."""
        settings = self.pipeline.sources.get(node) or self.pipeline.transforms[node]
        return self._dataset(settings.zone, node)

    def quarantine(self, node: str) -> Dataset:
        """Where the node's dead letters stand."""
        return self._dataset(QUARANTINE, node)

    def _dataset(self, zone: Zone | str, node: str) -> Dataset:
        name = self.pipeline.name
        return Dataset(self._project.store().child(str(zone), name, node), f"{name}/{node}")

    def _load(self, node: str) -> Outcome:
        settings, place = self.pipeline.sources[node], self._project.place
        if isinstance(self._again, FromCopies):
            return self._reload(node, settings)
        connection = self._project.connection(settings.connection)
        if isinstance(self._again, Range):
            return self._load_range(node, settings, connection, self._again)
        job = self._source_job(node, settings)
        if isinstance(settings, ReadsInParts) and settings.in_parts:
            return load_in_parts(job, _parts(settings, connection, place), settings.how)
        if isinstance(settings, LandsCopies) and settings.lands:
            job = replace(job, landing=self._landing(node))
        return load(job, settings.open(connection, place), settings.how)

    def _load_range(
        self, node: str, settings: SourceSettings, connection: ConnectionSettings | None, values: Range
    ) -> Outcome:
        if not isinstance(settings, ReadsRanges):
            raise SpecError(f"{settings.type} cannot read a range again", mend="run it without a range")
        within, condition = settings.within(values)
        source = within.open(connection, self._project.place)
        return load_range(self._source_job(node, within), source, within.how, values.high, condition)

    def _reload(self, node: str, settings: SourceSettings) -> Outcome:
        if not isinstance(settings, LandsCopies):
            raise SpecError(f"{settings.type} keeps no copies to read again", mend="run it, to ask the source")
        opens = partial(settings.open_copies, place=self._project.place)
        return reload(self._source_job(node, settings), self._landing(node), settings.how, opens)

    def _landing(self, node: str) -> Store:
        """Where copies of the node's files stand."""
        return self._project.store().child(LANDING, self.pipeline.name, node)

    def _deliver(self, node: str) -> Outcome:
        settings = self.pipeline.sinks[node]
        sink = settings.open(self._project.connection(settings.connection), self._project.place)
        job = Job(
            node=f"{self.pipeline.name}/{node}",
            dataset=self.dataset(settings.input),
            quarantine=self.quarantine(node),
            run_id=self._run_id,
            listener=LISTENER.get(),
        )
        return deliver(job, sink, settings.how)

    def _source_job(self, node: str, settings: SourceSettings) -> Job:
        return replace(
            self._job(node),
            max_rejects=settings.max_rejects,
            contract=settings.contract,
            deletes=Deletes(settings.deleted_flag, settings.delete_missing),
            shape=_shape(settings),
        )

    def _job(self, node: str) -> Job:
        return Job(
            node=f"{self.pipeline.name}/{node}",
            dataset=self.dataset(node),
            quarantine=self.quarantine(node),
            gate=gate(self.pipeline.checks_on(node)),
            run_id=self._run_id,
            listener=LISTENER.get(),
        )


def _parts(settings: SourceSettings, connection: ConnectionSettings | None, place: Place) -> Parts:
    assert isinstance(settings, ReadsInParts)
    told = settings.model_dump_json()
    key = settings.masking_key.get_secret_value() if settings.masking_key else ""
    return Parts(
        hashlib.sha256(f"{told} {key}".encode()).hexdigest(),
        lambda: settings.bounds(connection, place),
        lambda bounds: [part.open(connection, place) for part in settings.parted(bounds)],
    )


def _shape(settings: SourceSettings) -> Shape:
    key = settings.masking_key.get_secret_value() if settings.masking_key else ""
    return Shape(settings.masked, key, settings.rename, settings.provenance)
