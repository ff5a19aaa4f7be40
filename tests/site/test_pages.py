"""Every page of the built site: complete, readable, accessible, wide, narrow and dark.

Screenshots go to ``_build/screenshots``: look at them.
"""

import os
import re
from collections import Counter
from urllib.parse import unquote, urldefrag

from browsing import CONTENT, SETTLE, SITE, WIDE, Visit, faded, shot, violations

CUT_OFF = """() => {
  const width = document.documentElement.clientWidth, found = [];
  const scrolls = e => e && e !== document.body &&
    (/(auto|scroll|hidden)/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  for (const e of document.querySelectorAll('.bd-article *')) {
    const box = e.getBoundingClientRect();
    if (box.width && box.height && (box.right > width + 1 || box.left < -1) &&
        !scrolls(e) && !e.closest('mjx-assistive-mml, .sr-only, svg'))
      found.push(`${e.tagName}.${e.className} ${Math.round(box.left)}..${Math.round(box.right)}`);
  }
  if (document.documentElement.scrollWidth > width + 1)
    found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  return found.slice(0, 10);
}"""

OVERLAP = """() => {
  const found = [];
  for (const parent of document.querySelectorAll('.bd-article section, .bd-article .container')) {
    const boxes = [...parent.children].filter(e => e.offsetParent &&
      getComputedStyle(e).position === 'static').map(e => [e, e.getBoundingClientRect()]);
    for (let i = 1; i < boxes.length; i++) {
      const [above, a] = boxes[i - 1], [below, b] = boxes[i];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      if (a.bottom - b.top > 2 && across > 2 && a.height && b.height)
        found.push(`${above.tagName}.${above.className} over ${below.tagName}.${below.className}`);
    }
  }
  return found.slice(0, 10);
}"""

# On a phone a long formula scrolls; where there is room for it, the reader should see all of it.
LONG = """() => [...document.querySelectorAll('div.math')].filter(e => e.offsetParent)
  .map(e => [e, e.querySelector('mjx-container')])
  .filter(([e, m]) => m && (m.scrollWidth > m.clientWidth + 2 || e.scrollWidth > e.clientWidth + 2))
  .map(([e]) => e.id || e.textContent.slice(0, 60))"""

ON_PAPER = """() => {
  const shown = e => e && e.getClientRects().length > 0;
  const bright = colour => colour.match(/[\\d.]+/g).slice(0, 3).every(part => part > 250);
  const back = getComputedStyle(document.body).backgroundColor;
  return {
    navigation: ['.bd-sidebar-primary', '.bd-header-article', '.prev-next-footer']
      .filter(name => shown(document.querySelector(name))),
    closed: [...document.querySelectorAll('.bd-article details:not(.tryit)')]
      .filter(d => ![...d.children].slice(1).some(shown)).length,
    light: bright(back),
    tinted: [...document.querySelectorAll('.bd-article :is(.evidence, .admonition:not(.hide))')]
      .filter(card => getComputedStyle(card).borderLeftStyle !== 'solid').length,
  };
}"""

OPEN_ALL = """() => {
  document.querySelectorAll('.toggle-hidden .toggle-button').forEach(button => button.click());
  const closed = [...document.querySelectorAll('.bd-article details:not([open])')];
  closed.forEach(details => details.querySelector('summary').click());
  const shows = d => d.open && [...d.children].slice(1).some(c => c.getBoundingClientRect().height);
  return [...closed.filter(details => !shows(details)),
    ...document.querySelectorAll('.admonition.toggle-hidden')].map(e => e.textContent.slice(0, 60));
}"""


def test_the_site_is_there():
    assert CONTENT, "build it first: make book"


def test_a_page_loads_clean_and_all_of_its_maths_is_typeset(wide):
    assert wide.troubles == []
    assert wide.untypeset == []


def test_a_page_of_the_theme_loads_clean(elsewhere):
    assert elsewhere.troubles == []


def test_a_wide_page_reads_well(wide):
    shot(wide, "wide")
    assert wide.page.evaluate(CUT_OFF) == []
    assert wide.page.evaluate(OVERLAP) == []


def test_nothing_is_cut_off_or_overlaps_on_a_phone(narrow):
    assert narrow.page.evaluate(CUT_OFF) == []
    assert narrow.page.evaluate(OPEN_ALL) == []
    shot(narrow, "narrow")
    assert narrow.page.evaluate(CUT_OFF) == []
    assert narrow.page.evaluate(OVERLAP) == []


def test_every_dropdown_opens_and_all_of_the_page_is_accessible(wide):
    assert wide.page.evaluate(OPEN_ALL) == []
    assert wide.page.evaluate(LONG) == []
    assert wide.troubles == []
    assert violations(wide) == []


