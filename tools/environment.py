"""The Sphinx extension of the page that says what each run was made with.

It is the only page that may differ between two builds of one commit.
"""

from __future__ import annotations

from collections.abc import Mapping

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import chapters
from cltheory.claims import blocks
from cltheory.training import load_record

PAGE = "book/environment"
UNKNOWN = "unknown"  # said of a run that did not keep it


def pages() -> str:
    """Say what these pages were made from, in MyST."""
    claims = chapters.claims()
    return f"Commit {_short(claims.commit)}; {_versions(claims.versions)}."


def runs() -> str:
    """Write the table of the chapters' runs, in MyST."""
    lines = [_row("chapter", "seconds", "device", "seed", "made with", "began (UTC)", "commit")]
    lines.append("|---|--:|---|--:|---|---|---|")
    total = 0.0
    for name in chapters.chapters():
        run = chapters.read(chapters.EXECUTED / f"{name}.ipynb").metadata["cltheory"]
        total += run["seconds"]
        device, seed, commit, date = (
            run.get(fact, UNKNOWN) for fact in ("device", "seed", "commit", "date")
        )
        began = date.replace("T", " ").removesuffix("+00:00")
        cells = (f"{run['seconds']:.0f}", device, seed, _versions(run.get("versions", {})), began)
        lines.append(_row(_page(name), *cells, _short(commit)))
    return "\n".join([*lines, _row("all", f"{total:.0f}", *[""] * 5)])


def records() -> str:
    """Write the table of the recorded runs, in MyST."""
    judged = _judged()
    lines = [_row("chapter", "minutes", "device", "seeds", "made with", "configuration", "commit")]
    lines.append("|---|--:|---|---|---|---|---|")
    for path in chapters.runs():
        run = load_record(path)
        seeds = ", ".join(map(str, run.seeds))
        cells = (f"{run.seconds / 60:.0f}", run.device, seeds, _versions(run.versions))
        judgement = judged.get(run.chapter, UNKNOWN)
        lines.append(_row(_page(run.chapter), *cells, judgement, _short(run.commit)))
    return "\n".join(lines)


def _judged() -> dict[str, str]:
    """Say by chapter whether its recorded run was made by today's configuration."""
    words = {True: "an older one", False: "today's"}
    return {
        chapter: words[line["measured"]["older"]]
        for chapter, block in blocks(chapters.EXECUTED)
        for line in block["evidence"]
        if line["kind"] == "recorded" and line["measured"]
    }


def _page(name: str) -> str:
    page = chapters.chapters()[name].relative_to(chapters.ROOT).with_suffix("").as_posix()
    return f"{{doc}}`/{page}`"


def _versions(found: Mapping[str, str]) -> str:
    names = {"cltheory": "cltheory", "python": "Python", "torch": "PyTorch"}
    return ", ".join(f"{names[key]} {found[key]}" for key in names if key in found) or UNKNOWN


def _short(commit: str) -> str:
    digest, _, dirty = commit.partition("-")
    return commit if commit == UNKNOWN else f"`{digest[:12]}`" + (" with edits" if dirty else "")


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


class Environment(SphinxDirective):
    """``{environment}``: one of the page's parts, named by the argument."""

    required_arguments = 1

    def run(self):
        part = {"pages": pages, "runs": runs, "records": records}[self.arguments[0]]
        node = nodes.container(classes=["environment"])
        self.state.nested_parse(StringList(part().splitlines(), "runs"), 0, node)
        return [node]


def always(app, env, added, changed, removed):
    """Read the page again in every build: what it tells is in no file that Sphinx watches."""
    return [PAGE] if PAGE in env.found_docs else []


def setup(app):
    app.add_directive("environment", Environment)
    app.connect("env-get-outdated", always)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
