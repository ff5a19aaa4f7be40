r"""Gradient descent on outputs: through a network, through a frozen kernel, and on free outputs.

One step of each, for outputs F (n, Z) and :math:`G = \partial L / \partial F`:

.. math::

    \theta \leftarrow \theta - \eta\, \nabla_\theta L, \qquad
    F_a \leftarrow F_a - \eta \sum_b K(x_a, x_b)\, G_b, \qquad
    F_a \leftarrow F_a - \eta\, G_a

The loss enters by its output gradient G alone, such as that of :func:`cltheory.triplets.gradient`.
Outputs may carry leading dimensions: a stack of networks moves side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cltheory import _validate, pca
from cltheory.networks import ACTIVATIONS, SLOPES, TwoLayer

ENTRIES = {"cpu": 2**16, "cuda": 2**26}
"""Activations of some units of two-layer networks at a time; on the CPU, a cache holds them."""
UNITS = 256
"""The least number of units, or products of many inputs by few units would be slow."""
OutputGradient = Callable[[Tensor], Tensor]
"""From the outputs of a network to the gradient of the loss by them, of the same shape."""
Watch = Callable[[int], object]
"""Called with the number of steps that are done, at each of the `times`."""


def train(
    model: nn.Module,
    x: Float[Tensor, "*batch"],
    gradient: OutputGradient,
    *,
    lr: float,
    times: Sequence[int],
    watch: Watch | None = None,
) -> Float[Tensor, "times *stack n out"]:
    r"""Train a network by full-batch gradient descent, in place.

    It moves :math:`\theta \leftarrow \theta - \eta\, J^\top G`, J the derivative of the outputs: by
    automatic differentiation, or in closed form where both layers of a
    :class:`~cltheory.networks.TwoLayer` are trained. An unstable run ends in infinities, not in an
    error: a chapter may want to see it.

    Parameters
    ----------
    model
        Any network, or a stack of them.
    x
        Its inputs.
    gradient
        From the outputs to :math:`\partial L / \partial F`, of the same shape.
    lr
        Step :math:`\eta`.
    times
        Steps after which to note the outputs, ascending; 0 is the start.
    watch
        Called with each of these times, the model standing where it was then.

    Returns
    -------
    Tensor
        The outputs at these times.

    Raises
    ------
    ValueError
        If `lr` or `times` is out of range, or the gradient has another shape than the outputs.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> outputs = train(model, torch.ones(1, 1), lambda f: f - 3, lr=0.5, times=[0, 50])
    >>> outputs[-1].round(decimals=4)
    tensor([[3.]])
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if type(model) is TwoLayer and len(parameters) == 2 and _Passes.fit(model, x):
        passes = _Passes(model, x, lr)
        return _run(passes.forward, gradient, passes.backward, lr, times, watch)

    def step(outputs: Tensor, by_output: Tensor) -> None:
        for p, slope in zip(
            parameters, torch.autograd.grad(outputs, parameters, by_output), strict=True
        ):
            p.sub_(slope, alpha=lr)

    return _run(lambda: model(x), gradient, step, lr, times, watch)


def train_orthonormal(
    model: TwoLayer,
    x: Float[Tensor, "*batch"],
    gradient: OutputGradient,
    *,
    lr: float,
    times: Sequence[int],
    watch: Watch | None = None,
    hidden: bool = True,
) -> Float[Tensor, "times *stack n out"]:
    r"""Train a two-layer network whose readout stays orthonormal, :math:`W^\top W = I`.

    W takes geodesic steps on the Grassmann manifold (:func:`geodesic_step`), V plain ones or, with
    ``hidden=False``, none. For a loss that sees W by its span alone, as the dot losses do, nothing
    is lost.

    Parameters and errors are those of :func:`train`; the readout must start orthonormal.

    Raises
    ------
    ValueError
        As in :func:`train`; if the readout is not orthonormal, with its deviation; if a run is so
        unstable that the gradient is not finite.

    Examples
    --------
    >>> model = TwoLayer(2, 8, 2, generator=torch.Generator().manual_seed(0))
    >>> model.readout.data = torch.linalg.qr(model.readout.data).Q
    >>> _ = train_orthonormal(model, torch.eye(2), lambda f: f - 1, lr=0.1, times=[9])
    >>> torch.allclose(model.readout.T @ model.readout, torch.eye(2), atol=1e-5)
    True
    """
    pca.orthonormal(model.readout, "readout")

    def step(outputs: Tensor, by_output: Tensor) -> None:
        to_hidden, to_readout = torch.autograd.grad(
            outputs, [model.hidden, model.readout], by_output
        )
        if hidden:
            model.hidden.sub_(to_hidden, alpha=lr)
        model.readout.copy_(geodesic_step(model.readout, to_readout, lr))

    return _run(lambda: model(x), gradient, step, lr, times, watch)


