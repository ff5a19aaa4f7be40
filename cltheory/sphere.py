r"""The unit sphere :math:`S^{d-1} \subset \mathbb R^d`: its uniform law, and configurations.

Points are the rows of a matrix.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import special, stats
from scipy.linalg import eigvalsh_tridiagonal, helmert
from torch import Tensor

from cltheory import _validate


def uniform(
    n: int,
    dim: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n dim"]:
    r"""Independent points :math:`g / |g|`, :math:`g \sim N(0, I_d)`, uniform on the sphere.

    They are drawn where the generator lives, so that a CPU generator gives the same points on
    every device.

    Raises
    ------
    ValueError
        If `n` is below 1, or `dim` below 2.

    Examples
    --------
    >>> uniform(5, 3, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    tensor([1., 1., 1., 1., 1.], dtype=torch.float64)
    """
    _validate.integer(n, "n", 1)
    _validate.integer(dim, "dim", 2)
    source = device if generator is None else generator.device
    normal = torch.randn(n, dim, generator=generator, dtype=dtype, device=source)
    return torch.nn.functional.normalize(normal, dim=1).to(device)


def circle(
    n: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "n 2"]:
    r"""Equispaced points :math:`(\cos 2\pi k/n, \sin 2\pi k/n)`, :math:`k = 0, \dots, n-1`.

    Raises
    ------
    ValueError
        If `n` is below 1.

    Examples
    --------
    >>> circle(4).round().abs()
    tensor([[1., 0.],
            [0., 1.],
            [1., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    _validate.integer(n, "n", 1)
    angle = torch.arange(n, dtype=torch.float64, device=device) * (2 * math.pi / n)
    return torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)


def simplex(
    n: int,
    dim: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n dim"]:
    r"""Vertices of a regular simplex: unit rows with :math:`x_i^\top x_j = -1/(n-1)`.

    The vertices span the first n - 1 coordinates, and the others are zero.

    Raises
    ------
    ValueError
        If `n` is below 2 or above dim + 1, the most that the dimension allows.

    Examples
    --------
    >>> x = simplex(3, 2)
    >>> x @ x.T
    tensor([[ 1.0000, -0.5000, -0.5000],
            [-0.5000,  1.0000, -0.5000],
            [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    _validate.integer(dim, "dim", 1)
    _validate.integer(n, "n", 2, dim + 1, why=f"a simplex in R^{dim} has up to {dim + 1} vertices")
    vertices = torch.zeros(n, dim, dtype=dtype, device=device)
    # The Helmert matrix has orthonormal rows, all orthogonal to (1, ..., 1).
    vertices[:, : n - 1] = torch.from_numpy(helmert(n).T * math.sqrt(n / (n - 1))).to(vertices)
    return vertices


def cross_polytope(
    dim: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "2*dim dim"]:
    r"""Vertices :math:`e_1, \dots, e_d, -e_1, \dots, -e_d`.

    Raises
    ------
    ValueError
        If `dim` is below 1.

    Examples
    --------
    >>> cross_polytope(1)
    tensor([[ 1.],
            [-1.]], dtype=torch.float64)
    """
    _validate.integer(dim, "dim", 1)
    basis = torch.eye(dim, dtype=dtype, device=device)
    return torch.cat([basis, -basis])


def blocks(
    sizes: Sequence[int],
    dim: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n dim"]:
    r"""Regular simplices in orthogonal subspaces, one of each size.

    Points of two blocks are orthogonal; d blocks of two are the cross-polytope. A block of k points
    takes k - 1 dimensions.

    Raises
    ------
    ValueError
        If a size is below 2, or the blocks need more than `dim` dimensions.

    Examples
    --------
    >>> x = blocks([3, 2], 3)
    >>> x @ x.T
    tensor([[ 1.0000, -0.5000, -0.5000,  0.0000,  0.0000],
            [-0.5000,  1.0000, -0.5000,  0.0000,  0.0000],
            [-0.5000, -0.5000,  1.0000,  0.0000,  0.0000],
            [ 0.0000,  0.0000,  0.0000,  1.0000, -1.0000],
            [ 0.0000,  0.0000,  0.0000, -1.0000,  1.0000]], dtype=torch.float64)
    """
    for size in sizes:
        _validate.integer(size, "sizes", 2)
    taken = sum(sizes) - len(sizes)
    _validate.integer(dim, "dim", max(taken, 1), why=f"blocks of {list(sizes)} span {taken}")
    parts = [simplex(size, size - 1, dtype=dtype, device=device) for size in sizes]
    points = torch.zeros(sum(sizes), dim, dtype=dtype, device=device)
    row = column = 0
    for part in parts:
        points[row : row + len(part), column : column + len(part) - 1] = part
        row, column = row + len(part), column + len(part) - 1
    return points


def block_sizes(n: int, dim: int) -> list[tuple[int, ...]]:
    """All block configurations of n points that span `dim` dimensions, sizes descending.

    They are the partitions of n into n - dim parts of at least 2.

    Raises
    ------
    ValueError
        If `n` is not between dim + 1 and 2 dim.

    Examples
    --------
    >>> block_sizes(6, 4), block_sizes(7, 4)
    ([(4, 2), (3, 3)], [(3, 2, 2)])
    """
    _validate.integer(dim, "dim", 1)
    _validate.integer(n, "n", dim + 1, 2 * dim, why=f"blocks that span R^{dim}")

    def parts(left: int, count: int, most: int) -> list[tuple[int, ...]]:
        if count == 0:
            return [()] if left == 0 else []
        return [
            (size, *rest)
            for size in range(min(most, left), 1, -1)
            for rest in parts(left - size, count - 1, size)
        ]

    return parts(n, n - dim, n)


def inner_products(dim: int) -> Any:
    r"""Law of the inner product t of two independent uniform points, frozen, as in `scipy.stats`.

    .. math:: f(t) = \frac{\Gamma(d/2)}{\sqrt\pi\, \Gamma((d-1)/2)} (1 - t^2)^{(d-3)/2},
       \qquad -1 \le t \le 1

    so that (1 + t) / 2 has the law Beta((d - 1) / 2, (d - 1) / 2); mean 0, variance 1 / d.

    Raises
    ------
    ValueError
        If `dim` is below 2.

    Examples
    --------
    >>> law = inner_products(3)
    >>> round(float(law.pdf(0.3)), 12), float(law.cdf(0.0)), float(law.var() * 3)
    (0.5, 0.5, 1.0)
    """
    _validate.integer(dim, "dim", 2)
    return stats.beta((dim - 1) / 2, (dim - 1) / 2, loc=-1, scale=2)


def mean(profile: Callable[[Tensor], Tensor], dim: int, *, nodes: int = 400) -> float:
    r"""Mean of a profile :math:`\kappa(t)` over the inner products of uniform points.

    It is the energy :math:`\iint \kappa(x^\top y)` of the uniform law, by a Gauss-Gegenbauer rule,
    exact for polynomials below degree 2 `nodes`. A profile with a singularity at t = 1 is met to a
    power of 1 / `nodes` only.

    Raises
    ------
    ValueError
        If `dim` is below 2, or `nodes` below 1.

    Examples
    --------
    >>> round(mean(lambda t: t**2, 5), 12)
    0.2
    """
    _validate.integer(dim, "dim", 2)
    _validate.integer(nodes, "nodes", 1)
    t, weights = _gauss(dim, nodes)
    values = profile(torch.from_numpy(t)).numpy()
    return float(values @ weights)


def _gauss(dim: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss rule for the inner product of two uniform points.

    SciPy's own stops at a few hundred dimensions. The orthonormal polynomials of the law have
    t p_k = b_k p_(k-1) + b_(k+1) p_(k+1); nodes are eigenvalues of that matrix, and a weight is the
    inverse of the sum of p_k(t)^2, which keeps its digits where it is tiny.
    """
    k = np.arange(2.0, nodes)
    b = np.sqrt(k * (k + dim - 3) / ((2 * k + dim - 2) * (2 * k + dim - 4)))
    b = np.concatenate([[1 / math.sqrt(dim)], b])[: nodes - 1]
    t = eigvalsh_tridiagonal(np.zeros(nodes), b)
    before, polynomial, last = np.zeros(nodes), np.ones(nodes), 0.0
    total = np.ones(nodes)
    with np.errstate(over="ignore"):  # a sum that overflows is that of a weight below 1e-308
        for b_k in b:
            before, polynomial = polynomial, (t * polynomial - last * before) / b_k
            total += polynomial**2
            last = b_k
    return t, 1 / total / (1 / total).sum()


def log_mean_exponential(dim: int, scale: float) -> float:
    r"""Logarithm of the mean of :math:`e^{c t}` over the inner products t of uniform points.

    .. math:: \log {}_0F_1\bigl(; \tfrac d2; \tfrac{c^2}4\bigr)
       = \log\Bigl[\Gamma(\tfrac d2) \bigl(\tfrac 2c\bigr)^{d/2-1} I_{d/2-1}(c)\Bigr]
       = \log \sum_k \frac{(c/2)^{2k}}{k!\, (d/2)_k},

    for c = `scale`, by the series: its terms are positive, and neither a large dimension nor a
    large scale takes the logarithm out of range.

    Raises
    ------
    ValueError
        If `dim` is below 2, or `scale` not finite.

    Examples
    --------
    >>> round(log_mean_exponential(3, 2.0), 12), round(math.log(math.sinh(2.0) / 2.0), 12)
    (0.595220192054, 0.595220192054)
    """
    _validate.integer(dim, "dim", 2)
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    # The largest term is near k = |scale| / 2 or before; the width about it is its square root.
    k = np.arange(50 + int(abs(scale) / 2 + 10 * math.sqrt(abs(scale))))
    if scale == 0:
        return 0.0
    logs = 2 * k * math.log(abs(scale) / 2) - special.gammaln(k + 1)
    logs -= special.gammaln(dim / 2 + k) - special.gammaln(dim / 2)
    return float(special.logsumexp(logs))


def harmonic_multiplicity(dim: int, degree: int) -> int:
    r"""Count the independent spherical harmonics of a degree :math:`\ell` on :math:`S^{d-1}`.

    .. math:: N(d, \ell) = \binom{\ell + d - 1}{d - 1} - \binom{\ell + d - 3}{d - 1}

    Raises
    ------
    ValueError
        If `dim` is below 2, or `degree` below 0.

    Examples
    --------
    >>> [harmonic_multiplicity(3, degree) for degree in range(4)]
    [1, 3, 5, 7]
    """
    _validate.integer(dim, "dim", 2)
    _validate.integer(degree, "degree", 0)
    homogeneous = math.comb(degree + dim - 1, dim - 1)
    return homogeneous - math.comb(degree + dim - 3, dim - 1) if degree > 1 else homogeneous
