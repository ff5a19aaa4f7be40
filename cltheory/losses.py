r"""Losses of two views of M points; :math:`z^1_i`, :math:`z^2_i` are a positive pair.

Losses are means over anchors in natural logarithms, with :math:`s(x, y) = x^\top y` and temperature
:math:`\tau`. Features are used as given: nothing is normalised, and rows of any norm are accepted;
where values at an optimum are stated, they are for unit rows. Features of float16 and bfloat16 are
converted to float32, and so is their loss.

Positive pairs are kept apart from the others, their inner products in float64: a loss far below
machine epsilon is as exact as a large one. No loss holds the matrix of all pairs, except where a
second derivative, a forward-mode derivative or a transform of `torch.func` is taken of it.

Each docstring ends with what the cards of the book show, in these words. *Candidates*, and the
value where all points coincide. *Minimiser* and *least value* over unit rows, with
:math:`m = M / ((M - 1) \tau)`. *Limit* for M to infinity, at independent uniform rows with equal
views. *Batch bias*: what the expectation at those points has above its limit, for which

.. math:: C = {}_0F_1\bigl(; \tfrac d2; \tfrac 1 {4 \tau^2}\bigr), \quad
   a = \frac{e^{1/\tau}} C, \quad
   v = \frac 1 {C^2}\, {}_0F_1\bigl(; \tfrac d2; \tfrac 1 {\tau^2}\bigr) - 1

are the mean of :math:`e^{t/\tau}` over inner products t of two such rows, the weight of a positive
and the variance of that of a negative. *Cost*: operations in matrix products, those of the gradient
among them, and memory.

References
----------
.. [1] van den Oord, A., Li, Y., & Vinyals, O. (2018). Representation learning with contrastive
   predictive coding. arXiv:1807.03748. Formula number unknown.
.. [2] Chen, T., Kornblith, S., Norouzi, M., & Hinton, G. (2020). A simple framework for contrastive
   learning of visual representations. arXiv:2002.05709. Formula number unknown.
.. [3] Yeh, C.-H., et al. (2021). Decoupled contrastive learning. arXiv:2110.06848. Number unknown.
.. [4] Gutmann, M., & Hyvärinen, A. (2010). Noise-contrastive estimation: a new estimation principle
   for unnormalized statistical models. AISTATS 13. Formula number unknown.
.. [5] HaoChen, J. Z., Wei, C., Gaidon, A., & Ma, T. (2021). Provable guarantees for self-supervised
   deep learning with spectral contrastive loss. arXiv:2106.04156. Formula number unknown.
.. [6] Koromilas, P., Bouritsas, G., Giannakopoulos, T., Nicolaou, M., & Panagakis, Y. (2024).
   Bridging mini-batch and asymptotic analysis in contrastive learning: from InfoNCE to kernel-based
   losses. arXiv:2405.18045. Formula numbers unknown.
.. [7] Calder, J., & Lee, W. (2025). Understanding contrastive learning through variational analysis
   and neural network optimization perspectives. arXiv:2503.10812, equation 4.
.. [8] Bardes, A., Ponce, J., & LeCun, Y. (2022). VICReg: variance-invariance-covariance
   regularization for self-supervised learning. arXiv:2105.04906. Formula numbers unknown.
.. [9] Zbontar, J., Jing, L., Misra, I., LeCun, Y., & Deny, S. (2021). Barlow Twins: self-supervised
   learning via redundancy reduction. arXiv:2103.03230. Formula number unknown.
.. [10] Grill, J.-B., et al. (2020). Bootstrap your own latent. arXiv:2006.07733; Chen, X., & He, K.
   (2021). Exploring simple Siamese representation learning. arXiv:2011.10566. Numbers unknown.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate, blockwise
from cltheory.kernels import Profile, Radial

FEW = 64
"""Up to this many pairs NT-Xent is faster with its gradient made on the way forward."""


def info_nce(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    temperature: float,
    symmetric: bool = False,
) -> Float[Tensor, ""]:
    r"""InfoNCE [1]_: M anchors, each with M candidates in the other view.

    .. math:: \frac 1 M \sum_i -\log \frac{e^{s(z^1_i, z^2_i)/\tau}}
       {\sum_{j=1}^M e^{s(z^1_i, z^2_j)/\tau}}

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    temperature : float
        :math:`\tau`, above 0.
    symmetric : bool
        Take the mean with the loss whose anchors are in the second view, as in CLIP.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if the temperature is not a finite number above 0.

    Notes
    -----
    Candidates
        :math:`M`, the positive among them; :math:`\log M` where all points coincide.
    Minimiser
        A regular simplex with equal views, for :math:`2 \le M \le d + 1`, and no other batch.
    Least value
        :math:`\log(1 + (M - 1) e^{-m})`, with :math:`m = M / ((M - 1) \tau)`.
    Limit
        :math:`-\frac 1 \tau + \log {}_0F_1(; \tfrac d2; \tfrac 1 {4 \tau^2})`, less :math:`\log M`.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac 1 {M \tau} \Bigl(\sum_j p_{ij} z^2_j
           - z^2_i\Bigr),

        .. math:: \frac{\partial L}{\partial z^2_j} = \frac 1 {M \tau} \Bigl(\sum_i p_{ij} z^1_i
           - z^1_j\Bigr)

        with :math:`p_{ij}` the softmax of :math:`s(z^1_i, z^2_j) / \tau` over j.
    Batch bias
        :math:`\frac 1 M (a - 1 - \frac v 2)`, up to :math:`O(M^{-2})`; a and v as in
        :mod:`cltheory.losses`.
    Cost
        :math:`6 M^2 d` operations, with `symmetric` :math:`8 M^2 d`; memory :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> info_nce(z, z, temperature=1.0), info_nce(z, -z, temperature=1.0)
    (tensor(0.1269), tensor(2.1269))
    """
    z1, z2 = _views(z1, z2)
    _validate.positive(temperature, "temperature")
    scale = 1 / temperature
    if symmetric:
        sums = torch.stack(blockwise.log_sums_between(z1, z2, scale=scale, excluded=(0,)))
        loss = blockwise.softplus(sums - scale * blockwise.diagonal(z1, z2)).mean()
    else:
        loss = blockwise.cross_entropy(z1, z2, scale=scale)
    return loss.to(z1.dtype)


def nt_xent(
    z1: Float[Tensor, "m d"], z2: Float[Tensor, "m d"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""NT-Xent [2]_: 2M anchors, each with 2M - 1 candidates, all other rows of both views.

    .. math:: \frac 1 {2M} \sum_{i=1}^{2M} -\log \frac{e^{s(z_i, z_{i^+})/\tau}}
       {\sum_{j \ne i} e^{s(z_i, z_j)/\tau}}

    Rows z are those of both views, and :math:`i^+` is the partner of i.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    temperature : float
        :math:`\tau`, above 0.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if the temperature is not a finite number above 0.

    Notes
    -----
    Candidates
        :math:`2 M - 1`, the positive among them; :math:`\log(2 M - 1)` where all points coincide.
    Minimiser
        A regular simplex with equal views, for :math:`2 \le M \le d + 1`, and no other batch.
    Least value
        :math:`\log(1 + 2 (M - 1) e^{-m})`, with :math:`m = M / ((M - 1) \tau)`.
    Limit
        :math:`-\frac 1 \tau + \log {}_0F_1(; \tfrac d2; \tfrac 1 {4 \tau^2})`, less
        :math:`\log(2 M)`.
    Gradient
        .. math:: \frac{\partial L}{\partial z_i} = \frac 1 {2 M \tau} \Bigl(\sum_{j \ne i}
           (p_{ij} + p_{ji}) z_j - 2 z_{i^+}\Bigr)

        with :math:`p_{ij}` the softmax of :math:`s(z_i, z_j) / \tau` over :math:`j \ne i`.
    Batch bias
        :math:`\frac 1 M (\frac a 2 - 1 - \frac v 2)`, up to :math:`O(M^{-2})`; a and v as in
        :mod:`cltheory.losses`.
    Cost
        :math:`16 M^2 d` operations for more than 64 pairs; memory :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> nt_xent(z, z, temperature=1.0)
    tensor(0.2395)
    """
    z1, z2 = _views(z1, z2)
    if len(z1) > FEW:
        return blockwise.softplus(_excess(z1, z2, temperature)).mean().to(z1.dtype)
    _validate.positive(temperature, "temperature")
    both, m = torch.cat([z1, z2]), len(z1)
    loss = blockwise.cross_entropy(both, both, scale=1 / temperature, positive=m, excluded=(0,))
    return loss.to(z1.dtype)


