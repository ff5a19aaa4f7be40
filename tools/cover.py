"""The book's cover, its icon and its card for links, drawn by the book's own functions.

Three spheres for three of its parts: an eigenfunction of every kernel on the sphere, the simplex on
which the best small batch lies, and the uniform law that large batches approach.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.spatial.transform import Rotation
from scipy.special import eval_gegenbauer

from cltheory import sphere
from cltheory.figures import BLUE, GREY, INK, ORANGE

ALT = (
    "Three spheres. On the first, bands of a zonal eigenfunction; in the second, a regular "
    "tetrahedron whose corners are the features of four pairs; on the third, evenly spread points."
)
CAPTION = (
    "An eigenfunction that all kernels on the sphere share; the best batch of four pairs; "
    "the uniform law that larger batches approach."
)
PIXELS = (1200, 630)
"""Of the card that other sites show beside a link."""

_VIEW = Rotation.from_euler("xyz", [-38, 28, 12], degrees=True).as_matrix()
"""The pole of every sphere leans towards the viewer."""


def write(folder: Path, title: str) -> None:
    """Write ``cover.svg``, ``favicon.svg`` and ``card.png``, the same bytes each time."""
    with mpl.rc_context({"svg.hashsalt": "cltheory", "svg.fonttype": "path"}):
        quiet = {"Date": None, "Creator": None}
        cover().savefig(folder / "cover.svg", metadata=quiet, transparent=True)
    card(title).savefig(folder / "card.png", metadata={"Software": None})
    (folder / "favicon.svg").write_text(icon(), encoding="utf-8")


def cover() -> Figure:
    """Draw the three spheres side by side."""
    figure = Figure(figsize=(7.2, 2.4))
    _spheres(figure, bottom=0.0, height=1.0)
    return figure


def card(title: str) -> Figure:
    """Draw the title over the three spheres."""
    figure = Figure(figsize=(PIXELS[0] / 100, PIXELS[1] / 100), dpi=100, facecolor="white")
    _spheres(figure, bottom=0.06, height=0.62)
    figure.text(0.5, 0.82, title, ha="center", va="center", size=30, color=INK, weight="bold")
    return figure


def icon() -> str:
    """Return the icon as SVG: the best batch of three pairs on a circle."""
    corners = 32 + 22 * sphere.simplex(3, 2).numpy()
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>' for x, y in corners)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">'
        f'<circle cx="32" cy="32" r="31" fill="{BLUE}"/>'
        f'<g fill="white"><polygon points="{line}" fill="none" stroke="white" stroke-width="4"/>'
        f"{dots}</g></svg>\n"
    )


def _spheres(figure: Figure, *, bottom: float, height: float) -> None:
    for place, draw in enumerate((_eigenfunction, _simplex, _uniform)):
        axes = figure.add_axes((place / 3, bottom, 1 / 3, height))
        axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
        axes.axis("off")
        draw(axes)
        angle = np.linspace(0, 2 * math.pi, 200)
        axes.plot(np.cos(angle), np.sin(angle), color=GREY, lw=1.2)


def _eigenfunction(axes: mpl.axes.Axes) -> None:
    """The zonal harmonic of degree 5, seen from outside."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, 75)] * 2)
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    unseen = x**2 + y**2 > 1.05
    height = np.clip(np.stack([x, y, z], -1) @ _VIEW[:, 2], -1, 1)
    values = np.ma.array(eval_gegenbauer(5, 0.5, height), mask=unseen)
    colours = LinearSegmentedColormap.from_list("bands", [BLUE, "white", ORANGE])
    axes.add_patch(Circle((0, 0), 1, color="white"))
    bands = axes.contourf(x, y, values, np.linspace(-0.5, 0.5, 8), cmap=colours, extend="both")
    bands.set_clip_path(Circle((0, 0), 1, transform=axes.transData))


def _simplex(axes: mpl.axes.Axes) -> None:
    """Four unit vectors of which each pair has the inner product -1/3."""
    corners = sphere.simplex(4, 3).numpy() @ _VIEW.T
    for i in range(4):
        for j in range(i):
            behind = corners[[i, j], 2].mean() < 0
            axes.plot(*corners[[i, j], :2].T, color=BLUE, lw=1.8, alpha=0.55 if behind else 1)
    _points(axes, corners, ORANGE, 8)


def _uniform(axes: mpl.axes.Axes) -> None:
    """Points of a spiral whose turns hold equal areas."""
    count = 240
    k = np.arange(count)
    height, angle = 1 - (2 * k + 1) / count, k * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - height**2)
    points = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], -1)
    _points(axes, points @ _VIEW.T, BLUE, 4)


def _points(axes: mpl.axes.Axes, points: np.ndarray, colour: str, size: float) -> None:
    """Draw points of the sphere in slices, far ones first, smaller and fainter."""
    edges = np.linspace(-1, 1, 7)
    for back, front in pairwise(edges):
        slab = points[(back <= points[:, 2]) & (points[:, 2] <= front)]
        near = (1 + front) / 2
        look = {"ms": size * (0.5 + 0.5 * near), "alpha": 0.45 + 0.55 * near}
        axes.plot(*slab[:, :2].T, "o", color=colour, mew=0, zorder=3, **look)
