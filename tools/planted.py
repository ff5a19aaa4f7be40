"""Planted errors: do the tests and the checks of the book notice a mistake in the package?

Usage: planted.py [--tests | --book | --control] [--again | NAME ...]

Each error of ``tests/planted.yml`` is a small patch of one module. It is applied to a copy of the
package; the unit tests, and then the checks of the chapters, run against that copy until one fails.
What was found goes to ``book/runs/planted.json`` error by error, so that a run that was broken off
goes on where it was. Named errors, or all of them, run again, whatever the record says of them.
Results for another package are no results, but what noticed an error in it is tried first. At the
end, all that failed runs once more on the package without an error, and must pass. The exit status
is 1 where an error survived.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain
from pathlib import Path

import yaml

import apart
import chapters
import slices
import uses
from cltheory.claims import versions

CATALOGUE = chapters.ROOT / "tests" / "planted.yml"
KINDS = (
    "sign", "factor", "exponent", "logarithm", "normalisation", "centring", "measure", "estimator",
    "candidates", "spectrum", "transpose", "index", "gradient", "convention", "branch",
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """One error: ``old`` stands once in the module, and ``new`` in its place is wrong."""

    name: str
    kind: str
    module: str
    claim: str
    says: str
    old: str
    new: str

    @property
    def patch(self) -> str:
        """What a result depends on, beside the package."""
        return digest([self.module, self.old, self.new])[:12]

    @property
    def function(self) -> str:
        """The function or class in which the error is planted."""
        text = source(self.module)
        line = text[: text.index(self.old)].count("\n") + 1
        for statement in ast.parse(text).body:
            if statement.lineno <= line <= (statement.end_lineno or 0):
                return getattr(statement, "name", "")
        return ""

    @property
    def line(self) -> int | None:
        """The first line of the innermost function that holds the error, if one does."""
        text = source(self.module)
        before = text[: text.index(self.old)].encode()
        place = before.count(b"\n") + 1, len(before) - before.rfind(b"\n") - 1
        around = [
            min(part.lineno for part in [node, *getattr(node, "decorator_list", [])])
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.Lambda)
            and (node.lineno, node.col_offset) <= place
            and place < (node.end_lineno or 0, node.end_col_offset or 0)
        ]
        return max(around, default=None)


def catalogue(path: Path = CATALOGUE) -> list[Planted]:
    """Read the errors of a catalogue."""
    return [Planted(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def source(module: str, package: Path = chapters.PACKAGE) -> str:
    return (package / f"{module}.py").read_text(encoding="utf-8")


def patched(error: Planted, text: str) -> str:
    """Return the text of the module with the error in it."""
    if text.count(error.old) != 1:
        raise ValueError(
            f"old of {error.name!r} stands {text.count(error.old)} times in {error.module}; it "
            f"should stand once: edit {CATALOGUE.name}"
        )
    return text.replace(error.old, error.new)


@contextmanager
def planted(error: Planted, package: Path = chapters.PACKAGE):
    """Copy the package with the error in it into a folder that lasts as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / package.name
        shutil.copytree(package, copy)
        text = patched(error, source(error.module, package))
        (copy / f"{error.module}.py").write_text(text, encoding="utf-8")
        yield copy


def by_test(error: Planted, copy: Path, before: dict) -> dict | None:
    """Return the first unit test that fails and the seconds until then, or None.

    The file of the test that failed before comes first; then the module's own tests, and among them
    those that name the function; then those of all that imports the module.
    """
    own, others = test_files(error.module)
    known = [file for file in (*own, *others) if before.get("test", "").startswith(_named(file))]
    first = error.function, before.get("test")
    start = time.perf_counter()
    for files in (known, own, others):
        if test := files and apart.call(partial(apart.first_failure, files, *first), copy):
            return {"test": test, "seconds": round(time.perf_counter() - start, 1)}
    return None


