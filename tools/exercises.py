"""The Sphinx extension of the exercises: the level in each title, and the list of them all.

The chapters' text is the only source. An exercise, its hint and its solution stand one after the
other, and the class of the exercise is its level; whether its graded solution held is in the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.nodes import is_exercise_node

import chapters
from cltheory.checks import registry
from cltheory.claims import blocks

LEVELS = {
    "warm-up": "a few lines from the definitions",
    "standard": "an argument like those of the chapter",
    "demanding": "an argument that the chapter does not show, or a longer way",
    "research-like": "ends with a question that we cannot answer",
}
FOLDED = ":class: dropdown\n"
_FENCE = re.compile(
    r"^(`{3,})\{(exercise|hint|solution)\} *([^\n]*)\n((?::[^\n]*\n)*)(.*?)^\1$", re.M | re.S
)
_OPTION = re.compile(r"^:(\w+): (.*)$", re.M)
_CLAIM = re.compile(r"\{prf:ref\}`([^`]+)`")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a chapter's text.

    Attributes
    ----------
    label, title, level : str
        As they stand in the text.
    claims : list of str
        The claims that the exercise, its hint or its solution name, in this order.
    """

    label: str
    title: str
    level: str
    claims: list[str]


def read(text: str) -> list[Exercise]:
    """Return the exercises of a chapter's text, in their order; refuse one that is not complete."""
    fences = [match.groups()[1:] for match in _FENCE.finditer(text)]
    return [
        _exercise(fences[place : place + 3])
        for place, (kind, *_) in enumerate(fences)
        if kind == "exercise"
    ]


def _exercise(fences: list[tuple[str, str, str, str]]) -> Exercise:
    (_, title, options, _), *folded = fences
    given = dict(_OPTION.findall(options))
    label, level = given.get("label", ""), given.get("class", "")

    def require(right: bool, what: str, was: str, should: str) -> None:
        if not right:
            where = f"exercise {label or title!r}"
            raise ValueError(
                f"{where}: {what} was {was!r}; it should be {should}. Mend it, then: make book"
            )

    require(bool(label), "its label", label, "an id of its own")
    require(level in LEVELS, "its level (:class:)", level, f"one of {', '.join(LEVELS)}")
    after = [f"{kind} {argument}".strip() for kind, argument, _, _ in folded]
    wanted = ["hint", f"solution {label}"]
    require(after == wanted, "what follows it", ", ".join(after), ", ".join(wanted))
    for kind, _, options, body in folded:
        require(FOLDED in options, f"the options of its {kind}", options, f"folded, {FOLDED!r}")
        require(bool(body.strip()), f"the text of its {kind}", body, "some words")
    bodies = " ".join(body for *_, body in fences)
    named = dict.fromkeys(_CLAIM.findall(bodies))
    return Exercise(label, title, level, [name for name in named if name in registry()])


def verdicts() -> dict[str, bool]:
    """Say by label whether the graded solution held in the run."""
    run = [block for _, block in blocks(chapters.EXECUTED)]
    return {block["name"]: block["holds"] for block in run if block["role"] == "exercise"}


def summary(exercises: list[Exercise], held: dict[str, bool]) -> str:
    """Count the exercises, by level, in MyST."""
    good = sum(held.get(exercise.label, False) for exercise in exercises)
    levels = [exercise.level for exercise in exercises]
    lines = [
        f"**{good} of {len(exercises)} graded solutions hold** in the run that made these pages.",
        "",
        *[f"- *{level}* ({levels.count(level)}): {words}" for level, words in LEVELS.items()],
    ]
    return "\n".join(lines)


def table(exercises: list[Exercise], held: dict[str, bool]) -> str:
    """Write the exercises of one chapter as a table, in MyST."""
    lines = ["| exercise | level | touches | solution |", "|---|---|---|---|"]
    for exercise in exercises:
        link = f"{{numref}}`{{number}} {exercise.title} <{exercise.label}>`"
        claims = "\u00a0· ".join(f"{{prf:ref}}`{claim}` `{claim}`" for claim in exercise.claims)
        mark = {True: "✓ holds", False: "✗ fails", None: "○ not run"}[held.get(exercise.label)]
        lines.append(f"| {link} | {exercise.level} | {claims} | {mark} |")
    return "\n".join(lines)


class Exercises(SphinxDirective):
    """``{exercises}``: all exercises, a section for each chapter."""

    def run(self):
        held, found = verdicts(), {}
        for name, path in chapters.chapters().items():
            self.env.note_dependency(str(path))
            self.env.note_dependency(str(chapters.EXECUTED / f"{name}.ipynb"))
            try:
                found[path] = read(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ExtensionError(f"{path.relative_to(chapters.ROOT)}: {error}") from None
        everything = [exercise for exercises in found.values() for exercise in exercises]
        page = self._nodes(summary(everything, held))
        for path, exercises in found.items():
            title = path.read_text(encoding="utf-8").partition("\n# ")[2].partition("\n")[0]
            docname = path.relative_to(chapters.ROOT).with_suffix("").as_posix()
            (line,) = self._nodes(f"{{doc}}`{title} </{docname}>`")
            section = nodes.section(ids=[f"exercises-of-{path.stem}"], classes=["exercise-list"])
            section += nodes.title("", "", *line.children)
            section += self._nodes(table(exercises, held))
            page.append(section)
        return page

    def _nodes(self, text: str) -> list[nodes.Node]:
        inside = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), "exercises"), 0, inside)
        return list(inside.children)


def show_level(app, doctree, docname) -> None:
    """Say the level of an exercise in its title."""
    for exercise in doctree.findall(is_exercise_node):
        title = next(iter(exercise.findall(nodes.title)))
        for level in LEVELS.keys() & set(exercise["classes"]):
            title += [nodes.Text(" "), nodes.inline("", level, classes=["exercise-level"])]


def setup(app):
    app.add_directive("exercises", Exercises)
    app.connect("doctree-resolved", show_level)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
