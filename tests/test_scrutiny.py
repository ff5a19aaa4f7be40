"""The page on the checks says what the records hold, survivors and age included."""

import ast
import json
import os
import subprocess
import sys

import pytest

import alarms
import chapters
import planted
import scrutiny

CLAIM = "rkhs-finite"
NOTICED = {"test": "tests/test_rkhs.py::test_norm", "seconds": 1.0}
FAILED = {"claim": CLAIM, "check": "numeric: n = 8", "seconds": 2.0}


@pytest.fixture
def planted_record(tmp_path, monkeypatch):
    """A record of three errors: noticed by both, by the tests only, and not run."""
    path = tmp_path / "planted.json"
    monkeypatch.setattr(chapters, "PLANTED", path)
    scrutiny.errors_of.cache_clear()
    describe = {"kind": "sign", "module": "rkhs", "claim": CLAIM, "says": "It is wrong."}
    errors = [
        {"name": "both", **describe, "unit": NOTICED, "book": FAILED},
        {"name": "one", **describe, "unit": NOTICED, "book": None},
        {"name": "none", **describe},
    ]
    planted.seal(path, {"errors": errors})
    yield path
    scrutiny.errors_of.cache_clear()


def test_survivors_stand_in_the_open(planted_record):
    text = scrutiny.of_planted()
    assert "**3 errors** were planted, one at a time, in 1 modules" in text
    assert "| {doc}`api/rkhs` | 3 | 2 of 2 | 1 of 2 |" in text
    each = {name: rest.partition("\n\n")[0] for name, _, rest in _entries(text)}
    assert f"Check: {{prf:ref}}`{CLAIM}`, `{CLAIM}`." in each["both"]
    assert "Test: `test_rkhs.py::test_norm`. Check: **survived**." in each["one"]
    assert "Test: not run. Check: not run." in each["none"]
    assert "Stale" not in text


def _entries(text):
    return [part.partition("` (sign)") for part in text.split("\n`")[1:]]


def test_a_claim_counts_the_errors_that_its_check_noticed_first(planted_record):
    assert scrutiny.errors_of(CLAIM) == 1
    assert scrutiny.errors_of("representer") == 0


def test_a_module_without_a_page_has_no_link(planted_record):
    errors = json.loads(planted_record.read_text(encoding="utf-8"))["errors"]
    errors[2]["module"] = "_tiles"
    planted.seal(planted_record, {"errors": errors})
    text = scrutiny.of_planted()
    assert "| {doc}`api/rkhs` | 2 |" in text
    assert "| `_tiles` | 1 |" in text


def test_a_record_of_another_package_is_shown_as_stale(planted_record, monkeypatch):
    monkeypatch.setattr(planted, "fingerprint", lambda: "another")
    assert "**Stale.** The package has changed" in scrutiny.of_planted()


@pytest.mark.parametrize(
    "text", [scrutiny.of_planted, scrutiny.of_mutants, scrutiny.of_alarms], ids=lambda f: f.__name__
)
def test_without_a_record_the_page_says_how_to_make_it(text, tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "PLANTED", tmp_path / "planted.json")
    monkeypatch.setattr(chapters, "ALARMS", tmp_path / "alarms.json")
    monkeypatch.setattr(chapters, "MUTANTS", tmp_path / "mutants.json")
    assert text().startswith("No record yet. Make it with `python tools/")


