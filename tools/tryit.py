"""The Sphinx extension behind "Try it": the symbolic part of a check, run in the reader's page.

Under the card of each check that has such a part stands an editor with its program. Python is
loaded from the book's own folder when a reader runs one, never before; without a runtime
(``make try``) the pages are as they are, without editors.
"""

from __future__ import annotations

import shutil
import zipfile
from functools import cache
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util import logging

import chapters
import runtime
import trials
import zips

FOLDER = "try"  # under _static: what a page loads on demand
PACKAGE = "cltheory.zip"
ROWS = 30

EDITOR = """\
<details class="tryit" id="{id}" hidden>
<summary>Try it</summary>
<p>This runs in your browser, without a network. The first run loads {size} MB of Python and SymPy
from the book's folder. Lines of the check that need PyTorch are left out here; the
<a href="{notebook}" download>chapter's notebook</a> has them.</p>
<label for="{id}-code">The symbolic part of the check. Change a constant and run it.</label>
<textarea id="{id}-code" rows="{rows}" spellcheck="false" autocapitalize="off" autocomplete="off">
{program}</textarea>
<div class="tryit-keys">
<button type="button" class="tryit-run">Run</button>
<button type="button" class="tryit-reset">Reset</button>
<span class="tryit-clock"></span>
</div>
<div class="tryit-said" role="status">
<p class="tryit-state"></p><pre class="tryit-text"></pre>
</div>
</details>
"""


class Trial(nodes.General, nodes.Element):
    """An editor with a program."""


def write_trial(translator, node) -> None:
    size = sum(path.stat().st_size for path in runtime.FOLDER.glob("*.js"))
    text = EDITOR.format(
        id=node["id"],
        size=round(size / 2**20),
        notebook=node["notebook"],
        rows=min(ROWS, node["program"].count("\n") + 2),
        program=escape(node["program"]),
    )
    translator.body.append(text)
    raise nodes.SkipNode


@cache
def programs(name: str) -> dict[str, str]:
    """Return the programs of a chapter, by the id of the card that each stands under."""
    cells = chapters.code_cells(chapters.notebook(name))
    found = trials.programs(cell.source for cell in cells)
    return {f"{role}-{block}": program for (role, block), program in found.items()}


def offer(app, doctree, docname) -> None:
    """Put an editor under the card of each check that has a program."""
    name = chapters.on_page(docname)
    if not name or app.builder.format != "html" or not runtime.ready():
        return
    notebook = f"{'../' * docname.count('/')}_sources/{docname}.ipynb"
    cards = [node for node in doctree.findall(nodes.container) if "evidence" in node["classes"]]
    for card in cards:
        (identifier,) = card["ids"]
        if program := programs(name).get(identifier):
            trial = Trial(id=f"try-{identifier}", program=program, notebook=notebook)
            card.parent.insert(card.parent.index(card) + 1, trial)


def load_the_script(app, pagename, templatename, context, doctree) -> None:
    """Give a page with an editor the script and the style, and the names of what they load."""
    if doctree is not None and next(doctree.findall(Trial), None):
        parts = " ".join([*runtime.CORE, runtime.LIBRARIES_ZIP, PACKAGE])
        app.add_js_file("tryit.js", loading_method="defer", **{"data-parts": parts})
        app.add_css_file("tryit.css")


def copy_the_runtime(app, error) -> None:
    """Put beside the pages what they load on demand: the runtime, and the package of this tree."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    if not runtime.ready():
        logging.getLogger(__name__).info("no checks in the page; for those: make try")
        return
    shutil.copytree(runtime.FOLDER, target)
    (target / f"{PACKAGE}.js").write_text(runtime.script(PACKAGE, package()), encoding="ascii")


def package() -> bytes:
    """Zip what a check in the page imports: the modules, the registry, and what reads verdicts."""
    needs = nbformat.v4.new_code_cell("from cltheory import checks, ledger")
    modules = [chapters.PACKAGE / f"{module}.py" for module in chapters.imported([needs])]
    files = [
        (f"cltheory/{path.name}", path) for path in (*modules, chapters.PACKAGE / "claims.yml")
    ]
    files.append(("verdict.py", Path(__file__).with_name("verdict.py")))
    return zips.packed(files, zipfile.ZIP_STORED)  # the script that holds it is compressed


def setup(app):
    app.add_node(Trial, html=(write_trial, None))
    app.connect("doctree-resolved", offer)
    app.connect("html-page-context", load_the_script)
    app.connect("build-finished", copy_the_runtime)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
