"""Every rule of evidence: a case that must fail, and beside it one that must pass."""

import json
import math
import subprocess
import sys
from itertools import cycle

import pytest
import sympy as sp
import torch

from cltheory import checks
from cltheory.checks import EvidenceError, claim, exercise, observation
from cltheory.training import Record


def square(rng, *, factor=2.0):
    """(a + b)^2 - a^2 - b^2 - 2ab for draws in [1, 2]."""
    a, b = 1 + torch.rand(2, generator=rng, dtype=torch.float64)
    return (a + b) ** 2 - a**2 - b**2 - factor * a * b


def square_symbolic(*, factor=2):
    a, b = sp.symbols("a b")
    return (a + b) ** 2 - a**2 - b**2 - factor * a * b


def cauchy_schwarz(rng, *, constant=1.0):
    """Slack of |a.b| <= |a||b| at parallel vectors, where it is tight."""
    a = 1 + torch.rand(3, generator=rng, dtype=torch.float64)
    return constant * a.norm() * (2 * a).norm() - (a @ (2 * a)).abs()


def square_root_law(rng, *, divide=True):
    """Slope of the standard error of a mean against the sample size, in logarithms."""
    sizes = torch.tensor([16.0, 64.0, 256.0], dtype=torch.float64)
    spread = []
    for n in sizes.int().tolist():
        sums = torch.randn(400, n, generator=rng, dtype=torch.float64).sum(1)
        spread.append((sums / n if divide else sums).std())
    x = sizes.log() - sizes.log().mean()
    return (x * torch.stack(spread).log()).sum() / (x * x).sum()


GOOD_TWIN = {"factor": 1.5, "margin": 0.1}


def test_evidence_and_a_twin_that_is_refuted_pass(capsys):
    with exercise("square") as c:
        c.symbolic("every a, b", square_symbolic)
        c.twin("a wrong factor", factor=1, margin=0.1)
        c.numeric("draws in [1, 2]", square, cases=20, atol=1e-12)
        c.twin("a wrong factor", **GOOD_TWIN)
        c.bound("parallel vectors", cauchy_schwarz, cases=20)
        c.twin("a smaller constant", constant=0.9, margin=0.1)
        c.rate("400 means", square_root_law, band=(-0.6, -0.4))
        c.twin("forget to divide", divide=False, margin=0.5)
        c.counterexample("(a + b)^2 = a^2 + b^2", lambda rng: -square(rng, factor=4.0), margin=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "square | holds"
    assert [line.split(" | ")[1] for line in lines[:-1]] == [e.kind for e in c.evidence]
    assert not any(character.isdigit() for character in lines[0].split(" | ")[4])


def check_fails(match, *steps):
    """Run the steps on one block and require the error."""
    with pytest.raises(EvidenceError, match=match), exercise("broken") as c:
        for step in steps:
            step(c)


def holds(c):
    c.numeric("fine", square, cases=5, atol=1e-12)


def refuted(c):
    c.twin("fine", **GOOD_TWIN)


def test_no_evidence_fails():
    check_fails("^broken: no evidence$")


def test_no_twin_fails():
    check_fails("^broken: no twin: show that this check can fail$", holds)


def test_evidence_outside_its_tolerance_fails():
    check_fails("numeric", lambda c: c.numeric("", lambda rng: 2e-12, atol=1e-12), holds, refuted)
    check_fails("bound", lambda c: c.bound("", lambda rng: -1e-3), holds, refuted)
    check_fails("symbolic", lambda c: c.symbolic("", lambda: sp.Symbol("x")), holds, refuted)
    check_fails(
        "rate", lambda c: c.rate("", square_root_law, band=(-0.4, -0.3), seeds=5), holds, refuted
    )
    check_fails(
        "counterexample", lambda c: c.counterexample("", lambda r: 0.1, margin=1), holds, refuted
    )


def test_one_bad_case_among_many_fails():
    def sometimes(rng):
        return float(torch.rand(1, generator=rng) > 0.7)

    check_fails("numeric", lambda c: c.numeric("", sometimes, cases=30, atol=0.5), holds, refuted)


def test_a_twin_that_is_not_refuted_in_every_case_fails():
    def gap(rng, *, shift=0.0):
        return shift * float(torch.rand(1, generator=rng) > 0.3)

    check_fails(
        r"^broken: twin \(only sometimes off\): NOT refuted$",
        lambda c: c.numeric("", gap, cases=30, atol=1e-6),
        lambda c: c.twin("only sometimes off", shift=1.0, margin=0.5),
    )


def test_a_twin_refuted_by_less_than_its_margin_fails():
    check_fails("NOT refuted", holds, lambda c: c.twin("nearly", factor=1.99, margin=0.1))


def test_a_bounds_twin_must_violate_it():
    check_fails(
        "NOT refuted",
        lambda c: c.bound("", cauchy_schwarz, cases=5),
        lambda c: c.twin("a larger constant is no violation", constant=1.1, margin=0.01),
    )


def test_a_rates_twin_must_leave_the_band():
    check_fails(
        "NOT refuted",
        lambda c: c.rate("", square_root_law, band=(-0.6, -0.4), seeds=4),
        lambda c: c.twin("the same rate", divide=1, margin=0.5),
    )


def test_a_twin_must_call_the_claims_own_function():
    check_fails(
        "own evidence", holds, lambda c: c.twin("", of=cauchy_schwarz, constant=2.0, margin=1)
    )
    with exercise("own") as c:
        holds(c)
        c.bound("another", cauchy_schwarz, cases=5)
        c.twin("of the first", of=square, **GOOD_TWIN)


def test_a_twin_before_evidence_fails():
    check_fails("comes after", refuted)


def test_a_twin_changes_exactly_one_thing():
    check_fails("exactly one", holds, lambda c: c.twin("nothing", margin=1.0))

    def two(rng, *, a=0.0, b=0.0):
        return a + b

    check_fails(
        "exactly one",
        lambda c: c.numeric("", two, atol=1e-9),
        lambda c: c.twin("both", a=1.0, b=1.0, margin=0.5),
    )
    check_fails("keyword with a default", holds, lambda c: c.twin("", unknown=1.0, margin=1.0))
    check_fails(
        "at its default",
        holds,
        lambda c: c.twin("", factor=square.__kwdefaults__["factor"], margin=1.0),
    )


def test_a_crash_in_a_twin_is_no_refutation():
    with pytest.raises(TypeError), exercise("crash") as c:
        holds(c)
        c.twin("a word for a number", factor="two", margin=0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), []])