@cache
def test_files(module: str) -> tuple[list[str], list[str]]:
    """Return the module's own test files, and those of modules that import it or name it."""
    importers = {m for m in uses.modules() if module in chapters._imports(source(m))}
    named = {test for name in uses.public(module) for test in uses.tests_of(f"{module}.{name}")}
    of_modules = {f"test_{m}.py" for m in uses.modules()}
    own = [name for name in (f"test_{module}.py",) if _test(name).exists()]
    rest = ({f"test_{m}.py" for m in importers} | named & of_modules) - {*own}
    return tuple(
        [str(_test(name)) for name in sorted(names) if _test(name).exists()]
        for names in (own, rest)
    )


def _test(name: str) -> Path:
    return chapters.ROOT / "tests" / name


def _named(file: str) -> str:
    """How the names of the tests of a file begin."""
    return f"{Path(file).relative_to(chapters.ROOT).as_posix()}::"


def by_check(error: Planted, copy: Path, before: dict) -> dict | None:
    """Return the first check of the book that fails and the seconds until then, or None.

    The check that failed before comes first; then the named claim's own, then its chapter, then
    every chapter whose checks call the code that the error changes.
    """
    home, known = chapter_of(error.claim), before.get("claim")
    start = time.perf_counter()
    named = dict.fromkeys([known, error.claim])
    likely = [(chapter_of(check), [check]) for check in named if chapter_of(check)]
    others = ((name, None) for name in chapters.chapters() if name != home and _calls(name, error))
    # Whether a chapter calls the code is asked only when all before it have passed.
    for name, claims in chain(likely, [(home, None)], others):
        if found := apart.call(partial(slices.run, program(name, claims)), copy):
            return {**found, "seconds": round(time.perf_counter() - start, 1)}
    return None


def _calls(chapter: str, error: Planted) -> bool:
    """Whether the checks of a chapter call what holds the error; a module's own code always is."""
    if error.module not in reached(chapter):
        return False
    return error.line is None or [error.module, error.line] in called(chapter)


@cache
def called(chapter: str) -> list[list[str | int]]:
    """Return the modules, and in them the first lines of the functions, that the checks call."""
    run = partial(slices.called, program(chapter), chapters.PACKAGE.name)
    found: list[list[str | int]] = apart.call(run, chapters.PACKAGE)
    return found


def chapter_of(check: str | None) -> str | None:
    """Return the chapter that holds the check of a claim or an exercise, if there is one."""
    named = {("claim", check), ("exercise", check)}
    return next((name for name in chapters.chapters() if named & {*blocks(name)}), None)


@cache
def cells(chapter: str) -> list[str]:
    return [cell.source for cell in chapters.code_cells(chapters.notebook(chapter))]


def blocks(chapter: str) -> list[tuple[str, str]]:
    return [block for text in cells(chapter) for block in chapters.blocks(text)]


@cache
def reached(chapter: str) -> list[str]:
    return chapters.imported(chapters.code_cells(chapters.notebook(chapter)))


def program(chapter: str, claims: list[str] | None = None) -> list[ast.stmt]:
    return slices.program(cells(chapter), claims)


def fingerprint() -> str:
    """Return a hash of the code, without its docstrings, of the package."""
    return digest({path.stem: chapters._code(path) for path in chapters.PACKAGE.glob("*.py")})


class Findings:
    """What is known of each error, sealed; results for other code or another patch are dropped."""

    def __init__(self, errors: list[Planted], path: Path = chapters.PLANTED):
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        same = held.get("code") == fingerprint()
        self.path, self.errors = path, errors
        self.before = {entry["name"]: entry for entry in held.get("errors", [])}
        self.control = held.get("control") if same else None
        self.entries = {
            e.name: _described(e) | _results(self.before.get(e.name) if same else None, e)
            for e in errors
        }

    def missing(self, part: str) -> list[Planted]:
        return [error for error in self.errors if part not in self.entries[error.name]]

    def put(self, error: Planted, part: str, result: dict | None) -> None:
        self.entries[error.name][part], self.control = result, None
        self.save()

    def save(self) -> None:
        content = {
            "catalogue": digest([asdict(error) for error in self.errors]),
            "control": self.control,
            "errors": [self.entries[error.name] for error in self.errors],
        }
        seal(self.path, content)


