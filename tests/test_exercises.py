"""The exercises: each chapter has a ladder of them, and the list says what stands in the text."""

import json
import re
from itertools import pairwise

import pytest

import chapters
import exercises
from cltheory.checks import registry

TEXTS = {name: path.read_text(encoding="utf-8") for name, path in chapters.chapters().items()}

GOOD = """\
Some words.

```{exercise} Two points
:label: ex-two
:class: warm-up

Compute.
```

```{hint}
:class: dropdown

Look at {prf:ref}`rkhs-finite`, not at {prf:ref}`some-lemma`.
```

```{solution} ex-two
:label: ex-two-solution
:class: dropdown

By {prf:ref}`nystrom` and {prf:ref}`rkhs-finite`.
```
"""


def markdown_before_grading(name):
    """(label, text of the markdown cell before it) of each cell that grades an exercise."""
    cells = chapters.notebook(name).cells
    return [
        (label, before.source)
        for before, cell in pairwise(cells)
        if cell.cell_type == "code"
        for role, label in chapters.blocks(cell.source)
        if role == "exercise"
    ]


@pytest.mark.parametrize("name", TEXTS)
def test_a_chapter_has_a_ladder_of_at_least_five(name):
    found = exercises.read(TEXTS[name])
    assert len(found) >= 5
    assert found[0].level == "warm-up"
    assert {"standard", "demanding", "research-like"} <= {entry.level for entry in found}


@pytest.mark.parametrize("name", TEXTS)
def test_an_exercise_its_hint_its_solution_and_its_grading_stand_in_this_order(name):
    graded = markdown_before_grading(name)
    assert [label for label, _ in graded] == [e.label for e in exercises.read(TEXTS[name])]
    assert TEXTS[name].count("{exercise}") == TEXTS[name].count("{hint}") == len(graded)
    for label, text in graded:
        marks = [
            "```{exercise} ",
            f"\n:label: {label}\n",
            "\n```{hint}\n",
            f"{{solution}} {label}\n",
        ]
        places = [text.find(mark) for mark in marks]
        assert places == sorted(places), label
        assert min(places) >= 0, label


@pytest.mark.parametrize("name", TEXTS)
def test_an_exercise_touches_a_claim_and_the_last_rung_says_what_is_open(name):
    for entry in exercises.read(TEXTS[name]):
        assert entry.claims, f"{entry.label}: name the claim that it is about"
        body = TEXTS[name].split(f":label: {entry.label}\n")[1].split("\n```\n")[0]
        assert ("Open" in body) == (entry.level == "research-like"), entry.label


def test_labels_are_unique_and_exercises_are_referred_to_as_such():
    labels = [entry.label for text in TEXTS.values() for entry in exercises.read(text)]
    assert len(labels) == len(set(labels))
    wrong = [label for label in labels if any(f"{{prf:ref}}`{label}`" in t for t in TEXTS.values())]
    assert not wrong, "refer to an exercise with {ref}"


def test_a_text_is_read_as_it_stands():
    (entry,) = exercises.read(GOOD)
    assert (entry.label, entry.title, entry.level) == ("ex-two", "Two points", "warm-up")
    assert entry.claims == ["rkhs-finite", "nystrom"], "claims only, each once, in their order"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (r"```{hint}.*?```\n\n", "", "what follows it was 'solution ex-two'"),
        (r"```{solution}.*", "", "what follows it was 'hint'"),
        (r"solution} ex-two", "solution} ex-three", "solution ex-three"),
        (r":class: warm-up\n", "", "level .* was ''"),
        (r"warm-up", "easy", "'easy'; it should be one of warm-up, standard"),
        (r":label: ex-two\n", "", "'Two points': its label"),
        (r"({hint}\n):class: dropdown\n", r"\1", "the options of its hint"),
        (r"(-solution\n):class: dropdown\n", r"\1", "the options of its solution"),
        (r"Look at.*?\.\n", "", "the text of its hint"),
    ],
)
def test_a_defect_is_refused_by_name(old, new, complaint):
    broken, changes = re.subn(old, new, GOOD, count=1, flags=re.DOTALL)
    assert changes == 1
    with pytest.raises(ValueError, match=complaint):
        exercises.read(broken)


def test_two_exercises_do_not_share_a_hint():
    second = GOOD.replace("ex-two", "ex-three")
    assert len(exercises.read(GOOD + "\n" + second)) == 2
    alone = GOOD[: GOOD.index("```{hint}")]
    with pytest.raises(ValueError, match="what follows it was 'exercise Two points, hint'"):
        exercises.read(alone + second)


def test_the_list_names_each_with_its_level_its_claims_and_its_verdict():
    held = {"rkhs-ex-two": True, "rkhs-ex-product": False}
    found = exercises.read(TEXTS["rkhs"])
    rows = exercises.table(found, held).splitlines()[2:]
    assert len(rows) == len(found)
    for row, entry in zip(rows, found, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == f"{{numref}}`{{number}} {entry.title} <{entry.label}>`"
        assert cells[1] == entry.level
        assert re.findall(r"\{prf:ref\}`([^`]+)`", cells[2]) == entry.claims
        assert set(entry.claims) <= set(registry())
        wanted = {"rkhs-ex-two": "✓ holds", "rkhs-ex-product": "✗ fails"}
        assert cells[3] == wanted.get(entry.label, "○ not run")


def test_the_summary_counts_by_level_and_what_held():
    found = exercises.read(GOOD) + exercises.read(
        GOOD.replace("ex-two", "ex-three").replace("warm-up", "demanding")
    )
    text = exercises.summary(found, {"ex-two": True, "ex-three": False, "elsewhere": True})
    assert text.startswith("**1 of 2 graded solutions hold**")
    for words in ("*warm-up* (1)", "*standard* (0)", "*demanding* (1)", "*research-like* (0)"):
        assert words in text


def test_verdicts_are_those_of_the_run(tmp_path, monkeypatch):
    blocks = [("claim", "nystrom", True), ("exercise", "a", True), ("exercise", "b", False)]
    outputs = [
        {"metadata": {"cltheory": {"role": role, "name": name, "holds": holds}}}
        for role, name, holds in blocks
    ]
    run = {"cells": [{"cell_type": "code", "outputs": outputs}]}
    (tmp_path / "chapter.ipynb").write_text(json.dumps(run))
    monkeypatch.setattr(chapters, "EXECUTED", tmp_path)
    assert exercises.verdicts() == {"a": True, "b": False}


def test_every_graded_solution_holds_in_this_run():
    held = exercises.verdicts()
    for text in TEXTS.values():
        for entry in exercises.read(text):
            assert held.get(entry.label) is True, entry.label
