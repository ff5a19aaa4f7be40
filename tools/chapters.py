"""What a chapter is: its text, its notebook, and the key that says whether it must run again.

``book/<part>/<chapter>.md`` is the only thing that a person edits. ``notebooks/<chapter>.ipynb`` is
made from it; the accepted lines of its check cells are carried over from the notebook that stands.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jupytext
import nbformat
import yaml

from cltheory.claims import Chapter, Claims, gather

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cltheory"
NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "book" / "runs"
PLANTED, ALARMS, MUTANTS = (RUNS / f"{name}.json" for name in ("planted", "alarms", "mutants"))
"""What became of planted errors, and of other seeds: they lie beside the runs of the chapters."""
EXECUTED = ROOT / "_build" / "executed"
REJECTED = ROOT / "_build" / "rejected"


class Damaged(ValueError):
    """A notebook that is none; the message names what mends it."""


CHECKED = "nbval-check-output"
NOTICE = (
    "*This notebook is generated from `{source}`: edit that file, not this one. "
    "Its cells need the package, and Python 3.11 or newer: `pip install .` in a clone of the book, "
    "or `pip install` the archive that the page offers beside this notebook. "
    "The lines under a check are those that it must print.*"
)
_BLOCK = re.compile(r"\b(claim|observation|exercise)\(\s*[\"']([^\"']+)[\"']")


@cache
def chapters() -> dict[str, Path]:
    """Return the chapters of ``_toc.yml`` that hold code, by name."""
    paths = (ROOT / f"{file}.md" for file in parts())
    return {path.stem: path for path in paths if "{code-cell}" in _text(path)}


def runs() -> list[Path]:
    """Return the recorded runs of the chapters."""
    return sorted(path for path in RUNS.glob("*") if path not in (PLANTED, ALARMS, MUTANTS))


def on_page(page: str) -> str | None:
    """Return the chapter that a page shows; pages of modules bear names of chapters too."""
    found = [name for name, path in chapters().items() if path == ROOT / f"{page}.md"]
    return found[0] if found else None


def parts() -> dict[str, str]:
    """Return the caption of the part that holds each page of ``_toc.yml``, in reading order."""
    return dict(_files(yaml.safe_load(_text(ROOT / "_toc.yml"))))


def _files(node: object, part: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for entry in node:
            yield from _files(entry, part)
    elif isinstance(node, dict):
        part = node.get("caption", part)
        yield from ((node[key], part) for key in ("root", "file") if key in node)
        for value in node.values():
            yield from _files(value, part)


@cache
def claims() -> Claims:
    """Return what this run says of all claims: gathered once a build, for every page."""
    book = {}
    for name, path in chapters().items():
        page = path.relative_to(ROOT).with_suffix("").as_posix()
        text = _text(path)
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        title = heading[1] if heading else name
        book[Chapter(name, title, parts()[page], f"{page}.html")] = text
    return gather(EXECUTED, book, commit=commit())


def commit() -> str:
    """Return the git commit of the book, ``-dirty`` if files differ from it, or ``unknown``."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=64", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def blocks(source: str) -> list[tuple[str, str]]:
    """Return the (role, name) of every evidence block that a cell opens."""
    return _BLOCK.findall(source)


def notebook(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a chapter's text, with the lines that were accepted so far."""
    path = chapters()[name]
    made = jupytext.read(path)
    notice = nbformat.v4.new_markdown_cell(NOTICE.format(source=path.relative_to(ROOT)))
    made.cells.insert(0, notice)
    for number, cell in enumerate(made.cells):
        cell["id"] = f"{name}-{number}"  # jupytext draws random ones
    for _, cell in places(made):
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), CHECKED]
    made = with_lines(made, accepted_lines(name))
    made.metadata.pop("jupytext", None)
    return made


def code_cells(made: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in made.cells if cell.cell_type == "code"]


def texts(cell: nbformat.NotebookNode) -> list[str]:
    """Return the declared lines that a cell printed, one string an output."""
    return [out.data["text/plain"] for out in cell.get("outputs", []) if "data" in out]


Place = tuple[tuple[tuple[str, str], ...], int]
"""The blocks that a cell opens, and how many cells before it open the same."""


