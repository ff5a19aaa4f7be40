"""Evaluate the formulas of docstrings: a translation to SymPy of their LaTeX."""

import re

import sympy as sp
from sympy.parsing.sympy_parser import (
    implicit_multiplication,
    parse_expr,
    standard_transformations,
)

RULES = (*standard_transformations, implicit_multiplication)
SPACES = r"\\[,;!]|\\[bB]igg?[lr]\b"
NAMES = {
    r"\tau": " tau ",
    r"\nu": " nu ",
    r"\mu": " mu ",
    r"\varepsilon": " varepsilon ",
    r"\kappa": " kappa",
    r"\lambda_0": " lambda0 ",
    r"\infty": " oo ",
}


def formulas(text):
    """Return the inline formulas of a piece of reStructuredText."""
    return re.findall(r":math:`([^`]*)`", text)


def value(latex, **numbers):
    """Return a formula as a float, with numbers or functions for its letters."""
    known = {"F": lambda b, z: sp.hyper((), (b,), z), "log": sp.log, "sqrt": sp.sqrt, "exp": sp.exp}
    text = _translate(re.sub(SPACES, "", latex).replace("{}_0F_1(;", " F("))
    return float(parse_expr(text, local_dict=known | numbers, transformations=RULES))


def _translate(latex):
    """Turn LaTeX into an expression of Python."""
    for sign, name in NAMES.items():
        latex = re.sub(re.escape(sign) + r"(?![a-zA-Z])", lambda _, name=name: name, latex)
    latex = re.sub(r"\\text\{(\w+)\}", r" \1 ", latex).replace(";", ",")
    out, rest = "", latex
    while rest:
        if found := re.match(r"\\[td]?frac", rest):
            above, rest = _argument(rest[found.end() :])
            below, rest = _argument(rest)
            out += f"(({above})/({below}))"
        elif found := re.match(r"\\sqrt", rest):
            inside, rest = _argument(rest[found.end() :])
            out += f" sqrt({inside})"
        elif found := re.match(r"\\log\s*(?!\()", rest):
            inside, rest = _argument(rest[found.end() :])
            out += f" log({inside})"
        elif rest.startswith("\\log"):
            out, rest = out + " log", rest[4:].lstrip()
        elif found := re.match(r"e\^", rest):
            power, rest = _argument(rest[found.end() :])
            out += f" exp({power})"
        elif found := re.match(r"\^", rest):
            power, rest = _argument(rest[found.end() :])
            out += f"**({power})"
        else:
            out, rest = out + rest[0], rest[1:]
    assert "\\" not in out, f"{out!r} has a command that is not translated"
    return out


def _argument(text):
    """Take the next argument of a command: what braces hold, F(...), a name, or one digit."""
    text = text.lstrip()
    if text.startswith("{"):
        inside, rest = _closed(text, "{", "}")
        return _translate(inside), rest
    if text.startswith("F("):
        inside, rest = _closed(text[1:], "(", ")")
        return f"F({_translate(inside)})", rest
    found = re.match(rf"{'|'.join(name.strip() for name in NAMES.values())}|.", text)
    return found[0], text[found.end() :]


def _closed(text, left, right):
    """Split after the bracket that closes the first one."""
    depth = 0
    for k, sign in enumerate(text):
        depth += (sign == left) - (sign == right)
        if depth == 0:
            return text[1:k], text[k + 1 :]
    raise ValueError(f"{text!r} has a bracket that is not closed")
