"""What a reader's browser fetches, and how soon there is something to read."""

import functools
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from browsing import CONTENT, SITE, WIDE

PAINT = """() => new Promise(done => {
  const seen = () => performance.getEntriesByName('first-contentful-paint')[0];
  const wait = () => seen() ? done(seen().startTime) : requestAnimationFrame(wait);
  wait();
})"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    handler = functools.partial(Quiet, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def fetched(browser, address):
    """The files that a page loads, and the milliseconds to its first paint."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    files = set()
    page.on("response", lambda response: files.add(urlsplit(response.url).path.lstrip("/")))
    page.goto(address, wait_until="load")
    paint = page.evaluate(PAINT)
    context.close()
    return files, paint


def test_what_pages_share_is_under_five_megabytes(browser, server):
    shared = set()
    for page in ("book/preface.html", "book/optima/simplex.html", "search.html"):
        files, _ = fetched(browser, server + page)
        shared |= {file for file in files if file.startswith("_static/")}
    sizes = {file: (SITE / file).stat().st_size for file in shared}
    assert 1e6 < sum(sizes.values()) < 5e6, sizes


def test_a_page_shows_its_first_words_within_a_second(browser, server):
    """The best of three, and of a second that the other work on the machine leaves to the page."""
    second = 1000 * max(1, os.getloadavg()[0] / os.cpu_count())
    for page in ("book/preface.html", max(CONTENT, key=lambda p: (SITE / p).stat().st_size)):
        assert min(fetched(browser, server + page)[1] for _ in range(3)) < second, page
