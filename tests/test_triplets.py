"""Triplet losses against a loop over triplets, their gradients against autograd."""

import math

import pytest
import torch

from cltheory import triplets

SETTINGS = [
    (kind, similarity, delta)
    for kind in triplets.KINDS
    for similarity, delta in (("dot", 0.0), ("cosine", 0.0), ("cosine", 0.3))
]


def normal(*shape, seed=0):
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


INDICES = torch.tensor([[0, 1, 2], [3, 1, 0], [2, 4, 4], [1, 0, 3]])
"""Triplets that share rows, one with a positive that is its own negative."""


def by_loop(f, indices, kind, similarity, delta):
    total = 0.0
    for a, p, q in indices.tolist():

        def s(g, h):
            inner = float(g @ h)
            if similarity == "dot":
                return inner
            return inner / math.sqrt((float(g @ g) + delta) * (float(h @ h) + delta))

        u = s(f[a], f[q]) - s(f[a], f[p])
        total += u if kind == "linear" else math.log1p(math.exp(u))
    return total / len(indices)


@pytest.mark.parametrize(("kind", "similarity", "delta"), SETTINGS)
def test_loss_is_its_formula(kind, similarity, delta):
    f = normal(5, 3)
    value = triplets.loss(f, INDICES, kind=kind, similarity=similarity, delta=delta)
    assert value.item() == pytest.approx(by_loop(f, INDICES, kind, similarity, delta), rel=1e-13)


@pytest.mark.parametrize(("kind", "similarity", "delta"), SETTINGS)
def test_gradient_is_that_of_autograd(kind, similarity, delta):
    f = normal(5, 3).requires_grad_()
    settings = {"kind": kind, "similarity": similarity, "delta": delta}
    (expected,) = torch.autograd.grad(triplets.loss(f, INDICES, **settings), f)
    torch.testing.assert_close(triplets.gradient(f, INDICES, **settings).detach(), expected)
    assert torch.autograd.gradcheck(lambda g: triplets.gradient(g, INDICES, **settings), f)


@pytest.mark.parametrize(("kind", "similarity", "delta"), SETTINGS)
def test_a_stack_has_a_loss_and_a_gradient_each(kind, similarity, delta):
    settings = {"kind": kind, "similarity": similarity, "delta": delta}
    stack = normal(2, 3, 5, 4)
    values = triplets.loss(stack, INDICES, **settings)
    slopes = triplets.gradient(stack, INDICES, **settings)
    assert values.shape == (2, 3)
    torch.testing.assert_close(values[1, 2], triplets.loss(stack[1, 2], INDICES, **settings))
    torch.testing.assert_close(slopes[1, 2], triplets.gradient(stack[1, 2], INDICES, **settings))


def test_the_matrix_is_that_of_the_linear_dot_loss():
    f, s = normal(5, 3), triplets.matrix(INDICES, 5)
    linear = {"kind": "linear", "similarity": "dot"}
    torch.testing.assert_close(-(f.T @ s @ f).trace(), triplets.loss(f, INDICES, **linear))
    torch.testing.assert_close(-2 * s @ f, triplets.gradient(f, INDICES, **linear))
    assert torch.equal(s, s.T)
    assert triplets.matrix(INDICES, 7, dtype=torch.float32).shape == (7, 7)


def test_disjoint_triplets_share_no_row():
    assert sorted(triplets.disjoint(5).flatten().tolist()) == list(range(15))


def test_zero_outputs():
    zero = torch.zeros(5, 3, dtype=torch.float64)
    softmax = {"kind": "softmax", "similarity": "cosine"}
    assert triplets.loss(zero, INDICES, **softmax, delta=0.1).item() == pytest.approx(math.log(2))
    assert triplets.gradient(zero, INDICES, **softmax, delta=0.1).abs().max() == 0
    assert triplets.loss(zero, INDICES, **softmax, delta=0.0).isnan()


def test_softmax_neither_overflows_nor_vanishes():
    f = torch.tensor([[1e3], [-1e3], [1e3]], dtype=torch.float64)
    dot = {"kind": "softmax", "similarity": "dot"}
    assert triplets.loss(f, triplets.disjoint(1), **dot).item() == pytest.approx(2e6)
    assert triplets.gradient(f, triplets.disjoint(1), **dot)[0].item() == pytest.approx(2e3)


def test_no_stray_allocation():
    f = normal(5, 3)
    torch.set_default_device("meta")
    try:
        assert triplets.loss(f, INDICES, delta=0.1).device.type == "cpu"
        assert triplets.gradient(f, INDICES, delta=0.1).device.type == "cpu"
        assert triplets.matrix(INDICES, 5).device.type == "cpu"
    finally:
        torch.set_default_device("cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hinge"}, r"kind must be one of \['linear', 'softmax'\], got 'hinge'"),
        ({"similarity": "cos"}, r"similarity must be one of \['dot', 'cosine'\], got 'cos'"),
        ({"delta": -0.1}, "delta must be at least 0, got -0.1"),
        ({"delta": math.nan}, "delta must be at least 0, got nan"),
        ({"triplets": torch.tensor([[0, 1, 5]])}, "from 0 to 4, got 5"),
        ({"triplets": torch.tensor([[0, -1, 2]])}, "from 0 to 4, got -1"),
        ({"triplets": torch.tensor([0, 1, 2])}, r"must have shape \(count, 3\), got shape \(3,\)"),
        ({"triplets": torch.tensor([[0.0, 1, 2]])}, "row numbers"),
        ({"f": normal(5)}, "f must have shape"),
    ],
)
@pytest.mark.parametrize("call", [triplets.loss, triplets.gradient])
def test_errors_say_what_is_wrong(call, change, message):
    with pytest.raises(ValueError, match=message):
        call(**{"f": normal(5, 3), "triplets": INDICES, **change})


def test_errors_of_the_matrix():
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        triplets.matrix(INDICES, 4)
    with pytest.raises(ValueError, match="count must be"):
        triplets.disjoint(0)