def dcl(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    temperature: float,
    negatives: Literal["both", "other"] = "both",
) -> Float[Tensor, ""]:
    r"""Decoupled contrastive loss [3]_: NT-Xent with 2M - 2 candidates, without the positive.

    .. math:: \frac 1 {2M} \sum_{i=1}^{2M} -\log \frac{e^{s(z_i, z_{i^+})/\tau}}
       {\sum_{j \ne i, i^+} e^{s(z_i, z_j)/\tau}}

    It may be negative.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    temperature : float
        :math:`\tau`, above 0.
    negatives : str
        ``"both"`` views, or the ``"other"`` view of an anchor. With its own view only, the loss is
        :func:`dhel` with ``symmetric=True``.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if the temperature is not a finite number above 0, or `negatives` is another word.

    Notes
    -----
    Candidates
        :math:`2 M - 2`, without the positive; :math:`\log(2 M - 2)` where all points coincide. With
        the other view only, :math:`M - 1`.
    Minimiser
        A regular simplex with equal views, for :math:`2 \le M \le d + 1`, and no other batch.
    Least value
        :math:`\log(2 (M - 1)) - m`, with the other view only :math:`\log(M - 1) - m`; here
        :math:`m = M / ((M - 1) \tau)`.
    Limit
        :math:`-\frac 1 \tau + \log {}_0F_1(; \tfrac d2; \tfrac 1 {4 \tau^2})`, less
        :math:`\log(2 M)`.
    Gradient
        .. math:: \frac{\partial L}{\partial z_i} = \frac 1 {2 M \tau} \Bigl(\sum_{j \ne i, i^+}
           (p_{ij} + p_{ji}) z_j - 2 z_{i^+}\Bigr)

        with :math:`p_{ij}` the softmax of :math:`s(z_i, z_j) / \tau` over :math:`j \ne i, i^+`.
    Batch bias
        :math:`\frac 1 M (-1 - \frac v 2)`, up to :math:`O(M^{-2})`; a and v as in
        :mod:`cltheory.losses`.
    Cost
        :math:`16 M^2 d` operations, with the other view only :math:`8 M^2 d`; memory
        :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> dcl(z, z, temperature=1.0)
    tensor(-1.3069)
    """
    z1, z2 = _views(z1, z2)
    if negatives not in ("both", "other"):
        raise ValueError(f"negatives must be 'both' or 'other', got {negatives!r}")
    if negatives == "both":
        return _excess(z1, z2, temperature).mean().to(z1.dtype)
    _validate.positive(temperature, "temperature")
    scale = 1 / temperature
    sums = torch.stack(blockwise.log_sums_between(z1, z2, scale=scale, excluded=(0,)))
    return (sums - scale * blockwise.diagonal(z1, z2)).mean().to(z1.dtype)


