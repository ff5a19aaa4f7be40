r"""The function space of a kernel on a finite set: inner product, projection, ridge regression.

On n points a function is the vector of its values, and the space of a positive semidefinite Gram
matrix K is its range, with :math:`\langle K\alpha, K\beta \rangle = \alpha^\top K \beta` [1]_.

References
----------
.. [1] Aronszajn, N. (1950). Theory of reproducing kernels. Transactions of the American
   Mathematical Society 68. Theorem numbers unknown.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate
from cltheory.kernels import require_psd


def project(
    gram: Float[Tensor, "n n"], f: Float[Tensor, " n"], *, rtol: float | None = None
) -> Float[Tensor, " n"]:
    r"""Nearest member of the function space, :math:`K K^+ f`; `rtol` as in `inner`.

    Examples
    --------
    >>> project(torch.ones(2, 2), torch.tensor([1.0, 3.0]))
    tensor([2.0000, 2.0000])
    """
    near = gram @ (_pseudo_inverse(gram, rtol) @ _values(f, "f", gram))
    inverses, vectors = _inverse_eigenvalues(gram, rtol)
    return _restored(near, vectors @ ((inverses != 0) * (vectors.mT @ f)))


def inner(
    gram: Float[Tensor, "n n"],
    f: Float[Tensor, " n"],
    g: Float[Tensor, " n"],
    *,
    rtol: float | None = None,
) -> Float[Tensor, ""]:
    r"""Inner product :math:`\langle f, g \rangle = f^\top K^+ g` of two functions on n points.

    Membership is not checked: what of `f` and `g` lies outside the range of K does not count.

    Parameters
    ----------
    gram
        Gram matrix K, positive semidefinite; it may be rank-deficient.
    f, g
        Values at the points.
    rtol
        Eigenvalues of K up to `rtol` times the largest count as zero; n times machine epsilon
        unless given.

    Raises
    ------
    ValueError
        If K is not positive semidefinite, or `f` or `g` has another shape or is not finite.

    Examples
    --------
    >>> K = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> inner(K, K[0], K[1])  # reproducing: k(x_0, x_1)
    tensor(1.0000)
    """
    near = _values(f, "f", gram) @ (_pseudo_inverse(gram, rtol) @ _values(g, "g", gram))
    inverses, vectors = _inverse_eigenvalues(gram, rtol)
    return _restored(near, (vectors.mT @ f * inverses) @ (vectors.mT @ g))


def norm(
    gram: Float[Tensor, "n n"], f: Float[Tensor, " n"], *, rtol: float | None = None
) -> Float[Tensor, ""]:
    r"""Norm :math:`\sqrt{f^\top K^+ f}`; arguments and errors as in `inner`.

    Examples
    --------
    >>> norm(torch.tensor([[4.0]]), torch.tensor([6.0]))
    tensor(3.)
    """
    square = inner(gram, f, f, rtol=rtol)
    # At zero the root has no derivative; as that of torch.linalg.norm, it counts as zero.
    vanishes = square <= 0
    return torch.where(vanishes, 0, torch.where(vanishes, 1, square).sqrt())


def kernel_ridge(
    gram: Float[Tensor, "m m"], targets: Float[Tensor, "m *outputs"], ridge: float
) -> Float[Tensor, "m *outputs"]:
    r"""Coefficients :math:`\alpha = (K + m\,\text{ridge}\,I)^{-1} y` of kernel ridge regression.

    :math:`f = \sum_i \alpha_i k(x_i, \cdot)` minimises
    :math:`\frac1m \sum_i (y_i - f(x_i))^2 + \text{ridge}\,|f|^2` over the function space of k.
    With targets of shape (m, outputs), each column is a problem of its own.

    Raises
    ------
    ValueError
        If K is not positive semidefinite, the targets do not fit it, or the ridge is not above 0.

    Examples
    --------
    >>> kernel_ridge(torch.eye(2), torch.tensor([2.0, 4.0]), ridge=0.5)
    tensor([1., 2.])
    """
    require_psd(gram)
    _validate.positive(ridge, "ridge")
    _validate.values(targets, "targets", len(gram), columns=True)
    penalty = torch.diag(gram.new_full((len(gram),), len(gram) * ridge))
    alpha: Tensor = torch.linalg.solve(gram + penalty, targets)
    return alpha


def _pseudo_inverse(gram: Tensor, rtol: float | None) -> Tensor:
    require_psd(gram)
    inverse: Tensor = torch.linalg.pinv(gram, rtol=rtol, hermitian=True)
    return inverse


def _inverse_eigenvalues(gram: Tensor, rtol: float | None) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of K^+ and their vectors; zero where K's count as zero."""
    values, vectors = torch.linalg.eigh(gram.detach())
    share = len(gram) * torch.finfo(gram.dtype).eps if rtol is None else rtol
    kept = values.abs() > share * values.abs().max()
    return torch.where(kept, 1 / torch.where(kept, values, 1), 0), vectors


def _restored(near: Tensor, value: Tensor) -> Tensor:
    """Return a value by eigenvectors, with the derivative of the same by K^+.

    A small eigenvalue costs K^+ its digits and the eigenvectors none; but where eigenvalues
    meet, eigenvectors have no derivative.
    """
    return near + (value - near).detach()


def _values(f: Tensor, name: str, gram: Tensor) -> Tensor:
    _validate.square(gram, "gram")
    _validate.values(f, name, len(gram))
    return f
