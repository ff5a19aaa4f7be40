"""The checks of a chapter without its training: the blocks and the statements that they lean on.

Left out are comparisons with a training run, figures, and every statement that no check needs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import CodeType

import trials
import uses

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LATER = (ast.FunctionDef, ast.ClassDef)


def program(cells: Iterable[str], names: Collection[str] | None = None) -> list[ast.stmt]:
    """Return the checks of a chapter with all that they lean on, in order.

    ``names`` chooses among the claims and exercises; all of them by default.
    """
    statements = [s for source in cells for s in ast.parse(uses._plain(source)).body]
    chapter = Chapter(statements)
    kept: set[int] = set()
    for at, statement in enumerate(statements):
        block = trials._block(statement)
        if block and (names is None or block[1] in names):
            kept |= {at, *chapter.defaults(at), *chapter.leant_on(at)}
    return [statement for at, statement in enumerate(statements) if at in kept]


class Chapter:
    """The top-level statements of a chapter: what each binds, mends and takes from others."""

    def __init__(self, statements: list[ast.stmt]) -> None:
        self.statements = statements
        checks = [trials._block(statement) is not None for statement in statements]
        bound = [set() if c else set(_bound(s)) for s, c in zip(statements, checks, strict=True)]
        self.bound, self.mended = bound, [set(_mended(s)) for s in statements]
        self.free = [{dotted.partition(".")[0] for dotted in uses._free(s)} for s in statements]
        imports = zip(statements, bound, strict=True)
        self.imported = {n for s, names in imports if _is_import(s) for n in names}

    def leant_on(self, check: int) -> set[int]:
        """Return the statements that a check needs, directly or through others."""
        found: set[int] = set()
        pending = [(name, check) for name in self.free[check]]
        seen = set(pending)
        while pending:
            for at in self._behind(*pending.pop()):
                found.add(at)
                # A function looks its names up when the check calls it.
                when = check if isinstance(self.statements[at], LATER) else at
                new = {(name, when) for name in self.free[at]} - seen
                seen |= new
                pending += new
        return found

    def _behind(self, name: str, when: int) -> Iterator[int]:
        """Yield the statement that bound a name last before another, and what mended it since."""
        for at in reversed(range(when)):
            if name in self.bound[at]:
                yield at
                return
            if name in self.mended[at] and name not in self.imported:
                yield at

    def defaults(self, check: int) -> Iterator[int]:
        """Yield calls before for their effect on a library, as ``torch.set_default_dtype``."""
        for at, statement in enumerate(self.statements[:check]):
            called = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            if called and self.free[at] <= self.imported:
                yield at
                for name in self.free[at]:
                    yield from self._behind(name, at)


def run(statements: Iterable[ast.stmt]) -> dict[str, str] | None:
    """Run a program up to the first check that fails; name its claim and its line."""
    return next(failing(statements), None)


def failing(statements: Iterable[ast.stmt]) -> Iterator[dict[str, str]]:
    """Run a program and yield each check that fails: its claim, and its first line that failed.

    A statement between two checks that raises an error counts against the check that follows.
    """
    statements, scope = list(statements), {"__name__": "__main__"}
    blocks = [trials._block(statement) for statement in statements]
    for number, statement in enumerate(statements):
        try:
            exec(compile(ast.Module([statement], []), "chapter", "exec"), scope)
        except Exception as error:
            _, name, variable = next(filter(None, blocks[number:]))
            block = scope.get(variable) if blocks[number] else None
            yield {"claim": name, "check": _line(error, block)}


def called(statements: Iterable[ast.stmt], package: str) -> list[list[str | int]]:
    """Run a program; return the module and the first line of each function called in a package."""
    seen: set[CodeType] = set()
    sys.setprofile(lambda frame, event, _: event == "call" and seen.add(frame.f_code))
    try:
        run(statements)
    finally:
        sys.setprofile(None)
    functions = (code for code in seen if code.co_name != "<module>")
    files = [(Path(code.co_filename), code.co_firstlineno) for code in functions]
    return sorted([path.stem, line] for path, line in files if path.parent.name == package)


def _line(error: Exception, block: object) -> str:
    """Name the first line of evidence that failed, or the error where none did."""
    lines = (f"{e.kind}: {e.scope}" for e in getattr(block, "evidence", []) if not e.holds)
    return next(lines, f"{type(error).__name__}: {error}"[:200])


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds at the top level of the chapter."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case _ if not isinstance(node, (ast.Lambda, *COMPREHENSIONS)):
            for child in ast.iter_child_nodes(node):
                yield from _bound(child)


def _mended(node: ast.AST) -> Iterator[str]:
    """Yield the names whose objects a statement changes: ``x[i] = ...``, ``x.append(...)``."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return
        case (
            ast.Expr(value=ast.Call(func=ast.Attribute(value=place)))
            | ast.Subscript(ctx=ast.Store(), value=place)
            | ast.AugAssign(target=place)
        ):
            yield uses._dotted(place).partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from _mended(child)
