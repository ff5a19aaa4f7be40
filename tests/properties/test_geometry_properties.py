"""Kernels, the sphere, metrics and optima: symmetry, positivity, and the corners of the sphere."""

import math

import pytest
import torch
from cases import Case, assert_same, of, over, without
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    generator,
    grams,
    log_uniform,
    matrices,
    permutation,
    points,
    rotation,
    scattered,
    seeds,
    sizes,
    temperatures,
    unit_rows,
    views,
)

from cltheory import kernels, losses, metrics, optima, sphere

HALVES = st.integers(2, 6)


def on_rows(make, x, **options):
    """A profile, as a kernel on the sphere."""
    return kernels.on_sphere(make(**options))(x, x)


def on_points(make, x, **options):
    return make(**options)(x, x)


PROFILES = [
    Case(kernels.gaussian, unit_rows(), through=on_rows, a=2.0),
    Case(kernels.logarithmic, unit_rows(), through=on_rows, a=1.5),
    Case(kernels.inverse_multiquadric, unit_rows(), through=on_rows, c=0.7),
    Case(kernels.riesz, unit_rows(), through=on_rows, s=-1.0),
    Case(kernels.exponential, unit_rows(), through=on_rows, temperature=0.5),
]
OF_POINTS = [
    Case(kernels.rbf, points(), through=on_points, bandwidth=0.8),
    Case(kernels.polynomial, points(), through=on_points, degree=3),
    Case(kernels.linear, points(), through=on_points),
]
MATRICES = [*PROFILES, *OF_POINTS]
UNIFORMITIES = [
    Case(metrics.uniformity, unit_rows(), t=2.0),
    Case(metrics.uniformity, unit_rows(), t=100.0),
    Case(metrics.mmd, unit_rows(dim=HALVES), kernel=kernels.gaussian(2.0)),
    Case(metrics.mmd, unit_rows(dim=HALVES), kernel=kernels.riesz(-1.0)),
    Case(metrics.wasserstein_uniformity, unit_rows(dim=HALVES)),
    Case(metrics.effective_rank, points()),
]
OF_VIEWS = [Case(metrics.alignment, views()), Case(metrics.invariance, scattered())]


def halves(x):
    return torch.arange(len(x), device=x.device) % 2


PROBE = Case(
    metrics.linear_probe,
    scattered(),
    through=lambda f, x, y: f(x, halves(x), y, halves(y)),
)
BROWNIAN = Case(
    kernels.brownian, points(dim=st.just(1)), through=lambda make, x: make()(x.abs(), x.abs())
)
COUNTED = st.tuples(st.integers(2, 5), st.integers(4, 6))
CASES = [
    *MATRICES, *UNIFORMITIES, *OF_VIEWS, PROBE, BROWNIAN,
    Case(kernels.median_bandwidth, scattered(), through=lambda f, x, y: f(torch.cat([x, y]))),
    Case(kernels.Radial, unit_rows(), through=lambda f, x: f(torch.exp)(x)),
    Case(kernels.on_sphere, unit_rows(), through=lambda f, x: f(torch.exp)(x, x)),
    Case(kernels.gram, points(), through=lambda f, x: f(kernels.linear(), x)),
    Case(kernels.centre, matrices),
    Case(kernels.squared_distances, matrices),
    Case(kernels.require_psd, matrices),
    Case(kernels.is_psd, matrices),
    Case(sphere.uniform, st.tuples(COUNTED, seeds),
         through=lambda f, shape, seed: f(*shape, generator=generator(seed))),
    Case(sphere.circle, sizes), Case(sphere.cross_polytope, sizes), Case(sphere.simplex, COUNTED),
    Case(sphere.blocks, sizes, through=lambda f, n: f([2, n], n + 3)),
    Case(sphere.block_sizes, sizes, through=lambda f, n: f(n + 2, n)),
    Case(sphere.inner_products, HALVES, through=lambda f, dim: f(dim).std()),
    Case(sphere.mean, HALVES, through=lambda f, dim: f(torch.exp, dim)),
    Case(sphere.log_mean_exponential, st.tuples(HALVES, temperatures)),
    Case(sphere.harmonic_multiplicity, st.tuples(HALVES, st.integers(0, 9))),
    Case(optima.candidates, sizes, through=lambda f, m: f("nt_xent", m)),
    Case(optima.value, sizes, through=lambda f, m: f("dhel", m, temperature=0.5)),
    Case(optima.collapsed, sizes, through=lambda f, m: f("dcl", m)),
    Case(optima.limit, HALVES, through=lambda f, dim: f("info_nce", dim, 0.5)),
    Case(optima.search, seeds, through=lambda f, seed: f(
        "dhel", 2, 2, starts=2, steps=3, temperature=1.0, generator=generator(seed))),
]  # fmt: skip


