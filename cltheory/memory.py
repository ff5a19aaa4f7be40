r"""What a system keeps of its past: an average of its weights, and a queue of its features.

Both are modules whose state has no gradient and goes along with ``.to(device)`` and
``state_dict()``.

>>> net = nn.Linear(3, 2)
>>> slow, queue = Momentum(net, 0.99), Queue(torch.zeros(4, 2))
>>> queue.push(slow(torch.ones(1, 3)))
>>> queue.keys.requires_grad, int(queue.oldest)
(False, 1)
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cltheory import _validate


class Momentum(nn.Module):
    r"""A copy of a network that follows it slowly, and gives no gradient.

    .. math:: \xi \leftarrow m\, \xi + (1 - m)\, \theta

    The weights :math:`\xi` start at those of the network, :math:`\theta`. At m = 0 the copy is the
    network, at m = 1 it stays as it is. Behind weights that drift by v a step it lags by
    :math:`v\, m / (1 - m)` in the long run; of weights that are independent noise it keeps a
    variance :math:`(1 - m) / (1 + m)` times theirs.

    Parameters
    ----------
    net : torch.nn.Module
        The network to copy.
    momentum : float
        m, from 0 to 1.

    Raises
    ------
    ValueError
        If the momentum is out of range.

    References
    ----------
    .. [1] He, K., Fan, H., Wu, Y., Xie, S., & Girshick, R. (2020). Momentum contrast for
       unsupervised visual representation learning. arXiv:1911.05722. Number unknown.

    Examples
    --------
    >>> net = nn.Linear(1, 1, bias=False)
    >>> copy = Momentum(net, 0.9)
    >>> with torch.no_grad():
    ...     _ = copy.net.weight.fill_(0), net.weight.fill_(1)
    >>> copy.follow(net)
    >>> copy.net.weight
    Parameter containing:
    tensor([[0.1000]])
    """

    def __init__(self, net: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
        self.momentum = momentum
        self.net = copy.deepcopy(net).requires_grad_(False)

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """Move the weights towards those of the network as they are now."""
        for mine, theirs in zip(self.net.parameters(), net.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.momentum)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        """Apply the copy."""
        features: Tensor = self.net(x)
        return features


class Queue(nn.Module):
    r"""The last K keys, as negatives that cost no forward pass.

    With batches of B keys, a key is replaced K / B pushes after its own.

    Parameters
    ----------
    keys : Tensor
        The first keys, one a row, of which a copy is kept; MoCo draws them at random.

    Attributes
    ----------
    keys : (size, dim)
        The keys, in the order of their places.
    oldest : ()
        The place that is filled next.

    Raises
    ------
    ValueError
        If `keys` is no finite matrix.

    References
    ----------
    .. [1] He, K., Fan, H., Wu, Y., Xie, S., & Girshick, R. (2020). Momentum contrast for
       unsupervised visual representation learning. arXiv:1911.05722. Number unknown.

    Examples
    --------
    >>> queue = Queue(torch.eye(3))
    >>> queue.push(torch.tensor([[0.0, 2.0, 0.0]]))
    >>> queue.newest_first()
    tensor([[0., 2., 0.],
            [0., 0., 1.],
            [0., 1., 0.]])
    """

    keys: Tensor
    oldest: Tensor

    def __init__(self, keys: Float[Tensor, "size dim"]) -> None:
        super().__init__()
        if keys.ndim != 2:
            raise ValueError(f"keys must be a matrix, one key a row, got shape {tuple(keys.shape)}")
        _validate.points(keys, "keys")
        self.register_buffer("keys", keys.detach().clone())
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long, device=keys.device))

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "b dim"]) -> None:
        """Put new keys in the place of the oldest.

        Raises
        ------
        ValueError
            If the keys do not fit, or are more than the queue holds.
        """
        size, dim = self.keys.shape
        if keys.ndim != 2 or keys.shape[1] != dim:
            raise ValueError(f"keys must have shape (b, {dim}), got shape {tuple(keys.shape)}")
        if len(keys) > size:
            raise ValueError(f"queue must hold at least a batch of {len(keys)} keys, got {size}")
        places = (self.oldest + torch.arange(len(keys), device=keys.device)) % size
        self.keys[places] = keys
        self.oldest.add_(len(keys)).remainder_(size)

    def newest_first(self) -> Float[Tensor, "size dim"]:
        """Return the keys by age."""
        ages = torch.arange(len(self.keys), device=self.keys.device)
        return self.keys[(self.oldest - 1 - ages) % len(self.keys)]