def geodesic_step(
    w: Float[Tensor, "*stack n k"], gradient: Float[Tensor, "*stack n k"], lr: float
) -> Float[Tensor, "*stack n k"]:
    r"""Move an orthonormal basis down a gradient along a geodesic of the Grassmann manifold.

    .. math::

        W_+ = W Q \cos(\Sigma) Q^\top + U \sin(\Sigma) Q^\top, \qquad
        -\eta\, (I - W W^\top)\, G = U \Sigma Q^\top

    Parameters
    ----------
    w
        Orthonormal columns.
    gradient
        G, the Euclidean derivative by w.
    lr
        Step :math:`\eta`.

    Raises
    ------
    ValueError
        If the columns of w are not orthonormal, the shapes differ, or the gradient is not finite.

    References
    ----------
    .. [1] Edelman, Arias, Smith, The geometry of algorithms with orthogonality constraints,
       SIAM Journal on Matrix Analysis and Applications 1998, theorem 2.3.

    Examples
    --------
    >>> w = torch.eye(3)[:, :1]
    >>> geodesic_step(w, torch.tensor([[5.0], [-torch.pi / 2], [0.0]]), 1.0).round().T
    tensor([[-0., 1., 0.]])
    """
    pca.orthonormal(w, "w")
    if gradient.shape != w.shape:
        raise ValueError(
            f"gradient must have the shape of w, {tuple(w.shape)}, got {tuple(gradient.shape)}"
        )
    _validate.finite(gradient, "gradient")
    tangent = -lr * (gradient - w @ (w.mT @ gradient))
    u, size, qt = torch.linalg.svd(tangent, full_matrices=False)
    moved = ((w @ qt.mT) * size.cos()[..., None, :] + u * size.sin()[..., None, :]) @ qt
    # Towards the nearest orthonormal basis, or rounding would pile up over many steps.
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    corrected: Tensor = moved @ (3 * eye - moved.mT @ moved) / 2
    return corrected


def frozen(
    kernel: Float[Tensor, "*stack n n out out"] | Float[Tensor, "n n"],
    start: Float[Tensor, "*stack n out"],
    gradient: OutputGradient,
    *,
    lr: float,
    times: Sequence[int],
) -> Float[Tensor, "times *stack n out"]:
    r"""Descend with a kernel that does not move, which is training the linearised network.

    .. math:: F_{t+1}(x_a) = F_t(x_a) - \eta \sum_b K(x_a, x_b)\, G_b(F_t)

    For a loss that is not quadratic this is no kernel regression: G is not affine in F.

    Parameters
    ----------
    kernel
        Blocks K(x_a, x_b), or an n x n matrix that stands for its multiple of the identity.
    start
        Outputs at time 0.
    gradient, lr, times
        As in :func:`train`.

    Raises
    ------
    ValueError
        If `lr` or `times` is out of range or the kernel does not fit the outputs.

    Examples
    --------
    >>> frozen(torch.eye(2), torch.zeros(2, 1), lambda f: f - 3, lr=0.5, times=[1]).flatten()
    tensor([1.5000, 1.5000])
    """
    n, out = start.shape[-2:]
    plain = kernel.ndim == 2
    if kernel.shape[-2:] != ((n, n) if plain else (out, out)) or (
        not plain and kernel.shape[-4:-2] != (n, n)
    ):
        raise ValueError(
            f"kernel must have shape ({n}, {n}, {out}, {out}) or ({n}, {n}), "
            f"got shape {tuple(kernel.shape)}"
        )
    if plain:
        return descend(start, lambda f: kernel @ gradient(f), lr=lr, times=times)
    matrix = kernel.movedim(-2, -3).flatten(-4, -3).flatten(-2, -1)

    def pulled(f: Tensor) -> Tensor:
        column = gradient(f).flatten(-2, -1)[..., None]
        return (matrix @ column).reshape(f.shape)

    return descend(start, pulled, lr=lr, times=times)


