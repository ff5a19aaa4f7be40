"""The errata: each doubted sentence has an entry, each figure a line of evidence, and no more."""

import copy
import dataclasses

import pytest

import chapters
import errata
from cltheory.checks import registry


@pytest.fixture(scope="module")
def claims():
    return {claim.id: claim for claim in chapters.claims()}


def test_every_doubted_sentence_has_one_entry_and_none_is_stale(claims):
    assert errata.problems(errata.entries(), claims) == []
    doubted = {claim for claim, entry in registry().items() if entry["of_source"] != "holds"}
    written = [entry["claim"] for entry in errata.entries() if "sentence" not in entry]
    assert sorted(written) == sorted(doubted)
    names = [errata.name(entry) for entry in errata.entries()]
    assert len(set(names)) == len(names)


def planted(change):
    wrong = copy.deepcopy(errata.entries())
    change(wrong)
    return wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop(0), "neuralef: no erratum; add one"),
        (lambda e: e.append({**e[0], "claim": "rkhs-finite"}), "rkhs-finite: its sentence holds"),
        (lambda e: e.append(e[0]), "neuralef: stands twice"),
        (lambda e: e[0].update(says=" "), "neuralef: says not written"),
        (lambda e: e[0].pop("repair"), "neuralef: repair not written"),
        (lambda e: e[0].update(figures=[]), "neuralef: no figure"),
        (lambda e: e[0]["figures"][0].update(line="joint"), "0 lines of evidence are called"),
        (lambda e: e[0]["figures"][0].update(line="let the gradient through"), "2 lines of"),
        (lambda e: e[0]["figures"][0].update(reads="0.2 more"), "should hold one {}"),
        (lambda e: e[-1].pop("title"), "title not written"),
        (lambda e: e[-1].update(claim="byol"), "byol is no claim"),
    ],
)
def test_a_planted_error_is_named_with_the_file_that_mends_it(claims, change, message):
    found = errata.problems(planted(change), claims)
    assert any(message in problem for problem in found), found
    assert all("edit cltheory/errata.yml" in problem for problem in found)


def test_a_new_doubt_asks_for_an_entry(claims):
    doubt = dataclasses.replace(claims["rkhs-finite"], of_source="false as stated")
    found = errata.problems(errata.entries(), claims | {"rkhs-finite": doubt})
    assert found == ["rkhs-finite: no erratum; add one: edit cltheory/errata.yml"]


def test_a_figure_is_what_the_run_measured(claims):
    row = claims["imbalance"]
    read = {"line": row.evidence[-1]["scope"], "reads": "by {} more"}
    line = {**row.evidence[-1], "measured": {"least": 0.4321, "margin": 0.1}}
    row = dataclasses.replace(row, evidence=[line])
    assert errata.reading(read, row) == "by **0.432** more (*counterexample*)"


def test_every_kind_of_line_has_a_number(claims):
    for row in claims.values():
        for line in row.evidence:
            if line["kind"] != "symbolic" and line["measured"]:
                assert errata.MEASURED[line["kind"]] in line["measured"]


def test_no_figure_of_a_run_is_typed():
    for entry in errata.entries():
        for part in errata.PARTS:
            assert "{}" not in entry[part]


def test_the_page_says_the_state_of_the_repair(claims):
    fails = dataclasses.replace(claims["neuralef"], status="fails")
    page = errata.markdown(errata.entries(), claims | {"neuralef": fails})
    assert "`neuralef`, which fails" in page
    assert "`imbalance`, which holds in this run" in page
    assert page.index("arXiv:2205.00165") < page.index("arXiv:2503.10812")
