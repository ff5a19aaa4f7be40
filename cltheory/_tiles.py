r"""The matrix of all pairs of rows in pieces: square tiles, or panels of whole rows.

A piece lies in a buffer that the next one takes. Tiles hold powers of two of the logits less one
common shift, so that their sums are sums over the matrix; panels hold the logits themselves.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cltheory import _validate

TILE = {"cpu": 512, "cuda": 4096}
"""Rows and columns of a tile; on the CPU, one fits in a cache of the second level."""
PANEL = {"cpu": 2**20, "cuda": 2**26}
"""Entries of a panel of whole rows."""
PANEL_ROWS = 64
"""A panel has no fewer rows than this; products of thinner ones are slow."""
SINGLE_LOGIT = 32.0
"""Up to this size float32 logits of a few hundred dimensions err by about 1e-6; above, float64."""

CLOSE = {torch.float32: 3e-2, torch.float64: 1e-6}
"""Rows whose squared distance is less than this share of their squared norms are close."""
CLOSE_PAIRS = 2**15
"""Differences of this many close pairs are held at once."""

# Powers of two: a sum of tiles is trusted above LEAST, and its largest term is at most 2^LARGEST.
# In between, nothing overflows, and what falls below the least normal number does not count.
_LARGEST = {torch.float32: 100.0, torch.float64: 900.0}
_LEAST = {torch.float32: -80.0, torch.float64: -900.0}
_NORMAL = {torch.float32: -126.0, torch.float64: -1022.0}

Offsets = tuple[int, ...]
"""Pairs that a sum leaves out, by the offset j - i of their rows."""


def logit_bound(x: Tensor, y: Tensor, scale: float) -> float:
    r"""Bound :math:`\max_i |x_i| \max_j |y_j|` on the logits, by Cauchy and Schwarz."""
    norms = [
        float(torch.linalg.vector_norm(points.detach(), dim=1).amax())
        for points in ((x,) if y is x else (x, y))
    ]
    bound = scale * norms[0] * norms[-1]
    if not bound <= torch.finfo(x.dtype).max:
        _validate.finite(x, "x")
        _validate.finite(y, "y")
        raise ValueError(f"x and y must have finite logits, got norms up to {max(norms):.3g}")
    return bound


def _logit_dtype(x: Tensor, bound: float) -> torch.dtype:
    return torch.float64 if bound > SINGLE_LOGIT else x.dtype


def common_shift(x: Tensor, bound: float) -> float:
    """Exponent of two that all tiles leave out, so that no power in them overflows."""
    return max(0.0, bound / math.log(2) - _LARGEST[x.dtype])


def diagonals(
    part: Tensor, row: int, column: int, offsets: Offsets, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Diagonals at these offsets of the part of the matrix that starts here, and their rows."""
    for offset in offsets:
        for start in (offset + row - column, offset - size + row - column):
            if -part.shape[0] < start < part.shape[1]:
                entries = part.diagonal(start)
                first = max(0, -start)
                yield slice(first, first + len(entries)), entries


