"""Flows between labels as ribbons between bars, as the paper draws them (Fig. 5)."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from .style import COLOURS, WIDTH

#: Width of a bar, and the space between two that stand on each other; a panel is 1 wide and 1 high.
BAR = 0.07
GAP = 0.035


def alluvial(flows: dict[str, pd.DataFrame], zoom: str | None = "SCU"):
    """Fig. 5: what became of every label, a panel a flow.

    `flows`: title -> shares or counts, before x after. `zoom`: a second row shows the units of this
    label alone, enlarged.
    """
    n_rows = 2 if zoom else 1
    n_columns = len(flows)
    size = (min(WIDTH, 3.4 * n_columns), 3.4 * n_rows)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for column, (title, counts) in enumerate(flows.items()):
        ribbons(axes[0, column], counts / counts.to_numpy().sum())
        axes[0, column].set_title(fill(title, 20))
        if zoom:
            of_zoom = counts.mul(counts.index == zoom, axis="index")
            ribbons(axes[1, column], of_zoom / of_zoom.to_numpy().sum())
    axes[0, 0].set_ylabel("all units (%)")
    if zoom:
        axes[1, 0].set_ylabel(f"{zoom} alone (% of them)")
    return figure


def ribbons(axis, shares: pd.DataFrame) -> None:
    """One flow: bars of the labels before (left) and after (right) with their per cents.

    The ribbons between them have the colour of before.
    """
    before = shares.sum(axis="columns")
    after = shares.sum(axis="index")
    _bars(axis, before, x=0, text_x=-0.02, align="right")
    _bars(axis, after, x=1 - BAR, text_x=1.02, align="left")
    left = _tops(before)
    right = _tops(after)
    for source in shares.index:
        for target in shares.columns:
            size = shares.loc[source, target]
            _ribbon(axis, left[source], right[target], size, COLOURS[source])
            left[source] -= size
            right[target] -= size
    axis.set_xlim(-0.24, 1.24)
    axis.set_ylim(-0.04, 1 + GAP * 3 + 0.03)
    axis.set(xticks=[], yticks=[], xlabel="before → after")
    axis.spines[:].set_visible(False)


def _bars(axis, sizes: pd.Series, x: float, text_x: float, align: str) -> None:
    """One side of a flow: a bar a label, with its name and per cent beside it."""
    tops = _tops(sizes)
    for label, size in sizes[sizes > 0].items():
        bottom = tops[label] - size
        middle = tops[label] - size / 2
        axis.add_patch(Rectangle(
            (x, bottom), BAR, size,
            facecolor=COLOURS[label], linewidth=0, zorder=3))
        axis.text(
            text_x, middle, f"{label}\n{size * 100:.1f}",
            ha=align, va="center", fontsize=9, linespacing=0.95)


def _tops(sizes: pd.Series) -> pd.Series:
    """Upper ends of bars that stand on each other with gaps, by label, the first on top."""
    n = len(sizes)
    above = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return pd.Series(1 + GAP * (n - 1) - above - GAP * np.arange(n), index=sizes.index)


def _ribbon(axis, left: float, right: float, size: float, colour: str) -> None:
    """A band of constant height from a left bar to a right one, as two Bézier curves."""
    if size == 0:
        return
    start = BAR
    end = 1 - BAR
    middle = 0.5
    corners = [
        (start, left),
        (middle, left), (middle, right), (end, right),
        (end, right - size),
        (middle, right - size), (middle, left - size), (start, left - size),
        (start, left)]
    curve = [Path.CURVE4] * 3
    codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
    # an edge, so that also a flow of a few units is seen
    axis.add_patch(PathPatch(
        Path(corners, codes),
        facecolor=colour, edgecolor=colour, alpha=0.45, linewidth=0.5))
