"""The Sphinx extension that shows how the checks were checked: errors, mutants, alarms, tolerances.

Planted errors, mutants and false alarms come from their records in ``book/runs/``, and what was
made with other code than today's is shown as stale. Tolerances come from the chapters' last run.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.util.docutils import SphinxDirective

import alarms
import chapters
import mutants
import planted
import uses
from cltheory.ledger import figure
from sections import add_sections

Entry = dict[str, Any]
ROUNDING = 1e-16


def record(path: Path) -> Entry:
    """Read a record; without one, what has no entries."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def made(found: Entry, command: str) -> str:
    """Say when a record was made and with what."""
    told = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"Made on {found['date'][:10]} with {told}: `{command}`."


def stale(what: str, command: str) -> list[str]:
    """Warn the reader of what other code than today's has made."""
    return ["", ":::{warning}", f"**Stale.** {what} Run: `{command}`", ":::"]


@cache
def errors_of(claim: str) -> int:
    """Count the planted errors that the check of a claim was the first to notice."""
    errors = record(chapters.PLANTED).get("errors", [])
    return sum(bool(e.get("book")) and e["book"]["claim"] == claim for e in errors)


def of_planted() -> str:
    """Write what became of the planted errors: numbers, a table by module, and each error."""
    found, command = record(chapters.PLANTED), "python tools/planted.py"
    if not found:
        return f"No record yet. Make it with `{command}`."
    errors = found["errors"]
    modules = _modules(errors)
    lines = [
        f"**{len(errors)} errors** were planted, one at a time, in {len(modules)} modules. The "
        f"unit tests notice {_share(errors, 'unit')}, the checks of the book "
        f"{_share(errors, 'book')}. " + made(found, command),
    ]
    if found["code"] != planted.fingerprint():
        lines += stale("The package has changed since this record was made.", command)
    lines += ["", "| module | errors | noticed by tests | noticed by checks |", "|---|--:|---|---|"]
    for module, part in modules.items():
        lines.append(row(_linked(module), len(part), _share(part, "unit"), _share(part, "book")))
    for module, part in modules.items():
        lines += ["", f":::{{dropdown}} {module}: {len(part)} errors", *_each(part), ":::"]
    return "\n".join(lines)


def _linked(module: str) -> str:
    return f"{{doc}}`api/{module}`" if module in uses.modules() else f"`{module}`"


def _modules(errors: list[Entry]) -> dict[str, list[Entry]]:
    names = sorted({error["module"] for error in errors})
    return {name: [error for error in errors if error["module"] == name] for name in names}


def _share(errors: list[Entry], part: str) -> str:
    ran = [error for error in errors if part in error]
    if not ran:
        return "not run"
    noticed = sum(error[part] is not None for error in ran)
    return f"{noticed} of {len(ran)}"


def _each(errors: list[Entry]) -> list[str]:
    lines = []
    for error in errors:
        lines += [
            f"`{error['name']}` ({error['kind']})",
            f": {error['says']}",
            f"  Test: {_test(error)}. Check: {_check(error)}.",
            "",
        ]
    return lines


def _test(error: Entry) -> str:
    if "unit" not in error:
        return "not run"
    return f"`{error['unit']['test'].split('/')[-1]}`" if error["unit"] else "**survived**"


def _check(error: Entry) -> str:
    if "book" not in error:
        return "not run"
    if not error["book"]:
        return "**survived**"
    claim = error["book"]["claim"]
    known = any(claim == one.id for one in chapters.claims())
    return f"{{prf:ref}}`{claim}`, `{claim}`" if known else f"the exercise `{claim}`"


