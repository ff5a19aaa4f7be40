"""Open a page of the built site as a reader does, and hear what it complains of."""

import os
from contextlib import contextmanager
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
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
OF_COLOUR = ["color-contrast", "link-in-text-block"]


SETTLE = """async () => {
  await Promise.allSettled(document.getAnimations().map(moving => moving.finished));
  await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)));
}"""

# Colours fade from one look to the other; those on the way are nobody's.
LOOKS = """scheme => document.documentElement.dataset.theme === scheme &&
  !document.getAnimations().some(fading => fading.playState === 'running')"""


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

    def resize(self, size):
        """Change the window; the theme moves its sidebars for a while, and all else with them."""
        self.page.set_viewport_size(size)
        self.page.evaluate(SETTLE)

    def recolour(self, scheme):
        """Ask for light or dark colours; the theme hears of it in a later frame."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function(LOOKS, arg=scheme)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def _file(url):
    return Path(unquote(urldefrag(url).url.removeprefix("file://").partition("?")[0]))


# Most nodes of a chapter are paths of formulas, of which no rule of WCAG speaks, and coloured words
# of code, of which one of a colour tells as much as a thousand. Without them axe takes a quarter.
THIN = """() => {
  const whole = [], words = new Set();
  for (const part of document.querySelectorAll('mjx-container > svg, mjx-assistive-mml > math')) {
    whole.push([part, [...part.childNodes]]);
    part.replaceChildren();
  }
  for (const pre of document.querySelectorAll('.highlight pre')) {
    whole.push([pre, [...pre.childNodes]]);
    pre.replaceChildren(...[...pre.childNodes].map(child => child.cloneNode(true)));
    for (const word of pre.querySelectorAll('span[class]')) {
      const kind = `${pre.closest('[class*="cell_"]')?.className} ${word.className}`;
      words.has(kind) ? word.replaceWith(...word.childNodes) : words.add(kind);
    }
  }
  window.makeWhole = () => whole.forEach(([part, children]) => part.replaceChildren(...children));
}"""

# Of a colour on its ground a few texts tell as much as thousands, each of which costs axe as much.
SAMPLE = """within => {
  const grounds = new Map([[null, '']]), seen = new Map();
  const ground = e => {
    if (!grounds.has(e)) {
      const style = getComputedStyle(e), colour = style.backgroundColor;
      const own = [colour, style.backgroundImage, style.opacity, style.filter].join();
      const opaque = colour.startsWith('rgb(') && style.opacity === '1';
      const under = opaque ? '' : ground(e.parentElement);
      grounds.set(e, own === 'rgba(0, 0, 0, 0),none,1,none' ? under : `${under}/${own}`);
    }
    return grounds.get(e);
  };
  document.querySelectorAll('[data-sample]').forEach(e => e.removeAttribute('data-sample'));
  for (const e of document.querySelectorAll(`:is(${within}) *`)) {
    const speaks = [...e.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
    if (!speaks || !e.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(e), around = getComputedStyle(e.parentElement);
    const look = [ground(e), style.color, style.fontSize, style.fontWeight, style.textShadow,
      style.textDecorationLine, e.tagName, around.color, around.display].join('|');
    const count = seen.get(look) || 0;
    seen.set(look, count + 1);
    if (count < 3) e.setAttribute('data-sample', '');
  }
}"""


def violations(visit, within="html"):
    """What axe-core finds against WCAG A and AA."""
    with _thin(visit):
        found = _axe(visit, within, {"type": "tag", "values": WCAG}, without=OF_COLOUR)
        return found + _faded(visit, within)


def faded(visit):
    """What axe-core finds against the rules of colour."""
    with _thin(visit):
        return _faded(visit, "html")


@contextmanager
def _thin(visit):
    # axe leaves a range on each text behind; while they live, removing a node visits all of them.
    visit.page.request_gc()
    visit.page.evaluate(THIN)
    try:
        yield
    finally:
        visit.page.evaluate("makeWhole()")


def _faded(visit, within):
    visit.page.evaluate(SAMPLE, within)
    return _axe(visit, "[data-sample]", {"type": "rule", "values": OF_COLOUR})


def _axe(visit, within, rules, without=()):
    options = {
        "runOnly": rules,
        "rules": {rule: {"enabled": False} for rule in without},
        "resultTypes": ["violations"],
        # It would fetch style sheets, which a page from a folder may not.
        "preload": False,
    }
    report = Axe().run(visit.page, context=within, options=options).response
    return [
        f"{rule['id']}: {node['html'][:150]}"
        for rule in report["violations"]
        for node in rule["nodes"][:5]
    ]


def shot(visit, look):
    """Take a picture of the whole page, to be looked at; where nobody looks, take none."""
    if os.environ.get("CI"):
        return
    visit.page.screenshot(path=SHOTS / f"{Path(visit.name).stem}-{look}.png", full_page=True)
