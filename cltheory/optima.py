r"""What the losses are worth at their optima on the sphere: closed forms, limits, and a search.

Losses go by the names that they have in :mod:`cltheory.losses`. Those with a temperature
:math:`\tau` have the optimum below for :math:`2 \le M \le d + 1` pairs of unit rows, at a regular
simplex with equal views; :math:`m = M / ((M - 1) \tau)`.

============ =========== ====================================== ====================
loss         candidates  optimal value                          all points equal
============ =========== ====================================== ====================
``info_nce`` M           :math:`\log(1 + (M - 1) e^{-m})`       :math:`\log M`
``nt_xent``  2M - 1      :math:`\log(1 + 2 (M - 1) e^{-m})`     :math:`\log(2M - 1)`
``dcl``      2M - 2      :math:`\log(2 (M - 1)) - m`            :math:`\log(2M - 2)`
``dhel``     M - 1       :math:`\log(M - 1) - m`                :math:`\log(M - 1)`
============ =========== ====================================== ====================

Each is the logarithm of the mean over candidates, plus that of their number: less the logarithm of
M, 2M, 2M and M - 1 the losses of uniform points and equal views tend to one limit.

References
----------
.. [1] Koromilas, P., et al. (2024). Bridging mini-batch and asymptotic analysis in contrastive
   learning: from InfoNCE to kernel-based losses. arXiv:2405.18045. Theorem numbers unknown.
.. [2] Lu, J., & Steinerberger, S. (2020). Neural collapse with cross-entropy loss.
   arXiv:2012.08465. Theorem number unknown.
.. [3] Wang, T., & Isola, P. (2020). Understanding contrastive representation learning through
   alignment and uniformity on the hypersphere. arXiv:2005.10242. Theorem 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from cltheory import _validate, losses, minimise, sphere
from cltheory.kernels import Profile

_CANDIDATES = {
    "info_nce": lambda m: m,
    "nt_xent": lambda m: 2 * m - 1,
    "dcl": lambda m: 2 * m - 2,
    "dhel": lambda m: m - 1,
}
_FREE = {"vicreg": 0.0, "barlow_twins": 0.0, "negative_cosine": -1.0}


def candidates(loss: str, n_pairs: int) -> int:
    """Count the candidates of an anchor: the terms of the sum in the loss's denominator.

    Raises
    ------
    ValueError
        If the loss has none, or `n_pairs` is below 2.

    Examples
    --------
    >>> {loss: candidates(loss, 4) for loss in ("info_nce", "nt_xent", "dcl", "dhel")}
    {'info_nce': 4, 'nt_xent': 7, 'dcl': 6, 'dhel': 3}
    """
    _validate.integer(n_pairs, "n_pairs", 2)
    return int(_CANDIDATES[_named(loss, _CANDIDATES)](n_pairs))


def value(
    loss: str,
    n_pairs: int,
    *,
    dim: int | None = None,
    temperature: float | None = None,
    kernel: Profile | None = None,
    weight: float | None = None,
) -> float:
    r"""Least value of a loss over unit rows.

    For losses with a temperature it is that of the table above. For `kcl`, with a kernel that is
    convex and increasing in the inner product, it is
    :math:`-\kappa(1) + \text{weight}\; \kappa(-1 / (M - 1))`, and for `spectral_contrastive` -2, at
    orthonormal rows, which takes :math:`M \le d`. The losses `vicreg` and `barlow_twins` reach 0
    with rows of any norm, and `negative_cosine` -1, at a constant map too.

    Parameters
    ----------
    loss : str
        Name of the loss.
    n_pairs : int
        M, from 2 to dim + 1.
    dim : int, optional
        Dimension of the rows; if given, `n_pairs` is checked against it.
    temperature : float, optional
        For the losses that have one.
    kernel, weight : optional
        For `kcl`.

    Raises
    ------
    ValueError
        If the loss is unknown, there are more pairs than a simplex in `dim` dimensions has
        vertices, or a parameter is missing or out of range.

    Examples
    --------
    >>> value("dhel", 2, temperature=1.0)
    -2.0
    """
    known = [*_CANDIDATES, "kcl", "spectral_contrastive", *_FREE]
    _named(loss, known)
    most = None if dim is None else dim + (loss != "spectral_contrastive")
    if loss in _FREE:
        most = None
    what = "orthonormal rows" if loss == "spectral_contrastive" else "the vertices of a simplex"
    _validate.integer(n_pairs, "n_pairs", 2, most, why=f"{what} in R^{dim}" if most else "")
    if loss in _FREE:
        return _FREE[loss]
    if loss == "spectral_contrastive":
        return -2.0
    least = -1 / (n_pairs - 1)
    if loss == "kcl":
        kernel, weight = _kernel(kernel, weight)
        return weight * _at(kernel, least) - _at(kernel, 1.0)
    scale = 1 / _temperature(temperature)
    # With the positive among the candidates, log(1 + negatives e^{-m}); else log negatives - m.
    count, gap = candidates(loss, n_pairs), (1 - least) * scale
    if loss in ("info_nce", "nt_xent"):
        return math.log1p((count - 1) * math.exp(-gap))
    return math.log(count) - gap


def collapsed(
    loss: str, n_pairs: int, *, kernel: Profile | None = None, weight: float | None = None
) -> float:
    r"""Value of a loss where all points are equal: the logarithm of the number of candidates.

    For `kcl` it is :math:`(\text{weight} - 1)\, \kappa(1)`.

    Raises
    ------
    ValueError
        If the loss is unknown, `n_pairs` below 2, or a parameter missing or out of range.

    Examples
    --------
    >>> round(collapsed("info_nce", 8), 4)
    2.0794
    """
    _validate.integer(n_pairs, "n_pairs", 2)
    if _named(loss, [*_CANDIDATES, "kcl"]) == "kcl":
        kernel, weight = _kernel(kernel, weight)
        return (weight - 1) * _at(kernel, 1.0)
    return math.log(candidates(loss, n_pairs))


def limit(
    loss: str,
    dim: int,
    temperature: float | None = None,
    *,
    kernel: Profile | None = None,
    weight: float | None = None,
) -> float:
    r"""Limit for M to infinity at uniform points and equal views, less the log of candidates.

    Of `info_nce` less log M, `nt_xent` and `dcl` less log 2M, `dhel` less log(M - 1):

    .. math:: -\frac 1 \tau + \log {}_0F_1\bigl(; \tfrac d2; \tfrac 1 {4 \tau^2}\bigr)

    the least value over laws of unit rows. Of `kcl`, whose mean does not depend on M, it is
    :math:`-\kappa(1) + \text{weight} \iint \kappa(x^\top y)` over independent uniform points.

    Parameters
    ----------
    loss : str
        Name of the loss.
    dim : int
        Dimension of the rows, at least 2.
    temperature : float, optional
        For the losses that have one.
    kernel, weight : optional
        For `kcl`.

    Raises
    ------
    ValueError
        If the loss is unknown, or a parameter is missing or out of range.

    Examples
    --------
    >>> round(limit("info_nce", 3, 0.5), 6)
    -1.40478
    """
    if _named(loss, [*_CANDIDATES, "kcl"]) == "kcl":
        kernel, weight = _kernel(kernel, weight)
        return weight * sphere.mean(kernel, dim) - _at(kernel, 1.0)
    scale = 1 / _temperature(temperature)
    return sphere.log_mean_exponential(dim, scale) - scale


def search(
    loss: str,
    n_pairs: int,
    dim: int,
    *,
    starts: int = 16,
    steps: int = 1000,
    generator: torch.Generator | None = None,
    **parameters: Any,
) -> minimise.Minima:
    """Look for the least value of a loss over two views of unit rows, from many random starts.

    The best that is found is an upper bound of the minimum, equal to it as a rule. For a loss of
    your own, take :func:`cltheory.minimise.on_spheres`.

    Parameters
    ----------
    loss : str
        A name in :mod:`cltheory.losses`.
    n_pairs, dim : int
        Pairs of rows, and their dimension.
    starts, steps, generator
        As in :func:`cltheory.minimise.on_spheres`.
    **parameters
        Those of the loss.

    Returns
    -------
    Minima
        With points of shape (starts, 2, n_pairs, dim).

    Raises
    ------
    ValueError
        If the loss is not known, or an argument is out of range.

    Examples
    --------
    >>> found = search("dhel", 2, 3, temperature=1.0, generator=torch.Generator().manual_seed(0))
    >>> round(found.value, 12)
    -2.0
    """
    _validate.integer(n_pairs, "n_pairs", 2)
    function = getattr(losses, _named(loss, [*_CANDIDATES, "kcl", "nce_binary"]))
    return minimise.on_spheres(
        lambda views: function(views[0], views[1], **parameters),
        (2, n_pairs),
        dim,
        starts=starts,
        steps=steps,
        generator=generator,
    )


def _named(loss: str, known: Any) -> str:
    if loss not in known:
        raise ValueError(f"loss must be one of {', '.join(known)}, got {loss!r}")
    return loss


def _temperature(temperature: float | None) -> float:
    if temperature is None:
        raise ValueError("temperature must be a finite number above 0, got none")
    _validate.positive(temperature, "temperature")
    return temperature


def _kernel(kernel: Profile | None, weight: float | None) -> tuple[Profile, float]:
    if kernel is None or weight is None:
        raise ValueError(f"kcl must have a kernel and a weight, got {kernel} and {weight}")
    _validate.positive(weight, "weight")
    if not math.isfinite(_at(kernel, 1.0)):
        raise ValueError("kernel must be finite at t = 1, where positive pairs meet, got infinity")
    return kernel, weight


def _at(kernel: Profile, t: float) -> float:
    return float(kernel(torch.tensor(t, dtype=torch.float64)))
