"""How evidence is shown: its words, the card of a check, and the ledger of all claims.

Nothing here decides whether evidence holds; :mod:`cltheory.checks` did, when the chapter ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cltheory.checks import registry
from cltheory.claims import Claim, Claims

if TYPE_CHECKING:
    from docutils import nodes

WORDS = {
    "symbolic": "proved symbolically",
    "numeric": "checked numerically",
    "bound": "checked numerically (inequality)",
    "rate": "checked numerically (rate)",
    "counterexample": "counterexample",
    "observed": "observed in training",
    "recorded": "observed in a recorded run",
    "twin": "breaks when",
}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(value: float) -> str:
    """Write a number for a reader: two or three digits, a power of ten where that is shorter.

    >>> figure(8.9e-15), figure(0.35), figure(999.0), figure(999.9), figure(0.0)
    ('8.9·10⁻¹⁵', '0.35', '999', '10³', '0')
    """
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    head = "" if mantissa == "1.0" else f"{mantissa.removesuffix('.0')}·"
    return f"{head}10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def sentence(line: Mapping[str, Any]) -> str:
    """Say in words what was measured on one line of evidence, beside what was declared.

    Examples
    --------
    >>> measured = {"worst": 2e-15, "tolerance": 1e-12, "loose": False}
    >>> sentence({"kind": "numeric", "holds": True, "measured": measured})
    'largest gap 2·10⁻¹⁵, allowed 10⁻¹²'
    """
    m = line["measured"]
    kind = line["kind"]
    if kind == "symbolic":
        return "simplifies to zero" if line["holds"] else f"leaves {m['left']}"
    if kind == "numeric":
        loose = "; the tolerance is loose" if m["loose"] else ""
        return f"largest gap {figure(m['worst'])}, allowed {figure(m['tolerance'])}{loose}"
    if kind == "bound":
        return f"least slack {figure(m['least'])}"
    if kind == "rate":
        low, high = m["interval"]
        return (
            f"median {m['median']:.3f}, central half of seeds {low:.3f} to {high:.3f}; "
            f"{line['declared']}"
        )
    if kind == "counterexample":
        return f"the sentence fails by {figure(m['least'])}, at least {figure(m['margin'])} asked"
    if kind == "twin":
        return f"off by at least {figure(m['least'])}, {figure(m['margin'])} asked"
    if not m:
        return "no recorded run yet"
    where = ""
    if kind == "recorded":
        where = (
            f"; {m['device']}, {m['seconds']:.0f} s, seeds {m['seeds']}, commit {m['commit'][:12]}"
        )
    return (
        f"off the theory by {figure(m['worst'])}, allowed {figure(m['tolerance'])}; "
        f"an untrained model by {figure(m['untrained'])}{where}"
    )


class EvidenceRenderer:
    """The plugin of MyST-NB that draws a block of evidence as a card.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> output = SimpleNamespace(output_metadata={}, mime_type="text/plain")
    >>> EvidenceRenderer.handle_mime(None, output, inline=False) is None  # no evidence in it
    True
    """

    mime_priority_overrides: ClassVar[list[tuple[str, str, int | None]]] = []

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[nodes.Element] | None:
        """Return the card, or None for an output that is not evidence."""
        block = data.output_metadata.get("cltheory")
        if inline or data.mime_type != "text/plain" or block is None:
            return None
        return [card(block)]


def card(block: Mapping[str, Any]) -> nodes.Element:
    """Draw a block of evidence: what is claimed, how it was checked, when it breaks.

    Examples
    --------
    >>> block = {"name": "nystrom", "role": "claim", "holds": True, "evidence": []}
    >>> card({**block, "seed": 0, "seconds": 0.5})["classes"]
    ['evidence', 'evidence-claim', 'evidence-holds']
    """
    from docutils import nodes

    state = "holds" if block["holds"] else "fails"
    frame = nodes.container(classes=["evidence", f"evidence-{block['role']}", f"evidence-{state}"])
    frame["ids"] = [f"{block['role']}-{block['name']}"]
    title = nodes.paragraph(classes=["evidence-title"])
    title += nodes.strong("", ("✓ " if block["holds"] else "✗ ") + state)
    title += nodes.Text(", computed when this page was built")
    frame += title
    statement = nodes.paragraph("", "", nodes.strong("", "Statement"), nodes.Text(": "))
    statement += _statement(block["name"])
    frame += statement
    lines = block["evidence"]
    frame += _list("Checked", [line for line in lines if line["kind"] != "twin"])
    if twins := [line for line in lines if line["kind"] == "twin"]:
        frame += _list("Breaks when", twins)
    if block["role"] != "observation":
        frame += nodes.paragraph("", f"Seed {block['seed']}.", classes=["evidence-foot"])
    return frame


def _statement(label: str) -> list[nodes.Node]:
    """Link to the theorem or exercise that carries the label, by its number, and name the id."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    domain = "prf" if label in registry() else "std"
    link = pending_xref("", refdomain=domain, reftype="ref", reftarget=label, refexplicit=False)
    link += nodes.inline("", label)
    return [link, nodes.Text(", "), nodes.literal("", label)]