def dhel(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    temperature: float,
    symmetric: bool = False,
) -> Float[Tensor, ""]:
    r"""Decoupled hyperspherical energy loss [6]_: an anchor's M - 1 negatives are of its own view.

    .. math:: \frac 1 M \sum_i -\log \frac{e^{s(z^1_i, z^2_i)/\tau}}
       {\sum_{j \ne i} e^{s(z^1_i, z^1_j)/\tau}}

    It may be negative.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    temperature : float
        :math:`\tau`, above 0.
    symmetric : bool
        Take the mean with the loss whose anchors and negatives are in the second view. The code
        that was released with [6]_ weighs the attraction half as much:
        :math:`2 L_{\text{symmetric}} + \frac 1 M \sum_i s(z^1_i, z^2_i) / \tau`.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if the temperature is not a finite number above 0.

    Notes
    -----
    Candidates
        :math:`M - 1`, without the positive; :math:`\log(M - 1)` where all points coincide.
    Minimiser
        A regular simplex with equal views, for :math:`2 \le M \le d + 1`, and no other batch.
    Least value
        :math:`\log(M - 1) - m`, with :math:`m = M / ((M - 1) \tau)`.
    Limit
        :math:`-\frac 1 \tau + \log {}_0F_1(; \tfrac d2; \tfrac 1 {4 \tau^2})`, less
        :math:`\log(M - 1)`.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac 1 {M \tau} \Bigl(\sum_{j \ne i}
           (p_{ij} + p_{ji}) z^1_j - z^2_i\Bigr),

        .. math:: \frac{\partial L}{\partial z^2_i} = -\frac{z^1_i}{M \tau}

        with :math:`p_{ij}` the softmax of :math:`s(z^1_i, z^1_j) / \tau` over :math:`j \ne i`.
    Batch bias
        :math:`\frac 1 M (-\frac v 2)`, up to :math:`O(M^{-2})`; v as in :mod:`cltheory.losses`.
    Cost
        :math:`4 M^2 d` operations, with `symmetric` :math:`8 M^2 d`; memory :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> dhel(z, z, temperature=1.0)
    tensor(-2.)
    """
    z1, z2 = _views(z1, z2)
    _validate.positive(temperature, "temperature")
    energies = [
        blockwise.log_sums(z, scale=1 / temperature).mean() for z in (z1, z2)[: 1 + symmetric]
    ]
    attraction = blockwise.diagonal(z1, z2).mean() / temperature
    return (torch.stack(energies).mean() - attraction).to(z1.dtype)


