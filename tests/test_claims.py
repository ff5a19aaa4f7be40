"""The one object that pages and claims.json are made from: status, schema, loader."""

import json

import jsonschema
import pytest

import chapters
from cltheory import claims
from cltheory.checks import registry
from evidence import block, execute, line

CHAIN = [
    "rkhs-finite",
    "kpca-mds-eckart-young",
    "neuralef",
    "neural-eigenmap",
]  # each uses the last


def gathered(folder, *blocks):
    execute(folder, *blocks)
    return claims.gather(folder, {})


def descendants(claim):
    """Follow the edges forward, as long as a claim is added; the registry alone is asked."""
    found = {claim}
    while more := {
        user
        for user, entry in registry().items()
        if found & set(entry["uses"]) and user not in found
    }:
        found |= more
    return found - {claim}


def test_status_is_computed_from_the_evidence(tmp_path):
    found = gathered(tmp_path, block("rkhs-finite"), block("representer", holds=False))
    assert found["rkhs-finite"].status == "holds"
    assert found["representer"].status == "fails"
    assert found["mercer-min"].status == "not run"
    assert [claim.id for claim in found] == list(registry())


def test_a_claim_holds_only_if_all_that_it_uses_holds(tmp_path):
    assert gathered(tmp_path, *map(block, CHAIN))["neural-eigenmap"].status == "holds"
    found = gathered(tmp_path, block(CHAIN[0], holds=False), *map(block, CHAIN[1:]))
    assert [found[c].status for c in CHAIN] == ["fails", *["leans on rkhs-finite"] * 3]
    assert gathered(tmp_path, *map(block, CHAIN[1:]))["neuralef"].status == "leans on rkhs-finite"


@pytest.mark.parametrize("planted", ["rkhs-finite", "ntk-two-layer-closed-form", "imbalance"])
def test_a_planted_failure_takes_the_green_from_its_descendants_and_no_other(tmp_path, planted):
    found = gathered(tmp_path, *[block(c, holds=c != planted) for c in registry()])
    below = descendants(planted)
    for claim in found:
        expected = "fails" if claim.id == planted else f"leans on {planted}"
        assert claim.status == (expected if claim.id in below | {planted} else "holds")


def test_an_observation_alone_is_no_check_and_can_bring_a_claim_down(tmp_path):
    seen = block("mercer-min", "observation")
    assert gathered(tmp_path, seen)["mercer-min"].status == "not run"
    seen["holds"] = False
    assert gathered(tmp_path, block("mercer-min"), seen)["mercer-min"].status == "fails"


def test_exercises_are_no_evidence_for_claims(tmp_path):
    assert gathered(tmp_path, block("mercer-min", "exercise"))["mercer-min"].status == "not run"
    wrong = block("mercer-min", "exercise", holds=False)
    found = gathered(tmp_path, block("mercer-min"), wrong)["mercer-min"]
    assert found.status == "holds"
    assert found.evidence == block("mercer-min")["evidence"]


def test_used_by_is_uses_turned_round():
    found = chapters.claims()
    forward = {(claim.id, used) for claim in found for used in claim.uses}
    assert forward == {(user, claim.id) for claim in found for user in claim.used_by}
    assert forward == {(c, used) for c, entry in registry().items() for used in entry["uses"]}


def test_titles_are_those_of_theorems_that_carry_a_label():
    text = "````{prf:theorem} On $M=2$\n:label: nystrom\n````\n```{prf:lemma} No\n:label: x\n```"
    assert claims.theorems(text) == {"nystrom": "On $M=2$"}


def test_the_export_is_valid_and_comes_back_as_it_was(tmp_path):
    found = chapters.claims()
    content = json.loads(found.to_json())
    jsonschema.Draft202012Validator.check_schema(claims.schema())
    jsonschema.validate(content, claims.schema())
    path = tmp_path / "claims.json"
    path.write_text(found.to_json(), encoding="utf-8")
    assert claims.load(path) == found
    assert claims.load(path).to_json() == found.to_json()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["claims"][0].update(status="ok"),
        lambda c: c["claims"][0].pop("source"),
        lambda c: c["claims"][0].update(number="1.1"),
        lambda c: c["claims"][0]["evidence"][0].update(kind="guessed"),
        lambda c: c.update(commit="main"),
        lambda c: c.update(schema_version=2),
    ],
)
def test_the_schema_refuses_what_it_does_not_describe(tmp_path, change):
    content = json.loads(gathered(tmp_path, block("rkhs-finite")).to_json())
    jsonschema.validate(content, claims.schema())
    change(content)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, claims.schema())


def test_every_kind_of_evidence_and_every_status_fits_the_schema(tmp_path):
    from cltheory.ledger import WORDS

    mixed = block("rkhs-finite")
    mixed["evidence"] = [line(kind) for kind in WORDS]
    found = gathered(tmp_path, mixed, block("representer", holds=False), *map(block, CHAIN[2:]))
    statuses = {claim.status.partition(" on ")[0] for claim in found}
    assert statuses == {"holds", "fails", "not run", "leans"}
    jsonschema.validate(json.loads(found.to_json()), claims.schema())


def test_the_loader_refuses_another_version_and_says_what_mends_it(tmp_path):
    path = tmp_path / "claims.json"
    for content in ({"schema_version": 9, "versions": {}}, []):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"schema_version .* should be 1\. Install"):
            claims.load(path)


def test_an_unknown_id_is_named(tmp_path):
    with pytest.raises(KeyError, match=r"'nothing'; it should be one of .*rkhs-finite"):
        gathered(tmp_path)["nothing"]


def test_a_number_that_json_does_not_know_is_refused(tmp_path):
    bad = block("rkhs-finite")
    bad["evidence"][0]["measured"] = {"worst": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        gathered(tmp_path, bad).to_json()
