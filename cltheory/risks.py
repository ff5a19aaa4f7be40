r"""Population risks of contrastive losses, exactly, for a critic on a finite augmentation model.

A critic is a matrix of scores s(x, z). Its risk is the expectation of a loss over positive pairs
(x, z) from :math:`p_+` and over negatives. Where the loss holds the logarithm of a sum over N
independent negatives, the expectation is a sum over all multisets of N outcomes
(``"enumeration"``), or an integral over one variable (``"laplace"``), exact to rounding for any N:

.. math:: \mathbb E \log(a + S) = \int_0^\infty
   \frac{e^{-t} - e^{-ta}\,\bigl(\mathbb E e^{-t w}\bigr)^N}{t}\,dt, \qquad S = w_1 + \dots + w_N.

Both are differentiable in the critic.
"""

from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from cltheory import _validate
from cltheory.pairs import PairModel

Method = Literal["enumeration", "laplace"]
"""How the expectation over negatives is taken; the values agree to rounding."""

LARGEST_ENUMERATION = 20_000_000
"""Most terms that an enumeration may have."""
STEP = 0.2
"""Step of the trapezoid rule in log t; its error is of order exp(-pi^2 / step), here 1e-21."""
TAIL = 40.0
"""Where the integrand has decayed to exp(-40), below rounding."""


def nce_binary(
    model: PairModel, critic: Float[Tensor, "n n"], *, nu: float = 1.0
) -> Float[Tensor, ""]:
    r"""Binary noise-contrastive risk: tell positive pairs from `nu` times as many independent ones.

    .. math:: \mathbb E_{p_+} \log(1 + e^{-s}) + \nu\, \mathbb E_{p \otimes p} \log(1 + e^{s})

    The minimiser is :math:`s = \log K_+ - \log \nu` (Gutmann and Hyvärinen 2010, number unknown).

    Raises
    ------
    ValueError
        If the critic is not finite or of another shape than the joint law, or `nu` not above 0.

    Examples
    --------
    >>> model = PairModel(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    >>> nce_binary(model, torch.zeros(2, 2))  # a critic that knows nothing: 2 log 2
    tensor(1.3863)
    >>> nce_binary(model, model.kernel.log())  # the minimiser
    tensor(1.2850)
    """
    _require_critic(model, critic)
    _validate.positive(nu, "nu")
    p = model.marginal
    return (model.joint * _softplus(-critic)).sum() + nu * (p @ _softplus(critic) @ p)


def info_nce(
    model: PairModel,
    critic: Float[Tensor, "n n"],
    *,
    candidates: int,
    proposal: Float[Tensor, " n"] | None = None,
    method: Method = "enumeration",
) -> Float[Tensor, ""]:
    r"""InfoNCE risk with one positive and K - 1 independent negatives, K = `candidates`.

    .. math:: \mathbb E_{(x, z) \sim p_+}\, \mathbb E_{y_1, \dots, y_{K-1} \sim q}
       \log\Bigl(1 + \sum_k e^{s(x, y_k) - s(x, z)}\Bigr)

    The minimisers are :math:`s = \log p_+(z | x) - \log q(z) + c(x)`, c arbitrary: for
    :math:`q = p`, :math:`s = \log K_+ + c(x)` (van den Oord et al. 2018, number unknown). Then
    :math:`\log K` minus the risk is at most the mutual information.

    Parameters
    ----------
    model
        The law of positive pairs.
    critic
        Scores; row x, column z.
    candidates
        K, which counts the positive.
    proposal
        Law q of the negatives; the marginal unless given.
    method
        ``"enumeration"`` or ``"laplace"``, see the module.

    Raises
    ------
    ValueError
        If the critic is not finite or of another shape than the joint law, K is below 2, the
        proposal is no law on the states, or an enumeration has too many terms.

    Examples
    --------
    >>> model = PairModel(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    >>> info_nce(model, torch.zeros(2, 2), candidates=4)  # log 4
    tensor(1.3863)
    >>> bound = math.log(4) - info_nce(model, model.kernel.log(), candidates=4)
    >>> bound, model.mutual_information()
    (tensor(0.1458), tensor(0.1927))
    """
    _validate.integer(candidates, "candidates", 2)
    law, scores = _negatives(model, critic, proposal)
    return _risk(model, critic, law, scores, candidates - 1, method)


