"""The reference of the package: a page a module, drawn from its docstrings by Sphinx's autodoc.

``{api} kernels`` draws every public name of a module, ``{api-modules}`` the table of all modules,
``{api-claims}`` the table that leads from a claim to the functions that its evidence uses.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import inspect
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import chapters
import uses
from cltheory.checks import registry

SHELVES = {
    "Kernels and points": ["kernels", "sphere", "mercer", "rkhs", "pairs"],
    "Losses, and what they reach": [
        "losses",
        "method_losses",
        "risks",
        "optima",
        "triplets",
        "metrics",
        "minimise",
    ],
    "Networks and their flows": ["networks", "ntk", "flows", "pca", "eigenfunctions"],
    "Training": ["training", "methods", "systems", "views", "data", "sweeps"],
    "Evidence and figures": ["checks", "claims", "ledger", "figures"],
    "Underneath": ["blockwise", "memory", "sinkhorn"],
}
"""The modules, in the order in which a reader meets them."""


class Made(SphinxDirective):
    """A piece of a page that is made from the code and the chapters."""

    def run(self) -> list[nodes.Node]:
        # A run is of today's cells: it changes when a chapter's code does, not with its prose.
        for path in [*chapters.PACKAGE.glob("*.*"), *chapters.EXECUTED.glob("*.ipynb")]:
            self.env.note_dependency(str(path))
        node = nodes.Element()
        self.state.nested_parse(StringList(self.text().splitlines(), "api"), 0, node)
        return node.children

    def text(self) -> str:
        raise NotImplementedError


class Module(Made):
    required_arguments = 1

    def text(self) -> str:
        return "```{eval-rst}\n" + reference(self.arguments[0]) + "\n```"


class Modules(Made):
    def text(self) -> str:
        lines = ["| module | what it holds |", "|---|---|"]
        for shelf, modules in SHELVES.items():
            lines.append(f"| **{shelf}** | |")
            for module in modules:
                told = inspect.getdoc(importlib.import_module(f"cltheory.{module}"))
                first = re.sub(":math:`(.*?)`", r"$\1$", told.splitlines()[0])
                lines.append(f"| {{doc}}`{module} <api/{module}>` | {first} |")
        return "\n".join(lines)


class Claims(Made):
    def text(self) -> str:
        lines = ["| claim | what its evidence uses |", "|---|---|"]
        for claim in registry():
            names = ", ".join(
                f"{{py:obj}}`{name} <cltheory.{name}>`" for name in uses.functions_of(claim)
            )
            lines.append(f"| {{prf:ref}}`{claim}` `{claim}` | {names or 'its own code alone'} |")
        return "\n".join(lines)


def reference(module: str) -> str:
    """Write a module for autodoc: its text, the table of its names, each of them, its constants."""
    public = uses.public(module)
    own = [
        name for name, node in public.items() if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    constants = [name for name in public if name not in own]
    lines = [f".. automodule:: cltheory.{module}", "", f".. currentmodule:: cltheory.{module}", ""]
    lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in own), ""]
    for name in own:
        if isinstance(public[name], ast.ClassDef):
            lines += [f".. autoclass:: {name}", "   :members:", "   :member-order: bysource", ""]
        else:
            lines += [f".. autofunction:: {name}", ""]
    if constants:
        lines += [".. rubric:: Constants", ""]
        for name in constants:
            lines += [f".. autodata:: {name}", *_shown_value(module, name), ""]
    return "\n".join(lines)


def _shown_value(module: str, name: str) -> list[str]:
    """Leave out a value that is written differently on each run, such as a table of functions."""
    value = getattr(importlib.import_module(f"cltheory.{module}"), name)
    return [] if isinstance(value, int | float | str | tuple) else ["   :no-value:"]


def sign(app, what, name, obj, options, signature, returns):
    """Write a signature as its author did: aliases keep their names, and link to their text."""
    _, module, *rest = name.split(".")
    node = uses.public(module).get(rest[0]) if rest else None
    for part in rest[1:]:
        node = _member(node, part)
    if dataclasses.is_dataclass(obj) or hasattr(obj, "_fields"):
        node = _made_from_fields(copy.deepcopy(node))
    elif isinstance(node, ast.ClassDef):
        node = _member(node, "__init__")
    if not isinstance(node, ast.FunctionDef):
        return None
    node = Qualified(module).visit(copy.deepcopy(node))
    arguments = node.args
    if arguments.args[:1] and arguments.args[0].arg in {"self", "cls"}:
        del arguments.args[0]
    gives = ast.unparse(node.returns) if node.returns and what != "class" else None
    return f"({ast.unparse(arguments)})", gives


def _member(node: ast.stmt | None, name: str) -> ast.stmt | None:
    return next((child for child in node.body if getattr(child, "name", "") == name), None)


def _made_from_fields(node: ast.ClassDef) -> ast.stmt:
    """Return the constructor that Python writes for a dataclass or a named tuple."""
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    for field in fields:
        if isinstance(field.value, ast.Call):  # field(...): the value that it makes, if any
            made = [k.value for k in field.value.keywords if k.arg == "default_factory"]
            field.value = ast.Call(made[0], [], []) if made else None
    told = ", ".join(map(ast.unparse, fields))
    return ast.parse(f"def __init__({told}): pass").body[0]


class Qualified(ast.NodeTransformer):
    """Write names of the package in annotations in full, so that they can be linked.

    An alias of a private module, which has no page, is written as what it stands for.
    """

    def __init__(self, module: str) -> None:
        self.module, self.imported = module, uses.names_of(module)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in uses.public(self.module):
            return ast.Name(f"cltheory.{self.module}.{node.id}")
        full = self.imported.get(node.id, "")
        if of_private := re.fullmatch(r"cltheory\.(_\w+)\.(\w+)", full):
            alias = uses.public(of_private[1]).get(of_private[2])
            if isinstance(alias, ast.Assign):
                return alias.value
        return ast.Name(full) if full.startswith("cltheory.") else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Shapes of one letter start with a blank, for the sake of linters."""
        return ast.Constant(node.value.strip()) if isinstance(node.value, str) else node


