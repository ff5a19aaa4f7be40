"""What all tests of the site share: the browser, the pages as text, the pages as opened."""

import os
from urllib.parse import quote

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadScopeScheduling

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


class ByPage(LoadScopeScheduling):
    """All tests of one page go to one worker, which opens it once; so do those that open none.

    That of ``--dist=loadgroup`` does not group with pytest 9.2 (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid):
        return nodeid.rpartition("[")[2] if nodeid.endswith(".html]") else "text"


def pytest_xdist_make_scheduler(config, log):
    return ByPage(config, log)


def visits(pages):
    """A fixture: each page is opened once for all tests that look at it."""

    @pytest.fixture(scope="session", params=pages)
    def visit(browser, request, tmp_path_factory):
        of_run = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            of_run = of_run.parent
        # A page that is opened again costs seconds; this says that the grouping is gone.
        (of_run / f"opened {quote(request.param, safe='')}").touch(exist_ok=False)
        with Visit(browser, request.param, WIDE) as opened:
            yield opened

    return visit


elsewhere = visits([page for page in PAGES if page not in CONTENT])
wide = visits(CONTENT)


@pytest.fixture
def narrow(wide):
    """The page after its window became as narrow as a phone."""
    wide.resize(NARROW)
    yield wide
    wide.resize(WIDE)


@pytest.fixture
def dark(wide):
    """The page for a reader who asks for dark colours."""
    wide.recolour("dark")
    yield wide
    wide.recolour("light")
