"""What Dagster loads: the pipelines of this project."""

from pathlib import Path

from databrokkr_assets.factory.loading import load_project

defs = load_project(Path(__file__).parent)