def dcl(
    model: PairModel,
    critic: Float[Tensor, "n n"],
    *,
    candidates: int,
    proposal: Float[Tensor, " n"] | None = None,
    method: Method = "enumeration",
) -> Float[Tensor, ""]:
    r"""Decoupled risk: InfoNCE without the positive in the sum, on K - 1 negatives.

    .. math:: \mathbb E \log \sum_k e^{s(x, y_k)} - \mathbb E_{p_+} s(x, z)

    For one negative it is linear in s and has no minimiser (Yeh et al. 2021, arXiv 2110.06848, who
    use it with features of unit length). Parameters and errors as for :func:`info_nce`, K =
    `candidates` still counting the positive.

    Examples
    --------
    >>> model = PairModel(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    >>> critic = model.kernel.log()
    >>> dcl(model, critic, candidates=2), dcl(model, 2 * critic, candidates=2)  # linear
    (tensor(-0.4159), tensor(-0.8318))
    """
    _validate.integer(candidates, "candidates", 2)
    law, scores = _negatives(model, critic, proposal)
    sums = _expected_log_sum(law, scores, None, candidates - 1, method)
    return model.marginal @ sums - (model.joint * critic).sum()


def nt_xent(
    model: PairModel,
    critic: Float[Tensor, "n n"],
    *,
    n_pairs: int,
    method: Method = "enumeration",
) -> Float[Tensor, ""]:
    r"""NT-Xent risk of a batch of M = `n_pairs` pairs, whose negatives come in positive pairs.

    .. math:: \mathbb E_{(x, z) \sim p_+}\, \mathbb E_{(u_j, v_j) \sim p_+}
       \log\Bigl(1 + \sum_{j=1}^{M-1} \bigl(e^{s(x, u_j)} + e^{s(x, v_j)}\bigr) e^{-s(x, z)}\Bigr)

    There are 2M - 1 candidates, the positive among them (Chen et al. 2020, arXiv 2002.05709).

    Raises
    ------
    ValueError
        If the critic is not finite or of another shape than the joint law, M is below 2, or an
        enumeration has too many terms.

    Examples
    --------
    >>> model = PairModel(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    >>> nt_xent(model, torch.zeros(2, 2), n_pairs=2)  # log 3
    tensor(1.0986)
    """
    _validate.integer(n_pairs, "n_pairs", 2)
    _require_critic(model, critic)
    u, v = torch.triu_indices(model.states, model.states, device=model.joint.device)
    # An unordered pair has the mass of both its orders.
    law = model.joint[u, v] * torch.where(u == v, 1.0, 2.0).to(model.joint)
    scores = torch.logaddexp(critic[:, u], critic[:, v])
    return _risk(model, critic, law, scores, n_pairs - 1, method)


def spectral_contrastive(model: PairModel, features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    r"""Spectral contrastive risk of features :math:`\phi`, one row for each state.

    .. math:: -2\,\mathbb E_{p_+} \phi(x)^\top \phi(z)
       + \mathbb E_{p \otimes p} \bigl(\phi(x)^\top \phi(z)\bigr)^2 \\
       = \|\bar A - F F^\top\|_F^2 - \|\bar A\|_F^2, \qquad F_x = \sqrt{p(x)}\,\phi(x)

    The minimum over d columns is :math:`-\sum_{i \le d} \max(\lambda_i, 0)^2` (HaoChen et al. 2021,
    arXiv 2106.04156; the identity is Theorem 5.6.2 of arXiv 2309.02651).

    Raises
    ------
    ValueError
        If there is not one finite row of features for each state.

    Examples
    --------
    >>> model = PairModel(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    >>> eigenvalues, eigenfunctions = model.mercer()
    >>> eigenvalues
    tensor([1.0000, 0.6000])
    >>> spectral_contrastive(model, eigenfunctions * eigenvalues.sqrt())  # -(1 + 0.36)
    tensor(-1.3600)
    """
    if features.ndim != 2 or len(features) != model.states:
        raise ValueError(
            f"features must have shape ({model.states}, d), got shape {tuple(features.shape)}"
        )
    _validate.finite(features, "features")
    moment = features.mT @ (model.marginal[:, None] * features)
    return moment.square().sum() - 2 * (features * (model.joint @ features)).sum()


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); PyTorch's own returns x from 20 on, which is off by 2e-9 there."""
    return torch.nn.functional.softplus(x, threshold=40)