def finish(app, what, name, obj, options, lines) -> None:
    """Link the names in a docstring, and end it with the claims and the tests that use it."""
    _, module, *rest = name.split(".")
    parameters = _parameters(obj)
    text = _numbered(_told("\n".join(lines)))
    text = NAME.sub(lambda found: _linked(found[1], module, parameters), text)
    lines[:] = text.splitlines()
    if len(rest) == 1 and what in {"function", "class"}:
        lines += ["", *_used(f"{module}.{rest[0]}")]


def _told(text: str) -> str:
    """Leave the type of an attribute as it was written: it is words, or a shape."""
    return re.sub(r"^( +):type: (.*)$", r"\1``\2``", text, flags=re.M)


def _numbered(text: str) -> str:
    """Make the references of a docstring a plain list: MyST knows no footnote of another syntax."""
    return re.sub(r"^\.\. \[(\d+)\] ", "#. ", re.sub(r"(\[\d+\])_", r"\1", text), flags=re.M)


NAME = re.compile(r"(?<![:`\w])`([A-Za-z_][\w.]*)`(?![`_])")
"""A name between single backticks, which a docstring of NumPy's style may hold."""


def _parameters(obj: object) -> set[str]:
    try:
        return set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return set()


def _linked(name: str, module: str, parameters: set[str]) -> str:
    known = name in uses.public(module) and name not in parameters
    return f":py:obj:`{name} <cltheory.{module}.{name}>`" if known else f"``{name}``"


def _used(name: str) -> list[str]:
    """Write where a public name is used: in the evidence of claims, and in tests."""
    claims = [f":prf:ref:`{claim}` (``{claim}``)" for claim in uses.claims_of(name)]
    tests = [f"``{test}``" for test in uses.tests_of(name)]
    told = {"Evidence": claims, "Tests": tests}
    fields = [f":{head}: {', '.join(entries)}" for head, entries in told.items() if entries]
    return [".. container:: api-uses", "", *(f"   {line}" for line in fields)] if fields else []


def find(app, env, node, content):
    """Find an alias of a type, which an annotation takes for a class."""
    if (node.get("refdomain"), node.get("reftype")) != ("py", "class"):
        return None
    resolve = env.get_domain("py").resolve_xref
    return resolve(env, node["refdoc"], app.builder, "obj", node["reftarget"], node, content)


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """Leave out what Python writes by itself for each field of a named tuple."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


LINES = re.compile(r'(<span class="sig-paren">\(</span>)\s*<dl>(.*?)</dl>', re.DOTALL)
"""The arguments of a signature on several lines, for which Sphinx writes a list without terms."""


def mend_signatures(app, pagename, templatename, context, doctree) -> None:
    """Make the lines of a signature plain blocks, which browsers and screen readers know."""

    def plain(found: re.Match) -> str:
        lines = found[2].replace("<dd>", "<div>").replace("</dd>", "</div>")
        return f'{found[1]}<div class="sig-lines">{lines}</div>'

    if 'class="sig-paren"' in context.get("body", ""):
        context["body"] = LINES.sub(plain, context["body"])


def setup(app):
    for extension in ("autodoc", "autosummary", "napoleon", "viewcode"):
        app.setup_extension(f"sphinx.ext.{extension}")
    app.add_directive("api", Module)
    app.add_directive("api-modules", Modules)
    app.add_directive("api-claims", Claims)
    # After napoleon, which turns the sections of a docstring into fields.
    app.connect("autodoc-process-docstring", finish, priority=600)
    app.connect("autodoc-process-signature", sign)
    app.connect("missing-reference", find)
    app.connect("autodoc-skip-member", skip)
    app.connect("html-page-context", mend_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
