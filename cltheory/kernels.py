r"""Positive semidefinite kernels and their Gram matrices.

A kernel is a function of two point sets that returns the matrix of its values:
``rbf(bandwidth=1.0)(x, y)`` has shape (n, m). A *profile* is a kernel on the sphere written as a
function of the inner product :math:`t`, where :math:`r^2 = 2 - 2t` is the squared distance;
`on_sphere` turns it into a kernel of two point sets. Those that are written in the distance come as
a `Radial`, which takes :math:`r^2` itself where close points would lose digits in :math:`2 - 2t`.
Each docstring ends with what the cards of the book show: whether the kernel is *positive
semidefinite*; the *Gegenbauer signs*, those of its eigenvalues :math:`\lambda_\ell` on the sphere,
by degree; what its *bandwidth* means. A parameter out of its range, or points that do not fit the
kernel, raise a ValueError that names them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate

Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of n points and m points that returns the matrix (n, m) of its values."""
Profile: TypeAlias = Callable[[Tensor], Tensor]
"""A function of inner products on the sphere, entry by entry."""


@dataclass(frozen=True)
class Radial:
    r"""A profile :math:`\kappa(t) = \rho(2 - 2t)`, with :math:`\rho` a function of :math:`r^2`.

    Attributes
    ----------
    of_square
        :math:`\rho`, entry by entry.
    slope
        Its derivative, from :math:`r^2` and the values of :math:`\rho`; autograd finds it if there
        is none, at five times the cost.

    Examples
    --------
    >>> near = Radial(lambda r2: -r2.sqrt())
    >>> near(torch.tensor([0.5])), near.of_square(torch.tensor([1e-12]))
    (tensor([-1.]), tensor([-1.0000e-06]))
    """

    of_square: Profile
    slope: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, t: Tensor) -> Tensor:
        """Evaluate at inner products of unit rows; one above 1 by rounding counts as 1."""
        square = 2 - 2 * t
        return self.of_square(square - square.detach().clamp(max=0))


MEDIAN_POINTS = 2048
"""`median_bandwidth` looks at no more points than this, so that its pairs fit in memory."""


def rbf(bandwidth: float) -> Kernel:
    r"""Gaussian kernel :math:`k(x, y) = \exp(-|x - y|^2 / (2\,\text{bandwidth}^2))`.

    Notes
    -----
    Positive semidefinite
        Yes, on all of :math:`\mathbb R^d`.
    Gegenbauer signs
        Positive for every :math:`\ell \ge 0`: on unit rows it is `gaussian` with
        :math:`a = 1 / (2\,\text{bandwidth}^2)`.
    Bandwidth
        The distance at which the kernel has fallen to :math:`e^{-1/2}`.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> rbf(bandwidth=2.0)(x, x)
    tensor([[1.0000, 0.6065],
            [0.6065, 1.0000]])
    """
    _validate.positive(bandwidth, "bandwidth")

    def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        _validate.rows(x, y)
        # Distances do not see a shift, and near the origin the square loses fewer digits.
        centre, precision = y.detach().mean(0), 1 / bandwidth**2
        x, y = x - centre, y - centre
        of_x, of_y = ((points * points).sum(1) * (precision / 2) for points in (x, y))
        exponent = torch.addmm(-of_y, x, y.mT, alpha=precision) - of_x[:, None]
        # Take away what rounding left above zero, but not its graph: all derivatives stay right.
        return torch.exp(exponent - exponent.detach().clamp(min=0))

    return kernel


def polynomial(degree: int, offset: float = 1.0) -> Kernel:
    r"""Polynomial kernel :math:`k(x, y) = (x^\top y + \text{offset})^{\text{degree}}`.

    The degree is at least 1, and the offset at least 0.

    Notes
    -----
    Positive semidefinite
        Yes, for every offset of at least 0; below, not.
    Gegenbauer signs
        Positive up to :math:`\ell = \text{degree}` and 0 beyond; with the offset 0, of the degree's
        parity only.
    Bandwidth
        None. A larger offset gives low degrees more weight.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> polynomial(degree=2)(x, x)
    tensor([[36.]])
    """
    _validate.integer(degree, "degree", 1)
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset must be a finite number of at least 0, got {offset}")

    def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        _validate.rows(x, y)
        return (x @ y.mT + offset) ** degree

    return kernel


