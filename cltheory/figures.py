"""The look of the book's pictures: colours for every eye, sizes, panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes

INK, GREY = "#1f2328", "#9aa0a6"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa3377"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
SHADES = ("#b3cde3", "#6497b1", "#2f6c99", "#03396c")
"""Four blues from light to dark, for stages of one process."""
MARKERS = ("o", "s", "^", "D")


def style() -> None:
    """Set Matplotlib's parameters: type, grid, resolution, colours."""
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 160,
            "figure.facecolor": "white",
            "font.size": 10,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 4.5,
        }
    )


def panels(columns: int, rows: int = 1, *, height: float = 3.0) -> Any:
    """Return the axes of a figure as wide as the page's text, one or several panels.

    Parameters
    ----------
    columns, rows : int
        How many panels; one panel comes as an Axes, several as an array of Axes.
    height : float
        Height of a row in inches.

    Returns
    -------
    matplotlib.axes.Axes or numpy.ndarray of Axes
        The panels.
    """
    _, axes = plt.subplots(rows, columns, figsize=(7.2 if columns > 1 else 5.0, rows * height))
    return axes


def matrix(axes: Axes, values: Float[Tensor, "n m"], *, symmetric: bool = False) -> None:
    """Draw a matrix with a colour bar; ``symmetric`` centres the colours at zero."""
    limit = float(values.abs().max())
    options: dict[str, Any] = (
        {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if symmetric else {"cmap": "viridis"}
    )
    picture = axes.imshow(values.detach().cpu().numpy(), **options)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.figure.colorbar(picture, ax=axes, shrink=0.85)
