r"""Mercer expansions: eigenpairs of a kernel under a measure, from matrices and in closed form.

A kernel k and a probability measure p have the expansion
:math:`k(x, y) = \sum_i \lambda_i \phi_i(x) \phi_i(y)` with :math:`\phi_i` orthonormal under p. The
closed forms below and `nystrom` are objects with ``.eigenvalues`` of shape (n,), descending, and
``.eigenfunctions(x)`` of shape (len(x), n).

References
----------
.. [1] Zhu, H., Williams, C. K. I., Rohwer, R., & Morciniec, M. (1998). Gaussian regression and
   optimal finite dimensional linear models. Formula number unknown.
.. [2] Williams, C. K. I., & Seeger, M. (2001). Using the Nyström method to speed up kernel
   machines. Advances in Neural Information Processing Systems 13. Formula number unknown.
.. [3] Eckart, C., & Young, G. (1936). The approximation of one matrix by another of lower rank.
   Psychometrika 1. Theorem number unknown.
"""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from scipy.special import eval_jacobi, roots_legendre
from torch import Tensor

from cltheory import _validate, kernels, sphere

DENSE_SIZE = 512
"""Up to this many points LAPACK finds the top of a spectrum as fast as Lanczos does."""
DENSE_SHARE = 16
"""Above n / 16 eigenpairs LAPACK is the faster one."""
LANCZOS_TOLERANCE = 1e-8
CHECK_TOLERANCE = 1e-5
CHUNK = 2**20
"""Entries of a kernel matrix that `nystrom` holds at once."""
QUADRATURE_NODES = 4096

# SciPy from 1.17 restarts an exhausted Krylov space from this seed, older ones from wherever the
# calls before left their generator.
_SEED = {"rng": 0} if "rng" in inspect.signature(eigsh).parameters else {}


class Eigenpairs(NamedTuple):
    """Eigenvalues, descending, and eigenvectors in columns.

    Examples
    --------
    >>> values, vectors = top_eigenpairs(torch.diag(torch.tensor([1.0, 5.0])), rank=1)
    >>> values, vectors.T
    (tensor([5.]), tensor([[0., 1.]]))
    """

    values: Float[Tensor, " rank"]
    vectors: Float[Tensor, "n rank"]


class FunkHecke(NamedTuple):
    """Eigenvalues of degree 0, 1, ... and the dimensions of their eigenspaces.

    Examples
    --------
    >>> eigenvalues, multiplicities = funk_hecke(lambda t: t, dim=3, max_degree=1)
    >>> multiplicities  # the constants, and the three coordinates
    tensor([1, 3])
    """

    eigenvalues: Float[Tensor, " degrees"]
    multiplicities: Int[Tensor, " degrees"]


@dataclass(frozen=True)
class Expansion:
    """Eigenvalues and eigenfunctions of a kernel under a measure.

    Examples
    --------
    >>> brownian(2).eigenvalues  # 4 / pi^2 and 4 / (9 pi^2)
    tensor([0.4053, 0.0450], dtype=torch.float64)
    """

    eigenvalues: Float[Tensor, " n"]
    eigenfunctions: Callable[[Tensor], Float[Tensor, "m n"]] = field(repr=False)


def top_eigenpairs(gram: Float[Tensor, "n n"], rank: int) -> Eigenpairs:
    r"""Largest eigenvalues :math:`K q_i = \lambda_i q_i` of a symmetric matrix, not divided by n.

    On the CPU: Lanczos iteration, or LAPACK where that is faster or where Lanczos overlooked a
    repeated eigenvalue. Values are right to :math:`10^{-9}` of the largest and residuals to
    :math:`10^{-6}` in float64. An error in a vector is its residual over the gap to the next
    value: where values tie or lie at rounding level, only the span of the vectors has a meaning.
    On other devices, or if a gradient is wanted: ``torch.linalg.eigh``. The entry of largest
    magnitude of each vector is positive, and the result is the same in every run.

    Raises
    ------
    ValueError
        If the matrix is not square, finite and symmetric, or `rank` is not between 1 and n.

    Examples
    --------
    >>> values, vectors = top_eigenpairs(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), rank=1)
    >>> values, vectors
    (tensor([3.0000]), tensor([[0.7071],
            [0.7071]]))
    """
    _validate.symmetric(gram, "gram")
    n = len(gram)
    _validate.integer(rank, "rank", 1, n, why="the number of points")
    if not torch.is_grad_enabled():
        gram = gram.detach()
    try:
        matrix = gram.numpy()
    except (RuntimeError, TypeError):  # a graph, a transform of torch.func, or another device
        values, vectors = torch.linalg.eigh(gram)
        return Eigenpairs(values[-rank:].flip(0), _signed(vectors[:, -rank:].flip(1)))
    dense = n <= DENSE_SIZE or rank * DENSE_SHARE > n or (not _SEED and _is_scalar(matrix))
    pairs = None if dense else _lanczos(matrix, rank)
    if pairs is None:
        pairs = scipy.linalg.eigh(matrix, subset_by_index=[n - rank, n - 1], check_finite=False)
    top, columns = (torch.from_numpy(part[..., ::-1].copy()) for part in pairs)
    return Eigenpairs(top, _signed(columns))


