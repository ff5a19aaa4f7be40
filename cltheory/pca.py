r"""Trace maximisation over orthonormal readouts, without matrices of the size of the network.

Under the linear dot triplet loss, :math:`L = -\mathrm{tr}(W^\top C W)` with the symmetric matrix
:math:`C = B^\top S B`, where B (n, M) holds features, :math:`M^{-1/2} \varphi(V x)`, and S (n, n)
is :func:`cltheory.triplets.matrix`. C is M x M, of rank n at most, and is never formed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate


class Eigenspace(NamedTuple):
    """The leading eigenspace of C: vectors in columns, eigenvalues that may differ from 0.

    Examples
    --------
    >>> values, vectors, gap = eigenspace(torch.eye(2), torch.diag(torch.tensor([3.0, 1.0])), 1)
    >>> values, gap
    (tensor([3., 1.]), tensor(2.))
    """

    values: Float[Tensor, "*stack n"]
    vectors: Float[Tensor, "*stack width rank"]
    gap: Float[Tensor, "*stack"]


def eigenspace(
    features: Float[Tensor, "*stack n width"], middle: Float[Tensor, "n n"], rank: int
) -> Eigenspace:
    r"""Find the eigenvectors of :math:`B^\top S B` to its largest eigenvalues.

    They span the maximiser of :math:`\mathrm{tr}\, W^\top C W` over :math:`W^\top W = I`, whose
    value is the sum of the largest eigenvalues (Ky Fan). It costs :math:`O(M n^2)`, in memory
    :math:`O(M n)`.

    Parameters
    ----------
    features
        B, with at least as many columns as rows.
    middle
        S, symmetric.
    rank
        How many eigenvectors; at most the number of positive eigenvalues, for below them the
        null space of C comes next.

    Returns
    -------
    Eigenspace
        ``values``, the n eigenvalues on the row space of B, descending; ``vectors``; and ``gap``,
        from eigenvalue `rank` of C to the next, which may be zero.

    Raises
    ------
    ValueError
        If a shape does not fit, S is not symmetric, or `rank` exceeds the number of positive
        eigenvalues.

    References
    ----------
    .. [1] Fan, On a theorem of Weyl concerning eigenvalues I, PNAS 1949.
    .. [2] arXiv 2403.08673, section 4 (number unknown).

    Examples
    --------
    >>> found = eigenspace(torch.eye(2, 3), torch.diag(torch.tensor([1.0, -2.0])), 1)
    >>> found.values, found.vectors.abs().T, found.gap
    (tensor([ 1., -2.]), tensor([[1., 0., 0.]]), tensor(1.))
    """
    n, width = _shape(features, middle)
    _validate.integer(rank, "rank", 1, n)
    if width < n:
        raise ValueError(f"features must have at least as many columns as rows, got {n} x {width}")
    basis, corner = torch.linalg.qr(features.mT)
    values, vectors = torch.linalg.eigh(corner @ middle @ corner.mT)
    values, vectors = values.flip(-1), vectors.flip(-1)
    floor = 1e-13 if values.dtype == torch.float64 else 1e-5
    positive = int((values > floor * values.abs().amax(-1, keepdim=True)).sum(-1).min())
    if rank > positive:
        raise ValueError(f"rank must be at most {positive}, the positive eigenvalues, got {rank}")
    # C has further eigenvalues zero, unless B is square.
    below = values[..., rank] if rank < n else values[..., 0] * 0
    gap = values[..., rank - 1] - (below if width == n else below.clamp(min=0))
    return Eigenspace(values, basis @ vectors[..., :rank], gap)


def change(
    before: Float[Tensor, "*stack n width"],
    after: Float[Tensor, "*stack n width"],
    middle: Float[Tensor, "n n"],
) -> Float[Tensor, "*stack"]:
    r"""Compute the Frobenius norm of the change of C, :math:`\|B'^\top S B' - B^\top S B\|_F`.

    With :math:`D = B' - B` and :math:`E = (B + B') / 2` the change is
    :math:`D^\top S E + E^\top S D`, whose norm needs n x n products alone and loses no digits where
    B' is close to B.

    Parameters
    ----------
    before, after
        B and B'.
    middle
        S, symmetric.

    Raises
    ------
    ValueError
        If a shape does not fit or S is not symmetric.

    Examples
    --------
    >>> change(torch.zeros(1, 2), torch.ones(1, 2), torch.eye(1))
    tensor(2.)
    """
    _shape(before, middle)
    if before.shape != after.shape:
        raise ValueError(
            f"after must have the shape of before, {tuple(before.shape)}, got {tuple(after.shape)}"
        )
    moved, mean = after - before, (before + after) / 2
    cross = middle @ (mean @ moved.mT)
    spread = middle @ (mean @ mean.mT) @ middle @ (moved @ moved.mT)
    trace = (cross * cross.mT).sum((-2, -1)) + spread.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (2 * trace).clamp(min=0).sqrt()


def principal_angles(
    u: Float[Tensor, "*stack n k"], v: Float[Tensor, "*stack n k"]
) -> Float[Tensor, "*stack k"]:
    r"""Compute the principal angles between two subspaces, ascending, in radians.

    Small angles are found from their sines and large ones from their cosines, so that none loses
    digits; :math:`\|\sin\Theta\|_F` is ``principal_angles(u, v).sin().norm(dim=-1)``.

    Parameters
    ----------
    u, v
        Orthonormal bases in columns.

    Raises
    ------
    ValueError
        If the shapes differ, or the columns are not orthonormal.

    References
    ----------
    .. [1] Björck, Golub, Numerical methods for computing angles between linear subspaces,
       Mathematics of Computation 1973.

    Examples
    --------
    >>> principal_angles(torch.eye(3)[:, :2], torch.eye(3)[:, [0, 2]])
    tensor([0.0000, 1.5708])
    """
    orthonormal(u, "u")
    orthonormal(v, "v")
    if u.shape[-2:] != v.shape[-2:]:
        raise ValueError(f"u and v must have one shape, got {tuple(u.shape)} and {tuple(v.shape)}")
    overlap = u.mT @ v
    cosines = torch.linalg.svdvals(overlap)
    sines = torch.linalg.svdvals(v - u @ overlap).flip(-1)
    return torch.where(cosines**2 < 0.5, cosines.clamp(max=1).acos(), sines.clamp(max=1).asin())


def orthonormal(w: Float[Tensor, "*stack n k"], name: str) -> None:
    r"""Require orthonormal columns, :math:`\max |W^\top W - I| \le 100 \sqrt{n}\,\epsilon`.

    Raises
    ------
    ValueError
        With the deviation, if they are not.

    Examples
    --------
    >>> orthonormal(2 * torch.eye(3), "readout")
    Traceback (most recent call last):
    ValueError: readout must have orthonormal columns, got some off by 3
    """
    if w.ndim < 2 or w.shape[-1] > w.shape[-2]:
        raise ValueError(f"{name} must have orthonormal columns, got shape {tuple(w.shape)}")
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    off = (w.detach().mT @ w.detach() - eye).abs().max()
    if not _validate.holds(off <= 100 * w.shape[-2] ** 0.5 * torch.finfo(w.dtype).eps):
        raise ValueError(f"{name} must have orthonormal columns, got some off by {float(off):.3g}")


def _shape(features: Tensor, middle: Tensor) -> tuple[int, int]:
    _validate.symmetric(middle, "middle")
    if features.ndim < 2 or features.shape[-2] != len(middle):
        raise ValueError(
            f"features must have one row for each of the {len(middle)} of middle, "
            f"got shape {tuple(features.shape)}"
        )
    return features.shape[-2], features.shape[-1]
