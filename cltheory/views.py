r"""Random views of images: the augmentations that make a positive pair.

A view is an image under a random change that should not matter, here a rotation, a translation and
a zoom. Two independent views of one image are a positive pair, conditionally independent given the
image:

>>> images = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
>>> generator = torch.Generator().manual_seed(1)
>>> x, z = random_affine(images, generator=generator), random_affine(images, generator=generator)
>>> x.shape, bool((x - z).abs().max() > 0.1)
(torch.Size([5, 8, 8]), True)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cltheory import _validate


def random_affine(
    images: Float[Tensor, "n *channels height width"],
    *,
    degrees: float = 15.0,
    shift: float = 0.1,
    scale: tuple[float, float] = (0.85, 1.15),
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n *channels height width"]:
    r"""One random view of each image: :func:`affine` with independent uniform parameters.

    They are drawn where the generator lives (the images' device without one) and moved to the
    images, so that a CPU generator gives the same views on every device.

    Parameters
    ----------
    images : Tensor
        One image a row, of shape (n, height, width) or (n, channels, height, width).
    degrees : float
        Angles are uniform in [-degrees, degrees].
    shift : float
        Translations are uniform in [-shift, shift] in either axis, as fractions of the side.
    scale : tuple of float
        Least and largest zoom.
    generator : torch.Generator, optional
        Source of the draws; PyTorch's global one by default.

    Raises
    ------
    ValueError
        If `images` are no batch of floating-point images, or a parameter is out of range.

    Examples
    --------
    >>> x = torch.eye(4)[None]
    >>> view = random_affine(x, degrees=0, shift=0, scale=(1, 1))
    >>> torch.allclose(view, x, atol=1e-6)
    True
    """
    _require_images(images)
    low, high = scale
    for value, name in ((degrees, "degrees"), (shift, "shift")):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
    if not 0 < low <= high < math.inf:
        raise ValueError(f"scale must be two finite numbers, 0 < low <= high, got {scale}")
    device = images.device if generator is None else generator.device
    draws = torch.rand(len(images), 4, generator=generator, dtype=_working(images), device=device)
    angle, down, right, zoom = draws.to(images.device).unbind(1)
    return affine(
        images,
        angle=degrees * (2 * angle - 1),
        shift=shift * (2 * torch.stack([down, right], 1) - 1),
        zoom=low + (high - low) * zoom,
    )


def affine(
    images: Float[Tensor, "n *channels height width"],
    *,
    angle: Float[Tensor, " n"],
    shift: Float[Tensor, "n 2"],
    zoom: Float[Tensor, " n"],
) -> Float[Tensor, "n *channels height width"]:
    r"""Images zoomed about their centre, then rotated counterclockwise, then shifted.

    With rows i counted downward and columns j to the right, pixel (i, j) of a view of size (h, w)
    is the value of its image at row :math:`(h - 1)/2 + y` and column :math:`(w - 1)/2 + x`,

    .. math:: \begin{pmatrix} y \\ x \end{pmatrix} = \frac 1 {\text{zoom}}
       \begin{pmatrix} \cos\theta & \sin\theta \\ -\sin\theta & \cos\theta \end{pmatrix}
       \begin{pmatrix} i - (h - 1)/2 - h\, t_1 \\ j - (w - 1)/2 - w\, t_2 \end{pmatrix},

    with the angle :math:`\theta` and the shift :math:`t`. Between pixels the value is bilinear, and
    pixels outside the image are 0. A zoom above 1 is a crop.

    Parameters
    ----------
    images : Tensor
        One image a row, of shape (n, height, width) or (n, channels, height, width).
    angle : Tensor
        One for each image, in degrees; 90 is :func:`torch.rot90` over (height, width).
    shift : Tensor
        Of shape (n, 2): down and to the right, as fractions of height and width.
    zoom : Tensor
        One for each image, positive.

    Raises
    ------
    ValueError
        If `images` are no batch of floating-point images, or the parameters do not fit them.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> still, whole, turn = torch.zeros(1, 2), torch.ones(1), torch.tensor([90.0])
    >>> torch.allclose(affine(x, angle=turn, shift=still, zoom=whole), torch.rot90(x, 1, (1, 2)))
    True
    >>> affine(x, angle=0 * turn, shift=torch.tensor([[0.5, 0.0]]), zoom=whole)
    tensor([[[0., 0.],
             [1., 2.]]])
    """
    _require_images(images)
    n, h, w = len(images), *images.shape[-2:]
    for value, name, shape in (
        (angle, "angle", (n,)),
        (shift, "shift", (n, 2)),
        (zoom, "zoom", (n,)),
    ):
        if value.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got shape {tuple(value.shape)}")
        _validate.finite(value, name)
    if not _validate.holds(zoom.min() > 0):
        raise ValueError(f"zoom must be positive, got {float(zoom.min()):.3g}")
    # Half precision would place the pixels of a large image to within a pixel only.
    dtype = _working(images)
    angle, shift, zoom = (value.to(dtype) for value in (angle, shift, zoom))
    cos, sin = angle.deg2rad().cos() / zoom, angle.deg2rad().sin() / zoom
    # grid_sample takes (x, y) in units of half the width and half the height.
    linear = torch.stack([cos, -sin * h / w, sin * w / h, cos], 1).reshape(n, 2, 2)
    offset = linear @ (-2 * shift.flip(1))[:, :, None]
    grid = functional.affine_grid(torch.cat([linear, offset], 2), [n, 1, h, w], align_corners=False)
    channels = images.to(dtype).view(n, -1, h, w)
    views = functional.grid_sample(channels, grid, align_corners=False)
    return views.view(images.shape).to(images.dtype)


def random_colour(
    images: Float[Tensor, "n *channels height width"],
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n *channels height width"]:
    r"""Images with a random brightness and contrast of each channel, clipped to [0, 1].

    .. math:: x \mapsto \operatorname{clip}\bigl(g\, (x - \bar x) + b\, \bar x\bigr)

    with the mean :math:`\bar x` of a channel, and its contrast g and brightness b, independent and
    uniform about 1.

    Parameters
    ----------
    images : Tensor
        One image a row, of shape (n, height, width) or (n, channels, height, width), in [0, 1].
    brightness, contrast : float
        Half widths of the uniform laws, from 0 to 1.
    generator : torch.Generator, optional
        Source of the draws; PyTorch's global one by default.

    Raises
    ------
    ValueError
        If `images` are no batch of floating-point images, or a width is out of range.

    Examples
    --------
    >>> x = torch.tensor([[[0.2, 0.6]]])
    >>> view = random_colour(x, brightness=0, contrast=0)
    >>> torch.allclose(view, x)
    True
    """
    _require_images(images)
    for width, name in ((brightness, "brightness"), (contrast, "contrast")):
        if not 0 <= width <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {width}")
    device = images.device if generator is None else generator.device
    shape, dtype = (*images.shape[:-2], 1, 1), _working(images)
    draws = torch.rand(2, *shape, generator=generator, dtype=dtype, device=device)
    light, gain = (
        1 + width * (2 * draw - 1)
        for width, draw in zip((brightness, contrast), draws.to(images.device), strict=True)
    )
    mean = images.to(dtype).mean((-2, -1), keepdim=True)
    views: Tensor = gain * (images - mean) + light * mean
    return views.clamp(0, 1).to(images.dtype)


def random_flip(
    images: Float[Tensor, "n *channels height width"], *, generator: torch.Generator | None = None
) -> Float[Tensor, "n *channels height width"]:
    """Images of which each is mirrored left to right with probability 1/2.

    Parameters
    ----------
    images : Tensor
        One image a row, of shape (n, height, width) or (n, channels, height, width).
    generator : torch.Generator, optional
        Source of the draws; PyTorch's global one by default.

    Raises
    ------
    ValueError
        If `images` are no batch of floating-point images.

    Examples
    --------
    >>> x = torch.tensor([[[0.0, 1.0]]]).repeat(100, 1, 1)
    >>> sorted({tuple(row) for row in random_flip(x)[:, 0].tolist()})
    [(0.0, 1.0), (1.0, 0.0)]
    """
    _require_images(images)
    device = images.device if generator is None else generator.device
    draws = torch.rand(len(images), generator=generator, dtype=_working(images), device=device)
    mirrored = draws.to(images.device) < 0.5
    return torch.where(mirrored.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def _working(images: Tensor) -> torch.dtype:
    return torch.promote_types(images.dtype, torch.float32)


def _require_images(images: Tensor) -> None:
    if images.ndim not in (3, 4) or images.numel() == 0:
        raise ValueError(
            "images must have shape (n, height, width) or (n, channels, height, width), got shape "
            f"{tuple(images.shape)}"
        )
    _validate.finite(images, "images")