@over(MATRICES)
@given(data=st.data())
def test_a_kernel_is_symmetric_and_sees_no_rotation(case, data):
    (x,) = case.arguments(data)
    matrix = case(x)
    turned = case(x @ rotation(data.draw(seeds), x.shape[1]))
    for other in (matrix.mT, turned):
        # A distance near zero is the root of an error.
        assert_same(matrix, other, rtol=1e-7, atol=1e-7)


POSITIVE = without(MATRICES, kernels.riesz, kernels.logarithmic)


@over(POSITIVE)
@given(data=st.data())
def test_a_positive_kernel_is_positive_at_coincident_and_opposite_points(case, data):
    assert kernels.is_psd(case(*case.arguments(data)))


@over(of(MATRICES, kernels.riesz, kernels.logarithmic))
@given(data=st.data())
def test_a_conditionally_positive_kernel_is_positive_once_centred(case, data):
    values = torch.linalg.eigvalsh(kernels.centre(case(*case.arguments(data))))
    assert float(values.min()) >= -1e-7


@given(grams(), st.sampled_from([-180, -20, 0, 20, 180]))
def test_positivity_is_seen_at_any_size(drawn, power):
    """Up to squares of the entries that leave the range, either way."""
    gram, values = drawn
    size = 10.0**power
    assert kernels.is_psd(size * gram)
    if float(values.min()) > 1e-3:
        skew = gram.clone()
        skew[0, -1] += 1
        assert not kernels.is_psd(-size * gram)
        assert not kernels.is_psd(size * skew)


@given(grams(), seeds)
def test_centring_and_distances_do_not_see_where_the_origin_is(drawn, seed):
    gram, _ = drawn
    shift = torch.randn(len(gram), generator=generator(seed), dtype=torch.float64)
    moved = gram + shift[:, None] + shift
    assert_same(kernels.centre(moved), kernels.centre(gram), atol=1e-12)
    assert_same(kernels.squared_distances(moved), kernels.squared_distances(gram), atol=1e-12)
    assert_same(kernels.centre(kernels.centre(gram)), kernels.centre(gram), atol=1e-12)


@given(scattered(), log_uniform(1e-6, 1e6), st.floats(-5, 5))
def test_the_median_distance_grows_with_the_points(pair, size, shift):
    x = torch.cat(pair)
    found = kernels.median_bandwidth(size * x + size * shift)
    assert found == pytest.approx(size * kernels.median_bandwidth(x), rel=1e-9)


@over(UNIFORMITIES)
@given(data=st.data())
def test_a_metric_sees_no_rotation_and_no_order(case, data):
    (z,) = case.arguments(data)
    turn, order = rotation(data.draw(seeds), z.shape[1]), permutation(data.draw(seeds), len(z))
    moved = case((z @ turn)[order])
    assert_same(torch.as_tensor(case(z)), torch.as_tensor(moved), rtol=1e-6, atol=1e-6)


RANGES = [
    (metrics.uniformity, lambda z: (-8.0, 0.0)),
    (metrics.wasserstein_uniformity, lambda z: (0.0, 1.0)),
    (metrics.effective_rank, lambda z: (1.0, min(z.shape))),
]


@pytest.mark.parametrize(("metric", "ends"), RANGES)
@given(z=unit_rows(dim=HALVES))
def test_a_metric_stays_in_its_range(metric, ends, z):
    low, high = ends(z)
    # Near t = 1 the law of two dimensions takes the root of an error of rounding.
    assert low - 2e-8 <= float(metric(z)) <= high + 2e-8


