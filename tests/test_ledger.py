"""How evidence is shown: words, the card, the ledger of all claims."""

import pytest

from cltheory import claims, ledger
from cltheory.checks import registry
from evidence import block, execute, line


def gathered(folder, *blocks):
    execute(folder, *blocks)
    chapter = claims.Chapter("chapter", "A chapter", "A part", "book/chapter.html")
    text = "\n".join(f"```{{prf:theorem}} On {claim}\n:label: {claim}\n```" for claim in registry())
    return claims.gather(folder, {chapter: text})


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
    page = ledger.markdown(gathered(tmp_path, block("mercer-min"), waiting))
    row = next(row for row in page.splitlines() if "`mercer-min` |" in row)
    assert "checked numerically" in row
    assert "recorded" not in row


def test_the_ledger_page_names_every_claim_with_its_source(tmp_path):
    found = gathered(tmp_path, *map(block, registry()))
    page = ledger.markdown(found)
    assert page.startswith(f"**{len(found)} of {len(found)} claims hold**")
    for claim, entry in registry().items():
        assert f"{{prf:ref}}`{claim}`" in page
        assert entry["source"] in page
    assert "✗" not in page


def test_a_card_shows_nothing_that_another_run_of_the_same_code_would_change():
    slow = {**block("rkhs-finite"), "seconds": 98.7}
    assert ledger.card(slow).astext() == ledger.card(block("rkhs-finite")).astext()
    reseeded = {**block("rkhs-finite"), "seed": 7}
    assert "Seed 7." in ledger.card(reseeded).astext()
