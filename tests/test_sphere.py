import math

import pytest
import torch
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
        ]
    finally:
        torch.set_default_device(None)
    assert all(x.device.type == "cpu" and x.isfinite().all() for x in made)
    assert sphere.simplex(3, 2, device="meta").device.type == "meta"
