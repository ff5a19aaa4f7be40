"""Checks of arguments: a ValueError names the argument, what it was and what it should be."""

import math

import numpy as np
import torch
from torch import Tensor


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative error that counts as rounding: the square root of machine epsilon."""
    return math.sqrt(torch.finfo(dtype).eps)


def holds(condition: Tensor) -> bool:
    """Read a condition; it counts as true where values cannot be read (`meta`, `torch.vmap`)."""
    try:
        return bool(condition)
    except RuntimeError:
        return True


def positive(value: float, name: str) -> None:
    """Require a finite number above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")


def integer(value: int, name: str, low: int, high: int | None = None, why: str = "") -> None:
    """Require an integer between `low` and `high`; `why` explains the bounds."""
    if not isinstance(value, int) or value < low or (high is not None and value > high):
        wanted = f"of at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be an integer {wanted}{why and f' ({why})'}, got {value!r}")


def finite(x: Tensor, name: str) -> None:
    """Require floating-point entries without NaN and infinity."""
    if not x.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {x.dtype}")
    # The sum is finite as a rule, and far faster to have than a verdict on each entry.
    if not holds(x.sum().isfinite()) and not holds(x.isfinite().all()):
        count = int((~x.isfinite()).sum())
        raise ValueError(f"{name} must be finite, got {count} NaN or infinite entries")


def points(x: Tensor, name: str, least: int = 1) -> None:
    """Require a set of at least `least` points, one a row, with finite coordinates."""
    if x.ndim == 0 or x.numel() == 0 or len(x) < least:
        raise ValueError(f"{name} must hold at least {least} point(s), got shape {tuple(x.shape)}")
    finite(x, name)


def rows(x: Tensor, y: Tensor) -> None:
    """Require two sets of points as matrices with the same number of columns."""
    for points, name in ((x, "x"), (y, "y")):
        if points.ndim != 2 or points.numel() == 0:
            raise ValueError(
                f"{name} must be a matrix with one point a row, got shape {tuple(points.shape)}"
            )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must be points of one dimension, got {x.shape[1]} and {y.shape[1]} columns"
        )
    if x.dtype != y.dtype:
        raise ValueError(f"x and y must be of one dtype, got {x.dtype} and {y.dtype}")


def unit_rows(x: Tensor, name: str) -> None:
    """Require rows of norm 1, up to rounding."""
    off = (x.detach().norm(dim=1) - 1).abs().max()
    if not holds(off <= tolerance(x.dtype)):
        raise ValueError(f"{name} must have rows of norm 1, got one off by {float(off):.3g}")


def square(gram: Tensor, name: str) -> None:
    """Require a matrix with as many columns as rows."""
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.numel() == 0:
        raise ValueError(f"{name} must be a square matrix, got shape {tuple(gram.shape)}")


def symmetric(gram: Tensor, name: str) -> None:
    """Require a finite symmetric matrix, up to rounding.

    One product with a fixed random vector sees both faults, at the speed of memory and without a
    second matrix: E|(K - Kᵀ)v|² = |K - Kᵀ|², and any NaN or infinity reaches the product.
    """
    square(gram, name)
    if not gram.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {gram.dtype}")
    probe = torch.from_numpy(np.random.default_rng(0).standard_normal(len(gram))).to(gram)
    plain, transposed = gram @ probe, gram.mT @ probe
    if not holds(plain.isfinite().all()):
        finite(gram, name)
    # Relative to the largest: squares of very large or small entries leave the range.
    off, size = (plain - transposed).abs().amax(), plain.abs().amax()
    if not holds(off <= tolerance(gram.dtype) * size):
        worst = float((gram - gram.mT).abs().max())
        raise ValueError(
            f"{name} must be symmetric, got entries that differ from their mirror by up to "
            f"{worst:.3g}"
        )


def spectrum(eigenvalues: Tensor, name: str, rtol: float) -> None:
    """Require eigenvalues of a positive semidefinite matrix, up to `rtol` times the largest."""
    least = eigenvalues.min()
    if not holds(least >= -rtol * eigenvalues.abs().max()):
        raise ValueError(
            f"{name} must be positive semidefinite, got {float(least):.3g} as its most negative "
            "eigenvalue"
        )


def line(x: Tensor, name: str) -> None:
    """Require numbers, of shape (n,) or (n, 1)."""
    if x.ndim not in (1, 2) or x.numel() == 0 or x.numel() != len(x):
        raise ValueError(f"{name} must have shape (n,) or (n, 1), got shape {tuple(x.shape)}")


def values(f: Tensor, name: str, length: int, *, columns: bool = False) -> None:
    """Require finite values at `length` points; with `columns`, a matrix of them will do."""
    if f.ndim not in ((1, 2) if columns else (1,)) or len(f) != length:
        raise ValueError(
            f"{name} must hold one value for each of {length} points, got shape {tuple(f.shape)}"
        )
    finite(f, name)
