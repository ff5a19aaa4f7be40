"""The part of each check that needs SymPy alone, as a program that stands by itself.

A reader runs it in the page, where there is neither PyTorch nor NumPy. It is found in the code of
the chapter, never written twice: the symbolic lines of a block, their twins, and every definition
and import that they lean on. A check without such lines has no program.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ROLES = {"claim", "exercise"}
AT_HAND = sys.stdlib_module_names | {"sympy", "mpmath"}
CHECKS = "cltheory.checks"


@dataclass(frozen=True)
class Binding:
    """What stands behind a top-level name: its text and the names that it needs in turn.

    ``text`` is empty where the name is bound by something that a program cannot hold: an import of
    what is not at hand, a loop, a ``with``.
    """

    order: tuple[int, int]
    text: str
    needs: frozenset[str] = frozenset()


def programs(cells: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the programs of a chapter, by the (role, name) of the block that each repeats."""
    found, bound = {}, {}
    for number, source in enumerate(cells):
        lines = ["" if line.startswith("%") else line for line in source.splitlines()]
        for statement in ast.parse("\n".join(lines)).body:
            bound |= _bindings(statement, lines, number)
            if block := _block(statement):
                role, name, check = block
                if text := _program(statement, check, lines, bound):
                    found[role, name] = text
    return found


def _block(statement: ast.stmt) -> tuple[str, str, str] | None:
    """Return (role, name, variable) of ``with role("name") as variable:``, or None."""
    match statement:
        case ast.With(
            items=[
                ast.withitem(
                    context_expr=ast.Call(func=ast.Name(id=role), args=[ast.Constant(value=name)]),
                    optional_vars=ast.Name(id=check),
                )
            ]
        ) if role in ROLES:
            return role, name, check
    return None


def _program(statement: ast.With, check: str, lines: list[str], bound: dict) -> str:
    """Return the symbolic part of one block with all that it needs, or nothing."""
    kept, shown, latest = [], set(), ""
    for line in statement.body:
        method, function = _evidence(line, check)
        if method != "twin":
            latest = function
        needed = _closure(_names(_text(line, lines)) - {check}, bound)
        if needed is None or not (method == "symbolic" or (function or latest) in shown):
            continue
        if method in {"symbolic", "twin"}:
            kept.append((method, line, needed))
            shown.add(function or latest)
    if "twin" not in {method for method, _, _ in kept}:
        return ""
    role = _closure({statement.items[0].context_expr.func.id}, bound) or set()
    bindings = sorted(role.union(*(needed for _, _, needed in kept)), key=lambda b: b.order)
    imports = [b.text for b in bindings if b.text.startswith(("import ", "from "))]
    others = [b.text for b in bindings if b.text not in imports]
    head = lines[statement.lineno - 1 : statement.body[0].lineno - 1]
    block = [*head, *(_text(line, lines, dedent=False) for _, line, _ in kept)]
    return "\n\n\n".join(["\n".join(sorted(imports, reverse=True)), *others, "\n".join(block)])


def _evidence(line: ast.stmt, check: str) -> tuple[str, str]:
    """Return the method of a line of evidence and the function that it names."""
    match line:
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=method)) as call
        ) if owner == check:
            of = {keyword.arg: keyword.value for keyword in call.keywords}.get("of")
            named = of if method == "twin" else (call.args[1:] or [None])[0]
            return method, ast.unparse(named) if named else ""
    return "", ""


def _bindings(statement: ast.stmt, lines: list[str], cell: int) -> dict[str, Binding]:
    """Return what a top-level statement binds."""
    order = (cell, statement.lineno)
    match statement:
        case ast.Import() | ast.ImportFrom():
            return {
                alias.asname or alias.name.partition(".")[0]: Binding(order, text)
                for alias, text in _imports(statement)
            }
        case ast.FunctionDef() | ast.ClassDef() | ast.Assign() | ast.AnnAssign():
            text = _text(statement, lines)
            whole = Binding(order, text, frozenset(_names(text)))
        case _:
            whole = Binding(order, "")
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name: whole}
    return dict.fromkeys(_stored(statement), whole)


def _imports(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[ast.alias, str]]:
    """Yield each name of an import with a line of its own, empty where it is not at hand."""
    for alias in statement.names:
        one = ast.Import([alias])
        module = alias.name
        if isinstance(statement, ast.ImportFrom):
            module = statement.module or ""
            one = ast.ImportFrom(module, [alias], 0)
        there = module == CHECKS or module.partition(".")[0] in AT_HAND
        yield alias, ast.unparse(one) if there else ""


def _stored(statement: ast.stmt) -> set[str]:
    nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def _closure(names: set[str], bound: dict[str, Binding]) -> set[Binding] | None:
    """Return every binding that the names lean on, or None where one is not at hand."""
    needed, pending = set(), set(names)
    while pending:
        name = pending.pop()
        binding = bound.get(name)
        if binding is None and hasattr(builtins, name):
            continue
        if binding is None or not binding.text:
            return None
        if binding not in needed:
            needed.add(binding)
            pending |= binding.needs
    return needed


def _names(source: str) -> set[str]:
    """Return the global names that a piece of code refers to, in whatever scope."""
    found, pending = set(), [symtable.symtable(source, "chapter", "exec")]
    while pending:
        table = pending.pop()
        pending += table.get_children()
        found |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global())
        }
    return found


def _text(statement: ast.stmt, lines: list[str], *, dedent: bool = True) -> str:
    """Return the lines of a statement, its decorators included, as they stand."""
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(node.lineno for node in decorators)])
    taken = lines[first - 1 : statement.end_lineno]
    indent = statement.col_offset if dedent else 0
    return "\n".join(line[indent:] for line in taken)
