r"""Contrastive losses of two views of M points; :math:`z^1_i`, :math:`z^2_i` are a positive pair.

Losses are means over anchors in natural logarithms, with :math:`s(x, y) = x^\top y` and temperature
:math:`\tau`. Features are used as given: nothing is normalised, and rows of any norm are accepted;
where values at an optimum are stated, they are for unit rows. Features of float16 and bfloat16 are
converted to float32, and so is their loss.

Positive pairs are kept apart from the others, their inner products in float64: a loss far below
machine epsilon is as exact as a large one. No loss holds the matrix of all pairs, except where a
second derivative, a forward-mode derivative or a transform of `torch.func` is taken of it.

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
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate, blockwise

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

    The positive is one of the candidates. Its least value for unit rows and
    :math:`2 \le M \le d + 1`, at a regular simplex with :math:`z^1 = z^2`, is
    :math:`\log\bigl(1 + (M - 1)\, e^{-M / ((M - 1) \tau)}\bigr)`.

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

    Rows z are those of both views, and :math:`i^+` is the partner of i, one of the candidates. The
    least value for unit rows and :math:`2 \le M \le d + 1`, at a regular simplex with
    :math:`z^1 = z^2`, is :math:`\log\bigl(1 + 2 (M - 1)\, e^{-M / ((M - 1) \tau)}\bigr)`.

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
    z1: Float[Tensor, "m d"], z2: Float[Tensor, "m d"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""Decoupled contrastive loss [3]_: NT-Xent with 2M - 2 candidates, without the positive.

    .. math:: \frac 1 {2M} \sum_{i=1}^{2M} -\log \frac{e^{s(z_i, z_{i^+})/\tau}}
       {\sum_{j \ne i, i^+} e^{s(z_i, z_j)/\tau}}

    It may be negative. The least value for unit rows and :math:`2 \le M \le d + 1`, at a regular
    simplex with :math:`z^1 = z^2`, is :math:`\log(2 (M - 1)) - M / ((M - 1) \tau)`.

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

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> dcl(z, z, temperature=1.0)
    tensor(-1.3069)
    """
    z1, z2 = _views(z1, z2)
    return _excess(z1, z2, temperature).mean().to(z1.dtype)


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
    :math:`\log K_+ - \log \nu`, with :math:`K_+ = p(x, y) / (p(x) p(y))`. For unit rows with
    :math:`z^1 = z^2` and :math:`2 \le M \le d + 1` the least value, at a regular simplex, is
    :math:`\log(1 + e^{-1/\tau}) + \nu \log(1 + e^{-1/((M - 1)\tau)})`. For M > 2 and a low
    temperature views that differ go below it.

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

    For d < M the cost is :math:`O(M d^2)`, by
    :math:`\sum_{ij} s(z^1_i, z^2_j)^2 = \operatorname{tr}(C_1 C_2)` with
    :math:`C_v = z^{v\top} z^v`. The population value of features
    :math:`f(x) = F_{x\cdot} / \sqrt{p(x)}` is :math:`|\bar A - F F^\top|_F^2 - |\bar A|_F^2`, with
    :math:`\bar A_{xy} = p(x, y) / \sqrt{p(x) p(y)}`. For unit rows and :math:`2 \le M \le d` the
    least value, at orthonormal rows with :math:`z^1 = z^2`, is -2.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows.

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


def _views(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Check two views, and convert them to float32 or float64."""
    for z, name in ((z1, "z1"), (z2, "z2")):
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
            raise ValueError(f"z1 and z2 must have the same {kind}, got {one} and {two}")
    total = z1.detach().sum() + z2.detach().sum()
    if not _validate.holds(total.abs() < math.inf):
        _validate.finite(z1, "z1")
        _validate.finite(z2, "z2")
    dtype = torch.promote_types(z1.dtype, torch.float32)
    return z1.to(dtype), z2.to(dtype)


def _excess(z1: Tensor, z2: Tensor, temperature: float) -> Float[Tensor, "2 m"]:
    """Logarithm of the sum over the 2M - 2 negatives of each row, less the logit of its partner."""
    _validate.positive(temperature, "temperature")
    both, m = torch.cat([z1, z2]), len(z1)
    sums = blockwise.log_sums(both, scale=1 / temperature, excluded=(0, m)).view(2, m)
    return sums - blockwise.diagonal(z1, z2) / temperature