def test_alarms_are_kept_seed_by_seed_until_the_chapter_changes(tmp_path, monkeypatch):
    path = tmp_path / "alarms.json"
    monkeypatch.setattr(chapters, "ALARMS", path)
    line = {"claim": CLAIM, "check": "numeric: |x| = 1"}
    alarms.Record(path).put("rkhs", alarms.CHECKS, 1, [])
    alarms.Record(path).put("rkhs", alarms.CHECKS, 2, [line])
    known = json.loads(path.read_text())["chapters"]["rkhs"]["checks"]
    assert known["seeds"] == [1, 2]
    assert known["failed"] == [line | {"seed": 2}]
    drawn = {"claim": alarms.FIGURE, "check": "assert x == 1"}
    for seed in (1, 2):
        alarms.Record(path).put("rkhs", alarms.TRAINING, seed, [drawn])
    assert alarms.Record(path).of("rkhs", alarms.TRAINING)["seeds"] == [1, 2]
    text = scrutiny.of_alarms()
    row = f"| rkhs | 2 | `{CLAIM}`: numeric: \\|x\\| = 1 (1 of 2) | 2 | none "
    assert row + "| 1 |" in text
    assert "\n- rkhs, 2 of 2: `` assert x == 1 ``" in text
    assert "| mercer | 0 | not run yet | 0 | not run yet | not run yet |" in text
    assert "Checks: 0 to 2 seeds a chapter, **1** lines" in text
    assert "Training: 0 to 2 seeds a chapter, **0** comparisons" in text
    assert "and 1 assertions about figures failed" in text
    assert "Stale" not in text
    cells = planted.cells("rkhs")
    monkeypatch.setattr(planted, "cells", lambda chapter: [*cells, "print('a figure')"])
    assert "**Stale.** Other code than today's: training of rkhs." in scrutiny.of_alarms()
    assert alarms.Record(path).of("rkhs", alarms.CHECKS)["seeds"] == [1, 2], "no check runs it"
    assert alarms.Record(path).of("rkhs", alarms.TRAINING)["seeds"] == []
    monkeypatch.setattr(planted, "cells", lambda chapter: ["pass"])
    stale = "**Stale.** Other code than today's: checks of rkhs, training of rkhs."
    assert stale in scrutiny.of_alarms()
    assert alarms.Record(path).of("rkhs", alarms.CHECKS)["seeds"] == []


TRAINS = """
import torch
import alarms, planted
planted.cells = lambda chapter: [
    "import torch\\nfrom cltheory.checks import claim, observation",
    "with claim('rkhs-finite') as c:\\n    raise ValueError('a check is left out')",
    "x = torch.rand(1, generator=torch.Generator().manual_seed(3)).item()",
    "with observation('rkhs-finite') as o:\\n"
    "    o.observed('x', trained=x, untrained=9.0, theory=OWN, atol=1e-9)".replace("OWN", OWN),
    "%matplotlib inline\\ndef same():\\n    assert x == " + OWN + ", 'all of them'",
    "same()\\nx == " + OWN + " or int('x')",
]
for seed in (0, 1):
    print(alarms.training_that_fails("toy", seed))
"""


def test_training_runs_without_its_checks_and_from_other_seeds():
    """In a process of its own: it moves all generators of torch."""
    import torch

    own = repr(torch.rand(1, generator=torch.Generator().manual_seed(3)).item())
    done = subprocess.run(
        [sys.executable, "-c", f"OWN = {own!r}" + TRAINS],
        env=os.environ | {"PYTHONPATH": str(chapters.ROOT / "tools"), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    quiet, moved = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert quiet == "[]", done.stderr
    found = ast.literal_eval(moved)
    assert [fail["claim"] for fail in found] == ["rkhs-finite", "a figure", "a figure"]
    assert found[0]["check"].startswith("rkhs-finite: observed (x): FAILS")
    assert found[1]["check"] == f"assert x == {own}, 'all of them'"
    assert found[2]["check"].startswith("ValueError: invalid literal")


def test_every_tolerance_stands_beside_what_was_measured():
    rows = [line for line in scrutiny.of_tolerances().splitlines() if line.startswith("| `")]
    numeric = [
        line for claim in chapters.claims() for line in claim.evidence if line["kind"] == "numeric"
    ]
    assert len(rows) > len(numeric) > 250
    assert all(len(row.replace("\\|", "").split("|")) == 7 for row in rows)
