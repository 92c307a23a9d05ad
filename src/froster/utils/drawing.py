"""How the pictures look that matplotlib draws, and how they are written."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from froster.utils.files import atomic_file
from froster.utils.text import printable

# Okabe and Ito's palette: told apart by colour-blind readers too. Grey is always the frozen model.
COLOURS = ("#8c8c8c", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")

styled = rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.labelsize": 8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 9,
        "grid.color": "#e6e6e6",
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 3,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
    }
)
"""Decorates a function that draws."""


def save(figure: Figure, path: Path) -> Path:
    plain_texts(figure)
    with atomic_file(path) as part:
        figure.savefig(part, format="png", dpi=130, bbox_inches="tight")
    return path


def plain_texts(figure: Figure) -> None:
    """Texts are names and labels: a $ in them begins no formula, and controls are written out
    (names of ticks come so)."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
