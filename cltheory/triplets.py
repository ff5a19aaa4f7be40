r"""Triplet losses of an anchor, a positive and a negative, with their gradients by the outputs.

.. math::

    L(F) = \frac1N \sum_{(a, p, q)} \psi\big(s(f_a, f_q) - s(f_a, f_p)\big), \\
    \psi(u) = u \text{ (linear)},\quad \psi(u) = \log(1 + e^u) \text{ (softmax)}

with the similarity :math:`s(f, g) = f^\top g` (dot) or
:math:`s(f, g) = f^\top g / \sqrt{(|f|^2 + \delta)(|g|^2 + \delta)}` (cosine). Outputs may carry
leading dimensions: a stack of networks gives a loss to each. Arguments that do not fit raise a
ValueError that names them.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cltheory import _validate, blockwise

KINDS = ("linear", "softmax")
SIMILARITIES = ("dot", "cosine")

Kind = Literal["linear", "softmax"]
"""The function of the difference of similarities."""
Similarity = Literal["dot", "cosine"]
"""The similarity of two outputs."""


def disjoint(count: int, *, device: torch.device | str = "cpu") -> Int[Tensor, "count 3"]:
    """Return ``count`` triplets of rows that share none, one after another.

    Examples
    --------
    >>> disjoint(2)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    _validate.integer(count, "count", 1)
    return torch.arange(3 * count, device=device).view(count, 3)


def loss(
    f: Float[Tensor, "*stack n dim"],
    triplets: Int[Tensor, "count 3"],
    *,
    kind: Kind = "softmax",
    similarity: Similarity = "cosine",
    delta: float = 0.0,
) -> Float[Tensor, "*stack"]:
    r"""Compute the triplet loss.

    .. math:: \frac 1 N \sum_{(a, p, q)} \psi\bigl(s(f_a, f_q) - s(f_a, f_p)\bigr)

    with :math:`\psi(u) = u` (linear) or :math:`\log(1 + e^u)` (softmax). The linear dot loss is the
    quadratic form :math:`-\mathrm{tr}\, F^\top S F` of :func:`matrix`.

    Parameters
    ----------
    f
        Outputs, one a row.
    triplets
        Rows of anchor, positive and negative.
    kind, similarity
        :math:`\psi` and s.
    delta
        At least 0; the dot product has no use for it. At 0 a row of zeros has no cosine.

    Raises
    ------
    ValueError
        If a name is unknown, delta negative, or a triplet points outside the rows.

    Notes
    -----
    Candidates
        One negative a triplet; :math:`\psi(0)` where all points coincide, 0 or :math:`\log 2`.
    Minimiser
        For disjoint triplets under the cosine with :math:`\delta = 0`: positives in the direction
        of their anchors, negatives in the opposite one. Under the dot product there is none.
    Least value
        :math:`-2` for the linear cosine, :math:`\log(1 + e^{-2})` for its softmax. The linear dot
        loss has no lower bound, the softmax dot loss the infimum 0.
    Limit
        None: a triplet has one negative at every size of the data.
    Gradient
        .. math:: \frac{\partial L}{\partial f_a} = \frac{\psi'} N \Bigl(
           \frac{\partial s(f_a, f_q)}{\partial f_a} - \frac{\partial s(f_a, f_p)}{\partial f_a}
           \Bigr),

        .. math:: \frac{\partial s(f, g)}{\partial f} = \frac g {\sqrt{pq}} - s \frac f p

        for a row of one triplet, with :math:`p = |f|^2 + \delta`, :math:`q = |g|^2 + \delta`; the
        dot product has :math:`\partial s / \partial f = g`. It is what :func:`gradient` computes.
    Batch bias
        :math:`0`
    Cost
        Time and memory :math:`O(n d + N d)`.

    References
    ----------
    .. [1] arXiv 2403.08673, section 2 (its equations are not at hand; these are this book's).

    Examples
    --------
    >>> f = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> loss(f, disjoint(1), kind="linear", similarity="dot")
    tensor(-1.)
    """
    _check(f, triplets, kind, similarity, delta)
    margin = _margin(f, triplets, similarity, delta)
    return (blockwise.softplus(margin) if kind == "softmax" else margin).mean(-1)


