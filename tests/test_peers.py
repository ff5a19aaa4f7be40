"""The same numbers as the libraries that people use, and where theirs part from the formula.

The peers of the losses are an extra, ``pip install -e '.[peers]'``, of the weekly workflow.
"""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from sklearn import decomposition, linear_model, metrics, pipeline, preprocessing
from torch.nn import functional

from cltheory import kernels, losses, mercer, method_losses, sinkhorn, triplets
from cltheory.metrics import linear_probe

MEND = "compares with {}: pip install -e '.[peers]'"
SIZES = [(2, 3), (7, 4), (64, 16)]
TEMPERATURES = [0.05, 0.5, 2.0]


def peer(module):
    return pytest.importorskip(module, reason=MEND.format(module))


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def unit(rng, *shape):
    return functional.normalize(normal(rng, *shape), dim=-1)


def views(rng, size, noise=0.5):
    z1 = unit(rng, *size)
    return z1, functional.normalize(z1 + noise * normal(rng, *size), dim=1)


def assert_same(ours, theirs, leaves, rtol=1e-9):
    """Compare values and gradients."""
    leaves = [leaf.requires_grad_() for leaf in leaves]
    found, expected = ours(*leaves), theirs(*leaves)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=1e-11)


def tangent(loss):
    """The loss of the rows' directions: the peers normalise, so their gradients are tangent."""
    return lambda *z: loss(*(functional.normalize(one, dim=1) for one in z))


OF_A_PAIR = {
    "lightly NTXentLoss": (
        lambda t: peer("lightly.loss").NTXentLoss(temperature=t),
        lambda z1, z2, t: losses.nt_xent(z1, z2, temperature=t),
    ),
    "lightly DCLLoss": (
        lambda t: peer("lightly.loss").DCLLoss(temperature=t),
        lambda z1, z2, t: losses.dcl(z1, z2, temperature=t),
    ),
    "metric learning NTXentLoss": (
        lambda t: of_two_views(peer("pytorch_metric_learning.losses").NTXentLoss(temperature=t)),
        lambda z1, z2, t: losses.nt_xent(z1, z2, temperature=t),
    ),
    "InfoNCE": (
        lambda t: peer("info_nce").InfoNCE(temperature=t),
        lambda z1, z2, t: losses.info_nce(z1, z2, temperature=t),
    ),
    "lightly NegativeCosineSimilarity": (
        lambda t: peer("lightly.loss").NegativeCosineSimilarity(),
        lambda z1, z2, t: losses.negative_cosine(z1, z2),
    ),
}


def of_two_views(loss):
    return lambda z1, z2: loss(torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OF_A_PAIR)
def test_losses_of_a_pair_of_views(rng, name, size, temperature):
    theirs, ours = OF_A_PAIR[name]
    of_rows = tangent(lambda z1, z2: ours(z1, z2, temperature))
    assert_same(of_rows, theirs(temperature), views(rng, size))


@pytest.mark.parametrize("size", SIZES)
def test_losses_of_columns(rng, size):
    lightly = peer("lightly.loss")
    z1, z2 = (3 * z for z in views(rng, size))
    # Theirs is a mean over the entries, and half the sum over the views.
    weights = {"invariance": 25 / size[1], "variance": 12.5, "covariance": 1.0}
    assert_same(lambda *z: losses.vicreg(*z, **weights), lightly.VICRegLoss(), [z1, z2])
    # Batch norm adds 1e-5 to the variance: columns this large do not feel it.
    large = [1e6 * z.detach() for z in (z1, z2)]
    assert_same(losses.barlow_twins, lightly.BarlowTwinsLoss(), large)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("count", "dim"), SIZES)
def test_queue(rng, count, dim, temperature):
    loss = peer("lightly.loss").NTXentLoss(temperature=temperature, memory_bank_size=(32, dim))
    queries, keys = (z.float() for z in views(rng, (count, dim)))
    theirs = loss(queries, keys)
    queue = loss.memory_bank.bank  # drawn at the first call
    found = method_losses.moco(queries, keys, queue=queue, temperature=temperature)
    torch.testing.assert_close(found, theirs, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_classes(rng, temperature):
    loss = peer("pytorch_metric_learning.losses").SupConLoss(temperature=temperature)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 0])

    def ours(z):
        return method_losses.supcon(z, labels, temperature=temperature)

    assert_same(tangent(ours), lambda z: loss(z, labels), [unit(rng, 10, 4)])


