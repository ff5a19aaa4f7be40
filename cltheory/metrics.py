r"""How good features are: numbers to report of a trained network.

Features are matrices with one point a row. Those that also serve as losses (`alignment`,
`uniformity`, `mmd`, `effective_rank`) are differentiable scalars, the others Python floats.

Each docstring ends with what the cards of the book show: the *range*, and the value at a *regular
simplex* of n points and at the *uniform law*, or in the limit of many uniform points.

References
----------
.. [1] Wang, T., & Isola, P. (2020). Understanding contrastive representation learning through
   alignment and uniformity on the hypersphere. arXiv:2005.10242. Formula numbers unknown.
.. [2] Koromilas, P., et al. (2024). Bridging mini-batch and asymptotic analysis in contrastive
   learning. arXiv:2405.18045. Formula number unknown.
.. [3] Roy, O., & Vetterli, M. (2007). The effective rank: a measure of effective dimensionality.
   EUSIPCO. Formula number unknown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cltheory import _validate, blockwise, sphere
from cltheory.kernels import Radial, gaussian

STEEPEST = 170.0
"""The largest `t` of `uniformity`: beyond, the potential of opposite points underflows."""
CHUNK = 2**20
"""Inner products that `wasserstein_uniformity` looks at together."""
BLOCK = 64
"""Inner products between two at which it evaluates the uniform law, where that tells enough."""

Array = npt.NDArray[np.float64]


def linear_probe(
    train: Float[Tensor, "n dim"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m dim"],
    test_labels: Int[Tensor, " m"],
    *,
    penalty: float = 1e-3,
) -> float:
    r"""Accuracy of a linear classifier on features, between 0 and 1.

    Multinomial logistic regression is fitted to the training features,

    .. math:: \min_{W, b}\; \frac 1 n \sum_{i=1}^n \Bigl(\log \sum_k e^{w_k^\top x_i + b_k}
       - w_{y_i}^\top x_i - b_{y_i}\Bigr) + \frac{\text{penalty}}2 \sum_k |w_k|^2,

    and scored on the test features. Columns are standardised first, both sets by the mean and
    standard deviation (over n) of the training features; a column that is constant in training, up
    to rounding, becomes zero.

    Parameters
    ----------
    train, test : Tensor
        Features, one point a row, on any device.
    train_labels, test_labels : Tensor
        Classes as integers; a class that only the test set has is always missed.
    penalty : float
        Coefficient of the squared weights; the bias is free. In scikit-learn's parameters,
        C = 1 / (penalty n), or twice that for two classes.

    Raises
    ------
    ValueError
        If features and labels do not fit, or the training set has one class only.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If L-BFGS stops before each derivative is below 1e-6: the accuracy is of an unfinished fit.

    Notes
    -----
    Range
        Between 0 and 1.
    Regular simplex
        :math:`1`, if each class has a vertex of its own.
    Uniform law
        :math:`1 / k` for k balanced classes that the features do not tell apart.

    Examples
    --------
    >>> x, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(x, labels, x, torch.tensor([0, 0, 1, 0]))
    0.75
    """
    for features, labels, name in ((train, train_labels, "train"), (test, test_labels, "test")):
        _require_matrix(features, name)
        _require_labels(labels, f"{name}_labels", len(features))
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"train and test must have the same columns, got {train.shape[1]} and {test.shape[1]}"
        )
    _validate.positive(penalty, "penalty")
    classes = len(torch.unique(train_labels))
    if classes < 2:
        raise ValueError("train_labels must hold at least 2 classes, got 1")
    # Of two classes scikit-learn fits w = w_1 - w_0 only, and |w|² = 2 (|w_0|² + |w_1|²).
    strength = penalty / 2 if classes == 2 else penalty
    probe = LogisticRegression(C=1 / (strength * len(train)), tol=1e-6, max_iter=10_000)
    fitted, scored = _standardised(train, test)
    probe.fit(fitted.numpy(), train_labels.cpu().numpy())
    return float(probe.score(scored.numpy(), test_labels.cpu().numpy()))


def invariance(z1: Float[Tensor, "n dim"], z2: Float[Tensor, "n dim"]) -> float:
    r"""Ratio of mean squared distances within positive pairs and across different pairs.

    .. math:: \frac{\frac 1 n \sum_i |z^1_i - z^2_i|^2}
       {\frac 1 {n (n - 1)} \sum_{i \ne j} |z^1_i - z^2_j|^2}

    It is unchanged by translation, rotation and scaling of the features. The cost is O(n d): with
    means :math:`m` and mean squared deviations :math:`v` of the two views,
    :math:`\sum_{i, j} |z^1_i - z^2_j|^2 = n^2 (v_1 + v_2 + |m_1 - m_2|^2)`.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.

    Raises
    ------
    ValueError
        If the two do not fit, hold one pair only, or are collapsed: no distance across pairs, up to
        rounding.

    Notes
    -----
    Range
        At least 0, which is met by invariant features, without an upper bound.
    Regular simplex
        :math:`0`, with equal views.
    Uniform law
        :math:`0` with equal views; about 1 for views that do not show which belong together.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> invariance(z, z), round(invariance(z, z + 1), 4)
    (0.0, 0.4286)
    """
    _require_pairs(z1, z2, least=2)
    n, dtype = len(z1), torch.promote_types(z1.dtype, torch.float32)
    z1, z2 = z1.detach().to(dtype), z2.detach().to(dtype)
    # From one of the points, constant features are exactly zero, and near ones keep their digits.
    a, b = z1 - z1[0], z2 - z1[0]
    gap = (a.mean(0) - b.mean(0)).square().sum()
    everyone = a.var(0, correction=0).sum() + b.var(0, correction=0).sum() + gap
    within = (a - b).square().sum(1).mean()
    across = (n * everyone - within) / (n - 1)
    rounding = 10 * torch.finfo(dtype).eps
    if not across > rounding * everyone + rounding**2 * z1.square().sum(1).mean():
        raise ValueError(
            "z1 and z2 must differ across pairs, got a mean squared distance of "
            f"{float(across):.3g} (collapsed features)"
        )
    return float(within / across)


def alignment(z1: Float[Tensor, "n dim"], z2: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    r"""Mean squared distance of positive pairs [1]_, :math:`\frac 1 n \sum_i |z^1_i - z^2_i|^2`.

    Raises
    ------
    ValueError
        If the two do not fit.

    Notes
    -----
    Range
        Between 0, if and only if all pairs coincide, and 4 for unit rows.
    Regular simplex
        :math:`0`, with equal views.
    Uniform law
        :math:`0` with equal views, :math:`2` with independent ones.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> alignment(z, z), alignment(z, z.flip(0))
    (tensor(0.), tensor(2.))
    """
    _require_pairs(z1, z2)
    return (z1 - z2).square().sum(1).mean()


def uniformity(z: Float[Tensor, "n dim"], t: float = 2.0) -> Float[Tensor, ""]:
    r"""Logarithm of the mean Gaussian potential of pairs [1]_.

    .. math:: \log \frac 2 {n (n - 1)} \sum_{i < j} e^{-t |z_i - z_j|^2}

    The memory is O(n d).

    Parameters
    ----------
    z : Tensor
        Unit rows.
    t : float
        Steepness, above 0 and at most 170.

    Raises
    ------
    ValueError
        If there are fewer than two points, a row is not of norm 1, or `t` is out of range.

    Notes
    -----
    Range
        Between :math:`-4t`, two opposite points, and 0, if all points coincide.
    Regular simplex
        :math:`-2 t n / (n - 1)`, the least value for :math:`2 \le n \le d + 1` points.
    Uniform law
        :math:`-2 t + \log {}_0F_1(; \tfrac d2; t^2)`, the least value of a law. A simplex is lower.

    Examples
    --------
    >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(-8.)
    """
    _require_unit(z)
    if not 0 < t <= STEEPEST:
        raise ValueError(f"t must be above 0 and at most {STEEPEST:g}, got {t}")
    kernel = gaussian(t)
    # In float32 the potential of opposite points, exp(-4t), underflows from t = 20 on.
    points = z.double() if t > 20 else z
    mean = blockwise.distance_mean(points, kernel.of_square, kernel.slope)
    return mean.log().to(torch.promote_types(z.dtype, torch.float32))


def mmd(z: Float[Tensor, "n dim"], kernel: Radial) -> Float[Tensor, ""]:
    r"""Squared maximum mean discrepancy of unit rows to the uniform law, unbiased.

    .. math:: \frac 2 {n (n - 1)} \sum_{i < j} \kappa(z_i^\top z_j) - \iint \kappa(x^\top y)

    The two terms that the definition has beside these are equal: the mean of
    :math:`\kappa(x^\top y)` over a uniform y is the same for each x. With the Riesz kernel of
    s = -1, minus the distance, it is the energy distance.

    Parameters
    ----------
    z : Tensor
        Unit rows.
    kernel : Radial
        Of :mod:`cltheory.kernels`, bounded.

    Raises
    ------
    ValueError
        If there are fewer than two points, or a row is not of norm 1.

    Notes
    -----
    Range
        Between :math:`\kappa(-1) - \lambda_0` and :math:`\kappa(1) - \lambda_0` for a kernel that
        increases with t, where :math:`\lambda_0` is its mean over uniform points. Spread points may
        be below 0, because the diagonal is left out.
    Regular simplex
        :math:`\kappa(-1 / (n - 1)) - \lambda_0`
    Uniform law
        :math:`0`, also in expectation over n independent uniform points.

    Examples
    --------
    >>> from cltheory import kernels
    >>> mmd(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), kernels.riesz(-2.0))
    tensor(2.)
    """
    _require_unit(z)
    mean = blockwise.distance_mean(z, kernel.of_square, kernel.slope)
    discrepancy = mean - sphere.mean(kernel, z.shape[1])
    return discrepancy.to(torch.promote_types(z.dtype, torch.float32))


def effective_rank(z: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    r"""Exponential of the entropy of the normalised singular values [3]_, not centred.

    .. math:: \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \sigma_k / \sum_l \sigma_l

    Raises
    ------
    ValueError
        If `z` is no finite matrix, or zero.

    Notes
    -----
    Range
        Between 1, for rows on one line, and min(n, d).
    Regular simplex
        :math:`n - 1`
    Uniform law
        :math:`d`, and at a cross-polytope too.

    Examples
    --------
    >>> effective_rank(torch.eye(3))
    tensor(3.)
    """
    _require_matrix(z, "z")
    values = torch.linalg.svdvals(z.to(torch.promote_types(z.dtype, torch.float32)))
    if not _validate.holds(values.sum() > 0):
        raise ValueError("z must have a row that is not zero, got zeros only")
    shares = values / values.sum()
    # A value of exactly zero has an infinite derivative: it is left out, and does not pull.
    entropy: Tensor = torch.special.entr(torch.where(shares > 0, shares, 1)).sum()
    return entropy.exp()


def wasserstein_uniformity(z: Float[Tensor, "n dim"]) -> float:
    r"""Distance of the inner products of pairs to their law for uniform points [2]_, exactly.

    .. math:: W_1 = \int_{-1}^1 \Bigl| \frac 2 {n (n - 1)} \#\{i < j : z_i^\top z_j \le t\}
       - F_d(t) \Bigr|\, dt

    with :math:`F_d` the distribution function of :func:`cltheory.sphere.inner_products` in the
    dimension of `z`. Its integral is closed,
    :math:`t F_d(t) + \frac{c_d}{d-1} (1 - t^2)^{(d-1)/2}` with :math:`c_d` the density at 0;
    nothing is sampled. The time is :math:`O(n^2 (d + \log n))`, the memory :math:`O(n^2)`.

    Parameters
    ----------
    z : Tensor
        Unit rows.

    Raises
    ------
    ValueError
        If there are fewer than two points, or a row is not of norm 1.

    Notes
    -----
    Range
        Between 0 and 1, which is reached if all points coincide.
    Regular simplex
        :math:`\mathbb E\, |t + 1 / (n - 1)|` under the law; in three dimensions
        :math:`\frac 12 (1 + \frac 1 {(n - 1)^2})`. Small optimal batches score badly.
    Uniform law
        :math:`0`, and for no other law; n independent uniform points have a value of order 1 / n.

    Examples
    --------
    >>> round(wasserstein_uniformity(sphere.simplex(4, 3)), 12)
    0.555555555556
    """
    _require_unit(z)
    points = z.detach().cpu().double()
    gram = points @ points.mT
    upper = torch.ones(gram.shape, dtype=torch.bool, device=gram.device).triu(1)
    t = np.sort(gram[upper].clamp_(-1, 1).numpy())  # NumPy's is twice as fast as torch's
    return _area_between(t, sphere.inner_products(z.shape[1]), z.shape[1])


def _area_between(t: Array, law: Any, dim: int) -> float:
    """Area between the distribution function of sorted t and that of the law, on [-1, 1]."""
    # The density is c (1 - t²)^((d - 3) / 2), so t times it has an antiderivative.
    slope = float(law.pdf(0)) / (dim - 1)

    def integral(x: Array) -> Array:
        area: Array = x * law.cdf(x) + slope * (1 - x * x) ** ((dim - 1) / 2)
        return area

    ends = np.concatenate([[-1.0], t, [1.0]])
    total = 0.0
    for start in range(0, len(t) + 1, CHUNK):
        x = ends[start : start + CHUNK + 1]
        step = np.arange(start, start + len(x) - 1) / len(t)
        cdf = _where_it_matters(x, start, len(t), law)
        # The step function lies above the law at the left end of an interval, at the right end.
        left, right = step >= cdf[:-1], step >= cdf[1:]
        sign = np.where(left, 1.0, -1.0)
        total += float(sign @ (step * np.diff(x)))
        turns = np.diff(sign, prepend=0.0, append=0.0)
        at = np.flatnonzero(turns)
        total += float(turns[at] @ integral(x[at]))
        # Where it lies above at the left end only, the rest of the interval has the other sign.
        crossed = np.flatnonzero(left & ~right)
        end, level = x[crossed + 1], step[crossed]
        at_level = law.ppf(level)
        rest = integral(end) - integral(at_level) - level * (end - at_level)
        total += 2 * float(rest.sum())
    return total


def _where_it_matters(x: Array, first: int, count: int, law: Any) -> Array:
    """Evaluate the law at sorted points, exact wherever it is near the step function.

    Between the ends of a block both functions stay between their values at these. Where those tell
    which lies above, so do values in between that are interpolated.
    """
    index = np.arange(len(x))
    edges = np.unique(np.append(index[::BLOCK], index[-1]))
    known = law.cdf(x[edges])
    cdf: Array = np.interp(index, edges, known)
    step = (first + edges) / count
    near = (step[:-1] - 1 / count <= known[1:]) & (step[1:] + 1 / count >= known[:-1])
    exact = np.append(np.repeat(near, np.diff(edges)), False)
    cdf[exact] = law.cdf(x[exact])
    return cdf


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    rounding = 10 * torch.finfo(train.dtype).eps
    train, test = (x.detach().cpu().double() for x in (train, test))
    std, mean = torch.std_mean(train, 0, correction=0)
    weight = torch.where(std > rounding * train.abs().amax(0), 1 / std, 0)
    return (train - mean) * weight, (test - mean) * weight


def _require_matrix(features: Tensor, name: str, least: int = 1) -> None:
    if features.ndim != 2:
        raise ValueError(
            f"{name} must be a matrix with one point a row, got shape {tuple(features.shape)}"
        )
    _validate.points(features, name, least)


def _require_pairs(z1: Tensor, z2: Tensor, least: int = 1) -> None:
    for z, name in ((z1, "z1"), (z2, "z2")):
        _require_matrix(z, name, least)
    if z1.shape != z2.shape or z1.dtype != z2.dtype:
        raise ValueError(
            "z1 and z2 must have one shape and dtype, got "
            f"{tuple(z1.shape)} of {z1.dtype} and {tuple(z2.shape)} of {z2.dtype}"
        )


def _require_unit(z: Tensor) -> None:
    _require_matrix(z, "z", least=2)
    _validate.unit_rows(z, "z")


def _require_labels(labels: Tensor, name: str, length: int) -> None:
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} must hold integers, got {labels.dtype}")
    if labels.shape != (length,):
        raise ValueError(
            f"{name} must hold one class for each of {length} points, got shape "
            f"{tuple(labels.shape)}"
        )
