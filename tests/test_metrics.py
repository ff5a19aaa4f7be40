"""Metrics against direct evaluation: loops over pairs, and a second optimiser."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from sklearn.exceptions import ConvergenceWarning

from cltheory import kernels, metrics, sphere


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


def test_the_penalty_that_is_not_given(probes):
    x, labels = blobs(100, 3, seed=0)
    metrics.linear_probe(x, labels, x, labels)
    strength = 1 / probes[0][0].C
    assert strength == pytest.approx(1e-3 * 100)


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
    units = torch.tensor([1e-12, 1.0, 1e12, 1.0], dtype=torch.float64)
    assert accuracy == metrics.linear_probe(x * units, labels, test * units, test_labels)


def test_a_column_of_zeros_is_worth_nothing():
    x, labels = blobs(100, 3, seed=0)
    wide = torch.nn.functional.pad(x, (0, 1))
    accuracy = metrics.linear_probe(wide, labels, wide, labels)
    assert accuracy == metrics.linear_probe(x, labels, x, labels)


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


def test_a_long_fit_is_finished(probes):
    x = normal(300, 1, seed=1) + 0.1 * normal(300, 40, seed=2)
    labels = (x[:, 0] > x[:, 1] + 0.05 * normal(300, seed=3)).long() + (x[:, 2] > x[:, 3]).long()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.linear_probe(x, labels, x, labels, penalty=1e-5)
    assert probes[0][0].n_iter_ > 100


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
        values = everything(x, labels)
    finally:
        torch.set_default_device(None)
    assert values == everything(x, labels)
    assert np.isfinite(values).all()


def everything(x, labels):
    z = torch.nn.functional.normalize(x, dim=1)
    return (
        metrics.linear_probe(x, labels, x, labels),
        metrics.invariance(x, x + 1),
        float(metrics.alignment(z, z.flip(0))),
        float(metrics.uniformity(z)),
        float(metrics.mmd(z, kernels.riesz(-1.0))),
        float(metrics.effective_rank(z)),
        metrics.wasserstein_uniformity(z),
    )


def unit(n, dim, seed=0):
    return torch.nn.functional.normalize(normal(n, dim, seed=seed), dim=1)


def test_alignment_and_uniformity_are_the_double_loop():
    z, other = unit(7, 3), unit(7, 3, seed=1)
    gaps = [float((z[i] - other[i]).square().sum()) for i in range(7)]
    assert float(metrics.alignment(z, other)) == pytest.approx(sum(gaps) / 7)
    potentials = [
        math.exp(-3.0 * float((z[i] - z[j]).square().sum())) for i in range(7) for j in range(i)
    ]
    expected = math.log(sum(potentials) / 21)
    assert float(metrics.uniformity(z, t=3.0)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("t", [0.5, 2.0, 30.0, 170.0])
def test_uniformity_at_the_simplex_in_both_precisions(t):
    for n, dim in ((2, 2), (4, 3), (9, 12)):
        z = sphere.simplex(n, dim)
        expected = -2 * t * n / (n - 1)
        assert float(metrics.uniformity(z, t)) == pytest.approx(expected, rel=1e-12)
        assert float(metrics.uniformity(z.float(), t)) == pytest.approx(expected, rel=1e-5)


def test_uniformity_of_uniform_points_and_of_one():
    z = sphere.uniform(3000, 5, generator=seeded())
    expected = -4 + math.log(float(special.hyp0f1(2.5, 4.0)))
    assert float(metrics.uniformity(z)) == pytest.approx(expected, abs=2e-3)
    assert float(metrics.uniformity(z[:1].repeat(5, 1))) == 0
    assert float(metrics.alignment(z, z)) == 0


def test_alignment_of_a_single_pair():
    z = torch.eye(3)
    assert float(metrics.alignment(z[:1], z[1:2])) == pytest.approx(2)


def test_metrics_that_serve_as_losses_have_a_gradient():
    z = unit(6, 3).requires_grad_()
    for value in (
        metrics.alignment(z, z.detach().flip(0)),
        metrics.uniformity(z),
        metrics.mmd(z, kernels.riesz(-1.0)),
        metrics.effective_rank(z),
    ):
        (slope,) = torch.autograd.grad(value, z)
        assert slope.isfinite().all()
        assert slope.norm() > 0


def test_mmd_is_the_distance_of_two_samples_in_the_limit():
    """Against the usual three-term estimate, with a large uniform sample for the uniform law."""
    z, many = (
        unit(40, 3) + torch.tensor([0.5, 0.0, 0.0]),
        sphere.uniform(4000, 3, generator=seeded()),
    )
    z, many = torch.nn.functional.normalize(z, dim=1), torch.cat([many, -many])
    for kernel in (kernels.riesz(-1.0), kernels.gaussian(2.0)):
        off = ~torch.eye(40, dtype=torch.bool)
        within = kernel(z @ z.T)[off].mean()
        far = ~torch.eye(8000, dtype=torch.bool)
        theirs = kernel(many @ many.T)[far].mean()
        three = within - 2 * kernel(z @ many.T).mean() + theirs
        assert float(metrics.mmd(z, kernel)) == pytest.approx(float(three), abs=0.01)
        assert abs(float(metrics.mmd(many, kernel))) < 2e-3


def test_mmd_of_the_gaussian_ranks_like_uniformity():
    z = unit(30, 4)
    expected = math.exp(float(metrics.uniformity(z))) - sphere.mean(kernels.gaussian(2.0), 4)
    assert float(metrics.mmd(z, kernels.gaussian(2.0))) == pytest.approx(expected, rel=1e-10)


def test_effective_rank_of_known_spectra():
    assert float(metrics.effective_rank(sphere.simplex(6, 9))) == pytest.approx(5)
    assert float(metrics.effective_rank(sphere.cross_polytope(4))) == pytest.approx(4)
    assert float(metrics.effective_rank(torch.ones(5, 3))) == pytest.approx(1)
    values = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    q1, q2 = (torch.linalg.qr(normal(8, 3, seed=s)).Q for s in (1, 2))
    p = (values / values.sum()).numpy()
    expected = math.exp(stats.entropy(p))
    assert float(metrics.effective_rank(q1 @ torch.diag(values) @ q2.T)) == pytest.approx(expected)


def test_effective_rank_has_no_unit():
    z = normal(8, 3, seed=1)
    for unit_ in (1e-150, 1e-6, 1e150):
        assert float(metrics.effective_rank(unit_ * z)) == pytest.approx(
            float(metrics.effective_rank(z))
        )


def test_effective_rank_of_half_precision():
    z = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float16))
    assert float(metrics.effective_rank(z)) == pytest.approx(3 / 2 ** (2 / 3))


def test_effective_rank_has_a_gradient_where_a_singular_value_is_zero():
    z = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(metrics.effective_rank(z), z)
    shares = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    expected = metrics.effective_rank(z).detach() * (-shares.log() - stats.entropy(shares)) / 3
    torch.testing.assert_close(slope.diagonal()[:2], expected)
    assert slope.isfinite().all()


def area(t, dim):
    """Area between a step function and the law, piece by piece and by quadrature of the density."""
    constant = special.gamma(dim / 2) / (math.sqrt(math.pi) * special.gamma((dim - 1) / 2))

    def cdf(x):
        half, _ = integrate.quad(lambda a: math.sin(a) ** (dim - 2), 0, math.acos(x))
        return 1 - constant * half

    ends = [-1.0, *sorted(t), 1.0]
    total = 0.0
    for k, (low, high) in enumerate(itertools.pairwise(ends)):
        level = k / len(t)
        piece, _ = integrate.quad(lambda x, c=level: abs(c - cdf(x)), low, high, limit=200)
        total += piece
    return total


@pytest.mark.parametrize(("n", "dim"), [(2, 2), (3, 2), (4, 3), (5, 4), (4, 9)])
def test_wasserstein_is_the_area_between_the_distribution_functions(n, dim):
    z = unit(n, dim, seed=n)
    t = [float(z[i] @ z[j]) for i in range(n) for j in range(i)]
    assert metrics.wasserstein_uniformity(z) == pytest.approx(area(t, dim), abs=1e-7)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_wasserstein_of_points_whose_products_round_beyond_one(sign):
    row = next(row for row in unit(200, 5) if row @ row > 1)
    z = torch.stack([row, sign * row, row])
    t = [sign, 1.0, sign]
    assert metrics.wasserstein_uniformity(z) == pytest.approx(area(t, 5), abs=1e-7)


def test_wasserstein_by_any_chunk_and_block(monkeypatch):
    z = torch.nn.functional.normalize(normal(60, 5) + 0.1, dim=1)
    expected = metrics.wasserstein_uniformity(z)
    for chunk, block in ((1, 1), (7, 3), (100, 10), (10**6, 10**6)):
        monkeypatch.setattr(metrics, "CHUNK", chunk)
        monkeypatch.setattr(metrics, "BLOCK", block)
        assert metrics.wasserstein_uniformity(z) == pytest.approx(expected, abs=1e-13)


def test_wasserstein_of_known_configurations():
    assert metrics.wasserstein_uniformity(sphere.simplex(4, 3)) == pytest.approx(5 / 9)
    assert metrics.wasserstein_uniformity(sphere.cross_polytope(3)) == pytest.approx(0.38)
    assert metrics.wasserstein_uniformity(torch.eye(3)[:1].repeat(9, 1)) == pytest.approx(1)
    quarter = 2 / math.pi - 0.5  # two orthogonal points in the plane: E|cos| of a uniform angle
    expected = quarter + 0.5
    assert metrics.wasserstein_uniformity(torch.eye(2)) == pytest.approx(expected)
    floors = [
        metrics.wasserstein_uniformity(sphere.uniform(n, 3, generator=seeded())) for n in (50, 800)
    ]
    assert floors[1] < floors[0] / 4


@pytest.mark.parametrize(
    "metric",
    [
        metrics.uniformity,
        metrics.wasserstein_uniformity,
        lambda z: metrics.mmd(z, kernels.riesz(-1.0)),
    ],
)
def test_metrics_of_unit_rows_refuse_others(metric):
    z = unit(5, 3)
    z[2] *= 1.25
    with pytest.raises(ValueError, match=r"z must have rows of norm 1, got one off by 0\.25"):
        metric(z)
    with pytest.raises(ValueError, match="z must hold at least 2"):
        metric(z[:1])
    with pytest.raises(ValueError, match="z must be a matrix"):
        metric(z[0])


def test_other_bad_input():
    with pytest.raises(ValueError, match="t must be above 0 and at most 170, got 200"):
        metrics.uniformity(unit(3, 2), 200)
    with pytest.raises(ValueError, match="t must be above 0 and at most 170, got 0"):
        metrics.uniformity(unit(3, 2), 0)
    with pytest.raises(ValueError, match=r"^z must be a matrix"):
        metrics.effective_rank(torch.zeros(3))
    with pytest.raises(ValueError, match="z must have a row that is not zero"):
        metrics.effective_rank(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="z1 and z2 must have one shape and dtype"):
        metrics.alignment(unit(3, 2), unit(4, 2))


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
