"""Which functions of the package the evidence of a claim uses, and which tests test them.

Read from the code, not from a run: a check or a training cell names functions of its own chapter,
and these are followed back, through every cell before, to names that the chapter imports. What a
function of the package calls inside is not counted.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import jupytext

import chapters

EVIDENCE = {"claim", "observation"}
HARNESS = "checks."
"""The module that judges every claim says nothing about any of them."""


@cache
def public(module: str) -> dict[str, ast.stmt]:
    """Return the public names of a module, with the statements that define them.

    They are the functions and classes that it defines, and the constants that it explains by a
    string under them, each without a leading underscore.
    """
    text = (chapters.PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    body = ast.parse(text).body
    found: dict[str, ast.stmt] = {}
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and chapters.is_text(following):
            found |= dict.fromkeys(_bound(statement), statement)
    return {name: statement for name, statement in found.items() if not name.startswith("_")}


def names_of(module: str) -> dict[str, str]:
    """Return what the names that a module imports stand for, in full."""
    scope = Scope()
    for node in ast.walk(
        ast.parse((chapters.PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    ):
        scope.take(node)
    return scope.imported


def modules() -> list[str]:
    """Return the public modules of the package."""
    return sorted(path.stem for path in chapters.PACKAGE.glob("[a-z]*.py"))


def functions_of(claim: str) -> list[str]:
    """Return the public names, as ``module.name``, that the evidence of a claim uses."""
    return sorted(_by_claim().get(claim, ()))


def claims_of(name: str) -> list[str]:
    """Return the claims whose evidence uses a public name, in the order of the book."""
    return [claim for claim, names in _by_claim().items() if name in names]


def tests_of(name: str) -> list[str]:
    """Return the test files that use a public name, as they lie in ``tests``."""
    return [test for test, names in _by_test().items() if name in names]


@cache
def _by_claim() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for path in chapters.chapters().values():
        cells = [cell.source for cell in chapters.code_cells(jupytext.read(path))]
        for claim, names in evidence(cells).items():
            found[claim] = found.get(claim, frozenset()) | names
    return found


@cache
def _by_test() -> dict[str, frozenset[str]]:
    found, folder = {}, chapters.ROOT / "tests"
    for path in [*sorted(folder.glob("test_*.py")), *sorted(folder.glob("properties/test_*.py"))]:
        tree, scope = ast.parse(path.read_text(encoding="utf-8")), Scope()
        for statement in tree.body:
            scope.read(statement)
        found[path.relative_to(folder).as_posix()] = scope.reach(tree)
    return found


def evidence(cells: list[str]) -> dict[str, frozenset[str]]:
    """Return the public names that the blocks of each claim use, from a chapter's code cells."""
    scope, found = Scope(), {}
    for source in cells:
        for statement in ast.parse(_plain(source)).body:
            scope.read(statement)
            for block in ast.walk(statement):
                for claim in _opened(block):
                    names = {n for n in scope.reach(block) if not n.startswith(HARNESS)}
                    found[claim] = found.get(claim, frozenset()) | names
    return found


def _plain(source: str) -> str:
    """Return a cell without its magics: an indented line that begins with % is a remainder."""
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


def _opened(node: ast.AST) -> Iterator[str]:
    for item in node.items if isinstance(node, ast.With) else ():
        match item.context_expr:
            case ast.Call(func=ast.Name(id=role), args=[ast.Constant(value=str(claim))]):
                if role in EVIDENCE:
                    yield claim


@dataclass(frozen=True)
class Definition:
    """What a name of a chapter stands for: public names, and names that are looked up when used."""

    known: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()


@dataclass
class Scope:
    """The names of a chapter, as they stand after the statements that were read."""

    imported: dict[str, str] = field(default_factory=dict)  # alias -> "cltheory[.module[.name]]"
    defined: dict[str, Definition] = field(default_factory=dict)

    def read(self, statement: ast.stmt) -> None:
        """Take over what a top-level statement binds."""
        for node in ast.walk(statement):
            self.take(node)
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            definition = Definition(later=frozenset(_free(statement)))
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            definition = Definition(known=self.reach(statement))
        for name in _bound(statement):
            self.imported.pop(name, None)
            self.defined[name] = definition
        for name in _mended(statement):
            if name in self.defined:
                before = self.defined[name]
                self.defined[name] = Definition(before.known | definition.known, before.later)

    def take(self, node: ast.AST) -> None:
        """Take over what an import binds."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                self.imported[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def reach(self, node: ast.AST) -> frozenset[str]:
        """Return the public names that a piece of code uses, itself or through the chapter's."""
        pending, seen, found = set(_free(node)), set(), set()
        while pending:
            dotted = pending.pop()
            seen.add(dotted)
            root, _, rest = dotted.partition(".")
            if root == "cltheory":
                found |= _public_name(dotted)
            elif root in self.imported:
                found |= _public_name(f"{self.imported[root]}.{rest}")
            elif root in self.defined:
                found |= self.defined[root].known
                pending |= self.defined[root].later - seen
        return frozenset(found)


def _public_name(dotted: str) -> set[str]:
    """Return ``module.name`` if that is what a dotted name starts with, in the package."""
    match dotted.split("."):
        case ["cltheory", module, name, *_] if module in modules() and name in public(module):
            return {f"{module}.{name}"}
    return set()


def _free(node: ast.AST, local: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the names, dotted where attributes are taken, that code takes from around it."""
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = node.args
        outside = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        for child in [*outside, *getattr(node, "decorator_list", [])]:
            yield from _free(child, local)
        inside = node.body if isinstance(node.body, list) else [node.body]
        parameters = {a.arg for a in ast.walk(arguments) if isinstance(a, ast.arg)}
        local = local | parameters | {name for child in inside for name in _bound(child)}
        for child in inside:
            yield from _free(child, local)
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        local = local | set(_bound(node))
    if isinstance(node, ast.With):  # the block's own name, which the next block takes again
        local = local | {name for item in node.items for name in _bound(item)}
    dotted = _dotted(node)
    if dotted and dotted.partition(".")[0] not in local:
        yield dotted
    if not dotted:
        for child in ast.iter_child_nodes(node):
            yield from _free(child, local)


def _dotted(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(name)) if name in public("losses"):
            return f"cltheory.losses.{name}"  # as `optima` takes a loss
        case ast.Name(id=name, ctx=ast.Load()):
            return name
        case ast.Attribute(value=value, attr=name) if head := _dotted(value):
            return f"{head}.{name}"
    return ""


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds around it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _mended(statement: ast.stmt) -> Iterator[str]:
    """Yield the names whose objects a statement may change: ``x[i] = ...``, ``x.append(...)``."""
    for node in ast.walk(statement):
        match node:
            case (
                ast.Subscript(ctx=ast.Store(), value=value)
                | ast.Call(func=ast.Attribute(value=value))
            ):
                yield _dotted(value).partition(".")[0]
