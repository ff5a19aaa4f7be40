"""Open a page of the built site as a reader does, and hear what it complains of."""

from pathlib import Path
from urllib.parse import unquote, urldefrag

from axe_playwright_python.sync_playwright import Axe

from chromium import TYPESET

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
SHOTS = ROOT / "_build" / "screenshots"
PAGES = sorted(
    str(path.relative_to(SITE))
    for path in [*SITE.glob("*.html"), *SITE.glob("book/**/*.html")]
    if 'http-equiv="Refresh"' not in path.read_text(encoding="utf-8")
)
CONTENT = [page for page in PAGES if page.startswith("book/")]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# preload would fetch style sheets, which a page from a folder may not.
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "preload": False}


class Visit:
    """A page that was opened, with everything it complained of or asked for outside its folder."""

    def __init__(self, browser, page, size, scheme="light"):
        self.name = page
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.page = self.context.new_page()
        self.troubles = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.route("**/*", self._route)
        self.page.goto((SITE / page).as_uri(), wait_until="load")
        self.untypeset = self.page.evaluate(TYPESET)

    def _console(self, message):
        if message.type == "error":
            self.troubles.append(f"console: {message.text}")

    def _route(self, route):
        url = route.request.url
        inside = url.startswith((SITE.as_uri(), "data:", "blob:"))
        if inside and (not url.startswith("file:") or _file(url).exists()):
            route.continue_()
        else:
            self.troubles.append(f"request: {url}")
            route.abort()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def _file(url):
    return Path(unquote(urldefrag(url).url.removeprefix("file://").partition("?")[0]))


def violations(visit, within="html"):
    """What axe-core finds against WCAG A and AA."""
    # The paths of a typeset formula are thousands of nodes that no rule of WCAG speaks of.
    context = {"include": [[within]], "exclude": [["mjx-container > svg"]]}
    report = Axe().run(visit.page, context=context, options=WCAG).response
    return [
        f"{rule['id']}: {node['html'][:150]}"
        for rule in report["violations"]
        for node in rule["nodes"][:5]
    ]


def shot(visit, look):
    """Take a picture of the whole page, to be looked at."""
    visit.page.screenshot(path=SHOTS / f"{Path(visit.name).stem}-{look}.png", full_page=True)
