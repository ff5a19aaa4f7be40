"""False alarms: does evidence that should hold fail with other random cases?

Usage: alarms.py [--training] [--seeds N] [CHAPTER ...]

The checks of each chapter, without its training, run once for each seed from 1 to N, and every
check that fails is kept. With --training it is all the rest of a chapter that runs: each generator
starts from another seed than the chapter says, and what fails is a comparison with the theory or
an assertion about a figure. What was found goes to ``book/runs/alarms.json`` seed by seed, so that
a run that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import traceback
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import apart
import chapters
import planted
import slices
import trials
import uses
from cltheory.checks import SEED_VARIABLE, EvidenceError

STRIDE = 1_000_003
"""Between the seeds of one run and the next: chapters count theirs in small numbers."""

CHECKS, TRAINING = "checks", "training"

FIGURE = "a figure"
"""What stands for the claim where an assertion about a figure failed."""


class Record:
    """Seeds that ran and what failed, by chapter and part; what runs other code starts anew."""

    def __init__(self, path: Path = chapters.ALARMS) -> None:
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.path, self.chapters = path, held.get("chapters", {})

    def of(self, chapter: str, part: str) -> dict:
        """Return what is known of the checks of a chapter, or of its training."""
        known = self.chapters.setdefault(chapter, {})
        if known.get(part, {}).get("key") != key(chapter, part):
            known[part] = {"key": key(chapter, part), "seeds": [], "failed": []}
        return known[part]

    def put(self, chapter: str, part: str, seed: int, failed: list[dict[str, str]]) -> None:
        """Add what failed with a seed."""
        known = self.of(chapter, part)
        known["seeds"].append(seed)
        for line in failed:
            known["failed"].append({**line, "seed": seed})
        planted.seal(self.path, {"chapters": self.chapters})


def key(chapter: str, part: str) -> str:
    """Return a hash of the code that the checks of a chapter, or its training, run."""
    program = planted.program(chapter) if part == CHECKS else _training(planted.cells(chapter))
    modules = {name: _module(name) for name in planted.reached(chapter)}
    return planted.digest([[ast.unparse(statement) for statement in program], modules])


@cache
def _module(name: str) -> str:
    return chapters._code(chapters.PACKAGE / f"{name}.py")


def lines_that_fail(chapter: str, seed: int) -> list[dict[str, str]]:
    """Run the checks of a chapter with a seed; name claim and line of what fails."""
    os.environ[SEED_VARIABLE] = str(seed)
    return list(slices.failing(planted.program(chapter)))


def training_that_fails(chapter: str, seed: int) -> list[dict[str, str]]:
    """Run all of a chapter but its checks from other seeds; name what fails."""
    import torch

    class Moved(torch.Generator):
        def manual_seed(self, own: int) -> torch.Generator:
            return super().manual_seed(own + STRIDE * seed)

    torch.Generator = Moved
    return list(_failing(planted.cells(chapter)))


def _training(cells: list[str]) -> list[ast.stmt]:
    statements = [s for cell in cells for s in ast.parse(uses._plain(cell)).body]
    return [statement for statement in statements if not trials._block(statement)]


def _failing(cells: list[str]) -> Iterator[dict[str, str]]:
    from matplotlib import pyplot

    trees = {f"cell {k}": ast.parse(uses._plain(cell)) for k, cell in enumerate(cells)}
    scope = {"__name__": "__main__"}
    for name, tree in trees.items():
        for statement in tree.body:
            if trials._block(statement):
                continue
            try:
                exec(compile(ast.Module([statement], []), name, "exec"), scope)
            except Exception as error:
                yield {"claim": _observed(statement), "check": _said(error, trees)}
        pyplot.close("all")


def _observed(statement: ast.stmt) -> str:
    """Return the claim of ``with observation("claim") as o:``; all else is said of a figure."""
    match statement:
        case ast.With(
            items=[ast.withitem(context_expr=ast.Call(args=[ast.Constant(value=str(name))]))]
        ):
            return name
    return FIGURE


def _said(error: Exception, trees: dict[str, ast.Module]) -> str:
    """Return the assertion that failed, as its cell has it, or what another error says."""
    if isinstance(error, EvidenceError):
        return str(error)[:200]
    *_, (name, line) = (
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in trees
    )
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Assert) and node.lineno <= line <= node.end_lineno:
            return ast.unparse(node)[:200]
    return f"{type(error).__name__}: {error}"[:200]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="CHAPTER")
    parser.add_argument("--training", action="store_true", help="training instead of checks")
    parser.add_argument("--seeds", type=int, help="50 by default, 5 of training")
    asked = parser.parse_args(arguments)
    part, find, seeds = (
        (TRAINING, training_that_fails, 5) if asked.training else (CHECKS, lines_that_fail, 50)
    )
    if unknown := set(asked.names) - set(chapters.chapters()):
        parser.error(f"CHAPTER was {sorted(unknown)}; it should be among {[*chapters.chapters()]}")
    record = Record()
    for seed in range(1, (asked.seeds or seeds) + 1):
        for chapter in asked.names or chapters.chapters():
            if seed not in record.of(chapter, part)["seeds"]:
                failed = apart.call(partial(find, chapter, seed), chapters.PACKAGE)
                record.put(chapter, part, seed, failed)
                print(f"{chapter}, seed {seed}: {failed or 'quiet'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
