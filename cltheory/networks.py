r"""Small networks: perceptrons, one or many side by side; convolutions; wide two-layer networks.

Weights are drawn from an explicit :class:`torch.Generator` on that generator's device (the CPU
without one), so that a seed gives the same network on every machine; move it with ``.to(device)``.
A size, an activation or points that do not fit raise a ValueError that names them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cltheory import _validate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": torch.erf,
    "gelu": functional.gelu,
    "relu": functional.relu,
    "sin": torch.sin,
    "tanh": torch.tanh,
}
"""The activations by name."""

_ERF, _NORMAL = 2 / sqrt(pi), 1 / sqrt(2 * pi)


def _gelu_slope(x: Tensor) -> Tensor:
    return (1 + torch.erf(x / sqrt(2))) / 2 + x * _NORMAL * torch.exp(-(x**2) / 2)


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": lambda x: _ERF * torch.exp(-(x**2)),
    "gelu": _gelu_slope,
    "relu": lambda x: (x > 0).to(x.dtype),
    "sin": torch.cos,
    "tanh": lambda x: 1 - torch.tanh(x) ** 2,
}
"""Their first derivatives; that of ``relu`` is 0 at 0, as in PyTorch."""

CURVATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": lambda x: -2 * x * _ERF * torch.exp(-(x**2)),
    "gelu": lambda x: (2 - x**2) * _NORMAL * torch.exp(-(x**2) / 2),
    "sin": lambda x: -torch.sin(x),
    "tanh": lambda x: -2 * torch.tanh(x) * (1 - torch.tanh(x) ** 2),
}
"""Their second derivatives; ``relu`` has none."""

_GAINS = {"gelu": sqrt(2.0), "relu": sqrt(2.0)}


def _known(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {list(ACTIVATIONS)}, got {activation!r}")


class _Layers(nn.Module):
    """Affine layers with an activation between them; ``stack`` leads the shape of every weight."""

    def __init__(
        self,
        stack: tuple[int, ...],
        dims: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        _validate.integer(dims[0], "in_dim", 1)
        for width in dims[1:-1]:
            _validate.integer(width, "widths", 1)
        _known(activation)
        device = torch.device("cpu") if generator is None else generator.device
        self.activation = activation

        def normal(*shape: int, scale: float) -> nn.Parameter:
            draw = torch.randn(*stack, *shape, generator=generator, device=device, dtype=dtype)
            return nn.Parameter(scale * draw)

        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        last = len(dims) - 2
        for depth, (fan_in, fan_out) in enumerate(pairwise(dims)):
            gain = _GAINS.get(activation, 1.0) if depth < last else 1.0
            self.weights.append(normal(fan_in, fan_out, scale=gain / sqrt(fan_in)))
            self.biases.append(normal(1, fan_out, scale=float(depth < last)))

    def forward(self, x: Float[Tensor, "n in_dim"]) -> Tensor:
        """Apply the layers to the rows of ``x``; the stack's dimensions lead the result's."""
        fan_in = self.weights[0].shape[-2]
        if x.ndim != 2 or x.shape[1] != fan_in:
            raise ValueError(f"x must have shape (n, {fan_in}), got shape {tuple(x.shape)}")
        act = ACTIVATIONS[self.activation]
        # einsum merges stack and width here: one product with x, not one for each of the stack.
        hidden: Tensor = torch.einsum("ni,...io->...no", x, self.weights[0]) + self.biases[0]
        # A slice of a ParameterList is a copy, to which torch.func could give no other weights.
        layers = list(zip(self.weights, self.biases, strict=True))
        for weight, bias in layers[1:]:
            hidden = act(hidden) @ weight + bias
        return hidden


class MLP(_Layers):
    r"""A multilayer perceptron, :math:`(n, d_{in}) \to (n, d_{out})`.

    .. math:: h_0 = x,\quad h_{l+1} = \sigma(h_l) W_l + b_l \ (\sigma = \mathrm{id}\text{ at }l=0)

    :math:`W_l` has independent entries :math:`N(0, g^2/\text{fan in})`, with :math:`g^2 = 2` for
    hidden layers under ``relu`` and ``gelu`` (He et al. 2015, arXiv 1502.01852) and 1 otherwise;
    hidden biases are :math:`N(0, 1)`, so that kinks and waves are spread over the inputs; the
    last bias starts at zero.

    Parameters
    ----------
    in_dim, out_dim : int
        Dimensions of input and output.
    widths : sequence of int
        Hidden widths; empty for an affine map.
    activation : str
        A name in :data:`ACTIVATIONS`.
    generator : torch.Generator, optional
        Source of the weights; PyTorch's global one by default.
    dtype : torch.dtype, optional
        PyTorch's default by default.

    Examples
    --------
    >>> net = MLP(3, [16, 16], 2, generator=torch.Generator().manual_seed(0))
    >>> net(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_dim: int,
        widths: Sequence[int],
        out_dim: int,
        *,
        activation: str = "gelu",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _validate.integer(out_dim, "out_dim", 1)
        super().__init__((), (in_dim, *widths, out_dim), activation, generator, dtype)


class ParallelMLP(_Layers):
    r"""Independent scalar perceptrons side by side, :math:`(n, d_{in}) \to (n, \text{heads})`.

    Column :math:`j` is an :class:`MLP` of its own; no parameter is shared, and all are evaluated
    together as batched matrix products.

    Parameters
    ----------
    heads : int
        How many perceptrons.
    in_dim, widths, activation, generator, dtype
        As for :class:`MLP`, for every head.

    Examples
    --------
    >>> net = ParallelMLP(4, 3, [16], generator=torch.Generator().manual_seed(0))
    >>> net(torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        heads: int,
        in_dim: int,
        widths: Sequence[int],
        *,
        activation: str = "gelu",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _validate.integer(heads, "heads", 1)
        super().__init__((heads,), (in_dim, *widths, 1), activation, generator, dtype)

    def forward(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n heads"]:
        """Evaluate every head on the rows of ``x``."""
        return super().forward(x).squeeze(-1).mT


class ConvNet(nn.Module):
    r"""A convolutional encoder of images, :math:`(n, [c,] h, w) \to (n, d_{out})`.

    Each layer is a 3 x 3 convolution of stride 2 (padding 1) and an activation; what is left of the
    image, :math:`\lceil h / 2^L \rceil \times \lceil w / 2^L \rceil` pixels, is flattened into an
    affine map. Weights are drawn as in :class:`MLP`; all biases start at zero.

    Parameters
    ----------
    size : tuple of int
        Height and width of grey images; channels, height and width of others.
    channels : sequence of int
        Channels of each layer, at least one.
    out_dim : int
        Dimension of the output.
    activation, generator, dtype
        As for :class:`MLP`.

    Examples
    --------
    >>> net = ConvNet((28, 28), [8, 16], 10, generator=torch.Generator().manual_seed(0))
    >>> net(torch.ones(5, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        size: tuple[int, ...],
        channels: Sequence[int],
        out_dim: int,
        *,
        activation: str = "gelu",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(size) not in (2, 3):
            raise ValueError(f"size must be (height, width) or (channels, ...), got {size}")
        for side in size:
            _validate.integer(side, "size", 1)
        colours, height, width = (1, *size)[-3:]
        if not channels:
            raise ValueError("channels must hold at least one layer, got none")
        for count in channels:
            _validate.integer(count, "channels", 1)
        _validate.integer(out_dim, "out_dim", 1)
        _known(activation)
        device = torch.device("cpu") if generator is None else generator.device
        self.size, self.activation = size, activation

        def normal(gain: float, fan_in: int, *shape: int) -> nn.Parameter:
            draw = torch.randn(*shape, generator=generator, device=device, dtype=dtype)
            return nn.Parameter(gain / sqrt(fan_in) * draw)

        gain = _GAINS.get(activation, 1.0)
        self.weights = nn.ParameterList(
            normal(gain, 9 * before, after, before, 3, 3)
            for before, after in pairwise([colours, *channels])
        )
        left = channels[-1] * -(-height // 2 ** len(channels)) * -(-width // 2 ** len(channels))
        self.readout = normal(1.0, left, left, out_dim)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(count, device=device, dtype=dtype))
            for count in [*channels, out_dim]
        )

    def forward(self, x: Float[Tensor, "n *channels height width"]) -> Float[Tensor, "n out_dim"]:
        """Encode a batch of images."""
        if tuple(x.shape[1:]) != tuple(self.size):
            wanted = ", ".join(map(str, self.size))
            raise ValueError(f"x must have shape (n, {wanted}), got shape {tuple(x.shape)}")
        act = ACTIVATIONS[self.activation]
        hidden = x if x.ndim == 4 else x[:, None]
        for weight, bias in zip(self.weights, self.biases, strict=False):
            hidden = act(functional.conv2d(hidden, weight, bias, stride=2, padding=1))
        code: Tensor = hidden.flatten(1) @ self.readout + self.biases[-1]
        return code


class TwoLayer(nn.Module):
    r"""A wide two-layer network in NTK parametrisation, :math:`(n, D) \to (n, Z)`.

    .. math:: f(x) = M^{-1/2}\, W^\top \varphi(V x),\qquad V_{rd}, W_{rz} \sim N(0, 1)

    Networks of one size can be stacked: :meth:`stacked` makes one module of them, whose parameters
    and outputs have a leading dimension, and which trains them side by side.

    Parameters
    ----------
    in_dim, width, out_dim : int
        D, M and Z.
    activation : str
        A name in :data:`ACTIVATIONS`.
    generator, dtype
        As for :class:`MLP`.

    Attributes
    ----------
    hidden : (\*stack, width, in_dim)
        V.
    readout : (\*stack, width, out_dim)
        W.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler, Neural tangent kernel, NeurIPS 2018 (equation number unknown).

    Examples
    --------
    >>> nets = [TwoLayer(3, 64, 2, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    >>> nets[0](torch.ones(5, 3)).shape, TwoLayer.stacked(nets)(torch.ones(5, 3)).shape
    (torch.Size([5, 2]), torch.Size([4, 5, 2]))
    """

    def __init__(
        self,
        in_dim: int,
        width: int,
        out_dim: int,
        *,
        activation: str = "relu",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _validate.integer(in_dim, "in_dim", 1)
        _validate.integer(width, "width", 1)
        _validate.integer(out_dim, "out_dim", 1)
        _known(activation)
        self.activation = activation
        self.hidden = _normal(generator, dtype, width, in_dim)
        self.readout = _normal(generator, dtype, width, out_dim)

    @classmethod
    def stacked(cls, models: Sequence[TwoLayer]) -> TwoLayer:
        """Copy networks of one size and activation into one module.

        Raises
        ------
        ValueError
            If there is none, or they differ in size or activation.
        """
        if not models:
            raise ValueError("models must hold at least one network, got none")
        kinds = {(m.activation, m.hidden.shape, m.readout.shape) for m in models}
        if len(kinds) > 1:
            raise ValueError(f"models must be of one size and activation, got {sorted(kinds)}")
        stack = copy.deepcopy(models[0])
        stack.hidden = nn.Parameter(torch.stack([m.hidden.detach() for m in models]))
        stack.readout = nn.Parameter(torch.stack([m.readout.detach() for m in models]))
        return stack

    def preactivations(
        self, x: Float[Tensor, "*stack n in_dim"]
    ) -> Float[Tensor, "*stack n width"]:
        r"""Compute :math:`V x` for the rows of ``x``, which all of a stack share or have each."""
        _columns(x, self.hidden.shape[-1])
        pre: Tensor = torch.einsum("...nd,...md->...nm", x, self.hidden)
        return pre

    def features(self, x: Float[Tensor, "*stack n in_dim"]) -> Float[Tensor, "*stack n width"]:
        r"""Compute :math:`M^{-1/2} \varphi(V x)`, what the readout sees."""
        return ACTIVATIONS[self.activation](self.preactivations(x)) / sqrt(self.hidden.shape[-2])

    def forward(self, x: Float[Tensor, "*stack n in_dim"]) -> Float[Tensor, "*stack n out_dim"]:
        """Apply the network to the rows of ``x``."""
        output: Tensor = self.features(x) @ self.readout
        return output


class BlockNet(nn.Module):
    r"""A two-layer network each of whose outputs has units of its own, :math:`(n, D) \to (n, Z)`.

    .. math:: f^k(x) = c \sum_{r \le m} \varphi(b_{kr}^\top x),\qquad (b_{kr})_d \sim N(0, 1)

    Only the first layer is trained: the second is fixed and averages over a block. An input with a
    constant coordinate gives the units a bias.

    Parameters
    ----------
    in_dim, units, out_dim : int
        D, the units m of a block, and the number Z of blocks.
    scale : float, optional
        c; :math:`m^{-1/2}` by default, which keeps the kernel's size at every m (1 / m does not).
    activation, generator, dtype
        As for :class:`TwoLayer`.

    Attributes
    ----------
    hidden : (out_dim, units, in_dim)
        The rows :math:`b_{kr}`.

    References
    ----------
    .. [1] arXiv 2503.10812, section 4 (its normalisation c is not known; both are offered).

    Examples
    --------
    >>> BlockNet(3, 64, 2, generator=torch.Generator().manual_seed(0))(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        in_dim: int,
        units: int,
        out_dim: int,
        *,
        activation: str = "relu",
        scale: float | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _validate.integer(in_dim, "in_dim", 1)
        _validate.integer(units, "units", 1)
        _validate.integer(out_dim, "out_dim", 1)
        _known(activation)
        self.activation, self.scale = activation, units**-0.5 if scale is None else scale
        self.hidden = _normal(generator, dtype, out_dim, units, in_dim)

    def preactivations(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "out_dim n units"]:
        r"""Compute :math:`b_{kr}^\top x` for the rows of ``x``."""
        _columns(x, self.hidden.shape[-1])
        pre: Tensor = torch.einsum("nd,kmd->knm", x, self.hidden)
        return pre

    def forward(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        """Apply the network to the rows of ``x``."""
        return self.scale * ACTIVATIONS[self.activation](self.preactivations(x)).sum(-1).mT


def _normal(
    generator: torch.Generator | None, dtype: torch.dtype | None, *shape: int
) -> nn.Parameter:
    device = torch.device("cpu") if generator is None else generator.device
    return nn.Parameter(torch.randn(*shape, generator=generator, device=device, dtype=dtype))


def _columns(x: Tensor, in_dim: int) -> None:
    if x.ndim < 2 or x.shape[-1] != in_dim:
        raise ValueError(f"x must have shape (n, {in_dim}), got shape {tuple(x.shape)}")