def _described(error: Planted) -> dict:
    names = ("name", "kind", "module", "claim", "says", "patch")
    return {name: getattr(error, name) for name in names}


def _results(before: dict | None, error: Planted) -> dict:
    """Return what a record says of an error, if it was this very error."""
    if before is None or before["patch"] != error.patch:
        return {}
    return {part: before[part] for part in PARTS if part in before}


def seal(path: Path, content: dict) -> None:
    """Write a record whole or not at all: when and with what it was made, and a hash of it all."""
    made = {
        "code": fingerprint(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": chapters.commit(),
        "versions": versions(),
    }
    content = made | content
    text = json.dumps(content | {"digest": digest(content)}, indent=1, ensure_ascii=False)
    part = path.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def control(entries: list[dict]) -> dict:
    """Run on the sound package every test and check that an error failed; all of them must pass."""
    start = time.perf_counter()
    tests = sorted({entry["unit"]["test"] for entry in entries if entry.get("unit")})
    checks = {entry["book"]["claim"] for entry in entries if entry.get("book")}
    files = [str(chapters.ROOT / test) for test in tests]
    failed = files and apart.call(partial(apart.first_failure, files), chapters.PACKAGE)
    for name in chapters.chapters():
        of_chapter = [block for _, block in blocks(name) if block in checks]
        run = partial(slices.run, program(name, of_chapter))
        failed = failed or (of_chapter and apart.call(run, chapters.PACKAGE))
    if failed:
        raise SystemExit(f"fails with no error planted, so it tells nothing: {failed}")
    seconds = round(time.perf_counter() - start, 1)
    return {"tests": len(tests), "checks": len(checks), "seconds": seconds}


def digest(value: object) -> str:
    """Return a hash of what can be written as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


PARTS: dict[str, Callable[[Planted, Path, dict], dict | None]] = {
    "unit": by_test,
    "book": by_check,
}
"""What an error meets, by its name in the record."""


def judge(error: Planted, part: str, before: dict | None = None) -> dict | None:
    """Plant an error and return what notices it first, or None if nothing does.

    ``before`` is what noticed it in an earlier run.
    """
    with planted(error) as copy:
        return PARTS[part](error, copy, before or {})


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    only = parser.add_mutually_exclusive_group()
    for option, parts in (("--tests", ["unit"]), ("--book", ["book"]), ("--control", [])):
        only.add_argument(option, action="store_const", const=parts, dest="parts")
    parser.add_argument("--again", action="store_true", help="run those that are known as well")
    asked = parser.parse_args(arguments)
    errors = catalogue()
    if unknown := set(asked.names) - {error.name for error in errors}:
        parser.error(f"NAME was {sorted(unknown)}; it should stand in {CATALOGUE}")
    findings = Findings(errors)
    for part in PARTS if asked.parts is None else asked.parts:
        named = [error for error in errors if asked.again or error.name in asked.names]
        for error in named or findings.missing(part):
            try:
                result = judge(error, part, findings.before.get(error.name, {}).get(part))
            except (RuntimeError, TimeoutError) as trouble:
                print(f"{error.name}: {part}: not known: {trouble}", flush=True)
                continue
            findings.put(error, part, result)
            print(f"{error.name}: {part}: {result or 'SURVIVED'}", flush=True)
    if not asked.names and asked.parts in (None, []):
        findings.control = control(list(findings.entries.values()))
        findings.save()
    entries = findings.entries.values()
    return int(any(None in [entry.get(part, {}) for part in PARTS] for entry in entries))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
