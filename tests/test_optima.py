"""Optimal values against a search that knows no formula, and limits against quadrature."""

import math

import pytest
import torch
from scipy import integrate, special

from cltheory import kernels, losses, optima, sphere

TEMPERED = ["info_nce", "nt_xent", "dcl", "dhel"]
KERNELS = {
    "gaussian": kernels.gaussian(1.0),
    "logarithmic": kernels.logarithmic(1.0),
    "inverse multiquadric": kernels.inverse_multiquadric(1.0),
    "distance": kernels.riesz(-1.5),
}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("m", "dim"), [(2, 2), (3, 2), (5, 4), (6, 9)])
@pytest.mark.parametrize("loss", TEMPERED)
def test_a_search_finds_the_value_and_the_simplex(rng, loss, m, dim, temperature):
    found = optima.search(loss, m, dim, starts=4, generator=rng, temperature=temperature)
    value = optima.value(loss, m, dim=dim, temperature=temperature)
    assert found.value == pytest.approx(value, rel=1e-9, abs=1e-12)
    simplex = sphere.simplex(m, m - 1)
    both = torch.cat([simplex, simplex])
    z = found.point.flatten(0, 1)
    torch.testing.assert_close(z @ z.T, both @ both.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["info_nce", "nt_xent"])
def test_a_search_is_exact_relative_to_tiny_values(rng, loss):
    found = optima.search(loss, 5, 4, starts=3, generator=rng, temperature=0.02)
    value = optima.value(loss, 5, temperature=0.02)
    assert value < 1e-25
    assert found.value == pytest.approx(value, rel=1e-9, abs=0)


def test_a_search_does_not_give_up_where_progress_is_slow(rng):
    """A sharp Gaussian: the energy is far smaller than the attraction, and its slopes are too."""
    options = {"kernel": kernels.gaussian(5.0), "weight": 1.0}
    found = optima.search("kcl", 5, 5, starts=4, generator=rng, **options)
    assert found.value == pytest.approx(optima.value("kcl", 5, **options), abs=1e-12)


def test_a_search_is_repeated_by_its_generator_from_sixteen_starts():
    def points(seed):
        generator = torch.Generator().manual_seed(seed)
        return optima.search(
            "nce_binary", 3, 2, temperature=1.0, steps=3, generator=generator
        ).points

    assert points(0).shape == (16, 2, 3, 2)
    assert optima.search("dhel", 3, 2, temperature=1.0, starts=5, steps=1).points.shape[0] == 5
    assert torch.equal(points(0), points(0))
    assert not torch.equal(points(0), points(1))


def test_a_search_takes_no_more_steps_than_it_may():
    first, last = (
        optima.search(
            "dhel", 4, 3, temperature=0.2, starts=3, steps=steps,
            generator=torch.Generator().manual_seed(0),
        ).value
        for steps in (1, 100)
    )  # fmt: skip
    assert first > last + 1e-3


@pytest.mark.parametrize("weight", [0.5, 1.0, 16.0])
@pytest.mark.parametrize("name", KERNELS)
def test_a_search_finds_the_value_of_the_kernel_loss(rng, name, weight):
    kernel = KERNELS[name]
    found = optima.search("kcl", 4, 3, starts=6, generator=rng, kernel=kernel, weight=weight)
    value = optima.value("kcl", 4, dim=3, kernel=kernel, weight=weight)
    assert found.value == pytest.approx(value, abs=1e-8)
    simplex = sphere.simplex(4, 3)
    direct = losses.kcl(simplex, simplex, kernel=kernel, weight=weight)
    assert value == pytest.approx(float(direct), abs=1e-12)


def test_the_kernel_loss_of_a_formula_of_your_own():
    value = optima.value("kcl", 5, kernel=lambda t: t.exp(), weight=3.0)
    assert value == pytest.approx(3 * math.exp(-1 / 4) - math.e, rel=1e-14)
    with pytest.raises(ValueError, match="kernel must be finite at t = 1"):
        optima.value("kcl", 5, kernel=lambda t: 1 / (1 - t), weight=1.0)


@pytest.mark.parametrize("loss", TEMPERED)
def test_candidates_are_the_exponential_of_the_collapsed_loss(loss):
    z = torch.eye(3, dtype=torch.float64)[:1].repeat(7, 1)
    value = float(getattr(losses, loss)(z, z, temperature=0.3))
    assert math.exp(value) == pytest.approx(optima.candidates(loss, 7))
    assert value == pytest.approx(optima.collapsed(loss, 7))


