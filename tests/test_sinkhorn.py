"""Codes against the plain iterations, the transport problem that they solve, and its marginals."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import vmap
from torch.nn import functional

from cltheory import sinkhorn


def scores(b=12, k=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    z, c = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (b, k))
    return (functional.normalize(z, dim=1) @ functional.normalize(c, dim=1).T).to(dtype)


def by_loops(s, eps, iterations):
    """Columns to one, then rows to one, on the exponentials, in Python's floats."""
    q = [[math.exp(entry / eps) for entry in row] for row in s.tolist()]
    b, k = len(q), len(q[0])
    for _ in range(iterations):
        for j in range(k):
            total = math.fsum(q[i][j] for i in range(b))
            for i in range(b):
                q[i][j] /= total
        q = [[entry / math.fsum(row) for entry in row] for row in q]
    if not iterations:
        q = [[entry / math.fsum(row) for entry in row] for row in q]
    return torch.tensor(q, dtype=torch.float64)


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("eps", [0.05, 0.3, 2.0])
@pytest.mark.parametrize(("b", "k"), [(1, 2), (12, 5), (3, 8)])
def test_codes_are_those_of_the_plain_iterations(b, k, eps, iterations):
    s = scores(b, k)
    found = sinkhorn.codes(s, eps=eps, iterations=iterations)
    torch.testing.assert_close(found, by_loops(s, eps, iterations), rtol=1e-11, atol=0)


def test_rows_are_exact_and_columns_are_in_the_limit():
    s = scores(48, 6)
    few, many = (sinkhorn.codes(s, iterations=n) for n in (3, 2000))
    for found in (few, many):
        torch.testing.assert_close(found.sum(1), torch.ones(48, dtype=torch.float64))
    torch.testing.assert_close(many.sum(0), torch.full((6,), 8.0, dtype=torch.float64))
    assert (few.sum(0) / 8 - 1).abs().max() > 0.1


def test_the_limit_solves_the_transport_problem():
    """No feasible change of the plan gains in <Q, S> + eps H(Q)."""
    s, eps = scores(8, 4), 0.5
    plan = sinkhorn.codes(s, eps=eps, iterations=1000) / 8

    def gain(q):
        return float((q * s).sum() - eps * (q * q.log()).sum())

    generator, best = torch.Generator().manual_seed(1), gain(plan)
    for _ in range(50):
        change = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        change -= change.mean(0)
        change -= change.mean(1, keepdim=True)
        moved = plan + 1e-3 * change * plan.min() / change.abs().max()
        assert gain(moved) < best
    assert gain(plan.softmax(0) / 4) < best - 1e-3


def test_scores_that_ignore_the_sample_give_equal_codes():
    s = scores(1, 5).repeat(7, 1)
    torch.testing.assert_close(sinkhorn.codes(s), torch.full((7, 5), 0.2, dtype=torch.float64))
    assert sinkhorn.codes(s, iterations=0).max() > 0.5


@pytest.mark.parametrize("eps", [0.05, 0.01, 1e-3])
def test_single_precision_where_exponentials_overflow(eps):
    s = scores(300, 20, dtype=torch.float32)
    s[0] = 1.0
    s[:, 0] = -1.0  # a prototype far from all samples
    s[5:9] = -1.0  # samples far from all prototypes
    if eps < 0.05:
        assert not (s / eps).exp().isfinite().all() or (s / eps).exp().min() == 0
    found = sinkhorn.codes(s, eps=eps)
    exact = sinkhorn.codes(s.double(), eps=eps)
    # Scores are known to 6e-8, logits to 6e-8 / eps.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6 + 1e-6 / eps)
    torch.testing.assert_close(found.sum(1), torch.ones(300))


def test_blocks_do_not_show(monkeypatch):
    s = scores(50, 7)
    whole = sinkhorn.codes(s)
    for size in (1, 30):
        monkeypatch.setitem(sinkhorn.BLOCK, "cpu", size)
        torch.testing.assert_close(sinkhorn.codes(s), whole, rtol=1e-13, atol=0)


def test_derivatives_and_transforms():
    s = scores(4, 3).requires_grad_()
    assert gradcheck(lambda s: sinkhorn.codes(s, eps=0.5), (s,), check_forward_ad=True)
    batch = torch.stack([scores(4, 3, seed) for seed in (1, 2)])
    expected = torch.stack([sinkhorn.codes(one) for one in batch])
    torch.testing.assert_close(vmap(sinkhorn.codes)(batch), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_to_single(dtype):
    s = scores(dtype=dtype)
    torch.testing.assert_close(sinkhorn.codes(s), sinkhorn.codes(s.float()), rtol=0, atol=0)


def test_where_the_default_device_holds_no_values():
    s = scores()
    expected = sinkhorn.codes(s)
    torch.set_default_device("meta")
    try:
        found = sinkhorn.codes(s)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": torch.zeros(3)}, r"scores must have one row a sample .* got shape \(3,\)"),
        ({"scores": torch.zeros(3, 1)}, r"at least two prototypes as columns, got shape \(3, 1\)"),
        ({"scores": torch.zeros(0, 3)}, "scores must have one row a sample"),
        ({"scores": torch.full((3, 3), math.nan)}, "scores must be finite, got 9"),
        ({"scores": torch.zeros(3, 3, dtype=torch.long)}, "scores must hold floating-point"),
        ({"eps": 0.0}, "eps must be a finite number above 0, got 0.0"),
        ({"eps": -0.1}, "eps must be a finite number above 0, got -0.1"),
        ({"iterations": -1}, "iterations must be an integer of at least 0, got -1"),
    ],
)
def test_bad_input(change, words):
    arguments = {"scores": scores(), **change}
    with pytest.raises(ValueError, match=words):
        sinkhorn.codes(arguments.pop("scores"), **arguments)
