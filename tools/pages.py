"""The Sphinx extension of the book: outputs of the checked run, the ledger, no network."""

from __future__ import annotations

import base64
import importlib.util
import io
import shutil
from collections import Counter
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import chapters
from cltheory import ledger

MATHJAX = "tex-svg.js"  # one file, glyphs inside: no font is requested


def read(text: str) -> nbformat.NotebookNode:
    """Read a page; a chapter gets the outputs of the run that executed these very cells."""
    page = read_myst_markdown_notebook(text, add_source_map=True)
    code = chapters.code_cells(page)
    if not (is_myst_markdown_notebook(text) and code):
        return page
    for run in filter(None, map(chapters.kept, sorted(chapters.EXECUTED.glob("*.ipynb")))):
        if run.metadata["cltheory"]["code"] == chapters.code_key(page):
            for cell, executed in zip(code, chapters.code_cells(run), strict=True):
                cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
                for output in cell.outputs:
                    lighten(output.get("data", {}))
            return page
    raise ExtensionError("a chapter was not executed as it stands. Run: make book")


def lighten(data: dict) -> None:
    """Give a picture a palette of 256 colours: a third of the bytes, to the eye the same."""
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        light = io.BytesIO()
        picture.quantize(256).save(light, "png", optimize=True)
        data["image/png"] = base64.b64encode(light.getvalue()).decode()


def refuse_older_runs(app, env, added, changed, removed) -> list[str]:
    """Stop the build where a chapter's run is not of today's code: a page shows no older output."""
    shown = filter(None, map(chapters.on_page, env.found_docs))
    if stale := [name for name in sorted(shown) if not chapters.has_run(name)]:
        names = ", ".join(stale)
        raise ExtensionError(f"no run of today's code for: {names}. Run: make book")
    return []


def depend_on_the_run(app, doctree) -> None:
    """Render a chapter again when its run is newer than its page."""
    name = chapters.on_page(app.env.docname)
    if name:
        app.env.note_dependency(str(chapters.EXECUTED / f"{name}.ipynb"))


class Ledger(SphinxDirective):
    """``{ledger}``: the table of all claims and their evidence."""

    def run(self):
        for path in (*chapters.EXECUTED.glob("*.ipynb"), chapters.PACKAGE / "claims.yml"):
            self.env.note_dependency(str(path))
        text = ledger.markdown(chapters.claims())
        node = nodes.container(classes=["ledger-page"])
        self.state.nested_parse(StringList(text.splitlines(), "ledger"), 0, node)
        return [node]


def use_local_mathjax(app) -> None:
    app.config.mathjax_path = f"mathjax/{MATHJAX}"


def mathjax_folder() -> Path:
    """Return the folder of the MathJax that is installed."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app, error) -> None:
    if error is None and app.builder.format == "html":
        source = mathjax_folder() / MATHJAX
        target = Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / MATHJAX)


def number_ids(app, doctree, docname) -> None:
    """Give an id to one element of a page: extensions repeat theirs, two observations share one."""
    seen: Counter[str] = Counter()
    for node in doctree.findall(nodes.Element):
        for place, name in enumerate(node.get("ids", [])):
            seen[name] += 1
            if seen[name] > 1:
                node["ids"][place] = f"{name}-{seen[name]}"


def mend_roles(app, pagename, templatename, context, doctree) -> None:
    """Give the entries of the bibliography the role that browsers still know."""
    if "doc-biblioentry" in context.get("body", ""):
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def name_toggles(app, pagename, templatename, context, doctree) -> None:
    """Give the toggles of the sidebar a name, for readers who do not see their sign."""
    draw = context.get("generate_toctree_html")

    def named(kind, *args, **options):
        made = draw(kind, *args, **options)
        bare, full = "<summary><span", '<summary aria-label="Show the pages below"><span'
        return str(made).replace(bare, full) if kind == "sidebar" else made

    if draw:
        context["generate_toctree_html"] = named


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    """Leave out the loader of a service that these pages do not use; it reports an error."""

    def kept(file) -> bool:
        body = (getattr(file, "attributes", None) or {}).get("body") or ""
        return "thebe" not in str(getattr(file, "filename", "")) and "THEBE" not in body

    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind) or [] if kept(file)]


def setup(app):
    app.add_directive("ledger", Ledger)
    app.connect("builder-inited", use_local_mathjax)
    app.connect("env-get-outdated", refuse_older_runs, priority=100)  # before all that reads runs
    app.connect("doctree-read", depend_on_the_run)
    app.connect("doctree-resolved", number_ids)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", name_toggles, priority=900)
    app.connect("html-page-context", mend_roles)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
