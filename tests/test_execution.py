"""One execution: nbval compares, a broken module turns its chapter red, no page shows older output.

A project of two one-claim chapters is laid out in a temporary folder, with this tree's tools.
"""

import os
import platform
import re
from datetime import datetime, timedelta

import nbformat
import pytest

from tiny import accept, build, doit, lay_out, python, replace, run


@pytest.fixture
def project(tmp_path):
    return lay_out(tmp_path, ["One", "Two"])


def test_the_whole_path_of_a_chapter(project):
    one = project / "book" / "one.md"
    notebook = project / "notebooks" / "one.ipynb"

    first = doit(project, "execute")
    assert first.returncode != 0, "a check cell without accepted lines must not pass"
    assert "no accepted lines" in first.stdout
    assert "make accept C=one" in first.stdout

    taken = accept(project)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert "+rkhs-finite | symbolic | one case | simplifies to 0 | holds" in taken.stdout
    second = doit(project, "execute")
    assert second.returncode == 0, second.stdout
    kept = nbformat.read(project / "_build" / "executed" / "one.ipynb", as_version=4)
    facts = kept.metadata["cltheory"]
    assert facts["device"] == "CPU", "the chapter trains nothing"
    assert facts["seed"] == int(os.environ.get("CLTHEORY_SEED", "0"))
    assert facts["seconds"] > 0
    assert re.fullmatch(r"[0-9a-f]{40,}(-dirty)?|unknown", facts["commit"])
    assert datetime.fromisoformat(facts["date"]).utcoffset() == timedelta(0)
    assert facts["versions"]["python"] == platform.python_version()

    third = doit(project, "execute")
    assert "= chapter one" in third.stdout
    assert "✓ chapter" not in third.stdout, "nothing changed, nothing runs"

    replace(one, "Some prose.", "Other prose.")
    prose = doit(project, "execute")
    assert "✓ chapter" not in prose.stdout, "prose executes nothing"
    assert "Other prose." in notebook.read_text()

    replace(project / "cltheory" / "first.py", "Return two.", "Give two.")
    told = doit(project, "execute")
    assert "✓ chapter" not in told.stdout, "the text of a function executes nothing"

    replace(notebook, "one case", "two cases")
    changed_line = doit(project, "execute:one")
    assert changed_line.returncode != 0, "one changed accepted line must turn the chapter red"
    assert "one case" in changed_line.stdout
    assert accept(project, "one").returncode == 0
    assert doit(project, "execute").returncode == 0

    replace(project / "cltheory" / "first.py", "return 2.0", "return 2.6")
    broken = doit(project, "execute")
    assert "✗ chapter one" in broken.stdout
    assert "= chapter two" in broken.stdout, "a chapter that does not use the module stands"
    assert "FAILED" in broken.stdout
    assert accept(project, "one").returncode != 0, "a claim that fails is never accepted"
    assert not (project / "_build" / "executed" / "one.ipynb").exists()
    page = build(project)
    assert page.returncode != 0, "no page of a chapter that failed"
    assert "Run: make book" in page.stdout + page.stderr


def test_a_page_never_shows_the_output_of_an_older_run(project):
    doit(project, "execute")
    accept(project)
    built = doit(project, "book")
    assert built.returncode == 0, built.stdout
    page = project / "_build" / "html" / "book" / "one.html"
    assert "computed when this page was built" in page.read_text()
    assert "2.125" not in page.read_text()

    # The claim still holds with this constant, but the chapter prints another number.
    replace(project / "cltheory" / "first.py", "return 2.0", "return 2.125")
    refused = build(project, "--all")
    assert refused.returncode != 0, "the run on disk is of older code"
    assert "no run of today's code for: one" in refused.stdout + refused.stderr
    assert doit(project, "book").returncode == 0
    assert "2.125" in page.read_text(), "the page shows the newest run"

    (project / "book" / "_static" / "book.css").write_text("p { color: #123456 }")
    assert doit(project, "book").returncode == 0
    built = project / "_build" / "html" / "_static" / "book.css"
    assert "#123456" in built.read_text(), "a change of the style alone is rendered"


def test_imports_are_followed_through_modules(project):
    script = (
        "import chapters\n"
        "cell = lambda s: chapters.nbformat.v4.new_code_cell(s)\n"
        "print(chapters.imported([cell('from cltheory.ledger import card')]))\n"
        "print(len(chapters.imported([cell('import cltheory')])))\n"
        "print(chapters.imported([cell('%time x\\nimport numpy')]))\n"
    )
    lines = run(project, python(project), "-c", script).stdout.splitlines()
    assert {"ledger", "checks", "_measure"} <= set(eval(lines[0]))
    assert "mercer" not in eval(lines[0])
    assert int(lines[1]) == len(list((project / "cltheory").glob("*.py")))
    assert eval(lines[2]) == []


def test_a_reference_is_carried_by_its_block_not_by_its_place(project):
    doit(project, "execute")
    accept(project)
    one = project / "book" / "one.md"
    replace(one, "Some prose.", "```{code-cell} ipython3\nx = 1\n```\n")
    assert doit(project, "execute:one").returncode == 0
    cells = nbformat.read(project / "notebooks" / "one.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [bool(cell.outputs) for cell in code] == [False, True, False]


def test_a_docstring_is_not_what_runs(project):
    key = [python(project), "-c", "import chapters; print(chapters.key('one'))"]
    before = run(project, *key).stdout
    assert len(before.strip()) == 64
    first = project / "cltheory" / "first.py"
    replace(first, "Return two.", "Return the number two.")
    replace(first, "return 2.0", "return 2.0  # as it was")
    assert run(project, *key).stdout == before
    replace(first, "return 2.0", "return 2.125")
    assert run(project, *key).stdout != before
