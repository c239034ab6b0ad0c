"""Where in the YAML something stands, as the Dagster UI links it."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg

from databrokkr_assets.core.errors import Where


def code_reference(where: Where | None, label: str) -> dict[str, Any]:
    """The metadata that links to a file and line; none when the place is not known."""
    if where is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=str(where.file), line_number=where.line, label=label)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}
