r"""Losses of methods that know more than two views: past keys, prototypes, labels, a threshold.

They keep the conventions of :mod:`cltheory.losses`: means over anchors in natural logarithms, with
:math:`s(x, y) = x^\top y` and a temperature :math:`\tau` that divides it; features as given,
values at an optimum for unit rows.

References
----------
.. [1] He, K., Fan, H., Wu, Y., Xie, S., & Girshick, R. (2020). Momentum contrast for unsupervised
   visual representation learning. arXiv:1911.05722. Formula number unknown.
.. [2] Caron, M., et al. (2020). Unsupervised learning of visual features by contrasting cluster
   assignments. arXiv:2006.09882. Formula numbers unknown.
.. [3] Zhai, X., Mustafa, B., Kolesnikov, A., & Beyer, L. (2023). Sigmoid loss for language image
   pre-training. arXiv:2303.15343. Formula number unknown.
.. [4] Khosla, P., et al. (2020). Supervised contrastive learning. arXiv:2004.11362. Formula number
   unknown.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from cltheory import _validate, blockwise, sinkhorn


def moco(
    queries: Float[Tensor, "m d"],
    keys: Float[Tensor, "m d"],
    *,
    queue: Float[Tensor, "k d"],
    temperature: float,
) -> Float[Tensor, ""]:
    r"""InfoNCE with a queue [1]_: M anchors, each with K + 1 candidates, its key and the queue's.

    .. math:: \frac 1 M \sum_i -\log \frac{e^{s(q_i, k_i)/\tau}}
       {e^{s(q_i, k_i)/\tau} + \sum_{j=1}^K e^{s(q_i, n_j)/\tau}}

    K does not count the positive. If the keys of the queue are independent of the anchor, and of
    the law of the keys, then :math:`I(q; k) \ge \log(K + 1) - L` in expectation, an estimate that
    never exceeds :math:`\log(K + 1)`. The least value for unit rows,
    :math:`\log(1 + K e^{-2/\tau})`, is met by a queue antipodal to every anchor and its key.

    The logits of the queue are the only matrix that is held.

    Parameters
    ----------
    queries, keys : Tensor
        Features of the two views; rows of one index are a positive pair. Gradients of keys are
        left to the caller, who stops them in MoCo.
    queue : Tensor
        The negatives n, one a row.
    temperature : float
        :math:`\tau`, above 0.

    Raises
    ------
    ValueError
        If an argument is no finite matrix, the three do not fit in shape, dtype or device, or the
        temperature is not a finite number above 0.

    Notes
    -----
    Candidates
        :math:`K + 1`; :math:`\log(K + 1)` where all points coincide.
    Minimiser
        Every anchor at its key, and the queue antipodal to all of them. Where the queue holds keys
        of the same law, those of InfoNCE with independent negatives.
    Least value
        :math:`\log(1 + K e^{-2/\tau})`
    Limit
        :math:`\log C - \frac 1 \tau` for many keys in the queue, less :math:`\log(K + 1)`; C as in
        :mod:`cltheory.losses`.
    Gradient
        .. math:: \frac{\partial L}{\partial q_i} = \frac 1 {M \tau}
           \Bigl(\sum_j p_{ij} n_j - (1 - p_i) k_i\Bigr)

        with the shares :math:`p_i` of the key and :math:`p_{ij}` of the queue in the sum of
        exponentials.
    Batch bias
        :math:`\frac 1 K (a - 1 - \frac v 2)`, up to :math:`O(K^{-2})`, whatever the batch; a and v
        as in :mod:`cltheory.losses`.
    Cost
        :math:`4 M K d` operations, if the queue gets no gradient; memory :math:`O(M K)`.

    Examples
    --------
    >>> q, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])
    >>> moco(q, q, queue=n, temperature=1.0), moco(q, -q, queue=n, temperature=1.0)
    (tensor(0.2395), tensor(1.0986))
    """
    queries, keys, queue = _matrices(queries=queries, keys=keys, queue=queue)
    if len(keys) != len(queries):
        raise ValueError(
            f"keys must have one row for each of {len(queries)} queries, got {len(keys)}"
        )
    _validate.positive(temperature, "temperature")
    scale = 1 / temperature
    sums = _log_sums(queries, queue, scale)
    loss = blockwise.softplus(sums - scale * blockwise.diagonal(queries, keys)).mean()
    return loss.to(queries.dtype)


def swav(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    prototypes: Float[Tensor, "k d"],
    temperature: float,
    eps: float = 0.05,
    iterations: int = 3,
) -> Float[Tensor, ""]:
    r"""SwAV's swapped prediction [2]_: the code of a view from the features of the other.

    .. math:: \tfrac12 (\ell(z^1, q^2) + \ell(z^2, q^1)),\\
       \ell(z, q) = -\frac 1 M \sum_i \sum_{k=1}^K q_{ik}
       \log \operatorname{softmax}_k \bigl(s(z_i, c_k) / \tau\bigr)

    with prototypes c and the codes :math:`q^v` of :func:`cltheory.sinkhorn.codes` from the scores
    :math:`s(z^v_i, c_k)`, which carry no gradient. Each anchor has K candidates. A map of all
    samples to one point costs at least :math:`\log K`, whatever the prototypes; without
    equipartition, `iterations=0`, it may cost nothing. For unit rows, hard codes used equally, and
    :math:`K \le d + 1` the least value, where features lie at the prototypes of a regular simplex,
    is :math:`\log\bigl(1 + (K - 1)\, e^{-K / ((K - 1) \tau)}\bigr)`.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    prototypes : Tensor
        c, at least two, one a row.
    temperature : float
        :math:`\tau`, above 0.
    eps, iterations
        Of the codes.

    Raises
    ------
    ValueError
        If an argument is no finite matrix, the three do not fit in shape, dtype or device, there
        are fewer than two prototypes, or a number is out of range.

    Notes
    -----
    Candidates
        K; at least :math:`\log K` where all points coincide.
    Minimiser
        Each feature at a prototype, all used equally, and prototypes that are a regular simplex, if
        codes are hard and :math:`K \le d + 1`.
    Least value
        :math:`\log(1 + (K - 1)\, e^{-K / ((K - 1) \tau)})` with hard codes; with
        :math:`\varepsilon > 0` the entropy of the codes comes in.
    Limit
        No closed form: codes tend to those of entropic transport from the law of the features to
        equal use.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac 1 {2 M \tau}
           \sum_k (p^1_{ik} - q^2_{ik})\, c_k

        with :math:`p^v_{ik} = \operatorname{softmax}_k(s(z^v_i, c_k)/\tau)`.
    Batch bias
        Not zero: equal use is asked of every batch, though only the law has it.
    Cost
        :math:`12 M K d` operations; memory :math:`O(M K)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> swav(z, z, prototypes=z, temperature=1.0), swav(z, -z, prototypes=z, temperature=1.0)
    (tensor(0.1269), tensor(2.1269))
    """
    z1, z2, prototypes = _matrices(z1=z1, z2=z2, prototypes=prototypes)
    if len(z1) != len(z2):
        raise ValueError(f"z2 must have one row for each of {len(z1)} of z1, got {len(z2)}")
    if len(prototypes) < 2:
        raise ValueError(f"prototypes must hold at least two rows, got {len(prototypes)}")
    _validate.positive(temperature, "temperature")
    scores = [z @ prototypes.mT for z in (z1, z2)]
    laws = [(s / temperature).log_softmax(1) for s in scores]
    aims = [sinkhorn.codes(s.detach(), eps=eps, iterations=iterations) for s in scores]
    terms = [(aim * law).sum() for aim, law in zip(aims[::-1], laws, strict=True)]
    return -torch.stack(terms).sum() / (2 * len(z1))


def siglip(
    z1: Float[Tensor, "m d"],
    z2: Float[Tensor, "m d"],
    *,
    temperature: float | Float[Tensor, ""],
    bias: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    r"""Pairwise sigmoid loss [3]_: each of the M² pairs on its own, positive or not.

    .. math:: \frac 1 M \sum_i \log\bigl(1 + e^{-s(z^1_i, z^2_i)/\tau + b}\bigr)
       + \frac 1 M \sum_{i \ne j} \log\bigl(1 + e^{s(z^1_i, z^2_j)/\tau - b}\bigr)

    Here b is a threshold, which is subtracted; the released code adds its bias, which is -b, and
    starts at :math:`1/\tau = 10` and b = 10. For unit rows and :math:`d \ge M > 2` the least value
    is that of

    .. math:: \log(1 + e^{-(2 s - 1)/\tau + b})
       + (M - 1) \log\bigl(1 + e^{(-1 + s (M - 2)/(M - 1))/\tau - b}\bigr)

    over :math:`0 \le s \le 1`: at s = 1 a regular simplex with :math:`z^1 = z^2`, if
    :math:`2 \sigma(b - 1/\tau) \ge (M - 2)\, \sigma(-1/((M - 1)\tau) - b)`; at s = 0 all of
    :math:`z^1` antipodal to all of :math:`z^2`, if :math:`1/\tau + b \le \log(M/2 - 1)`. Over
    temperature and bias too the infimum is 0, at any features that a threshold separates.

    Parameters
    ----------
    z1, z2 : Tensor
        Features of the two views; rows of one index are a positive pair.
    temperature : float or Tensor
        :math:`\tau`, above 0; a tensor without dimensions gets a gradient.
    bias : float or Tensor
        b; a tensor without dimensions gets a gradient.

    Raises
    ------
    ValueError
        If the views are no finite matrices of one shape, dtype and device with at least two rows,
        the temperature is not a finite number above 0, or the bias is not finite.

    Notes
    -----
    Candidates
        Each of :math:`M^2` pairs alone;
        :math:`\log(1 + e^{b - 1/\tau}) + (M - 1) \log(1 + e^{1/\tau - b})` where all points
        coincide.
    Minimiser
        For :math:`d \ge M > 2` one of a family from the regular simplex to two antipodal points,
        which temperature and bias choose.
    Least value
        :math:`\log(1 + e^{b - 1/\tau}) + (M - 1) \log(1 + e^{-1/((M - 1) \tau) - b})` in the phase
        of the simplex.
    Limit
        None at fixed temperature and bias: the second sum grows like M.
    Gradient
        .. math:: \frac{\partial L}{\partial z^1_i} = \frac 1 {M \tau}
           \Bigl(\sum_{j \ne i} \sigma(s_{ij}/\tau - b)\, z^2_j
           - \sigma(b - s_{ii}/\tau)\, z^2_i\Bigr)

        with :math:`s_{ij} = s(z^1_i, z^2_j)`.
    Batch bias
        The mean of the negatives has none; its weight is :math:`M - 1`.
    Cost
        :math:`6 M^2 (d + 1)` operations; memory :math:`O(M d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> siglip(z, z, temperature=1.0, bias=0.0), siglip(z, -z, temperature=1.0, bias=0.0)
    (tensor(0.6265), tensor(2.6265))
    """
    z1, z2 = _matrices(z1=z1, z2=z2)
    if len(z1) < 2 or len(z1) != len(z2):
        raise ValueError(
            f"z1 and z2 must have as many rows, at least 2, got {len(z1)} and {len(z2)}"
        )
    tau, b = (torch.as_tensor(t, dtype=z1.dtype, device=z1.device) for t in (temperature, bias))
    if not _validate.holds((tau > 0) & tau.isfinite()):
        raise ValueError(f"temperature must be a finite number above 0, got {temperature}")
    if not _validate.holds(b.isfinite()):
        raise ValueError(f"bias must be a finite number, got {bias}")
    # The threshold is one more coordinate, x of the first view and -b / x of the second; half of
    # it on either side keeps norms, and with them the bound on the logits, small.
    x = b.detach().abs().clamp(min=1).sqrt().expand(len(z1), 1)
    one = torch.cat([z1 / tau.sqrt(), x], 1)
    two = torch.cat([z2 / tau.sqrt(), -b / x], 1)
    positives = blockwise.softplus(-blockwise.diagonal(one, two)).mean()
    others = blockwise.softplus_mean(one, two, scale=1.0, excluded=(0,))
    return (positives + (len(z1) - 1) * others).to(z1.dtype)


def supcon(
    z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""Supervised contrastive loss [4]_, its "out" form: n anchors, each with n - 1 candidates.

    .. math:: \frac 1 n \sum_i \frac{-1}{|P(i)|} \sum_{p \in P(i)}
       \log \frac{e^{s(z_i, z_p)/\tau}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau}}

    with the other rows P(i) of the class of i, all of them candidates. Of two views, all rows are
    given, with the labels of both; if every sample is a class it is NT-Xent. For unit rows in K
    classes of :math:`c \ge 2` rows each and :math:`K \le d + 1` the least value, where each class
    is one point of a regular simplex, is
    :math:`\log\bigl(c - 1 + c\, (K - 1)\, e^{-K / ((K - 1) \tau)}\bigr)`. If classes differ in
    size, they still collapse, but not to a simplex.

    Parameters
    ----------
    z : Tensor
        Features, one row a view of a sample.
    labels : Tensor
        Class of each row; any integers.
    temperature : float
        :math:`\tau`, above 0.

    Raises
    ------
    ValueError
        If `z` is no finite matrix, `labels` are not one integer a row, a class has one row only,
        or the temperature is not a finite number above 0.

    Notes
    -----
    Candidates
        :math:`n - 1`; :math:`\log(n - 1)` where all points coincide.
    Minimiser
        For :math:`K \le d + 1` classes of c rows each: every class at one point, these points a
        regular simplex.
    Least value
        :math:`\log(c - 1 + c (K - 1)\, e^{-K / ((K - 1) \tau)})`
    Limit
        :math:`\log(\frac 1 K + \frac{K - 1} K e^{-K / ((K - 1) \tau)})` at the minimiser, for many
        rows in each of K classes, less :math:`\log(n - 1)`.
    Gradient
        .. math:: \frac{\partial L}{\partial z_i} = \frac 1 {n \tau}
           \Bigl(\sum_{j \ne i} (p_{ij} + p_{ji})\, z_j
           - \frac 2 {|P(i)|} \sum_{p \in P(i)} z_p\Bigr)

        with the softmax :math:`p_{ij}` of row i over all others.
    Batch bias
        Of order :math:`1 / n`, as that of NT-Xent, from the logarithm of a sum over the batch.
    Cost
        :math:`4 n^2 d` operations; memory :math:`O(n d)`.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> supcon(z, torch.tensor([0, 0, 1, 1]), temperature=1.0)
    tensor(0.2395)
    """
    (z,) = _matrices(z=z)
    if labels.shape != z.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"labels must be integers of shape ({len(z)},), one for each row of z, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    _validate.positive(temperature, "temperature")
    classes, members, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if not _validate.holds((counts > 1).all()):
        alone = classes[counts == 1][0].item()
        raise ValueError(f"labels must hold each class at least twice, got one row of {alone}")
    double = z.double()
    totals = double.new_zeros(len(classes), z.shape[1]).index_add(0, members, double)
    others = totals[members] - double
    attraction = (double * others).sum(1) / (counts[members] - 1)
    sums = blockwise.log_sums(z, scale=1 / temperature)
    loss: Tensor = (sums - attraction / temperature).mean().to(z.dtype)
    return loss


def _matrices(**named: Tensor) -> list[Tensor]:
    """Check matrices of one dimension, dtype and device; convert them to float32 or float64."""
    (first, x), *rest = named.items()
    for name, z in named.items():
        if z.ndim != 2:
            raise ValueError(
                f"{name} must be a matrix with one point a row, got shape {tuple(z.shape)}"
            )
        _validate.points(z, name)
    for name, z in rest:
        for kind, one, two in (
            ("number of columns", x.shape[1], z.shape[1]),
            ("dtype", x.dtype, z.dtype),
            ("device", x.device, z.device),
        ):
            if one != two:
                raise ValueError(
                    f"{first} and {name} must have the same {kind}, got {one} and {two}"
                )
    return [z.to(torch.promote_types(z.dtype, torch.float32)) for z in named.values()]


def _log_sums(
    x: Float[Tensor, "m d"], y: Float[Tensor, "k d"], scale: float
) -> Float[Tensor, " m"]:
    r"""Return :math:`\log \sum_j e^{\text{scale}\; x_i^\top y_j}` in float64."""
    sums: Tensor = _LogSums.apply(x, y, scale)[0]  # type: ignore[no-untyped-call]
    return sums


class _LogSums(Function):
    """Logarithms of row sums; the logits turn into their own derivatives in place."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        shares = (scale * x) @ y.mT
        top = shares.amax(1, keepdim=True)
        total = shares.sub_(top).exp_().sum(1, keepdim=True)
        sums = (total.double().log() + top)[:, 0]
        return sums, shares.div_(total)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, y, ctx.scale = inputs
        sums, shares = output
        ctx.mark_non_differentiable(shares)
        ctx.set_materialize_grads(False)  # no matrix of zeros for what has no gradient
        ctx.save_for_backward(x, y, sums, shares)
        ctx.save_for_forward(x, y, shares)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: None) -> Any:
        if g is None:
            return None, None, None
        x, y, sums, shares = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: as a function of x and y
            shares = (ctx.scale * x @ y.mT - sums[:, None].to(x.dtype)).exp()
        weights = ctx.scale * g.to(x.dtype)[:, None]
        # Weights go on the thin side: no other matrix of all pairs is made.
        gradients = (
            weights * (shares @ y) if ctx.needs_input_grad[0] else None,
            shares.mT @ (weights * x) if ctx.needs_input_grad[1] else None,
        )
        return *gradients, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dy: Tensor | None, _: None) -> Any:
        x, y, shares = ctx.saved_tensors
        change = sum(a @ b.mT for a, b in ((dx, y), (x, dy)) if a is not None and b is not None)
        return (ctx.scale * (shares * change).sum(1)).double(), None
