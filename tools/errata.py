"""The Sphinx extension of the errata: what does not hold as a source states it, and the repair.

The words stand in ``cltheory/errata.yml``; the judgement and the place in the source come from the
registry, the title from the theorem, the figures and the state from the evidence of the last run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from pybtex.database import parse_file
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import chapters
from cltheory.claims import Claim
from cltheory.ledger import WORDS, figure
from sections import add_sections

FILE = chapters.PACKAGE / "errata.yml"
PARTS = ("says", "fails", "repair")
MEASURED = {
    "counterexample": "least",
    "twin": "least",
    "bound": "least",
    "numeric": "worst",
    "observed": "worst",
    "recorded": "worst",
    "rate": "median",
}
"""The number that a figure reads off a line, by the kind of the line."""
JUDGEMENTS = ("holds", "holds with caveat", "false as stated", "not checkable as stated")
ARXIV = re.compile(r"arXiv:(\d+\.\d+)")
THEOREM = re.compile(r"`{3,}\{prf:theorem\} *([^\n]*)\n:label: (\S+)")

Entry = dict[str, Any]


def entries() -> list[Entry]:
    """Return the errata as they are written."""
    found: list[Entry] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def problems(errata: list[Entry], claims: dict[str, Claim]) -> list[str]:
    """Say what is missing, stale, or without evidence; each sentence ends with what mends it."""
    mend = f"edit {FILE.relative_to(chapters.ROOT)}"
    of_claims = [entry["claim"] for entry in errata if "sentence" not in entry]
    doubted = [claim.id for claim in claims.values() if claim.of_source != "holds"]
    found = [f"{claim}: no erratum; add one: {mend}" for claim in doubted if claim not in of_claims]
    for claim in of_claims:
        if claim not in doubted:
            found.append(f"{claim}: its sentence holds or is not registered; take it out: {mend}")
        if of_claims.count(claim) > 1:
            found.append(f"{claim}: stands twice; keep one: {mend}")
    for entry in errata:
        found += [f"{name(entry)}: {problem}: {mend}" for problem in _flaws(entry, claims)]
    return found


def name(entry: Entry) -> str:
    """Return what an erratum is called: its claim, or the id of a sentence of the general page."""
    return str(entry.get("sentence", entry["claim"]))


def _flaws(entry: Entry, claims: dict[str, Claim]) -> Iterator[str]:
    missing = [part for part in PARTS if not str(entry.get(part, "")).strip()]
    if "sentence" in entry and "title" not in entry:
        missing.append("title")
    if missing:
        yield f"{', '.join(missing)} not written"
    if entry["claim"] not in claims:
        yield f"{entry['claim']} is no claim"
        return
    if "sentence" not in entry and not entry["figures"]:
        yield "no figure"
    for read in entry["figures"]:
        lines = matching(claims[entry["claim"]], read["line"])
        if len(lines) != 1:
            yield f"{len(lines)} lines of evidence are called {read['line']!r}, not one"
        if read["reads"].count("{}") != 1:
            yield f"{read['reads']!r} should hold one {{}}"


def matching(claim: Claim, scope: str) -> list[dict[str, Any]]:
    """Return the lines of a claim's evidence that have this scope."""
    return [line for line in claim.evidence if line["scope"] == scope]


def reading(read: Entry, claim: Claim) -> str:
    """Write a figure of an erratum with the number that this run measured."""
    (line,) = matching(claim, read["line"])
    kind, measured = line["kind"], line["measured"]
    value = f"**{figure(measured[MEASURED[kind]])}**" if measured else "(no recorded run yet)"
    return f"{read['reads'].replace('{}', value)} (*{'twin' if kind == 'twin' else WORDS[kind]}*)"


@cache
def titles() -> dict[str, str]:
    """Return the titles of the claims, from the theorems that carry their labels."""
    texts = [path.read_text(encoding="utf-8") for path in chapters.chapters().values()]
    return {label: title for text in texts for title, label in THEOREM.findall(text)}


