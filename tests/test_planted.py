"""The catalogue of planted errors is sound, and tests and checks do notice errors."""

import ast
import builtins
import json
import os
import random
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

import chapters
import planted
import slices
import uses
from cltheory.checks import registry

ROOT = chapters.ROOT
ERRORS = planted.catalogue()
OF_NO_MATHEMATICS = {"checks", "claims", "data", "figures", "ledger", "sweeps"}
SAMPLE = random.Random(0).sample([error.name for error in ERRORS], 10)


def code(text):
    """What a module does: its tree without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [s for s in node.body if not chapters.is_text(s)] or [ast.Pass()]
    return ast.dump(tree)


def apart(script, *arguments):
    """Run a script in a process of its own, as the tool runs; return the JSON that it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.name)
def test_every_error_changes_the_code_of_its_module_in_one_place(error):
    text = planted.source(error.module)
    assert code(planted.patched(error, text)) != code(text)
    assert error.says.endswith(".")


def test_the_catalogue_spans_the_package_and_the_kinds():
    assert len(ERRORS) >= 120
    assert [name for name, n in Counter(error.name for error in ERRORS).items() if n > 1] == []
    assert {error.kind for error in ERRORS} == set(planted.KINDS)
    assert {error.module for error in ERRORS} - {"_tiles"} == set(
        uses.modules()
    ) - OF_NO_MATHEMATICS
    assert {error.claim for error in ERRORS} <= registry().keys()
    patches = Counter((error.module, error.old, error.new) for error in ERRORS)
    assert max(patches.values()) == 1


def test_a_patch_that_fits_nowhere_or_twice_is_refused():
    error = planted.Planted("x", "sign", "rkhs", "rkhs-finite", "X.", "gram", "-gram")
    for text in ("a + b", "gram + gram"):
        with pytest.raises(ValueError, match="should stand once"):
            planted.patched(error, text)
    assert planted.patched(error, "gram + a") == "-gram + a"


def test_the_function_of_an_error_is_the_one_that_holds_it():
    places = {"riesz-without-sign": "riesz", "roots-of-p-forgotten": "PairModel"}
    found = {error.name: error.function for error in ERRORS if error.name in places}
    assert found == places


def test_the_line_of_an_error_is_that_of_the_innermost_function_around_it():
    error = next(error for error in ERRORS if error.name == "gaussian-slope-doubled")
    text = planted.source("kernels")
    assert "lambda r2, value" in text.splitlines()[error.line - 1]
    moment = next(error for error in ERRORS if error.name == "moment-gradient-halved")
    assert planted.source("blockwise").splitlines()[moment.line - 1].strip() == "@staticmethod"
    constant = next(error for error in ERRORS if error.name == "erf-slope-constant")
    assert constant.line is None


def test_a_module_is_tested_by_its_own_file_and_by_those_of_its_users():
    own, others = planted.test_files("sphere")
    assert [path.rpartition("/")[2] for path in own] == ["test_sphere.py"]
    names = {path.rpartition("/")[2] for path in others}
    assert {"test_mercer.py", "test_metrics.py", "test_optima.py"} <= names
    assert not names & {"test_sphere.py", "test_book.py", "test_planted.py"}


