"""Views against the affine map, evaluated pixel by pixel."""

import math

import pytest
import torch

from cltheory import views


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def uniform(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


def moved(images, angle=0.0, shift=(0.0, 0.0), zoom=1.0):
    """Apply one change to all images."""
    n = len(images)
    return views.affine(
        images,
        angle=images.new_full((n,), angle),
        shift=images.new_tensor(shift).expand(n, 2),
        zoom=images.new_full((n,), zoom),
    )


def bilinear(image, row, column):
    top, left = math.floor(row), math.floor(column)
    value = 0.0
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                value += float(image[i, j]) * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def test_every_pixel_is_read_where_the_formula_says():
    images = uniform(4, 5, 7)
    angle = 360 * uniform(4, seed=1)
    shift = 0.4 * uniform(4, 2, seed=2) - 0.2
    zoom = 0.5 + uniform(4, seed=3)
    expected = torch.empty_like(images)
    for n in range(4):
        cos, sin = math.cos(math.radians(angle[n])), math.sin(math.radians(angle[n]))
        for i in range(5):
            for j in range(7):
                down, right = i - 2 - 5 * float(shift[n, 0]), j - 3 - 7 * float(shift[n, 1])
                y, x = (cos * down + sin * right) / zoom[n], (cos * right - sin * down) / zoom[n]
                expected[n, i, j] = bilinear(images[n], 2 + float(y), 3 + float(x))
    torch.testing.assert_close(views.affine(images, angle=angle, shift=shift, zoom=zoom), expected)


@pytest.mark.parametrize("turns", [-1, 1, 2, 3])
@pytest.mark.parametrize("side", [6, 7])
def test_quarter_turns(turns, side):
    images = uniform(3, side, side)
    torch.testing.assert_close(moved(images, 90.0 * turns), torch.rot90(images, turns, (1, 2)))


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 2), (-2, 1)])
def test_whole_shifts_roll_and_fill_with_zeros(down, right):
    images = uniform(3, 5, 8)
    expected = images.roll((down, right), (1, 2))
    for amount, axis in ((down, 1), (right, 2)):
        lost = range(amount) if amount >= 0 else range(amount, 0)
        expected.index_fill_(axis, torch.tensor([i % images.shape[axis] for i in lost]).long(), 0)
    torch.testing.assert_close(moved(images, shift=(down / 5, right / 8)), expected)


def test_zoom_is_a_crop_of_the_centre():
    ramp = torch.arange(4.0)[None, None].expand(1, 4, 4)
    expected = torch.tensor([0.75, 1.25, 1.75, 2.25]).expand(1, 4, 4)
    torch.testing.assert_close(moved(ramp, zoom=2.0), expected)


def test_zoom_below_one_shows_zeros_around():
    view = moved(torch.ones(1, 6, 6), zoom=0.5)[0]
    assert view[2:4, 2:4].eq(1).all()
    assert view[[0, -1]].abs().max() == 0
    assert view[:, [0, -1]].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_change_is_the_image_in_its_dtype(dtype):
    images = uniform(5, 8, 9).to(dtype)
    view = views.random_affine(images, degrees=0, shift=0, scale=(1, 1))
    assert view.dtype == dtype
    torch.testing.assert_close(view, images, atol=1e-5, rtol=1e-2)


def parameters(monkeypatch, **ranges):
    """Make random views, and look at the parameters that they are made with."""
    seen = {}
    monkeypatch.setattr(views, "affine", lambda images, **drawn: seen.update(drawn))
    views.random_affine(torch.zeros(20_000, 1, 1), generator=seeded(), **ranges)
    return seen["angle"], *seen["shift"].unbind(1), seen["zoom"]


def test_parameters_are_independent_and_uniform_in_their_ranges(monkeypatch):
    drawn = parameters(monkeypatch, degrees=30.0, shift=0.2, scale=(0.5, 2.0))
    for values, low, high in zip(drawn, (-30, -0.2, -0.2, 0.5), (30, 0.2, 0.2, 2), strict=True):
        unit = ((values - low) / (high - low)).sort().values
        assert 0 <= unit[0] <= unit[-1] <= 1 + 1e-6
        # The distance of Kolmogorov and Smirnov: 2 / sqrt(n) has a probability below 1e-3.
        assert (unit - torch.linspace(0, 1, len(unit))).abs().max() < 2 / math.sqrt(len(unit))
    correlation = torch.corrcoef(torch.stack(drawn)) - torch.eye(4)
    assert correlation.abs().max() < 4 / math.sqrt(20_000)