def test_nan_infinity_and_nothing_are_no_evidence(bad):
    check_fails("NaN or infinity|nothing", lambda c: c.numeric("", lambda rng: bad, atol=1.0))

    def gap(rng, *, value=0.0):
        return value

    check_fails(
        "NaN or infinity|nothing",
        lambda c: c.numeric("", gap, atol=1e-9),
        lambda c: c.twin("off by nonsense", value=bad, margin=1.0),
    )


def test_an_infinite_symbolic_twin_is_no_refutation():
    def expression(*, value=0):
        return sp.sympify(value)

    check_fails(
        "infinity",
        lambda c: c.symbolic("", expression),
        lambda c: c.twin("", value=sp.nan, margin=1.0),
    )


def test_a_margin_near_the_tolerance_fails():
    def gap(rng, *, shift=0.0):
        return shift

    loose = lambda c: c.numeric("", gap, atol=1e-3)  # noqa: E731
    check_fails("well above", loose, lambda c: c.twin("", shift=0.5, margin=0.09))
    with exercise("margin") as c:
        loose(c)
        c.twin("", shift=0.5, margin=0.1)


@pytest.mark.parametrize("atol", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_is_positive_and_finite(atol):
    said = f"^atol was {atol}; it should be positive and finite$"
    check_fails(said, lambda c: c.numeric("", square, atol=atol))
    check_fails(said, lambda c: c.bound("", cauchy_schwarz, atol=atol))
    figures = {"trained": 1.0, "untrained": 5.0, "theory": 1.0}
    check_fails(said, lambda c: c.observed("", **figures, atol=atol))


def test_a_loose_tolerance_is_reported(capsys):
    with exercise("loose") as c:
        c.numeric("", lambda rng, *, x=0.0: x + 1e-9, atol=1e-3)
        c.twin("", x=1.0, margin=0.5)
        c.numeric("", lambda rng, *, x=0.0: x + 1e-9, atol=1e-8)
    loose, _, tight = c.evidence
    assert loose.measured["loose"]
    assert not tight.measured["loose"]


def test_an_unknown_id_is_refused_by_name():
    with pytest.raises(ValueError, match=r"claim_id was 'no-such-claim'; .*rkhs-finite"):
        claim("no-such-claim")
    with pytest.raises(ValueError, match="claim_id"):
        observation("no-such-claim")
    assert claim("rkhs-finite").name == "rkhs-finite"


def test_an_observation_meets_the_theory_and_an_untrained_model_misses():
    with observation("rkhs-finite") as o:
        o.observed("", trained=[1.001, 2.0], untrained=[0.0, 0.0], theory=[1.0, 2.0], atol=0.01)
    assert o.evidence[0].measured["untrained"] == 2.0
    with pytest.raises(EvidenceError, match="FAILS"), observation("rkhs-finite") as o:
        o.observed("", trained=1.2, untrained=0.0, theory=1.0, atol=0.01)
    with pytest.raises(EvidenceError, match="untrained"), observation("rkhs-finite") as o:
        o.observed("", trained=1.0, untrained=1.05, theory=1.0, atol=0.01)
    with pytest.raises(EvidenceError, match="NaN"), observation("rkhs-finite") as o:
        o.observed("", trained=float("nan"), untrained=0.0, theory=1.0, atol=0.01)


def test_the_block_is_published_even_when_it_fails(capsys):
    check_fails("FAILS", lambda c: c.numeric("", lambda rng: 1.0, atol=1e-9), holds, refuted)
    assert capsys.readouterr().out.endswith("broken | FAILS\n")


def test_cases_come_from_one_stream_that_a_seed_moves(monkeypatch):
    def drawn(name):
        seen = []

        def gap(rng, *, shift=0.0):
            seen.append(float(torch.rand(1, generator=rng)))
            return shift

        with exercise(name) as c:
            c.numeric("", gap, cases=3, atol=1e-9)
            c.twin("", shift=1.0, margin=0.5)
        assert seen[:3] == seen[3:], "a twin sees the cases of its evidence"
        return seen[:3]

    first = drawn("stream")
    assert len(set(first)) == 3
    assert drawn("stream") == first
    assert drawn("other") != first
    with exercise("stream") as c:
        another = []
        c.numeric(
            "", lambda rng, *, x=0.0: another.append(torch.rand(1, generator=rng)) or x, atol=1
        )
        c.twin("", x=100.0, margin=100.0)
    assert float(another[0]) != first[0], "each function has its own"
    monkeypatch.setenv(checks.SEED_VARIABLE, "1")
    assert drawn("stream") != first


def test_symbolic_checks_need_neither_torch_nor_numpy():
    script = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
import sympy as sp
from cltheory.checks import claim
x = sp.Symbol("x")
def gap(*, c=2):
    return (x + 1) ** 2 - x**2 - c * x - 1
with claim("rkhs-finite") as check:
    check.symbolic("every x", gap)
    check.twin("a wrong factor", c=1, margin=1e-3)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("rkhs-finite | holds\n")


def test_importing_the_package_is_fast_and_brings_no_torch():
    script = "import time; t = time.perf_counter(); import cltheory, sys; " + (
        "print(time.perf_counter() - t, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *heavy = run.stdout.split()
    assert heavy == ["False", "False"]
    assert float(seconds) < 0.2


def test_two_channels_in_a_notebook(monkeypatch):
    """The compared text holds no measurement; the metadata holds all of it, as JSON."""
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    with exercise("channels") as c:
        c.numeric("draws", square, cases=5, atol=1e-12)
        c.twin("a wrong factor", **GOOD_TWIN)
    ((bundle,), options) = shown[0]
    assert bundle["text/plain"].splitlines()[0] == (
        "channels | numeric | draws, 5 cases | |gap| <= 1e-12 | holds"
    )
    block = json.loads(json.dumps(options["metadata"]))["cltheory"]
    assert block["holds"] is True
    assert 0.1 <= block["evidence"][1]["measured"]["least"] <= 2


def of_case(values):
    """An evidence function that gives one value of a list a case, in order, and again."""
    turn = cycle(values)

    def function(rng, *, shift=0.0):
        return next(turn) + shift

    return function


def test_evidence_holds_its_own_measurements():
    first, second = (checks.Evidence("twin", "", "", "refuted", holds=True) for _ in range(2))
    assert first.measured == second.measured == {}
    assert first.measured is not second.measured


def test_the_lines_of_every_kind():
    with exercise("lines") as c:
        c.symbolic("every a, b", square_symbolic)
        c.twin("a wrong factor", factor=1, margin=0.1)
        c.numeric("one draw", of_case([1e-13]), atol=1e-12)
        c.numeric("two draws", of_case([1e-13, -3e-13]), cases=2, atol=1e-12)
        c.twin("a shift", shift=0.5, margin=0.25)
        c.bound("one draw", of_case([0.5]))
        c.bound("two draws", of_case([0.5, 0.25]), cases=2, atol=1e-9)
        c.rate("sizes", of_case([1.0, 2.0, 3.0, 4.0, 5.0]), band=(1.5, 4.5), seeds=5)
        c.counterexample("a sentence", of_case([2.0]), margin=0.5)
        c.counterexample("a sentence", of_case([2.0, 3.0]), cases=2, margin=0.5)
        c.observed("a figure", trained=1.0, untrained=3.0, theory=1.0, atol=0.125)
    said = [(e.kind, e.scope, e.declared, e.verdict) for e in c.evidence]
    assert said == [
        ("symbolic", "every a, b", "simplifies to 0", "holds"),
        ("twin", "a wrong factor", "off by >= 0.1 in every case", "refuted"),
        ("numeric", "one draw", "|gap| <= 1e-12", "holds"),
        ("numeric", "two draws, 2 cases", "|gap| <= 1e-12", "holds"),
        ("twin", "a shift", "off by >= 0.25 in every case", "refuted"),
        ("bound", "one draw", "slack >= -1e-12", "holds"),
        ("bound", "two draws, 2 cases", "slack >= -1e-09", "holds"),
        ("rate", "sizes, 5 seeds", "central half in [1.5, 4.5]", "holds"),
        ("counterexample", "a sentence", "the sentence fails by >= 0.5", "holds"),
        ("counterexample", "a sentence, 2 cases", "the sentence fails by >= 0.5", "holds"),
        (
            "observed",
            "a figure",
            "within 0.125 of the theory, untrained off by >= 1.25",
            "holds",
        ),
    ]
    assert all(e.holds for e in c.evidence)
    assert [e.measured for e in c.evidence] == [
        {"left": ""},
        {
            "least": pytest.approx(c.evidence[1].measured["least"]),
            "margin": 0.1,
            "changes": "factor",
        },
        {"worst": 1e-13, "tolerance": 1e-12, "loose": False},
        {"worst": 3e-13, "tolerance": 1e-12, "loose": False},
        {"least": pytest.approx(0.5), "margin": 0.25, "changes": "shift"},
        {"least": 0.5, "tolerance": 1e-12},
        {"least": 0.25, "tolerance": 1e-9},
        {"median": 3.0, "interval": [2.0, 4.0], "range": [1.0, 5.0]},
        {"least": 2.0, "margin": 0.5},
        {"least": 2.0, "margin": 0.5},
        {"worst": 0.0, "untrained": 2.0, "tolerance": 0.125},
    ]


def test_evidence_on_the_edge_holds():
    with exercise("edge") as c:
        c.numeric("", of_case([-0.5]), atol=0.5)
        c.bound("", of_case([-0.5]), atol=0.5)
        c.rate("", of_case([1.0, 2.0, 3.0, 4.0, 5.0]), band=(2.0, 4.0), seeds=5)
        c.counterexample("", of_case([0.5]), margin=0.5)
        c.twin("", shift=-1.0, margin=0.5)
        c.observed("", trained=1.5, untrained=6.0, theory=1.0, atol=0.5)
    assert [e.measured["least"] for e in c.evidence if e.kind == "twin"] == [0.5]


def test_what_fails_says_so(capsys):
    check_fails(
        r"^broken: numeric \(far\): FAILS; bound \(below, 3 cases\): FAILS$",
        lambda c: c.numeric("far", of_case([-2.0]), atol=0.5),
        lambda c: c.bound("below", of_case([1.0, 1.0, -1.0]), cases=3, atol=0.5),
        holds,
        refuted,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "broken | numeric | far | |gap| <= 0.5 | FAILS"
    assert lines[-2].endswith("| changes factor | off by >= 0.1 in every case | refuted")


def test_what_is_left_of_a_symbolic_check():
    x, y = sp.symbols("x y")
    with pytest.raises(EvidenceError), exercise("left") as c:
        c.symbolic("", lambda *, d=0: [[x - x, y + d], sp.Matrix([[x]])])
    assert c.evidence[0].measured == {"left": "y; x"}
    with pytest.raises(EvidenceError), exercise("long") as c:
        c.symbolic("", lambda: sum(sp.Symbol(f"x{k}") for k in range(99)))
    assert len(c.evidence[0].measured["left"]) == 200
    with exercise("another routine") as c:
        c.symbolic("", lambda *, d=0: x + d, simplify=lambda entry: entry.subs(x, 0))
        c.twin("", d=1, margin=0.1)


def test_a_symbolic_twin_is_off_at_five_points():
    n, calls = sp.Symbol("n", integer=True, positive=True), []

    def expression(*, d=0):
        calls.append(d)
        return d * n

    with exercise("points") as c:
        c.symbolic("", expression)
        c.twin("", d=1, margin=0.5)
    assert calls == [0, 1, 1, 1, 1, 1]
    assert c.evidence[1].measured["least"] == min(checks.offset(n, case) for case in range(5))


@pytest.mark.parametrize(("worst", "atol", "loose"), [
    (0.0, 1e-12, False), (0.0, 1.01e-12, True), (1e-10, 1e-6, False), (1e-10, 1.01e-6, True),
])  # fmt: skip
def test_what_a_loose_tolerance_is(worst, atol, loose):
    with exercise("loose") as c:
        c.numeric("", of_case([worst]), atol=atol)
        c.twin("", shift=1.0, margin=0.5)
    assert c.evidence[0].measured["loose"] is loose


def test_a_rate_takes_eight_seeds_and_a_band():
    calls = []
    with exercise("rate") as c:
        c.rate("", lambda rng, *, x=1.0: calls.append(x) or x, band=(0.5, 1.5))
        c.twin("", x=3.0, margin=1.5)
    assert c.evidence[0].scope == ", 8 seeds"
    assert calls == [1.0] * 8 + [3.0] * 8
    assert c.evidence[1].measured["least"] == 1.5
    for band, seeds in (((0.5, 1.5), 3), ((1.0, 1.0), 8), ((2.0, 1.0), 8)):
        check_fails(
            "needs four seeds and a band",
            lambda c, b=band, s=seeds: c.rate("", of_case([1.0]), band=b, seeds=s),
        )
    with exercise("few") as c:
        c.rate("", of_case([1.0, 2.0]), band=(0.5, 2.5), seeds=4)
        c.twin("below as well as above", shift=-5.0, margin=3.5)
    assert c.evidence[1].measured["least"] == 3.5


def test_the_margin_of_a_rate_is_half_its_band():
    rate = lambda c: c.rate("", of_case([1.0]), band=(0.0, 2.0), seeds=4)  # noqa: E731
    check_fails("half the width of the band", rate, lambda c: c.twin("", shift=9.0, margin=0.99))
    with exercise("half") as c:
        rate(c)
        c.twin("", shift=9.0, margin=1.0)
    below = lambda c: c.rate("", of_case([-1.0]), band=(-2.0, 0.0), seeds=4)  # noqa: E731
    check_fails("should be >= 1, half", below, lambda c: c.twin("", shift=9.0, margin=0.99))


def test_a_margin_is_above_zero():
    symbolic = lambda c: c.symbolic("", square_symbolic)  # noqa: E731
    for margin in (0.0, -1.0, float("nan")):
        check_fails("well above", symbolic, lambda c, m=margin: c.twin("", factor=1, margin=m))
        check_fails(
            "margin was",
            lambda c, m=margin: c.counterexample("", of_case([1.0]), margin=m),
        )
    check_fails("atol was", lambda c: c.bound("", of_case([1.0]), atol=0.0))


def test_a_twin_is_of_the_latest_evidence():
    first, second = of_case([0.0]), of_case([1.0])
    with exercise("latest") as c:
        c.numeric("", first, atol=1e-9)
        c.bound("", second)
        c.twin("of the bound", shift=-3.0, margin=2.0)
        c.numeric("", first, atol=1e-9)
        c.twin("of the first again", shift=-3.0, margin=3.0)
    assert [e.measured["least"] for e in c.evidence if e.kind == "twin"] == [2.0, 3.0]


def test_an_observation_needs_no_twin_but_evidence():
    with pytest.raises(EvidenceError, match="no evidence"), observation("rkhs-finite"):
        pass
    with pytest.raises(EvidenceError, match="no twin"), exercise("none") as c:
        c.observed("", trained=1.0, untrained=5.0, theory=1.0, atol=0.1)
    with pytest.raises(EvidenceError, match="no twin"), claim("rkhs-finite") as c:
        c.observed("", trained=1.0, untrained=5.0, theory=1.0, atol=0.1)


def test_another_exception_passes_through_and_nothing_is_shown(capsys):
    with pytest.raises(ZeroDivisionError), exercise("through"):
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


def test_at_least_one_case():
    check_fails("cases was 0", lambda c: c.numeric("", of_case([0.0]), cases=0, atol=1e-9))
    calls = []
    with exercise("once") as c:
        c.numeric("", lambda rng, *, x=0.0: calls.append(x) or x, atol=1e-9)
        c.bound("", lambda rng, *, x=0.0: calls.append(x) or x)
        c.counterexample("", lambda rng, *, x=1.0: calls.append(x) or x, margin=0.5)
        c.twin("", x=-1.0, margin=0.5)
    assert calls == [0.0, 0.0, 1.0, -1.0]


def test_which_case_gave_nonsense():
    for bad, what in ((math.nan, "NaN or infinity"), ([], "nothing")):
        check_fails(
            rf"^broken: function\(\) gave {what} \(case 2\)$",
            lambda c, b=bad: c.numeric("", of_case_of([0.0, 0.0, b]), cases=3, atol=1.0),
        )


def of_case_of(values):
    calls = iter(values)

    def function(rng):
        return next(calls)

    return function


RUN = Record(
    chapter="mercer",
    name="mercer",
    config={"steps": 10},
    figures={"rest": 1.0, "untrained rest": 3.0},
    seeds=[4, 5],
    seconds=2.5,
    device="CPU, 2 threads",
    versions={"python": "3.11", "torch": "2", "cltheory": "1"},
    commit="unknown",
)


def test_a_recorded_run_is_judged_as_an_observation():
    with observation("rkhs-finite") as o:
        o.recorded("a run", RUN, {"steps": 10}, "rest", theory=1.125, atol=0.125)
        o.recorded("an older run", RUN, {"steps": 11}, "rest", theory=1.0, atol=0.125)
    first, second = o.evidence
    assert (first.kind, first.scope, first.verdict) == ("recorded", "a run", "holds")
    assert first.declared == "within 0.125 of the theory, untrained off by >= 1.25"
    assert first.measured == {
        "worst": 0.125,
        "untrained": 1.875,
        "tolerance": 0.125,
        "device": "CPU, 2 threads",
        "seconds": 2.5,
        "seeds": [4, 5],
        "versions": dict(RUN.versions),
        "commit": "unknown",
        "older": False,
    }
    assert second.measured["older"] is True
    with pytest.raises(EvidenceError, match="FAILS"), observation("rkhs-finite") as o:
        o.recorded("", RUN, {"steps": 10}, "rest", theory=1.5, atol=0.125)


def test_a_run_not_yet_recorded_holds_nothing_against_a_claim():
    with observation("rkhs-finite") as o:
        o.recorded("a run", None, {}, "rest", theory=1.0, atol=0.5)
    (line,) = o.evidence
    assert (line.kind, line.declared, line.verdict, line.holds, line.measured) == (
        "recorded",
        "within 0.5",
        "no recorded run yet",
        True,
        {},
    )


def test_what_a_notebook_is_told(monkeypatch):
    shown = []
    monkeypatch.setattr(checks, "show", lambda text, metadata: shown.append((text, metadata)))
    monkeypatch.setenv(checks.SEED_VARIABLE, "7")
    with claim("rkhs-finite") as c:
        holds(c)
        refuted(c)
    with observation("rkhs-finite") as o:
        o.observed("", trained=1.0, untrained=5.0, theory=1.0, atol=0.1)
    with pytest.raises(EvidenceError), exercise("alone") as e:
        holds(e)
    blocks = [metadata["cltheory"] for _, metadata in shown]
    assert [set(metadata) for _, metadata in shown] == [{"cltheory"}] * 3
    assert [(b["name"], b["role"], b["holds"], b["seed"]) for b in blocks] == [
        ("rkhs-finite", "claim", True, 7),
        ("rkhs-finite", "observation", True, 7),
        ("alone", "exercise", False, 7),
    ]
    assert all(0 <= block["seconds"] < 60 for block in blocks)
    assert set(blocks[0]) == {"name", "role", "holds", "seed", "seconds", "evidence"}
    assert blocks[0]["evidence"] == [vars(entry) for entry in c.evidence]
    assert shown[0][0].splitlines()[-1] == "rkhs-finite | holds"
    assert shown[2][0].splitlines()[-1] == "alone | FAILS"


def test_the_registry_is_the_file_and_says_every_id():
    assert checks.registry() is checks.registry()
    assert checks.registry()["nystrom"]["uses"] == ["rkhs-finite"]
    with pytest.raises(ValueError, match="should be one of") as raised:
        claim("no-such-claim")
    listed = str(raised.value).partition("one of ")[2].split(", ")
    assert listed == sorted(checks.registry())
