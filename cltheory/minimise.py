r"""Minima to rounding of small smooth functions: the exact side of a comparison with training.

`newton` and `lbfgs` take a scalar function of one tensor and a start, and return a tensor of its
shape; `on_spheres` looks for unit rows from many random starts at once. They hold for a few
thousand numbers at most, in float64; training is :func:`cltheory.training.fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate

FLAT = 1e-13
"""Curvature relative to the largest below which Newton's method does not move."""
DECREASE = 1e-13
"""A step that promises less than this is taken without a look at the value, which cannot tell."""
PATIENCE = 20
"""Steps without a visible decrease after which `on_spheres` gives a start up."""
HALVINGS = 25
"""Halvings of a step after which `on_spheres` gives it up."""
HISTORY = 20
"""Pairs of steps and changes of the gradient that `on_spheres` remembers."""


def newton(
    function: Callable[[Tensor], Tensor],
    start: Float[Tensor, "*shape"],
    *,
    steps: int = 100,
    atol: float = 1e-12,
) -> Float[Tensor, "*shape"]:
    r"""Minimise a convex function by Newton's method, damped until its steps are safe.

    .. math:: x \leftarrow x - \eta\, \nabla^2 f(x)^{+}\, \nabla f(x)

    Along directions in which f is constant, such as c(x) in a critic log K+ + c(x), the result
    stays where the start is. The cost is O(n^3) a step for n numbers.

    Parameters
    ----------
    function
        Convex and twice differentiable, from a tensor of the shape of `start` to a scalar.
    start
        Where to begin; it is left as it is.
    steps
        Most steps.
    atol
        Stop after a step whose entries are all smaller.

    Raises
    ------
    ValueError
        If `start` is not finite or `steps` not a positive integer.

    Examples
    --------
    >>> newton(lambda x: (x.exp() - 2 * x).sum(), torch.zeros(1, dtype=torch.float64)).exp()
    tensor([2.], dtype=torch.float64)
    """
    _validate.finite(start, "start")
    _validate.integer(steps, "steps", 1)
    x, n = start.detach().clone(), start.numel()
    second: Any = torch.autograd.functional.hessian
    for _ in range(steps):
        at = x.clone().requires_grad_()
        value = function(at)
        (gradient,) = torch.autograd.grad(value, at)
        hessian = second(function, x).reshape(n, n)
        step = torch.linalg.pinv(hessian, rtol=FLAT, hermitian=True) @ gradient.flatten()
        decrease, size = float(step @ gradient.flatten()), 1.0
        step = step.reshape(x.shape)
        while decrease > DECREASE and size > 1e-6:
            if function(x - size * step) <= value - size * decrease / 4:
                break
            size /= 2
        x = x - size * step
        if float(step.abs().max()) < atol:
            break
    return x