def of_mutants() -> str:
    """Write how many generic mutants the unit tests notice, and each that lived."""
    found, command = record(chapters.MUTANTS), "python tools/mutants.py"
    if not found:
        return f"No record yet. Make it with `{command}`."
    modules = found["modules"]
    counts = [mutants.ran(module) for module in modules.values()]
    noticed = sum(len(module["noticed"]) for module in modules.values())
    lines = [f"Of {sum(counts)} mutants that ran, {noticed} are noticed. " + made(found, command)]
    if old := [name for name, module in modules.items() if module["key"] != mutants.key(name)]:
        lines += stale(f"Other code than today's: {', '.join(old)}.", command)
    lines += ["", "| module | mutants | ran | noticed | lived, with a reason | lived, without |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    reasons = mutants.reasons()
    for name in mutants.MODULES:
        module = modules.get(name, {"noticed": [], "lived": []})
        told = sum((name, one["was"], one["now"]) in reasons for one in module["lived"])
        if count := mutants.ran(module):
            share = f"{len(module['noticed']) / count:.1%}"
            cells = (module["made"], count, share, told, len(module["lived"]) - told)
        else:
            cells = ("not run yet", *[""] * 4)
        lines.append(row(_linked(name), *cells))
    for name, module in modules.items():
        lines += ["", f":::{{dropdown}} {name}: {len(module['lived'])} that lived"]
        for mutant in module["lived"]:
            why = reasons.get((name, mutant["was"], mutant["now"]), "**not examined**")
            changed = f"{_verbatim(mutant['was'])} became {_verbatim(mutant['now'])}"
            lines.append(f"- `{mutant['function']}`: {changed}. {why}")
        lines.append(":::")
    return "\n".join(lines)


def _verbatim(code: str) -> str:
    """Write code that may hold backticks."""
    return f"`` {code} ``" if code else "nothing"


def of_alarms() -> str:
    """Write how often a line of evidence failed that should hold, over seeds."""
    found, command = record(chapters.ALARMS), "python tools/alarms.py"
    if not found:
        return f"No record yet. Make it with `{command}`."
    runs = {name: found["chapters"].get(name, {}) for name in chapters.chapters()}
    parts = {name: _parts(run) for name, run in runs.items()}
    of_checks, of_training, of_figures = zip(*parts.values(), strict=True)
    lines = [
        f"Checks: {_seeds(of_checks)}, **{_failed(of_checks)}** lines of evidence failed. "
        f"Training: {_seeds(of_training)}, **{_failed(of_training)}** comparisons with the theory "
        f"and {_failed(of_figures)} assertions about figures failed. " + made(found, command),
    ]
    if old := [
        f"{part} of {name}"
        for name, run in runs.items()
        for part, known in run.items()
        if known["key"] != alarms.key(name, part)
    ]:
        lines += stale(f"Other code than today's: {', '.join(old)}.", command)
    lines += ["", "| chapter | seeds | lines | training | comparisons | figures |"]
    lines += ["|---|--:|---|--:|---|---|"]
    told = []
    for name, (checks, training, figures) in parts.items():
        cells = len(checks["seeds"]), _told(checks), len(training["seeds"]), _told(training)
        failed = _seeds_of(figures)
        lines.append(row(name, *cells, len(failed) or _told(figures)))
        told += [
            f"- {name}, {len(seeds)} of {len(figures['seeds'])}: {_verbatim(check)}"
            for (_, check), seeds in failed.items()
        ]
    return "\n".join([*lines, "", *told])


def _parts(run: Entry) -> tuple[Entry, Entry, Entry]:
    """Part what failed: checks, training against the theory, and figures of that training."""
    none = {"seeds": [], "failed": []}
    checks, training = (run.get(part, none) for part in (alarms.CHECKS, alarms.TRAINING))
    figures = [fail for fail in training["failed"] if fail["claim"] == alarms.FIGURE]
    others = [fail for fail in training["failed"] if fail["claim"] != alarms.FIGURE]
    return checks, {**training, "failed": others}, {**training, "failed": figures}


def _seeds(runs: tuple[Entry, ...]) -> str:
    counts = [len(run["seeds"]) for run in runs]
    few = "" if min(counts) == max(counts) else f"{min(counts)} to "
    return f"{few}{max(counts)} seeds a chapter"


def _failed(runs: tuple[Entry, ...]) -> int:
    return sum(len(_seeds_of(run)) for run in runs)


def _told(run: Entry) -> str:
    """Name what failed, or say that nothing did."""
    told = [
        f"`{claim}`: {check} ({len(seeds)} of {len(run['seeds'])})"
        for (claim, check), seeds in _seeds_of(run).items()
    ]
    return "; ".join(told) or ("none" if run["seeds"] else "not run yet")


def _seeds_of(run: Entry) -> dict[tuple[str, str], list[int]]:
    """Return, for each line that failed, with which seeds it did."""
    seeds = defaultdict(list)
    for fail in run["failed"]:
        seeds[fail["claim"], fail["check"]].append(fail["seed"])
    return seeds


def row(*cells: object) -> str:
    """Write a row of a table; bars in a cell are no borders."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def of_tolerances() -> str:
    """Write every tolerance of a claim's evidence beside what this run measured."""
    lines = []
    for chapter in chapters.chapters():
        rows = [
            (claim.id, line)
            for claim in chapters.claims()
            if claim.chapter == chapter
            for line in claim.evidence
            if {"tolerance", "worst"} <= line["measured"].keys()
        ]
        lines += [
            f":::{{dropdown}} {chapter}: {len(rows)} tolerances",
            "| line of evidence | allowed | measured | headroom | for |",
            "|---|--:|--:|--:|---|",
            *(_row(claim, line) for claim, line in rows),
            ":::",
            "",
        ]
    return "\n".join(lines)


def _row(claim: str, line: Entry) -> str:
    allowed, worst = line["measured"]["tolerance"], line["measured"]["worst"]
    figures = (figure(value) for value in (allowed, worst, allowed / max(worst, ROUNDING)))
    return row(f"`{claim}`: {line['scope']}", *figures, _reason(line["kind"], allowed))


def _reason(kind: str, allowed: float) -> str:
    """Say what a tolerance is for; a check computes in double precision unless it says so."""
    if kind != "numeric":
        return "training"
    return "rounding" if allowed <= math.sqrt(ROUNDING) else "method"


class Planted(SphinxDirective):
    """``{planted}``: what became of each planted error."""

    sources: tuple[Path, ...] = (chapters.PLANTED, planted.CATALOGUE)
    text = staticmethod(of_planted)

    def run(self):
        code = chapters.PACKAGE.glob("*.py")
        for path in (*self.sources, *code, *chapters.EXECUTED.glob("*.ipynb")):
            self.env.note_dependency(str(path))
        add_sections(self, self.text())
        return []


class Alarms(Planted):
    """``{alarms}``: evidence that failed on some seed."""

    sources = (chapters.ALARMS,)
    text = staticmethod(of_alarms)


class Mutants(Planted):
    """``{mutants}``: generic mutants, and those that lived."""

    sources = (chapters.MUTANTS, mutants.EQUIVALENT)
    text = staticmethod(of_mutants)


class Tolerances(Planted):
    """``{tolerances}``: every tolerance, and what was measured."""

    sources = ()
    text = staticmethod(of_tolerances)


def setup(app):
    app.add_directive("planted", Planted)
    app.add_directive("mutants", Mutants)
    app.add_directive("alarms", Alarms)
    app.add_directive("tolerances", Tolerances)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
