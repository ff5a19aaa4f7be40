"""The Sphinx extension of the map of claims: all of them on one page, each chapter's at its top."""

from __future__ import annotations

import posixpath

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import chapters
from cltheory.claims import Chapter, Claim, Claims
from cltheory.ledger import link, mark
from drawing import MARKS, Heading, Line, draw, sign

MEANINGS = {
    "holds": "its own evidence holds, and that of all that it uses, directly or through others",
    "leans on": "its own evidence holds, but a claim that it uses does not hold",
    "fails": "its own evidence does not hold",
    "not run": "no check of it has run",
}


MAP = "book/graph.html"


def whole(claims: Claims, page: str) -> str:
    """Draw all claims, by part and chapter."""
    rows: list[Heading | Line] = []
    for part in dict.fromkeys(chapter.part for chapter in claims.chapters):
        names = {chapter.name for chapter in claims.chapters if chapter.part == part}
        rows += _group(claims, part, {c.id for c in claims if c.chapter in names}, page)
    return draw(rows, _uses(claims, rows), "Map of all claims of the book")


def excerpt(claims: Claims, chapter: Chapter) -> str:
    """Draw a chapter's claims, what they use from other chapters and what uses them there."""
    own = _of(claims, chapter)
    ids = {claim.id for claim in own}
    used = {claim.id for claim in claims if ids & set(claim.used_by)} - ids
    users = {claim.id for claim in claims if ids & set(claim.uses)} - ids - used
    rows: list[Heading | Line] = []
    for heading, there in (
        ("Used from other chapters", used),
        ("This chapter", ids),
        ("Used in other chapters", users),
    ):
        rows += _group(claims, heading, there, chapter.url)
    uses = [pair for pair in _uses(claims, rows) if ids & set(pair)]
    drawn = draw(rows, uses, f"Map of the claims of this chapter: {chapter.title}")
    words = f"{len(own)} here, {len(used)} used from other chapters, used by {len(users)} there"
    return (
        '<details class="chapter-map"><summary>Map of the claims '
        f"<span>({words})</span></summary>\n{drawn}\n"
        f'<p><a href="{_way(chapter.url, MAP)}">All claims of the book</a></p></details>'
    )


def table(claims: Claims) -> str:
    """Write the map as a table, in MyST."""
    titles = {chapter.name: chapter for chapter in claims.chapters}
    lines = ["| claim | title | chapter | state | uses | used by |", "|---|---|---|---|---|---|"]
    for claim in claims:
        chapter = titles.get(claim.chapter)
        place = f"{{doc}}`/{chapter.url.removesuffix('.html')}`" if chapter else ""
        uses, used_by = (
            ", ".join(link(claims[name]) for name in names) for names in (claim.uses, claim.used_by)
        )
        cells = [f"{link(claim)} `{claim.id}`", claim.title, place, mark(claim.status)]
        lines.append("| " + " | ".join([*cells, uses, used_by]) + " |")
    return "\n".join(lines)


def legend() -> str:
    """Draw the four states with what they mean."""
    entries = [f"<li>{sign(name)} <strong>{name}</strong>: {MEANINGS[name]}</li>" for name in MARKS]
    return f'<ul class="claim-legend">{"".join(entries)}</ul>'


class Map(SphinxDirective):
    """``{claim-map}``: the drawing of all claims with its legend."""

    def run(self):
        text = legend() + whole(chapters.claims(), f"{self.env.docname}.html")
        return [nodes.raw("", text, format="html")]


class Table(SphinxDirective):
    """``{claim-table}``: the same as a table."""

    def run(self):
        node = nodes.container(classes=["claim-table"])
        text = StringList(table(chapters.claims()).splitlines(), "claims")
        self.state.nested_parse(text, 0, node)
        return [node]


def insert(app, doctree) -> None:
    """Put a chapter's map, folded, after the paragraphs that open the chapter."""
    drawn = _excerpts().get(app.env.docname)
    section = next(iter(doctree.findall(nodes.section)), None)
    if drawn and section is not None:
        opening = (nodes.title, nodes.paragraph, nodes.target)
        place = next((i for i, child in enumerate(section) if not isinstance(child, opening)), 1)
        section.insert(place, nodes.raw("", drawn, format="html"))


def outdated(app, env, added, changed, removed):
    """Read again the pages whose map is not the one that they show."""
    whole_map = whole(chapters.claims(), MAP) + table(chapters.claims())
    now = {**_excerpts(), MAP.removesuffix(".html"): whole_map}
    before = getattr(env, "claim_maps", {})
    env.claim_maps = now
    return [page for page in now if page in env.found_docs and now[page] != before.get(page)]


def _excerpts() -> dict[str, str]:
    claims = chapters.claims()
    return {
        chapter.url.removesuffix(".html"): excerpt(claims, chapter)
        for chapter in claims.chapters
        if _of(claims, chapter)
    }


def _group(claims: Claims, heading: str, ids: set[str], page: str) -> list[Heading | Line]:
    """Put claims under their chapters, and these under a heading; nothing where there are none."""
    rows: list[Heading | Line] = []
    for chapter in claims.chapters:
        if found := [claim for claim in _of(claims, chapter) if claim.id in ids]:
            if chapter.url != page:
                rows.append(Heading(chapter.title, _way(page, chapter.url)))
            rows += [Line(claim, _way(page, claim.url)) for claim in found]
    return [Heading(heading), *rows] if rows else []


def _of(claims: Claims, chapter: Chapter) -> list[Claim]:
    return [claim for claim in claims if claim.chapter == chapter.name]


def _uses(claims: Claims, rows: list[Heading | Line]) -> list[tuple[str, str]]:
    """Return the pairs (user, used) of which both are drawn."""
    drawn = {row.claim.id for row in rows if isinstance(row, Line)}
    pairs = [(claim.id, used) for claim in claims for used in claim.uses]
    return [pair for pair in pairs if drawn.issuperset(pair)]


def _way(page: str, target: str) -> str:
    """Return the way from one page to another, both from the top of the site."""
    return posixpath.relpath(target, posixpath.dirname(page))


def setup(app):
    app.add_directive("claim-map", Map)
    app.add_directive("claim-table", Table)
    app.add_css_file("graph.css")
    app.add_js_file("graph.js", loading_method="defer")
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