TOY = """
import json, sys
from functools import partial
from pathlib import Path
import apart, planted
folder = Path(sys.argv[1])
error = planted.Planted("x", "sign", "sums", "", "X.", "a + b", sys.argv[2])
apart.LIBRARIES = ("pytest",)
with planted.planted(error, folder / "toy") as copy:
    print(json.dumps(apart.call(partial(apart.first_failure, [sys.argv[3]], "add"), copy)))
"""


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").touch()
    (tmp_path / "toy" / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    file = tmp_path / "tests" / "test_sums.py"  # pytest puts its folder before all others
    file.parent.mkdir()
    file.write_text(
        textwrap.dedent("""
            from toy import sums

            def test_of_other_things():
                assert abs(-1) == 1

            def test_add():
                assert sums.add(2, 3) == 5
        """)
    )
    return tmp_path, file


@pytest.mark.parametrize(
    ("new", "killed"), [("a - b", True), ("b + a", False), ("a +", True)], ids=str
)
def test_a_unit_test_kills_an_error_and_lets_an_equal_form_live(toy, new, killed):
    folder, file = toy
    found = apart(TOY, folder, new, file)
    assert (found is not None) == killed
    if new == "a - b":
        assert found.endswith("test_sums.py::test_add")


CHAPTER = [
    "from cltheory.checks import exercise, observation\nimport math",
    "%matplotlib inline\nFACTOR = 2",
    "def gap(rng, *, factor=2):\n    return FACTOR - factor",
    "history = [math.nan]\nhistory.append(train())",
    "with observation('rkhs-finite') as o:\n    o.observed('x', trained=history)",
    "with exercise('doubling') as c:\n    c.numeric('two', gap, atol=1e-9)\n"
    "    c.twin('three', factor=3, margin=0.1)",
    "kept = []\nkept.append(FACTOR)",
    "with exercise('last') as c:\n    c.numeric('kept', lambda rng, *, n=1: len(kept) - n, atol=1)",
]


def test_a_program_holds_checks_and_what_they_lean_on_but_no_training():
    text = "\n".join(ast.unparse(statement) for statement in slices.program(CHAPTER))
    assert "observed" not in text
    assert "history" not in text
    assert "kept.append(FACTOR)" in text
    one = "\n".join(ast.unparse(s) for s in slices.program(CHAPTER, ["doubling"]))
    assert "FACTOR = 2" in one
    assert "kept" not in one


def test_a_program_takes_the_definition_that_a_check_saw():
    cells = [
        "def outer():\n    return inner()",
        "scale = 1",
        "def inner():\n    return scale",
        "with exercise('one') as c:\n    c.symbolic('x', outer)",
        "for scale in figures:\n    draw(scale, [n for n in figures])",
        "n = 3\nother = n + 1\nn = 4",
        "with exercise('two') as c:\n    c.symbolic('x', lambda: other)",
    ]
    one, two = (
        [ast.unparse(s).partition("\n")[0] for s in slices.program(cells, [name])]
        for name in ("one", "two")
    )
    assert one == ["def outer():", "scale = 1", "def inner():", "with exercise('one') as c:"]
    assert two == ["n = 3", "other = n + 1", "with exercise('two') as c:"]


def test_a_program_stops_at_the_first_check_that_fails_and_names_its_line(capsys):
    cells = [*CHAPTER[:3], CHAPTER[5]]
    assert slices.run(slices.program(cells)) is None
    wrong = [*CHAPTER[:2], CHAPTER[2].replace("FACTOR -", "1 + FACTOR -"), CHAPTER[5]]
    assert slices.run(slices.program(wrong)) == {
        "claim": "doubling",
        "check": "numeric: two",
    }
    both = [*wrong, CHAPTER[6], CHAPTER[7].replace("n=1", "n=3")]
    assert [found["claim"] for found in slices.failing(slices.program(both))] == [
        "doubling",
        "last",
    ]
    crash = ["raise ValueError('no')" if "FACTOR = 2" in cell else cell for cell in cells]
    found = slices.run(slices.program(crash))
    assert found["claim"] == "doubling"
    assert "FACTOR" in found["check"]


def test_what_a_program_calls_in_a_package(toy, monkeypatch):
    folder, _ = toy
    monkeypatch.syspath_prepend(folder)
    text = "from toy import sums\nsums.add(2, 3)"
    assert slices.called(ast.parse(text[:21]).body, "toy") == []
    assert slices.called(ast.parse(text).body, "toy") == [["sums", 1]]


def test_other_chapters_are_asked_only_when_that_of_the_claim_has_passed(monkeypatch):
    answers = iter([None, {"claim": "of-the-chapter", "check": "a line"}])
    monkeypatch.setattr(planted.apart, "call", lambda *_: next(answers))
    monkeypatch.setattr(planted, "_calls", lambda *_: pytest.fail("another chapter was asked"))
    assert planted.by_check(ERRORS[0], ROOT, {})["claim"] == "of-the-chapter"


def test_what_noticed_an_error_before_is_tried_first(monkeypatch):
    error, tried = next(error for error in ERRORS if error.module == "losses"), []

    def first(function, copy):
        tried.append(function)
        return "it" if function.func is planted.apart.first_failure else {"claim": "it"}

    monkeypatch.setattr(planted.apart, "call", first)
    monkeypatch.setattr(planted, "program", lambda name, claims: (name, claims))
    before = "tests/test_losses.py::test_it"
    planted.by_test(error, ROOT, {"test": before})
    planted.by_check(error, ROOT, {"claim": "ex-ntk-he"})
    assert tried[0].args[0] == [str(ROOT / "tests" / "test_losses.py")]
    assert tried[0].args[2] == before
    assert tried[1].args == (("ntk", ["ex-ntk-he"]),)


def test_every_check_of_every_chapter_has_a_program():
    for name in chapters.chapters():
        opened = {block for block in planted.blocks(name) if block[0] != "observation"}
        program = planted.program(name)
        found = [slices.trials._block(statement) for statement in program]
        assert {block[:2] for block in found if block} == opened
        bound = {bound for statement in program for bound in slices._bound(statement)}
        free = {n.partition(".")[0] for statement in program for n in uses._free(statement)}
        assert free <= bound | set(dir(builtins)) | {"cltheory"}


def test_the_record_is_sealed_and_a_result_of_another_patch_is_dropped(tmp_path):
    error, other = ERRORS[:2]
    path = tmp_path / "planted.json"
    record = planted.Findings([error, other], path)
    record.put(error, "unit", {"test": "tests/test_x.py::test_y", "seconds": 1.0})
    record.put(other, "unit", None)
    content = json.loads(path.read_text())
    digest = content.pop("digest")
    assert digest == planted.digest(content)
    again = planted.Findings([error, other], path)
    assert again.missing("unit") == []
    assert again.missing("book") == [error, other]
    changed = planted.Planted(**{**vars(error), "new": "0"})
    assert planted.Findings([changed, other], path).missing("unit") == [changed]


@pytest.mark.skipif(not chapters.PLANTED.exists(), reason="no recorded run: tools/planted.py")
def test_the_record_that_stands_is_whole():
    content = json.loads(chapters.PLANTED.read_text(encoding="utf-8"))
    digest = content.pop("digest")
    assert digest == planted.digest(content)
    for entry in content["errors"]:
        for part, keys in (("unit", {"test", "seconds"}), ("book", {"claim", "check", "seconds"})):
            assert entry.get(part) is None or entry[part].keys() == keys


JUDGE = """
import json, sys, planted
errors = {error.name: error for error in planted.catalogue()}
print(json.dumps({name: planted.judge(errors[name], "unit") for name in sys.argv[1:]}))
"""


def test_a_sample_of_the_catalogue_is_killed_by_the_unit_tests():
    found = apart(JUDGE, *SAMPLE)
    assert [name for name in SAMPLE if found[name] is None] == []
