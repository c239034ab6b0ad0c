"""What a person sees in the browser; each page is kept as a picture in test-output/screenshots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.ui.conftest import SECRET
from tests.ui.server import PATIENCE, Run, Ui

pytestmark = pytest.mark.xdist_group("ui")

PICTURES = Path(__file__).parents[2] / "test-output/screenshots"
LOCATION = "/locations/__repository__@project"


@pytest.fixture(scope="module")
def page(chromium: Path) -> Iterator[Page]:
    """A page of a headless Chromium."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        opened = browser.new_page(viewport={"width": 1500, "height": 950})
        opened.set_default_timeout(PATIENCE * 1000)
        yield opened
        browser.close()


def test_the_graph_shows_each_pipeline_once(page: Page, ui: Ui, shop: Run) -> None:
    _opened(page, ui, "/asset-groups", "graph", "Global asset lineage", "external", "shop", "stock", "remote", "broken")


def test_a_pipeline_is_a_graph_from_the_system_to_the_target(page: Page, ui: Ui, shop: Run) -> None:
    nodes = ("orders", "orders__quarantine", "paid", "by_customer", "report")
    kinds = ("Delta Lake", "File", "SQL", "View", "DuckDB", "quarantine")
    _opened(page, ui, f"{LOCATION}/asset-groups/shop/lineage", "pipeline", *nodes, *kinds, "1 / 3 Passed")


def test_an_asset_says_what_it_is_and_what_came_of_it(page: Page, ui: Ui, shop: Run) -> None:
    about = ("One row for each order.", "ada@example.com", "raw.shop.orders", "domain: sales", "File")
    columns = ("id", "BIGINT", "customer", "amount", "DECIMAL(10,2)")
    came = ("Row count", "databrokkr/rows_quarantined", "At 06:00 AM", "shop/orders")
    _opened(page, ui, "/assets/shop/orders", "asset", *about, *columns, *came)


def test_a_check_says_what_failed(page: Page, ui: Ui, shop: Run) -> None:
    expected = "expect_column_values_to_be_between(column=amount, min_value=0)"
    texts = (f"{expected}, on failure: quarantine", f"{expected}: 2 of 6 rows failed, e.g. -1.00, -2.50")
    path = "/assets/shop/orders?view=checks&checkDetail=amount_is_not_negative"
    _opened(page, ui, path, "check", "Failed", "non-blocking", "-1.00, -2.50", *texts)


def test_a_blocking_check_is_red(page: Page, ui: Ui, blocked: Run) -> None:
    path = "/assets/stock/levels?view=checks&checkDetail=level_is_possible"
    _opened(page, ui, path, "check-blocking", "Failed", "blocking", "2 of 3 rows failed, e.g. -5, 5000")


def test_a_blocked_run_says_how_to_mend_it(page: Page, ui: Ui, blocked: Run) -> None:
    texts = ("Failure", "stock__levels", "blocked by level_is_possible", "mend: look at the sample of failing values")
    _opened(page, ui, f"/runs/{blocked.id}", "run-blocked", *texts)


def test_a_quarantine_says_why(page: Page, ui: Ui, shop: Run) -> None:
    reasons = ("csv.type", "amount_is_not_negative", 'column "id": "six"')
    texts = ("Rows of orders that were set aside", "databrokkr/reasons", *reasons)
    _opened(page, ui, "/assets/shop/orders__quarantine", "quarantine", *texts)


def test_a_broken_pipeline_says_what_is_wrong(page: Page, ui: Ui) -> None:
    mistakes = ('unknown key "pth"', 'did you mean "path"?', "project/defs/broken/defs.yaml:4")
    _opened(page, ui, "/assets/broken/broken", "broken", "This pipeline does not load.", *mistakes, "the mistake")


def test_resources_are_listed(page: Page, ui: Ui) -> None:
    _opened(page, ui, f"{LOCATION}/resources", "resources", "archive", "billing", "lake", "ledger", "warehouse")


def test_a_resource_shows_where_it_is_and_no_secret(page: Page, ui: Ui) -> None:
    _opened(page, ui, f"{LOCATION}/resources/billing", "resource", "postgres", "127.0.0.1", "password: **********")
    assert SECRET not in page.content()


def test_automation_is_on(page: Page, ui: Ui) -> None:
    _opened(page, ui, "/automation", "automation", "drop__new_parcels", "shop__schedule", "Scheduled At 06:00 AM")


def _opened(page: Page, ui: Ui, path: str, picture: str, *texts: str) -> None:
    """Open a page, wait until it shows `texts`, and keep a picture of it."""
    page.goto(ui.url + path, wait_until="domcontentloaded")
    body = page.locator("body")
    try:
        for text in texts:
            expect(body).to_contain_text(text, timeout=PATIENCE * 1000, use_inner_text=True)
        for text in ("Loading…", "fetching statuses"):
            expect(body).not_to_contain_text(text, timeout=PATIENCE * 1000, use_inner_text=True)
    finally:
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{picture}.png")