def kcl(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    kernel: Profile,
    weight: float,
    symmetric: bool = False,
    alignment: Profile | None = None,
) -> Float[Tensor, ""]:
    r"""Kernel contrastive loss [6]_: attraction and energy are means of one kernel.

    .. math:: -\frac 1 M \sum_i \kappa(z^1_i, z^2_i)
       + \frac{\text{weight}}{M (M - 1)} \sum_{i \ne j} \kappa(z^1_i, z^1_j)

    The kernel is taken at :math:`t = 1 - |x - y|^2 / 2`, for unit rows their inner product, with
    distances from differences where rows are close.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    kernel : Profile
        A profile of :mod:`cltheory.kernels`, or any function of inner products entry by entry.
    weight : float
        Weight of the energy, above 0.
    symmetric : bool
        Take the mean with the loss whose energy is that of the second view.
    alignment : Profile, optional
        Another kernel for the attraction, as where that of the energy is infinite at t = 1.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows;
        if the weight is not a finite number above 0; if the kernel of the attraction is infinite at
        t = 1, as a Riesz kernel with s > 0: the loss has no lower bound.

    Notes
    -----
    Candidates
        :math:`M - 1` negatives, of the own view; :math:`(\text{weight} - 1) \kappa(1)` where all
        points coincide.
    Minimiser
        A regular simplex with equal views, for :math:`2 \le M \le d + 1` and a kernel that is
        convex and increasing; no other batch if it is strictly so.
    Least value
        :math:`-\kappa(1) + \text{weight}\, \kappa(-\frac 1 {M - 1})`
    Limit
        :math:`-\kappa(1) + \text{weight}\, \lambda_0`, with :math:`\lambda_0` the mean of the
        kernel over independent uniform points; in expectation at every M.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac{2\, \text{weight}}{M (M - 1)}
           \sum_{j \ne i} \kappa'(t_{ij}) (z^1_j - z^1_i) - \frac 1 M \kappa'(t_i) (z^2_i - z^1_i),

        .. math:: \frac{\partial L}{\partial z^2_i} = -\frac 1 M \kappa'(t_i) (z^1_i - z^2_i)

        with :math:`t_{ij}` of two rows of the first view and :math:`t_i` of a positive pair.
    Batch bias
        :math:`0`
    Cost
        :math:`3 M^2 d` operations, with `symmetric` :math:`6 M^2 d`; memory :math:`O(M d)`.

    Examples
    --------
    >>> from cltheory import kernels
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> kcl(z, z, kernel=kernels.gaussian(0.5), weight=1.0)
    tensor(-0.8647)
    """
    z1, z2 = _views(z1, z2)
    _validate.positive(weight, "weight")
    near, apart = (_radial(k) for k in (alignment or kernel, kernel))
    if not _validate.holds(near.of_square(z1.new_zeros(())).isfinite()):
        raise ValueError(
            "kernel must be finite at t = 1 to attract positive pairs, or the loss has no lower "
            "bound; give another one as alignment"
        )
    gaps = z1 - z2
    squares = blockwise.diagonal(gaps, gaps)
    # A kernel with a cusp has no derivative at a distance of zero: there, nothing pulls.
    met = squares == 0
    attraction = torch.where(
        met, near.of_square(torch.zeros_like(squares)), near.of_square(torch.where(met, 1, squares))
    )
    energies = [
        blockwise.distance_mean(z, apart.of_square, apart.slope) for z in (z1, z2)[: 1 + symmetric]
    ]
    return (weight * torch.stack(energies).mean() - attraction.mean()).to(z1.dtype)