def descend(
    start: Float[Tensor, "*stack n out"],
    gradient: OutputGradient,
    *,
    lr: float,
    times: Sequence[int],
    retract: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "times *stack n out"]:
    r"""Descend on the outputs themselves, as if each were free: the flow without a network.

    Parameters
    ----------
    start
        Outputs at time 0.
    gradient, lr, times
        As in :func:`train`.
    retract
        What to do with the outputs after each step, such as to normalise their rows.

    Raises
    ------
    ValueError
        If `lr` or `times` is out of range, or the gradient has another shape than the outputs.

    Examples
    --------
    >>> descend(torch.zeros(1), lambda f: f - 3, lr=0.5, times=[0, 1, 2]).flatten()
    tensor([0.0000, 1.5000, 2.2500])
    """
    _validate.positive(lr, "lr")
    _ascending(times)
    f, noted, done = start.detach(), [], 0
    for time in times:
        for _ in range(done, time):
            f = f - lr * _fitting(gradient(f), f)
            f = f if retract is None else retract(f)
        noted.append(f)
        done = time
    return torch.stack(noted)


class _Passes:
    r"""Both passes of two-layer networks without a graph, some units at a time.

    .. math::

        W \leftarrow W - \frac{\eta}{\sqrt M}\, \varphi(X V^\top)^\top G, \qquad
        V \leftarrow V - \frac{\eta}{\sqrt M}
        \big[\varphi'(X V^\top) \odot (G W^\top)\big]^\top X
    """

    def __init__(self, model: TwoLayer, x: Tensor, lr: float) -> None:
        self.model, self.x, self.lr = model, x, lr
        width = model.hidden.shape[-2]
        self.scale = 1 / sqrt(width)
        rows = max(1, x.shape[-2] * model.hidden[..., 0, 0].numel())
        step = max(UNITS, ENTRIES.get(x.device.type, ENTRIES["cpu"]) // rows)
        self.parts = [slice(start, start + step) for start in range(0, width, step)]
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def fit(model: TwoLayer, x: Tensor) -> bool:
        """Say whether the inputs are shared by the networks of a stack, or each has its own."""
        *stack, _, in_dim = model.hidden.shape
        return x.ndim >= 2 and x.shape[-1] == in_dim and [*x.shape[:-2]] in ([], stack)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Compute the outputs, and hold what the way back needs."""
        outputs = []
        for units in self.parts:
            pre = self.x @ self.model.hidden[..., units, :].mT
            phi = ACTIVATIONS[self.model.activation](pre)
            # Held one for one in place of the last step's: freed all at once, their pages would go
            # back to the system and cost a fault each when they are touched again.
            self.held[units.start] = pre, phi
            # Products of few rows, here and below, take half the time of those of few columns.
            outputs.append((self.model.readout[..., units, :].mT @ phi.mT).mT)
        return self.scale * torch.stack(outputs).sum(0)

    def backward(self, outputs: Tensor, by_output: Tensor) -> None:
        """Move the weights down the gradient, that of the outputs given."""
        by_output = self.scale * by_output
        for units in self.parts:
            pre, phi = self.held[units.start]
            hidden, readout = self.model.hidden[..., units, :], self.model.readout[..., units, :]
            to_pre = SLOPES[self.model.activation](pre) * (by_output @ readout.mT)
            readout.sub_((by_output.mT @ phi).mT, alpha=self.lr)
            hidden.sub_((self.x.mT @ to_pre).mT, alpha=self.lr)


def _run(
    forward: Callable[[], Tensor],
    gradient: OutputGradient,
    step: Callable[[Tensor, Tensor], None],
    lr: float,
    times: Sequence[int],
    watch: Watch | None,
) -> Tensor:
    _validate.positive(lr, "lr")
    _ascending(times)
    noted = []
    for t in range(times[-1] + 1):
        outputs = forward()
        current = outputs.detach()
        if t in times:
            noted.append(current)
            if watch is not None:
                watch(t)
        if t < times[-1]:
            by_output = _fitting(gradient(current), current)
            with torch.no_grad():
                step(outputs, by_output)
    return torch.stack(noted)


def _fitting(gradient: Tensor, outputs: Tensor) -> Tensor:
    if gradient.shape != outputs.shape:
        raise ValueError(
            f"gradient must give the shape of the outputs, {tuple(outputs.shape)}, "
            f"got {tuple(gradient.shape)}"
        )
    return gradient.detach()


def _ascending(times: Sequence[int]) -> None:
    if not times or times[0] < 0 or any(a >= b for a, b in pairwise(times)):
        raise ValueError(f"times must be ascending steps of at least 0, got {list(times)}")
