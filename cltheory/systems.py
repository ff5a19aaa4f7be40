r"""One system that learns from two views, of which each method is a configuration.

An encoder and a head make features, of which a predictor may make predictions; a loss compares
them with the targets of the other view, which the same network gives, with or without a gradient,
or a slower copy of it. The loss may also see a queue of past targets, prototypes, labels and
learned numbers. A :class:`Method` says which of these there are, a :class:`System` holds them:

>>> from cltheory import losses, networks
>>> generator = torch.Generator().manual_seed(0)
>>> net = networks.MLP(3, [16], 4, generator=generator)
>>> predictor = networks.MLP(4, [], 4, generator=generator)
>>> method = Method(
...     "SimSiam", losses.negative_cosine,
...     unit=False, symmetric=True, predictor=True, target="stop-gradient",
... )
>>> system = System(method, net, predictor=predictor)
>>> x = torch.randn(8, 3, generator=generator)
>>> system.step(x, x + 0.1).shape
torch.Size([])

Any optimiser will do: :meth:`System.step` keeps copy and queue up to date by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cltheory import _validate, sphere
from cltheory.memory import Momentum, Queue


@dataclass(frozen=True)
class Method:
    """What tells one method from another; change one thing with ``dataclasses.replace``.

    Attributes
    ----------
    name : str
        For messages.
    loss : callable
        From predictions of one view and targets of the other, rows of one index a pair, to a
        scalar. It gets by name what the method has of ``queue`` (keys), ``prototypes`` (unit
        rows), ``labels`` and the learned numbers.
    unit : bool
        Normalise features to unit rows.
    symmetric : bool
        Take the mean with the loss whose predictions are of the second view.
    predictor : bool
        Whether there is a predictor after the head.
    target : str or float
        Who gives the targets: the network itself, ``"tied"``, or with a ``"stop-gradient"``; or,
        without a gradient, a copy of it with this momentum, from 0 to 1.
    queue, prototypes : int
        How many past targets, and learned prototypes; 0 for none.
    labels : bool
        Whether the loss needs the class of each sample.
    learned : dict of float
        Numbers that are trained along, by name, and where they start.

    Raises
    ------
    ValueError
        If a number is out of range, or the target is another word.
    """

    name: str
    loss: Callable[..., Tensor]
    unit: bool = True
    symmetric: bool = False
    predictor: bool = False
    target: Literal["tied", "stop-gradient"] | float = "tied"
    queue: int = 0
    prototypes: int = 0
    labels: bool = False
    learned: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.target, str):
            if self.target not in ("tied", "stop-gradient"):
                raise ValueError(
                    "target must be 'tied', 'stop-gradient' or the momentum of a copy, got "
                    f"{self.target!r}"
                )
        elif not 0 <= self.target <= 1:
            raise ValueError(f"momentum of the target must be between 0 and 1, got {self.target}")
        _validate.integer(self.queue, "queue", 0)
        _validate.integer(self.prototypes, "prototypes", 0)
        if self.prototypes == 1:
            raise ValueError("prototypes must be at least two, or 0 for none, got 1")


class System(nn.Module):
    """The parts of a method, trained together; :meth:`System.step` is all that a loop calls.

    Parameters
    ----------
    method : Method
        Which parts there are, and the loss.
    encoder : torch.nn.Module
        From a batch to features, which are kept in the end.
    head : torch.nn.Module, optional
        From these to those that the loss sees.
    predictor : torch.nn.Module, optional
        From features to predictions; for the methods that have one, of which
        ``torch.nn.Identity()`` takes it away.
    dim : int, optional
        Number of features that the loss sees; for the methods with a queue or prototypes.
    generator : torch.Generator, optional
        Source of queue and prototypes, independent uniform unit rows.

    Attributes
    ----------
    encoder, head, predictor : torch.nn.Module
        As given, or the identity.
    copy : Momentum or None
        The copy of encoder and head that gives the targets.
    queue : Queue or None
        Past targets.
    prototypes : Tensor or None
        Learned; the loss sees them as unit rows.
    learned : torch.nn.ParameterDict
        Learned numbers by name.

    Raises
    ------
    ValueError
        If there is a predictor where the method has none or none where it has one, or no `dim`
        where it needs one.
    """

    def __init__(
        self,
        method: Method,
        encoder: nn.Module,
        *,
        head: nn.Module | None = None,
        predictor: nn.Module | None = None,
        dim: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if predictor is not None and not method.predictor:
            raise ValueError(f"predictor must be None, as {method.name} has none, got one")
        if predictor is None and method.predictor:
            raise ValueError(
                f"predictor must be a module, as {method.name} has one, got None; "
                "torch.nn.Identity() takes it away"
            )
        self.method = method
        self.online = nn.Sequential(encoder, head or nn.Identity())
        self.predictor = predictor or nn.Identity()
        own = isinstance(method.target, str)
        self.copy = None if own else Momentum(self.online, float(method.target))
        weight = next(self.online.parameters(), torch.empty(0, device="cpu"))

        def rows(count: int) -> Tensor:
            if dim is None:
                raise ValueError(f"dim must be the number of features for {method.name}, got None")
            return sphere.uniform(count, dim, generator=generator).to(weight)

        self.queue = Queue(rows(method.queue)) if method.queue else None
        self.prototypes = nn.Parameter(rows(method.prototypes)) if method.prototypes else None
        self.learned = nn.ParameterDict(
            {name: nn.Parameter(weight.new_tensor(start)) for name, start in method.learned.items()}
        )
        self._fresh: Tensor | None = None

    @property
    def encoder(self) -> nn.Module:
        """What makes the features that are kept."""
        return self.online[0]

    @property
    def head(self) -> nn.Module:
        """What is thrown away after training."""
        return self.online[1]

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        """Return the features that the loss sees."""
        return self._scaled(self.online(x))

    def loss(
        self,
        first: Float[Tensor, "b ..."],
        second: Float[Tensor, "b ..."],
        labels: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """Compare two views of a batch, and change nothing.

        A network sees one view at a time, so that batch statistics are those of a view.

        Raises
        ------
        ValueError
            If the views have not as many points, at least two; if labels are missing, of another
            length, or of no use; if the queue is shorter than the batch.
        """
        return self._compare(first, second, labels)[0]

    def step(
        self,
        first: Float[Tensor, "b ..."],
        second: Float[Tensor, "b ..."],
        labels: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """Take up what the last step left, and return the loss of a batch, to be differentiated.

        By now the weights have moved, and the copy follows them; the last targets go into the
        queue, which the last backward pass still needed as it was.
        """
        if self.copy is not None:
            self.copy.follow(self.online)
        if self.queue is not None and self._fresh is not None:
            self.queue.push(self._fresh)
        loss, self._fresh = self._compare(first, second, labels)
        return loss

    def _compare(
        self, first: Tensor, second: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss, and the targets for the queue if there is one."""
        self._require(first, second, labels)
        sides = 1 + self.method.symmetric
        if self.copy is None:
            features = [self(first), self(second)]
            targets = features[::-1]
            if self.method.target == "stop-gradient":
                targets = [z.detach() for z in targets]
        else:
            features = [self(x) for x in (first, second)[:sides]]
            targets = [self._scaled(self.copy(x)) for x in (second, first)[:sides]]
        others = self._others(labels)
        losses = [
            self.method.loss(self.predictor(z), target, **others)
            for z, target in zip(features[:sides], targets, strict=False)
        ]
        fresh = torch.cat(targets[:sides]).detach() if self.queue is not None else None
        return torch.stack(losses).mean(), fresh

    def _scaled(self, z: Tensor) -> Tensor:
        return functional.normalize(z, dim=1) if self.method.unit else z

    def _others(self, labels: Tensor | None) -> dict[str, Tensor]:
        """Return what the loss gets by name."""
        others: dict[str, Tensor] = dict(self.learned.items())
        if self.queue is not None:
            others["queue"] = self.queue.keys
        if self.prototypes is not None:
            others["prototypes"] = functional.normalize(self.prototypes, dim=1)
        if labels is not None:
            others["labels"] = labels
        return others

    def _require(self, first: Tensor, second: Tensor, labels: Tensor | None) -> None:
        if len(first) < 2 or len(first) != len(second):
            raise ValueError(
                "first and second must hold as many points, at least 2, got "
                f"{len(first)} and {len(second)}"
            )
        batch = len(first)
        if self.method.labels != (labels is not None):
            needed = "one for each sample" if self.method.labels else "None"
            raise ValueError(f"labels must be {needed} for {self.method.name}, got {labels}")
        if labels is not None and labels.shape != (batch,):
            raise ValueError(f"labels must have shape ({batch},), got shape {tuple(labels.shape)}")
        keys = batch * (1 + self.method.symmetric)
        if self.queue is not None and keys > self.method.queue:
            raise ValueError(
                f"queue must hold at least a batch of {keys} keys, got {self.method.queue}"
            )