def generalised_nt_xent(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    similarity: Callable[[Tensor], Tensor],
    outer: Callable[[Tensor], Tensor] = torch.log1p,
    masked: bool = False,
) -> Float[Tensor, ""]:
    r"""Generalised NT-Xent [7]_, of any decreasing similarity and any increasing outer function.

    .. math:: \frac 1 M \sum_i \Psi\Bigl(\frac 1 M \sum_j
       \frac{\eta(\tfrac12 |z^1_i - z^2_j|^2)}{\eta(\tfrac12 |z^1_i - z^2_i|^2)}\Bigr)

    With :math:`\eta(s) = e^{-s/\tau}` and :math:`\Psi(g) = \log(1 + g)` on unit rows it is NT-Xent
    with a mean over candidates for their sum, and the notes are for these two.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    similarity : callable
        :math:`\eta`, from halved squared distances to numbers above 0, entry by entry.
    outer : callable
        :math:`\Psi`.
    masked : bool
        Leave j = i out of the mean, as the indicator of the original loss does.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if the similarity is not above 0 at a positive pair.

    Notes
    -----
    Candidates
        :math:`M`, the positive among them; :math:`\log 2` where all points coincide.
    Minimiser
        A regular simplex with equal views, for :math:`2 \le M \le d + 1`, and no other batch.
    Least value
        :math:`\log(1 + \frac 1 M (1 + (M - 1) e^{-m}))`, with :math:`m = M / ((M - 1) \tau)`.
    Limit
        :math:`\log(1 + e^{-1/\tau} {}_0F_1(; \tfrac d2; \tfrac 1 {4 \tau^2}))`
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac{\Psi'(G_i)}{M^2} \sum_j g_{ij}
           \bigl(l_{ij} (z^1_i - z^2_j) - l_{ii} (z^1_i - z^2_i)\bigr),

        .. math:: \begin{aligned}
           \frac{\partial L}{\partial z^2_j} &= \frac{\Psi'(G_j)}{M}\, G_j\, l_{jj} (z^1_j - z^2_j)
           \\ &\quad - \frac 1 {M^2} \sum_i \Psi'(G_i)\, g_{ij}\, l_{ij} (z^1_i - z^2_j)
           \end{aligned}

        with :math:`g_{ij}` the ratio in the formula, :math:`G_i` its mean over j, and
        :math:`l_{ij} = \eta' / \eta` at :math:`\frac12 |z^1_i - z^2_j|^2`.
    Batch bias
        :math:`\frac 1 M (\frac{1 - c}{1 + c} - \frac{v c^2}{2 (1 + c)^2})`, up to
        :math:`O(M^{-2})`, with :math:`c = e^{-1/\tau} C`.
    Cost
        Time and memory :math:`O(M^2 d)`: all differences are held.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> generalised_nt_xent(z, z, similarity=lambda s: torch.exp(-s))
    tensor(0.4496)
    """
    z1, z2 = _views(z1, z2)
    gaps = (z1[:, None] - z2).square().sum(-1) / 2
    values = similarity(gaps)
    positives = values.diagonal()
    if not _validate.holds((positives > 0).all()):
        raise ValueError(
            "similarity must be above 0 at each positive pair, got "
            f"{float(positives.detach().min()):.3g}"
        )
    ratios = values / positives[:, None]
    share = ratios.mean(1) if not masked else (ratios.sum(1) - 1) / (len(z1) - 1)
    return outer(share).mean()