def _list(heading: str, lines: list[dict[str, Any]]) -> nodes.Element:
    from docutils import nodes

    group = nodes.container(classes=["evidence-group"])
    group += nodes.paragraph("", heading, classes=["evidence-heading"])
    entries = nodes.bullet_list()
    for line in lines:
        text = nodes.paragraph()
        if line["kind"] != "twin":
            text += [nodes.strong("", WORDS[line["kind"]]), nodes.Text(": ")]
        text += nodes.Text(line["scope"])
        if line["kind"] == "twin":
            text += [nodes.Text(" (changes "), nodes.literal("", line["measured"]["changes"])]
            text += nodes.Text(")")
        text += nodes.Text(". ")
        text += nodes.emphasis("", _capital(sentence(line)) + ".")
        if line["measured"].get("older"):
            text += nodes.inline("", "older run", classes=["evidence-older"])
        entries += nodes.list_item("", text)
    group += entries
    return group


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def markdown(claims: Claims) -> str:
    """Write the ledger in MyST: a table of all claims, then each claim's evidence.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cltheory.claims import gather
    >>> unread = gather(Path("no chapter was run"), {})
    >>> markdown(unread).startswith("**0 of ")
    True
    """
    held = sum(claim.status == "holds" for claim in claims)
    lines = [
        f"**{held} of {len(claims)} claims hold** in the run that made these pages.",
        "",
        "| claim | status | the source's sentence | evidence |",
        "|---|---|---|---|",
    ]
    for claim in claims:
        made = [line for line in claim.evidence if line["kind"] != "recorded" or line["measured"]]
        kinds = list(dict.fromkeys(WORDS[line["kind"]] for line in made))
        words = ", ".join(kind for kind in kinds if kind != WORDS["twin"])
        status = mark(claim.status)
        lines.append(f"| {link(claim)} `{claim.id}` | {status} | {claim.of_source} | {words} |")
    for claim in claims:
        lines += ["", f":::{{admonition}} {claim.id}", ":class: ledger", ""]
        lines.append(f"{link(claim)}. Source: {claim.source}; its sentence: {claim.of_source}. ")
        if claim.uses:
            lines.append("Leans on " + ", ".join(link(claims[used]) for used in claim.uses) + ".")
        lines.append("")
        lines += [
            f"- *{WORDS[line['kind']]}*: {line['scope']}; {sentence(line)}."
            for line in claim.evidence
        ]
        lines.append(":::")
    return "\n".join(lines)


def link(claim: Claim) -> str:
    """Refer to the theorem of a claim by its number, in MyST; to its id where it has none yet.

    >>> from pathlib import Path
    >>> from cltheory.claims import gather
    >>> link(gather(Path("no chapter was run"), {})["nystrom"])
    'nystrom'
    """
    return f"{{prf:ref}}`{claim.id}`" if claim.url else claim.id


def mark(status: str) -> str:
    """Say a status in a sign and in words.

    >>> mark("holds"), mark("leans on nystrom")
    ('✓ holds', '○ leans on nystrom')
    """
    return {"holds": "✓ holds", "fails": "✗ fails"}.get(status, f"○ {status}")
