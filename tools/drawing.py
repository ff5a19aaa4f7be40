"""A map of claims as an SVG: a claim a line, and an arrow to it from each claim that it uses.

Lines keep the order of the book, so the place of everything is decided by the claims alone. Arrows
run in a gutter of their own, where they cross no word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from cltheory.claims import Claim

ROW, CHAPTER, PART = 24, 34, 42
CHARACTER = 7.1  # upper estimate of a letter's mean width, in pixels, in the size of a title
STATE = 64  # room for the state

# The state is told by the shape and by a word; colour repeats it.
MARKS = {
    "holds": '<circle r="6.5"/><path class="stroke" d="M-3 0l2 2.5 4-5"/>',
    "fails": '<path d="M0-8 8 0 0 8-8 0Z"/><path class="stroke" d="M-2.5-2.5l5 5m0-5l-5 5"/>',
    "leans on": '<path class="hollow" d="M0-6.5 7 5.5H-7Z"/>',
    "not run": '<circle class="hollow" r="5.5"/>',
}


@dataclass(frozen=True)
class Heading:
    """A part, or a chapter that links to its page."""

    text: str
    href: str = ""


@dataclass(frozen=True)
class Line:
    """A claim, and where it leads."""

    claim: Claim
    href: str


def state(claim: Claim) -> str:
    """Return the state of a claim without the names of those that it leans on."""
    return "leans on" if claim.status.startswith("leans on") else claim.status


def plain(title: str) -> str:
    """Write a title without the signs that open and close formulas."""
    return title.replace("$", "")


def sign(name: str) -> str:
    """Draw a state by itself, for a legend."""
    return (
        f'<svg class="claim-mark claim-{_slug(name)}" viewBox="-9 -9 18 18" width="18" height="18" '
        f'aria-hidden="true">{MARKS[name]}</svg>'
    )


def draw(rows: list[Heading | Line], uses: Iterable[tuple[str, str]], label: str) -> str:
    """Draw the map: rows from top to bottom, an arrow to the user for each pair (user, used)."""
    places, bottom = _places(rows)
    height = {line.claim.id: y for line, y in places if isinstance(line, Line)}
    pairs = [(user, used, height[user], height[used]) for user, used in uses]
    gutter = 24 + max((_reach(a, b) for _, _, a, b in pairs), default=0)
    letters = max((len(_text(row)) for row in rows), default=0)
    width = round(gutter + 16 + CHARACTER * letters + STATE)
    parts = [
        f'<div class="claim-map"><svg width="{width}" height="{bottom}" '
        f'viewBox="0 0 {width} {bottom}" role="group" aria-label="{escape(label)}">'
    ]
    parts += [_arrow(user, used, gutter - 10, a, b) for user, used, a, b in pairs]
    for row, y in places:
        drawn = _line(row, gutter, y, width) if isinstance(row, Line) else _heading(row, gutter, y)
        parts.append(drawn)
    return "\n".join([*parts, "</svg></div>"])


def _places(rows: list[Heading | Line]) -> tuple[list[tuple[Heading | Line, int]], int]:
    """Put each row at the middle of its height; return them and the height of all."""
    places, top = [], 0
    for row in rows:
        size = ROW if isinstance(row, Line) else CHAPTER if row.href else PART
        places.append((row, top + size - ROW // 2))
        top += size
    return places, top + 4


def _text(row: Heading | Line) -> str:
    return plain(row.claim.title) if isinstance(row, Line) else row.text


def _reach(a: int, b: int) -> float:
    """How far to the left an arrow swings: further for a longer one, so that few coincide."""
    return 8 * (abs(a - b) / ROW) ** 0.58


def _arrow(user: str, used: str, x: float, to: int, start: int) -> str:
    swing = x - 4 / 3 * _reach(to, start)  # a cubic reaches three quarters of its handles
    return (
        f'<path class="use" data-user="{user}" data-used="{used}" '
        f'd="M{x:.1f} {start}C{swing:.1f} {start} {swing:.1f} {to} {x:.1f} {to}'
        f'm-5-3.5l5 3.5-5 3.5"/>'
    )


def _heading(row: Heading, x: float, y: int) -> str:
    text = f'<text x="{x - 8:.1f}" y="{y + 5}">{escape(plain(row.text))}</text>'
    if not row.href:
        return f'<g class="part">{text}</g>'
    return f'<a class="chapter" href="{escape(row.href)}">{text}</a>'


def _line(row: Line, x: float, y: int, width: int) -> str:
    claim, name = row.claim, state(row.claim)
    words = f"{plain(claim.title)}: {claim.status}. Id: {claim.id}. Uses: "
    words += f"{', '.join(claim.uses) or 'none'}. Used by: {', '.join(claim.used_by) or 'none'}."
    return (
        f'<a class="claim claim-{_slug(name)}" data-claim="{claim.id}" href="{escape(row.href)}">'
        f"<title>{escape(words)}</title>"
        f'<rect x="{x - 10:.1f}" y="{y - ROW // 2}" width="{width - x + 8:.1f}" height="{ROW}"/>'
        f'<g transform="translate({x:.1f} {y})">{MARKS[name]}</g>'
        f'<text x="{x + 14:.1f}" y="{y + 5}">{escape(plain(claim.title))}</text>'
        f'<text class="state" x="{width - 8}" y="{y + 5}">{name}</text></a>'
    )


def _slug(name: str) -> str:
    return name.replace(" ", "-")