def test_a_page_in_the_dark_is_dark_and_readable(dark):
    shot(dark, "dark")
    assert faded(dark) == []


def test_one_faded_text_of_a_page_is_found(browser):
    with Visit(browser, CONTENT[0], WIDE) as visit:
        assert faded(visit) == []
        last = visit.page.locator(".bd-article p:visible").last
        last.evaluate("paragraph => paragraph.style.color = '#b0b0b0'")
        (found,) = faded(visit)
        assert found.startswith("color-contrast: <p")


def test_every_internal_link_and_anchor_resolves(soups):
    anchors = {
        page: {tag.get("id") for tag in soup.find_all(id=True)} for page, soup in soups.items()
    }
    broken = []
    for page, soup in soups.items():
        for tag in soup.find_all("a", href=True):
            target, anchor = urldefrag(tag["href"])
            if target.startswith(("http:", "https:", "mailto:", "data:")):
                continue
            path = (SITE / page).parent / unquote(target) if target else SITE / page
            if not path.exists():
                broken.append(f"{page}: {tag['href']}")
                continue
            name = os.path.relpath(path, SITE)
            if anchor and name in anchors and unquote(anchor) not in anchors[name]:
                broken.append(f"{page}: {tag['href']}")
    assert broken == []


def test_an_id_names_one_element_of_a_page(soups):
    repeated = [
        f"{page}: {name}"
        for page, soup in soups.items()
        for name, count in Counter(tag["id"] for tag in soup.find_all(id=True)).items()
        if count > 1
    ]
    assert repeated == []


def test_pages_load_nothing_from_elsewhere(soups):
    """Without a browser: what a page would load only later, or where no test looks, too."""
    foreign = [
        f"{page}: {address}"
        for page, soup in soups.items()
        for tag in soup.select("[src], link[href]:not([rel=canonical]), object[data]")
        for address in [tag.get("src") or tag.get("href") or tag.get("data")]
        if address.startswith(("http:", "https:", "//"))
    ]
    assert foreign == []


def test_every_figure_has_alt_text(soups):
    bad = [
        f"{page}: {tag.get('src')}"
        for page, soup in soups.items()
        for tag in (soup.select_one(".bd-article") or soup).find_all("img")
        if len(tag.get("alt") or "") < 20 or (tag.get("alt") or "").startswith("../")
    ]
    assert bad == []


def test_every_reference_that_was_written_leads_somewhere(soups):
    """Sphinx leaves one to a label that is gone as plain text, without a warning in a card."""
    spans = {page: soup.select("span.xref") for page, soup in soups.items()}
    lost = {
        page: [span.text for span in marked if not span.find_parent("a")]
        for page, marked in spans.items()
    }
    assert {page: found for page, found in lost.items() if found} == {}


def test_no_page_shows_where_an_object_lay_in_memory(soups):
    """It would be another place in the next build, and tells a reader nothing."""
    lay = {page: re.findall(r"<[^<>]* at 0x[0-9a-f]+>", soup.text) for page, soup in soups.items()}
    assert {page: found for page, found in lay.items() if found} == {}


def test_no_page_is_heavy(soups):
    """A page with all of its pictures, as far as they are its own."""
    for page in CONTENT:
        path = SITE / page
        images = {tag.get("src", "") for tag in soups[page].select(".bd-article img")}
        own = [path.parent / unquote(image) for image in images if not image.startswith("data:")]
        size = path.stat().st_size + sum(image.stat().st_size for image in own if image.exists())
        assert size < 1.5 * 2**20, f"{page}: {size / 2**20:.2f} MiB"


def test_steppers_show_one_stage_by_mouse_and_keys(wide):
    for figure in wide.page.query_selector_all("figure.stepper"):
        frames = figure.query_selector_all(".frame")
        buttons = figure.query_selector_all("input[type=radio]")
        assert len(frames) == len(buttons) >= 2

        def shown(frames=frames):
            return [k for k, frame in enumerate(frames) if frame.is_visible()]

        assert shown() == [0]
        buttons[-1].click()
        assert shown() == [len(frames) - 1]
        buttons[-1].press("ArrowLeft")
        assert shown() == [len(frames) - 2]


def test_paper_is_light_open_and_without_navigation(dark):
    closed = (
        "() => document.querySelectorAll('.bd-article details').forEach(d => { d.open = false; })"
    )
    dark.page.evaluate(closed)
    dark.page.emulate_media(media="print")
    try:
        dark.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        dark.page.evaluate(SETTLE)
        seen = dark.page.evaluate(ON_PAPER)
        assert seen == {"navigation": [], "closed": 0, "light": True, "tinted": 0}
        dark.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert dark.page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    finally:
        dark.page.emulate_media(media="screen")
