import itertools
import math

import pytest
import torch
from scipy import special, stats
from scipy.special import eval_gegenbauer

from cltheory import sphere


@pytest.mark.parametrize(("n", "dim"), [(2, 1), (3, 2), (3, 7), (8, 7), (100, 120)])
def test_simplex_has_unit_rows_at_equal_angles(n, dim):
    x = sphere.simplex(n, dim)
    expected = torch.full((n, n), -1 / (n - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(x @ x.T, expected, atol=1e-13, rtol=0)
    assert x.sum(0).norm() < 1e-12


def test_simplex_in_float32():
    assert sphere.simplex(3, 4, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("n", "dim", "message"),
    [
        (5, 3, r"n must be an integer between 2 and 4 \(a simplex in R\^3 has up to 4 vert.*got 5"),
        (1, 3, "n must be an integer between 2 and 4"),
        (2, 0, "dim must be an integer of at least 1, got 0"),
    ],
)
def test_simplex_refuses(n, dim, message):
    with pytest.raises(ValueError, match=message):
        sphere.simplex(n, dim)


def test_uniform_has_the_moments_of_the_uniform_law():
    x = sphere.uniform(200_000, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.norm(dim=1), torch.ones(200_000, dtype=torch.float64))
    # E x = 0, E x x^T = I/d, and E x_1^4 = 3 / (d (d + 2)); standard errors are near 1e-3.
    assert x.mean(0).abs().max() < 5e-3
    assert (x.T @ x / len(x) - torch.eye(5) / 5).abs().max() < 3e-3
    assert abs((x**4).mean() - 3 / 35) < 1e-3


def test_uniform_repeats_with_its_generator():
    first, second = (sphere.uniform(4, 3, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert torch.equal(first, second)


@pytest.mark.parametrize(("n", "dim", "name"), [(0, 3, "n"), (3, 1, "dim"), (2.0, 3, "n")])
def test_uniform_refuses(n, dim, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        sphere.uniform(n, dim)


def test_circle_is_the_roots_of_unity():
    x = sphere.circle(7)
    root = torch.complex(x[:, 0], x[:, 1])
    torch.testing.assert_close(root**7, torch.ones_like(root))
    assert len({round(float(angle), 9) for angle in root.angle()}) == 7


def test_circle_refuses():
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        sphere.circle(0)


def test_cross_polytope_pairs_orthogonal_axes():
    x = sphere.cross_polytope(3)
    assert x.shape == (6, 3)
    assert sorted((x @ x.T).flatten().tolist()) == [-1.0] * 6 + [0.0] * 24 + [1.0] * 6


def test_cross_polytope_refuses():
    with pytest.raises(ValueError, match="dim must be an integer of at least 1, got 0"):
        sphere.cross_polytope(0)


@pytest.mark.parametrize("dim", [2, 3, 4, 9])
def test_multiplicities_are_the_rank_of_zonal_kernels(dim):
    # The kernel C_l(x . y) has exactly the harmonics of degree l as its range.
    x = sphere.uniform(400, dim, generator=torch.Generator().manual_seed(0))
    for degree in range(1, 4):
        inner = (x @ x.T).clamp(-1, 1).numpy()
        zonal = (
            torch.from_numpy(inner).arccos().mul(degree).cos()
            if dim == 2
            else torch.from_numpy(eval_gegenbauer(degree, dim / 2 - 1, inner))
        )
        rank = int(torch.linalg.matrix_rank(zonal, rtol=1e-9))
        assert rank == sphere.harmonic_multiplicity(dim, degree)


def test_multiplicities_add_up_to_polynomials_on_the_sphere():
    # Restrictions of polynomials of degree <= L: homogeneous ones of degree L and L - 1.
    for dim in (2, 3, 6):
        total = sum(sphere.harmonic_multiplicity(dim, degree) for degree in range(6))
        assert total == math.comb(5 + dim - 1, dim - 1) + math.comb(4 + dim - 1, dim - 1)


@pytest.mark.parametrize(("dim", "degree", "name"), [(1, 1, "dim"), (3, -1, "degree")])
def test_multiplicity_refuses(dim, degree, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        sphere.harmonic_multiplicity(dim, degree)


def test_points_are_on_the_device_that_is_asked_for():
    torch.set_default_device("meta")
    try:
        made = [
            sphere.uniform(3, 2),
            sphere.circle(3),
            sphere.simplex(3, 2),
            sphere.cross_polytope(2),
            sphere.blocks([3, 2], 4),
        ]
    finally:
        torch.set_default_device(None)
    assert all(x.device.type == "cpu" and x.isfinite().all() for x in made)
    assert sphere.simplex(3, 2, device="meta").device.type == "meta"


@pytest.mark.parametrize(("sizes", "dim"), [([4], 3), ([3, 2], 3), ([2, 2, 2], 3), ([4, 3, 2], 9)])
def test_blocks_are_orthogonal_simplices(sizes, dim):
    x = sphere.blocks(sizes, dim)
    assert x.shape == (sum(sizes), dim)
    block = [k for k, size in enumerate(sizes) for _ in range(size)]
    for i, j in itertools.product(range(len(x)), repeat=2):
        inside = -1 / (sizes[block[i]] - 1) if block[i] == block[j] else 0
        assert float(x[i] @ x[j]) == pytest.approx(1 if i == j else inside, abs=1e-14)


def test_block_sizes_are_all_partitions_that_span():
    for n, dim in ((4, 3), (6, 4), (8, 4), (9, 6), (10, 7)):
        found = sphere.block_sizes(n, dim)
        brute = {
            tuple(sorted(sizes, reverse=True))
            for sizes in itertools.product(range(2, n + 1), repeat=n - dim)
            if sum(sizes) == n
        }
        assert len(found) == len(set(found))
        assert set(found) == brute


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sphere.blocks([3, 1], 4), "sizes must be an integer of at least 2, got 1"),
        (lambda: sphere.blocks([3, 3], 3), r"blocks of \[3, 3\] span 4"),
        (lambda: sphere.block_sizes(9, 4), "n must be an integer between 5 and 8"),
        (lambda: sphere.inner_products(1), "dim must be an integer of at least 2, got 1"),
        (lambda: sphere.mean(lambda t: t, 1), "dim must be an integer of at least 2, got 1"),
        (lambda: sphere.log_mean_exponential(3, math.inf), "scale must be finite, got inf"),
    ],
)
def test_more_that_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 40])
def test_inner_products_of_uniform_points_follow_their_law(dim):
    x, y = (sphere.uniform(20_000, dim, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    law = sphere.inner_products(dim)
    assert stats.kstest((x * y).sum(1).numpy(), law.cdf).pvalue > 1e-3
    assert law.mean() == pytest.approx(0, abs=1e-12)
    assert law.var() == pytest.approx(1 / dim)
    constant = special.gamma(dim / 2) / (math.sqrt(math.pi) * special.gamma((dim - 1) / 2))
    assert law.pdf(0.3) == pytest.approx(constant * 0.91 ** ((dim - 3) / 2))


@pytest.mark.parametrize("dim", [2, 3, 8, 129])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.5, -3.0, 20.0, 500.0])
def test_mean_exponential_is_that_of_bessel_and_of_quadrature(dim, scale):
    value = sphere.log_mean_exponential(dim, scale)
    if scale:
        c, order = abs(scale), dim / 2 - 1
        bessel = math.log(special.ive(order, c)) + c if special.ive(order, c) > 1e-280 else None
        if bessel is not None:
            expected = bessel + special.gammaln(dim / 2) + order * math.log(2 / c)
            assert value == pytest.approx(expected, rel=1e-11, abs=1e-12)
    top = abs(scale)
    mean = sphere.mean(lambda t: torch.exp(scale * t - top), dim, nodes=2000)
    assert value == pytest.approx(math.log(mean) + top, rel=1e-10, abs=1e-12)


def test_mean_exponential_beyond_the_range_of_floats():
    assert sphere.log_mean_exponential(3, 1e4) == pytest.approx(1e4 - math.log(2e4), rel=1e-12)
    assert sphere.log_mean_exponential(100_000, 1.0) == pytest.approx(0.5e-5, rel=1e-4)


def test_mean_of_polynomials_is_that_of_moments():
    for dim in (2, 5, 16):
        assert sphere.mean(lambda t: t**2, dim, nodes=3) == pytest.approx(1 / dim)
        fourth = sphere.mean(lambda t: t**4, dim, nodes=3)
        assert fourth == pytest.approx(3 / (dim * (dim + 2)))
