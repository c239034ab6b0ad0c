"""What discovery found for a pipeline's sources, kept in a file beside its `defs.yaml`.

Definitions load without the network, so what patterns such as `sales_*` stand for is looked up by a command, reviewed
and versioned like the pipeline itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from databrokkr_assets.core.errors import SpecError, Where
from databrokkr_assets.core.ports import Stream

FILE = "discovered.json"
"""The file's name."""

Found = Mapping[str, Sequence[Stream]]
"""The streams of each source, by the source's name."""


def read_discovered(folder: Path) -> Found:
    """What was found for the pipeline in `folder`; nothing before the first look. Raises SpecError."""
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {source: [_stream(one) for one in streams] for source, streams in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SpecError(
            f"cannot be read: {error}", mend="remove it, then run `databrokkr refresh`", where=Where(file)
        ) from error


def write_discovered(folder: Path, found: Found) -> None:
    """Keep what was found, in an order that changes only with what is there."""
    told = {
        source: [
            {"name": one.name, "namespace": one.namespace, "kind": one.kind, "keys": list(one.keys)} for one in streams
        ]
        for source, streams in sorted(found.items())
    }
    beside = folder / f".{FILE}.tmp"
    beside.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, folder / FILE)


def _stream(told: Mapping[str, object]) -> Stream:
    keys = told["keys"]
    assert isinstance(keys, list)
    return Stream(str(told["name"]), None, tuple(map(str, keys)), str(told["namespace"]), str(told["kind"]))