def places(notebook: nbformat.NotebookNode) -> Iterator[tuple[Place, nbformat.NotebookNode]]:
    """Yield the check cells of a notebook, each with a name that edits of its text keep."""
    seen: Counter[tuple[tuple[str, str], ...]] = Counter()
    for cell in code_cells(notebook):
        if opened := tuple(blocks(cell.source)):
            yield (opened, seen[opened]), cell
            seen[opened] += 1


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook of the build.

    Raises
    ------
    Damaged
        If it was cut off or is something else.
    """
    try:
        found = nbformat.reads(_text(path), as_version=4)
        nbformat.validate(found)
    except (ValueError, TypeError, AttributeError, nbformat.ValidationError):
        raise Damaged(f"{path} is no notebook, or a part of one") from None
    return found


def kept(path: Path) -> nbformat.NotebookNode | None:
    """Return what a run left in a file; None where there is none, or a part of one."""
    try:
        return read(path)
    except (FileNotFoundError, Damaged):
        return None


def has_run(name: str) -> bool:
    """Whether the run of a chapter as it stands today is there, and whole."""
    run = kept(EXECUTED / f"{name}.ipynb")
    return run is not None and run.metadata.get("cltheory", {}).get("key") == key(name)


def accepted_lines(name: str) -> dict[Place, list[str]]:
    """Return the accepted lines of the notebook that stands, by the place of the cell."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.exists():
        return {}
    try:
        standing = read(path)
    except Damaged as error:
        raise Damaged(
            f"{error}. It holds the accepted lines. Run: git checkout {path.relative_to(ROOT)}"
        ) from None
    return {place: texts(cell) for place, cell in places(standing) if texts(cell)}


def with_lines(made: nbformat.NotebookNode, lines: dict[Place, list[str]]) -> nbformat.NotebookNode:
    """Put declared lines into the check cells of a notebook, as its reference."""
    for place, cell in places(made):
        if place in lines:
            cell["execution_count"] = 1  # nbval compares nothing in a cell that never ran
            cell["outputs"] = [_reference(text) for text in lines[place]]
    return made


def _reference(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data={"text/plain": text})


def write_notebook(name: str, made: nbformat.NotebookNode | None = None) -> bool:
    """Write the notebook of a chapter if it differs; say whether it did."""
    path = NOTEBOOKS / f"{name}.ipynb"
    text = nbformat.writes(made or notebook(name), version=4) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write(path, text)
    return True


def write(path: Path, text: str) -> None:
    """Write a file whole, or leave what is there: a build may be stopped at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def code_key(made: nbformat.NotebookNode) -> str:
    """Return a hash of the code cells, and of nothing else, of a notebook."""
    return _hash([cell.source for cell in code_cells(made)])


def key(name: str) -> str:
    """Return the hash of all that an execution of the chapter depends on.

    Its code cells, their accepted lines, the code (not the docstrings) of the modules that they
    import directly or through others, the ids of the registry that they name, the recorded run, the
    versions that are installed, and the seed of the random cases.
    """
    made = notebook(name)
    cells = code_cells(made)
    opened = {block[1] for cell in cells for block in blocks(cell.source)}
    registry = yaml.safe_load((PACKAGE / "claims.yml").read_text(encoding="utf-8"))
    record = RUNS / f"{name}.json"
    return _hash(
        [
            [(cell.source, cell.metadata.get("tags", []), texts(cell)) for cell in cells],
            {module: _code(PACKAGE / f"{module}.py") for module in imported(cells)},
            sorted(entry["id"] for entry in registry if entry["id"] in opened),
            _text(record) if record.exists() else None,
            _text(ROOT / "constraints.txt"),
            os.environ.get("CLTHEORY_SEED", "0"),
        ]
    )


def imported(cells: list[nbformat.NotebookNode]) -> list[str]:
    """Return the modules of the package that the cells import, directly or through others."""
    pending = {module for cell in cells for module in _imports(cell.source)}
    seen: set[str] = set()
    while pending:
        module = pending.pop()
        seen.add(module)
        pending |= _imports(_text(PACKAGE / f"{module}.py")) - seen
    return sorted(seen)


def _imports(source: str) -> set[str]:
    """Return the modules of the package that a source names in its imports."""
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    found: set[str] = set()
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%"))
    for node in _run_nodes(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            if "cltheory" in names:  # any submodule may be reached as an attribute
                found |= modules
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            root, _, rest = name.partition(".")
            if root == "cltheory":
                found |= {"__init__", rest.partition(".")[0]}
    return found & modules


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what runs for a type checker only."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _run_nodes(node)


@cache
def _code(path: Path) -> str:
    """Return what a module does, without its docstrings, comments and layout."""
    tree = ast.parse(_text(path))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [statement for statement in node.body if not is_text(statement)]
    return ast.dump(tree)


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a bare string: a docstring, of a constant too."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