@over(without(UNIFORMITIES, metrics.wasserstein_uniformity))
@given(data=st.data())
def test_a_metric_that_is_a_loss_has_a_gradient_at_every_corner(case, data):
    (z,) = case.arguments(data)
    z = torch.cat([z, torch.zeros(len(z), 1, dtype=z.dtype)], 1).requires_grad_()
    (slope,) = torch.autograd.grad(case(z), z)
    assert bool(slope.isfinite().all())


@given(unit_rows(dim=HALVES), log_uniform(1e-6, 1e6))
def test_the_effective_rank_is_that_of_the_nonzero_columns(z, size):
    wide = torch.cat([size * z, 0 * z], 1)
    assert_same(metrics.effective_rank(wide), metrics.effective_rank(z), rtol=1e-6)


@given(scattered(), log_uniform(1e-3, 1e3), st.floats(-5, 5), seeds)
def test_invariance_is_one_of_similar_figures(pair, size, shift, seed):
    z1, z2 = pair
    turn = rotation(seed, z1.shape[1])
    moved = (size * (z @ turn) + shift for z in pair)
    assert metrics.invariance(z1, z2) == pytest.approx(metrics.invariance(*moved), rel=1e-5)


@given(scattered(), log_uniform(1e-3, 1e3), st.floats(-3, 3))
def test_a_probe_does_not_see_units(pair, size, shift):
    x, y = pair
    assert PROBE(x, y) == PROBE(size * x + shift, size * y + shift)


@given(st.integers(2, 3000), st.integers(1, 60))
def test_the_mean_over_the_sphere_is_exact_in_every_dimension(dim, nodes):
    """Moments of t: 1, 0, 1/d, 0, 3/(d (d + 2)), where the rule is exact for them."""
    exact = [1.0, 0.0, 1 / dim, 0.0, 3 / (dim * (dim + 2))]
    for power, moment in enumerate(exact[: 2 * nodes]):
        found = sphere.mean(lambda t, power=power: t**power, dim, nodes=nodes)
        assert found == pytest.approx(moment, rel=1e-11, abs=1e-14)


@given(st.integers(2, 1000), temperatures)
def test_the_mean_exponential_lies_between_its_bounds(dim, temperature):
    """By Jensen and since t <= 1; and t is subgaussian with variance proxy 1 / d."""
    scale = 1 / temperature
    found = sphere.log_mean_exponential(dim, scale)
    assert -1e-12 <= found <= min(scale, scale**2 / (2 * dim)) * (1 + 1e-9) + 1e-9
    assert found == pytest.approx(sphere.log_mean_exponential(dim, -scale), rel=1e-12)


