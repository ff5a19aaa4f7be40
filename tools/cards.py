"""The Sphinx extension of the reference cards: what the package knows of its losses and numbers.

A card is made from a function's docstring (its first line, its formula, the terms of its notes),
from :mod:`cltheory.optima`, and from the claims whose evidence uses the function.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import chapters
import uses
from cltheory import kernels, losses, method_losses, metrics, optima, triplets
from cltheory.ledger import figure
from sections import add_sections

LOSS = ("Candidates", "Minimiser", "Least value", "Limit", "Gradient", "Batch bias", "Cost")
KERNEL = ("Positive semidefinite", "Gegenbauer signs", "Bandwidth")
METRIC = ("Range", "Regular simplex", "Uniform law")
EXAMPLE = {"n_pairs": 4, "dim": 3, "temperature": 0.5}
KCL = {"kernel": kernels.gaussian(2.0), "weight": 1.0}
NOTES = re.compile(r"^Notes\n-----\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", re.M | re.S)
DISPLAY = re.compile(r"^\.\. math::.*?(?=\n\n|\Z)", re.M | re.S)
MATHS = re.compile(r":math:`([^`]*)`|^ *\.\. math::(.*?)(?=\n\n|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Facts:
    """What a docstring says of its function, in reStructuredText."""

    summary: str
    formula: str
    terms: dict[str, str]


def facts(function: Callable[..., Any], terms: tuple[str, ...]) -> Facts:
    """Read a docstring: its first line, its first display, and the terms that a card needs.

    Raises
    ------
    ValueError
        If a term is missing, unknown, or has no text, or if a formula has unbalanced braces.
    """
    where = f"{function.__module__}.{function.__name__}"
    mend = f"Edit its docstring in {function.__module__.replace('.', '/')}.py, then: make book"
    text = inspect.getdoc(function) or ""
    notes = NOTES.search(text)
    found = {}
    for item in re.split(r"\n(?=\S)", notes[1].strip("\n")) if notes else []:
        term, _, definition = item.partition("\n")
        found[term.strip()] = textwrap.dedent(definition).strip("\n")
    if tuple(found) != terms or not all(found.values()):
        raise ValueError(
            f"the notes of {where} were {', '.join(found) or 'none'}; they should be "
            f"{', '.join(terms)}, each with a text. {mend}"
        )
    for maths in MATHS.findall(text):
        if flaw := unbalanced("".join(maths)):
            raise ValueError(f"a formula of {where} has {flaw}: {''.join(maths).strip()}. {mend}")
    display = DISPLAY.search(text.partition("\nParameters\n")[0])
    summary = text.partition("\n\n")[0].replace("\n", " ")
    return Facts(_plain(summary), display[0] if display else "", _each(_plain, found))


def unbalanced(maths: str) -> str:
    """Say what does not balance in a formula; empty if all does."""
    for left, right in (
        (r"\{", r"\}"),
        (r"\\left\b", r"\\right\b"),
        (r"\\[bB]igg?l", r"\\[bB]igg?r"),
    ):
        counts = [len(re.findall(sign, maths)) for sign in (left, right)]
        if counts[0] != counts[1]:
            return f"{counts[0]} of {left!r} and {counts[1]} of {right!r}"
    return ""


def _plain(text: str) -> str:
    """Leave out what refers to other parts of a docstring; names become literals."""
    text = re.sub(r" ?\[\d+\]_", "", text)

    def literal(found: re.Match[str]) -> str:
        role, name = found[1], found[2]
        return found[0] if role == ":math:" or not name else f"``{name.lstrip('~')}``"

    return re.sub(r"(:\w+:|)`([^`]+)`|``[^`]+``", literal, text)


def _each(change: Callable[[str], str], table: dict[str, str]) -> dict[str, str]:
    return {key: change(text) for key, text in table.items()}


def public(module: ModuleType) -> list[Callable[..., Any]]:
    """Return the public functions that a module defines, in its own order."""
    functions = [f for f in vars(module).values() if inspect.isfunction(f)]
    own = [f for f in functions if f.__module__ == module.__name__]
    return [f for f in own if not f.__name__.startswith("_")]


def shown(kind: str) -> tuple[list[Callable[..., Any]], tuple[str, ...]]:
    """Return the functions that have cards of a kind, and the terms of these cards."""
    if kind == "losses":
        return [*public(losses), triplets.loss, *public(method_losses)], LOSS
    if kind == "kernels":
        made = (kernels.Kernel, kernels.Profile, kernels.Radial)
        makers = [f for f in public(kernels) if inspect.signature(f).return_annotation in made]
        return [f for f in makers if f is not kernels.on_sphere], KERNEL
    return public(metrics), METRIC


def example(name: str) -> str:
    """Evaluate a loss at its optimum and in the limit, where :mod:`cltheory.optima` knows both."""
    parameters = KCL if name == "kcl" else {"temperature": EXAMPLE["temperature"]}
    try:
        limit = optima.limit(name, EXAMPLE["dim"], **parameters)
    except ValueError:
        return ""
    least = optima.value(name, EXAMPLE["n_pairs"], dim=EXAMPLE["dim"], **parameters)
    what = "kernel exp(-2 r²), weight 1" if name == "kcl" else "τ = 1/2"
    return f"d = 3, {what}: least value {figure(least)} at M = 4, limit {figure(limit)}."


def card(function: Callable[..., Any], terms: tuple[str, ...]) -> list[str]:
    """Write a card in MyST, as a section."""
    known = facts(function, terms)
    module, name = function.__module__.removeprefix("cltheory."), function.__name__
    full, loss = f"{module}.{name}", module == "losses"
    rows = dict(known.terms)
    if loss and (words := example(name)):
        rows["Example"] = words
    called = f"{name}({_arguments(module, name)})"
    rows["Function"] = f":py:func:`{full} <cltheory.{full}>`, ``{called}``"
    claims = [f":prf:ref:`{claim}` ``{claim}``" for claim in uses.claims_of(full)]
    rows["Claims"] = "; ".join(claims) or "None in this book so far."
    listed = [f"{term}\n{textwrap.indent(text, '    ')}" for term, text in rows.items()]
    formula = [known.formula, ""] if known.formula else []
    body = [known.summary, "", *formula, *"\n".join(listed).splitlines()]
    heading = name if module in Cards.kinds else full
    return [f"(card-{full})=", f"### `{heading}`", "", "````{eval-rst}", *body, "````", ""]


def _arguments(module: str, name: str) -> str:
    """Write the arguments of a function as its author did, without their types."""
    arguments = copy.deepcopy(uses.public(module)[name].args)
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        argument.annotation = None
    return ast.unparse(arguments)


class Cards(SphinxDirective):
    """``{cards} losses``, ``kernels`` or ``metrics``: a section for each function."""

    required_arguments = 1
    kinds = ("losses", "kernels", "metrics")

    def run(self):
        kind = directives.choice(self.arguments[0], self.kinds)
        functions, terms = shown(kind)
        for module in ("losses", "method_losses", "kernels", "metrics", "triplets", "optima"):
            self.env.note_dependency(str(chapters.PACKAGE / f"{module}.py"))
        try:
            lines = [line for function in functions for line in card(function, terms)]
        except ValueError as error:
            raise ExtensionError(str(error)) from error
        add_sections(self, "\n".join(lines))
        return []


def setup(app):
    app.add_directive("cards", Cards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
