r"""Finite augmentation models: the joint law of a positive pair, and the kernel in it.

A positive pair (x, z) has a symmetric joint law :math:`p_+(x, z)` on n states, with marginal p.
From it come the *positive-pair kernel* and the *normalised adjacency*

.. math:: K_+(x, z) = \frac{p_+(x, z)}{p(x)\,p(z)}, \qquad
   \bar A(x, z) = \frac{p_+(x, z)}{\sqrt{p(x)\,p(z)}} = \sqrt{p(x)\,p(z)}\,K_+(x, z),

which share their eigenvalues :math:`1 = \lambda_1 \ge \lambda_2 \ge \dots \ge -1`: those of
:math:`\bar A` as a matrix are those of the operator
:math:`(T f)(x) = \mathbb E_{z \sim p}[K_+(x, z) f(z)]` on :math:`L^2(p)` [1]_ [2]_.

Named models, for examples and tests: :func:`clusters`, :func:`von_mises_ring`,
:func:`overlapping_ring`, :func:`swap`, :func:`conditionally_independent`, :func:`generic`. Their
parameters out of range raise a ValueError that names them.

References
----------
.. [1] Tsiolis, K. C. (2023). Contrastive learning as kernel approximation. arXiv 2309.02651.
.. [2] HaoChen, J. Z., Wei, C., Gaidon, A., & Ma, T. (2021). Provable guarantees for
   self-supervised deep learning with spectral contrastive loss. arXiv 2106.04156.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cltheory import _validate


class MercerPairs(NamedTuple):
    """Eigenvalues, descending, and eigenfunctions in columns, orthonormal in L2(p).

    Examples
    --------
    >>> eigenvalues, eigenfunctions = PairModel(torch.tensor([[0.4, 0.1], [0.1, 0.4]])).mercer()
    >>> eigenvalues  # one, and how much a view tells of the other
    tensor([1.0000, 0.6000])
    """

    eigenvalues: Float[Tensor, " n"]
    eigenfunctions: Float[Tensor, "n n"]


class CanonicalPairs(NamedTuple):
    """Singular values, descending, and functions in columns, orthonormal in L2 of each side.

    Examples
    --------
    >>> independent = torch.full((2, 3), 1 / 6)
    >>> canonical_pairs(independent).singular_values.round(decimals=4)
    tensor([1., 0.])
    """

    singular_values: Float[Tensor, " r"]
    left: Float[Tensor, "n r"]
    right: Float[Tensor, "m r"]


@dataclass(frozen=True, eq=False)
class PairModel:
    r"""The joint law of a positive pair on finitely many states.

    Build it with :meth:`from_joint` or :meth:`from_channel`.

    Parameters
    ----------
    joint : Tensor
        :math:`p_+`, of shape (n, n): non-negative, symmetric, of sum one, no state without mass.

    Raises
    ------
    ValueError
        If the joint law is anything else.

    Examples
    --------
    >>> model = PairModel.from_channel(torch.tensor([0.5, 0.5]), torch.tensor([[1, 0], [0.5, 0.5]]))
    >>> model.joint
    tensor([[0.6250, 0.1250],
            [0.1250, 0.1250]])
    >>> model.marginal
    tensor([0.7500, 0.2500])
    >>> model.mercer().eigenvalues
    tensor([1.0000, 0.3333])
    """

    joint: Float[Tensor, "n n"]

    def __post_init__(self) -> None:
        _require_law(self.joint, "joint")
        _validate.symmetric(self.joint, "joint")
        _require_mass(self.marginal, "joint", "state")

    @classmethod
    def from_joint(cls, joint: Float[Tensor, "n n"]) -> Self:
        """Model of a joint law that is given."""
        return cls(joint)

    @classmethod
    def from_channel(cls, source: Float[Tensor, " m"], channel: Float[Tensor, "m n"]) -> Self:
        r"""Model of two views drawn independently from one source.

        .. math:: p_+(x, z) = \sum_a p(a)\, p(x \mid a)\, p(z \mid a)

        Such a joint law is *conditionally independent*, and its adjacency positive semidefinite.

        Parameters
        ----------
        source : Tensor
            Law of the source, p(a), of shape (m,).
        channel : Tensor
            Law of a view given the source, p(x | a), of shape (m, n): rows of sum one.

        Raises
        ------
        ValueError
            If one of them is no law, they do not fit, or some state is never emitted.
        """
        if source.ndim != 1:
            raise ValueError(f"source must have shape (m,), got shape {tuple(source.shape)}")
        if channel.ndim != 2 or len(channel) != len(source):
            raise ValueError(
                f"channel must have shape ({len(source)}, n), one row for each source, "
                f"got shape {tuple(channel.shape)}"
            )
        if channel.dtype != source.dtype:
            raise ValueError(
                f"source and channel must be of one dtype, got {source.dtype} and {channel.dtype}"
            )
        _require_law(source, "source")
        _require_laws(channel, "channel")
        _require_mass(source @ channel, "channel", "state (column)")
        root = source.sqrt()[:, None] * channel
        return cls(root.mT @ root)

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.joint)

    @property
    def marginal(self) -> Float[Tensor, " n"]:
        r"""Law of one view, :math:`p(x) = \sum_z p_+(x, z)`."""
        return self.joint.sum(1)

    @property
    def kernel(self) -> Float[Tensor, "n n"]:
        r"""Positive-pair kernel :math:`K_+ = p_+ / (p \otimes p)`, of mean one under p."""
        p = self.marginal
        return self.joint / p[:, None] / p

    @property
    def adjacency(self) -> Float[Tensor, "n n"]:
        r"""Normalised adjacency :math:`\bar A = D^{-1/2} p_+ D^{-1/2}`, D the diagonal of p."""
        return normalised(self.joint)

    def mercer(self) -> MercerPairs:
        r"""Eigenpairs of :math:`K_+` under the marginal, in descending order.

        .. math:: f_i = D^{-1/2} v_i, \qquad \bar A v_i = \lambda_i v_i, \qquad
           K_+ = \sum_i \lambda_i f_i f_i^\top, \qquad \mathbb E_p[f_i f_j] = \delta_{ij}

        Where :math:`\lambda_2 < 1`, that is, where the graph of the joint law is connected, the
        first is constant, :math:`f_1 = 1`. Each function's entry of largest size is positive.
        """
        values, vectors = torch.linalg.eigh(self.adjacency)
        functions = vectors.flip(1) / self.marginal.sqrt()[:, None]
        largest = functions.abs().argmax(0, keepdim=True)
        return MercerPairs(values.flip(0), functions * functions.gather(0, largest).sign())

    def mutual_information(self) -> Float[Tensor, ""]:
        r"""Mutual information of the pair in nats, :math:`\mathbb E_{p_+} \log K_+`.

        Examples
        --------
        >>> PairModel.from_joint(torch.eye(8) / 8).mutual_information()  # log 8
        tensor(2.0794)
        """
        information: Tensor = torch.special.xlogy(self.joint, self.kernel).sum()
        return information

    def sample(
        self, n: int, *, generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Draw n independent positive pairs: the states of their first and second views.

        They are drawn where the generator lives, the joint law's device without one, and returned
        on the joint law's device.
        """
        _validate.integer(n, "n", 1)
        device = self.joint.device
        where = device if generator is None else generator.device
        # torch.multinomial stops at 2^24 categories; inverting the distribution function does not.
        steps = self.joint.to(where).flatten().cumsum(0)
        uniform = torch.rand(n, generator=generator, dtype=steps.dtype, device=where)
        # right=True: a draw of exactly zero, or on a step, never picks a pair of no mass.
        index = torch.searchsorted(steps, uniform * steps[-1], right=True)
        index = index.clamp(max=int(self.joint.flatten().nonzero()[-1])).to(device)
        return index // self.states, index % self.states


