"""Factored eigenspaces against the full matrix, angles against their definition."""

import math

import pytest
import torch

from cltheory import pca, triplets


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def orthonormal(n, k, seed=0):
    return torch.linalg.qr(normal(n, k, seed=seed)).Q


MIDDLE = triplets.matrix(triplets.disjoint(3), 9)


@pytest.mark.parametrize("width", [9, 10, 40])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_eigenspace_is_that_of_the_full_matrix(width, rank):
    features = normal(9, width)
    full = features.T @ MIDDLE @ features
    values, vectors = torch.linalg.eigh(full)
    found = pca.eigenspace(features, MIDDLE, rank)
    top = vectors.flip(1)[:, :rank]
    torch.testing.assert_close(found.values[:3], values.flip(0)[:3])
    torch.testing.assert_close(found.vectors @ found.vectors.T, top @ top.T)
    torch.testing.assert_close(found.gap, values[-rank] - values[-rank - 1])
    reduced = found.vectors.T @ full @ found.vectors
    torch.testing.assert_close(reduced, torch.diag(found.values[:rank]))


def test_gap_to_the_null_space_or_below():
    middle = torch.diag(torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64))
    wide, square = torch.eye(3, 5, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    assert pca.eigenspace(wide, middle, 1).gap == 2
    assert pca.eigenspace(wide, middle, 2).gap == 1
    assert pca.eigenspace(square, middle, 2).gap == 3
    assert pca.eigenspace(wide, square, 3).gap == 1


def test_eigenspace_of_a_stack():
    stack = normal(4, 9, 20)
    found = pca.eigenspace(stack, MIDDLE, 2)
    one = pca.eigenspace(stack[2], MIDDLE, 2)
    torch.testing.assert_close(found.values[2], one.values)
    torch.testing.assert_close(found.gap[2], one.gap)
    assert pca.principal_angles(found.vectors[2], one.vectors).max() < 1e-12


def test_change_is_the_norm_of_the_difference():
    before, after = normal(9, 20), normal(9, 20, seed=1)
    full = after.T @ MIDDLE @ after - before.T @ MIDDLE @ before
    torch.testing.assert_close(pca.change(before, after, MIDDLE), full.norm())
    stack = torch.stack([before, after])
    torch.testing.assert_close(
        pca.change(stack, stack.flip(0), MIDDLE), full.norm() * torch.ones(2, dtype=torch.float64)
    )
    assert pca.change(before, before, MIDDLE) == 0


@pytest.mark.parametrize("size", [1e-3, 1e-8, 1e-12])
def test_small_changes_keep_their_digits(size):
    """Linear in the step, to first order: the slope at any size is the derivative."""
    before, step = normal(9, 20), normal(9, 20, seed=1)
    half = step.T @ MIDDLE @ before
    found = pca.change(before, before + size * step, MIDDLE) / size
    assert found.item() == pytest.approx((half + half.T).norm().item(), rel=3 * size + 1e-3)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 0.3, 1.2, math.pi / 2 - 1e-9, math.pi / 2])
def test_angles_keep_their_digits(angle):
    u = torch.eye(5, 2, dtype=torch.float64)
    v = torch.zeros(5, 2, dtype=torch.float64)
    v[1, 0] = 1
    v[0, 1], v[3, 1] = math.cos(angle), math.sin(angle)
    turn = orthonormal(5, 5)
    mix = orthonormal(2, 2, seed=1)
    found = pca.principal_angles(turn @ u, turn @ v @ mix)
    assert found[0].item() == pytest.approx(0, abs=1e-15)
    assert found[1].item() == pytest.approx(angle, rel=1e-3 if angle < 1e-9 else 1e-9, abs=1e-15)


def test_angles_have_the_norm_of_the_projectors():
    u, v = orthonormal(8, 3), orthonormal(8, 3, seed=1)
    angles = pca.principal_angles(u, v)
    gap = (u @ u.T - v @ v.T).norm() / math.sqrt(2)
    torch.testing.assert_close(angles.sin().norm(), gap)
    assert (angles.diff() >= 0).all()
    torch.testing.assert_close(pca.principal_angles(v, u), angles)


def test_no_stray_allocation():
    features = normal(9, 20)
    torch.set_default_device("meta")
    try:
        assert pca.eigenspace(features, MIDDLE, 2).vectors.device.type == "cpu"
        assert pca.change(features, features, MIDDLE).device.type == "cpu"
    finally:
        torch.set_default_device("cpu")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pca.eigenspace(normal(9, 20), MIDDLE, 4), "rank must be at most 3.*got 4"),
        (lambda: pca.eigenspace(normal(9, 20), MIDDLE, 0), "rank must be an integer between 1"),
        (lambda: pca.eigenspace(normal(9, 8), MIDDLE, 1), "as many columns as rows, got 9 x 8"),
        (lambda: pca.eigenspace(normal(8, 20), MIDDLE, 1), "one row for each of the 9"),
        (lambda: pca.eigenspace(normal(9, 20), normal(9, 9), 1), "middle must be symmetric"),
        (lambda: pca.change(normal(9, 20), normal(9, 21), MIDDLE), "after must have the shape"),
        (
            lambda: pca.principal_angles(2 * orthonormal(4, 2), orthonormal(4, 2)),
            "u must have orthonormal columns, got some off by 3",
        ),
        (lambda: pca.principal_angles(orthonormal(4, 2), orthonormal(4, 3)), "one shape"),
        (lambda: pca.orthonormal(normal(2, 4), "w"), r"w must have.*got shape \(2, 4\)"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
