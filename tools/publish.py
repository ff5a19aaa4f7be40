"""The Sphinx extension for what a published book has beside its pages.

A description, an icon and the tags of Open Graph for every page; the cover; ``robots.txt``. What
needs the site's address (canonical links, the site map, the card for links, downloads) is there
when the environment variable ``CLTHEORY_SITE`` holds it, and left out otherwise.

Run as a script it writes the offline archive of the site: ``publish.py SITE``.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import cover
import zips

VARIABLE = "CLTHEORY_SITE"
PDF, ARCHIVE = "book.pdf", "book.zip"
LENGTH = 200
"""Characters of a description, at most."""
CUT = "…"


def take_address(app, config) -> None:
    """Take the address of the site from the environment."""
    address = os.environ.get(VARIABLE, "")
    if address and not re.fullmatch(r"https?://\S+", address):
        raise ExtensionError(
            f"{VARIABLE} was {address!r}; it should be an address such as "
            f"https://name.github.io/book/. Run: make book {VARIABLE}=ADDRESS"
        )
    config.html_baseurl = config.site_address = address and address.rstrip("/") + "/"


class Cover(SphinxDirective):
    """``{cover}``: the book's cover."""

    def run(self):
        root = "../" * self.env.docname.count("/")
        image = (  # as it is in the dark, too
            f'<img class="dark-light" src="{root}_static/cover.svg" width="691" height="230" '
            f'alt="{cover.ALT}"/>'
        )
        caption = f"<figcaption>{cover.CAPTION}</figcaption>"
        return [nodes.raw("", f'<figure class="cover">{image}{caption}</figure>', format="html")]


class Downloads(SphinxDirective):
    """``{downloads}``: the book to take along; links where the site's address is known."""

    def run(self):
        address = self.config.site_address
        if address:
            text = (
                f"To read it elsewhere, take the [PDF]({address}{PDF}) "
                f"or the [site as an archive]({address}{ARCHIVE})."
            )
        else:
            text = "To read it elsewhere, `make pdf` makes a PDF and `make archive` packs the site."
        return self.parse_text_to_nodes(text)


def describe(doctree: nodes.document) -> str:
    """Return the first sentences of a page, as many as fit; '' for a page without any."""
    section = next(iter(doctree.findall(nodes.section)), doctree)
    paragraph = next((node for node in section.children if type(node) is nodes.paragraph), None)
    if paragraph is None:
        return ""
    text = " ".join(_plain(paragraph).split())
    if len(text) <= LENGTH:
        return text
    whole = re.match(rf".{{40,{LENGTH - 1}}}[.?!](?= )", text)
    return whole[0] if whole else text[:LENGTH].rsplit(" ", 1)[0].rstrip(",;:") + CUT


def _plain(node: nodes.Node) -> str:
    """The text of a node, with short formulas in letters and without signs of citation."""
    if isinstance(node, nodes.math):
        return re.sub(r"[\\{}$]|mathbb|mathcal", "", node.astext())
    if isinstance(node, nodes.inline) and "bibtex-citation" in node["classes"]:
        return ""
    if isinstance(node, nodes.Text):
        return node.astext()
    return "".join(map(_plain, node.children))


def add_tags(app, pagename, templatename, context, doctree) -> None:
    """Put the description, the icon and the tags of Open Graph into the head of a page."""
    project, address = app.config.html_title, app.config.site_address
    root = context["pathto"]("_static/favicon.svg", resource=True)
    tags = [f'<link rel="icon" type="image/svg+xml" href="{root}"/>']
    if doctree is not None:
        title = nodes.Text(app.env.titles[pagename].astext())
        description = describe(doctree) or f"{title}. {project}."
        tags.append(_meta("name", "description", description))
        properties = {
            "og:type": "article",
            "og:site_name": project,
            "og:title": title,
            "og:description": description,
        }
        if address:
            width, height = cover.PIXELS
            properties |= {
                "og:url": context["pageurl"],
                "og:image": f"{address}_static/card.png",
                "og:image:alt": cover.ALT,
                "og:image:width": width,
                "og:image:height": height,
            }
        tags += [_meta("property", name, value) for name, value in properties.items()]
    context["metatags"] = "\n    ".join([context.get("metatags", ""), *tags])


