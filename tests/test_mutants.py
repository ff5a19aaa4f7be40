"""Generic mutants: which are made, what a run of the tests says of one, what the page says."""

import json
import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

import chapters
import mutants
import planted
import scrutiny

MEND = "changes code by mutmut: pip install -e '.[mutants]'"
SUMS = '''
    """Sums."""

    from dataclasses import dataclass

    @dataclass
    class Sum:
        value: int = 0

    def add(a: int, b: int = 1) -> int:
        """Add b to a."""
        if a < 0:
            raise ValueError(f"a must be positive, got {a}" " here")
        return a + b
'''


def mutant(now, was="return a + b"):
    return mutants.Mutant("sums", "add", textwrap.dedent(SUMS).replace(was, now), was, now)


def test_code_is_changed_and_no_text_of_an_error(monkeypatch):
    pytest.importorskip("mutmut", reason=MEND)
    monkeypatch.chdir(chapters.ROOT)
    monkeypatch.setattr(planted, "source", lambda module: textwrap.dedent(SUMS))
    found = list(mutants.mutants("sums"))
    changes = {(one.was, one.now) for one in found}
    assert ("return a + b", "return a - b") in changes
    assert ("if a < 0:", "if a <= 0:") in changes
    assert ("def add(a: int, b: int = 1) -> int:", "def add(a: int, b: int = 2) -> int:") in changes
    assert not any("here" in now or "HERE" in now for _, now in changes)
    assert ("value: int = 0", "value: int = 1") in changes
    assert {one.function for one in found} == {"add", "_field"}
    assert len({one.id for one in found}) == len(found)


NOTICED = """
import sys
from pathlib import Path
import chapters, mutants, planted
chapters.PACKAGE, test, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
mutants.PROPERTIES = test
planted.test_files = lambda module: ([], [test])
mutant = mutants.Mutant("sums", "add", text, "", "")
print(mutants.noticed(mutant))
print(mutants.noticed(mutant, test + "::test_add"))
print(mutants.noticed(mutant, test + "::test_of_another_package"))
"""


@pytest.mark.parametrize(
    ("now", "test"), [("return a - b", "test_sums.py::test_add"), ("return b + a", "None")]
)
def test_a_mutant_is_noticed_by_a_test_that_fails(now, test, tmp_path):
    """In a process of its own: one forks better that has loaded nothing else."""
    package = tmp_path / "apart" / "toys"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "sums.py").write_text(textwrap.dedent(SUMS), encoding="utf-8")
    file = tmp_path / "test_sums.py"
    file.write_text("from toys import sums\n\ndef test_add():\n    assert sums.add(2, 3) == 5\n")
    done = subprocess.run(
        [sys.executable, "-c", NOTICED, package, file, mutant(now).text],
        env=os.environ | {"PYTHONPATH": str(chapters.ROOT / "tools")},
        capture_output=True,
        text=True,
    )
    assert [Path(said).name for said in done.stdout.split()] == [test] * 3, done.stderr


UNCHANGED = """
import mutants, planted
of_claims = [str(planted.chapters.ROOT / "tests" / "test_claims.py")]
planted.test_files = lambda module: (of_claims, of_claims)
mutants.PROPERTIES = of_claims[0]
print(mutants.noticed(mutants.Mutant.none("checks")))
"""


def test_a_copy_that_nothing_changed_passes_where_tools_took_classes_from_the_package():
    done = subprocess.run(
        [sys.executable, "-c", UNCHANGED],
        env=os.environ | {"PYTHONPATH": str(chapters.ROOT / "tools")},
        capture_output=True,
        text=True,
        cwd=chapters.ROOT,
    )
    assert done.stdout.split() == ["None"], done.stderr


def test_a_module_that_does_not_pass_as_it_is_stops_the_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(mutants, "Record", partial(mutants.Record, tmp_path / "mutants.json"))
    monkeypatch.setattr(mutants, "mutants", lambda module: [mutant("return a - b")])
    monkeypatch.setattr(mutants, "noticed", lambda mutant, likely=None: "test_of_any_copy")
    with pytest.raises(SystemExit) as end:
        mutants.main(["checks"])
    assert end.value.code == 1
    assert "checks as it is does not pass its tests: test_of_any_copy" in capsys.readouterr().err
    assert not (tmp_path / "mutants.json").exists()


def test_those_that_lived_stand_on_the_page_with_a_reason_or_without(tmp_path, monkeypatch):
    path, listed = tmp_path / "mutants.json", tmp_path / "equivalent.yml"
    listed.write_text(
        "- {module: sums, was: return a + b, now: return b + a, why: Sums commute.}\n"
    )
    monkeypatch.setattr(chapters, "MUTANTS", path)
    monkeypatch.setattr(mutants, "EQUIVALENT", listed)
    monkeypatch.setattr(mutants, "MODULES", ["sums", "products"])
    monkeypatch.setattr(mutants, "key", lambda module: "today")
    for now, known in (("return a - b", True), ("return b + a", False), ("return a", False)):
        mutants.Record(path).put(mutant(now), known)
    assert len(mutants.Record(path).of("sums")["lived"]) == 2
    text = scrutiny.of_mutants()
    assert "Of 3 mutants that ran, 1 are noticed." in text
    assert "| `sums` | 0 | 3 | 33.3% | 1 | 1 |" in text
    assert "| `products` | not run yet |" in text
    assert "- `add`: `` return a + b `` became `` return b + a ``. Sums commute." in text
    assert "- `add`: `` return a + b `` became `` return a ``. **not examined**" in text
    assert "Stale" not in text
    monkeypatch.setattr(mutants, "key", lambda module: "another")
    assert "**Stale.** Other code than today's: sums." in scrutiny.of_mutants()
    assert mutants.Record(path).of("sums")["noticed"] == []


@pytest.mark.skipif(not chapters.MUTANTS.exists(), reason="no recorded run: tools/mutants.py")
def test_every_reason_is_of_a_mutant_that_lived():
    content = json.loads(chapters.MUTANTS.read_text(encoding="utf-8"))
    digest = content.pop("digest")
    assert digest == planted.digest(content)
    lived = {
        (module, one["was"], one["now"])
        for module, ran in content["modules"].items()
        for one in ran["lived"]
    }
    assert set(mutants.reasons()) <= lived
