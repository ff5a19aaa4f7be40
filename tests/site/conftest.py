"""What all tests of the site share: the browser, the pages as text, the pages as opened."""

import os

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

import chromium
from browsing import CONTENT, NARROW, PAGES, SITE, WIDE, Visit


@pytest.fixture(scope="session")
def browser():
    executable = chromium.executable()
    if executable is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(chromium.missing("make site-test"))
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=chromium.FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def soups():
    return {
        page: BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")
        for page in PAGES
    }


def visits(pages, size):
    """A fixture: each page is opened once for all tests that look at it so."""
    params = [pytest.param(page, marks=pytest.mark.xdist_group(page)) for page in pages]

    @pytest.fixture(scope="session", params=params)
    def visit(browser, request):
        with Visit(browser, request.param, size) as opened:
            yield opened

    return visit


elsewhere = visits([page for page in PAGES if page not in CONTENT], WIDE)
wide = visits(CONTENT, WIDE)
narrow = visits(CONTENT, NARROW)
