"""The checks of a chapter without its training: the blocks and the statements that they lean on.

What is left out: comparisons with a training run, figures, and every statement that no check needs.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

import trials
import uses


def program(cells: Iterable[str], names: Collection[str] | None = None) -> list[ast.stmt]:
    """Return the checks of a chapter with all that they lean on, in order.

    ``names`` chooses among the claims and exercises; all of them by default.
    """
    statements = [s for source in cells for s in ast.parse(uses._plain(source)).body]
    imported = uses.Scope()
    for statement in statements:
        for node in ast.walk(statement):
            imported.take(node)
    kept, needed = [], set()
    for statement in reversed(statements):
        free = {dotted.partition(".")[0] for dotted in uses._free(statement)}
        # What is called on a module, as in `torch.rand(n)`, mends no module.
        made = set(uses._bound(statement)) | set(uses._mended(statement)) - set(imported.imported)
        role, name, _ = trials._block(statement) or ("", "", "")
        leant_on = (
            isinstance(statement, ast.Import | ast.ImportFrom)
            or (not role and made & needed)
            or _sets_a_default(statement, free <= set(imported.imported))
        )
        if (name and (names is None or name in names)) or (kept and leant_on):
            kept.append(statement)
            needed |= free
    return kept[::-1]


def run(statements: Iterable[ast.stmt]) -> dict[str, str] | None:
    """Run a program up to the first check that fails; name its claim and its line.

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
            return {"claim": name, "check": _line(error, block)}
    return None


def _line(error: Exception, block: object) -> str:
    """Name the lines of evidence that failed, or the error where none was reached."""
    lines = [f"{e.kind}: {e.scope}" for e in getattr(block, "evidence", []) if not e.holds]
    return "; ".join(lines) or f"{type(error).__name__}: {error}"[:200]


def _sets_a_default(statement: ast.stmt, outside: bool) -> bool:
    """Whether a statement calls a function of a library for its effect, as set_default_dtype."""
    return outside and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
