"""A project as one code location: each folder of `defs/` loads by itself, so a broken one shows and the rest work."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from databrokkr_assets.core.dg_project import project_of
from databrokkr_assets.core.document import Document, read_documents
from databrokkr_assets.core.errors import DatabrokkrError, SpecError, Where
from databrokkr_assets.factory.assets import LAKE_RESOURCE
from databrokkr_assets.factory.broken import as_error, broken_defs
from databrokkr_assets.factory.components import DEFS, connections_in, lake_in, resource
from databrokkr_assets.factory.project import CURRENT, Project


def load_project(within: Path) -> dg.Definitions:
    """The definitions of the project that the path `within` belongs to: where its `pyproject.toml` with `[tool.dg]` is.

    Never fails for a mistake in one pipeline: that pipeline becomes an asset that says what is wrong.
    """
    loader = _loader(within)
    project = loader.project
    token = CURRENT.set(project)
    try:
        with warnings.catch_warnings():
            # Dagster's own loader uses what it calls beta and preview.
            warnings.simplefilter("ignore", dg.BetaWarning)
            warnings.simplefilter("ignore", dg.PreviewWarning)
            parts = list(loader.parts())
    finally:
        CURRENT.reset(token)
    return dg.Definitions.merge(*_without_doubles(parts), _shared(project))


def folders_of(within: Path) -> tuple[Project, list[Path]]:
    """The project that `within` belongs to, its connections and lake noted, and its folders with definitions."""
    loader = _loader(within)
    folders = list(_folders(loader.top))
    for folder in folders:
        loader.note_shared(folder)
    return loader.project, folders


def _loader(within: Path) -> _Loader:
    root, settings = project_of(within)
    return _Loader(Project(root), settings.get("defs_module") or f"{settings['root_module']}.defs")


_LAKE = "databrokkr_assets.Lake"


@dataclass
class _Loader:
    project: Project
    module: str

    @property
    def top(self) -> Path:
        """The folder of all definitions."""
        return Path(next(iter(importlib.import_module(self.module).__path__)))

    def parts(self) -> Iterator[dg.Definitions]:
        """Definitions of each folder; shared components first, since pipelines refer to them."""
        top = self.top
        folders = list(_folders(top))
        broken = {folder: self.note_shared(folder) for folder in folders}
        yield from (self._astray(file) for file in _files(top))
        for folder in folders:
            error = broken[folder]
            yield broken_defs(folder.name, error, self.project.root) if error else self._build(top, folder)

    def note_shared(self, folder: Path) -> DatabrokkrError | None:
        """Note the connections and the lake of a folder in the project; gives why its documents cannot be read."""
        file = folder / DEFS
        try:
            for document in read_documents(file) if file.exists() else []:
                self._note(document)
        except Exception as error:
            found = as_error(error, file)
            if _LAKE in file.read_text(errors="replace"):
                self.project.lake = found
            return found
        return None

    def _note(self, document: Document) -> None:
        context = dg.ResolutionContext.default()
        if document.type == "databrokkr_assets.Connections":
            self.project.connections |= connections_in(document, context)
        if document.type == _LAKE:
            self.project.lake = lake_in(document, context, self.project.root)

    def _astray(self, file: Path) -> dg.Definitions:
        what, mend = f"{file.name} stands outside of a folder", f"move it to {file.parent.name}/<pipeline>/{file.name}"
        return broken_defs(file.stem, SpecError(what, mend=mend, where=Where(file)), self.project.root)

    def _build(self, top: Path, folder: Path) -> dg.Definitions:
        name = ".".join([self.module, *folder.relative_to(top).parts])
        try:
            tree = dg.ComponentTree.from_module(importlib.import_module(name), self.project.root)
            return tree.build_defs(folder)
        except Exception as error:
            code = sorted(file for file in folder.iterdir() if file.suffix in (".yaml", ".py"))
            file = folder / DEFS if (folder / DEFS).exists() else code[0]
            return broken_defs(folder.name, as_error(error, file), self.project.root)


def _files(top: Path) -> Iterator[Path]:
    """Definitions that stand directly in `defs/`, where no pipeline's name can be told."""
    yield from (
        file for file in sorted(top.glob("*")) if file.suffix in (".yaml", ".py") and file.name != "__init__.py"
    )


def _folders(top: Path) -> Iterator[Path]:
    """The folders that hold definitions, each the outermost of its kind."""
    for folder in sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))):
        if any(file.suffix in (".yaml", ".py") for file in folder.iterdir() if file.name != "__init__.py"):
            yield folder
        else:
            yield from _folders(folder)


def _without_doubles(parts: list[dg.Definitions]) -> Iterator[dg.Definitions]:
    """Two pipelines of one name would take the whole code location down; the second says so instead."""
    seen: set[dg.AssetKey] = set()
    for part in parts:
        keys = {key for asset in part.assets or [] for key in _keys(asset)}
        taken = keys & seen
        if taken:
            key = sorted(taken)[0]
            error = SpecError(
                f"the asset {key.to_user_string()} is defined twice",
                mend="rename the folder or give the pipeline a `name:`",
            )
            yield broken_defs(f"{key.path[0]}_again", error, Path())
        else:
            seen |= keys
            yield part


def _keys(asset: object) -> list[dg.AssetKey]:
    if isinstance(asset, dg.AssetsDefinition):
        return list(asset.keys)
    return [asset.key] if isinstance(asset, dg.AssetSpec) else []


def _shared(project: Project) -> dg.Definitions:
    """What all pipelines use: the lake, the systems outside, and steps that run in the run's own process."""
    origins = [
        dg.AssetSpec(
            key=list(origin.key),
            deps=[dg.AssetKey(list(project.targets[origin.key]))] if origin.key in project.targets else [],
            kinds={origin.kind},
            group_name="external",
            description=f"A system outside, at `{origin.uri}`.",
            metadata={"dagster/uri": origin.uri},
        )
        for origin in project.origins.values()
    ]
    lake = resource("lake", project.lake, _lake_told(project))
    return dg.Definitions(assets=origins, resources={LAKE_RESOURCE: lake}, executor=dg.in_process_executor)


def _lake_told(project: Project) -> str:
    try:
        return f"The lake at `{project.store().url}`."
    except DatabrokkrError as error:
        return f"Not usable: {error.what}"
