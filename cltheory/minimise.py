r"""Minima to rounding of small smooth functions: the exact side of a comparison with training.

Both take a scalar function of one tensor and a start, and return a tensor of its shape. They hold
for a few thousand numbers at most, in float64; training is :func:`cltheory.training.fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cltheory import _validate

FLAT = 1e-13
"""Curvature relative to the largest below which Newton's method does not move."""
DECREASE = 1e-13
"""A step that promises less than this is taken without a look at the value, which cannot tell."""


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
