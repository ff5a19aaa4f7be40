"""The steps of the build for doit: what each needs, what it makes, what mends it.

A step runs again only when what it depends on changed in content; dates do not matter.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from functools import partial
from pathlib import Path

from doit.action import CmdAction
from doit.exceptions import InvalidDodoFile, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent))

import chapters
import runtime

PYTHON = sys.executable
BOOK = [str(Path(PYTHON).with_name("jupyter-book")), "build", "."]
ROOT = chapters.ROOT
BUILD = ROOT / "_build"
if not os.access(BUILD if BUILD.exists() else ROOT, os.W_OK):
    raise InvalidDodoFile(
        f"{ROOT} cannot be written, and the build writes there. Make a copy of yours, and run make "
        f"in it: cp -r {shlex.quote(str(ROOT))} ~/book && chmod -R u+w ~/book"
    )
BUILD.mkdir(exist_ok=True)
MEMORY = BUILD / ".doit.json"
if MEMORY.exists():
    try:
        json.loads(MEMORY.read_text(encoding="utf-8"))
    except ValueError:  # a build was killed while it wrote; what is there is looked at again
        MEMORY.unlink()
PAGE = BUILD / "html" / "index.html"
OF_THE_BOOK = ("tests/test_book.py", "tests/test_exercises.py")  # they read the chapters' text
# One thread a process: steps run side by side. The tree's own package, whatever is installed.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tools"), str(ROOT)])
ADDRESSES = [os.environ.get(f"CLTHEORY_{name}", "") for name in ("SITE", "REPOSITORY")]
MADE = {"pdf": "book.pdf", "archive": "book.zip"}
RUFF = [PYTHON, "-m", "ruff"]
PYTEST = [PYTHON, "-m", "pytest", "-q"]
NBVAL = [
    *("-p", "keep", "-p", "no:cacheprovider"),
    *("--nbval-lax", "--nbval-current-env"),
    *("--nbval-cell-timeout=600", "--nbval-kernel-startup-timeout=300"),
]
STRICT = ["-W", "--keep-going"] if os.environ.get("STRICT") else []


class Progress(ConsoleReporter):
    """One line a step, with its seconds; what failed ends with the command that mends it."""

    desc = "one line a step"

    def initialize(self, tasks, selected_tasks):
        self.started, self.begin = {}, time.perf_counter()
        self.selected, self.done = set(selected_tasks), set()

    def say(self, mark, task, note=""):
        self.outstream.write(f"{mark} {task.doc or task.name:<34} {note}\n")
        self.outstream.flush()

    def execute_task(self, task):
        if task.actions:
            self.started[task.name] = time.perf_counter()
            self.say("…", task)

    def seconds(self, task):
        return time.perf_counter() - self.started.get(task.name, time.perf_counter())

    def add_success(self, task):
        self.done.add(task.name)
        if task.actions:
            last = [line for line in _output(task).splitlines() if line.strip()][-1:]
            note = last[0].strip("= ") if task.meta and task.meta.get("tell") and last else ""
            self.say("✓", task, f"{self.seconds(task):6.1f} s  {note}")

    def add_failure(self, task, fail):
        if isinstance(fail, UnmetDependency):
            return
        self.failures.append({"task": task, "exception": fail})
        self.say("✗", task, f"{self.seconds(task):6.1f} s")

    def skip_uptodate(self, task):
        self.done.add(task.name)
        self.say("=", task, "unchanged")

    def complete_run(self):
        for failure in self.failures:
            task = failure["task"]
            text = _output(task) or failure["exception"].get_msg()
            self.outstream.write(f"\n--- {task.doc or task.name} ---\n{text[-6000:]}\n")
            self.outstream.write(f"To mend: {(task.meta or {}).get('mend', 'see above')}\n")
        for message in self.runtime_errors:
            self.outstream.write(message + "\n")
        took = time.perf_counter() - self.begin
        if not self.selected <= self.done:
            names = ", ".join(failure["task"].name for failure in self.failures)
            self.outstream.write(f"\nFAILED in {took:.0f} s: {names or 'the build itself'}\n")
        else:
            self.outstream.write(f"{_state()} ({took:.0f} s)\n")


def _output(task):
    return "".join((action.out or "") + (action.err or "") for action in task.actions)


def _state():
    goal = os.environ.get("GOAL", "")
    if goal.startswith("chapter:"):
        page = next((BUILD / "chapter").rglob(f"{goal[8:]}.html"), None)
        return f"The chapter stands: {page}"
    claims = chapters.claims()
    held = f"{sum(claim.status == 'holds' for claim in claims)} of {len(claims)} claims hold"
    if goal == "book":
        return f"The book stands: {held}. First page: {PAGE.as_uri()}"
    if goal in MADE:
        return f"Made: {BUILD / MADE[goal]}"
    if goal == "try":
        return "Python and SymPy are there: `make book` puts them beside the pages."
    if goal == "site-test":
        return "The site passes in the browser."
    return f"All tests pass: {held}."


DOIT_CONFIG = {
    "reporter": Progress,
    "verbosity": 0,
    "backend": "json",
    "dep_file": str(MEMORY),
    "num_process": min(2, os.cpu_count() or 1),
    "par_type": "thread",
    "continue": True,
    "default_tasks": ["test"],
}


def _files(*patterns):
    found = [str(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [path for path in found if Path(path).is_file() and "__pycache__" not in path]


def task_notebooks():
    """Notebooks of all chapters, made again each time: an edit of one by hand does not last"""
    return {"doc": "notebooks", "actions": [_write_notebooks], "uptodate": [False]}


def _write_notebooks():
    try:
        for name in chapters.chapters():
            chapters.write_notebook(name)
    except chapters.Damaged as error:
        return TaskFailed(str(error))
    return None


def task_execute():
    """Every chapter once, under nbval"""
    for name in chapters.chapters():
        notebook = f"notebooks/{name}.ipynb"
        yield {
            "name": name,
            "doc": f"chapter {name}",
            "actions": [[*PYTEST, *NBVAL, f"--rootdir={ROOT}", f"--keep={name}", notebook]],
            "task_dep": ["notebooks"],
            "uptodate": [partial(chapters.has_run, name)],
            "targets": [str(chapters.EXECUTED / f"{name}.ipynb")],
            "meta": {
                "mend": f"edit the chapter and run `make chapter C={name}`; where only the lines "
                f"of a check are new and right, take them with `make accept C={name}`"
            },
        }


def task_lint():
    """Format and lint"""
    return {
        "doc": "format and lint",
        "actions": [[*RUFF, "format", "--check", "."], [*RUFF, "check", "."]],
        "file_dep": _files("*/*.py", "*/*/*.py", "pyproject.toml"),
        "meta": {"mend": ".venv/bin/ruff format . && .venv/bin/ruff check --fix ."},
    }


def task_types():
    """Strict types of the package"""
    return {
        "doc": "strict types",
        "actions": [[PYTHON, "-m", "mypy"]],
        "file_dep": _files("cltheory/*.py", "pyproject.toml"),
        "meta": {"tell": True, "mend": "edit the lines named above; then `make test`"},
    }


def task_unit():
    """The package against independent re-derivations"""
    skipped = [f"--ignore={path}" for path in [*OF_THE_BOOK, "tests/site"]]
    spread = ["-n", "2", "--dist=worksteal", "--doctest-modules"]
    return {
        "doc": "unit tests",
        "actions": [[*PYTEST, *spread, *skipped, "tests", "cltheory"]],
        "file_dep": [
            *_files("cltheory/*", "tests/*.*", "tests/properties/*.py", "tools/*.py", "*.toml"),
            *_files("constraints.txt"),
        ],
        "task_dep": ["execute"],
        "meta": {"tell": True, "mend": "edit the test or the function named above; `make test`"},
    }


def task_structure():
    """Registry, labels, checks and evidence fit together"""
    return {
        "doc": "structure of the book",
        "actions": [[*PYTEST, *OF_THE_BOOK]],
        "file_dep": [
            *_files("book/**/*", "notebooks/*.ipynb", "cltheory/claims.yml", "_*.yml", "*.md"),
            *_files(*OF_THE_BOOK, "tools/*.py", "cltheory/claims.py"),
            *[str(chapters.EXECUTED / f"{name}.ipynb") for name in chapters.chapters()],
        ],
        "task_dep": ["execute"],
        "meta": {"tell": True, "mend": "edit the file named above; then `make test`"},
    }


def task_test():
    """Everything but the browser"""
    return {"actions": None, "task_dep": ["lint", "types", "execute", "structure", "unit"]}


def task_try():
    """Python and SymPy for the page; without them the book is whole but for its editors"""
    return {
        "doc": "checks in the page",
        "actions": [[PYTHON, "tools/runtime.py"]],
        "uptodate": [runtime.ready],
        "targets": [str(runtime.STATE)],
        "meta": {"tell": True, "mend": "see above; then `make try`"},
    }


def task_book():
    """The rendered book"""
    return {
        "doc": "pages",
        "actions": [CmdAction(_render, shell=False)],
        "file_dep": _book_sources(),
        "task_dep": ["execute"],
        "targets": [str(PAGE)],
        "meta": {"mend": "edit the file named above; then `make book`"},
    }


def _book_sources():
    return [
        _kept("asked", "|".join([*STRICT, *ADDRESSES])),
        _kept("commit.md", chapters.commit()),  # which the page on the environment shows
        *_files("book/**/*.*", "_*.yml", "tools/*.py", "cltheory/*.*"),
        *_files("pyproject.toml", "README.md"),  # parts of the package that readers download
        str(runtime.STATE),
        # Each claim names the tests of its functions.
        *_files("tests/test_*.py", "tests/properties/test_*.py"),
        *[str(chapters.EXECUTED / f"{name}.ipynb") for name in chapters.chapters()],
    ]


def _kept(name, text):
    """Keep a fact in a file, so that doit tells which of the sources changed, this one too."""
    path = BUILD / name
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        chapters.write(path, text)
    return str(path)


def task_pdf():
    """The book as one PDF"""
    target = BUILD / "book.pdf"
    return {
        "doc": "PDF",
        "actions": [[PYTHON, "tools/pdf.py", str(PAGE.parent), str(target)]],
        "file_dep": _book_sources(),
        "task_dep": ["book"],
        "targets": [str(target)],
        "meta": {"tell": True, "mend": "do as said above; then `make pdf`"},
    }


def task_archive():
    """The site as one archive, to be read without a network"""
    return {
        "doc": "archive",
        "actions": [[PYTHON, "tools/publish.py", str(PAGE.parent)]],
        "task_dep": ["book"],
        "uptodate": [False],
        "meta": {"tell": True, "mend": "see above; then `make archive`"},
    }


def _render(changed):
    """Render what changed; Sphinx sees pages and their runs, but not what all pages share."""
    shared = [path for path in changed if Path(path).suffix not in {".md", ".ipynb"}]
    return [*BOOK, *STRICT, *(["--all"] if shared else [])]


def task_render():
    """One chapter on its own, into _build/chapter"""
    for name, path in chapters.chapters().items():
        folder = BUILD / "chapter"
        yield {
            "name": name,
            "doc": f"page of {name}",
            "actions": [
                (_one_toc, [folder / "_toc.yml", path]),
                [*BOOK, "--toc", str(folder / "_toc.yml"), "--path-output", str(folder)],
            ],
            "task_dep": [f"execute:{name}"],
            "meta": {"mend": f"edit the file named above; then `make chapter C={name}`"},
        }


def _one_toc(toc, path):
    root = path.relative_to(ROOT).with_suffix("")
    toc.parent.mkdir(parents=True, exist_ok=True)
    toc.write_text(
        f"format: jb-book\nroot: {root}\nchapters:\n- file: book/bibliography\n", encoding="utf-8"
    )


def task_site_test():
    """The built site in a real browser"""
    return {
        "doc": "site in a real browser",
        "actions": [[*PYTEST, "-rs", "-n", "2", "tests/site"]],
        "file_dep": [*_files("tests/site/*.py"), str(PAGE)],
        "task_dep": ["book"],
        "uptodate": [False],
        "meta": {"tell": True, "mend": "edit the page named above; then `make site-test`"},
    }
