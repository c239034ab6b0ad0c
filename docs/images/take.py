"""Takes the picture of the demo's asset graph from the real UI: `.venv/bin/python docs/images/take.py`.

Run `./demo` first, so that the assets have been materialised. Needs the packages of the dev group and a Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.project import Project  # noqa: E402
from tests.services import chromium  # noqa: E402
from tests.ui.server import Ui, dagster  # noqa: E402

GRAPH = "/locations/__repository__@databrokkr/asset-groups/flights/lineage"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def take(ui: Ui, target: Path) -> None:
    """Write the graph of the pipeline `flights`, without what stands around it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 2100, "height": 1150})
        page.goto(ui.url + GRAPH)
        page.get_by_text("warehouse_flights").first.wait_for()
        page.get_by_text("Hide navigation").click()
        page.reload()  # the graph is laid out for the width that it finds
        page.wait_for_timeout(6000)
        page.wait_for_function("!document.body.innerText.includes('Loading…')")
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    with dagster(Project(ROOT)) as started:
        take(started, Path(__file__).with_name("asset-graph.png"))
