r"""The methods that people use, as configurations of one system and one loop.

Each function below returns a :class:`cltheory.systems.Method`; a system of it, an encoder and what
else it needs is trained by :func:`train`, and looked at by :func:`embed` and :func:`quality`:

>>> from cltheory import networks, views
>>> generator = torch.Generator().manual_seed(0)
>>> images = torch.rand(64, 8, 8, generator=generator)
>>> net = networks.ConvNet((8, 8), [4], 3, generator=generator)
>>> system = System(moco(queue=32, momentum=0.9), net, dim=3, generator=generator)
>>> history = train(
...     system, images, lambda x, generator: views.random_affine(x, generator=generator),
...     batch=16, epochs=1, lr=1e-2, generator=generator,
... )
>>> len(history.losses), embed(net, images).shape
(4, torch.Size([64, 3]))

What tells them apart stands in the configuration:

>>> for method in (
...     simclr(), moco(), byol(), simsiam(), swav(), vicreg(), barlow_twins(), siglip(), supcon()
... ):
...     print(f"{method.name:12}", method.target, method.predictor, method.unit)
SimCLR       tied False True
MoCo         0.999 False True
BYOL         0.996 True False
SimSiam      stop-gradient True False
SwAV         tied False True
VICReg       tied False False
Barlow Twins tied False False
SigLIP       tied False True
SupCon       tied False True

Numbers that are not given are those of the papers, for images of natural scenes and batches of
hundreds or thousands; one that is out of range raises a ``ValueError``. Not modelled: crops of
several sizes, momenta and weights that follow a schedule, prototypes that are held still at first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cltheory import _validate, kernels, losses, method_losses, metrics, training
from cltheory.data import LabelledImages
from cltheory.systems import Method, System

View: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""From images and a generator to a random view of each."""

CHUNK = 1000
"""Images that `embed` encodes together."""


def simclr(*, temperature: float = 0.5) -> Method:
    r"""SimCLR (Chen et al. 2020, arXiv:2002.05709): all other views of a batch repel.

    .. math:: L = \mathrm{NTXent}(z^1, z^2),\qquad z^v = g(f(x^v)) / |g(f(x^v))|

    with the encoder f and the head g; :func:`cltheory.losses.nt_xent`.
    """
    return Method("SimCLR", partial(losses.nt_xent, temperature=temperature))


def moco(*, temperature: float = 0.07, momentum: float = 0.999, queue: int = 65536) -> Method:
    r"""MoCo (He et al. 2020, arXiv:1911.05722): past keys repel, made by a slow copy.

    .. math:: L = -\frac 1 B \sum_i \log \frac{e^{s(q_i, k_i)/\tau}}
       {e^{s(q_i, k_i)/\tau} + \sum_{j=1}^K e^{s(q_i, n_j)/\tau}},\qquad
       \xi \leftarrow m\, \xi + (1 - m)\, \theta

    with queries :math:`q = z_\theta(x^1)`, keys :math:`k = z_\xi(x^2)`, unit rows, without a
    gradient, and the last K keys n, which do not count the positive;
    :func:`cltheory.method_losses.moco`.
    """
    _validate.integer(queue, "queue", 1)
    loss = partial(method_losses.moco, temperature=temperature)
    return Method("MoCo", loss, target=momentum, queue=queue)


def byol(*, momentum: float = 0.996) -> Method:
    r"""BYOL (Grill et al. 2020, arXiv:2006.07733): predict what a slow copy makes.

    .. math:: L = -\tfrac12 \bigl(\cos(h(z_\theta(x^1)), z_\xi(x^2))
       + \cos(h(z_\theta(x^2)), z_\xi(x^1))\bigr),\\
       \xi \leftarrow m\, \xi + (1 - m)\, \theta

    averaged over the batch, with the predictor h; the paper's loss is 4 + 4 L. It is least, at -1,
    where the map is constant too, and no descent on it is what BYOL does;
    :func:`cltheory.losses.negative_cosine`.
    """
    return Method(
        "BYOL", losses.negative_cosine,
        unit=False, symmetric=True, predictor=True, target=momentum,
    )  # fmt: skip


def simsiam() -> Method:
    r"""SimSiam (Chen and He 2021, arXiv:2011.10566): predict your own features of the other view.

    .. math:: L = -\tfrac12 \bigl(\cos(h(z^1), \operatorname{sg} z^2)
       + \cos(h(z^2), \operatorname{sg} z^1)\bigr)

    averaged over the batch, with the predictor h and no gradient through sg: BYOL with m = 0;
    :func:`cltheory.losses.negative_cosine`.
    """
    return Method(
        "SimSiam", losses.negative_cosine,
        unit=False, symmetric=True, predictor=True, target="stop-gradient",
    )  # fmt: skip


def swav(
    *,
    prototypes: int = 3000,
    temperature: float = 0.1,
    eps: float = 0.05,
    iterations: int = 3,
) -> Method:
    r"""SwAV (Caron et al. 2020, arXiv:2006.09882): predict the code of the other view.

    .. math:: L = -\frac 1 {2B} \sum_i \sum_{k=1}^K \bigl(q^2_{ik} \log p^1_{ik}
       + q^1_{ik} \log p^2_{ik}\bigr),\qquad
       p^v_{ik} = \operatorname{softmax}_k(s(z^v_i, c_k)/\tau)

    with unit rows z, learned unit rows c and codes q by `iterations` of Sinkhorn at `eps`, with no
    gradient; ``iterations=0`` leaves out the equal use of prototypes;
    :func:`cltheory.method_losses.swav`.
    """
    _validate.integer(prototypes, "prototypes", 2)
    loss = partial(method_losses.swav, temperature=temperature, eps=eps, iterations=iterations)
    return Method("SwAV", loss, prototypes=prototypes)