def _meta(kind: str, name: str, value: object) -> str:
    return f'<meta {kind}="{name}" content="{html.escape(str(value))}"/>'


def finish(app, error) -> None:
    """Write what lies beside the pages, and drop the static files that none of them loads."""
    if error is not None or app.builder.format != "html":
        return
    site, address = Path(app.outdir), app.config.site_address
    cover.write(site / "_static", app.config.html_title)
    robots = "User-agent: *\nAllow: /\n"
    (site / "sitemap.xml").unlink(missing_ok=True)
    if address:
        pages = sorted(map(app.builder.get_target_uri, app.env.found_docs))
        (site / "sitemap.xml").write_text(site_map(address, pages), encoding="utf-8")
        robots += f"Sitemap: {address}sitemap.xml\n"
    (site / "robots.txt").write_text(robots, encoding="utf-8")
    prune(site, _brought(app), address)


def site_map(address: str, pages: list[str]) -> str:
    """Return the site map of pages, in the form of sitemaps.org."""
    top = ElementTree.Element("urlset", xmlns="http://www.sitemaps.org/schemas/sitemap/0.9")
    for page in pages:
        ElementTree.SubElement(ElementTree.SubElement(top, "url"), "loc").text = address + page
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def prune(site: Path, brought: set[str], address: str = "") -> None:
    """Delete those of the static files ``brought`` that no page and no style sheet names."""
    static = site / "_static"
    pages = [path for path in site.rglob("*.html") if static not in path.parents]
    used: set[Path] = set()
    pending = set().union(*(_named(page, site, address) for page in pages))
    while pending:
        path = pending.pop()
        if path not in used and path.is_file():
            used.add(path)
            if path.suffix == ".css":
                pending |= _named(path, site, address)
    for path in sorted(static.rglob("*"), reverse=True):
        if path.is_file() and path not in used and str(path.relative_to(static)) in brought:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _brought(app) -> set[str]:
    """Name the static files of the theme and of extensions from elsewhere."""
    themes = [Path(folder) / "static" for folder in app.builder.theme.get_theme_dirs()]
    extensions = [Path(app.confdir) / folder for folder in app.config.html_static_path]
    foreign = [folder for folder in (*themes, *extensions) if "site-packages" in folder.parts]
    return {str(path.relative_to(top)) for top in foreign for path in top.rglob("*")}


def _named(path: Path, site: Path, address: str) -> set[Path]:
    """The files that a page or a style sheet names: its src, href, content and url()."""
    text = path.read_text(encoding="utf-8")
    pattern = (
        r"url\(['\"]?([^'\")]+)" if path.suffix == ".css" else r'(?:src|href|content)="([^"]+)'
    )
    found = set()
    for name in re.findall(pattern, text):
        if address and name.startswith(address):
            found.add(site / unquote(urlsplit(name.removeprefix(address)).path))
        elif not re.match(r"[a-z]+:|#", name):
            found.add(Path(os.path.normpath(path.parent / unquote(urlsplit(name).path))))
    return found


def archive(site: Path, target: Path) -> None:
    """Pack a site into a zip file: the same bytes for the same site."""
    left_out = {PDF, ARCHIVE, ".buildinfo"}
    files = {
        path.relative_to(site).as_posix(): path
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }
    target.write_bytes(
        zips.packed((f"book/{name}", path) for name, path in files.items() if name not in left_out)
    )


def setup(app):
    app.add_config_value("site_address", "", "env", str)
    app.add_directive("cover", Cover)
    app.add_directive("downloads", Downloads)
    app.connect("config-inited", take_address)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", finish, priority=900)  # after all that copies files
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    built = Path(sys.argv[1])
    made = built.parent / ARCHIVE
    archive(built, made)
    shutil.copyfile(made, built / ARCHIVE)
    print(f"{made}: {made.stat().st_size / 2**20:.1f} MiB")
