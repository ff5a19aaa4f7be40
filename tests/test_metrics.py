"""Metrics against direct evaluation: loops over pairs, and a second optimiser."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from cltheory import metrics


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def blobs(n, classes, *, seed, dim=4, spread=1.0):
    """Overlapping clusters of unequal sizes, with columns of unequal scales and means."""
    labels = (classes * torch.rand(n, generator=seeded(seed)) ** 2).long()
    centres = spread * normal(classes, dim, seed=99)
    columns = torch.logspace(-2, 2, dim, dtype=torch.float64)
    return 5 * columns + columns * (centres[labels] + normal(n, dim, seed=seed + 1)), labels


def objective(x, labels, weight, bias, penalty):
    """Mean log loss and penalty, as documented."""
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels)
    return loss + penalty / 2 * weight.square().sum()


def fitted(x, labels, penalty):
    classes = int(labels.max()) + 1
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=2000, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = objective(x, labels, weight, bias, penalty)
        value.backward()
        return value

    optimizer.step(closure)
    return weight.detach(), bias.detach()


@pytest.fixture
def probes(monkeypatch):
    """Keep the classifiers that a probe makes, and the features they are fitted to."""
    made = []

    class Kept(metrics.LogisticRegression):
        def fit(self, x, y):
            made.append((self, torch.from_numpy(x), torch.from_numpy(y)))
            return super().fit(x, y)

    monkeypatch.setattr(metrics, "LogisticRegression", Kept)
    return made


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probe_minimises_the_documented_objective(classes, penalty, probes):
    x, labels = blobs(300, classes, seed=0)
    test, test_labels = blobs(200, classes, seed=7)
    accuracy = metrics.linear_probe(x, labels, test, test_labels, penalty=penalty)

    mean, std = x.mean(0), x.std(0, correction=0)
    weight, bias = fitted((x - mean) / std, labels, penalty)
    predicted = ((test - mean) / std @ weight.T + bias).argmax(1)
    assert accuracy == (predicted == test_labels).double().mean()

    probe, features, _ = probes[0]
    torch.testing.assert_close(features, (x - mean) / std)
    found = torch.from_numpy(probe.coef_), torch.from_numpy(probe.intercept_)
    if classes == 2:
        found = torch.cat([-found[0], found[0]]) / 2, torch.cat([-found[1], found[1]]) / 2
    free = [value.requires_grad_() for value in found]
    slopes = torch.autograd.grad(objective(features, labels, *free, penalty), free)
    assert max(slope.abs().max() for slope in slopes) < 2e-6
    torch.testing.assert_close(free[0].detach(), weight, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(free[1] - free[1].mean(), bias - bias.mean(), atol=2e-3, rtol=2e-3)


def test_the_bias_is_not_penalised():
    # Under a penalty that removes the weights, the commonest class wins by its bias.
    x, labels = blobs(200, 3, seed=0)
    commonest = int(labels.bincount().argmax())
    labels_of_test = torch.full((200,), commonest)
    assert metrics.linear_probe(x, labels, x, labels_of_test, penalty=1e6) == 1


def test_probe_ignores_shift_and_scale_of_columns():
    x, labels = blobs(200, 3, seed=0)
    test, test_labels = blobs(100, 3, seed=5)
    scale, shift = 1 + 9 * normal(4, seed=1).abs(), normal(4, seed=2)
    accuracy = metrics.linear_probe(x, labels, test, test_labels)
    moved = metrics.linear_probe(x * scale + shift, labels, test * scale + shift, test_labels)
    assert accuracy == moved


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_constant_columns_are_worth_nothing(dtype, probes):
    x, labels = blobs(200, 3, seed=0, spread=3.0)
    test, test_labels = blobs(100, 3, seed=5, spread=3.0)
    constant = torch.full((200, 2), 0.1, dtype=torch.float64)
    # A column that is constant up to rounding, and one that is constant in training alone.
    constant[:, 0] *= 1 + 2 * torch.finfo(dtype).eps * (torch.arange(200) % 2)
    wide = metrics.linear_probe(
        torch.cat([x, constant], 1).to(dtype),
        labels,
        torch.cat([test, 1e6 * normal(100, 2, seed=3)], 1).to(dtype),
        test_labels,
    )
    assert wide == metrics.linear_probe(x.to(dtype), labels, test.to(dtype), test_labels)
    assert probes[0][1][:, 4:].abs().max() == 0


def test_a_class_that_training_lacks_is_missed():
    x = torch.tensor([[-1.0], [1.0]])
    assert metrics.linear_probe(x, torch.tensor([3, 7]), x, torch.tensor([3, 8])) == 0.5


@pytest.mark.parametrize("label", [torch.uint8, torch.int32, torch.int64])
def test_probe_takes_what_training_leaves(label):
    x, labels = blobs(100, 3, seed=0)
    x = x.float().requires_grad_()
    accuracy = metrics.linear_probe(x, labels.to(label), x, labels.to(label))
    assert type(accuracy) is float
    assert 0.5 < accuracy <= 1


def test_an_unfinished_fit_is_announced(monkeypatch):
    class Hasty(metrics.LogisticRegression):
        def __init__(self, C=1.0, tol=1e-4, max_iter=100):
            super().__init__(C=C, tol=tol, max_iter=2)

    x, labels = blobs(100, 3, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.linear_probe(x, labels, x, labels)
    monkeypatch.setattr(metrics, "LogisticRegression", Hasty)
    with pytest.warns(ConvergenceWarning):
        metrics.linear_probe(x, labels, x, labels)


def double_loop(z1, z2):
    n = len(z1)
    distance = [[float((a - b).square().sum()) for b in z2.double()] for a in z1.double()]
    within = sum(distance[i][i] for i in range(n)) / n
    across = sum(distance[i][j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within / across


@pytest.mark.parametrize("n", [2, 3, 20])
@pytest.mark.parametrize("noise", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_invariance_is_the_double_loop(n, noise, offset):
    z1 = normal(n, 3)
    z2 = z1 + noise * normal(n, 3, seed=1) + offset
    assert metrics.invariance(z1, z2) == pytest.approx(double_loop(z1, z2), rel=1e-10)


def test_invariance_survives_a_large_common_offset():
    # Multiples of 1/64 near 2^16 are exact in float32; their squares are not.
    z1 = (64 * normal(50, 3)).round() / 64
    z2 = z1 + (8 * normal(50, 3, seed=1)).round() / 64
    far = metrics.invariance((z1 + 2**16).float(), (z2 + 2**16).float())
    assert far == pytest.approx(double_loop(z1, z2), rel=1e-5)


def test_invariance_sees_the_similarity_class_only():
    z1, z2 = normal(30, 3), normal(30, 3, seed=1)
    turn = torch.linalg.qr(normal(3, 3, seed=2)).Q
    moved = [5 * z @ turn + normal(3, seed=3) for z in (z1, z2)]
    assert metrics.invariance(*moved) == pytest.approx(metrics.invariance(z1, z2), rel=1e-10)


def test_extremes_of_invariance():
    z = normal(50, 3)
    assert metrics.invariance(z, z.clone()) == 0
    blind = metrics.invariance(normal(20_000, 5), normal(20_000, 5, seed=1))
    assert blind == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_invariance_in_low_precision(dtype):
    # In float16 the sum of the squares would overflow.
    z1 = (10 * normal(1000, 4)).to(dtype)
    z2 = (z1 + normal(1000, 4, seed=1)).to(dtype).requires_grad_()
    value = metrics.invariance(z1, z2)
    assert type(value) is float
    distance = torch.cdist(z1.double(), z2.detach().double()).square()
    within = distance.trace() / 1000
    across = (distance.sum() - distance.trace()) / (1000 * 999)
    assert value == pytest.approx(float(within / across), rel=1e-4)


def test_invariance_does_not_depend_on_tiny_or_huge_units():
    z1, z2 = normal(30, 3), normal(30, 3, seed=1)
    for unit in (1e-100, 1e100):
        assert metrics.invariance(unit * z1, unit * z2) == pytest.approx(double_loop(z1, z2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_collapsed_features_are_named(dtype):
    z = torch.full((100, 3), 0.1, dtype=dtype)
    with pytest.raises(ValueError, match=r"z1 and z2 must differ across .* \(collapsed features\)"):
        metrics.invariance(z, z)
    if dtype != torch.float16:
        rounding = 1 + torch.finfo(dtype).eps * (torch.arange(100) % 3)[:, None]
        with pytest.raises(ValueError, match="collapsed features"):
            metrics.invariance(z * rounding.to(dtype), z)
    with pytest.raises(ValueError, match="collapsed features"):
        metrics.invariance(0 * z, 0 * z)


def test_two_points_that_are_swapped_have_no_distance_across():
    for seed in range(20):
        z = normal(2, 3, seed=seed)
        for other in (z.flip(0), z.flip(0) * (1 + 2**-51)):
            with pytest.raises(ValueError, match="z1 and z2 must differ across pairs"):
                metrics.invariance(z, other)


def test_makes_nothing_on_the_default_device():
    x, labels = blobs(60, 3, seed=0)
    torch.set_default_device("meta")
    try:
        values = metrics.linear_probe(x, labels, x, labels), metrics.invariance(x, x + 1)
    finally:
        torch.set_default_device(None)
    assert values == (metrics.linear_probe(x, labels, x, labels), metrics.invariance(x, x + 1))
    assert np.isfinite(values).all()


X = torch.arange(12.0).reshape(4, 3)
Y = torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ((X[0], Y, X, Y), r"train must be a matrix with one point a row, got shape \(3,\)"),
        ((X, Y, X[:0], Y[:0]), r"test must hold at least 1 point\(s\), got shape \(0, 3\)"),
        ((X.long(), Y, X, Y), "train must hold floating-point numbers, got torch.int64"),
        ((X, Y, X / 0, Y), "test must be finite, got 12 NaN"),
        ((X, Y, X[:, :2], Y), "train and test must have the same columns, got 3 and 2"),
        ((X, Y[:2], X, Y), r"train_labels must hold one class for each of 4 points, .*\(2,\)"),
        (
            (X, Y, X, Y[:, None]),
            r"test_labels must hold one class for each of 4 points, .*\(4, 1\)",
        ),
        ((X, Y.double(), X, Y), "train_labels must hold integers, got torch.float64"),
        ((X, 0 * Y, X, Y), "train_labels must hold at least 2 classes, got 1"),
    ],
)
def test_probe_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        metrics.linear_probe(*call)


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.inf])
def test_penalty_refused(penalty):
    with pytest.raises(ValueError, match="penalty must be a finite number above 0"):
        metrics.linear_probe(X, Y, X, Y, penalty=penalty)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ((X[0], X[0]), r"z1 must be a matrix with one point a row, got shape \(3,\)"),
        ((X[:1], X[:1]), r"z1 must hold at least 2 point\(s\), got shape \(1, 3\)"),
        ((X, X / 0), "z2 must be finite, got 12 NaN"),
        ((X, X[:2]), r"z1 and z2 must have one shape and dtype, got \(4, 3\) .* and \(2, 3\)"),
        ((X, X.double()), "z1 and z2 must have one shape and dtype, .*float32 and .*float64"),
    ],
)
def test_invariance_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        metrics.invariance(*call)