@given(st.integers(2, 8), st.integers(0, 4))
def test_configurations_are_what_they_say(n, more):
    vertices = sphere.simplex(n, n - 1 + more)
    eye = torch.eye(n, dtype=torch.float64)
    assert_same(vertices @ vertices.mT, (n * eye - 1) / (n - 1), atol=1e-12)
    both = sphere.blocks([n, 2], n + more)
    assert_same(both[:n] @ both[:n].mT, (n * eye - 1) / (n - 1), atol=1e-12)
    assert_same(both[:n] @ both[n:].mT, torch.zeros(n, 2, dtype=torch.float64), atol=1e-12)
    assert_same(sphere.circle(n).sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert_same(sphere.cross_polytope(n).sum(0), torch.zeros(n, dtype=torch.float64))
    for found in sphere.block_sizes(n + 1, n):
        assert sum(found) == n + 1
        assert sum(found) - len(found) == n


@given(st.integers(2, 9), st.integers(0, 12))
def test_harmonics_fill_the_polynomials(dim, degree):
    """On the sphere, polynomials of a degree are harmonics of that degree and of lower ones."""
    filled = sum(sphere.harmonic_multiplicity(dim, k) for k in range(degree % 2, degree + 1, 2))
    assert filled == math.comb(degree + dim - 1, dim - 1)


TEMPERED = ["info_nce", "nt_xent", "dcl", "dhel"]


@given(views(), st.sampled_from(TEMPERED), temperatures)
def test_no_batch_is_below_the_optimum(pair, name, temperature):
    m, dim = pair[0].shape
    if m > dim + 1:
        m = dim + 1
    z1, z2 = (z[:m] for z in pair)
    if m < 2:
        return
    found = float(getattr(losses, name)(z1, z2, temperature=temperature))
    least = optima.value(name, m, dim=dim, temperature=temperature)
    assert found >= least - 1e-9 * max(1, abs(least))


@given(st.integers(2, 9), st.sampled_from(TEMPERED), temperatures)
def test_the_optimum_is_met_at_the_simplex_and_lies_below_collapse(m, name, temperature):
    z = sphere.simplex(m, m)
    found = float(getattr(losses, name)(z, z, temperature=temperature))
    least = optima.value(name, m, temperature=temperature)
    assert found == pytest.approx(least, rel=1e-9, abs=1e-9)
    assert least <= optima.collapsed(name, m) + 1e-12
    assert optima.collapsed(name, m) == pytest.approx(math.log(optima.candidates(name, m)))


@given(st.integers(2, 1000), temperatures)
def test_the_limit_is_below_zero_and_above_minus_one_over_the_temperature(dim, temperature):
    limit = optima.limit("info_nce", dim, temperature)
    assert -1 / temperature * (1 + 1e-12) <= limit <= 1e-12


@given(seeds, st.integers(1, 9), st.integers(2, 6))
def test_uniform_points_are_of_their_generator(seed, n, dim):
    found = [sphere.uniform(n, dim, generator=generator(seed)) for _ in range(2)]
    assert_same(found[0], found[1])
    assert_same(found[0].norm(dim=1), torch.ones(n, dtype=torch.float64), atol=1e-12)


BAD = [
    (kernels.rbf, (0.0,), {}, "bandwidth"), (kernels.polynomial, (0,), {}, "degree"),
    (kernels.polynomial, (2, -1.0), {}, "offset"), (kernels.gaussian, (-1.0,), {}, "a"),
    (kernels.logarithmic, (math.inf,), {}, "a"), (kernels.riesz, (0.0,), {}, "s"),
    (kernels.inverse_multiquadric, (math.nan,), {}, "c"),
    (kernels.exponential, (0.0,), {}, "temperature"),
    (kernels.median_bandwidth, (torch.ones(3, 1),), {}, "x"),
    (kernels.require_psd, (-torch.eye(2),), {}, "gram"),
    (kernels.centre, (torch.ones(2, 3),), {}, "gram"),
    (sphere.uniform, (1, 1), {}, "dim"), (sphere.circle, (0,), {}, "n"),
    (sphere.simplex, (4, 2), {}, "n"), (sphere.blocks, ([1, 2], 3), {}, "sizes"),
    (sphere.block_sizes, (2, 3), {}, "n"), (sphere.mean, (torch.exp, 1), {}, "dim"),
    (sphere.log_mean_exponential, (3, math.inf), {}, "scale"),
    (sphere.harmonic_multiplicity, (3, -1), {}, "degree"),
    (metrics.uniformity, (torch.eye(2),), {"t": 171.0}, "t"),
    (metrics.uniformity, (2 * torch.eye(2),), {}, "z"),
    (metrics.effective_rank, (torch.zeros(2, 2),), {}, "z"),
    (metrics.invariance, (torch.ones(3, 1),) * 2, {}, "z1 and z2"),
    (metrics.alignment, (torch.ones(3, 1), torch.ones(3, 2)), {}, "z1 and z2"),
    (optima.value, ("info_nce", 5), {"dim": 3, "temperature": 1.0}, "n_pairs"),
    (optima.value, ("other", 5), {}, "loss"), (optima.limit, ("dhel", 3), {}, "temperature"),
    (optima.collapsed, ("dhel", 1), {}, "n_pairs"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "options", "name"), BAD)
def test_what_does_not_fit_is_named(function, arguments, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        function(*arguments, **options)