def linear() -> Kernel:
    r"""Linear kernel :math:`k(x, y) = x^\top y`.

    Notes
    -----
    Positive semidefinite
        Yes.
    Gegenbauer signs
        Positive for :math:`\ell = 1`, where it is :math:`\frac 1 d`, and 0 elsewhere.
    Bandwidth
        None.

    Examples
    --------
    >>> linear()(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    return polynomial(degree=1, offset=0.0)


def brownian() -> Kernel:
    r"""Covariance of Brownian motion, :math:`k(x, y) = \min(x, y)` for numbers :math:`\ge 0`.

    The points have shape (n,) or (n, 1).

    Notes
    -----
    Positive semidefinite
        Yes, for numbers of at least 0.
    Gegenbauer signs
        None: its points are numbers.
    Bandwidth
        None: :math:`k(cx, cy) = c\, k(x, y)`.

    Examples
    --------
    >>> x = torch.tensor([0.25, 0.75])
    >>> brownian()(x, x)
    tensor([[0.2500, 0.2500],
            [0.2500, 0.7500]])
    """

    def kernel(x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
        for points, name in ((x, "x"), (y, "y")):
            _validate.line(points, name)
            if not _validate.holds((points >= 0).all()):
                raise ValueError(f"{name} must not be negative, got {float(points.min()):.3g}")
        return torch.minimum(x.reshape(-1, 1), y.reshape(1, -1))

    return kernel


def median_bandwidth(x: Float[Tensor, "n d"]) -> float:
    r"""Median of the pairwise distances :math:`|x_i - x_j|`, :math:`i < j`, a usual bandwidth.

    From more than `MEDIAN_POINTS` points, so many or fewer at even steps through the set.

    Raises
    ------
    ValueError
        If there are fewer than two points, or if half of the pairs coincide.

    Examples
    --------
    >>> median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    _validate.points(x, "x", least=2)
    _validate.rows(x, x)
    median = float(torch.pdist(x.detach()[:: math.ceil(len(x) / MEDIAN_POINTS)]).median())
    if median == 0:
        raise ValueError("x must hold distinct points, got half of the pairs at distance 0")
    return median


def gaussian(a: float) -> Radial:
    r"""Profile :math:`\kappa(t) = e^{-a r^2}` for :math:`a > 0`.

    Notes
    -----
    Positive semidefinite
        Yes, in every dimension.
    Gegenbauer signs
        Positive for every :math:`\ell \ge 0`.
    Bandwidth
        At :math:`r = 1 / \sqrt{2a}` it has fallen to :math:`e^{-1/2}`.

    Examples
    --------
    >>> gaussian(a=0.5)(torch.tensor([1.0, 0.0]))
    tensor([1.0000, 0.3679])
    """
    _validate.positive(a, "a")
    return Radial(lambda r2: torch.exp(-a * r2), lambda r2, value: -a * value)


def logarithmic(a: float) -> Radial:
    r"""Profile :math:`\kappa(t) = -\tfrac12 \log(1 + a r^2)` for :math:`a > 0`.

    Notes
    -----
    Positive semidefinite
        Up to a constant only: its mean over the sphere is negative.
    Gegenbauer signs
        Positive for every :math:`\ell \ge 1`; :math:`\lambda_0 < 0`.
    Bandwidth
        At :math:`r = 1 / \sqrt a` it turns from a parabola, :math:`-\frac a2 r^2`, to a logarithm.

    Examples
    --------
    >>> logarithmic(a=1.0)(torch.tensor([0.0, -1.0]))
    tensor([-0.5493, -0.8047])
    """
    _validate.positive(a, "a")

    def of_square(r2: Tensor) -> Tensor:
        # log1p takes thrice the time, and float32 distances have no digits that log(1 + .) loses.
        return -0.5 * (torch.log(1 + a * r2) if r2.dtype == torch.float32 else torch.log1p(a * r2))

    return Radial(of_square, lambda r2, value: -0.5 * (r2 + 1 / a).reciprocal())


def inverse_multiquadric(c: float) -> Radial:
    r"""Profile :math:`\kappa(t) = c / \sqrt{c^2 + r^2}` for :math:`c > 0`.

    Notes
    -----
    Positive semidefinite
        Yes, in every dimension.
    Gegenbauer signs
        Positive for every :math:`\ell \ge 0`.
    Bandwidth
        At :math:`r = c` it has fallen to :math:`1 / \sqrt 2`.

    Examples
    --------
    >>> inverse_multiquadric(c=1.0)(torch.tensor([1.0, -1.0]))
    tensor([1.0000, 0.4472])
    """
    _validate.positive(c, "c")
    return Radial(lambda r2: c * torch.rsqrt(c**2 + r2), lambda r2, value: value**3 / (-2 * c**2))


def riesz(s: float) -> Radial:
    r"""Profile :math:`\kappa(t) = \operatorname{sign}(s)\, r^{-s}` for :math:`s \ne 0`.

    For :math:`s > 0` it is infinite at :math:`t = 1`.

    Notes
    -----
    Positive semidefinite
        For :math:`-2 \le s < 0` up to a constant, below :math:`-2` not even that. For
        :math:`0 < s < d - 1` its energy is that of a positive definite kernel, though it is
        infinite on the diagonal.
    Gegenbauer signs
        For :math:`0 < s < d - 1` positive for every :math:`\ell \ge 0`. For :math:`-2 < s < 0`
        positive for every :math:`\ell \ge 1`; :math:`\lambda_0 < 0`. At :math:`s = -2` only
        :math:`\lambda_1` is positive, below :math:`\lambda_2 < 0`.
    Bandwidth
        None: a power has no scale.

    Examples
    --------
    >>> riesz(s=1.0)(torch.tensor([-1.0, 0.5]))
    tensor([0.5000, 1.0000])
    """
    if s == 0 or not math.isfinite(s):
        raise ValueError(f"s must be finite and not 0, got {s}")
    sign = math.copysign(1.0, s)
    return Radial(
        lambda r2: sign * r2 ** (-s / 2), lambda r2, value: (-s / 2 * value) * r2.reciprocal()
    )