def vicreg(*, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Method:
    r"""VICReg (Bardes et al. 2022, arXiv:2105.04906): keep every column alive and on its own.

    .. math:: L = \frac \lambda B \sum_i |z^1_i - z^2_i|^2 + \sum_{v = 1, 2} \frac 1 d \Bigl(
       \mu \sum_j \max\bigl(0, 1 - \sqrt{C^v_{jj} + \varepsilon}\bigr)
       + \nu \sum_{j \ne k} (C^v_{jk})^2\Bigr)

    of features as they are; :func:`cltheory.losses.vicreg`. The released code takes the mean over
    columns in the first term and half of the second: it is this with ``invariance=25 / d`` and
    ``variance=12.5``.
    """
    loss = partial(losses.vicreg, invariance=invariance, variance=variance, covariance=covariance)
    return Method("VICReg", loss, unit=False)


def barlow_twins(*, weight: float = 5e-3) -> Method:
    r"""Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230): columns correlate with themselves.

    .. math:: L = \sum_j (1 - C_{jj})^2 + \text{weight} \sum_{j \ne k} C_{jk}^2

    with the correlations C of the columns of the two views, features as they are;
    :func:`cltheory.losses.barlow_twins`.
    """
    return Method("Barlow Twins", partial(losses.barlow_twins, weight=weight), unit=False)


def siglip(*, temperature: float = 0.1, bias: float = 10.0, learned: bool = True) -> Method:
    r"""SigLIP (Zhai et al. 2023, arXiv:2303.15343): decide of each pair on its own.

    .. math:: L = \frac 1 B \sum_i \log\bigl(1 + e^{-s(z^1_i, z^2_i)/\tau + b}\bigr)
       + \frac 1 B \sum_{i \ne j} \log\bigl(1 + e^{s(z^1_i, z^2_j)/\tau - b}\bigr)

    with unit rows z; :func:`cltheory.method_losses.siglip`. If `learned`, as in the paper,
    temperature and bias start here: ``log_scale`` is :math:`-\log \tau`, and ``bias`` b, minus that
    of the released code. There is one encoder for both views, not one for images and one for texts.
    """
    _validate.positive(temperature, "temperature")
    if not learned:
        loss = partial(method_losses.siglip, temperature=temperature, bias=bias)
        return Method("SigLIP", loss)

    def sigmoid(z1: Tensor, z2: Tensor, *, log_scale: Tensor, bias: Tensor) -> Tensor:
        return method_losses.siglip(z1, z2, temperature=torch.exp(-log_scale), bias=bias)

    return Method("SigLIP", sigmoid, learned={"log_scale": -log(temperature), "bias": bias})


def supcon(*, temperature: float = 0.1) -> Method:
    r"""SupCon (Khosla et al. 2020, arXiv:2004.11362): all views of one class attract.

    .. math:: L = \frac 1 {2B} \sum_i \frac{-1}{|P(i)|} \sum_{p \in P(i)}
       \log \frac{e^{s(z_i, z_p)/\tau}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau}}

    over the unit rows of both views, with the other rows P(i) of the class of i;
    :func:`cltheory.method_losses.supcon`.
    """

    def both(z1: Tensor, z2: Tensor, *, labels: Tensor) -> Tensor:
        z = torch.cat([z1, z2])
        return method_losses.supcon(z, labels.repeat(2), temperature=temperature)

    return Method("SupCon", both, labels=True)


def train(
    system: System,
    images: Float[Tensor, "n ..."],
    view: View,
    *,
    batch: int,
    epochs: int,
    lr: float,
    generator: torch.Generator,
    labels: Int[Tensor, " n"] | None = None,
    optimizer: Literal["adam", "adamw", "sgd"] = "adam",
    schedule: Literal["cosine", "constant"] = "cosine",
    every: int = 1,
) -> training.History:
    """Train a system on two views of each image of a batch.

    Batches are drawn without replacement within an epoch; the last one is left out if it is not
    full.

    Parameters
    ----------
    system : System
        Trained in place.
    images : Tensor
        Images, or points of any shape, on the device of the system.
    view : callable
        From images and a generator to a random view of each.
    batch : int
        Pairs in a batch, from 2 to the number of images.
    epochs, lr, optimizer, schedule, every
        Passes over the images; the others are those of :func:`cltheory.training.fit`.
    generator : torch.Generator
        Source of batches and views.
    labels : Tensor, optional
        Class of each image, for methods that need it.

    Raises
    ------
    ValueError
        If an argument is out of range, or labels are not one for each image.
    """
    _validate.integer(batch, "batch", 2, len(images), why=f"of {len(images)} images")
    _validate.integer(epochs, "epochs", 1)
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(
            f"labels must have shape ({len(images)},), got shape {tuple(labels.shape)}"
        )
    whole = len(images) // batch * batch
    order = torch.cat(
        [
            torch.randperm(len(images), generator=generator, device=generator.device)[:whole]
            for _ in range(epochs)
        ]
    )
    batches = torch.split(order.to(images.device), batch)

    def step(number: int) -> Tensor:
        rows = batches[number]
        picked = images[rows]
        one, two = view(picked, generator), view(picked, generator)
        return system.step(one, two, None if labels is None else labels[rows])

    return training.fit(
        system,
        step,
        steps=len(batches),
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        every=every,
    )


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
