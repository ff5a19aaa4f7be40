"""What all property tests draw: points, laws, Gram matrices, with the corners where things break.

Hypothesis chooses shapes, arrangements and seeds; numbers come from a seeded generator, in float64.
"""

import math

import torch
from hypothesis import strategies as st
from torch.nn.functional import normalize

ARRANGEMENTS = ("generic", "duplicates", "antipodes", "collapsed", "line", "cluster")
SPECTRA = ("distinct", "degenerate", "deficient", "zero", "wide")

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 6)
dims = st.integers(1, 5)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def log_uniform(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


temperatures = log_uniform(1e-3, 1e3)


def arranged(rows, arrangement):
    """Move rows to where a distance, an angle or a variance vanishes."""
    first, signs = rows[:1], torch.ones(len(rows), 1, dtype=rows.dtype)
    signs[::2] = -1
    return {
        "generic": rows,
        "duplicates": torch.cat([first, first, rows[2:]])[: len(rows)],
        "antipodes": torch.cat([first, -first, rows[2:]])[: len(rows)],
        "collapsed": first.expand(len(rows), -1).clone(),
        "line": signs * first,
        "cluster": first + 1e-4 * rows,
    }[arrangement]


@st.composite
def unit_rows(draw, n=sizes, dim=dims, arrangements=ARRANGEMENTS):
    rows = normal(draw(seeds), draw(n), draw(dim))
    return normalize(arranged(rows, draw(st.sampled_from(arrangements))), dim=1)


@st.composite
def points(draw, n=sizes, dim=dims, arrangements=ARRANGEMENTS):
    """Rows of any norm."""
    rows = draw(unit_rows(n, dim, arrangements))
    return rows * normal(draw(seeds), len(rows), 1).abs().add(0.1)


@st.composite
def views(draw, rows=None, dim=dims, arrangements=ARRANGEMENTS):
    """Two views of one shape: equal, opposite, near, or strangers."""
    z1 = draw(unit_rows(dim=dim, arrangements=arrangements) if rows is None else rows)
    noise = normal(draw(seeds), *z1.shape)
    strength = draw(st.sampled_from([0.0, 1e-6, 0.3, 1e3]))
    z2 = draw(st.sampled_from([-1, 1])) * z1 + strength * noise
    return z1, normalize(z2, dim=1)


@st.composite
def scattered(draw):
    """Two views without a corner: columns vary, and rows differ."""
    z1, z2 = normal(draw(seeds), 2, draw(sizes), draw(dims))
    return z1, z1 + z2


def rotation(seed, dim):
    """An orthogonal matrix, a reflection half of the time."""
    return torch.linalg.qr(normal(seed, dim, dim)).Q


def permutation(seed, n):
    return torch.randperm(n, generator=generator(seed))


def spectrum(kind, n):
    """Eigenvalues, descending."""
    falling = torch.linspace(2, 1, n, dtype=torch.float64)
    return {
        "distinct": falling,
        "degenerate": torch.ones(n, dtype=torch.float64),
        "deficient": torch.where(torch.arange(n) < (n + 1) // 2, falling, 0),
        "zero": 0 * falling,
        "wide": 10.0 ** -torch.arange(0, 3 * n, 3, dtype=torch.float64),
    }[kind]


@st.composite
def grams(draw, n=sizes, kinds=SPECTRA):
    """A symmetric matrix of a spectrum that is known, as (matrix, eigenvalues)."""
    values = spectrum(draw(st.sampled_from(kinds)), draw(n))
    basis = rotation(draw(seeds), len(values))
    matrix = basis * values @ basis.mT
    return (matrix + matrix.mT) / 2, values


matrices = grams().map(lambda drawn: drawn[0])


@st.composite
def laws(draw, n=sizes, least=1e-300):
    """Positive numbers that sum to one, some of them as small as `least`."""
    count = draw(n)
    weights = torch.rand(count, generator=generator(draw(seeds)), dtype=torch.float64) + 0.1
    tiny = draw(st.sampled_from([1.0, 1e-8, least]))
    weights[0] *= tiny
    return weights / weights.sum()


@st.composite
def joints(draw, n=sizes, least=1e-300):
    """The joint law of a positive pair: generic, with tiny masses, disconnected, or independent."""
    p = draw(laws(n, least))
    kind = draw(st.sampled_from(["independent", "identical", "generic"]))
    if kind == "identical":
        return torch.diag(p)
    joint = torch.outer(p, p).clamp(min=least * p.min() / 2)
    if kind == "generic":
        tilt = normal(draw(seeds), len(p), len(p)).exp()
        joint = joint * (tilt + tilt.mT)
    return joint / joint.sum()