def lbfgs(
    function: Callable[[Tensor], Tensor], start: Float[Tensor, "*shape"], *, steps: int = 1000
) -> Float[Tensor, "*shape"]:
    """Find a local minimum of a smooth function by L-BFGS with a strong Wolfe line search.

    Values are exact to rounding where the minimum is regular, and points to its square root.

    Parameters
    ----------
    function
        Differentiable, from a tensor of the shape of `start` to a scalar.
    start
        Where to begin; it is left as it is.
    steps
        Most steps.

    Raises
    ------
    ValueError
        If `start` is not finite or `steps` not a positive integer.

    Examples
    --------
    >>> lbfgs(lambda x: (x - 3).square().sum(), torch.zeros(2))
    tensor([3., 3.])
    """
    _validate.finite(start, "start")
    _validate.integer(steps, "steps", 1)
    x = start.detach().clone().requires_grad_()
    solver: Any = torch.optim.LBFGS(
        [x],
        max_iter=steps,
        history_size=30,
        tolerance_grad=1e-13,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        solver.zero_grad()
        value = function(x)
        torch.autograd.backward(value)
        return float(value.detach())

    solver.step(closure)
    return x.detach()


@dataclass(frozen=True)
class Minima:
    """What descent from many starts found, the best first: values, and points with unit rows.

    Examples
    --------
    >>> found = Minima(torch.tensor([-1.0, -0.5]), torch.eye(2)[:, None])
    >>> found.value, found.point
    (-1.0, tensor([[1., 0.]]))
    """

    values: Float[Tensor, " starts"]
    points: Float[Tensor, "starts *shape dim"]

    @property
    def value(self) -> float:
        """The least value."""
        return float(self.values[0])

    @property
    def point(self) -> Float[Tensor, "*shape dim"]:
        """The unit rows that have it."""
        return self.points[0]


def on_spheres(
    function: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    dim: int,
    *,
    starts: int = 16,
    steps: int = 1000,
    generator: torch.Generator | None = None,
) -> Minima:
    r"""Minimise a function of unit rows, a product of spheres, from many random starts at once.

    .. math:: \min f(x), \qquad x \in (S^{d-1})^{\text{shape}}

    All starts go together, by L-BFGS on the tangent spaces, with the gradient of `torch.vmap` of
    the function. Each ends in a local minimum, as a rule; the best of them is no proof of a global
    one. Values are exact to rounding where the minimum is regular, and rows to its square root.

    Parameters
    ----------
    function
        From a tensor of shape ``(*shape, dim)`` with unit rows to a scalar, of operations that
        `torch.vmap` takes, as all losses of :mod:`cltheory.losses` are.
    shape
        How many rows: ``(n,)`` points, or ``(2, n)`` for two views.
    dim
        Coordinates of a row, at least 2.
    starts
        Independent starts, uniform on the spheres.
    steps
        Most steps.
    generator
        Source of the starts.

    Raises
    ------
    ValueError
        If `shape`, `dim`, `starts` or `steps` is out of range, or the function gives no scalar.
    FloatingPointError
        If the function is NaN or infinite at each start.

    Examples
    --------
    >>> def energy(x):
    ...     return (x @ x.mT).exp().sum()
    >>> found = on_spheres(energy, (3,), 2, generator=torch.Generator().manual_seed(0))
    >>> found.point @ found.point.mT
    tensor([[ 1.0000, -0.5000, -0.5000],
            [-0.5000,  1.0000, -0.5000],
            [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    for count in shape:
        _validate.integer(count, "shape", 1)
    _validate.integer(dim, "dim", 2)
    _validate.integer(starts, "starts", 1)
    _validate.integer(steps, "steps", 1)
    source = "cpu" if generator is None else generator.device
    draw = torch.randn(starts, *shape, dim, generator=generator, dtype=torch.float64, device=source)
    x = torch.nn.functional.normalize(draw, dim=-1)
    values, gradient = _tangent(function, x)
    if not bool(values.isfinite().any()):
        raise FloatingPointError("function must be finite at some start, got NaN or infinity")
    memory: list[tuple[Tensor, Tensor, Tensor]] = []
    done, past = ~values.isfinite(), [values]
    for _ in range(steps):
        # What rounding hides, of values that may be far below 1.
        hidden = DECREASE * values.abs().clamp(max=1)
        direction = _direction(gradient, memory)
        moved, new_values, new_gradient, lower = _line_search(
            function, x, values, gradient, direction, hidden, done
        )
        step = torch.where(_wide(lower, x), moved - x, 0)
        change = torch.where(_wide(lower, x), new_gradient - gradient, 0)
        x, gradient = x + step, gradient + change
        values = torch.where(lower, new_values, values)
        curvature = _inner(step, change)
        usable = curvature > 1e-12 * _inner(step, step).sqrt() * _inner(change, change).sqrt()
        memory = [*memory, (step, change, torch.where(usable, 1 / curvature, 0))][-HISTORY:]
        done |= step.abs().flatten(1).amax(1) < 1e-13
        past = [*past, values][-PATIENCE:]
        if len(past) == PATIENCE:
            done |= past[0] - values <= hidden
        if bool(done.all()):
            break
    order = values.nan_to_num(nan=float("inf")).argsort()
    return Minima(values[order], x[order])


def _tangent(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values of each start, and their gradients along the spheres."""
    x = x.detach().requires_grad_()
    values = torch.vmap(function)(x)
    if values.shape != (len(x),):
        raise ValueError(f"function must give a scalar, got shape {tuple(values.shape[1:])}")
    (gradient,) = torch.autograd.grad(values.sum(), x)
    x = x.detach()
    return values.detach(), gradient - (gradient * x).sum(-1, keepdim=True) * x


def _direction(gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Where each start goes: down, by the remembered curvature if that leads down."""
    direction = -_curved(gradient, memory)
    downhill = _inner(direction, gradient) < 0
    direction = torch.where(_wide(downhill, gradient), direction, -gradient)
    if memory:
        return direction
    return direction / _wide(_inner(gradient, gradient).sqrt().clamp(min=1), gradient)


def _line_search(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    values: Tensor,
    gradient: Tensor,
    direction: Tensor,
    hidden: Tensor,
    done: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve the steps of each start until its value falls enough; say which do."""
    slope, size = _inner(direction, gradient), torch.ones_like(values)
    for _ in range(HALVINGS):
        moved = torch.nn.functional.normalize(x + _wide(size, x) * direction, dim=-1)
        new_values, new_gradient = _tangent(function, moved)
        enough = new_values <= values + 1e-4 * size * slope
        enough |= (-slope * size < hidden) & (new_values <= values + hidden)
        if bool((enough | done).all()):
            break
        size = torch.where(enough, size, size / 2)
    return moved, new_values, new_gradient, enough & ~done


def _wide(numbers: Tensor, x: Tensor) -> Tensor:
    """One number for each start, to be multiplied with its points."""
    return numbers.view(-1, *[1] * (x.ndim - 1))


def _inner(a: Tensor, b: Tensor) -> Float[Tensor, " starts"]:
    return (a * b).flatten(1).sum(1)


def _curved(gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Multiply the gradient of each start by its inverse Hessian, as L-BFGS remembers it."""
    direction, weights = gradient, []
    for step, change, inverse in reversed(memory):
        weight = inverse * _inner(step, direction)
        direction = direction - _wide(weight, gradient) * change
        weights.append(weight)
    if memory:
        step, change, inverse = memory[-1]
        size = torch.where(inverse > 0, 1 / (inverse * _inner(change, change)), 1)
        direction = direction * _wide(size, gradient)
    for (step, change, inverse), weight in zip(memory, reversed(weights), strict=True):
        back = inverse * _inner(change, direction)
        direction = direction + _wide(weight - back, gradient) * step
    return direction