def test_triplets(rng):
    theirs = peer("pytorch_metric_learning.losses").TripletMarginLoss(
        margin=0.0,
        smooth_loss=True,
        distance=peer("pytorch_metric_learning.distances").CosineSimilarity(),
        reducer=peer("pytorch_metric_learning.reducers").MeanReducer(),
    )
    picked = torch.tensor([[0, 1, 2], [1, 0, 4], [3, 2, 1], [5, 4, 0]])
    labels = torch.zeros(6, dtype=torch.long)
    assert_same(
        lambda z: triplets.loss(z, picked, kind="softmax", similarity="cosine"),
        lambda z: theirs(z, labels, tuple(picked.T)),
        [normal(rng, 6, 3)],
    )


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_codes(rng, iterations):
    theirs = peer("lightly.loss.swav_loss").sinkhorn
    scores = unit(rng, 40, 5) @ unit(rng, 12, 5).T
    found = sinkhorn.codes(scores, eps=0.05, iterations=iterations)
    torch.testing.assert_close(found, theirs(scores, iterations, 0.05), rtol=1e-9, atol=1e-14)


def test_swapped_prediction(rng):
    lightly = peer("lightly.loss")
    prototypes = unit(rng, 6, 5)
    assert_same(
        lambda z1, z2: method_losses.swav(z1, z2, prototypes=prototypes, temperature=0.1),
        lambda *z: lightly.SwaVLoss(0.1, 3, 0.05)([one @ prototypes.T for one in z], []).squeeze(),
        views(rng, (20, 5)),
    )


# Where they part from the formula, float32 as they are used.


def test_low_temperatures_cut_the_loss_of_metric_learning():
    """A negative at the anchor, its positive opposite: the loss is 2 / temperature."""
    loss = of_two_views(peer("pytorch_metric_learning.losses").NTXentLoss(temperature=1e-3))
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    theirs, ours = loss(z, -z), losses.nt_xent(z, -z, temperature=1e-3)
    assert float(ours) == pytest.approx(2000, rel=1e-6)
    assert float(theirs) == pytest.approx(-math.log(torch.finfo(torch.float32).tiny), rel=1e-3)


def test_a_small_cross_entropy_is_lost_in_float32(rng):
    """Near the optimum the loss is the logarithm of 1 plus little, which float32 rounds to 1."""
    theirs = peer("info_nce").InfoNCE(temperature=0.05)
    z = torch.eye(8)
    exact = math.log1p(7 * math.exp(-20))
    assert float(losses.info_nce(z, z, temperature=0.05)) == pytest.approx(exact, rel=1e-6)
    assert float(theirs(z, z)) == 0


def test_exponentials_of_sharp_scores_overflow():
    """exp(1 / 0.01) is beyond float32: their codes are not numbers, ours sum to 1."""
    theirs = peer("lightly.loss.swav_loss").sinkhorn
    scores = torch.eye(4)
    assert theirs(scores, 3, 0.01).isnan().any()
    found = sinkhorn.codes(scores, eps=0.01)
    torch.testing.assert_close(found.sum(1), torch.ones(4))


def test_batch_norm_shrinks_the_correlation_of_small_columns(rng):
    """At variance v a column's correlation with itself comes out as v / (v + 1e-5)."""
    theirs = peer("lightly.loss").BarlowTwinsLoss(lambda_param=0.0)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    z = 1e-3 * signs
    assert float(losses.barlow_twins(z, z)) == pytest.approx(0, abs=1e-10)
    expected = 2 * (1 - 1e-6 / (1e-6 + 1e-5)) ** 2
    assert float(theirs(z, z)) == pytest.approx(expected, rel=1e-4)


# scikit-learn and SciPy, which the package brings along.