def _is_scalar(matrix: np.ndarray) -> bool:
    """Whether a matrix is a multiple of the identity, which exhausts a Krylov space at once."""
    equal = np.ptp(matrix.diagonal()) == 0
    return bool(equal and np.count_nonzero(matrix) <= len(matrix))


def _lanczos(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Top eigenpairs, ascending; None where the iteration failed or overlooked a pair."""
    # symv reads one triangle, half of what a general product moves; the transpose of a matrix in
    # C order is in the order of Fortran, which saves a copy.
    matrix = np.ascontiguousarray(matrix).T
    symv = scipy.linalg.get_blas_funcs("symv", (matrix,))
    rng = np.random.default_rng(0)
    tolerance = max(LANCZOS_TOLERANCE, 8 * float(np.finfo(matrix.dtype).eps))

    def lanczos(product: Callable[[np.ndarray], Any], count: int, tol: float) -> Any:
        operator = LinearOperator(matrix.shape, matvec=product, dtype=matrix.dtype)
        # A start of its own each time: what one start is orthogonal to, the next one sees.
        start = rng.standard_normal(len(matrix)).astype(matrix.dtype)
        basis = max(2 * count + 1, 20)
        # More restarts than this would cost more than LAPACK does.
        restarts = len(matrix) // (4 * basis) + 1
        return eigsh(
            operator, count, which="LA", v0=start, ncv=basis, maxiter=restarts, tol=tol, **_SEED
        )

    try:
        values, vectors = lanczos(lambda v: symv(1.0, matrix, v), rank, tolerance)
        # A Krylov space of one vector sees one vector of each eigenspace, and rounding shows it
        # the others or not. What is left after deflation must not exceed what was found. The shift
        # makes the tolerance one of the largest eigenvalue.
        scale = abs(values[-1])
        (left,), _ = lanczos(
            lambda v: symv(1.0, matrix, v) + scale * v - vectors @ (values * (vectors.T @ v)),
            1,
            CHECK_TOLERANCE,
        )
    except ArpackError:
        return None
    overlooked = left - scale > values[0] + max(1e-9, tolerance) * scale
    return None if overlooked else (values, vectors)


def _signed(vectors: Tensor) -> Tensor:
    """Make the entry of largest magnitude of each column positive; of equal ones, the first."""
    size = vectors.detach().abs()
    largest = (size >= (1 - 1e-6) * size.amax(0)).to(torch.uint8).argmax(0, keepdim=True)
    sign = vectors.detach().gather(0, largest).sign()
    return vectors * torch.where(sign == 0, 1, sign)


def kernel_pca(gram: Float[Tensor, "n n"], rank: int) -> Float[Tensor, "n rank"]:
    r"""Coordinates :math:`Y = Q_d \Lambda_d^{1/2}` from the top eigenpairs of :math:`HKH`.

    Y minimises :math:`\|HKH - YY^\top\|_F` over n x rank matrices [3]_ and, as
    :math:`HKH = -\tfrac12 H D^2 H`, it is also classical multidimensional scaling of the distances
    between the features. It is unique up to rotation where :math:`\lambda_d > \lambda_{d+1}`.

    Raises
    ------
    ValueError
        If there are fewer than two points, if `rank` is not between 1 and n, or if the centred
        matrix is not positive semidefinite.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [5.0]])
    >>> kernel_pca(x @ x.T, rank=1)
    tensor([[-2.0000],
            [-1.0000],
            [ 3.0000]])
    """
    _validate.points(gram, "gram", least=2)
    _validate.symmetric(gram, "gram")
    centred = kernels.centre(gram)
    # Of features that coincide, centring leaves nothing but rounding, which is neither symmetric
    # nor positive.
    rounding = len(gram) * torch.finfo(gram.dtype).eps * gram.abs().max()
    centred = torch.where(centred.abs().max() <= rounding, 0.0, centred)
    kernels.require_psd(centred, "the centred gram")
    values, vectors = top_eigenpairs(centred, rank)
    return vectors * values.clamp(min=0).sqrt()


@dataclass(frozen=True)
class Nystrom:
    """Approximate Mercer expansion under the law of a sample; made by `nystrom`.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> features = nystrom(kernels.linear(), x, rank=2).features(x)
    >>> features @ features.T  # all points are landmarks: nothing is lost
    tensor([[1.0000, 2.0000],
            [2.0000, 4.0000]])
    """

    kernel: kernels.Kernel
    landmarks: Tensor = field(repr=False)
    coefficients: Float[Tensor, "rank rank"] = field(repr=False)
    eigenvalues: Float[Tensor, " rank"]

    def features(self, x: Tensor) -> Float[Tensor, "n rank"]:
        r"""Features :math:`\sqrt{\lambda_i} \phi_i(x)`: their inner products approximate k."""
        return _product(self.kernel, x, self.landmarks, self.coefficients)

    def eigenfunctions(self, x: Tensor) -> Float[Tensor, "n rank"]:
        r"""Eigenfunctions :math:`\phi_i(x)`; zero where the eigenvalue is at rounding level."""
        scale = _inverse_root(self.eigenvalues)
        return _product(self.kernel, x, self.landmarks, self.coefficients * scale)


def nystrom(
    kernel: kernels.Kernel,
    points: Tensor,
    rank: int,
    *,
    generator: torch.Generator | None = None,
) -> Nystrom:
    r"""Nyström approximation of a kernel from a uniform random subset Z of the points [2]_.

    The features :math:`k(x, Z) K_{ZZ}^{-1/2} V` have the inner products
    :math:`\tilde K = K_{nm} K_{mm}^+ K_{mn} \preceq K`, and V turns them to the principal
    directions over all n points: their second moment is the diagonal matrix of the eigenvalues of
    :math:`\tilde K / n`, which approximate those of k under the law of the points. With as many
    landmarks as points this is the extension
    :math:`\hat\phi_k(x) = \frac{\sqrt n}{n \hat\lambda_k} \sum_i k(x, x_i) q_{ik}`.

    Parameters
    ----------
    kernel
        A kernel of two point sets, such as those of `cltheory.kernels`.
    points
        The n points, along the first axis.
    rank
        The number of landmarks and of features. Eigenvalues of :math:`K_{mm}` up to rank times
        machine epsilon times the largest count as zero; as many features vanish.
    generator
        Chooses the landmarks; PyTorch's default one unless given.

    Returns
    -------
    Nystrom
        With ``.eigenvalues`` (rank,), ``.features(x)`` and ``.eigenfunctions(x)`` (len(x), rank).
        Memory grows as n rank: the points are taken in chunks.

    Raises
    ------
    ValueError
        If the points are fewer than two or not finite, if `rank` is not between 1 and n, or if
        the kernel is not positive semidefinite on the landmarks.

    Examples
    --------
    >>> x = torch.linspace(0, 1, 100, dtype=torch.float64)
    >>> model = nystrom(kernels.brownian(), x, 20, generator=torch.Generator().manual_seed(0))
    >>> model.features(x).shape, round(float(model.eigenvalues[0]), 1)
    (torch.Size([100, 20]), 0.4)
    """
    _validate.points(points, "points", least=2)
    n = len(points)
    _validate.integer(rank, "rank", 1, n, why="the number of points")
    source = torch.device("cpu") if generator is None else generator.device
    chosen = torch.randperm(n, generator=generator, device=source)[:rank]
    landmarks = points[chosen.to(points.device)]
    block = kernels.gram(kernel, landmarks)
    _validate.symmetric(block, "the kernel on the landmarks")
    spectrum, vectors = torch.linalg.eigh(block)
    _validate.spectrum(spectrum, "the kernel on the landmarks", _validate.tolerance(block.dtype))
    whitening = vectors * _inverse_root(spectrum)
    # The moment of whitened features, not of kernel rows: squaring those loses half the digits.
    moment = torch.zeros_like(block)
    for chunk in torch.split(points, _rows_at_once(rank)):
        whitened = kernel(chunk, landmarks) @ whitening
        moment += whitened.mT @ whitened / n
    eigenvalues, directions = torch.linalg.eigh(moment)
    coefficients = _signed(whitening @ directions.flip(1))
    return Nystrom(kernel, landmarks, coefficients, eigenvalues.flip(0).clamp(min=0))


def _rows_at_once(columns: int) -> int:
    return max(1, CHUNK // columns)


def _inverse_root(eigenvalues: Tensor) -> Tensor:
    """Inverse square roots; zero for those up to n times machine epsilon times the largest."""
    cutoff = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    return torch.where(eigenvalues > cutoff, eigenvalues, math.inf).rsqrt()


def _product(kernel: kernels.Kernel, x: Tensor, landmarks: Tensor, matrix: Tensor) -> Tensor:
    """Product of k(x, Z) and a matrix, in chunks of x."""
    _validate.points(x, "x")
    step = _rows_at_once(len(landmarks))
    if len(x) <= step:
        return kernel(x, landmarks) @ matrix
    result = matrix.new_empty(len(x), matrix.shape[1])
    for start in range(0, len(x), step):
        result[start : start + step] = kernel(x[start : start + step], landmarks) @ matrix
    return result


def brownian(n: int, *, device: torch.device | str = "cpu") -> Expansion:
    r"""First n terms for :math:`k(x, y) = \min(x, y)` under the Lebesgue measure of [0, 1].

    .. math:: \lambda_k = \frac{1}{((k - 1/2)\pi)^2}, \qquad
        \phi_k(x) = \sqrt 2 \sin((k - \tfrac12) \pi x), \qquad k = 1, 2, \dots

    The largest error of the truncated kernel, at x = y = 1, is :math:`2/(\pi^2 n) (1 + o(1))`.
    A classical result: the expansion of Brownian motion of Karhunen and Loève.

    Raises
    ------
    ValueError
        If `n` is below 1; from ``.eigenfunctions(x)``, if `x` is not of shape (m,) or (m, 1).

    Examples
    --------
    >>> brownian(2).eigenfunctions(torch.tensor([0.0, 1.0]))
    tensor([[ 0.0000,  0.0000],
            [ 1.4142, -1.4142]])
    """
    _validate.integer(n, "n", 1)

    def frequencies(where: torch.device | str) -> Tensor:
        return (torch.arange(n, dtype=torch.float64, device=where) + 0.5) * math.pi

    def eigenfunctions(x: Tensor) -> Float[Tensor, "m n"]:
        _validate.line(x, "x")
        angles = x.double().reshape(-1, 1) * frequencies(x.device)
        return (math.sqrt(2) * angles.sin()).to(x.dtype)

    return Expansion(frequencies(device) ** -2, eigenfunctions)


def gauss_hermite(
    n: int, lengthscale: float, scale: float, *, device: torch.device | str = "cpu"
) -> Expansion:
    r"""First n terms for :math:`e^{-(x-y)^2 / (2 l^2)}` under :math:`N(0, s^2)` [1]_.

    With :math:`a = 1/(4 s^2)`, :math:`b = 1/(2 l^2)`, :math:`c = \sqrt{a^2 + 2ab}`,
    :math:`A = a + b + c`, :math:`B = b / A` and the physicists' Hermite polynomials,

    .. math:: \lambda_k = \sqrt{2a/A}\, B^k, \qquad k = 0, 1, \dots, \\
        \phi_k(x) = \sqrt{\frac{\sqrt{c/a}}{2^k k!}}\; e^{-(c - a) x^2} H_k(\sqrt{2c}\, x)

    Parameters
    ----------
    n
        The number of terms.
    lengthscale, scale
        :math:`l` and :math:`s`, above 0.

    Raises
    ------
    ValueError
        If `n` is below 1, or `lengthscale` or `scale` is not a finite number above 0; from
        ``.eigenfunctions(x)``, if `x` is not of shape (m,) or (m, 1).

    Examples
    --------
    >>> gauss_hermite(3, lengthscale=1.0, scale=1.0).eigenvalues
    tensor([0.6180, 0.2361, 0.0902], dtype=torch.float64)
    """
    _validate.integer(n, "n", 1)
    _validate.positive(lengthscale, "lengthscale")
    _validate.positive(scale, "scale")
    a, b = 1 / (4 * scale**2), 1 / (2 * lengthscale**2)
    c = math.sqrt(a**2 + 2 * a * b)
    total = a + b + c

    def eigenfunctions(x: Tensor) -> Float[Tensor, "m n"]:
        _validate.line(x, "x")
        point = x.double().reshape(-1)
        # Recurrence for h_k = H_k / sqrt(2^k k!), which grows like exp(c x^2) before it meets the
        # factor exp(-(c - a) x^2): the running size of h_k is kept as a logarithm.
        logarithm = math.log(c / a) / 4 - (c - a) * point**2
        previous, current = torch.zeros_like(point), torch.ones_like(point)
        columns = [logarithm.exp()]
        for k in range(1, n):
            following = math.sqrt(4 * c / k) * point * current - math.sqrt((k - 1) / k) * previous
            size = following.detach().abs().clamp(min=1)
            previous, current = current / size, following / size
            logarithm = logarithm + size.log()
            columns.append(current * logarithm.exp())
        return torch.stack(columns, dim=1).to(x.dtype)

    powers = (b / total) ** torch.arange(n, dtype=torch.float64, device=device)
    return Expansion(math.sqrt(2 * a / total) * powers, eigenfunctions)


def funk_hecke(
    profile: kernels.Profile, dim: int, max_degree: int, *, device: torch.device | str = "cpu"
) -> FunkHecke:
    r"""Eigenvalues of :math:`\kappa(x^\top y)` under the uniform law of :math:`S^{d-1}`, by degree.

    The eigenfunctions of degree :math:`\ell` are the spherical harmonics, and

    .. math:: \lambda_\ell = \frac{\Gamma(d/2)}{\sqrt\pi\, \Gamma((d-1)/2)} \int_{-1}^1 \kappa(t)
        \frac{C_\ell^{d/2-1}(t)}{C_\ell^{d/2-1}(1)} (1 - t^2)^{(d-3)/2} dt

    with Chebyshev polynomials in place of :math:`C_\ell^0` for d = 2; the eigenspace has dimension
    :math:`N(d, \ell)`. A classical result of Funk (1916) and Hecke (1918). The integral is a Gauss
    sum whose nodes are doubled until it settles: to rounding of the largest eigenvalue for profiles
    that are smooth in the distance, slowly for others.

    Parameters
    ----------
    profile
        A function of inner products, such as those of `cltheory.kernels`.
    dim
        d, at least 2.
    max_degree
        The largest degree, at least 0.

    Returns
    -------
    FunkHecke
        ``eigenvalues`` and ``multiplicities``, both of shape (max_degree + 1,).

    Raises
    ------
    ValueError
        If `dim` or `max_degree` is out of range or a multiplicity exceeds 64 bits.

    Warns
    -----
    RuntimeWarning
        If the integral has not settled to nine digits at `QUADRATURE_NODES` nodes.

    Examples
    --------
    >>> eigenvalues, multiplicities = funk_hecke(lambda t: (1 + t) ** 2, dim=2, max_degree=2)
    >>> eigenvalues, multiplicities
    (tensor([1.5000, 1.0000, 0.2500], dtype=torch.float64), tensor([1, 2, 2]))
    """
    _validate.integer(dim, "dim", 2)
    _validate.integer(max_degree, "max_degree", 0)
    multiplicities = [sphere.harmonic_multiplicity(dim, degree) for degree in range(max_degree + 1)]
    if multiplicities[-1] > torch.iinfo(torch.int64).max:
        raise ValueError(
            f"max_degree must keep multiplicities below 2^63, got {max_degree} in dimension {dim}"
        )
    degrees = np.arange(max_degree + 1)[:, None]
    alpha = (dim - 3) / 2

    def integrate(nodes: int) -> np.ndarray:
        # In the angle, powers of the distance r = 2 sin(angle / 2) are as smooth as those of t.
        x, weights = roots_legendre(nodes)
        angle = (1 + x) * (math.pi / 2)
        t, weights = np.cos(angle), weights * np.sin(angle) ** (dim - 2)
        harmonics = eval_jacobi(degrees, alpha, alpha, t) / eval_jacobi(degrees, alpha, alpha, 1.0)
        eigenvalues: np.ndarray = harmonics @ (profile(torch.from_numpy(t)).numpy() * weights)
        eigenvalues /= weights.sum()
        return eigenvalues

    nodes = 64 + 2 * max_degree
    eigenvalues, error = integrate(nodes), math.inf
    while error > 1e-12 and nodes < QUADRATURE_NODES:
        nodes *= 2
        before, eigenvalues = eigenvalues, integrate(nodes)
        error = float(np.abs(eigenvalues - before).max() / np.abs(eigenvalues).max())
    if not error <= 1e-9:
        warnings.warn(
            f"profile: the integral has settled to {error:.1g} only: is it singular?",
            RuntimeWarning,
            stacklevel=2,
        )
    return FunkHecke(
        torch.from_numpy(eigenvalues).to(device),
        torch.tensor(multiplicities, device=device),
    )