def gradient(
    f: Float[Tensor, "*stack n dim"],
    triplets: Int[Tensor, "count 3"],
    *,
    kind: Kind = "softmax",
    similarity: Similarity = "cosine",
    delta: float = 0.0,
) -> Float[Tensor, "*stack n dim"]:
    r"""Compute :math:`\partial L / \partial F` in closed form.

    With :math:`p = |f|^2 + \delta` and :math:`q = |g|^2 + \delta`, the cosine has
    :math:`\partial s / \partial f = g / \sqrt{pq} - s f / p`.

    Parameters and errors are those of :func:`loss`.

    Examples
    --------
    >>> f = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> gradient(f, disjoint(1), kind="linear", similarity="dot")
    tensor([[-1.,  1.],
            [-1.,  0.],
            [ 1.,  0.]])
    """
    _check(f, triplets, kind, similarity, delta)
    anchor, positive, negative = (f[..., row, :] for row in triplets.T)
    weight = torch.full_like(anchor[..., :1], 1 / len(triplets))
    if kind == "softmax":
        weight = weight * torch.sigmoid(_margin(f, triplets, similarity, delta))[..., None]
    to_anchor, to_positive = _slopes(anchor, positive, similarity, delta)
    back_to_anchor, to_negative = _slopes(anchor, negative, similarity, delta)
    total = torch.zeros_like(f)
    total = total.index_add(-2, triplets[:, 0], weight * (back_to_anchor - to_anchor))
    total = total.index_add(-2, triplets[:, 1], -weight * to_positive)
    return total.index_add(-2, triplets[:, 2], weight * to_negative)


def matrix(
    triplets: Int[Tensor, "count 3"], n: int, *, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n n"]:
    r"""Compute the symmetric S of the linear dot loss, :math:`L(F) = -\mathrm{tr}\, F^\top S F`.

    .. math:: S = \frac{1}{2N} \sum_{(a, p, q)} e_a (e_p - e_q)^\top + (e_p - e_q) e_a^\top

    It is indefinite: its trace is zero where no triplet repeats a row.

    Parameters
    ----------
    triplets
        Rows of anchor, positive and negative.
    n
        Number of rows of F.
    dtype
        Of the result.

    Raises
    ------
    ValueError
        If a triplet points outside the n rows.

    Examples
    --------
    >>> matrix(disjoint(1), 3)
    tensor([[ 0.0000,  0.5000, -0.5000],
            [ 0.5000,  0.0000,  0.0000],
            [-0.5000,  0.0000,  0.0000]], dtype=torch.float64)
    """
    _validate.integer(n, "n", 1)
    _indices(triplets, n)
    anchor, positive, negative = triplets.T
    half = torch.zeros(n, n, dtype=dtype, device=triplets.device)
    one = torch.full_like(anchor, 1, dtype=dtype) / (2 * len(triplets))
    half = half.index_put((anchor, positive), one, accumulate=True)
    half = half.index_put((anchor, negative), -one, accumulate=True)
    return half + half.T


def _similar(f: Tensor, g: Tensor, similarity: str, delta: float) -> Float[Tensor, "*stack n"]:
    if similarity == "dot":
        return (f * g).sum(-1)
    # Each by its own size: a product of the sizes leaves the range much earlier.
    return (f / _size(f, delta) * (g / _size(g, delta))).sum(-1)


def _size(f: Tensor, delta: float) -> Float[Tensor, "*stack n 1"]:
    return (f.square().sum(-1, keepdim=True) + delta).sqrt()


def _margin(f: Tensor, triplets: Tensor, similarity: str, delta: float) -> Tensor:
    anchor, positive, negative = (f[..., row, :] for row in triplets.T)
    near = _similar(anchor, positive, similarity, delta)
    return _similar(anchor, negative, similarity, delta) - near


def _slopes(f: Tensor, g: Tensor, similarity: str, delta: float) -> tuple[Tensor, Tensor]:
    """Differentiate s(f, g) by f and by g."""
    if similarity == "dot":
        return g, f
    p, q = _size(f, delta), _size(g, delta)
    f, g = f / p, g / q
    s = (f * g).sum(-1, keepdim=True)
    return (g - s * f) / p, (f - s * g) / q


def _indices(triplets: Tensor, n: int) -> None:
    if triplets.ndim != 2 or triplets.shape[1] != 3 or len(triplets) == 0:
        raise ValueError(f"triplets must have shape (count, 3), got shape {tuple(triplets.shape)}")
    if triplets.dtype != torch.int64:
        raise ValueError(f"triplets must hold row numbers (int64), got {triplets.dtype}")
    if not _validate.holds(((triplets >= 0) & (triplets < n)).all()):
        low, high = int(triplets.min()), int(triplets.max())
        raise ValueError(
            f"triplets must hold row numbers from 0 to {n - 1}, got {low if low < 0 else high}"
        )


def _check(f: Tensor, triplets: Tensor, kind: str, similarity: str, delta: float) -> None:
    if f.ndim < 2:
        raise ValueError(f"f must have shape (n, dim), got shape {tuple(f.shape)}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {list(SIMILARITIES)}, got {similarity!r}")
    if not delta >= 0:
        raise ValueError(f"delta must be at least 0, got {delta}")
    _indices(triplets, f.shape[-2])
