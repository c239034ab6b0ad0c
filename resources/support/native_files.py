"""Files in formats that libraries read for us: the child process stores each as Parquet, which DuckDB reads."""

from __future__ import annotations

from pathlib import Path

from databrokkr_assets.core.ports import RelationRead
from resources.support.file_formats import Reading
from resources.support.parquet_files import relation_of, with_casts


def stored_relation(reading: Reading, function: str) -> RelationRead:
    """The rows of the files as a query, in the order of the files; a column that a file lacks is NULL there.

    `function(source, target)` in the child stores one file by `arrow_storing.store` and gives what that gives. Raises
    DataError for a file that is not of its format, and for a column whose types do not fit together.
    """
    paths: dict[str, Path] = {}
    casts: dict[str, str] = {}
    for file in reading.files:
        paths[file.key] = target = reading.work.new(".parquet")
        source = reading.plain(file).absolute()
        casts.update(reading.child.call(function, file.key, source=str(source), target=str(target)))
    return with_casts(relation_of(reading.duck, paths, provenance=reading.provenance), casts)
