import math

import numpy as np
import pytest
import torch
from scipy import optimize

from cltheory.minimise import lbfgs, newton, on_spheres


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def log_sum_exp(a, b):
    """A smooth convex function with one minimum, log sum exp(a x + b)."""
    return lambda x: torch.logsumexp(a @ x + b, 0)


def case(rng, rows=8, columns=3):
    a = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    # Rows that surround the origin: the function grows in every direction.
    return torch.cat([a, -a]), torch.randn(2 * rows, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("solver", [newton, lbfgs])
def test_the_minimum_is_that_of_scipy(rng, solver):
    for _ in range(5):
        a, b = case(rng)
        f = log_sum_exp(a, b)
        found = solver(f, torch.zeros(3, dtype=torch.float64))
        expected = optimize.minimize(
            lambda x, f=f: float(f(torch.from_numpy(x))), np.zeros(3), method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000},
        )  # fmt: skip
        assert float(f(found)) <= expected.fun + 1e-12
        np.testing.assert_allclose(found, expected.x, atol=1e-6)
        at = found.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(f(at), at)
        assert gradient.abs().max() < 1e-7


def test_newton_leaves_flat_directions_where_they_are():
    # Softmax losses do not see a common shift.
    target = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    start = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    found = newton(lambda s: torch.logsumexp(s, 0) - target @ s, start)
    assert found.mean().item() == pytest.approx(3.0, abs=1e-12)
    torch.testing.assert_close(found.softmax(0), target, rtol=0, atol=1e-14)


def test_newton_sees_small_curvatures_too():
    curvature = torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64)
    start = torch.zeros(3, dtype=torch.float64)
    found = newton(lambda x: (curvature * (x - 1).square()).sum(), start)
    torch.testing.assert_close(found, torch.ones(3, dtype=torch.float64))


def test_newton_is_damped():
    # Undamped steps from 3 leave for infinity: log cosh is flatter than its parabola.
    start = torch.tensor([3.0], dtype=torch.float64)
    assert newton(lambda x: x.cosh().log().sum(), start).abs().item() < 1e-12
    full = start - math.sinh(3) * math.cosh(3)
    assert full.abs() > 50


@pytest.mark.parametrize("solver", [newton, lbfgs])
def test_shape_dtype_and_start(rng, solver):
    start = torch.randn(2, 3, generator=rng, dtype=torch.float64)
    kept = start.clone()
    found = solver(lambda x: (x - 1).square().sum(), start)
    assert torch.equal(start, kept)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("solver", [newton, lbfgs])
def test_more_steps_come_nearer(solver):
    def quartic(x):
        return (x - 1).square().square().sum()

    start = torch.tensor([9.0], dtype=torch.float64)
    near, far = (abs(solver(quartic, start, steps=k).item() - 1) for k in (30, 2))
    assert near < far / 5


def test_nothing_is_made_on_the_default_device():
    start = torch.zeros(2, dtype=torch.float64)
    torch.set_default_device("meta")
    try:
        found = [solver(lambda x: (x - 1).square().sum(), start) for solver in (newton, lbfgs)]
        found.append(on_spheres(lambda x: x.sum(), (2,), 3, starts=2).points)
    finally:
        torch.set_default_device(None)
    assert {x.device.type for x in found} == {"cpu"}


@pytest.mark.parametrize("solver", [newton, lbfgs])
@pytest.mark.parametrize(
    ("start", "steps", "words"),
    [
        (torch.tensor([math.nan]), 5, "start must be finite"),
        (torch.tensor([1]), 5, "start must hold floating-point numbers"),
        (torch.zeros(1), 0, "steps must be an integer of at least 1, got 0"),
    ],
)
def test_bad_input(solver, start, steps, words):
    with pytest.raises(ValueError, match=words):
        solver(lambda x: x.sum(), start, steps=steps)


def rayleigh(matrix):
    return lambda x: torch.einsum("ni,ij,nj->", x, matrix, x)


def test_on_spheres_finds_the_least_eigenvalue(rng):
    matrix = torch.randn(5, 5, generator=rng, dtype=torch.float64)
    matrix = matrix + matrix.T
    found = on_spheres(rayleigh(matrix), (3,), 5, starts=6, generator=rng)
    values, vectors = np.linalg.eigh(matrix.numpy())
    np.testing.assert_allclose(found.values, 3 * values[0], rtol=1e-12)
    overlap = found.points @ torch.from_numpy(vectors[:, 0])
    torch.testing.assert_close(overlap.abs(), torch.ones(6, 3, dtype=torch.float64))
    torch.testing.assert_close(found.points.norm(dim=-1), torch.ones(6, 3, dtype=torch.float64))
    assert found.value == found.values[0]
    assert found.point is not None
    assert found.point.shape == (3, 5)


def test_starts_are_sorted_and_repeat_with_their_generator():
    def two_wells(x):
        t = x[0, 0]
        return (t - 0.9) ** 2 * (t + 0.9) ** 2 + 0.1 * t

    first, again = (
        on_spheres(two_wells, (1,), 2, starts=12, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    torch.testing.assert_close(first.values, again.values, rtol=0, atol=0)
    assert (first.values.diff() >= 0).all()
    assert first.values[-1] > first.values[0] + 0.1
    torch.testing.assert_close(
        torch.stack([two_wells(point) for point in first.points]), first.values
    )


def test_small_values_keep_their_digits(rng):
    """A value far below machine epsilon, relative to its own size."""
    found = on_spheres(lambda x: ((x[0] @ x[1] - 1) / 0.02).exp(), (2,), 2, generator=rng)
    assert found.value == pytest.approx(math.exp(-100), rel=1e-6)


def test_more_starts_than_steps_and_bad_calls(rng):
    matrix = torch.eye(3, dtype=torch.float64)
    assert on_spheres(rayleigh(matrix), (2,), 3, starts=1, steps=1).values.shape == (1,)
    with pytest.raises(ValueError, match="dim must be an integer of at least 2, got 1"):
        on_spheres(rayleigh(matrix), (2,), 1)
    with pytest.raises(ValueError, match="shape must be an integer of at least 1, got 0"):
        on_spheres(rayleigh(matrix), (0,), 3)
    with pytest.raises(ValueError, match=r"function must give a scalar, got shape \(2, 3\)"):
        on_spheres(lambda x: x, (2,), 3)
    with pytest.raises(FloatingPointError, match="function must be finite at some start"):
        on_spheres(lambda x: x.sum() * math.nan, (2,), 3)
