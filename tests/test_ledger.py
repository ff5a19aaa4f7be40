"""The pages that are made from evidence: status, words, the card."""

import json

import pytest

from cltheory import ledger
from cltheory.checks import registry


def line(kind="numeric", holds=True, **measured):
    defaults = {"worst": 1e-15, "tolerance": 1e-12, "loose": False}
    return {
        "kind": kind,
        "scope": "n = 8",
        "declared": "|gap| <= 1e-12",
        "verdict": "holds" if holds else "FAILS",
        "holds": holds,
        "measured": measured or defaults,
    }


def block(name, role="claim", holds=True):
    return {
        "name": name,
        "role": role,
        "holds": holds,
        "seed": 0,
        "seconds": 1.25,
        "evidence": [line(holds=holds), line("twin", least=0.5, margin=0.1, changes="shift")],
    }


def executed(folder, *blocks):
    outputs = [{"metadata": {"cltheory": b}} for b in blocks]
    cells = [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown"}]
    (folder / "chapter.ipynb").write_text(json.dumps({"cells": cells}))
    return {row.claim: row for row in ledger.ledger(folder)}


def test_status_is_computed_from_the_evidence(tmp_path):
    rows = executed(tmp_path, block("rkhs-finite"), block("representer", holds=False))
    assert rows["rkhs-finite"].status == "holds"
    assert rows["representer"].status == "fails"
    assert rows["mercer-min"].status == "not run"
    assert list(rows) == list(registry())


def test_a_claim_holds_only_if_all_that_it_uses_holds(tmp_path):
    """neural-eigenmap uses neuralef, which uses kpca-mds-eckart-young, which uses rkhs-finite."""
    chain = ["rkhs-finite", "kpca-mds-eckart-young", "neuralef", "neural-eigenmap"]
    assert executed(tmp_path, *map(block, chain))["neural-eigenmap"].status == "holds"
    rows = executed(tmp_path, block(chain[0], holds=False), *map(block, chain[1:]))
    assert [rows[claim].status for claim in chain] == ["fails", *["leans on rkhs-finite"] * 3]
    assert executed(tmp_path, *map(block, chain[1:]))["neuralef"].status == "leans on rkhs-finite"


def test_an_observation_alone_is_no_check_and_can_bring_a_claim_down(tmp_path):
    seen = block("mercer-min", "observation")
    assert executed(tmp_path, seen)["mercer-min"].status == "not run"
    seen["holds"] = False
    assert executed(tmp_path, block("mercer-min"), seen)["mercer-min"].status == "fails"


def test_exercises_are_no_evidence_for_claims(tmp_path):
    assert executed(tmp_path, block("mercer-min", "exercise"))["mercer-min"].status == "not run"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (8.9e-15, "8.9·10⁻¹⁵"),
        (1e-12, "10⁻¹²"),
        (-5.2e-15, "-5.2·10⁻¹⁵"),
        (3e20, "3·10²⁰"),
        (0.4721, "0.472"),
        (36.66, "36.7"),
    ],
)
def test_numbers_are_written_for_a_reader(value, written):
    assert ledger.figure(value) == written


def test_every_kind_of_evidence_has_words_and_a_sentence():
    measured = {
        "symbolic": {"left": ""},
        "numeric": {"worst": 1e-15, "tolerance": 1e-12, "loose": True},
        "bound": {"least": -1e-16, "tolerance": 1e-12},
        "rate": {"median": -0.5, "interval": [-0.52, -0.48], "range": [-0.6, -0.4]},
        "counterexample": {"least": 0.2, "margin": 0.1},
        "twin": {"least": 0.5, "margin": 0.1, "changes": "shift"},
        "observed": {"worst": 1e-4, "untrained": 1.0, "tolerance": 1e-3},
    }
    recorded = {"device": "CPU", "seconds": 12.0, "seeds": [0], "commit": "abc", "older": False}
    measured["recorded"] = measured["observed"] | recorded
    assert set(measured) == set(ledger.WORDS)
    sentences = {k: ledger.sentence(line(k, **m)) for k, m in measured.items()}
    assert len(set(sentences.values())) == len(sentences)
    assert "loose" in sentences["numeric"]
    assert "CPU" in sentences["recorded"]
    assert ledger.sentence({**line("recorded"), "measured": {}}) == "no recorded run yet"


def test_the_card_says_statement_checked_and_breaks_when():
    card = ledger.card(block("rkhs-finite"))
    text = card.astext()
    for words in ("✓ holds", "Statement", "rkhs-finite", "Checked", "checked numerically: n = 8"):
        assert words in text
    assert text.index("Checked") < text.index("Breaks when") < text.index("changes shift")
    assert "evidence-holds" in card["classes"]
    failed = ledger.card(block("rkhs-finite", holds=False))
    assert "✗ fails" in failed.astext()
    assert "evidence-fails" in failed["classes"]


def test_an_older_run_wears_a_badge():
    older = block("rkhs-finite", "observation")
    where = {"device": "CPU", "seconds": 1.0, "seeds": [0], "commit": "abc"}
    figures = {"worst": 1e-4, "untrained": 1.0, "tolerance": 1e-3}
    older["evidence"] = [line("recorded", **figures, **where, older=True)]
    assert "older run" in ledger.card(older).astext()
    older["evidence"] = [line("recorded", **figures, **where, older=False)]
    assert "older run" not in ledger.card(older).astext()


def test_the_renderer_takes_evidence_only():
    class Output:
        mime_type, output_metadata = "text/plain", {}

    assert ledger.EvidenceRenderer.handle_mime(None, Output, inline=False) is None
    Output.output_metadata = {"cltheory": block("rkhs-finite")}
    assert ledger.EvidenceRenderer.handle_mime(None, Output, inline=True) is None
    assert len(ledger.EvidenceRenderer.handle_mime(None, Output, inline=False)) == 1


def test_a_run_that_is_not_there_is_not_listed_as_evidence(tmp_path):
    waiting = block("mercer-min", "observation")
    waiting["evidence"] = [{**line("recorded"), "measured": {}}]
    rows = executed(tmp_path, block("mercer-min"), waiting)
    table = ledger.markdown([rows["mercer-min"]]).split(":::")[0]
    assert "checked numerically" in table
    assert "recorded" not in table


def test_the_ledger_page_names_every_claim_with_its_source(tmp_path):
    rows = executed(tmp_path, *map(block, registry()))
    page = ledger.markdown(list(rows.values()))
    assert page.startswith(f"**{len(rows)} of {len(rows)} claims hold**")
    for claim, entry in registry().items():
        assert f"{{prf:ref}}`{claim}`" in page
        assert entry["source"] in page
    assert "✗" not in page
