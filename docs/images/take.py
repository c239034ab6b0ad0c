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

GRAPH = "/locations/databrokkr/asset-groups/flights/lineage~not%20kind%3A%22quarantine%22/"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EDGES = """() => {
    const boxes = [...document.querySelectorAll("foreignObject")].map(node => node.getBoundingClientRect());
    const [left, top] = [Math.min(...boxes.map(box => box.left)), Math.min(...boxes.map(box => box.top))];
    const [right, bottom] = [Math.max(...boxes.map(box => box.right)), Math.max(...boxes.map(box => box.bottom))];
    return {x: left - 20, y: top - 20, width: right - left + 40, height: bottom - top + 40};
}"""


def take(ui: Ui, target: Path) -> None:
    """Write the graph of the pipeline `flights`, without what stands around it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        # So high that the whole graph fits without being made smaller.
        page = browser.new_page(viewport={"width": 2200, "height": 2200})
        page.goto(ui.url + GRAPH)
        page.get_by_text("Materialized").nth(11).wait_for(timeout=60_000)
        page.wait_for_function("!document.body.innerText.includes('Loading…')")
        page.screenshot(path=target, clip=page.evaluate(EDGES))
        browser.close()


if __name__ == "__main__":
    with dagster(Project(ROOT)) as started:
        take(started, Path(__file__).with_name("asset-graph.png"))