@dataclass(frozen=True)
class Work:
    """A work of the bibliography: its key, "Authors (year)", and its title."""

    key: str
    who: str
    title: str


@cache
def works() -> dict[str, Work]:
    """Return the works of the bibliography by their arXiv numbers."""
    found = {}
    for key, entry in parse_file(chapters.ROOT / "book" / "references.bib").entries.items():
        if number := ARXIV.search(entry.fields.get("note", "")):
            names = [" ".join(person.last_names) for person in entry.persons["author"]]
            who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            title = re.sub(r"[{}]", "", entry.fields["title"])
            found[number[1]] = Work(key, f"{who} ({entry.fields['year']})", title)
    return found


def work_of(claim: Claim) -> str:
    """Return the arXiv number of the first work that a claim's source names; empty if none."""
    number = ARXIV.search(claim.source)
    return number[1] if number and number[1] in works() else ""


def markdown(errata: list[Entry], claims: dict[str, Claim]) -> str:
    """Write the page in MyST: a count, then a section for each source."""
    hold, caveat, wrong, lost = (
        sum(claim.of_source == word for claim in claims.values()) for word in JUDGEMENTS
    )
    lines = [
        f"Behind the {len(claims)} claims of this book stand as many sentences of others: **{hold} "
        f"hold, {caveat} hold with a caveat, {wrong} are false as stated and {lost} not checkable "
        "as stated.**",
        "",
    ]
    written = {entry["claim"]: entry for entry in errata if "sentence" not in entry}
    own = [claim for claim in claims.values() if claim.id in written]
    for number in dict.fromkeys(work_of(claim) for claim in own):
        work = works().get(number)
        heading = f"{work.who}, arXiv:{number}" if work else "Other sources"
        lines += [
            f"## {heading}",
            "",
            f"*{work.title}* {{cite:p}}`{work.key}`." if work else "",
            "",
        ]
        for claim in own:
            if work_of(claim) == number:
                lines += section(written[claim.id], claim)
    lines += ["## Sentences of a general page", "", GENERAL, ""]
    for entry in errata:
        if "sentence" in entry:
            lines += section(entry, claims[entry["claim"]])
    return "\n".join(lines)


GENERAL = (
    "These are from an introduction for a general reader, which cites no theorems. Each is met "
    "elsewhere too."
)


def section(entry: Entry, claim: Claim) -> list[str]:
    """Write one erratum as a section, with an anchor that stays."""
    general = "sentence" in entry
    title = entry["title"] if general else titles().get(claim.id, claim.id)
    place = [] if general else [f"**{claim.of_source.capitalize()}.** Source: {claim.source}.", ""]
    shown = [f"  - {reading(read, claim)}" for read in entry["figures"]]
    state = "holds in this run" if claim.status == "holds" else claim.status
    return [
        f"(erratum-{name(entry)})=",
        f"### {title}",
        "",
        *place,
        "The sentence",
        f": {entry['says']}",
        "",
        "Where it fails",
        f": {entry['fails']}",
        "",
        *(["By how much", ":" + "\n".join(shown)[1:], ""] if shown else []),
        "The repair",
        f": {entry['repair']} Proved and checked as {{prf:ref}}`{claim.id}`, `{claim.id}`, which "
        f"{state}.",
        "",
    ]


class Errata(SphinxDirective):
    """``{errata}``: every sentence that does not hold as stated, by source."""

    def run(self):
        for path in (*chapters.EXECUTED.glob("*.ipynb"), FILE, chapters.PACKAGE / "claims.yml"):
            self.env.note_dependency(str(path))
        claims = {claim.id: claim for claim in chapters.claims()}
        if found := problems(entries(), claims):
            raise ExtensionError("\n".join(found))
        add_sections(self, markdown(entries(), claims))
        return []


def setup(app):
    app.add_directive("errata", Errata)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
