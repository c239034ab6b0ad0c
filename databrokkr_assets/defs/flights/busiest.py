"""The Python transform of the demo."""

from __future__ import annotations

import pandas as pd


def busiest(departed: pd.DataFrame, airports: pd.DataFrame) -> pd.DataFrame:
    """The ten destinations with most arrivals, by name where the airport is known."""
    arrivals = departed.groupby("dest").size().rename("flights").reset_index()
    named = arrivals.merge(airports[["faa", "name"]], left_on="dest", right_on="faa", how="left")
    return named.nlargest(10, "flights")[["dest", "name", "flights"]]