def tiles(
    x: Tensor, y: Tensor, scale: float, excluded: Offsets, bound: float
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of the powers 2^(logit / log 2 - shift), in one buffer; excluded entries are 0.

    If y is x, these are the tiles on and above the diagonal.
    """
    side, dtype, shift = TILE[x.device.type], _logit_dtype(x, bound), common_shift(x, bound)
    left = x.to(dtype)
    right = left if y is x else y.to(dtype)
    size = min(side, len(x)) * min(side, len(y))
    powers = x.new_empty(size)
    logits = powers if dtype == x.dtype else x.new_empty(size, dtype=dtype)
    for i in range(0, len(x), side):
        for j in range(i if y is x else 0, len(y), side):
            rows, columns = slice(i, min(i + side, len(x))), slice(j, min(j + side, len(y)))
            shape = rows.stop - i, columns.stop - j
            tile, logit = (b[: math.prod(shape)].view(shape) for b in (powers, logits))
            logit.addmm_(left[rows], right[columns].mT, beta=0, alpha=scale / math.log(2))
            if shift or dtype != x.dtype:
                torch.sub(logit, shift, out=tile)
                tile.clamp_(min=_NORMAL[x.dtype])  # smaller powers are slow to compute
            tile.exp2_()
            for _, entries in diagonals(tile, i, j, excluded, len(y)):
                entries.zero_()
            yield rows, columns, tile


def tile_sums(
    x: Tensor, y: Tensor, scale: float, excluded: Offsets, bound: float
) -> tuple[list[Tensor], Tensor | None]:
    """Logarithms of row and column sums, none if one underflows; the tile, if there is but one."""
    rows = x.new_zeros(len(x), dtype=torch.float64)
    sums = [rows] if y is x else [rows, rows.new_zeros(len(y))]
    for i, j, tile in tiles(x, y, scale, excluded, bound):
        rows[i].add_(tile.sum(1))
        if y is not x or i != j:
            sums[-1][j].add_(tile.sum(0))
    if not all(s.amin() >= 2 ** _LEAST[x.dtype] for s in sums):
        return [], None
    shift = common_shift(x, bound) * math.log(2)
    return [s.log_().add_(shift) for s in sums], tile if tile.shape == (len(x), len(y)) else None


def add_tile_gradients(
    tiles: Iterable[tuple[slice, slice, Tensor]],
    x: Tensor,
    y: Tensor,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> None:
    """Add the sums of w_ij y_j and w_ij x_i, for w_ij = (a_i + b_j) times the power of a pair."""
    for i, j, tile in tiles:
        w = (weights[0][i, None] + weights[-1][j]).mul_(tile)
        gradients[0][i].addmm_(w, y[j])
        if y is not x or i != j:
            gradients[-1][j].addmm_(w.mT, x[i])


def panels(
    x: Tensor, y: Tensor, scale: float, excluded: Offsets, bound: float
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Logits of whole rows, minus infinity where excluded, and a buffer of the dtype of x."""
    dtype = _logit_dtype(x, bound)
    left, right = x.to(dtype), y.to(dtype)
    height = min(len(x), max(PANEL_ROWS, PANEL[x.device.type] // len(y)))
    buffer = x.new_empty(height, len(y))
    logits = buffer if dtype == x.dtype else x.new_empty(height, len(y), dtype=dtype)
    for i in range(0, len(x), height):
        rows = slice(i, min(i + height, len(x)))
        panel = logits[: rows.stop - i]
        panel.addmm_(left[rows], right.mT, beta=0, alpha=scale)
        for _, entries in diagonals(panel, i, 0, excluded, len(y)):
            entries.fill_(-math.inf)
        yield rows, panel, buffer[: rows.stop - i]


def powers(logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Write powers of e, each row relative to its largest, to `out`; their sums, and log sums."""
    top = logits.amax(1, keepdim=True)
    torch.sub(logits, top, out=out)
    total = out.mul_(1 / math.log(2)).exp2_().sum(1)  # faster than exp_
    return total, total.double().log().add_(top[:, 0])


def add_panel_gradients(
    rows: slice, weights: Tensor, x: Tensor, y: Tensor, gradients: Sequence[Tensor]
) -> None:
    """Add the sums of w_ij y_j and w_ij x_i over the rows of a panel."""
    gradients[0][rows].addmm_(weights, y)
    gradients[-1].addmm_(weights.mT, x[rows])


def distance_tiles(
    x: Tensor,
) -> Iterator[tuple[slice, slice, Tensor, tuple[Tensor, ...]]]:
    """Tiles of squared distances in one buffer, 1 on the diagonal; where pairs are close."""
    side, squares = TILE[x.device.type], (x * x).sum(1)
    buffer = x.new_empty(min(side, len(x)) ** 2)
    for i in range(0, len(x), side):
        for j in range(i, len(x), side):
            rows, columns = slice(i, min(i + side, len(x))), slice(j, min(j + side, len(x)))
            shape = rows.stop - i, columns.stop - j
            tile = buffer[: math.prod(shape)].view(shape)
            torch.add(squares[rows, None], squares[columns], out=tile)
            tile.addmm_(x[rows], x[columns].mT, alpha=-2)
            if i == j:
                tile.fill_diagonal_(math.inf)
            share = CLOSE[x.dtype]
            none = torch.zeros(0, dtype=torch.long, device=x.device)
            near: tuple[Tensor, ...] = (none, none)
            if tile.amin() <= share * (squares[rows].amax() + squares[columns].amax()):
                close = tile <= share * (squares[rows, None] + squares[columns])
                near = close.nonzero(as_tuple=True)
                tile[near] = 1
            if i == j:
                tile.fill_diagonal_(1)
            yield rows, columns, tile, near
