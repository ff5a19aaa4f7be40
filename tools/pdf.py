"""The book as one PDF: every page of the site printed by Chromium, bound with a title and contents.

Usage: pdf.py SITE TARGET. Numbers and links are the site's; proofs and solutions are unfolded.
"""

from __future__ import annotations

import html
import io
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

import chapters
import chromium
import pages

try:
    from playwright.sync_api import Browser, Page, sync_playwright
    from pypdf import PdfReader, PdfWriter
    from pypdf.constants import PageLabelStyle
    from pypdf.generic import ArrayObject, Fit, FloatObject, NameObject, NullObject
except ImportError as error:
    print(
        f"a PDF needs {error.name}. Run: .venv/bin/pip install -c constraints.txt -e '.[book,test]'"
    )
    sys.exit(2)

# Chromium keeps a place for an anchor only if the page itself links to it.
PREPARE = """() => {
  document.querySelectorAll('details').forEach(details => { details.open = true; });
  const places = document.createElement('nav');
  places.hidden = true;
  for (const place of document.querySelectorAll('.bd-article [id]:not(svg *)')) {
    const link = document.createElement('a');
    link.href = '#' + encodeURIComponent(place.id);
    places.append(link);
  }
  document.body.append(places);
  return [...document.querySelectorAll('.bd-article :is(h1, h2)')].map(heading => {
    const own = heading.cloneNode(true);
    own.querySelectorAll('.headerlink, mjx-container > svg').forEach(part => part.remove());
    return [heading.closest('section').id, own.textContent.trim()];
  });
}"""
TOP = 841.9  # points: the upper edge of A4
MARGINS = """
@page {{ size: A4; margin: 20mm 18mm;
  @top-left {{ content: {head}; font: 8pt sans-serif; color: #555; }}
  @bottom-center {{ content: counter(page); font: 8pt sans-serif; color: #555; }} }}
html {{ counter-reset: page {before}; }}
"""
FRONT = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
@page {{ size: A4; margin: 20mm 18mm; }}
body {{ font: 10pt/1.35 sans-serif; color: #1f2328; margin: 0; }}
header {{ break-after: page; text-align: center; padding-top: 45mm; }}
header h1 {{ font-size: 26pt; line-height: 1.2; margin: 0 0 15mm; }}
header img {{ width: 100%; margin-bottom: 20mm; }}
ul {{ list-style: none; padding-left: 6mm; margin: 0; }}
body > ul {{ padding: 0; }}
li.part {{ font-weight: 700; margin-top: 4mm; }}
li.part li, li.page {{ font-weight: 600; margin-top: 1.5mm; break-inside: avoid; }}
li.page > ul > li {{ font-weight: 400; margin: 0; }}
a {{ display: flex; color: inherit; text-decoration: none; gap: 4mm; }}
a span {{ margin-left: auto; }}
</style><header><h1>{title}</h1><img src="{cover}" alt=""><p>{author}</p><p>{edition}</p></header>
<h2>Contents</h2><ul>{contents}</ul></html>"""


@dataclass
class Leaf:
    """A page of the site, printed: its part, its headings as (anchor, title), its first number."""

    part: str
    page: str
    headings: list[tuple[str, str]]
    printed: PdfReader
    first: int

    def places(self) -> dict[str, tuple[int, float]]:
        """Where each anchor lies: the page of this print, and the height on it."""
        found = {}
        for name, place in self.printed.named_destinations.items():
            number = self.printed.get_destination_page_number(place)
            found[unquote(name.removeprefix("/"))] = (number, float(place.top))
        return found


def reading_order() -> Iterator[tuple[str, str]]:
    """Yield (part, page) as ``_toc.yml`` orders them; the first page belongs to no part."""
    toc = yaml.safe_load((chapters.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    yield "", f"{toc['root']}.html"
    for part in toc["parts"]:
        for entry in part["chapters"]:
            yield part["caption"], f"{entry['file']}.html"


def make(site: Path, browser: str) -> PdfWriter:
    """Print and bind the site."""
    config = yaml.safe_load((chapters.ROOT / "_config.yml").read_text(encoding="utf-8"))
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser, args=chromium.FLAGS)
        tab, ahead = (new_tab(launched) for _ in range(2))
        leaves: list[Leaf] = []
        parts, order = zip(*reading_order(), strict=True)
        open_page(tab, site / order[0])
        for part, page, following in zip(parts, order, [*order[1:], None], strict=True):
            if following:  # it is typeset while this one is printed
                open_page(ahead, site / following)
            leaf = print_leaf(tab, part, page, sum(len(x.printed.pages) for x in leaves))
            leaves.append(leaf)
            tab, ahead = ahead, tab
            print(f"{page}: {len(leaf.printed.pages)} pages", flush=True)
        front = print_front(tab, site, config, leaves)
    return bind(site, front, leaves, config)


def new_tab(browser: Browser) -> Page:
    """Open a tab with a process of its own."""
    tab = browser.new_context().new_page()
    tab.set_default_timeout(300_000)
    use_fonts(tab)
    return tab


def open_page(tab: Page, path: Path) -> None:
    """Begin to load a page."""
    tab.goto(path.as_uri(), wait_until="commit")


def use_fonts(tab: Page) -> None:
    """Typeset with fonts in place of the site's outlines: smaller, and formulas can be copied."""
    allowed = {"Access-Control-Allow-Origin": "*"}

    def give(route):
        name = urlsplit(route.request.url).path.partition("/mathjax/")[2]
        path = pages.mathjax_folder() / name.replace(pages.MATHJAX, "tex-chtml.js")
        route.fulfill(path=path, headers=allowed)

    tab.route("**/_static/mathjax/**", give)


def print_leaf(tab: Page, part: str, page: str, before: int) -> Leaf:
    """Print an opened page, numbered from ``before`` + 1, with its title as running head."""
    tab.wait_for_load_state("load")
    if missed := tab.evaluate(chromium.TYPESET):
        raise SystemExit(f"{page}: maths that was not typeset: {missed[0]}. Run: make site-test")
    headings = [tuple(heading) for heading in tab.evaluate(PREPARE)]
    head = '"' + headings[0][1].replace("\\", "").replace('"', "'") + '"'
    tab.add_style_tag(content=MARGINS.format(head=head, before=before))
    return Leaf(part, page, headings, _pdf(tab), before + 1)


def print_front(tab: Page, site: Path, config: dict, leaves: list[Leaf]) -> PdfReader:
    """Print the title page and the contents."""
    text = FRONT.format(
        title=html.escape(config["title"]),
        author=html.escape(config["author"]),
        edition=f"cltheory {version('cltheory')}. {html.escape(config['html']['extra_footer'])}",
        cover=(site / "_static" / "cover.svg").as_uri(),
        contents=contents(site, leaves),
    )
    address = (site / "front.html").as_uri()
    tab.route(address, lambda route: route.fulfill(body=text, content_type="text/html"))
    tab.goto(address, wait_until="load")
    return _pdf(tab)


def contents(site: Path, leaves: list[Leaf]) -> str:
    """Return the list of parts, pages and sections, with the numbers of their pages."""
    lines, part = [], ""
    for leaf in leaves:
        if leaf.part != part:
            lines.append(f"{'</ul></li>' if part else ''}<li class='part'>{leaf.part}<ul>")
            part = leaf.part
        places = leaf.places()
        rows = [
            f'<a href="{(site / leaf.page).as_uri()}#{anchor}">{html.escape(title)}'
            f"<span>{leaf.first + places[anchor][0]}</span></a>"
            for anchor, title in leaf.headings
        ]
        below = "".join(f"<li>{row}</li>" for row in rows[1:])
        lines.append(f"<li class='page'>{rows[0]}<ul>{below}</ul></li>")
    return "".join(lines) + ("</ul></li>" if part else "")


def bind(site: Path, front: PdfReader, leaves: list[Leaf], config: dict) -> PdfWriter:
    """Put the prints into one file, with links inside it, an outline and numbers."""
    book = PdfWriter()
    prints = [front.pages]
    uris = [(site / "front.html").as_uri()]
    places: dict[str, tuple[int, float]] = {}
    for leaf in leaves:
        prints.append(leaf.printed.pages)
        uris.append((site / leaf.page).as_uri())
        start = len(front.pages) + leaf.first - 1
        places[uris[-1]] = (start, TOP)
        for anchor, (number, top) in leaf.places().items():
            places[f"{uris[-1]}#{anchor}"] = (start + number, top)
    for leaf_pages in prints:
        for page in leaf_pages:
            book.add_page(page)
    number = 0
    for uri, leaf_pages in zip(uris, prints, strict=True):
        for _ in leaf_pages:
            _link(book, number, uri, places)
            number += 1
    _outline(book, site, leaves, places)
    book.set_page_label(0, len(front.pages) - 1, style=PageLabelStyle.LOWERCASE_ROMAN)
    book.set_page_label(len(front.pages), len(book.pages) - 1, style=PageLabelStyle.DECIMAL)
    book.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    return book


def _link(book: PdfWriter, number: int, uri: str, places: dict[str, tuple[int, float]]) -> None:
    """Turn the links of a page that stay in the site into links that stay in the file."""
    page = book.pages[number]
    kept = ArrayObject()
    for entry in page.get("/Annots", []):
        link = entry.get_object()
        if "/Dest" in link:
            goal = f"{uri}#{unquote(link['/Dest'].removeprefix('/'))}"
        else:
            goal = unquote(link["/A"]["/URI"])
        if goal in places:
            link.pop("/A", None)
            link[NameObject("/Dest")] = _place(book, *places[goal])
        if goal in places or not goal.startswith("file:"):  # what is only on the site is no link
            kept.append(entry)
    page[NameObject("/Annots")] = kept


def _place(book: PdfWriter, number: int, top: float) -> ArrayObject:
    page = book.pages[number].indirect_reference
    return ArrayObject([page, NameObject("/XYZ"), NullObject(), FloatObject(top), NullObject()])


def _outline(
    book: PdfWriter, site: Path, leaves: list[Leaf], places: dict[str, tuple[int, float]]
) -> None:
    """Nest parts, pages and sections."""

    def entry(title, goal, parent=None):
        number, top = places[goal]
        return book.add_outline_item(
            title=title, page_number=number, parent=parent, fit=Fit.xyz(top=top)
        )

    part, above = "", None
    for leaf in leaves:
        uri = (site / leaf.page).as_uri()
        if leaf.part != part:
            part, above = leaf.part, entry(leaf.part, uri)
        (_, title), *sections = leaf.headings
        page = entry(title, uri, above)
        for anchor, section in sections:
            entry(section, f"{uri}#{anchor}", page)


def _pdf(tab: Page) -> PdfReader:
    return PdfReader(io.BytesIO(tab.pdf(prefer_css_page_size=True, print_background=True)))


def main() -> None:
    site, target = map(Path, sys.argv[1:])
    browser = chromium.executable()
    if browser is None:
        print(chromium.missing("make pdf"))
        sys.exit(2)
    book = make(site.resolve(), browser)
    book.write(target)
    shutil.copyfile(target, site / target.name)
    size = target.stat().st_size / 2**20
    print(f"{target}: {len(book.pages)} pages, {size:.1f} MiB")


if __name__ == "__main__":
    main()
