"""What stands folded under each theorem that is a claim: its permalink, how to cite it, its code.

A permalink is a page ``claims/<id>.html`` that leads to the theorem, wherever that stands and
whatever its number is. The environment may say where the site is read (``CLTHEORY_SITE``) and where
its source is kept (``CLTHEORY_REPOSITORY``); without them no link leads there.
"""

from __future__ import annotations

import os
import shutil
from html import escape
from pathlib import Path
from urllib.parse import quote, urlencode

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.errors import ExtensionError
from sphinx.util.osutil import relative_uri

import scrutiny
import uses
from cltheory import __version__
from cltheory.checks import registry

STUB = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Refresh" content="0; url={target}">
<link rel="canonical" href="{canonical}">
<title>{claim}</title>
</head>
<body><p><a href="{target}">The claim {claim}</a></p></body>
</html>
"""


class Fold(nodes.General, nodes.Element):
    """A part of the page that opens on demand; ``summary`` is the line that is always there."""


def permalinks() -> dict[str, str]:
    """Return the claim that each id leads to: its own, and those that it had before."""
    current = {claim: claim for claim in registry()}
    former = [
        (old, claim) for claim, entry in registry().items() for old in entry.get("former", [])
    ]
    return current | dict(former)


def furnish(app, doctree) -> None:
    """Put the furniture of a claim into the box of its theorem."""
    theorems = doctree.findall(
        lambda node: getattr(node, "attributes", {}).get("label") in registry()
    )
    for theorem in list(theorems):
        claim = theorem["label"]
        fold = Fold(summary="Link, cite, code", classes=["furniture"])
        fold += _entry("Permalink", _permalink(app, claim))
        fold += _entry("Cite")
        citation = bibtex(claim, _latex(theorem[0]), app.config)
        fold += nodes.literal_block(citation, citation, language="bibtex")
        names = uses.functions_of(claim)
        if names:
            fold += _entry("Functions", *map(_function, names))
        if tests := sorted({test for name in names for test in uses.tests_of(name)}):
            fold += _entry("Tests", *(nodes.literal("", f"tests/{test}") for test in tests))
        if count := scrutiny.errors_of(claim):
            fold += _entry("Planted errors that its check noticed first", _scrutiny(count))
        if app.config.claims_repository:
            fold += _entry("Report", _report(app, claim))
        theorem += fold


def _entry(head: str, *told: nodes.Node) -> nodes.paragraph:
    """Write a line: a head in bold, and what it has, with commas."""
    line = nodes.paragraph("", "", nodes.strong("", head), nodes.Text(": "))
    for number, node in enumerate(told):
        line += [nodes.Text(", ")] * bool(number) + [node]
    return line


def _permalink(app, claim: str) -> nodes.reference:
    here = app.builder.get_target_uri(app.env.docname)
    page = f"claims/{claim}.html"
    text = f"{app.config.claims_site}/{page}" if app.config.claims_site else page
    return nodes.reference("", text, refuri=relative_uri(here, page), internal=True)


def _function(name: str) -> pending_xref:
    link = pending_xref(
        "", refdomain="py", reftype="obj", reftarget=f"cltheory.{name}", refexplicit=True
    )
    link += nodes.literal("", name)
    return link


def _scrutiny(count: int) -> pending_xref:
    link = pending_xref(
        "", refdomain="std", reftype="doc", reftarget="/book/scrutiny", refexplicit=True
    )
    link += nodes.inline("", str(count))
    return link


def _report(app, claim: str) -> nodes.reference:
    told = f"Claim {claim}, cltheory {__version__}.\n\nWhat is wrong, and how to see it:\n"
    query = urlencode({"title": f"{claim}: ", "body": told}, quote_via=quote)
    address = f"{app.config.claims_repository}/issues/new?{query}"
    return nodes.reference("", "something is wrong with this claim", refuri=address)


def bibtex(claim: str, title: str, config) -> str:
    """Write the entry that cites a claim: its id is the key, and stays when numbers change."""
    fields = {
        "author": f"{{{config.author}}}",
        "title": f"{{{title}}}",
        "howpublished": f"Claim \\texttt{{{claim}}} of \\emph{{{config.html_title}}}, "
        f"cltheory {__version__}",
        "year": config.copyright,
    }
    if config.claims_site:
        fields["url"] = f"{config.claims_site}/claims/{claim}.html"
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{claim},", *lines, "}"])


def _latex(title: nodes.Element) -> str:
    """Write the title of a theorem, which comes in brackets, in LaTeX."""
    parts = [
        f"${node.astext()}$" if isinstance(node, nodes.math) else _escaped(node.astext())
        for node in title
    ]
    return "".join(parts).strip().removeprefix("(").removesuffix(")")


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%#_$" else letter for letter in text)


def write_permalinks(app, error) -> None:
    """Write the pages that lead from an id to its theorem."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "claims"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    theorems = getattr(app.env, "proof_list", {})
    for old, claim in permalinks().items():
        if claim in theorems:  # a chapter that is built alone has its own only
            page = app.builder.get_target_uri(theorems[claim]["docname"])
            site = app.config.claims_site or ".."
            text = STUB.format(
                claim=escape(claim), target=f"../{page}#{claim}", canonical=f"{site}/{page}"
            )
            (folder / f"{old}.html").write_text(text, encoding="utf-8")


def address(variable: str) -> str:
    """Read an address from the environment, without a slash at its end; empty if there is none."""
    value = os.environ.get(variable, "").rstrip("/")
    if value and not value.startswith(("https://", "http://")):
        raise ExtensionError(
            f"{variable} was {value!r}; it should be an address such as https://example.org/book. "
            f"Run: make book {variable}=https://example.org/book"
        )
    return value


def open_fold(translator, node) -> None:
    translator.body.append(translator.starttag(node, "details"))
    translator.body.append(f"<summary>{escape(node['summary'])}</summary>")


def close_fold(translator, node) -> None:
    translator.body.append("</details>\n")


def leave_out(translator, node) -> None:
    raise nodes.SkipNode


def setup(app):
    app.add_node(
        Fold, html=(open_fold, close_fold), latex=(leave_out, None), text=(leave_out, None)
    )
    app.add_config_value("claims_site", address("CLTHEORY_SITE"), "env", [str])
    app.add_config_value("claims_repository", address("CLTHEORY_REPOSITORY"), "env", [str])
    app.connect("doctree-read", furnish)
    app.connect("build-finished", write_permalinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