def exponential(temperature: float) -> Profile:
    r"""Profile :math:`\kappa(t) = e^{t / \text{temperature}}`, the kernel inside InfoNCE.

    Notes
    -----
    Positive semidefinite
        Yes, in every dimension.
    Gegenbauer signs
        Positive for every :math:`\ell \ge 0`.
    Bandwidth
        It falls by the factor e as t falls by the temperature: a multiple of `gaussian` with
        :math:`a = 1 / (2\,\text{temperature})`.

    Examples
    --------
    >>> exponential(temperature=0.5)(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 7.3891])
    """
    _validate.positive(temperature, "temperature")
    return lambda t: torch.exp(t / temperature)


def on_sphere(profile: Profile) -> Kernel:
    r"""Kernel of two sets of unit rows, :math:`k(x, y) = \kappa(x^\top y)`.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> on_sphere(gaussian(a=0.5))(x, x)
    tensor([[1.0000, 0.3679],
            [0.3679, 1.0000]])
    """

    def kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        _validate.rows(x, y)
        for points, name in ((x, "x"), (y, "y")):
            _validate.unit_rows(points, name)
        return profile(x @ y.mT)

    return kernel


def gram(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> Float[Tensor, "n m"]:
    r"""Matrix :math:`K_{ij} = k(x_i, y_j)`, of shape (n, m); with one set :math:`k(x_i, x_j)`.

    Raises
    ------
    ValueError
        If a set is empty or holds entries that are not finite, or if the kernel returns a matrix
        of another shape.

    Examples
    --------
    >>> gram(linear(), torch.tensor([[1.0], [2.0]]))
    tensor([[1., 2.],
            [2., 4.]])
    """
    _validate.points(x, "x")
    if y is None:
        y = x
    else:
        _validate.points(y, "y")
    values = kernel(x, y)
    if values.shape != (len(x), len(y)):
        raise ValueError(
            f"kernel must return a matrix of shape {(len(x), len(y))}, got {tuple(values.shape)}"
        )
    return values


def centre(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    r"""Gram matrix of the centred features, :math:`HKH` with :math:`H = I - 11^\top / n`.

    Examples
    --------
    >>> centre(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]])
    """
    _validate.square(gram, "gram")
    return gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()


def squared_distances(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    r"""Squared distances between the features, :math:`D^2_{ij} = K_{ii} + K_{jj} - 2 K_{ij}`.

    Examples
    --------
    >>> squared_distances(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    tensor([[0., 1.],
            [1., 0.]])
    """
    _validate.square(gram, "gram")
    norms = gram.diagonal()
    return norms[:, None] + norms - 2 * gram


def require_psd(
    gram: Float[Tensor, "n n"], name: str = "gram", *, rtol: float | None = None
) -> None:
    r"""Raise unless the matrix is symmetric and :math:`\lambda_{\min} \ge -\text{rtol}\,|K|`.

    Here :math:`|K|` is the largest absolute eigenvalue, and `rtol` the square root of machine
    epsilon unless given. Where a Cholesky factorisation settles it, no eigenvalue is computed.

    Raises
    ------
    ValueError
        If the matrix is not square, finite and symmetric; if it is indefinite, with its most
        negative eigenvalue.

    Examples
    --------
    >>> require_psd(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    Traceback (most recent call last):
    ValueError: gram must be positive semidefinite, got -1 as its most negative eigenvalue
    """
    _validate.symmetric(gram, name)
    gram = gram.detach()
    rtol = _validate.tolerance(gram.dtype) if rtol is None else rtol
    # The largest entry of the diagonal is below |K|: a factor here proves more than is asked.
    shift = rtol * gram.diagonal().amax().clamp(min=0)
    _, failed = torch.linalg.cholesky_ex(gram + torch.diag(shift.expand(len(gram))))
    if not _validate.holds(failed == 0):
        _validate.spectrum(torch.linalg.eigvalsh(gram), name, rtol)


def is_psd(gram: Float[Tensor, "n n"], *, rtol: float | None = None) -> bool:
    """Whether `require_psd` lets the matrix pass.

    Examples
    --------
    >>> is_psd(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    False
    """
    try:
        require_psd(gram, rtol=rtol)
    except ValueError:
        return False
    return True
