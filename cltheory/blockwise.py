r"""Sums over all pairs of rows, with exact gradients, that never hold the matrix of all pairs.

Logits are :math:`\ell_{ij} = \text{scale}\; x_i^\top y_j`. A pair (i, j) is left out of a sum if
:math:`j - i` is one of the offsets `excluded`, modulo the number of rows of y: 0 leaves out equal
indices, n / 2 the partner of a row in two stacked views.

The matrix is made in tiles, and made again in the backward pass; of a symmetric one, only the tiles
on and above the diagonal. Means over rows or pairs go by panels of whole rows instead, and take the
gradient along on the way forward. Wherever a second derivative, a forward-mode derivative or a
transform of `torch.func` asks for it, the whole matrix is made after all, in float64.

`distance_mean` takes a function of :math:`|x_i - x_j|^2` instead. Distances come from inner
products too, but those of close rows, which would lose their digits, from differences.

Rows of float16 and bfloat16 are converted to float32. Sums are float64, whatever the rows are.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn import functional

from cltheory import _tiles, _validate
from cltheory._tiles import Offsets


def softplus(x: Tensor) -> Tensor:
    r"""Return :math:`\log(1 + e^x)` entry by entry, to rounding in float64 too.

    Examples
    --------
    >>> softplus(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([3.7835e-44, 6.9315e-01, 1.0000e+02])
    """
    return functional.softplus(x, threshold=40)


def log_sums(
    x: Float[Tensor, "n d"], *, scale: float, excluded: Offsets = (0,)
) -> Float[Tensor, " n"]:
    r"""Row sums :math:`\log \sum_j e^{\text{scale}\; x_i^\top x_j}` of one set of points.

    With first derivatives the cost is :math:`4 n^2 d` operations, a third less than that of
    the whole matrix, and the memory O(n d). It needs offsets that are symmetric (with o also -o
    modulo n), and sums that keep within :math:`2^{180}` of the largest possible term,
    :math:`e^{\text{scale} \max_i |x_i|^2}`: for unit rows, temperatures down to 0.016 in
    any case, and as a rule far below. Otherwise it falls back to panels of whole rows, at twice the
    cost or more.

    Parameters
    ----------
    x
        Points, one a row.
    scale
        Inverse temperature, above 0.
    excluded
        Offsets j - i of pairs that are left out, modulo n.

    Raises
    ------
    ValueError
        If `x` is no matrix of finite entries, if no pair is left in a row, if the offsets are not
        symmetric, or if `scale` is not a finite number above 0.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> log_sums(x, scale=1.0).exp()
    tensor([2.0000, 1.3679, 1.3679], dtype=torch.float64)
    """
    excluded = _offsets(x, x, scale, excluded)
    if {-offset % len(x) for offset in excluded} != set(excluded):
        raise ValueError(f"excluded must hold with o also -o modulo {len(x)}, got {excluded}")
    x = _single(x)
    if _transformed(x):
        return _plain_log_sums(x, x, scale, excluded)[0]
    (sums,) = _apply(_LogSums, x, None, scale, excluded)
    return cast(Tensor, sums)


def log_sums_between(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, scale: float, excluded: Offsets = ()
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    r"""Return the sums over rows, :math:`\log \sum_j e^{\ell_{ij}}`, and those over columns.

    Both come from the same tiles: with first derivatives :math:`8 n m d` operations.

    Parameters
    ----------
    x, y
        Two sets of points, one a row.
    scale
        Inverse temperature, above 0.
    excluded
        Offsets j - i of pairs that are left out, modulo m; if there are any, n = m.

    Raises
    ------
    ValueError
        If `x` and `y` are no matrices of finite entries that fit, if no pair is left in a row, or
        if `scale` is not a finite number above 0.

    Examples
    --------
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    >>> for sums in log_sums_between(x, y, scale=1.0):
    ...     sums.exp()
    tensor([ 3.0000, 11.1073], dtype=torch.float64)
    tensor([2.0000, 3.7183, 8.3891], dtype=torch.float64)
    """
    excluded = _offsets(x, y, scale, excluded)
    x, y = _single(x), _single(y)
    if _transformed(x, y):
        return _plain_log_sums(x, y, scale, excluded)
    # A view: `_LogSums` takes one tensor twice for one set of points.
    rows, columns = _apply(_LogSums, x, y.view_as(y), scale, excluded)
    return rows, columns


def cross_entropy(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    scale: float,
    positive: int = 0,
    excluded: Offsets = (),
) -> Float[Tensor, ""]:
    r"""Mean over rows of :math:`\log(1 + \sum_{j \ne i^+} e^{\ell_{ij} - \ell_{ii^+}})`.

    The gradient is made on the way forward: with it :math:`6 n^2 d` operations. Means far below
    machine epsilon keep their digits.

    Parameters
    ----------
    x, y
        Two sets of n points, one a row.
    scale
        Inverse temperature, above 0.
    positive
        The offset :math:`i^+ - i` modulo n.
    excluded
        Offsets j - i of pairs that are left out too, modulo n.

    Raises
    ------
    ValueError
        As for `log_sums_between`; if the sets differ in size.

    Examples
    --------
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    >>> cross_entropy(x, y, scale=1.0)
    tensor(0.5032, dtype=torch.float64)
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must have as many rows, got {len(x)} and {len(y)}")
    offsets = _offsets(x, y, scale, (positive, *excluded))
    return _by_panels(x, y, scale, offsets, positive % len(y))


def diagonal(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Inner products of rows of one index, summed in float64.

    Examples
    --------
    >>> diagonal(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([11.], dtype=torch.float64)
    """
    return (x * y).sum(1, dtype=torch.float64)


def second_moment(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    r"""Return :math:`x^\top x`; its gradient takes one product, where autograd takes two.

    Examples
    --------
    >>> second_moment(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    tensor([[1., 2.],
            [2., 5.]])
    """
    moment: Tensor = x.mT @ x if _transformed(x) else _apply(_SecondMoment, x)
    return moment


def softplus_mean(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, scale: float, excluded: Offsets = ()
) -> Float[Tensor, ""]:
    r"""Mean of :math:`\log(1 + e^{\ell_{ij}})` over the pairs that are not excluded.

    The gradient is made on the way forward: with it :math:`6 n m d` operations.

    Parameters
    ----------
    x, y
        Two sets of points, one a row.
    scale
        Inverse temperature, above 0.
    excluded
        Offsets j - i of pairs that are left out, modulo m; if there are any, n = m.

    Raises
    ------
    ValueError
        As for `log_sums_between`.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> softplus_mean(x, x, scale=1.0)
    tensor(0.8482, dtype=torch.float64)
    """
    return _by_panels(x, y, scale, _offsets(x, y, scale, excluded), None)


def distance_mean(
    x: Float[Tensor, "n d"],
    function: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Float[Tensor, ""]:
    r"""Mean over pairs :math:`i \ne j` of a function of the squared distance :math:`|x_i - x_j|^2`.

    The gradient is made on the way forward: with it :math:`3 n^2 d` operations. Coincident rows do
    not pull on each other.

    Parameters
    ----------
    x
        At least two points, one a row.
    function
        From squared distances to values, entry by entry.
    slope
        From squared distances and values to derivatives of the function; by autograd if not given.

    Raises
    ------
    ValueError
        If `x` is no matrix of finite entries with at least two rows.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> distance_mean(x, torch.sqrt)
    tensor(2., dtype=torch.float64)
    """
    _validate.rows(x, x)
    _validate.points(x, "x", least=2)
    x = _single(x)
    if _transformed(x):
        return _plain_distance_mean(x, function)
    with_gradient = torch.is_grad_enabled() and x.requires_grad
    mean: Tensor = _apply(_DistanceMean, x, function, slope, with_gradient)
    return mean


def _by_panels(
    x: Tensor, y: Tensor, scale: float, excluded: Offsets, positive: int | None
) -> Float[Tensor, ""]:
    x, y = _single(x), _single(y)
    if _transformed(x, y):
        return _plain_mean(x, y, scale, excluded, positive)
    with_gradient = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    mean: Tensor = _apply(_PanelMean, x, y, scale, excluded, positive, with_gradient)
    return mean


def _offsets(x: Tensor, y: Tensor, scale: float, excluded: Offsets) -> Offsets:
    """Check the arguments of a sum, and reduce its offsets to those from 0 to m - 1."""
    _validate.rows(x, y)
    for points, name in ((x, "x"), (y, "y")):
        if not points.is_floating_point():
            raise ValueError(f"{name} must hold floating-point numbers, got {points.dtype}")
    _validate.positive(scale, "scale")
    if excluded and len(x) != len(y):
        raise ValueError(
            f"excluded must be empty for sets of different sizes, got {excluded} for {len(x)} and "
            f"{len(y)} rows"
        )
    reduced = tuple({offset % len(y) for offset in excluded})
    if len(reduced) == len(y):
        raise ValueError(f"excluded must leave a pair in each of {len(y)} rows, got {excluded}")
    return reduced


def _single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _transformed(*tensors: Tensor) -> bool:
    """Whether tiles cannot be written in place: a transform, a tangent, or no values at all."""
    tangent: Any = forward_ad.unpack_dual
    return torch._C._are_functorch_transforms_active() or any(
        t.is_meta or tangent(t).tangent is not None for t in tensors
    )


def _apply(function: Any, *inputs: Any) -> Any:
    return function.apply(*inputs)


def _plain_logits(x: Tensor, y: Tensor, scale: float, excluded: Offsets) -> Tensor:
    logits = scale * (x.double() @ y.double().mT)
    if not excluded:
        return logits
    row, column = (torch.arange(len(points), device=x.device) for points in (x, y))
    gap = (column - row[:, None]) % len(y)
    out = torch.stack([gap == offset for offset in excluded]).any(0)
    return logits.masked_fill(out, -math.inf)


def _plain_log_sums(x: Tensor, y: Tensor, scale: float, excluded: Offsets) -> tuple[Tensor, Tensor]:
    logits = _plain_logits(x, y, scale, excluded)
    return logits.logsumexp(1), logits.logsumexp(0)


def _plain_mean(
    x: Tensor, y: Tensor, scale: float, excluded: Offsets, positive: int | None
) -> Tensor:
    logits = _plain_logits(x, y, scale, excluded)
    if positive is not None:
        own = scale * diagonal(x.double(), y.double().roll(-positive, 0))
        return softplus(logits.logsumexp(1) - own).mean()
    return softplus(logits).sum() / (len(x) * (len(y) - len(excluded)))


def _plain_distance_mean(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    row, column = torch.triu_indices(len(x), len(x), 1, device=x.device)
    squares = (x.double()[row] - x.double()[column]).square().sum(1)
    apart = squares > 0
    # At a distance of zero a derivative may be infinite: such pairs keep their value only.
    safe = torch.where(apart, squares, 1)
    return torch.where(apart, function(safe), function(torch.zeros_like(safe))).mean()


def _plain_gradients(
    ctx: Any, sums: Callable[..., Any], inputs: Sequence[Tensor | None], g: Any
) -> tuple[Tensor | None, ...]:
    """Gradients by the plain form, which can be differentiated again and batched."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views: one tensor may be both x and y, with a gradient for each.
        views = [None if t is None else t.view_as(t) for t in inputs]
        wanted = {i: t for i, t in enumerate(views) if t is not None and ctx.needs_input_grad[i]}
        found = torch.autograd.grad(
            sums(*views), list(wanted.values()), g, create_graph=create_graph
        )
    given = dict(zip(wanted, found, strict=True))
    return tuple(given.get(i) for i in range(len(ctx.needs_input_grad)))


class _LogSums(Function):
    """Row and column sums by tiles, or by panels where they underflow; if y is None, row sums."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor | None, scale: float, excluded: Offsets
    ) -> tuple[Tensor, ...]:
        other = x if y is None else y
        bound = _tiles.logit_bound(x, other, scale)
        sums, lone = _tiles.tile_sums(x, other, scale, excluded, bound)
        ctx.scale, ctx.excluded, ctx.bound, ctx.tiled = scale, excluded, bound, bool(sums)
        if not ctx.tiled:
            for left, right, left_out in _ways(x, y, excluded):
                panels = _tiles.panels(left, right, scale, left_out, bound)
                sums.append(torch.cat([_tiles.powers(logits, out)[1] for _, logits, out in panels]))
        ctx.save_for_backward(x, y, lone, *sums)
        return tuple(sums)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        x, y, lone, *sums = ctx.saved_tensors
        scale, excluded, bound = ctx.scale, ctx.excluded, ctx.bound
        try:
            largest = None if torch.is_grad_enabled() else float(torch.cat(g).abs().amax())
        except RuntimeError:  # batched: no value to read
            largest = None
        if largest is None:

            def plain(x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
                return _plain_log_sums(x, x if y is None else y, scale, excluded)[: len(g)]

            return _plain_gradients(ctx, plain, (x, y), g)
        other = x if y is None else y
        gradients = [torch.zeros_like(x)] if y is None else [torch.zeros_like(t) for t in (x, y)]
        if ctx.tiled:
            # Relative to the largest, none underflows that counts.
            factor = max(largest, sys.float_info.min)
            shift = _tiles.common_shift(x, bound) * math.log(2)
            weights = [
                (part / factor * (shift - s).exp_()).to(x.dtype)
                for part, s in zip(g, sums, strict=True)
            ]
            tiles = (
                _tiles.tiles(x, other, scale, excluded, bound)
                if lone is None
                else [(slice(len(x)), slice(len(other)), lone)]
            )
            _tiles.add_tile_gradients(tiles, x, other, weights, gradients)
        else:
            for k, (left, right, left_out) in enumerate(_ways(x, y, excluded)):
                for rows, logits, out in _tiles.panels(left, right, scale, left_out, bound):
                    total, _ = _tiles.powers(logits, out)
                    out.mul_((g[k][rows] / total).to(x.dtype)[:, None])
                    flipped = gradients[::-1] if k else gradients
                    _tiles.add_panel_gradients(rows, out, left, right, flipped)
            factor = 1.0
        return *(gradient.mul_(scale * factor) for gradient in gradients), *[None] * (
            4 - len(gradients)
        )


def _ways(x: Tensor, y: Tensor | None, excluded: Offsets) -> list[tuple[Tensor, Tensor, Offsets]]:
    """Pair the sets of points whose row sums are wanted: the row sums, and the column sums."""
    if y is None:
        return [(x, x, excluded)]
    return [(x, y, excluded), (y, x, tuple(-offset % len(x) for offset in excluded))]


class _SecondMoment(Function):
    """The product of a matrix with itself, whose gradient is symmetric."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.mT @ x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return x @ (g + g.mT)


class _PanelMean(Function):
    """Mean of the softplus of logits, or by rows of log sums less the logit of the positive."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        scale: float,
        excluded: Offsets,
        positive: int | None,
        with_gradient: bool,
    ) -> Tensor:
        mean = x.new_zeros((), dtype=torch.float64)
        count = len(x) * (len(y) - len(excluded)) if positive is None else len(x)
        gradients = [torch.zeros_like(x), torch.zeros_like(y)] if with_gradient else []
        if positive is not None:
            own = diagonal(x, y.roll(-positive, 0) if positive else y).mul_(scale)
        bound = _tiles.logit_bound(x, y, scale)
        for rows, logits, weights in _tiles.panels(x, y, scale, excluded, bound):
            if positive is None:
                mean += softplus(weights.copy_(logits)).sum(dtype=torch.float64)
                weights.sigmoid_().mul_(scale / count)
            else:
                total, excess = _tiles.powers(logits, weights)
                excess -= own[rows]
                mean += softplus(excess).sum()
                share = excess.sigmoid_().mul_(scale / count)
                weights.mul_((share / total).to(x.dtype)[:, None])
                for some, entries in _tiles.diagonals(weights, rows.start, 0, (positive,), len(y)):
                    entries.copy_(share[some]).neg_()
            if with_gradient:
                _tiles.add_panel_gradients(rows, weights, x, y, gradients)
        ctx.scale, ctx.excluded, ctx.positive = scale, excluded, positive
        ctx.save_for_backward(x, y, *gradients)
        return mean.div_(count)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(x: Tensor, y: Tensor) -> Tensor:
                return _plain_mean(x, y, ctx.scale, ctx.excluded, ctx.positive)

            return _plain_gradients(ctx, plain, (x, y), g)
        return *(g * gradient for gradient in gradients), None, None, None, None


class _DistanceMean(Function):
    """Mean of a function of squared distances, by the tiles on and above the diagonal."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        function: Callable[[Tensor], Tensor],
        slope: Callable[[Tensor, Tensor], Tensor] | None,
        with_gradient: bool,
    ) -> Tensor:
        count = len(x) * (len(x) - 1)
        total = x.new_zeros((), dtype=torch.float64)
        gradient = torch.zeros_like(x) if with_gradient else None
        # Distances do not see a shift, and near the origin the squares lose fewer digits.
        x_centred = x - x.mean(0)
        for i, j, squares, near in _tiles.distance_tiles(x_centred):
            values, slopes = _with_slopes(squares, function, slope, with_gradient)
            for part in (values, slopes)[: 1 + with_gradient]:
                if i == j:
                    part.fill_diagonal_(0)
                if len(near[0]):
                    part[near] = 0
            ways = 1 if i == j else 2  # the tile below the diagonal is not made
            total += ways * values.sum()  # a tile's sum in float32 is right to 1e-7, and far faster
            if gradient is not None:
                gradient[i].addcmul_(slopes.sum(1)[:, None], x_centred[i])
                gradient[i].addmm_(slopes, x_centred[j], alpha=-1)
                if i != j:
                    gradient[j].addcmul_(slopes.sum(0)[:, None], x_centred[j])
                    gradient[j].addmm_(slopes.mT, x_centred[i], alpha=-1)
            for start in range(0, len(near[0]), _tiles.CLOSE_PAIRS):
                rows, columns = (index[start : start + _tiles.CLOSE_PAIRS] for index in near)
                gaps = x[i][rows].double() - x[j][columns].double()
                apart = gaps.square().sum(1)
                values, slopes = _with_slopes(apart, function, slope, with_gradient)
                total += ways * values.sum()
                if gradient is not None:
                    pulls = torch.where(gaps == 0, 0, slopes[:, None] * gaps).to(x.dtype)
                    gradient[i].index_add_(0, rows, pulls)
                    if i != j:
                        gradient[j].index_add_(0, columns, pulls, alpha=-1)
        ctx.function = function
        ctx.save_for_backward(x, None if gradient is None else gradient.mul_(4 / count))
        return total.div_(count)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(x: Tensor) -> Tensor:
                return _plain_distance_mean(x, ctx.function)

            return *_plain_gradients(ctx, plain, (x,), g)[:1], None, None, None
        return g * gradient, None, None, None


def _with_slopes(
    squares: Tensor,
    function: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor, Tensor], Tensor] | None,
    wanted: bool,
) -> tuple[Tensor, Tensor]:
    """Values of a function of squared distances, and its derivatives if they are wanted."""
    if not wanted:
        return function(squares), squares.new_zeros(())
    if slope is not None:
        values = function(squares)
        return values, slope(squares, values)
    with torch.enable_grad():
        leaf = squares.detach().requires_grad_()
        values = function(leaf)
        (slopes,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), slopes