def normalised(joint: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    r"""Normalised matrix :math:`D_x^{-1/2} P D_z^{-1/2}` of a joint law of two kinds of states.

    The joint law of two modalities, such as images and captions, is rectangular: it has singular
    values, :func:`canonical_pairs`, where a :class:`PairModel` has eigenvalues.

    Raises
    ------
    ValueError
        If `joint` is no law, or has a row or a column without mass.

    Examples
    --------
    >>> normalised(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.25, 0.25]]))
    tensor([[1.0000, 0.0000, 0.0000],
            [0.0000, 0.7071, 0.7071]])
    """
    _require_law(joint, "joint")
    if joint.ndim != 2:
        raise ValueError(f"joint must be a matrix, got shape {tuple(joint.shape)}")
    left, right = joint.sum(1), joint.sum(0)
    _require_mass(left, "joint", "row")
    _require_mass(right, "joint", "column")
    return joint / left.sqrt()[:, None] / right.sqrt()


def canonical_pairs(joint: Float[Tensor, "n m"]) -> CanonicalPairs:
    r"""Singular values and functions of a joint law of two kinds of states.

    .. math:: \frac{P(x, z)}{p(x)\,q(z)} = \sum_i s_i\, u_i(x)\, v_i(z), \qquad
       \mathbb E_p[u_i u_j] = \mathbb E_q[v_i v_j] = \delta_{ij},

    :math:`s_1 = 1 \ge s_2 \ge \dots \ge 0`: the canonical correlations of the two views. Errors as
    for :func:`normalised`.

    Examples
    --------
    >>> canonical_pairs(torch.tensor([[0.5, 0.0], [0.0, 0.5]])).singular_values
    tensor([1., 1.])
    """
    u, s, vt = torch.linalg.svd(normalised(joint), full_matrices=False)
    left, right = joint.sum(1).sqrt(), joint.sum(0).sqrt()
    return CanonicalPairs(s, u / left[:, None], vt.mT / right[:, None])


def clusters(
    count: int = 3,
    size: int = 1,
    eps: float = 0.02,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> PairModel:
    r"""Tight clusters: `count` equally likely sources that each emit a block of `size` states.

    .. math:: p(x \mid a) = (1 - \varepsilon)\,\frac{[x \in \text{block } a]}{\text{size}}
       + \frac{\varepsilon}{\text{count} \cdot \text{size}}

    The eigenvalues are 1, then :math:`(1 - \varepsilon)^2` `count` - 1 times, then zeros.

    Examples
    --------
    >>> clusters().mercer().eigenvalues
    tensor([1.0000, 0.9604, 0.9604], dtype=torch.float64)
    """
    _validate.integer(count, "count", 2)
    _validate.integer(size, "size", 1)
    _require_fraction(eps, "eps")
    n = count * size
    block = torch.eye(count, dtype=dtype, device=device).repeat_interleave(size, 1) / size
    return PairModel.from_channel(_uniform(block), (1 - eps) * block + eps / n)


def von_mises_ring(
    n: int = 8,
    concentration: float = 1.5,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> PairModel:
    r"""Ring of n states whose kernel is von Mises' density, a = `concentration`.

    .. math:: \log K_+(x, z) = a \cos(2\pi (x - z)/n) + c

    The marginal is uniform, and the kernel infinitely divisible: every positive power of it, entry
    by entry, is positive semidefinite.

    Examples
    --------
    >>> von_mises_ring(4, concentration=0.0).kernel[0]
    tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    _validate.integer(n, "n", 2)
    if not (math.isfinite(concentration) and concentration >= 0):
        raise ValueError(f"concentration must be a number of at least 0, got {concentration}")
    state = torch.arange(n, dtype=dtype, device=device)
    angle = (2 * math.pi / n) * (state[:, None] - state)
    weight = (concentration * angle.cos()).exp()
    return PairModel(weight / weight.sum())


def overlapping_ring(
    n: int = 8,
    width: int = 2,
    eps: float = 0.02,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> PairModel:
    r"""Ring of n states whose source i emits i, ..., i + width - 1, each as likely as the others.

    With probability `eps` the view is any state instead, so that no entry of the kernel is zero.
    The kernel is positive semidefinite with a constant diagonal, yet, for width 2 or 3 on eight
    states, not infinitely divisible.

    Examples
    --------
    >>> overlapping_ring(4, eps=0.0).joint * 16
    tensor([[2., 1., 0., 1.],
            [1., 2., 1., 0.],
            [0., 1., 2., 1.],
            [1., 0., 1., 2.]], dtype=torch.float64)
    """
    _validate.integer(n, "n", 2)
    _validate.integer(width, "width", 1, n)
    _require_fraction(eps, "eps")
    eye = torch.eye(n, dtype=dtype, device=device)
    window = torch.stack([eye.roll(shift, 1) for shift in range(width)]).mean(0)
    return PairModel.from_channel(_uniform(eye), (1 - eps) * window + eps / n)


def swap(*, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> PairModel:
    """Two states that are always paired with each other: the eigenvalues are 1 and -1.

    Examples
    --------
    >>> swap().joint
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]], dtype=torch.float64)
    """
    return PairModel((1 - torch.eye(2, dtype=dtype, device=device)) / 2)


def conditionally_independent(
    n: int,
    sources: int | None = None,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> PairModel:
    """Random source and channel, flat Dirichlet laws; as many sources as states unless given.

    The model is on the generator's device.

    Examples
    --------
    >>> model = conditionally_independent(5, 2, generator=torch.Generator().manual_seed(0))
    >>> (model.mercer().eigenvalues > 1e-9).sum()
    tensor(2)
    """
    _validate.integer(n, "n", 1)
    sources = n if sources is None else sources
    _validate.integer(sources, "sources", 1)
    return PairModel.from_channel(
        _dirichlet((sources,), generator, dtype), _dirichlet((sources, n), generator, dtype)
    )


def generic(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> PairModel:
    """Return a random symmetric joint law with positive entries, on the generator's device.

    Its adjacency has negative eigenvalues as a rule: the pair has no source that makes its views
    independent.

    Examples
    --------
    >>> generic(6, generator=torch.Generator().manual_seed(0)).mercer().eigenvalues.min() < 0
    tensor(True)
    """
    _validate.integer(n, "n", 1)
    joint = _dirichlet((n * n,), generator, dtype).reshape(n, n)
    return PairModel((joint + joint.mT) / 2)


def _uniform(like: Tensor) -> Tensor:
    """Return the uniform law on the rows."""
    return like.new_full((len(like),), 1 / len(like))


def _dirichlet(
    shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    """Laws along the last axis, from the flat Dirichlet: normalised exponentials."""
    device = torch.device("cpu") if generator is None else generator.device
    weight = torch.empty(shape, dtype=dtype, device=device).exponential_(generator=generator)
    return weight / weight.sum(-1, keepdim=True)


def _require_fraction(value: float, name: str) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be a probability below 1, got {value}")


def _require_law(law: Tensor, name: str) -> None:
    if law.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(law.shape)}")
    _validate.finite(law, name)
    if not _validate.holds(law.min() >= 0):
        raise ValueError(f"{name} must not be negative, got the entry {float(law.min()):.3g}")
    total = law.sum()
    if not _validate.holds((total - 1).abs() <= _validate.tolerance(law.dtype)):
        raise ValueError(f"{name} must sum to one, got the sum {float(total):.6g}")


def _require_laws(channel: Tensor, name: str) -> None:
    _validate.finite(channel, name)
    if not _validate.holds(channel.min() >= 0):
        raise ValueError(f"{name} must not be negative, got the entry {float(channel.min()):.3g}")
    off = (channel.sum(1) - 1).abs()
    if not _validate.holds(off.max() <= _validate.tolerance(channel.dtype)):
        row = int(off.argmax())
        raise ValueError(
            f"{name} must have rows that sum to one, got the sum {float(channel[row].sum()):.6g} "
            f"in row {row}"
        )


def _require_mass(law: Tensor, name: str, what: str) -> None:
    if not _validate.holds(law.min() > 0):
        empty = (law <= 0).nonzero().flatten().tolist()
        raise ValueError(f"{name} must give every {what} some mass, got none at {empty[:10]}")