def _require_critic(model: PairModel, critic: Tensor) -> None:
    if critic.shape != model.joint.shape:
        raise ValueError(
            f"critic must have the shape of the joint law, {tuple(model.joint.shape)}, "
            f"got shape {tuple(critic.shape)}"
        )
    _validate.finite(critic, "critic")


def _negatives(model: PairModel, critic: Tensor, proposal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Law of one negative, and the scores of the states that it can take."""
    _require_critic(model, critic)
    if proposal is None:
        return model.marginal, critic
    if proposal.shape != (model.states,):
        raise ValueError(
            f"proposal must have shape ({model.states},), got shape {tuple(proposal.shape)}"
        )
    _validate.finite(proposal, "proposal")
    off = (proposal.sum() - 1).abs() > _validate.tolerance(proposal.dtype)
    if bool(off) or bool(proposal.min() < 0):
        raise ValueError(
            f"proposal must be a law, got entries from {float(proposal.min()):.3g} that sum to "
            f"{float(proposal.sum()):.6g}"
        )
    return proposal, critic


def _risk(
    model: PairModel, critic: Tensor, law: Tensor, scores: Tensor, draws: int, method: Method
) -> Tensor:
    """E log(a + S) - log a over positive pairs, a = exp s(x, z)."""
    sums = _expected_log_sum(law, scores, critic, draws, method)
    return (model.joint * sums).sum()


def _expected_log_sum(
    law: Float[Tensor, " atoms"],
    scores: Float[Tensor, "n atoms"],
    positive: Float[Tensor, "n n"] | None,
    draws: int,
    method: Method,
) -> Tensor:
    """E log S over `draws` atoms from `law`, or E log(1 + S exp(-positive)) where that is given."""
    held = law > 0
    law, scores = law[held], scores[:, held]
    if method == "enumeration":
        return _enumerate(law, scores, positive, draws)
    if method == "laplace":
        return _integrate(law, scores, positive, draws)
    raise ValueError(f"method must be 'enumeration' or 'laplace', got {method!r}")


def _enumerate(law: Tensor, scores: Tensor, positive: Tensor | None, draws: int) -> Tensor:
    n, atoms = scores.shape
    count = math.comb(atoms + draws - 1, draws)
    terms = count * n * max(atoms, 1 if positive is None else n)
    if terms > LARGEST_ENUMERATION:
        raise ValueError(
            f"method must be 'laplace' for {draws} draws of {atoms} outcomes: 'enumeration' has "
            f"{terms:.2g} terms"
        )
    chosen = torch.tensor(
        list(combinations_with_replacement(range(atoms), draws)), device=scores.device
    )
    counts = one_hot(chosen, atoms).sum(1).to(scores)
    orders = math.lgamma(draws + 1) - torch.lgamma(counts + 1).sum(1)
    weight = (orders + counts @ law.log()).exp()
    log_sums = torch.logsumexp(counts.log()[:, None] + scores, -1)
    if positive is None:
        return weight @ log_sums
    return torch.einsum("s,sxz->xz", weight, _softplus(log_sums[..., None] - positive))


def _integrate(law: Tensor, scores: Tensor, positive: Tensor | None, draws: int) -> Tensor:
    seen = scores if positive is None else torch.cat([scores, positive], 1)
    # The logarithm of a sum moves with a shift of all scores: the largest is taken to be zero.
    top = seen.detach().amax(1, keepdim=True)
    spread = float((top - seen.detach()).amax())
    low, high = -TAIL - math.log(draws + 1), math.log(TAIL) + spread
    log_t = torch.arange(low, high, STEP, dtype=scores.dtype, device=scores.device)

    def decay(score: Tensor) -> Tensor:
        """exp(-t exp(score)); beyond exp(-exp(7)), which is zero, the exponent may overflow."""
        return (log_t + score[..., None]).clamp(max=7).exp().neg().exp()

    one = decay(top.new_zeros(()))
    several = torch.einsum("a,xat->xt", law, decay(scores - top)) ** draws
    if positive is None:
        return STEP * (one - several).sum(-1) + top[:, 0]
    shifted = positive - top
    return STEP * (one - decay(shifted) * several[:, None]).sum(-1) - shifted
