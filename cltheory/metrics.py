r"""How good features are: numbers to report of a trained network, as Python floats.

Features are matrices with one point a row. The metrics are evaluated once, after training, and
carry no gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cltheory import _validate


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

    It is 0 for invariant features, about 1 for features that do not see which views belong
    together, and unchanged by translation, rotation and scaling of the features. The cost is
    O(n d): with means :math:`m` and mean squared deviations :math:`v` of the two views,
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

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> invariance(z, z), round(invariance(z, z + 1), 4)
    (0.0, 0.4286)
    """
    for z, name in ((z1, "z1"), (z2, "z2")):
        _require_matrix(z, name, least=2)
    if z1.shape != z2.shape or z1.dtype != z2.dtype:
        raise ValueError(
            "z1 and z2 must have one shape and dtype, got "
            f"{tuple(z1.shape)} of {z1.dtype} and {tuple(z2.shape)} of {z2.dtype}"
        )
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


def _require_labels(labels: Tensor, name: str, length: int) -> None:
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} must hold integers, got {labels.dtype}")
    if labels.shape != (length,):
        raise ValueError(
            f"{name} must hold one class for each of {length} points, got shape "
            f"{tuple(labels.shape)}"
        )
