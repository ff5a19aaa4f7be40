r"""Self-supervised training on images: two views, an encoder, a loss; and what came of it.

A method is a choice of views, encoder and loss for the one loop of :func:`train`:

>>> from cltheory import losses, networks, views
>>> generator = torch.Generator().manual_seed(0)
>>> images = torch.rand(64, 8, 8, generator=generator)
>>> net = networks.ConvNet((8, 8), [4], 3, generator=generator)
>>> history = train(
...     net, images, lambda z1, z2: losses.info_nce(z1, z2, temperature=0.5),
...     lambda x, generator: views.random_affine(x, generator=generator),
...     batch=16, epochs=1, lr=1e-2, generator=generator,
... )
>>> len(history.losses), embed(net, images).shape
(4, torch.Size([64, 3]))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cltheory import _validate, kernels, metrics, training
from cltheory.data import LabelledImages

View: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""From images and a generator to a random view of each."""

CHUNK = 1000
"""Images that `embed` encodes together."""


def train(
    net: nn.Module,
    images: Float[Tensor, "n *channels height width"],
    loss: Callable[[Tensor, Tensor], Tensor],
    view: View,
    *,
    batch: int,
    epochs: int,
    lr: float,
    generator: torch.Generator,
    every: int = 1,
) -> training.History:
    """Train an encoder by Adam on two views of each image of a batch.

    Batches are drawn without replacement within an epoch; the last one is left out if it is not
    full. The learning rate falls to zero as a cosine.

    Parameters
    ----------
    net : torch.nn.Module
        From images to features, trained in place; features are normalised to unit rows.
    images : Tensor
        On the device of the network.
    loss : callable
        From the unit rows of two views to a scalar.
    view : callable
        From images and a generator to a random view of each.
    batch : int
        Pairs in a batch, from 2 to the number of images.
    epochs, lr, every
        Passes over the images; learning rate; record the loss at each `every`-th step.
    generator : torch.Generator
        Source of batches and views.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    _validate.integer(batch, "batch", 2, len(images), why=f"of {len(images)} images")
    _validate.integer(epochs, "epochs", 1)
    whole = len(images) // batch * batch
    order = torch.cat(
        [
            torch.randperm(len(images), generator=generator, device=generator.device)[:whole]
            for _ in range(epochs)
        ]
    )
    batches = torch.split(order.to(images.device), batch)

    def step(number: int) -> Tensor:
        picked = images[batches[number]]
        both = torch.cat([view(picked, generator), view(picked, generator)])
        z = nn.functional.normalize(net(both), dim=1)
        return loss(z[:batch], z[batch:])

    return training.fit(net, step, steps=len(batches), lr=lr, every=every)


def embed(
    net: nn.Module, images: Float[Tensor, "n *channels height width"]
) -> Float[Tensor, "n dim"]:
    """Encode images as unit rows, in chunks and without a graph."""
    with torch.no_grad():
        features = torch.cat([net(chunk) for chunk in torch.split(images, CHUNK)])
    return nn.functional.normalize(features, dim=1)


def quality(
    net: nn.Module,
    train: LabelledImages,
    test: LabelledImages,
    view: View,
    *,
    points: int = 2000,
    generator: torch.Generator,
) -> dict[str, float]:
    """Measure features that an encoder has learned, by every metric of :mod:`cltheory.metrics`.

    Parameters
    ----------
    net : torch.nn.Module
        The encoder.
    train, test : LabelledImages
        A linear probe is fitted to all of `train`, and scored on all of `test`.
    view : callable
        As in :func:`train`.
    points : int
        The first images of `test` of which two views are measured.
    generator : torch.Generator
        Source of the views.

    Returns
    -------
    dict of float
        ``probe`` (accuracy), ``alignment``, ``uniformity``, ``effective_rank``, ``wasserstein``,
        ``energy`` (energy distance to the uniform law), ``mmd`` (with the kernel of `uniformity`).

    Examples
    --------
    >>> from cltheory import networks
    >>> generator = torch.Generator().manual_seed(0)
    >>> images = torch.rand(20, 8, 8, generator=generator)
    >>> some = LabelledImages(images, torch.arange(20) % 2)
    >>> net = networks.ConvNet((8, 8), [4], 3, generator=generator)
    >>> figures = quality(net, some, some, lambda x, generator: x, generator=generator)
    >>> figures["alignment"], 1 <= figures["effective_rank"] <= 3  # views that do not differ
    (0.0, True)
    """
    z = embed(net, test.images)
    some = test.images[:points]
    z1, z2 = (embed(net, view(some, generator)) for _ in range(2))
    return {
        "probe": metrics.linear_probe(embed(net, train.images), train.labels, z, test.labels),
        "alignment": float(metrics.alignment(z1, z2)),
        "uniformity": float(metrics.uniformity(z1)),
        "effective_rank": float(metrics.effective_rank(z1)),
        "wasserstein": metrics.wasserstein_uniformity(z1),
        "energy": float(metrics.mmd(z1, kernels.riesz(-1.0))),
        "mmd": float(metrics.mmd(z1, kernels.gaussian(2.0))),
    }
