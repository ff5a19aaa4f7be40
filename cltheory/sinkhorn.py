r"""Codes of equal use: the assignment of samples to prototypes that SwAV learns from.

Scores S of B samples and K prototypes become the plan of the entropic transport problem

.. math:: Q^* = \arg\max_Q\; \langle Q, S \rangle + \varepsilon H(Q),\qquad
   Q\,\mathbf 1 = \tfrac 1 B \mathbf 1,\quad Q^\top \mathbf 1 = \tfrac 1 K \mathbf 1,\quad Q \ge 0,

by the iterations of Sinkhorn and Knopp [1]_, which scale the columns of :math:`e^{S/\varepsilon}`,
then its rows, and so on. The row of a sample times B is its code, a law on the prototypes.

>>> scores = torch.tensor([[1.0, 0.9], [1.0, 0.2], [1.0, 0.1], [1.0, 0.0]])
>>> scores.softmax(1).argmax(1).tolist()
[0, 0, 0, 0]
>>> codes(scores, eps=0.05, iterations=50).argmax(1).tolist()
[1, 1, 0, 0]

References
----------
.. [1] Cuturi, M. (2013). Sinkhorn distances: lightspeed computation of optimal transport.
   arXiv:1306.0895. Caron, M., et al. (2020). Unsupervised learning of visual features by
   contrasting cluster assignments. arXiv:2006.09882. Numbers unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate

BLOCK = {"cpu": 2**18, "cuda": 2**26}
"""Entries of a block of rows; on the CPU, one fits in a cache."""


def codes(
    scores: Float[Tensor, "b k"], *, eps: float = 0.05, iterations: int = 3
) -> Float[Tensor, "b k"]:
    r"""Codes of samples after some iterations, in the log domain: rows that sum to 1.

    .. math:: q_{ik} = \operatorname{softmax}_k(S_{ik}/\varepsilon + v_k)

    An iteration is one update of the logarithmic scales v of the prototypes, from
    :math:`v_k = -\log \sum_i e^{S_{ik}/\varepsilon}` on by
    :math:`v_k \leftarrow v_k - \log \sum_i q_{ik}`. Rows are scaled last and exact; each column
    sums to B / K in the limit only, which three iterations are far from at SwAV's
    :math:`\varepsilon`. Where no score depends on the sample, :math:`q_{ik} = 1 / K`.

    Parameters
    ----------
    scores : Tensor
        S, one sample a row, one prototype a column.
    eps : float
        :math:`\varepsilon`, above 0: the smaller, the harder the codes.
    iterations : int
        Updates of the scales; with none v = 0, and nothing spreads the samples over prototypes.

    Raises
    ------
    ValueError
        If `scores` is no finite matrix with at least two columns, `eps` is not a finite number
        above 0, or `iterations` is no integer of at least 0.

    Examples
    --------
    >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.1]])
    >>> codes(scores, eps=0.5, iterations=0).sum(0)
    tensor([1.6342, 0.3658])
    >>> codes(scores, eps=0.5, iterations=9).sum(0)
    tensor([1., 1.])
    """
    if scores.ndim != 2 or len(scores) == 0 or scores.shape[1] < 2:
        raise ValueError(
            "scores must have one row a sample and at least two prototypes as columns, got shape "
            f"{tuple(scores.shape)}"
        )
    _validate.finite(scores, "scores")
    _validate.positive(eps, "eps")
    _validate.integer(iterations, "iterations", 0)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    rows = max(1, BLOCK.get(scores.device.type, BLOCK["cpu"]) // scores.shape[1])
    blocks = torch.split(scores, rows)

    def laws(scales: Tensor) -> Iterator[Tensor]:
        return (torch.add(scales, block, alpha=1 / eps).softmax(1) for block in blocks)

    scales = torch.zeros_like(scores[0])
    if iterations:
        top = scores.amax(0)
        scales = -top / eps - _column_sums(((block - top) / eps).exp() for block in blocks).log()
    for _ in range(iterations - 1):
        # Columns summed to 1 when the scales were set, so no row summed to more than K, and its
        # law leaves 1 / K in a column at least: this logarithm meets no underflow.
        scales = scales - _column_sums(laws(scales)).log()
    found = torch.empty_like(scores)
    for start, law in zip(range(0, len(scores), rows), laws(scales), strict=True):
        found[start : start + rows] = law
    return found


def _column_sums(blocks: Iterable[Tensor]) -> Float[Tensor, " k"]:
    return torch.stack([block.sum(0) for block in blocks]).sum(0)
