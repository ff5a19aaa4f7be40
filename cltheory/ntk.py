r"""Neural tangent kernels: of a network as it is, of infinitely wide ones, and how they move.

For a network f with parameters :math:`\theta` and Z outputs,

.. math:: K_{ij}(x, y) = \nabla_\theta f_i(x) \cdot \nabla_\theta f_j(y)

is a Z x Z matrix for each pair of inputs; every kernel here has the shape (n, n', Z, Z), but the
infinitely wide one, which is a multiple of the identity over outputs.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from cltheory import _validate
from cltheory.networks import ACTIVATIONS, CURVATURES, SLOPES, BlockNet, TwoLayer

ROWS = 32
"""Rows of one tile of :func:`two_layer`; of a square kernel only half the tiles differ."""
ENTRIES = {"cpu": 2**17, "cuda": 2**24}
"""Entries of the left factor of one product in :func:`two_layer`; on the CPU, a cache holds it."""


def two_layer(
    model: TwoLayer,
    x: Float[Tensor, "*stack n in_dim"],
    y: Float[Tensor, "*stack m in_dim"] | None = None,
) -> Float[Tensor, "*stack n m out out"]:
    r"""Compute the kernel of a two-layer network in closed form.

    .. math::

        K_{ij}(x, y) = \frac1M \sum_r \Big[\delta_{ij}\, \varphi(v_r^\top x) \varphi(v_r^\top y)
        + w_{ri} w_{rj}\, \varphi'(v_r^\top x) \varphi'(v_r^\top y)\, x^\top y\Big]

    exact at every width, both layers trained. It costs :math:`n n' M Z (Z + 1)` operations, about
    half of that when y is x, and never holds a derivative by a parameter.

    Parameters
    ----------
    model
        A network, or a stack of them.
    x, y
        Inputs, shared by the stack or each its own; y is x by default.

    Raises
    ------
    ValueError
        If the inputs are no matrices with as many columns as the network has inputs.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler, Neural tangent kernel, NeurIPS 2018 (equation number unknown).

    Examples
    --------
    >>> model = TwoLayer(3, 64, 2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.eye(3)
    >>> torch.allclose(two_layer(model, x), empirical(model, x), atol=1e-6)
    True
    """
    readout = model.readout
    width, out = readout.shape[-2:]
    act, slope = ACTIVATIONS[model.activation], SLOPES[model.activation]
    pre_x = model.preactivations(x)
    pre_y = pre_x if y is None else model.preactivations(y)
    slope_x = slope(pre_x)
    slope_y = slope_x if y is None else slope(pre_y)
    phi_x = act(pre_x)
    kappa = phi_x @ (phi_x if y is None else act(pre_y)).mT / width
    gram = x @ (x if y is None else y).mT / width

    row, column = torch.triu_indices(out, out, device=readout.device)
    pairs = (readout[..., row] * readout[..., column]).mT.contiguous()
    own = (row == column).to(kappa.dtype)[:, None, None]
    place = torch.zeros(out, out, dtype=torch.int64, device=readout.device)
    place[row, column] = place[column, row] = torch.arange(len(row), device=readout.device)
    kernel: Tensor | None = None
    for start in range(0, slope_x.shape[-2], ROWS):
        here, right = slice(start, start + ROWS), slice(start if y is None else 0, None)
        tile = _pair_sums(pairs, slope_x[..., here, :], slope_y[..., right, :])
        tile = tile * gram[..., None, here, right] + own * kappa[..., None, here, right]
        if kernel is None:
            kernel = tile.new_empty(*tile.shape[:-3], out, out, *kappa.shape[-2:])
        kernel[..., here, right] = tile[..., place, :, :]
        if y is None:
            # K_ij(x, y) = K_ij(y, x): of a square kernel, tiles left of the diagonal are mirrored.
            kernel[..., start + ROWS :, here] = kernel[..., here, start + ROWS :].mT
    assert kernel is not None
    return kernel.movedim((-4, -3), (-2, -1))


def block(
    model: BlockNet, x: Float[Tensor, "n in_dim"], y: Float[Tensor, "m in_dim"] | None = None
) -> Float[Tensor, "n m out out"]:
    r"""Compute the kernel of a block network in closed form.

    .. math::

        K_{kl}(x, y) = \delta_{kl}\, c^2\, x^\top y
        \sum_{r \le m} \varphi'(b_{kr}^\top x) \varphi'(b_{kr}^\top y)

    Parameters
    ----------
    model
        The network.
    x, y
        Inputs; y is x by default.

    Raises
    ------
    ValueError
        If the inputs are no matrices with as many columns as the network has inputs.

    References
    ----------
    .. [1] arXiv 2503.10812, proposition 4.3 (its constants are not known).

    Examples
    --------
    >>> model = BlockNet(3, 64, 2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.eye(3)
    >>> torch.allclose(block(model, x), empirical(model, x), atol=1e-6)
    True
    """
    slope = SLOPES[model.activation]
    slope_x = slope(model.preactivations(x))
    slope_y = slope_x if y is None else slope(model.preactivations(y))
    gram = x @ (x if y is None else y).mT
    return torch.diag_embed((model.scale**2 * gram * (slope_x @ slope_y.mT)).movedim(0, -1))


def empirical(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "m ..."] | None = None,
    *,
    chunk: int = 32,
) -> Float[Tensor, "n m out out"]:
    r"""Compute the kernel of any network from its derivatives by all parameters.

    Tied weights count once, as one parameter; parameters that want no gradient do not count. Memory
    is that of the derivatives at two chunks of inputs: chunk * Z numbers for each parameter, twice.

    Parameters
    ----------
    model
        From a batch of inputs to a matrix of outputs, each row a function of its own input alone:
        batch normalisation and dropout must be in evaluation mode.
    x, y
        Inputs, the first dimension counting them; y is x by default.
    chunk
        Inputs at a time.

    Raises
    ------
    ValueError
        If a layer of the model mixes the rows or draws at random, no parameter is trained, the
        output is no matrix, or `chunk` is below 1.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> empirical(model, torch.eye(3))[0, 1]
    tensor([[1., 0.],
            [0., 1.]])
    """
    _validate.integer(chunk, "chunk", 1)
    for layer in model.modules():
        if layer.training and isinstance(layer, _MIXING):
            raise ValueError(
                f"model must be in evaluation mode, got a {type(layer).__name__} in training mode, "
                "whose outputs are no function of one input: call model.eval()"
            )
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("model must have a parameter that wants a gradient, got none")

    def output(parameters: dict[str, Tensor], point: Tensor) -> Tensor:
        result = functional_call(model, parameters, point[None])
        if result.ndim != 2:
            raise ValueError(f"model must give a matrix, got shape {tuple(result.shape)}")
        return cast(Tensor, result[0])

    each = vmap(jacrev(output), (None, 0))

    def jacobian(points: Tensor) -> Float[Tensor, "points out parameters"]:
        return torch.cat([d.flatten(2) for d in each(trained, points).values()], 2)

    y = x if y is None else y
    rows = []
    for points in torch.split(x, chunk):
        left = jacobian(points)
        blocks = [
            torch.einsum("nip,mjp->nmij", left, left if others is points else jacobian(others))
            for others in torch.split(y, chunk)
        ]
        rows.append(torch.cat(blocks, 1))
    return torch.cat(rows, 0)


def duals(
    x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"] | None = None, *, activation: str
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    r"""Compute the dual activations, Gaussian means of an activation and of its derivative.

    .. math::

        \kappa_\varphi(x, y) = \mathbb E\, \varphi(v^\top x) \varphi(v^\top y), \\
        \kappa_{\varphi'}(x, y) = \mathbb E\, \varphi'(v^\top x) \varphi'(v^\top y), \qquad
        v \sim N(0, I)

    For relu, with :math:`\theta` the angle between x and y,

    .. math::

        \kappa_\varphi = \frac{|x| |y|}{2 \pi} (\sin\theta + (\pi - \theta) \cos\theta), \qquad
        \kappa_{\varphi'} = \frac{\pi - \theta}{2 \pi}

    and for erf, with :math:`p = 1 + 2 |x|^2` and :math:`q = 1 + 2 |y|^2`,

    .. math::

        \kappa_\varphi = \frac2\pi \arcsin \frac{2 x^\top y}{\sqrt{p q}}, \qquad
        \kappa_{\varphi'} = \frac4\pi \big(p q - 4 (x^\top y)^2\big)^{-1/2}

    Parameters
    ----------
    x, y
        Points, one a row; y is x by default.
    activation
        "erf" or "relu".

    Raises
    ------
    ValueError
        If the activation is another, or x and y are no matrices of one width.

    References
    ----------
    .. [1] Cho, Saul, Kernel methods for deep learning, NeurIPS 2009 (twice the means for relu).
    .. [2] Williams, Computing with infinite networks, NeurIPS 1996.

    Examples
    --------
    >>> kappa, slope = duals(torch.eye(2), activation="relu")
    >>> slope
    tensor([[0.5000, 0.2500],
            [0.2500, 0.5000]])
    """
    y = x if y is None else y
    _validate.rows(x, y)
    gram = x @ y.mT
    if activation not in ("erf", "relu"):
        raise ValueError(f"activation must be 'erf' or 'relu', got {activation!r}")
    sizes = x.norm(dim=1)[:, None], y.norm(dim=1)
    if activation == "erf":
        p, q = 1 + 2 * x.square().sum(1)[:, None], 1 + 2 * y.square().sum(1)
        plain = p * q - 4 * gram**2
        # The same without cancellation, 1 + 2 |x|^2 + 2 |y|^2 + 4 |x|^2 |y|^2 sin^2 of the angle:
        # its values, with the graph of the other, whose derivatives of every order are right.
        apart, together = _chords(x.detach(), y.detach())
        area = sizes[0].detach() * sizes[1].detach() * apart * together / 2
        root = (plain + (p + q - 1 + 4 * area**2 - plain).detach()).sqrt()
        return (2 / pi) * torch.atan2(2 * gram, root), (4 / pi) / root
    theta = 2 * torch.atan2(*_chords(x, y))
    kappa = sizes[0] * sizes[1] / (2 * pi) * (theta.sin() + (pi - theta) * theta.cos())
    # A row of zeros has no angle, and a slope of 0.
    there = (sizes[0] > 0) & (sizes[1] > 0)
    return kappa, torch.where(there, (pi - theta) / (2 * pi), 0)


def _chords(
    x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"]
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Distances of the directions of rows, 2 sin and 2 cos of half their angle.

    By inner products, and their arc cosines, half the digits are lost near 0 and pi.
    """
    x, y = nn.functional.normalize(x), nn.functional.normalize(y)
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x, y, compute_mode=mode), torch.cdist(x, -y, compute_mode=mode)


def infinite_width(
    x: Float[Tensor, "n dim"], y: Float[Tensor, "m dim"] | None = None, *, activation: str
) -> Float[Tensor, "n m"]:
    r"""Compute the limit of :func:`two_layer` for infinitely many units, at random weights.

    .. math::

        K_{ij}(x, y) \to
        \delta_{ij} \big[\kappa_\varphi(x, y) + x^\top y\, \kappa_{\varphi'}(x, y)\big]

    with the means of :func:`duals`; this is the bracket. A :class:`~cltheory.networks.BlockNet`
    with its default scale has the second term alone.

    Parameters
    ----------
    x, y
        Points, one a row; y is x by default.
    activation
        "erf" or "relu".

    Raises
    ------
    ValueError
        As for :func:`duals`.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler, Neural tangent kernel, NeurIPS 2018, theorem 1.

    Examples
    --------
    >>> infinite_width(torch.eye(2), activation="relu")
    tensor([[1.0000, 0.1592],
            [0.1592, 1.0000]])
    """
    kappa, slope = duals(x, y, activation=activation)
    return kappa + (x @ (x if y is None else y).mT) * slope


def drift(
    before: Float[Tensor, "*stack n m out out"], after: Float[Tensor, "*stack n m out out"]
) -> Float[Tensor, "*stack"]:
    r"""Compute how far a kernel moved, :math:`\max |K_{ij}(x, y) - K'_{ij}(x, y)|`.

    Parameters
    ----------
    before, after
        Two kernels, or two stacks of them.

    Raises
    ------
    ValueError
        If their shapes differ or have fewer than four dimensions.

    Examples
    --------
    >>> drift(torch.zeros(3, 3, 2, 2), torch.full((3, 3, 2, 2), -0.5))
    tensor(0.5000)
    """
    if before.shape != after.shape or before.ndim < 4:
        raise ValueError(
            "before and after must be kernels of one shape (n, m, out, out), got shapes "
            f"{tuple(before.shape)} and {tuple(after.shape)}"
        )
    return (before - after).abs().amax((-4, -3, -2, -1))


def hessian_norm(
    model: TwoLayer, x: Float[Tensor, "*stack n in_dim"]
) -> Float[Tensor, "*stack n out"]:
    r"""Compute the spectral norm of the Hessian of each output by all parameters, exactly.

    .. math::

        \|H^{(z)}(x)\|_2 = M^{-1/2} \max_r \tfrac12 \big(|a_r| + \sqrt{a_r^2 + 4 b_r^2}\big), \\
        a_r = w_{rz}\, \varphi''(v_r^\top x)\, |x|^2,\quad b_r = \varphi'(v_r^\top x)\, |x|

    for the Hessian has a block for each hidden unit, which acts on w and on v along x alone.

    Parameters
    ----------
    model
        A network, or a stack of them, of an activation with two derivatives.
    x
        Inputs.

    Raises
    ------
    ValueError
        If the activation has no second derivative (relu), or the inputs are no matrix with as many
        columns as the network has inputs.

    References
    ----------
    .. [1] Liu, Zhu, Belkin, On the linearity of large non-linear models, NeurIPS 2020
       (the bound; the exact value is this book's).

    Examples
    --------
    >>> model = TwoLayer(3, 64, 2, activation="tanh", generator=torch.Generator().manual_seed(0))
    >>> hessian_norm(model, torch.eye(3)).shape
    torch.Size([3, 2])
    """
    if model.activation not in CURVATURES:
        raise ValueError(
            f"activation must have two derivatives, as {list(CURVATURES)} have, "
            f"got {model.activation!r}"
        )
    pre = model.preactivations(x)
    size = x.square().sum(-1)[..., None]
    curvature = CURVATURES[model.activation](pre) * size
    slope = SLOPES[model.activation](pre).square() * size
    worst = [
        (a.abs() + (a.square() + 4 * slope).sqrt()).amax(-1)
        for a in (curvature * w[..., None, :] for w in model.readout.unbind(-1))
    ]
    return torch.stack(worst, -1) / (2 * sqrt(pre.shape[-1]))


_MIXING: Any = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def _pair_sums(
    pairs: Float[Tensor, "*stack pairs width"],
    x: Float[Tensor, "*stack n width"],
    y: Float[Tensor, "*stack m width"],
) -> Float[Tensor, "*stack pairs n m"]:
    """Sum pairs * x * y over the units, as one matrix product for each tile of units."""
    pairs, x = pairs[..., :, None, :], x[..., None, :, :]
    count, n, width = pairs.shape[-3], x.shape[-2], x.shape[-1]
    entries = ENTRIES.get(x.device.type, ENTRIES["cpu"])
    step = max(1, entries // (count * n * pairs[..., 0, 0, 0].numel()))
    total: Tensor | None = None
    for start in range(0, width, step):
        units = slice(start, start + step)
        left = (pairs[..., units] * x[..., units]).flatten(-3, -2)
        right = y[..., units].mT
        total = left @ right if total is None else _add_product(total, left, right)
    assert total is not None
    return total.reshape(*total.shape[:-2], count, n, total.shape[-1])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    if total.ndim == 2:
        return total.addmm_(left, right)
    return total + left @ right if total.ndim > 3 else total.baddbmm_(left, right)
