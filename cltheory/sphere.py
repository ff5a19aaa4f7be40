r"""Configurations of points on the unit sphere :math:`S^{d-1} \subset \mathbb R^d`, one a row."""

import math

import torch
from jaxtyping import Float
from scipy.linalg import helmert
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
