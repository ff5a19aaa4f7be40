"""The look of the book's pictures: colours for every eye, sizes, panels."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY = "#1f2328", "#9aa0a6"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa3377"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
SHADES = ("#b3cde3", "#6497b1", "#2f6c99", "#03396c")
"""Four blues from light to dark, for stages of one process."""
MARKERS = ("o", "s", "^", "D")


def style() -> None:
    """Set Matplotlib's parameters: type, grid, resolution, colours.

    Examples
    --------
    >>> with mpl.rc_context():
    ...     style()
    ...     mpl.rcParams["axes.grid"]
    True
    """
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

    Examples
    --------
    >>> axes = panels(2, height=2.5)
    >>> axes.shape, axes[0].figure.get_size_inches()
    ((2,), array([7.2, 2.5]))
    >>> plt.close(axes[0].figure)
    """
    _, axes = plt.subplots(rows, columns, figsize=(7.2 if columns > 1 else 5.0, rows * height))
    return axes


def matrix(axes: Axes, values: Float[Tensor, "n m"], *, symmetric: bool = False) -> None:
    """Draw a matrix with a colour bar; ``symmetric`` centres the colours at zero.

    Examples
    --------
    >>> import torch
    >>> axes = panels(1)
    >>> matrix(axes, torch.tensor([[1.0, -3.0], [0.0, 2.0]]), symmetric=True)
    >>> axes.images[0].get_clim()
    (-3.0, 3.0)
    >>> plt.close(axes.figure)
    """
    limit = float(values.abs().max())
    options: dict[str, Any] = (
        {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if symmetric else {"cmap": "viridis"}
    )
    picture = axes.imshow(values.detach().cpu().numpy(), **options)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.figure.colorbar(picture, ax=axes, shrink=0.85)


@dataclass(frozen=True)
class Frame:
    """A stage of a :class:`Stepper`: a short label, words for those who do not see it, a figure.

    Examples
    --------
    >>> frame = Frame("start", "Points all over a circle.", plt.figure())
    >>> frame.label
    'start'
    >>> plt.close(frame.figure)
    """

    label: str
    alt: str
    figure: Figure


class Stepper:
    """Pictures of stages, of which the reader chooses one by radio buttons.

    It is plain HTML and CSS: it works without a server and without scripts, nothing moves by
    itself, and the arrow keys step. A browser that is too old shows all stages, as does paper.

    Parameters
    ----------
    name : str
        Identifier of the figure in its page, to link to.
    frames : sequence of Frame
        At least two; their figures are closed.
    caption : str
        What is to be seen, in plain words.
    legend : str
        What the buttons choose.

    Raises
    ------
    ValueError
        If there are fewer than two frames.

    Examples
    --------
    >>> frames = [Frame(f"step {k}", f"Points after {k} steps.", plt.figure()) for k in (0, 10)]
    >>> Stepper("points", frames, caption="Points spread over a circle.")
    Stage: step 0 | step 10
    """

    def __init__(
        self, name: str, frames: Sequence[Frame], *, caption: str, legend: str = "Stage"
    ) -> None:
        if len(frames) < 2:
            raise ValueError(f"frames must hold at least 2 stages, got {len(frames)}")
        self.name, self.caption, self.legend = name, caption, legend
        self.labels = [frame.label for frame in frames]
        self.images = [(frame.alt, _svg(frame.figure)) for frame in frames]

    def __repr__(self) -> str:
        """Name the stages, for readers of text."""
        return f"{self.legend}: {' | '.join(self.labels)}"

    def _repr_html_(self) -> str:
        """Give the figure as HTML with its own style."""
        quote = html.escape
        hidden = f"#{self.name} .frame {{ display: none; }}"
        shown = ", ".join(
            f'#{self.name}:has(input[value="{k}"]:checked) .frame:nth-of-type({k})'
            for k in range(1, len(self.images) + 1)
        )
        style = (
            f"@media screen {{ @supports selector(:has(*)) {{ {hidden} "
            f"{shown} {{ display: block; }} }} }}"
        )
        buttons = "".join(
            f'<label><input type="radio" name="{self.name}" value="{k}"'
            f"{' checked' if k == 1 else ''}> {quote(label)}</label> "
            for k, label in enumerate(self.labels, 1)
        )
        frames = "".join(
            f'<div class="frame"><img alt="{quote(alt)}" src="data:image/svg+xml;base64,{image}">'
            "</div>"
            for alt, image in self.images
        )
        return (
            f'<figure class="stepper" id="{self.name}"><style>{style}</style>'
            f"<fieldset><legend>{quote(self.legend)}</legend>{buttons}</fieldset>"
            f'<div class="frames">{frames}</div>'
            f"<figcaption>{quote(self.caption)}</figcaption></figure>"
        )


def _svg(figure: Figure) -> str:
    """Draw a figure as SVG, the same bytes each time, in base64; and close it."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "cltheory", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return base64.b64encode(file.getvalue().encode()).decode()
