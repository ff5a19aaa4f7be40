"""The programs that run in the page: found in the chapters, whole, and judged as on the pages."""

import ast
import subprocess
import sys

import pytest

import chapters
import trials
import verdict

CELLS = [
    """import sympy as sp
import torch
from cltheory.checks import claim, observation
""",
    """CONSTANT = 2
x = sp.Symbol("x")

def helper(a):
    return CONSTANT * a

def unused(a):
    return a

def torch_gap(rng):
    return torch.zeros(3)
""",
    """def gap(*, factor=2):
    x = sp.Symbol("x")
    return helper(x) - factor * x

with claim("rkhs-finite") as c:
    c.numeric("three", torch_gap, atol=1e-12)
    c.twin("torch again", shift=1, margin=1)
    c.symbolic("every x", gap)
    c.twin("three for two", factor=3, margin=1e-3)
    c.bound("more", torch_gap)
    c.twin("the first again", of=gap, factor=4, margin=1e-3)
    c.twin("of the bound", factor=5, margin=1e-3)
""",
]
PROGRAM = trials.programs(CELLS)["claim", "rkhs-finite"]


def test_a_program_holds_the_symbolic_lines_with_their_twins_and_what_they_lean_on():
    assert (
        PROGRAM
        == """import sympy as sp
from cltheory.checks import claim


CONSTANT = 2


def helper(a):
    return CONSTANT * a


def gap(*, factor=2):
    x = sp.Symbol("x")
    return helper(x) - factor * x


with claim("rkhs-finite") as c:
    c.symbolic("every x", gap)
    c.twin("three for two", factor=3, margin=1e-3)
    c.twin("the first again", of=gap, factor=4, margin=1e-3)"""
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CONSTANT * a", "CONSTANT * a + torch.pi"),
        ("CONSTANT = 2", "for CONSTANT in range(3): pass"),
        ("def helper", "def other"),
    ],
    ids=["needs torch", "bound by a loop", "bound nowhere"],
)
def test_what_leans_on_more_than_sympy_has_no_program(old, new):
    changed = [cell.replace(old, new) for cell in CELLS]
    assert changed != CELLS
    assert trials.programs(changed) == {}


def test_a_check_whose_twins_need_torch_has_no_program():
    """Without a twin the block would be refused."""
    changed = [cell.replace("of=gap, factor=4", "shift=torch.pi") for cell in CELLS]
    changed = [cell.replace("factor=3", "factor=torch.pi") for cell in changed]
    assert trials.programs(changed) == {}


@pytest.mark.parametrize(
    ("change", "state", "word"),
    [
        (("", ""), "holds", "simplifies to zero"),
        (("CONSTANT = 2", "CONSTANT = 5"), "fails", "leaves 3*x"),
        (("factor=3", "factor=2.0"), "fails", "NOT refuted"),
        (("factor=3", "power=3"), "fails", "'power' is not a keyword"),
        (("CONSTANT * a", "CONSTANT * b"), "broken", "line 9: NameError"),
        (("* x", "* x)"), "broken", "SyntaxError"),
        ((PROGRAM, "print(1)"), "unchecked", "1"),
        ((PROGRAM, "raise SystemExit"), "broken", "SystemExit"),
    ],
)
def test_a_verdict_is_that_of_the_evidence(change, state, word):
    found, text = verdict.run(PROGRAM.replace(*change) if change[0] else PROGRAM)
    assert found == state
    assert word in text


def test_a_verdict_leaves_the_checks_as_they_were(capsys):
    verdict.run(PROGRAM)
    exec(PROGRAM, {})
    assert "rkhs-finite | holds" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(chapters.chapters()))
def test_every_line_of_a_program_stands_in_the_chapter(name):
    cells = [cell.source for cell in chapters.code_cells(chapters.notebook(name))]
    found = trials.programs(cells)
    assert found, "every chapter has a check that a reader can run in the page"
    text = "\n".join(cells)
    for program in found.values():
        ast.parse(program)
        body = program.split("\n\n\n", 1)[1]
        assert all(line in text for line in body.split("\n"))


def test_the_programs_of_a_chapter_print_accepted_lines_where_there_is_no_torch():
    accepted = {
        line
        for texts in chapters.accepted_lines("rkhs").values()
        for line in "\n".join(texts).splitlines()
    }
    cells = [cell.source for cell in chapters.code_cells(chapters.notebook("rkhs"))]
    for program in trials.programs(cells).values():
        alone = f"import sys\nsys.modules.update(torch=None, numpy=None)\n{program}"
        done = subprocess.run(
            [sys.executable, "-c", alone], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) >= 3
        assert set(lines) <= accepted