def vicreg(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Float[Tensor, ""]:
    r"""VICReg [8]_: views agree, columns keep a standard deviation of 1, columns are uncorrelated.

    .. math:: \frac \lambda M \sum_i |z^1_i - z^2_i|^2 + \sum_{v = 1, 2} \frac 1 d \Bigl(
       \mu \sum_j \max\bigl(0, 1 - \sqrt{C^v_{jj} + \varepsilon}\bigr)
       + \nu \sum_{j \ne k} (C^v_{jk})^2\Bigr)

    with the covariance :math:`C^v` of a view, divided by M - 1.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    invariance, variance, covariance : float
        The weights :math:`\lambda, \mu, \nu`, at least 0.
    eps : float
        :math:`\varepsilon`, above 0, which keeps the gradient finite at constant columns.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if a weight is below 0, or `eps` not above 0.

    Notes
    -----
    Candidates
        None; :math:`2 \mu (1 - \sqrt \varepsilon)` where all points coincide.
    Minimiser
        Equal views whose covariance is diagonal with entries of at least :math:`1 - \varepsilon`.
        Rows of norm 1 have none for :math:`d \ge 2` and a small :math:`\varepsilon`.
    Least value
        :math:`0`
    Limit
        :math:`2 \mu (1 - \sqrt{\frac 1 d + \varepsilon})`, with rows of norm 1.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac{2 \lambda} M (z^1_i - z^2_i)
           + \frac 2 {d (M - 1)} S (z^1_i - \bar z^1)

        with :math:`S_{jk} = 2 \nu C_{jk}` off the diagonal, and on it
        :math:`-\mu / (2 \sqrt{C_{jj} + \varepsilon})` where the root is below 1, else 0.
    Batch bias
        Of order :math:`1 / M`: columns that are independent with variance 1 have
        :math:`\mathbb E\, C_{jk}^2 = \frac 1 {M - 1}`.
    Cost
        :math:`8 M d^2` operations; memory :math:`O(M d + d^2)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> vicreg(z, z)
    tensor(0.)
    """
    z1, z2 = _views(z1, z2)
    for value, name in (
        (invariance, "invariance"),
        (variance, "variance"),
        (covariance, "covariance"),
    ):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
    _validate.positive(eps, "eps")
    loss = invariance * (z1 - z2).square().sum(1).mean()
    for z in (z1, z2):
        centred = z - z.mean(0)
        c = blockwise.second_moment(centred) / (len(z) - 1)
        own = c.diagonal()
        hinge = torch.relu(1 - torch.sqrt(own + eps)).mean()
        cross = (c - torch.diag(own)).square().sum() / len(c)
        loss = loss + variance * hinge + covariance * cross
    return loss


def barlow_twins(
    z1: Float[Tensor, "m d"], z2: Float[Tensor, "m d"], *, weight: float = 5e-3
) -> Float[Tensor, ""]:
    r"""Barlow Twins [9]_: the correlation matrix of the two views is the identity.

    .. math:: \sum_j (1 - C_{jj})^2 + \text{weight} \sum_{j \ne k} C_{jk}^2

    with the correlation :math:`C_{jk}` of column j of the first view and column k of the second.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    weight : float
        Weight of the redundancy, above 0.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows;
        if a column is constant, which has no correlation; if the weight is not above 0.

    Notes
    -----
    Candidates
        None; where all points coincide there is no correlation.
    Minimiser
        Equal views with uncorrelated columns, which takes :math:`M \ge d + 1`.
    Least value
        :math:`0`
    Limit
        :math:`0`
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_{\cdot j}} = \frac 1 {n_j} (I - u_j u_j^\top)
           \sum_k E_{jk} v_k

        with :math:`u_j`, :math:`v_k` the centred columns over their norms, :math:`n_j` the norm of
        the first, :math:`E_{jj} = -2 (1 - C_{jj})` and :math:`E_{jk} = 2\, \text{weight}\, C_{jk}`.
    Batch bias
        Of order :math:`1 / M`: columns that are independent have
        :math:`\mathbb E\, C_{jk}^2 = \frac 1 {M - 1}`.
    Cost
        :math:`6 M d^2` operations; memory :math:`O(M d + d^2)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> barlow_twins(z, z), barlow_twins(z, -z)
    (tensor(0.), tensor(8.))
    """
    z1, z2 = _views(z1, z2)
    _validate.positive(weight, "weight")
    c = _standardised(z1, "z1").mT @ _standardised(z2, "z2") / len(z1)
    own = c.diagonal()
    redundancy = (c - torch.diag(own)).square().sum()
    loss: Tensor = (1 - own).square().sum() + weight * redundancy
    return loss


def negative_cosine(
    prediction: Float[Tensor, "m d"], target: Float[Tensor, "m d"]
) -> Float[Tensor, ""]:
    r"""Negative cosine of predictions and targets, the loss of BYOL and SimSiam [10]_.

    .. math:: -\frac 1 M \sum_i \frac{p_i^\top t_i}{|p_i| |t_i|}

    BYOL's :math:`|p_i / |p_i| - t_i / |t_i||^2` is twice this, plus 2. A gradient that stops at the
    target, ``target.detach()``, is left to the caller.

    Parameters
    ----------
    prediction, target : Tensor
        One row a point, none zero.

    Raises
    ------
    ValueError
        If the two are no finite matrices of one shape, dtype and device with at least two rows, or
        a row is zero.

    Notes
    -----
    Candidates
        None; :math:`-1` where all points coincide.
    Minimiser
        Predictions in the direction of their targets, those of a constant map among them.
    Least value
        :math:`-1`
    Limit
        :math:`-1`
    Gradient
        .. math:: \frac{\partial L}{\partial p_i} = -\frac 1 {M |p_i|} \Bigl(\frac{t_i}{|t_i|}
           - c_i \frac{p_i}{|p_i|}\Bigr)

        with the cosine :math:`c_i` of the two rows; by a target likewise.
    Batch bias
        :math:`0`
    Cost
        Time and memory :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    >>> negative_cosine(z, z), negative_cosine(z, -2 * z)
    (tensor(-1.), tensor(1.))
    """
    prediction, target = _views(prediction, target, ("prediction", "target"))
    directions = []
    for z, name in ((prediction, "prediction"), (target, "target")):
        # Squares of the entries of a row may leave the range of its dtype, those of shares do not.
        sizes = z.detach().abs().amax(1)
        if not _validate.holds((sizes > 0).all()):
            raise ValueError(
                f"{name} must have rows that are not zero, got row {int((sizes == 0).nonzero()[0])}"
            )
        shares = (z / sizes[:, None]).double()
        directions.append(shares / shares.norm(dim=1, keepdim=True))
    return -blockwise.diagonal(*directions).mean().to(prediction.dtype)


def nce_binary(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    temperature: float,
    nu: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Binary noise-contrastive estimation [4]_: tell M positive pairs from M(M - 1) others.

    .. math:: \frac 1 M \sum_i \log\bigl(1 + e^{-s(z^1_i, z^2_i)/\tau}\bigr)
       + \frac \nu {M(M - 1)} \sum_{i \ne j} \log\bigl(1 + e^{s(z^1_i, z^2_j)/\tau}\bigr)

    Over all critics :math:`s / \tau` the population value is least at
    :math:`\log K_+ - \log \nu`, with :math:`K_+ = p(x, y) / (p(x) p(y))`.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    temperature : float
        :math:`\tau`, above 0.
    nu : float
        Weight of the other pairs, above 0.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        or if the temperature or `nu` is not a finite number above 0.

    Notes
    -----
    Candidates
        :math:`M - 1` negatives, each on its own;
        :math:`\log(1 + e^{-1/\tau}) + \nu \log(1 + e^{1/\tau})` where all points coincide.
    Minimiser
        With equal views a regular simplex, for :math:`2 \le M \le d + 1`. For M > 2 and a low
        temperature views that differ go below it.
    Least value
        :math:`\log(1 + e^{-1/\tau}) + \nu \log(1 + e^{-1 / ((M - 1) \tau)})`, with equal views.
    Limit
        :math:`\log(1 + e^{-1/\tau}) + \nu\, \mathbb E \log(1 + e^{t/\tau})`, in expectation at
        every M.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac 1 {M \tau} \Bigl(\frac \nu {M - 1}
           \sum_{j \ne i} \sigma(l_{ij}) z^2_j - \sigma(-l_{ii}) z^2_i\Bigr)

        with :math:`l_{ij} = s(z^1_i, z^2_j) / \tau` and :math:`\sigma(x) = 1 / (1 + e^{-x})`; by
        the second view with the roles exchanged.
    Batch bias
        :math:`0`
    Cost
        :math:`6 M^2 d` operations; memory :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> nce_binary(z, z, temperature=1.0)
    tensor(0.6265)
    """
    z1, z2 = _views(z1, z2)
    _validate.positive(temperature, "temperature")
    _validate.positive(nu, "nu")
    positives = blockwise.diagonal(z1, z2) / temperature
    others = blockwise.softplus_mean(z1, z2, scale=1 / temperature, excluded=(0,))
    return (blockwise.softplus(-positives).mean() + nu * others).to(z1.dtype)


def spectral_contrastive(z1: Float[Tensor, "m d"], z2: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    r"""Spectral contrastive loss [5]_, without bias: the diagonal is no pair of independent points.

    .. math:: -\frac 2 M \sum_i s(z^1_i, z^2_i)
       + \frac 1 {M(M - 1)} \sum_{i \ne j} s(z^1_i, z^2_j)^2

    The population value of features :math:`f(x) = F_{x\cdot} / \sqrt{p(x)}` is
    :math:`|\bar A - F F^\top|_F^2 - |\bar A|_F^2`, with
    :math:`\bar A_{xy} = p(x, y) / \sqrt{p(x) p(y)}`.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows.

    Notes
    -----
    Candidates
        :math:`M - 1` negatives, of the other view; :math:`-1` where all points coincide.
    Minimiser
        Orthonormal rows with equal views, for :math:`2 \le M \le d`.
    Least value
        :math:`-2`
    Limit
        :math:`-2 + \frac 1 d`, in expectation at every M.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac 2 {M (M - 1)} \sum_{j \ne i}
           s(z^1_i, z^2_j)\, z^2_j - \frac 2 M z^2_i

        and by the second view with the roles exchanged.
    Batch bias
        :math:`0`
    Cost
        :math:`8 M d^2` operations for :math:`d < M`, by
        :math:`\sum_{ij} s(z^1_i, z^2_j)^2 = \operatorname{tr}(C_1 C_2)` with
        :math:`C_v = z^{v\top} z^v`, else :math:`6 M^2 d`; memory :math:`O(M d + \min(M, d)^2)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> spectral_contrastive(z, z)
    tensor(-2.)
    """
    z1, z2 = _views(z1, z2)
    m, d = z1.shape
    positives = blockwise.diagonal(z1, z2)
    if d < m:
        moments = blockwise.second_moment(z1), blockwise.second_moment(z2)
        every = (moments[0] * moments[1]).sum(dtype=torch.float64)
    else:
        every = (z1 @ z2.mT).square().sum(dtype=torch.float64)
    others = (every - positives.square().sum()) / (m * (m - 1))
    return (others - 2 * positives.mean()).to(z1.dtype)


def _radial(kernel: Profile) -> Radial:
    """Take a profile as a function of squared distances."""
    return kernel if isinstance(kernel, Radial) else Radial(lambda r2: kernel(1 - r2 / 2))


def _standardised(z: Tensor, name: str) -> Float[Tensor, "m d"]:
    """Columns of mean 0 and variance 1, by the one kernel that PyTorch has for both."""
    scaled, mean, precision = torch.native_batch_norm(z, None, None, None, None, True, 0.0, 0.0)
    deviation = precision.detach().reciprocal()
    flat = deviation <= 10 * torch.finfo(z.dtype).eps * torch.hypot(mean.detach(), deviation)
    if not _validate.holds(~flat.any()):
        raise ValueError(
            f"{name} must have columns that vary, got column {int(flat.nonzero()[0])} constant"
        )
    return scaled


def _views(z1: Tensor, z2: Tensor, names: tuple[str, str] = ("z1", "z2")) -> tuple[Tensor, Tensor]:
    """Check two views, and convert them to float32 or float64."""
    for z, name in zip((z1, z2), names, strict=True):
        if z.ndim != 2:
            raise ValueError(
                f"{name} must be a matrix with one point a row, got shape {tuple(z.shape)}"
            )
        if len(z) < 2 or z.numel() == 0 or not z.is_floating_point():
            _validate.points(z, name, least=2)
    for kind, one, two in (
        ("shape", tuple(z1.shape), tuple(z2.shape)),
        ("dtype", z1.dtype, z2.dtype),
        ("device", z1.device, z2.device),
    ):
        if one != two:
            raise ValueError(
                f"{' and '.join(names)} must have the same {kind}, got {one} and {two}"
            )
    total = z1.detach().sum() + z2.detach().sum()
    if not _validate.holds(total.abs() < math.inf):
        _validate.finite(z1, names[0])
        _validate.finite(z2, names[1])
    dtype = torch.promote_types(z1.dtype, torch.float32)
    return z1.to(dtype), z2.to(dtype)


def _excess(z1: Tensor, z2: Tensor, temperature: float) -> Float[Tensor, "2 m"]:
    """Logarithm of the sum over the 2M - 2 negatives of each row, less the logit of its partner."""
    _validate.positive(temperature, "temperature")
    both, m = torch.cat([z1, z2]), len(z1)
    sums = blockwise.log_sums(both, scale=1 / temperature, excluded=(0, m)).view(2, m)
    return sums - blockwise.diagonal(z1, z2) / temperature