@pytest.mark.parametrize("dim", [1, 3])
def test_kernels(rng, dim):
    x, y = normal(rng, 9, dim), normal(rng, 6, dim)
    pairwise = metrics.pairwise
    for ours, theirs in (
        (kernels.rbf(0.7), pairwise.rbf_kernel(x, y, gamma=1 / (2 * 0.7**2))),
        (kernels.polynomial(3, 0.5), pairwise.polynomial_kernel(x, y, 3, gamma=1, coef0=0.5)),
        (kernels.linear(), pairwise.linear_kernel(x, y)),
    ):
        np.testing.assert_allclose(kernels.gram(ours, x, y), theirs, rtol=1e-12)
    found = kernels.squared_distances(kernels.gram(kernels.linear(), x))
    np.testing.assert_allclose(found, pairwise.euclidean_distances(x) ** 2, atol=1e-12)
    centred = preprocessing.KernelCenterer().fit_transform((x @ x.T).numpy())
    np.testing.assert_allclose(kernels.centre(x @ x.T), centred, atol=1e-12)


@pytest.mark.parametrize("n", [8, 60])
def test_principal_components(rng, n):
    x = normal(rng, n, 5)
    gram = kernels.gram(kernels.rbf(1.0), x)
    theirs = decomposition.KernelPCA(4, kernel="precomputed").fit_transform(gram.numpy())
    ours = mercer.kernel_pca(gram, 4).numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    scores = decomposition.PCA(3, svd_solver="full").fit_transform(x.numpy())
    np.testing.assert_allclose(
        mercer.kernel_pca(x @ x.T, 3).abs().numpy(), np.abs(scores), atol=1e-9
    )


@pytest.mark.parametrize("n", [5, 200])
def test_top_eigenpairs(rng, n):
    factor = normal(rng, n, n)
    gram = factor @ factor.T
    values, vectors = scipy.linalg.eigh(gram.numpy(), subset_by_index=(n - 3, n - 1))
    ours = mercer.top_eigenpairs(gram, 3)
    np.testing.assert_allclose(ours[0], values[::-1], rtol=1e-10)
    np.testing.assert_allclose(ours[1].abs().numpy(), np.abs(vectors[:, ::-1]), atol=1e-7)


def test_hermite_functions(rng):
    x = normal(rng, 30)
    found = mercer.gauss_hermite(12, lengthscale=0.8, scale=1.3).eigenfunctions(x).numpy()
    a, b = 1 / (4 * 1.3**2), 1 / (2 * 0.8**2)
    c = math.sqrt(a**2 + 2 * a * b)
    for k in range(12):
        polynomial = scipy.special.eval_hermite(k, math.sqrt(2 * c) * x.numpy())
        constant = math.sqrt(math.sqrt(c / a) / (2**k * math.factorial(k)))
        expected = constant * np.exp(-(c - a) * x.numpy() ** 2) * polynomial
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dim", [3, 4, 8])
def test_gegenbauer_series(dim):
    """The zonal series with these eigenvalues is the kernel: the addition theorem."""
    found = mercer.funk_hecke(lambda t: torch.exp(2 * t), dim, 30)
    t, alpha = np.linspace(-1, 1, 21), dim / 2 - 1
    series = sum(
        float(value)
        * int(count)
        * scipy.special.eval_gegenbauer(k, alpha, t)
        / scipy.special.eval_gegenbauer(k, alpha, 1.0)
        for k, (value, count) in enumerate(
            zip(found.eigenvalues, found.multiplicities, strict=True)
        )
    )
    np.testing.assert_allclose(series, np.exp(2 * t), rtol=1e-10)


@pytest.mark.parametrize("classes", [2, 4])
def test_probe(rng, classes):
    centres = 2 * normal(rng, classes, 3)
    labels = torch.arange(120) % classes
    train, test = (centres[labels] + 1.5 * normal(rng, 120, 3) for _ in range(2))
    penalty = 0.01 / 2 if classes == 2 else 0.01
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(C=1 / (penalty * 120), solver="newton-cg", tol=1e-8),
    )
    theirs = model.fit(train.numpy(), labels.numpy()).score(test.numpy(), labels.numpy())
    assert linear_probe(train, labels, test, labels, penalty=0.01) == pytest.approx(theirs)
