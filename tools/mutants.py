"""Generic mutants: which of mutmut's changes of a module do the unit tests notice?

Usage: mutants.py [MODULE ...]

Needs `pip install -e '.[mutants]'`. Each mutant of a function, texts of errors aside, stands alone
in a copy of the package; the tests of its module run against that copy, its properties, and those
of all that imports the module, until one fails. What was found goes to ``book/runs/mutants.json``
mutant by mutant, so that a run that was broken off goes on where it was; a module of other code
starts anew. Before the first, the module as it is must pass: a test that fails for any copy would
notice everything.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

import apart
import chapters
import planted

MODULES = ("losses", "blockwise", "pairs", "optima", "metrics", "ntk", "checks")
EQUIVALENT = chapters.ROOT / "tests" / "equivalent.yml"
PROPERTIES = chapters.ROOT / "tests" / "properties"
LIMIT = 300
"""Seconds that the tests of one mutant may take."""


@dataclass(frozen=True)
class Mutant:
    """One change of a module: its whole text, and the lines that differ."""

    module: str
    function: str
    text: str
    was: str
    now: str

    @classmethod
    def none(cls, module: str) -> Mutant:
        """A module as it is: what notices that would notice everything."""
        return cls(module, "", planted.source(module), "", "")

    @property
    def id(self) -> str:
        """A name for it while the rest of the module stands."""
        return planted.digest(self.text)[:8]


def mutants(module: str) -> Iterator[Mutant]:
    """Generate the mutants of a module that differ from it, and from one another, in their code."""
    from libcst import matchers
    from mutmut.mutation.file_mutation import create_mutations

    before = planted.source(module)
    tree, changes, *_ = create_mutations(f"{module}.py", before)
    text = matchers.SimpleString() | matchers.FormattedString()
    said = {
        node
        for error in matchers.findall(tree, matchers.Raise())
        for node in matchers.findall(error, text)
    }
    seen = {_code(before)}
    for change in changes:
        around = change.contained_by_top_level_function
        if around is None or change.original_node in said:
            continue
        after = tree.deep_replace(change.original_node, change.mutated_node).code
        if (code := _code(after)) not in seen:
            seen.add(code)
            name = around.name.value if hasattr(around, "name") else "_field"  # of a dataclass
            yield Mutant(module, name, after, *_lines(before, after))


def _code(text: str) -> str:
    return ast.dump(ast.parse(text))


def _lines(before: str, after: str) -> tuple[str, str]:
    """Return the lines that a mutant takes away and those that it puts in their place."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    was, now = ([x[2:].strip() for x in lines if x.startswith(sign)] for sign in ("- ", "+ "))
    return " ".join(was), " ".join(now)


def noticed(mutant: Mutant, likely: str | None = None) -> str | None:
    """Return what notices that the mutant stands in the module's place, a likely test tried first.

    It is the id of a unit test that fails, or that the tests broke or did not end.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / chapters.PACKAGE.name
        shutil.copytree(chapters.PACKAGE, copy)
        (copy / f"{mutant.module}.py").write_text(mutant.text, encoding="utf-8")
        if likely:
            # Where the mutant changes which tests there are, this one may be none of them.
            with contextlib.suppress(RuntimeError, TimeoutError):
                if apart.call(partial(apart.first_failure, [likely]), copy, LIMIT):
                    return likely
        for files in tests(mutant):
            first = partial(apart.first_failure, files, mutant.function)
            try:
                if files and (failed := apart.call(first, copy, LIMIT)):
                    return str(failed)
            except (RuntimeError, TimeoutError) as error:
                return type(error).__name__
    return None


def tests(mutant: Mutant) -> Iterator[list[str]]:
    """Generate what to run: a module's own tests, its properties, those of all that imports it."""
    own, others = planted.test_files(mutant.module)
    yield own
    public = "" if mutant.function.startswith("_") else mutant.function
    yield [str(PROPERTIES), "-k", f"{mutant.module}.{public}"]
    yield others


class Record:
    """Mutants that were noticed and those that lived, by module."""

    def __init__(self, path: Path = chapters.MUTANTS) -> None:
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.path, self.modules = path, held.get("modules", {})

    def of(self, module: str) -> dict:
        """Return what is known of a module."""
        if self.modules.get(module, {}).get("key") != key(module):
            self.modules[module] = {"key": key(module), "made": 0, "noticed": [], "lived": []}
        return self.modules[module]

    def put(self, mutant: Mutant, known: bool) -> None:
        """Add what became of a mutant."""
        found = self.of(mutant.module)
        if known:
            found["noticed"].append(mutant.id)
        else:
            told = {name: getattr(mutant, name) for name in ("id", "function", "was", "now")}
            found["lived"].append(told)
        planted.seal(self.path, {"modules": self.modules})


def key(module: str) -> str:
    """Return a hash of the code of a module."""
    return planted.digest(chapters._code(chapters.PACKAGE / f"{module}.py"))


def reasons() -> dict[tuple[str, str, str], str]:
    """Return why mutants change nothing that a test could see, by module and lines."""
    entries = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []
    return {(entry["module"], entry["was"], entry["now"]): entry["why"] for entry in entries}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="MODULE")
    parser.add_argument("--lived", action="store_true", help="try those that lived once more")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - {*MODULES}:
        parser.error(f"MODULE was {sorted(unknown)}; it should be among {[*MODULES]}")
    record = Record()
    for module in asked.names or MODULES:
        found = record.of(module)
        again = {mutant["id"] for mutant in found["lived"]} if asked.lived else set()
        found["lived"] = [mutant for mutant in found["lived"] if mutant["id"] not in again]
        done = {*found["noticed"], *(mutant["id"] for mutant in found["lived"])}
        made = list(mutants(module))
        found["made"] = len(made)
        left = [mutant for mutant in made if mutant.id not in done and (again or not asked.lived)]
        if left and (test := noticed(Mutant.none(module))):
            parser.exit(1, f"{module} as it is does not pass its tests: {test}\n")
        likely: dict[str, str] = {}
        for mutant in left:
            test = noticed(mutant, likely.get(mutant.function))
            record.put(mutant, test is not None)
            if test is not None and "::" in test:
                likely[mutant.function] = test
            if test is None:
                print(f"{module}.{mutant.function}: {mutant.was} -> {mutant.now}", flush=True)
        print(f"{module}: {len(found['lived'])} of {ran(found)} lived", flush=True)
    return 0


def ran(found: dict) -> int:
    """How many mutants of a module ran."""
    return len(found["noticed"]) + len(found["lived"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
