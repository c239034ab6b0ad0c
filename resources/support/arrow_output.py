"""Writes rows as Arrow batches, in types that a format has and that hold the values unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from databrokkr_assets.core.names import quoted
from resources.support.file_output import stored_as

if TYPE_CHECKING:
    import pyarrow as pa

    from resources.support.file_formats import Writing