@pytest.mark.parametrize("kernel", [kernels.gaussian(2.0), kernels.exponential(0.5)])
@pytest.mark.parametrize("m", [2, 5])
def test_the_collapsed_kernel_loss(kernel, m):
    z = torch.eye(3, dtype=torch.float64)[:1].repeat(m, 1)
    value = losses.kcl(z, z, kernel=kernel, weight=3.0)
    assert float(value) == pytest.approx(optima.collapsed("kcl", m, kernel=kernel, weight=3.0))


def test_values_without_a_temperature():
    basis = torch.eye(4, dtype=torch.float64)
    value = optima.value("spectral_contrastive", 4, dim=4)
    assert value == float(losses.spectral_contrastive(basis, basis))
    z = math.sqrt(3) * sphere.cross_polytope(3)
    assert optima.value("vicreg", 6) == pytest.approx(float(losses.vicreg(z, z)), abs=1e-12)
    assert optima.value("barlow_twins", 6) == pytest.approx(float(losses.barlow_twins(z, z)))
    assert optima.value("negative_cosine", 6, dim=2) == float(losses.negative_cosine(z, z))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("dim", [2, 3, 6])
def test_limits_are_those_of_quadrature(dim, temperature):
    constant = special.gamma(dim / 2) / (math.sqrt(math.pi) * special.gamma((dim - 1) / 2))
    mean, _ = integrate.quad(
        lambda a: constant * math.sin(a) ** (dim - 2) * math.exp(math.cos(a) / temperature),
        0,
        math.pi,
    )
    for loss in TEMPERED:
        expected = math.log(mean) - 1 / temperature
        assert optima.limit(loss, dim, temperature) == pytest.approx(expected, rel=1e-10)
    found = optima.limit("kcl", dim, kernel=kernels.exponential(temperature), weight=3.0)
    assert found == pytest.approx(3 * mean - math.exp(1 / temperature), rel=1e-10)


def test_losses_of_many_uniform_points_approach_the_limit(rng):
    z = sphere.uniform(4000, 3, generator=rng)
    logs = {"info_nce": 4000, "nt_xent": 8000, "dcl": 8000, "dhel": 3999}
    for loss, count in logs.items():
        value = float(getattr(losses, loss)(z, z, temperature=0.5)) - math.log(count)
        assert value == pytest.approx(optima.limit(loss, 3, 0.5), abs=3e-3)
    kernel = kernels.gaussian(1.0)
    value = float(losses.kcl(z, z, kernel=kernel, weight=2.0))
    assert value == pytest.approx(optima.limit("kcl", 3, kernel=kernel, weight=2.0), abs=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optima.value("simclr", 3), "loss must be one of info_nce, nt_xent, dcl, dhel"),
        (lambda: optima.value("dhel", 5, dim=3, temperature=1.0), "between 2 and 4"),
        (lambda: optima.value("dhel", 5, dim=3, temperature=1.0), "the vertices of a simplex in R"),
        (
            lambda: optima.value("dhel", 1, temperature=1.0),
            "^n_pairs must be an integer of at least 2, got 1$",
        ),
        (lambda: optima.value("spectral_contrastive", 5, dim=4), "orthonormal rows in R"),
        (lambda: optima.value("dhel", 3), "^temperature must be a finite number above 0, got none"),
        (lambda: optima.value("dhel", 3, temperature=-1.0), "^temperature must be a finite number"),
        (lambda: optima.value("kcl", 3, weight=1.0), "kcl must have a kernel and a weight"),
        (
            lambda: optima.value("kcl", 3, kernel=kernels.gaussian(1.0), weight=0.0),
            "weight must be a finite number above 0",
        ),
        (
            lambda: optima.value("kcl", 3, kernel=kernels.riesz(1.0), weight=1.0),
            "^kernel must be finite at t = 1",
        ),
        (lambda: optima.candidates("kcl", 3), "loss must be one of info_nce"),
        (lambda: optima.candidates("dhel", 1), "^n_pairs must be an integer of at least 2"),
        (lambda: optima.collapsed("dhel", 1), "^n_pairs must be an integer of at least 2"),
        (lambda: optima.collapsed("vicreg", 3), "loss must be one of info_nce"),
        (lambda: optima.limit("dhel", 3), "^temperature must be a finite number above 0, got none"),
        (lambda: optima.limit("dhel", 1, 1.0), "dim must be an integer of at least 2"),
        (lambda: optima.search("vicreg", 3, 2), "loss must be one of info_nce"),
        (lambda: optima.search("dhel", 1, 2, temperature=1.0), "n_pairs must be an integer"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