def test_seed_decides():
    images = uniform(6, 8, 8)
    first, again, other = (views.random_affine(images, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).all()


def test_every_image_has_a_view_of_its_own():
    images = uniform(1, 8, 8).expand(10, 8, 8)
    x = views.random_affine(images, generator=seeded()).flatten(1)
    assert torch.cdist(x, x).add(torch.eye(10)).min() > 0.01


def test_pixels_have_derivatives():
    images = uniform(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: views.random_affine(x, generator=seeded()), images)


def test_makes_nothing_on_the_default_device():
    images = uniform(3, 8, 8)
    expected = views.random_affine(images, generator=seeded())
    torch.set_default_device("meta")
    try:
        made = [views.random_affine(images), views.random_affine(images, generator=seeded())]
    finally:
        torch.set_default_device(None)
    assert {x.device.type for x in made} == {"cpu"}
    assert torch.equal(made[1], expected)


def test_views_are_on_the_device_of_the_images():
    images = torch.empty(3, 8, 8, device="meta")
    assert views.random_affine(images, generator=seeded()).device.type == "meta"


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.ones(8, 8), r"images must have shape \(n, height, width\).*got shape \(8, 8\)"),
        (torch.ones(0, 8, 8), "images must have shape"),
        (torch.ones(2, 8, 8).int(), "images must hold floating-point numbers, got torch.int32"),
        (torch.full((2, 8, 8), math.nan), "images must be finite, got 128 NaN"),
    ],
)
def test_images_refused(images, words):
    with pytest.raises(ValueError, match=words):
        views.random_affine(images)
    with pytest.raises(ValueError, match=words):
        views.affine(images, angle=torch.ones(2), shift=torch.ones(2, 2), zoom=torch.ones(2))


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"degrees": -1}, "degrees must be a finite number of at least 0, got -1"),
        ({"degrees": math.nan}, "degrees must be a finite number of at least 0, got nan"),
        ({"shift": -0.1}, "shift must be a finite number of at least 0, got -0.1"),
        ({"scale": (1.2, 0.8)}, r"scale must be .* 0 < low <= high, got \(1.2, 0.8\)"),
        ({"scale": (0, 1)}, "scale must be two finite numbers"),
        ({"scale": (1, math.inf)}, "scale must be two finite numbers"),
    ],
)
def test_ranges_refused(ranges, words):
    with pytest.raises(ValueError, match=words):
        views.random_affine(torch.ones(2, 4, 4), **ranges)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"angle": torch.ones(3)}, r"angle must have shape \(2,\), got shape \(3,\)"),
        ({"shift": torch.ones(2)}, r"shift must have shape \(2, 2\), got shape \(2,\)"),
        ({"zoom": torch.tensor([1.0, 0.0])}, "zoom must be positive, got 0"),
        ({"angle": torch.tensor([1.0, math.nan])}, "angle must be finite, got 1 NaN"),
    ],
)
def test_changes_refused(change, words):
    plain = {"angle": torch.ones(2), "shift": torch.ones(2, 2), "zoom": torch.ones(2)}
    with pytest.raises(ValueError, match=words):
        views.affine(torch.ones(2, 4, 4), **{**plain, **change})


def test_channels_move_together():
    images = torch.rand(4, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    together = views.random_affine(images, generator=torch.Generator().manual_seed(1))
    for channel in range(3):
        alone = views.random_affine(images[:, channel], generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(together[:, channel], alone)


def test_colour_has_the_stated_means_and_spreads():
    """Contrast scales the deviations from the mean of a channel, brightness the mean."""
    images = 0.4 + 0.2 * torch.rand(500, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    made = views.random_colour(
        images, brightness=0.3, contrast=0.5, generator=torch.Generator().manual_seed(1)
    )
    light = made.mean((2, 3)) / images.mean((2, 3))
    gain = made.std((2, 3)) / images.std((2, 3))
    for ratio, width in ((light, 0.3), (gain, 0.5)):
        assert 1 - width <= ratio.min() < 1 - 0.95 * width
        assert 1 + 0.95 * width < ratio.max() <= 1 + width + 1e-5
        torch.testing.assert_close(ratio.mean(), torch.tensor(1.0), rtol=0, atol=0.02)
    assert abs(torch.corrcoef(torch.stack([light.flatten(), gain.flatten()]))[0, 1]) < 0.1
    bright = views.random_colour(torch.ones(50, 4, 4), generator=torch.Generator().manual_seed(1))
    assert bright.max() == 1
    assert bright.min() < 1


def test_flips_are_fair_and_of_whole_images():
    images = torch.rand(1000, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    made = views.random_flip(images, generator=torch.Generator().manual_seed(1))
    kept = (made == images).flatten(1).all(1)
    turned = (made == images.flip(-1)).flatten(1).all(1)
    assert (kept ^ turned).all()
    assert 430 < int(turned.sum()) < 570


@pytest.mark.parametrize("view", [views.random_colour, views.random_flip, views.random_affine])
def test_views_stay_on_the_device_and_dtype_of_the_images(view):
    images = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    torch.set_default_device("meta")
    try:
        made = view(images, generator=torch.Generator("cpu"))
        free = view(images)
    finally:
        torch.set_default_device(None)
    assert made.device.type == free.device.type == "cpu"
    assert made.dtype == torch.float64
    assert made.shape == images.shape


@pytest.mark.parametrize("name", ["brightness", "contrast"])
@pytest.mark.parametrize("width", [-0.1, 1.5, math.nan])
def test_colour_refuses(name, width):
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1"):
        views.random_colour(torch.ones(1, 2, 2), **{name: width})
