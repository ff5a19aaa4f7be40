r"""Networks that learn the eigenfunctions of a kernel: NeuralEF and Neural Eigenmap.

A kernel :math:`k` and a law :math:`p` give the integral operator
:math:`(A f)(x) = E\,k(x, X) f(X)` on :math:`L^2(p)`. Its compression to functions
:math:`\psi_1, \dots, \psi_k` is

.. math:: R_{ij} = \langle \psi_i, A \psi_j \rangle = E\,\psi_i(X) k(X, X') \psi_j(X').

Everything here takes the values of :math:`\psi` on finitely many points that carry the law. In the
losses these are function values with :math:`E \psi_j^2 = 1`; in the directions they are Euclidean
unit columns, and the operator is a symmetric matrix. The two meet at
:math:`\sqrt{w_a}\,\psi_j(x_a)` and :math:`\sqrt{w_a} k(x_a, x_b) \sqrt{w_b}`; for the empirical
law, :math:`w_a = 1/n`. Shapes that do not fit each other and values out of range raise a
ValueError that names them.

References
----------
Z. Deng, J. Shi, J. Zhu, "NeuralEF: Deconstructing Kernels by Deep Neural Networks", 2022,
arXiv 2205.00165. Z. Deng et al., "Neural Eigenfunctions Are Structured Representation Learners",
2022, arXiv 2210.12637.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from cltheory import _validate


def l2_normalise(
    psi: Float[Tensor, "n k"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "n k"]:
    r"""Scale columns to :math:`\sum_a w_a \psi_j(x_a)^2 = 1`, with :math:`w_a = 1/n` by default.

    On a mini-batch this is the normalisation of NeuralEF (Deng, Shi and Zhu 2022, arXiv
    2205.00165). Gradients flow through the norm; a column that vanishes becomes NaN.

    Examples
    --------
    >>> l2_normalise(torch.tensor([[3.0], [4.0]])).square().mean().item()
    1.0
    """
    _columns(psi, weights)
    square = psi.square()
    moment = square.mean(0) if weights is None else weights @ square
    return psi / moment.sqrt()


def rayleigh(
    psi: Float[Tensor, "n k"],
    gram: Float[Tensor, "n n"],
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "k k"]:
    r"""Compression of the kernel operator to the columns of ``psi``.

    .. math:: R_{ij} = \sum_{a,b} w_a w_b\, \psi_i(x_a) k(x_a, x_b) \psi_j(x_b)

    With :math:`w_a = 1/n`, the default, :math:`R = \psi^\top K \psi / n^2`. Where the columns are
    eigenfunctions of unit second moment, its diagonal holds their eigenvalues.

    Parameters
    ----------
    psi : Tensor, shape (n, k)
        Function values on the points.
    gram : Tensor, shape (n, n)
        The kernel on the points, symmetric and positive semidefinite.
    weights : Tensor, shape (n,), optional
        Weights of a quadrature of the law, with sum one.

    Examples
    --------
    >>> rayleigh(torch.tensor([[1.0], [1.0]]), torch.eye(2)).item()
    0.5
    """
    weighted = _weighted(psi, gram, weights)
    return weighted.mT @ gram @ weighted


def neuralef_loss(
    psi: Float[Tensor, "n k"],
    gram: Float[Tensor, "n n"],
    weights: Float[Tensor, " n"] | None = None,
    *,
    stop_gradient: bool = True,
) -> Float[Tensor, ""]:
    r"""NeuralEF's loss: each function climbs its own deflated Rayleigh quotient.

    .. math:: L = -\sum_j \Big( R_{jj} - \sum_{i<j} \frac{R_{ij}^2}{R_{ii}} \Big)

    with :math:`R` from :func:`rayleigh` and the earlier :math:`\psi_i, i < j`, held constant in the
    second term. The gradient with respect to :math:`\psi_j` is then
    :math:`-2 W (K W \psi_j - \sum_{i<j} (R_{ij}/R_{ii}) K W \psi_i)`, with :math:`W` the diagonal
    matrix of the weights: minus twice :func:`neuralef_direction`.

    Among unit columns the only stable point of that field is
    :math:`\pm(\phi_1, \dots, \phi_k)` in the order of the eigenvalues, if
    :math:`\lambda_1 > \dots > \lambda_k > \lambda_{k+1}`; the value there is
    :math:`-\sum_j \lambda_j`. Where eigenvalues coincide, only their eigenspace is determined.
    Without the stop-gradient every order of the first k is a local minimum, and from three
    functions on the global one can be none of them.

    Parameters
    ----------
    psi, gram, weights
        As in :func:`rayleigh`; columns as :func:`l2_normalise` leaves them.
    stop_gradient : bool
        Whether earlier functions are held constant, as the method asks.

    References
    ----------
    Deng, Shi and Zhu 2022, arXiv 2205.00165 (number unknown).

    Examples
    --------
    The loss at the eigenvectors of ``diag(3, 2, 1)`` is minus the sum of its eigenvalues:

    >>> psi = l2_normalise(torch.eye(3))
    >>> loss = neuralef_loss(psi, 3 * torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> round(loss.item(), 5)
    -6.0
    """
    value, cross = _value_and_cross(psi, gram, weights, stop_gradient)
    scale = _nonzero(value.detach() if stop_gradient else value)
    return (cross.square() / scale[:, None]).triu(1).sum() - value.sum()


def neural_eigenmap_loss(
    psi: Float[Tensor, "n k"],
    gram: Float[Tensor, "n n"],
    weights: Float[Tensor, " n"] | None = None,
    *,
    alpha: float,
) -> Float[Tensor, ""]:
    r"""Neural Eigenmap's loss: NeuralEF's with one weight for every quotient.

    .. math:: L = -\sum_j R_{jj} + \alpha \sum_{i<j} \hat R_{ij}^2

    with :math:`R` from :func:`rayleigh`; the hat holds the earlier :math:`\psi_i` constant. The
    gradient is minus twice :func:`neural_eigenmap_direction`. Where the first ``k + 1`` eigenvalues
    are distinct, the ordered eigenfunctions are its stable point if and only if ``alpha`` exceeds
    :func:`alpha_threshold`; below it, :func:`predicted_order` says which ones appear twice.

    Parameters
    ----------
    psi, gram, weights
        As in :func:`neuralef_loss`.
    alpha : float
        Weight of the second term, at least zero.

    References
    ----------
    Deng et al. 2022, arXiv 2210.12637 (number unknown).

    Examples
    --------
    >>> psi = l2_normalise(torch.eye(2)[:, [0, 0]])
    >>> neural_eigenmap_loss(psi, 2 * torch.eye(2), alpha=0.5).item()
    -1.5
    """
    _not_negative(alpha)
    value, cross = _value_and_cross(psi, gram, weights, stop_gradient=True)
    return alpha * cross.square().triu(1).sum() - value.sum()


def neuralef_direction(
    operator: Float[Tensor, "... n n"], psi: Float[Tensor, "... n k"]
) -> Float[Tensor, "... n k"]:
    r"""Direction in which NeuralEF moves its functions.

    .. math::
        \Delta_j = A \psi_j - \sum_{i<j} \frac{R_{ij}}{R_{ii}} A \psi_i
                 = \Big( A - \sum_{i<j} \frac{A \psi_i \psi_i^\top A}{R_{ii}} \Big) \psi_j,
        \qquad R = \psi^\top A \psi

    Unit columns are a fixed point of the ascent if and only if each :math:`\psi_j` is an
    eigenvector of its symmetric matrix in brackets: eigenvectors of :math:`A` in any order, but
    also any unit vector in the span of earlier ones. The point is stable if each is the top
    eigenvector, and simple, which leaves the ordered eigenvectors alone.

    Parameters
    ----------
    operator : Tensor, shape (..., n, n)
        Symmetric positive semidefinite matrix :math:`A`.
    psi : Tensor, shape (..., n, k)
        Euclidean unit columns.

    Examples
    --------
    Permuted eigenvectors are fixed (unstably), and so is a repeated one:

    >>> operator = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    >>> neuralef_direction(operator, torch.eye(3)[:, [1, 0, 0]]).T
    tensor([[0., 2., 0.],
            [3., 0., 0.],
            [0., 0., 0.]])
    """
    image, compression = _image(operator, psi)
    scale = _nonzero(compression.diagonal(dim1=-2, dim2=-1))
    return image - image @ (compression / scale[..., None]).triu(1)


def neural_eigenmap_direction(
    operator: Float[Tensor, "... n n"], psi: Float[Tensor, "... n k"], *, alpha: float
) -> Float[Tensor, "... n k"]:
    r"""Direction in which Neural Eigenmap moves its functions.

    .. math:: \Delta_j = A \psi_j - \alpha \sum_{i<j} R_{ij} A \psi_i, \qquad R = \psi^\top A \psi

    Parameters
    ----------
    operator, psi
        As in :func:`neuralef_direction`.
    alpha : float
        Weight of the second term, at least zero.

    Examples
    --------
    >>> operator = torch.diag(torch.tensor([2.0, 1.0]))
    >>> neural_eigenmap_direction(operator, torch.eye(2)[:, [0, 0]], alpha=0.5).T
    tensor([[2., 0.],
            [0., 0.]])
    """
    _not_negative(alpha)
    image, compression = _image(operator, psi)
    return image - alpha * image @ compression.triu(1)


def ascend(
    direction: Callable[[Tensor], Tensor],
    psi: Float[Tensor, "... n k"],
    *,
    step: float,
    steps: int,
) -> Float[Tensor, "... n k"]:
    r"""Projected ascent on unit columns, :math:`\psi_j \gets (\psi_j + \eta \Delta_j) / \|\cdot\|`.

    Parameters
    ----------
    direction : callable
        From columns to the directions :math:`\Delta`.
    psi : Tensor, shape (..., n, k)
        Where to start; columns are scaled to norm one first.
    step, steps : float, int
        Step size :math:`\eta` and number of steps. A component whose deflated eigenvalue is below
        :math:`-2/\eta` grows in alternating signs: a large ``alpha`` needs a small step.

    Examples
    --------
    >>> operator = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    >>> start = torch.tensor([[0.1, 0.5], [0.2, 0.1], [0.3, 0.4]])
    >>> psi = ascend(lambda psi: neuralef_direction(operator, psi), start, step=0.5, steps=200)
    >>> torch.allclose(psi.abs(), torch.eye(3)[:, :2], atol=1e-6)
    True
    """
    _validate.positive(step, "step")
    _validate.integer(steps, "steps", 0)
    psi = normalize(psi, dim=-2)
    for _ in range(steps):
        psi = normalize(psi + step * direction(psi), dim=-2)
    return psi


def predicted_order(eigenvalues: Sequence[float] | Tensor, rank: int, alpha: float) -> list[int]:
    r"""Which eigenfunction each of Neural Eigenmap's functions converges to, counted from zero.

    Once the earlier functions have converged, :math:`\psi_j` climbs the Rayleigh quotient of
    :math:`A - \alpha \sum_m n_m \lambda_m^2 q_m q_m^\top`, where :math:`n_m` of them are
    :math:`\pm q_m`. From almost every start it finds

    .. math:: c_j = \arg\max_m \big( \lambda_m - \alpha\, n_m \lambda_m^2 \big).

    Parameters
    ----------
    eigenvalues : sequence of float
        All eigenvalues, at least ``rank``, from the largest down, none negative.
    rank : int
        Number of functions.
    alpha : float
        Weight of the loss, at least zero. Where two candidates tie, the earlier is named.

    Examples
    --------
    >>> [predicted_order([1.0, 0.6, 0.5, 0.2], 3, alpha) for alpha in (0.39, 0.45, 0.55)]
    [[0, 0, 1], [0, 1, 0], [0, 1, 2]]
    """
    values = _leading(eigenvalues, rank)
    _not_negative(alpha)
    counts = [0] * len(values)
    order = []
    for _ in range(rank):
        deflated = [v - alpha * n * v * v for v, n in zip(values, counts, strict=True)]
        best = max(range(len(values)), key=deflated.__getitem__)
        counts[best] += 1
        order.append(best)
    return order


def alpha_threshold(eigenvalues: Sequence[float] | Tensor, rank: int) -> float:
    r"""Weight above which Neural Eigenmap finds the ordered eigenfunctions.

    .. math::
        \alpha^* = \max_{i < j \le k} \frac{\lambda_i - \lambda_j}{\lambda_i^2}
                 = \max_{i < k} \frac{\lambda_i - \lambda_k}{\lambda_i^2}
                 \le \frac{1}{4 \lambda_k}

    Only the last function counts, since the quotient grows as :math:`\lambda_j` falls; the bound
    is the maximum of :math:`(x - \lambda_k) / x^2`, at :math:`x = 2 \lambda_k`.

    Parameters
    ----------
    eigenvalues, rank
        As in :func:`predicted_order`; the first ``rank`` eigenvalues are positive.

    Examples
    --------
    >>> alpha_threshold([1.0, 0.6, 0.5, 0.2], 3)
    0.5
    """
    values = _leading(eigenvalues, rank)[:rank]
    if not values[-1] > 0:
        raise ValueError(f"eigenvalues must be positive up to the {rank}th, got {values}")
    return max((v - values[-1]) / v**2 for v in values)


def cosines(
    psi: Float[Tensor, "n k"],
    reference: Float[Tensor, "n k"],
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " k"]:
    r"""Absolute cosine of each column with its partner.

    .. math:: |\langle \psi_j, \phi_j \rangle| / (\|\psi_j\| \|\phi_j\|), \qquad
              \langle f, g \rangle = \textstyle\sum_a w_a f(x_a) g(x_a)

    A column of zeros has none: nan.

    Examples
    --------
    >>> cosines(torch.tensor([[3.0], [4.0]]), torch.tensor([[-1.0], [0.0]])).item()
    0.6000000238418579
    """
    _pair(psi, reference, weights)
    left, right = l2_normalise(psi, weights), l2_normalise(reference, weights)
    product = left * right
    mean = product.mean(0) if weights is None else weights @ product
    return mean.abs()


def subspace_error(
    psi: Float[Tensor, "n k"],
    reference: Float[Tensor, "n k"],
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    r"""Sine of the largest angle between the spans of two sets of functions.

    .. math:: \sin\theta_{\max} = \| (I - P) Q \|_2 = \| P P^\top - Q Q^\top \|_2

    for orthonormal bases :math:`P, Q` of the two spans in :math:`L^2` of the weights. It does not
    see the basis, so it is the comparison that stays right under degenerate eigenvalues.

    Examples
    --------
    >>> subspace_error(torch.eye(3)[:, :2], torch.eye(3)[:, 1:]).item()
    1.0
    """
    _pair(psi, reference, weights)
    root = 1.0 if weights is None else weights.sqrt()[:, None]
    p, q = (torch.linalg.qr(root * basis).Q for basis in (psi, reference))
    sines: Tensor = torch.linalg.svdvals(q - p @ (p.mT @ q))
    return sines[0]


def _value_and_cross(
    psi: Tensor, gram: Tensor, weights: Tensor | None, stop_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Diagonal of R, and R with its left factor held constant."""
    weighted = _weighted(psi, gram, weights)
    image = gram @ weighted
    left = weighted.detach() if stop_gradient else weighted
    return (weighted * image).sum(0), left.mT @ image


def _image(operator: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
    if psi.ndim < 2 or operator.shape[-2:] != (psi.shape[-2], psi.shape[-2]):
        raise ValueError(
            f"operator must have shape (..., n, n) for psi of shape (..., n, k), got shapes "
            f"{tuple(operator.shape)} and {tuple(psi.shape)}"
        )
    image = operator @ psi
    return image, psi.mT @ image


def _nonzero(diagonal: Tensor) -> Tensor:
    # R_ii = 0 means A psi_i = 0, hence R_ij = 0: the quotient is then zero, not 0 / 0.
    return diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny)


def _weighted(psi: Tensor, gram: Tensor, weights: Tensor | None) -> Tensor:
    _columns(psi, weights)
    if gram.shape != (len(psi), len(psi)):
        wanted = (len(psi), len(psi))
        raise ValueError(f"gram must have shape {wanted}, got shape {tuple(gram.shape)}")
    return psi / len(psi) if weights is None else weights[:, None] * psi


def _columns(psi: Tensor, weights: Tensor | None) -> None:
    if psi.ndim != 2 or psi.numel() == 0:
        raise ValueError(f"psi must be a matrix with one function a column, got {tuple(psi.shape)}")
    if weights is not None and weights.shape != psi.shape[:1]:
        raise ValueError(
            f"weights must have shape {(len(psi),)}, one for each row of psi, got shape "
            f"{tuple(weights.shape)}"
        )


def _pair(psi: Tensor, reference: Tensor, weights: Tensor | None) -> None:
    _columns(psi, weights)
    if psi.shape != reference.shape:
        raise ValueError(
            f"reference must have psi's shape {tuple(psi.shape)}, got shape "
            f"{tuple(reference.shape)}"
        )
    _validate.finite(psi, "psi")
    _validate.finite(reference, "reference")


def _not_negative(alpha: float) -> None:
    if not (isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha must be a finite number of at least 0, got {alpha}")


def _leading(eigenvalues: Sequence[float] | Tensor, rank: int) -> list[float]:
    """Read a spectrum: finite, descending, none negative, and ``rank`` of them there."""
    values = [float(value) for value in eigenvalues]
    if not all(isfinite(v) and v >= 0 for v in values) or values != sorted(values, reverse=True):
        raise ValueError(f"eigenvalues must be finite, descending and not negative, got {values}")
    _validate.integer(rank, "rank", 1, len(values), "there are that many eigenvalues")
    return values
