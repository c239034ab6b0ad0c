"""How connections look in a terminal: what they reach, and what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from databrokkr_assets.cli.show import console, table
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import Finding
from databrokkr_assets.factory.refreshing import Refreshed


def connections(rows: Sequence[dict[str, Any]]) -> None:
    """The project's connections."""
    shown = table("connection", "type")
    for row in rows:
        shown.add_row(row["name"], row["type"] or "[yellow]not usable: a variable of it is not set[/]")
    console().print(shown if rows else "there are no connections yet; see docs/concepts.md")


def findings(found: Sequence[Finding]) -> None:
    """What a test of a connection found out, and how to mend what is not well."""
    shown = table("", "what", "found")
    for one in found:
        shown.add_row("[green]ok[/]" if one.ok else "[red]no[/]", one.what, one.says)
    console().print(shown)
    for one in found:
        if one.mend and not one.ok:
            console().print(f"{one.what}: {one.mend}", markup=False, highlight=False)


def streams(found: Sequence[Stream]) -> None:
    """What a system holds."""
    shown = table("in", "name", "kind", "keys", ">rows, about")
    for one in found:
        rows = "-" if one.rows is None else f"{one.rows:,}"
        shown.add_row(one.namespace or "-", one.name, one.kind, ", ".join(one.keys) or "-", rows)
    console().print(shown if found else "there is nothing that this user may read")


def refreshed(pipeline: str, found: Sequence[Refreshed]) -> None:
    """What a look at the systems of a pipeline's patterns changed."""
    if not found:
        console().print(f"no source of {pipeline} names a pattern of tables: there is nothing to look up")
    for one in found:
        console().print(f"{one.source}: {one.tables} tables", highlight=False)
        for word, names in (("new", one.added), ("gone", one.gone), ("left out by the contract", one.left_out)):
            if names:
                console().print(f"  {word}: {', '.join(names)}", markup=False, highlight=False)
