"""A pipeline that does not load, as something that a person can see: one asset that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import dagster as dg

from databrokkr_assets.core.errors import DatabrokkrError, SpecError, SpecErrors, Where
from databrokkr_assets.core.names import is_name
from databrokkr_assets.factory.references import code_reference

BROKEN = "databrokkr/broken"
"""The tag of the asset that stands for a broken pipeline."""

MISTAKES = "databrokkr/mistakes"
"""The metadata key under which that asset lists the mistakes as JSON."""


def as_error(error: Exception, file: Path) -> DatabrokkrError:
    """Any failure to load as an error that says how to mend it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DatabrokkrError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return cause
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return SpecError(f"does not load: {type(root).__name__}: {root}", mend="correct the definition", where=Where(file))


def broken_defs(name: str, error: DatabrokkrError, root: Path) -> dg.Definitions:
    """Definitions with the error for all to see; materialising the asset raises it."""
    first = error.errors[0] if isinstance(error, SpecErrors) else error
    where = first.where if isinstance(first.where, Where) else None
    group = name if is_name(name) else "broken"
    text = _wrapped(str(error).replace(str(root) + "/", ""))

    @dg.asset(
        key=[group, "broken"] if is_name(name) else ["broken", _plain(name)],
        group_name=group,
        kinds={"broken"},
        tags={BROKEN: ""},
        description=f"**This pipeline does not load.**\n\n```\n{text}\n```",
        metadata={MISTAKES: dg.MetadataValue.json(_mistakes(error, root)), **code_reference(where, "the mistake")},
    )
    def broken() -> None:
        raise dg.Failure(text, allow_retries=False)

    return dg.Definitions(assets=[broken])


def _wrapped(text: str) -> str:
    """Lines that fit the UI's column; it cuts longer ones off."""
    return "\n".join(line for long in text.splitlines() for line in wrap(long, 100, subsequent_indent="    "))


def _mistakes(error: DatabrokkrError, root: Path) -> list[dict[str, Any]]:
    errors: list[Any] = list(error.errors) if isinstance(error, SpecErrors) else [error]
    return [
        {"where": str(one.where or "").replace(str(root) + "/", ""), "what": one.what, "mend": one.mend}
        for one in errors
    ]


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
